"""Fanning out: one operation planned, rehearsed and made ready over every target that it fits.

Rules:
- Each target is planned as it is alone, at the same time as the others; what git knows of the
  script is asked once.
- The fan-out is a value with a digest of its own, recorded like a plan. What a later stage gets is
  that value.
- A target that cannot be read is among them, and refuses: nobody is left out unseen.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, TypeVar

from handrail.core import approving, covering, records, rehearsing
from handrail.core.covering import Cover
from handrail.core.deciding import Decided, again
from handrail.core.world import Declared, Talk, World
from handrail.errors import HandrailError, RefusedError, UsageError
from handrail.estate.model import Estate, Resource
from handrail.estate.shapes import nearest
from handrail.operations.loading import values
from handrail.operations.model import Operation, Waves
from handrail.operations.targets import fitting, groups_of
from handrail.plans import fan_out as fan_outs
from handrail.plans.canonical import plain, time_text
from handrail.plans.fan_out import FanOut
from handrail.plans.judging import Case, judge
from handrail.plans.model import Request
from handrail.ports import Change, Repository

T = TypeVar("T")
AT_ONCE = 8


@dataclass(frozen=True)
class Fanned:
    """A fan-out with the decided plans of its children, in the order of its targets."""

    fan_out: FanOut
    children: tuple[Decided, ...]


def plan(
    world: World,
    declared: Declared,
    name: str,
    *,
    parameters: dict[str, str] | None = None,
    because: str = "",
    without: Sequence[str] = (),
) -> Fanned:
    """Plan an operation on every target that it fits, and judge all of it.

    Args:
        world: the ports.
        declared: the team's declarations.
        name: of a declared operation.
        parameters: as given; the rest have their defaults.
        because: why, for those who read it later.
        without: targets to leave out.

    Raises:
        UsageError: no such operation, parameter or target, or none is left.
        DeclarationError: what would run cannot be read.
        JournalError: a plan could not be recorded.
    """
    operation = _operation(declared, name)
    targets = _ordered(
        world, operation, declared.estate, _targets(declared.estate, operation, without)
    )
    given = parameters or {}
    complete = values(operation, given)
    words = [word for key, value in given.items() for word in ("-p", f"{key}={value}")]

    def request(resource: Resource) -> Request:
        asked = shlex.join([name, "--on", resource.ref, *words])
        return Request(operation.name, resource.ref, complete, world.person, because, asked)

    remembering = replace(world, repository=_Remembered(world.repository))
    children = _together(
        targets,
        lambda one: again(remembering, declared, operation, one, request(one), Cover("")),
    )
    left_out = [word for ref in sorted(without) for word in ("--except", ref)]
    return _fanned(world, children, shlex.join([name, "--on", "all", *left_out, *words]))


def anew(
    world: World, declared: Declared, recorded: FanOut, *, person: str, because: str = ""
) -> Fanned:
    """Return a recorded fan-out as it is planned now, asked for by `person`.

    Raises:
        RefusedError: the same request gives another fan-out now.
    """
    request = recorded.plan.request
    targets = {child.target for child in recorded.children}
    operation = _operation(declared, request.operation)
    fitting_now = {resource.ref for resource in fitting(operation, declared.estate)}
    made = plan(
        replace(world, person=person),
        declared,
        request.operation,
        parameters=dict(request.parameters),
        because=because or request.because,
        without=sorted(fitting_now - targets) if fitting_now >= targets else (),
    )
    if made.fan_out.digest != recorded.digest:
        raise RefusedError(
            "plan.stale",
            f"{records.short(recorded.digest)} is stale: {_moved(recorded, made.fan_out)}",
            hint=f"handrail plan {request.asked}     shows the new one",
        )
    return made


def _moved(was: FanOut, now: FanOut) -> str:
    """Return what is different, in one clause."""
    before = {child.target: child.digest for child in was.children}
    after = {child.target: child.digest for child in now.children}
    moved = [ref for ref in before | after if before.get(ref) != after.get(ref)]
    if not moved:
        return "its waves or bounds are others now"
    more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
    return f"the plan of {moved[0]}{more} is another now"


def needs_rehearsal(child: Decided) -> bool:
    """Whether a rehearsal is what a child's plan waits for, or is refused for."""
    return any(
        one.binding and one.verdict != "allow" and one.remedy.startswith("handrail rehearse")
        for one in child.plan.decisions
    )


def rehearse(
    world: World, fanned: Fanned, talk_to: Callable[[str], Talk], *, all_of_them: bool = False
) -> tuple[Fanned, tuple[tuple[str, HandrailError], ...]]:
    """Rehearse the operation on every target that needs it, one after the other.

    Args:
        world: the ports.
        fanned: as planned just now.
        talk_to: gives who is told of one target's rehearsal.
        all_of_them: also where a rehearsal counts still.

    Returns:
        The fan-out made anew, and the targets on which no rehearsal was possible, each with why.
    """
    children, failed = [], []
    for child in fanned.children:
        made = child
        if all_of_them or needs_rehearsal(child):
            try:
                made = rehearsing.rehearse(world, child, talk_to(child.resource.ref))
            except HandrailError as error:
                failed.append((child.resource.ref, error))
        children.append(made)
    return _fanned(world, children, fanned.fan_out.plan.request.asked), tuple(failed)


def _operation(declared: Declared, name: str) -> Operation:
    if name not in declared.operations:
        is_script = "/" in name
        raise UsageError(
            "operations.unknown",
            f"no operation `{name}` is declared; only a declared one goes over many targets",
            hint="choose one target with --on"
            if is_script
            else nearest(name, tuple(declared.operations)),
        )
    operation = declared.operations[name]
    if operation.also:
        raise UsageError(
            "operations.target",
            f"operation `{name}` also touches {', '.join(operation.also)}: one target at a time",
            at=operation.place,
            hint="choose one with --on",
        )
    return operation


def _targets(estate: Estate, operation: Operation, without: Sequence[str]) -> tuple[Resource, ...]:
    found = {resource.ref: resource for resource in fitting(operation, estate)}
    for given in without:
        ref = given if "/" in given else f"{operation.on.kinds[0]}/{given}"
        if found.pop(ref, None) is None:
            raise UsageError(
                "operations.target",
                f"`{given}` is none of the targets of operation `{operation.name}`",
                hint=nearest(ref, tuple(found)),
            )
    if not found:
        said = (
            f"is for no declared {operation.on.kinds[0]}" if not without else "has no target left"
        )
        raise UsageError(
            "operations.target", f"operation `{operation.name}` {said}", at=operation.place
        )
    return tuple(found.values())


def _ordered(
    world: World, operation: Operation, estate: Estate, targets: tuple[Resource, ...]
) -> tuple[Resource, ...]:
    """Return the targets in the order that the operation's kit gives: what others need first."""
    refs = tuple(resource.ref for resource in targets)
    for kit in world.kits:
        if operation.act and kit.name == operation.kit:
            refs = kit.order(estate, refs)
    return tuple(estate.resources[ref] for ref in refs)


def _together(targets: Iterable[Resource], one: Callable[[Resource], T]) -> list[T]:
    """Return what `one` gives of each target, several at a time; the first error is raised."""
    with ThreadPoolExecutor(AT_ONCE, "handrail-plan") as threads:
        asked = [threads.submit(one, target) for target in targets]
        try:
            return [answer.result() for answer in asked]
        except BaseException:
            for answer in asked:
                answer.cancel()
            raise


def _fanned(world: World, children: Sequence[Decided], words: str) -> Fanned:
    """Return the fan-out over decided children, judged with its own approvals, and record it."""
    waves = _waves(children[0].operation, children)
    groups = [groups_of(child.resource) for child in children]
    made = fan_outs.draft([child.plan for child in children], groups, waves, words)
    now = time_text(world.clock.now())
    approving.lapse(world, made.digest, now)
    if records.approvals(world.journal, made.digest):
        # What it holds is looked up by its digest.
        _record(world, made)
        children = [_covered(world, child, Cover(made.digest), now) for child in children]
        made = fan_outs.draft([child.plan for child in children], groups, waves, words)
    _record(world, made)
    return Fanned(made, tuple(children))


def _waves(operation: Operation, children: Sequence[Decided]) -> Waves:
    """Return the declared waves, without what is left out of this one."""
    waves = operation.waves or Waves()
    here = {child.resource.ref for child in children}
    return replace(waves, first=tuple(ref for ref in waves.first if ref in here))


def _covered(world: World, child: Decided, cover: Cover, now: str) -> Decided:
    """Return a child as it is judged with the approvals of its fan-out."""
    approvals = covering.approvals(world, cover, child.plan, now)
    plan = replace(child.plan, facts=replace(child.plan.facts, approvals=approvals))
    case = Case(plan, child.operation, child.declared.estate, child.declared.policy)
    return replace(child, plan=judge(case, world.guards), cover=cover)


def _record(world: World, made: FanOut) -> None:
    body = plain(made)
    if not isinstance(body, dict):
        raise TypeError("a fan-out is a mapping")
    world.journal.append(records.plan_chain(made.digest), records.FANNED, body)


class _Remembered:
    """A repository that is asked the same once, however many targets there are."""

    def __init__(self, repository: Repository) -> None:
        self.root = repository.root
        self._repository = repository
        self._lock = Lock()
        self._known: dict[tuple[str, ...], Any] = {}

    def commit(self, paths: Sequence[str]) -> str | None:
        """See `ports.Repository`."""
        return self._once(("commit", *paths), lambda: self._repository.commit(paths))

    def uncommitted(self, paths: Sequence[str]) -> tuple[str, ...]:
        """See `ports.Repository`."""
        return self._once(("uncommitted", *paths), lambda: self._repository.uncommitted(paths))

    def last_change(self, path: str) -> Change | None:
        """See `ports.Repository`."""
        return self._once(("last change", path), lambda: self._repository.last_change(path))

    def person(self) -> str:
        """See `ports.Repository`."""
        return self._repository.person()

    def _once(self, key: tuple[str, ...], ask: Callable[[], T]) -> T:
        with self._lock:
            if key not in self._known:
                self._known[key] = ask()
            found: T = self._known[key]
            return found
