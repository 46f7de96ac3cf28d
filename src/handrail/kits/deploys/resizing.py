"""`scale` of a group: how many machines it has.

Rules:
- Which machines end when it has fewer, its platform chooses: undo gives others in their place.
- Compare-and-set both ways: what somebody else set since is told, and not overwritten.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from handrail.core.kit_act import Job, Stage
from handrail.errors import HandrailError, PlatformError, RefusedError, UsageError
from handrail.kits.deploys import capacity
from handrail.kits.deploys.apps import is_production, platform_of
from handrail.kits.deploys.capacity import IN_SERVICE, Ground, Loss
from handrail.kits.deploys.choosing import group_name, insist_kept, platform_for
from handrail.kits.deploys.machine_acts import ASKED, LOOK_S, UNDO_S, patiently, soak_of, stopping
from handrail.plans.drafted import Draft
from handrail.plans.effect import Effect
from handrail.plans.model import Section

if TYPE_CHECKING:
    from handrail.core.world import Declared
    from handrail.estate.model import Resource
    from handrail.kits.deploys.model import MachineGroup
    from handrail.kits.deploys.outside import Outside
    from handrail.kits.deploys.ports import Machines
    from handrail.plans.model import Request

_DIGITS = 6


class Resize:
    """`KitAct` of `scale` on a group of machines."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside

    def draft(self, resource: Resource, request: Request, declared: Declared) -> Draft:
        """Say what it would do; see `KitAct`."""
        estate = declared.estate
        platform = platform_for(estate, resource)
        machines = self.outside.open_machines(platform)
        group = machines.group(group_name(resource))
        insist_kept(group, platform)
        count = _count(request.parameters.get("count", ""), group)
        losses = _losses(
            Ground(estate, platform.ref, machines.machines(), resource.ref), group, count
        )
        risk, because = capacity.risk(
            losses,
            changes=count != group.desired,
            takes=count < group.desired,
            is_production=is_production(estate, resource, platform),
        )
        fewer = "others, where it ended some" if count < group.desired else "as many"
        return Draft(
            summary=f"scale {group.name}: {group.desired} to {count} machines on {platform.ref}",
            body={
                "platform": platform.ref,
                "group": group.name,
                "token": group.token,
                "former": group.desired,
                "count": count,
                "changes": count != group.desired,
                "stops": stopping(losses),
            },
            effects=_effects(resource, group, count),
            risk=risk,
            risk_because=because,
            undo=f"{group.name} wants {group.desired} again: {fewer} as before",
            touches=tuple(loss.ref for loss in losses),
            consequences=capacity.consequences(estate, losses),
            sections=_sections(group, losses),
            platform=platform.ref,
            identity=machines.identify(),
            declared_identity=str(platform.settings.get("identity") or ""),
            soak_s=soak_of(platform),
        )

    def apply(self, job: Job) -> Stage:
        """Begin it; see `KitAct`."""
        if not job.body.get("changes"):
            return Stage("done", "nothing was to be changed")
        try:
            self._begin(job)
        except PlatformError as error:
            if not error.is_passing:
                raise
            return Stage("going", error.message, {ASKED: False}, LOOK_S)
        return Stage("going", "it has begun", {ASKED: True}, LOOK_S)

    def follow(self, job: Job) -> Stage:
        """Look once; see `KitAct`."""
        if not job.body.get("changes"):
            return Stage("done", "nothing was to be changed")
        if not job.before.get(ASKED):
            try:
                self._begin(job)
            except RefusedError as error:
                return Stage("failed", error.message, job.before)
        group = self._group(job)
        if group.desired != job.body["count"]:
            said = f"somebody else set {group.name} to {group.desired}"
            return Stage("failed", said, {ASKED: True})
        well = _well(group)
        said = f"{group.name} has {well} of {group.desired} machines in service"
        job.say(said)
        is_there = well == group.desired and len(group.machines) == group.desired
        return Stage("done" if is_there else "going", said, {ASKED: True}, LOOK_S)

    def found(self, job: Job) -> Stage:
        """Say what became of it; see `KitAct`."""
        group = self._group(job)
        if group.desired == job.body["count"] and job.body.get("changes"):
            return Stage("going", "it has begun", {ASKED: True})
        if group.desired == job.body["former"]:
            return Stage("never", "it has not begun")
        return Stage("unknown", f"somebody else set {group.name} to {group.desired}")

    def undo(self, job: Job) -> Stage:
        """Let it want what it wanted before, and wait for that; see `KitAct`."""
        if not job.body.get("changes"):
            return Stage("done", "nothing was changed")
        try:
            return self._put_back(job)
        except HandrailError as error:
            return Stage("failed", error.message)

    def _put_back(self, job: Job) -> Stage:
        clock, former = self.outside.world.clock, int(str(job.body["former"]))
        until_s = clock.elapsed_s() + UNDO_S
        while True:
            group = patiently(self.outside, job, until_s, lambda: self._group(job))
            if group.desired == job.body["count"]:
                self._resize(job, group, former, until_s)
            elif group.desired != former:
                said = f"somebody else set {group.name} to {group.desired}: that is left as it is"
                return Stage("failed", said)
            elif _well(group) >= former:
                return Stage("done", f"{group.name} has {former} machines again")
            elif clock.elapsed_s() >= until_s or job.is_over():
                said = f"{group.name} wants {former} again, and has {_well(group)} in service"
                return Stage("failed", said)
            clock.sleep(LOOK_S)

    def _resize(self, job: Job, group: MachineGroup, former: int, until_s: float) -> None:
        machines = self._machines(job)
        patiently(
            self.outside, job, until_s, lambda: machines.resize(group.name, former, group.token)
        )

    def _begin(self, job: Job) -> None:
        count = int(str(job.body["count"]))
        self._machines(job).resize(str(job.body["group"]), count, str(job.body["token"]))

    def _group(self, job: Job) -> MachineGroup:
        return self._machines(job).group(str(job.body["group"]))

    def _machines(self, job: Job) -> Machines:
        platform = platform_of(job.estate, str(job.body["platform"]), job.resource)
        return self.outside.open_machines(platform)


def _count(text: str, group: MachineGroup) -> int:
    """Return the number that is meant.

    Raises:
        UsageError: it is none, or one that the group does not take.
    """
    said = text.strip()
    takes = f"{group.name} takes {group.minimum} to {group.maximum}"
    if not (said.isascii() and said.isdigit() and len(said) <= _DIGITS):
        raise UsageError("operations.parameter", f"`{text[:40]}` is no number", hint=takes)
    if not group.minimum <= int(said) <= group.maximum:
        raise UsageError("operations.parameter", f"{takes} machines, not {int(said)}")
    return int(said)


def _losses(ground: Ground, group: MachineGroup, count: int) -> tuple[Loss, ...]:
    """Return what everything loses with so many machines, whichever those are."""
    well = [one.id for one in group.machines if one.state == IN_SERVICE]
    fewer = max(group.desired - count, 0)
    found = ground.losses(set(well[: fewer or 1]), is_chosen=False)
    # With as many or more nobody loses anything; that they run there is told all the same.
    return found if fewer else tuple(replace(loss, after=loss.before) for loss in found)


def _effects(resource: Resource, group: MachineGroup, count: int) -> tuple[Effect, ...]:
    if count == group.desired:
        return ()
    scaled = Effect(
        resource.ref, "scale", "group", group.name, detail=f"{group.desired} to {count} machines"
    )
    if count > group.desired:
        return (scaled,)
    number = group.desired - count
    ended = f"{number} of {group.name}"
    chosen = "which, its platform chooses"
    return (Effect(resource.ref, "terminate", "machines", ended, detail=chosen), scaled)


def _sections(group: MachineGroup, losses: tuple[Loss, ...]) -> tuple[Section, ...]:
    now = f"{_well(group)} in service of {group.desired} ({group.minimum} to {group.maximum})"
    found = (Section("group", (now,)), Section("capacity", capacity.lines(losses)))
    return tuple(section for section in found if section.lines)


def _well(group: MachineGroup) -> int:
    return sum(one.state == IN_SERVICE for one in group.machines)
