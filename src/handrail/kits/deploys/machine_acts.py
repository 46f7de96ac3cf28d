"""What `drain`, `detach` and `terminate` have in common: one machine, from its draft to its undo.

Rules:
- What was drafted is in the body: the machine, its group, and what a compare-and-set compares.
- Whether it was begun is seen from the machine itself; a lost answer is made good by asking again,
  which does nothing twice.
- What would stop is part of what is approved; what merely moves between lanes of a wave is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from handrail.core.kit_act import Job, Stage
from handrail.errors import HandrailError, PlatformError, RefusedError
from handrail.kits.deploys import capacity
from handrail.kits.deploys.apps import is_production, platform_of
from handrail.kits.deploys.capacity import IN_SERVICE, Ground, Loss
from handrail.kits.deploys.choosing import Chosen, choose
from handrail.plans.canonical import time_text
from handrail.plans.drafted import Draft
from handrail.plans.model import Decision, Section

if TYPE_CHECKING:
    from handrail.core.world import Declared
    from handrail.estate.model import Resource
    from handrail.kits.deploys.model import Machine
    from handrail.kits.deploys.outside import Outside
    from handrail.kits.deploys.ports import Machines
    from handrail.plans.effect import Effect
    from handrail.plans.model import Request

T = TypeVar("T")
# Longer than a machine needs to come back, or a platform to choose a leader.
UNDO_S = 300.0
LOOK_S = 2.0
# A platform ends by itself what does not move away in time: that takes a moment, too.
GRACE_S = 60
ASKED, SINCE = "asked", "since"


@dataclass(frozen=True)
class Meant:
    """What one operation means to do to a machine.

    Attributes:
        changes: whether it is not so already.
        effects: what it does.
        summary: one line.
        undo: what undo will do; or ...
        irreversible: ... why nothing can.
        takes: whether its group has it no more.
        shrinks: whether its group wants one less.
        body: what doing it needs besides the machine.
        said: what the kit itself refuses.
    """

    changes: bool
    effects: tuple[Effect, ...]
    summary: str
    undo: str = ""
    irreversible: str = ""
    takes: bool = True
    shrinks: bool = False
    body: Mapping[str, object] | None = None
    said: tuple[Decision, ...] = ()


@dataclass(frozen=True)
class At:
    """Where one job stands: the machines of its platform, and the one that it is about."""

    job: Job
    machines: Machines

    @property
    def id(self) -> str:
        """Of the machine."""
        return self.text("machine")

    def text(self, key: str) -> str:
        """Return what the body says under a key."""
        return str(self.job.body.get(key, ""))

    def now(self) -> Machine | None:
        """Return the machine as it is; None where it is gone."""
        return next((one for one in self.machines.machines() if one.id == self.id), None)


class MachineAct(ABC):
    """`KitAct` of one machine; what a subclass says is how it is meant, begun, seen and undone."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside

    @abstractmethod
    def meant(self, resource: Resource, request: Request, chosen: Chosen) -> Meant:
        """Say what is to be done to a machine."""

    @abstractmethod
    def begin(self, at: At) -> None:
        """Begin it, compare-and-set. Twice equals once."""

    @abstractmethod
    def seen(self, at: At, machine: Machine | None) -> Stage | None:
        """Say where it stands; None where the machine shows nothing of it."""

    @abstractmethod
    def put_back(self, at: At, machine: Machine) -> None:
        """Begin to put it back. Twice equals once."""

    def draft(self, resource: Resource, request: Request, declared: Declared) -> Draft:
        """Say what it would do; see `KitAct`."""
        estate = declared.estate
        given = request.parameters.get("machine", "")
        chosen = choose(self.outside, estate, resource, given)
        meant = self.meant(resource, request, chosen)
        ground = Ground(estate, chosen.platform.ref, chosen.every, resource.ref)
        losses = ground.losses({chosen.machine.id})
        risk, because = capacity.risk(
            losses,
            changes=meant.changes,
            takes=meant.takes,
            is_production=is_production(estate, resource, chosen.platform),
        )
        near = (ground.node_of(chosen.machine), *ground.groups_of(chosen.machine))
        others = {*near, *(loss.ref for loss in losses)} - {"", resource.ref}
        return Draft(
            summary=meant.summary,
            body=_body(chosen, meant, losses),
            effects=meant.effects if meant.changes else (),
            risk=risk,
            risk_because=because,
            undo=meant.undo,
            irreversible=meant.irreversible,
            touches=tuple(sorted(others)),
            consequences=capacity.consequences(estate, losses),
            sections=sections(chosen, losses),
            platform=chosen.platform.ref,
            identity=chosen.machines.identify(),
            declared_identity=str(chosen.platform.settings.get("identity") or ""),
            said=(*meant.said, *_too_few(chosen, shrinks=meant.changes and meant.shrinks)),
            soak_s=soak_of(chosen.platform),
        )

    def apply(self, job: Job) -> Stage:
        """Begin it; see `KitAct`."""
        if not job.body.get("changes"):
            return Stage("done", "nothing was to be changed")
        try:
            self.begin(self.at(job))
        except PlatformError as error:
            if not error.is_passing:
                raise
            # Whether it arrived is not known: the next look asks for the same once more.
            return Stage("going", error.message, self._kept(job, asked=False), LOOK_S)
        return Stage("going", "it has begun", self._kept(job, asked=True), LOOK_S)

    def follow(self, job: Job) -> Stage:
        """Look once; see `KitAct`."""
        if not job.body.get("changes"):
            return Stage("done", "nothing was to be changed")
        at = self.at(job)
        machine = at.now()
        stage = self.seen(at, machine)
        if stage is None and not job.before.get(ASKED):
            try:
                self.begin(at)
            except RefusedError as error:
                return Stage("failed", error.message, job.before)
            machine = at.now()
            stage = self.seen(at, machine)
        if stage is None:
            state = machine.state if machine else "gone"
            stage = Stage("going", f"{at.text('name')} is {state}")
        job.say(stage.why)
        kept = self._kept(job, asked=True)
        if stage.state == "going" and self._is_late(job, str(kept[SINCE])):
            return Stage("failed", f"{stage.why}, and its time is over", kept)
        return Stage(stage.state, stage.why, kept, LOOK_S)

    def found(self, job: Job) -> Stage:
        """Say what became of it; see `KitAct`."""
        if not job.body.get("changes"):
            return Stage("never", "nothing was to be changed")
        at = self.at(job)
        machine = at.now()
        if self.seen(at, machine) is not None:
            return Stage("going", "it has begun", self._kept(job, asked=True))
        if machine and (machine.state, machine.group) == (at.text("was"), at.text("group")):
            return Stage("never", "it has not begun")
        return Stage("unknown", f"somebody else changed {at.text('name')} since")

    def undo(self, job: Job) -> Stage:
        """Put it back, and wait until it is in service; see `KitAct`."""
        if not job.body.get("changes"):
            return Stage("done", "nothing was changed")
        at = self.at(job)
        try:
            return self._put_back(at)
        except HandrailError as error:
            return Stage("failed", error.message)

    def at(self, job: Job) -> At:
        """Return where a job stands."""
        platform = platform_of(job.estate, str(job.body["platform"]), job.resource)
        return At(job, self.outside.open_machines(platform))

    def _kept(self, job: Job, *, asked: bool) -> dict[str, object]:
        """Return what the next look needs: whether it was begun for certain, and since when."""
        since = job.before.get(SINCE) or time_text(self.outside.world.clock.now())
        return {ASKED: asked, SINCE: since}

    def _is_late(self, job: Job, since: str) -> bool:
        """Whether what was given a time takes longer, and a minute more, than that."""
        limit_s = job.body.get("deadline_s")
        passed = self.outside.world.clock.now() - datetime.fromisoformat(since)
        return isinstance(limit_s, int) and passed.total_seconds() > limit_s + GRACE_S

    def _put_back(self, at: At) -> Stage:
        clock, name = self.outside.world.clock, at.text("name")
        until_s = clock.elapsed_s() + UNDO_S
        was, group = at.text("was"), at.text("group")
        is_asked = False
        while True:
            machine = patiently(self.outside, at.job, until_s, at.now)
            if machine is None or machine.state == "terminating":
                return Stage("failed", f"{name} is gone: it cannot be put back")
            if machine.group == group and machine.state in {was, IN_SERVICE}:
                return Stage("done", f"{name} is {machine.state} again")
            if not is_asked:
                at.job.say(f"putting back {name}")
                self._ask_back(at, machine, until_s)
                is_asked = True
            elif clock.elapsed_s() >= until_s or at.job.is_over():
                return Stage("failed", f"{name} is {machine.state}, not {was} again")
            else:
                clock.sleep(LOOK_S)

    def _ask_back(self, at: At, machine: Machine, until_s: float) -> None:
        patiently(self.outside, at.job, until_s, lambda: self.put_back(at, machine))


def patiently(outside: Outside, job: Job, until_s: float, ask: Callable[[], T]) -> T:
    """Return what `ask` gives; ask again for a while where the platform is away."""
    clock = outside.world.clock
    while True:
        try:
            return ask()
        except PlatformError as error:
            if not error.is_passing or job.is_over() or clock.elapsed_s() >= until_s:
                raise
            clock.sleep(LOOK_S)


def soak_of(platform: Resource) -> int | None:
    """Return how long a platform wants things watched; None where it does not say."""
    found = platform.settings.get("soak")
    return found if isinstance(found, int) else None


def sections(chosen: Chosen, losses: tuple[Loss, ...]) -> tuple[Section, ...]:
    """Return what people read besides: the machine, its group, and who loses what."""
    machine, group = chosen.machine, chosen.group
    told = [f"{chosen.called}, {machine.state}" + (f", in {machine.zone}" if machine.zone else "")]
    if machine.apps:
        told.append(
            "runs there: " + ", ".join(f"{n} {app}" for app, n in sorted(machine.apps.items()))
        )
    if group is not None and group.token:
        well = sum(one.state == IN_SERVICE for one in group.machines)
        told.append(
            f"{group.name} has {well} in service of {group.desired} that it wants "
            f"({group.minimum} to {group.maximum})"
        )
    found = (Section("machine", tuple(told)), Section("capacity", capacity.lines(losses)))
    return tuple(section for section in found if section.lines)


def stopping(losses: tuple[Loss, ...]) -> list[str]:
    """Return what would stop, for a body: should more of them, it is another plan.

    Not how many are left: in waves each lane finds fewer than the one before it.
    """
    return [loss.ref for loss in losses if loss.outcome == "stops"]


def _body(chosen: Chosen, meant: Meant, losses: tuple[Loss, ...]) -> dict[str, object]:
    machine = chosen.machine
    return {
        "platform": chosen.platform.ref,
        "machine": machine.id,
        "name": machine.name,
        "was": machine.state,
        "group": machine.group,
        "machine_token": machine.token,
        "changes": meant.changes,
        "stops": stopping(losses),
        **(meant.body or {}),
    }


def _too_few(chosen: Chosen, *, shrinks: bool) -> tuple[Decision, ...]:
    """Refuse what would leave a group with fewer machines than it takes."""
    group = chosen.group
    if group is None or not group.token or not shrinks or group.desired - 1 >= group.minimum:
        return ()
    because = f"{group.name} wants {group.desired} machines, and takes no fewer than that"
    remedy = "let it start another (-p replace=true), or scale it up first"
    return (Decision("capacity", "refuse", because, str(chosen.platform.place), remedy),)
