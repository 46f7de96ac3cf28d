"""Which machine is meant, on which platform.

Rules:
- A node is one machine: its platform knows it by its id or name. Of a group or a platform the
  parameter `machine` says which one.
- A name that several machines have means none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handrail.errors import PlatformError, UsageError
from handrail.estate.model import Estate, Resource
from handrail.estate.shapes import nearest
from handrail.kits.deploys.apps import platform_of

if TYPE_CHECKING:
    from handrail.kits.deploys.model import Machine, MachineGroup
    from handrail.kits.deploys.outside import Outside
    from handrail.kits.deploys.ports import Machines


@dataclass(frozen=True)
class Chosen:
    """One machine, as it is now.

    Attributes:
        platform: as declared.
        machines: of that platform.
        every: what they all are.
        group: that it is counted in; None where in none.
    """

    platform: Resource
    machines: Machines
    every: tuple[Machine, ...]
    machine: Machine
    group: MachineGroup | None

    @property
    def called(self) -> str:
        """For people: its name, with its id where that is another."""
        machine = self.machine
        return machine.name if machine.name == machine.id else f"{machine.name} ({machine.id})"


def choose(outside: Outside, estate: Estate, resource: Resource, said: str) -> Chosen:
    """Return the machine that is meant.

    Args:
        outside: opens the platform.
        estate: for the platform, and for a node that `said` names.
        resource: a node, a group or a platform.
        said: the parameter `machine`.

    Raises:
        UsageError: there is no such machine, more than one, or it is not said which.
    """
    platform = platform_for(estate, resource)
    machines = outside.open_machines(platform)
    every = machines.machines()
    group = group_name(resource) if resource.kind == "group" else ""
    among = [one for one in every if one.group == group] if group else list(every)
    found = _one(among, _wanted(estate, resource, said), resource)
    return Chosen(
        platform, machines, every, found, machines.group(found.group) if found.group else None
    )


def platform_for(estate: Estate, resource: Resource) -> Resource:
    """Return the platform that a node, a group or an app names; of a platform itself.

    Raises:
        UsageError: it names none.
    """
    if resource.kind == "platform":
        return resource
    ref = resource.settings.get("platform")
    if not ref:
        raise UsageError(
            "operations.target",
            f"`{resource.ref}` does not say which platform knows its machines",
            at=resource.place,
            hint="write `platform: platform/NAME`",
        )
    return platform_of(estate, str(ref), resource)


def insist_kept(group: MachineGroup | None, platform: Resource) -> None:
    """Refuse where a platform has groups by name alone, and neither starts nor ends machines.

    Raises:
        PlatformError: `platform.unsupported`.
    """
    if group is not None and not group.token:
        raise PlatformError(
            "platform.unsupported",
            f"`{platform.ref}` neither starts nor ends machines: {group.name} is a name for some",
            at=platform.place,
            hint="handrail drain     moves everything away from one",
        )


def group_name(resource: Resource) -> str:
    """Return what a declared group is called on its platform."""
    return str(resource.settings.get("name") or resource.name)


def _wanted(estate: Estate, resource: Resource, said: str) -> str:
    """Return the id or name that is meant, as the platform knows it."""
    if resource.kind == "node":
        if said:
            raise UsageError(
                "operations.parameter",
                f"`{resource.ref}` is one machine: `machine` has nothing to say",
                hint="leave `machine` out",
            )
        return str(resource.settings.get("machine") or resource.name)
    node = estate.resources.get(said if said.startswith("node/") else f"node/{said}")
    return str(node.settings.get("machine") or node.name) if node else said


def _one(among: Sequence[Machine], wanted: str, resource: Resource) -> Machine:
    found = [one for one in among if wanted and wanted in {one.id, one.name}]
    if len(found) == 1:
        return found[0]
    known = [one.name for one in among]
    if not wanted:
        some = ", ".join(known[:8]) or "it has none now"
        said, hint = f"`{resource.ref}` does not say which machine", f"-p machine=ID: {some}"
    elif found:
        ids = ", ".join(one.id for one in found)
        said, hint = f"`{wanted}` is the name of {len(found)} machines", f"say its id: {ids}"
    else:
        said, hint = f"`{resource.ref}` has no machine `{wanted}`", nearest(wanted, known)
    raise UsageError("deploys.unknown-machine", said, hint=hint)
