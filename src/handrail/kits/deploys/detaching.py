"""`detach`: a machine leaves its group, and lives on; or ends there, where that is said.

Rules:
- Ended in its group it leaves no machine behind that nobody counts: for some services the only
  safe way.
- Put back, its group wants one more: what it wanted before, unless another was started meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handrail.core.kit_act import Stage
from handrail.errors import UsageError
from handrail.kits.deploys import terminating
from handrail.kits.deploys.choosing import insist_kept
from handrail.kits.deploys.machine_acts import At, MachineAct, Meant
from handrail.plans.effect import Effect

if TYPE_CHECKING:
    from handrail.estate.model import Resource
    from handrail.kits.deploys.choosing import Chosen
    from handrail.kits.deploys.model import Machine, MachineGroup
    from handrail.plans.model import Request


class Detach(MachineAct):
    """`KitAct` of `detach`."""

    def meant(self, resource: Resource, request: Request, chosen: Chosen) -> Meant:
        """Say who leaves which group; see `MachineAct`."""
        replaces = request.parameters.get("replace") == "true"
        if request.parameters.get("then") == "terminate":
            return terminating.meant(resource, chosen, replaces=replaces)
        machine, group = chosen.machine, chosen.group
        insist_kept(group, chosen.platform)
        if group is None and machine.state != "detached":
            raise UsageError(
                "deploys.unknown-group",
                f"{chosen.called} is in no group that it could leave",
                hint=f"handrail terminate {resource.ref}     ends it",
            )
        name = group.name if group else "its group"
        said = f"from {name}{_zone(machine)}; it lives on, and {name} counts it no more"
        effects = [Effect(resource.ref, "detach", "machine", machine.name, detail=said)]
        if replaces:
            effects.append(terminating.another(resource, name))
        full = _is_full(group, replaces=replaces)
        back = f"puts {machine.name} back into {name}"
        more = f", which then wants {group.desired + 1}" if group and replaces else ""
        return Meant(
            changes=group is not None and machine.state not in {"detached", "terminating"},
            effects=tuple(effects),
            summary=f"detach {chosen.called} from {name} on {chosen.platform.ref}",
            undo="" if full else back + more,
            irreversible=full,
            shrinks=not replaces,
            body={
                "then": "none",
                "replace": replaces,
                "group_token": group.token if group else "",
            },
        )

    def begin(self, at: At) -> None:
        """Detach, or end it; see `MachineAct`."""
        if at.text("then") == "terminate":
            terminating.begin(at)
            return
        replace = at.job.body.get("replace") is True
        at.machines.detach(at.text("group"), at.id, at.text("group_token"), replace=replace)

    def seen(self, at: At, machine: Machine | None) -> Stage | None:
        """Say how far it is; see `MachineAct`."""
        if at.text("then") == "terminate":
            return terminating.seen(at, machine)
        name = at.text("name")
        if machine is None or machine.state == "terminating":
            return Stage("failed", f"{name} is gone, and was to live on")
        if machine.group:
            return Stage("going", f"{name} is leaving") if machine.state == "detached" else None
        return terminating.replaced(at) or Stage("done", f"{name} is in no group any more")

    def put_back(self, at: At, machine: Machine) -> None:
        """Put it back into its group; see `MachineAct`."""
        at.machines.attach(at.text("group"), machine.id)


def _zone(machine: Machine) -> str:
    return f" in {machine.zone}" if machine.zone else ""


def _is_full(group: MachineGroup | None, *, replaces: bool) -> str:
    """Return why a machine could not be put back; empty where it could."""
    if group is None or not replaces or group.desired < group.maximum:
        return ""
    return f"with another in its place {group.name} is full: it takes {group.maximum} at most"
