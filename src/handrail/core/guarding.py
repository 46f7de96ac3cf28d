"""Guarding: what a script is held to, where it may reach, and what its guard said of it.

Rules:
- A script reaches its store through the guard alone, where this machine can see to that; where it
  cannot, what the guard counted is not all that the script may have done.
- What waited for the script's end takes effect only when the script ended well.
- Several stores have one budget; each guard is held to its own part of it. Once one of them stops
  the run the others let nothing more pass; what was copied is swapped in last, and not at all
  where any part was stopped.
- An event is journalled when it happens, from whatever thread it comes; one that cannot be
  journalled ends the run as soon as the script has ended.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

from handrail.core import scripts, together
from handrail.core.world import Talk, World
from handrail.errors import JournalError, StoreError
from handrail.plans import budget as budgets
from handrail.plans.effect import Effect, worst_first
from handrail.plans.holding import Event, Limits, Report, Stop
from handrail.plans.model import Plan
from handrail.plans.policy import Policy
from handrail.ports import Asks, Confine, Connection, Finished, Store, StoreGuard

OBSERVED = "observed only"
SWAPPED = "copied and swapped in"
LEFT = "copied and left"
_TOLD = 20


@dataclass
class Hearing:
    """Whoever listens to a guard: each event is journalled and told.

    Attributes:
        note: journals an event.
        talk: told the first few.
        hold: lets a statement wait for somebody's word, given its template, why it waits, and
            whether there is no more time; None where nobody is asked.
        failure: why an event could not be journalled.
    """

    note: Callable[[Event], object]
    talk: Talk
    hold: Callable[[str, str, Callable[[], bool]], bool] | None = None
    failure: JournalError | None = None
    _told: int = 0
    _lock: Lock = field(default_factory=Lock)

    def __call__(self, event: Event) -> None:
        """Take an event, from any thread; never raises."""
        with self._lock:
            try:
                self.note(event)
            except JournalError as error:
                self.failure = self.failure or error
            self._told += 1
            if self._told <= _TOLD:
                self.talk.end("guard", f"{event.kind}: {event.text}", ok=False)

    def ask(self, statement: str, why: str, is_over: Callable[[], bool]) -> bool:
        """Wait for somebody's word; return whether a statement may begin. From any thread."""
        if self.hold is None:
            return False
        self(Event("held", f"{why}: {statement}; handrail status"))
        return self.hold(statement, why, is_over)

    def check(self) -> None:
        """Raise where an event could not be journalled.

        Raises:
            JournalError: the first one's.
        """
        if self.failure is not None:
            raise self.failure


def limits_of(plan: Plan, policy: Policy, *, undo: bool = False) -> Limits:
    """Return what a run's script, or its undo script, is held to.

    Without a budget nothing is refused, and everything is gated and counted all the same.
    """
    rehearsal = plan.facts.rehearsal
    budget = plan.undo_budget if undo else plan.budget
    known = Limits()
    if rehearsal is not None and undo:
        known = Limits(trace=rehearsal.undo_trace, unheld=rehearsal.undo_unheld)
    elif rehearsal is not None:
        known = Limits(trace=rehearsal.trace, unheld=rehearsal.unheld)
    return replace(
        known,
        mode="hold" if budget is not None else "measure",
        budget=budget,
        divergence=policy.guard.divergence,
        hold_s=policy.guard.hold_s,
        # The limited role has what the script needs, not what puts it back.
        role="limited" if rehearsal and rehearsal.role == "limited" and not undo else "own",
    )


@dataclass(frozen=True)
class Part:
    """One store and its guard."""

    store: Store
    guard: StoreGuard

    @property
    def is_copy(self) -> bool:
        """Whether the script works on a copy, of which nothing takes effect before the swap."""
        own = self.store.connection().parts.get("path")
        return bool(own) and self.guard.connection().parts.get("path") != own


@dataclass(frozen=True)
class Guard:
    """What stands between a script and its store, or several: nothing beyond its limits passes."""

    store: Store
    parts: tuple[Part, ...]

    def connection(self) -> Connection:
        """Return how the script reaches them: through their guards alone."""
        found = [(part.store.resource, part.guard.connection()) for part in self.parts]
        return together.joined_connection(found) if len(found) > 1 else found[0][1]

    def settle(self, *, keep_copies: bool) -> tuple[Report, ...]:
        """Settle every part, servers first; return their reports in the order of the parts.

        Args:
            keep_copies: whether what was copied may be swapped in, so far as nothing was stopped.

        Raises:
            StoreError: one of them could not be settled.
        """
        reports: dict[int, Report] = {}
        is_stopped = False
        for number, part in sorted(enumerate(self.parts), key=lambda one: (one[1].is_copy, one[0])):
            if part.is_copy and (is_stopped or not keep_copies):
                reports[number] = Report(part.store.resource, LEFT)
            else:
                reports[number] = part.guard.settle()
            is_stopped = is_stopped or reports[number].stop is not None
        return tuple(reports[number] for number in sorted(reports))


@dataclass(frozen=True)
class _Ear:
    """Hears the guard of one store of several; when it stops the run, the others stop too."""

    resource: str
    hear: Callable[[Event], None]
    parts: Sequence[Part]

    def __call__(self, event: Event) -> None:
        """Take an event, from any thread."""
        self.hear(event)
        if event.kind == "refused":
            for part in tuple(self.parts):
                if part.store.resource != self.resource:
                    part.guard.halt(self.resource)

    def ask(self, statement: str, why: str, is_over: Callable[[], bool]) -> bool:
        """Wait for somebody's word, where somebody can be asked."""
        hear: object = self.hear
        return isinstance(hear, Asks) and hear.ask(statement, why, is_over)


@contextmanager
def opened(
    world: World,
    store: Store,
    limits: Limits,
    before: Path,
    folder: Path,
    hear: Callable[[Event], None],
) -> Iterator[Guard]:
    """Stand between a script and a store, or the several that it is, while it is held.

    Args:
        world: the ports.
        store: the target, or a clone of it.
        limits: what the script is held to, over all stores.
        before: the folder of `store.observe`.
        folder: an empty private folder to work in.
        hear: told each event, from any thread.

    Raises:
        StoreError: a store does not answer, or has no guard.
    """
    with ExitStack() as held:
        parts: list[Part] = []
        stores = together.parts_of(store)
        for number, one in enumerate(stores):
            private = folder / str(number)
            private.mkdir(mode=0o700)
            observed = together.folder_of(store, number, before)
            ear = _Ear(one.resource, hear, parts) if len(stores) > 1 else hear
            guard = world.open_guard(one, limits, observed, private, ear)
            parts.append(Part(one, held.enter_context(guard)))
        yield Guard(store, tuple(parts))


def one_report(store: Store, reports: Sequence[Report]) -> Report:
    """Return the reports of a script's stores as one, which says of each how it was held."""
    if len(reports) == 1:
        return reports[0]
    limited = all(report.role == "limited" for report in reports)
    return Report(
        store.resource,
        "; ".join(f"{report.resource} {report.how}" for report in reports),
        worst_first(effect for report in reports for effect in report.effects),
        first_stop(reports),
        tuple(event for report in reports for event in report.events),
        tuple(dict.fromkeys(one for report in reports for one in report.trace)),
        tuple(dict.fromkeys(one for report in reports for one in report.unheld)),
        sum(report.kept for report in reports),
        "limited" if limited else "own",
        "; ".join(dict.fromkeys(report.avoidable for report in reports if report.avoidable)),
        tuple(reports),
    )


def first_stop(reports: Iterable[Report]) -> Stop | None:
    """Return why a run was stopped: by the guard that did, not by one that was told to."""
    stops = [report.stop for report in reports if report.stop]
    return min(stops, key=lambda stop: bool(stop.elsewhere), default=None)


def attend(
    guard: Guard,
    run: Callable[[Connection], Finished],
    hear: Callable[[Event], None],
    *,
    always: bool = False,
) -> tuple[Finished, tuple[Report, ...]]:
    """Let a script run behind `guard`; return how it ended, and what it did to each store.

    Args:
        guard: held by the caller.
        run: runs the script with the guard's connection, to the end of all that it started.
        hear: told what a caged script tried to reach besides its guard.
        always: what waited for the script's end takes effect although the script failed: for a
            rehearsal, which wants to know.
    """
    connection = guard.connection()
    finished = run(connection)
    if not finished.confined and not always:
        carry_back(guard.store.connection(), connection)
    tried = () if finished.confined else attempts(finished)
    for event in tried:
        hear(event)
    ended_well = finished.ended == "exited" and finished.exit_code == 0
    try:
        reports = guard.settle(keep_copies=ended_well or always)
    except StoreError as error:
        event = Event("refused", f"it could not be settled: {error.message}")
        hear(event)
        failed = [Report(part.store.resource, OBSERVED) for part in guard.parts]
        failed[0] = replace(failed[0], events=(*tried, event))
        return replace(finished, ended="not-settled"), tuple(failed)
    caged = [_with_ways_round(one, finished) for one in reports]
    caged[0] = replace(caged[0], events=(*caged[0].events, *tried))
    return finished, tuple(caged)


def _with_ways_round(report: Report, finished: Finished) -> Report:
    """Return a report that says how the script could have gone, or went, round its guard."""
    past = report.how == SWAPPED and any(event.kind == "bypass" for event in report.events)
    why = "it went past its copy" if past else finished.confined
    return replace(report, avoidable=report.avoidable or why)


def carry_back(real: Connection, copy: Connection) -> None:
    """Put what a script made beside the copy of a file where it thought to have made it."""
    for path, other in replaced(real, copy):
        if path.is_dir() or not other.parent.is_dir():
            continue
        for made in other.parent.iterdir():
            own = made.name == other.name or made.name.startswith(f"{other.name}-")
            if not own and not os.path.lexists(path.parent / made.name):
                shutil.move(made, path.parent / made.name)


def attempts(finished: Finished) -> tuple[Event, ...]:
    """Return what a caged script tried to reach besides its guard, as events."""
    return tuple(Event("bypass", f"tried to reach {what}") for what in finished.reached)


def cage(world: World, store: Store, connection: Connection, token: str = "") -> Confine:
    """Return what keeps a script to its guard: files as usual, no other way to the store.

    Args:
        world: the ports.
        store: the real one.
        connection: the guard's.
        token: of the run, whose script has a home of its own; empty for a person's command.
    """
    real = store.connection()
    own = [one.connection() for one in together.parts_of(store)]
    return Confine(
        writable=(*connection.paths, *((scripts.home_of(world, token),) if token else ())),
        replaced=replaced(real, connection),
        hidden=(world.state, *socket_folders(own)),
        sockets=connection.sockets,
        network_only=True,
    )


def replaced(real: Connection, copy: Connection) -> tuple[tuple[Path, Path], ...]:
    """Return which path of a store stands for which other one of its copy."""
    found = [
        (path, copy.parts.get(part, ""))
        for part, path in real.parts.items()
        if part == "path" or part.endswith(".path")
    ]
    pairs = [(Path(path), Path(other)) for path, other in found if path and other]
    return tuple(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1]))


def socket_folders(connections: Iterable[Connection]) -> tuple[Path, ...]:
    """Return the folders of real servers' sockets, which must be out of a script's sight."""
    return tuple(path for one in connections if not one.parts.get("path") for path in one.paths)


def is_dropped(report: Report | None) -> bool:
    """Whether the script had copies alone, and none of them was swapped in."""
    if report is None or report.stop is None:
        return False
    parts = report.parts or (report,)
    return all(part.how in {SWAPPED, LEFT} for part in parts) and not report.kept


def is_exact(report: Report | None) -> bool:
    """Whether what the guard counted is all that the script did, in rows."""
    return (
        report is not None
        and OBSERVED not in report.how
        and not is_dropped(report)
        and not report.unheld
        and not report.avoidable
    )


def done(measured: tuple[Effect, ...], report: Report | None) -> tuple[Effect, ...]:
    """Return what a run did: its own rows where the guard knows them, else all that is seen."""
    if report is None or not is_exact(report):
        return measured
    return budgets.own(measured, report.effects)


def counted(report: Report) -> tuple[Effect, ...]:
    """Return the rows that a guard counted in a rehearsal; empty where it only looked on."""
    if OBSERVED in report.how:
        return ()
    return tuple(effect for effect in report.effects if effect.verb in budgets.COUNTED)
