"""`drain`: everything moves away from a machine, and nothing is put there any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handrail.core.kit_act import Stage
from handrail.errors import UsageError
from handrail.estate.shapes import DURATION_PATTERN, seconds
from handrail.kits.deploys.machine_acts import At, MachineAct, Meant
from handrail.plans.effect import Effect

if TYPE_CHECKING:
    from handrail.estate.model import Resource
    from handrail.kits.deploys.choosing import Chosen
    from handrail.kits.deploys.model import Machine
    from handrail.plans.model import Request

# As the operation's own end allows.
_LONGEST_S = 3600


class Drain(MachineAct):
    """`KitAct` of `drain`."""

    def meant(self, resource: Resource, request: Request, chosen: Chosen) -> Meant:
        """Say what moves; see `MachineAct`."""
        machine = chosen.machine
        said = "to others; it takes no more"
        # Without what runs there now: that differs for each lane of a wave.
        moved = Effect(resource.ref, "move", "work", machine.name, detail=said)
        return Meant(
            changes=machine.state not in {"draining", "ineligible"},
            effects=(moved,),
            summary=f"drain {chosen.called} on {chosen.platform.ref}",
            undo=f"{machine.name} takes work again; what moved away stays where it is",
            takes=False,
            shrinks=True,
            body={"deadline_s": _deadline(request.parameters.get("deadline", ""))},
        )

    def begin(self, at: At) -> None:
        """Drain; see `MachineAct`."""
        deadline_s = at.job.body["deadline_s"]
        at.machines.drain(at.id, at.text("machine_token"), int(str(deadline_s)))

    def seen(self, at: At, machine: Machine | None) -> Stage | None:
        """Say how far it is; see `MachineAct`."""
        name = at.text("name")
        if machine is None or machine.state == "terminating":
            return Stage("failed", f"{name} is gone")
        if machine.state == "ineligible" and not any(machine.apps.values()):
            return Stage("done", f"nothing runs on {name} any more")
        if machine.state in {"draining", "ineligible"}:
            count = sum(machine.apps.values())
            return Stage("going", f"{name} is drained: {count} instances are still there")
        return None

    def put_back(self, at: At, machine: Machine) -> None:
        """Let it take work again; see `MachineAct`."""
        at.machines.undrain(machine.id)


def _deadline(text: str) -> int:
    found = text.strip() or "10m"
    if not DURATION_PATTERN.fullmatch(found) or not 0 < seconds(found) <= _LONGEST_S:
        raise UsageError(
            "operations.parameter",
            f"`{text[:40]}` is no deadline up to an hour",
            hint="-p deadline=10m",
        )
    return seconds(found)
