"""Guarding: what a script is held to, where it may reach, and what its guard said of it.

Rules:
- A script reaches its store through the guard alone, where this machine can see to that; where it
  cannot, what the guard counted is not all that the script may have done.
- What waited for the script's end takes effect only when the script ended well.
- An event is journalled when it happens, from whatever thread it comes; one that cannot be
  journalled ends the run as soon as the script has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

from handrail.core import scripts
from handrail.core.world import Talk, World
from handrail.errors import JournalError, StoreError
from handrail.plans import budget as budgets
from handrail.plans.effect import Effect
from handrail.plans.holding import Event, Limits, Report
from handrail.plans.model import Plan
from handrail.plans.policy import Policy
from handrail.ports import Confine, Connection, Finished, Store, StoreGuard

OBSERVED = "observed only"
_TOLD = 20


@dataclass
class Hearing:
    """Whoever listens to a guard: each event is journalled and told.

    Attributes:
        note: journals an event.
        talk: told the first few.
        failure: why an event could not be journalled.
    """

    note: Callable[[Event], object]
    talk: Talk
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


def attend(
    guard: StoreGuard,
    store: Store,
    run: Callable[[Connection], Finished],
    hear: Callable[[Event], None],
    *,
    always: bool = False,
) -> tuple[Finished, Report]:
    """Let a script run behind `guard`, and return how it ended and what it did.

    Args:
        guard: held by the caller.
        store: what it guards.
        run: runs the script with the guard's connection, to the end of all that it started.
        hear: told what a caged script tried to reach besides its guard.
        always: what waited for the script's end takes effect although the script failed: for a
            rehearsal, which wants to know.
    """
    connection = guard.connection()
    finished = run(connection)
    tried = () if finished.confined else attempts(finished)
    for event in tried:
        hear(event)
    ended_well = finished.ended == "exited" and finished.exit_code == 0
    if _is_copy(connection, store) and not ended_well and not always:
        return finished, Report(store.resource, "copied and swapped in", events=tried)
    try:
        report = guard.settle()
    except StoreError as error:
        event = Event("refused", f"it could not be settled: {error.message}")
        hear(event)
        report = Report(store.resource, OBSERVED, events=(*tried, event))
        return replace(finished, ended="not-settled"), report
    avoidable = report.avoidable or finished.confined
    return finished, replace(report, events=(*report.events, *tried), avoidable=avoidable)


def _is_copy(connection: Connection, store: Store) -> bool:
    """Whether the script works on a copy, of which nothing takes effect before the swap."""
    own = store.connection().parts.get("path")
    return bool(own) and connection.parts.get("path") != own


def attempts(finished: Finished) -> tuple[Event, ...]:
    """Return what a caged script tried to reach besides its guard, as events."""
    return tuple(Event("bypass", f"tried to reach {what}") for what in finished.reached)


def cage(world: World, store: Store, connection: Connection, token: str) -> Confine:
    """Return what keeps a run's script to its guard: files as usual, no other way to the store."""
    real = store.connection()
    own, copy = real.parts.get("path"), connection.parts.get("path")
    replaces = own and copy and own != copy and Path(own).is_dir()
    return Confine(
        writable=(*connection.paths, scripts.home_of(world, token)),
        # A file cannot be replaced alone: what is written beside it would be lost with the copy.
        replaced=((Path(own), Path(copy)),) if own and copy and replaces else (),
        hidden=(world.state, *(real.paths if not own else ())),
        sockets=connection.sockets,
        network_only=True,
    )


def is_exact(report: Report | None) -> bool:
    """Whether what the guard counted is all that the script did, in rows."""
    return (
        report is not None and report.how != OBSERVED and not report.unheld and not report.avoidable
    )


def done(measured: tuple[Effect, ...], report: Report | None) -> tuple[Effect, ...]:
    """Return what a run did: its own rows where the guard knows them, else all that is seen."""
    if report is None or not is_exact(report):
        return measured
    return budgets.own(measured, report.effects)


def counted(report: Report) -> tuple[Effect, ...]:
    """Return the rows that a guard counted in a rehearsal; empty where it only looked on."""
    if report.how == OBSERVED:
        return ()
    return tuple(effect for effect in report.effects if effect.verb in budgets.COUNTED)
