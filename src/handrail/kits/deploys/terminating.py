"""`terminate`: a machine ends for ever; its group starts another, unless it is told not to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handrail.core.kit_act import Stage
from handrail.errors import RefusedError
from handrail.kits.deploys.capacity import IN_SERVICE
from handrail.kits.deploys.choosing import insist_kept
from handrail.kits.deploys.machine_acts import At, MachineAct, Meant
from handrail.plans.effect import Effect

if TYPE_CHECKING:
    from handrail.estate.model import Resource
    from handrail.kits.deploys.choosing import Chosen
    from handrail.kits.deploys.model import Machine
    from handrail.plans.model import Request


class Terminate(MachineAct):
    """`KitAct` of `terminate`."""

    def meant(self, resource: Resource, request: Request, chosen: Chosen) -> Meant:
        """Say what ends; see `MachineAct`."""
        return meant(resource, chosen, replaces=request.parameters.get("replace") == "true")

    def begin(self, at: At) -> None:
        """End it; see `MachineAct`."""
        begin(at)

    def seen(self, at: At, machine: Machine | None) -> Stage | None:
        """Say how far it is; see `MachineAct`."""
        return seen(at, machine)

    def put_back(self, at: At, machine: Machine) -> None:
        """Refuse: what was ended is gone."""
        raise RefusedError(
            "run.irreversible", f"{at.text('name')} cannot be put back ({machine.id})"
        )


def meant(resource: Resource, chosen: Chosen, *, replaces: bool) -> Meant:
    """Return what ending a machine means, in its group where it has one."""
    machine, group = chosen.machine, chosen.group
    insist_kept(group, chosen.platform)
    starts_another = replaces and group is not None
    where = f" in {group.name}" if group else ""
    zone = f", {machine.zone}" if machine.zone else ""
    effects = [
        Effect(resource.ref, "terminate", "machine", machine.name, detail=f"{machine.id}{zone}")
    ]
    if group is not None and starts_another:
        effects.append(another(resource, group.name))
    return Meant(
        changes=machine.state != "terminating",
        effects=tuple(effects),
        summary=f"terminate {chosen.called}{where} on {chosen.platform.ref}",
        irreversible="a machine that was ended, and what was on its disks, is gone",
        shrinks=group is not None and not replaces,
        body={"then": "terminate", "replace": starts_another},
    )


def another(resource: Resource, group: str) -> Effect:
    """Return the effect of a group that starts another machine."""
    return Effect(resource.ref, "start", "machine", f"another in {group}")


def begin(at: At) -> None:
    """End it, compare-and-set. Twice equals once."""
    replace = at.job.body.get("replace") is True
    at.machines.terminate(at.id, at.text("machine_token"), replace=replace)


def seen(at: At, machine: Machine | None) -> Stage | None:
    """Say how far a machine is that is to end; None where it shows nothing of it."""
    if machine is not None and machine.state != "terminating":
        return None
    ended = "is gone" if machine is None else "is ending"
    return replaced(at) or Stage("done", f"{at.text('name')} {ended}")


def replaced(at: At) -> Stage | None:
    """Say that its group has not started another yet; None where it has, or need not."""
    if at.job.body.get("replace") is not True:
        return None
    group = at.machines.group(at.text("group"))
    well = sum(one.state == IN_SERVICE for one in group.machines)
    if well >= group.desired:
        return None
    return Stage("going", f"{group.name} has {well} of {group.desired} in service")
