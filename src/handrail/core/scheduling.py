"""Scheduling: what is due is handed over to be begun, once; what was missed is told.

Rules:
- A look changes nothing but the record: whatever takes time is done by `taking.carry_out`.
- Two servers that look at once are told apart by the journal: one of them looks again.
- A schedule begins with the first look at it: what it would have done before never happens.
- What waits for an approval waits until the next due time, and no longer.
- A paused schedule begins nothing, and makes up for nothing afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from handrail.core import expecting, notifying, records
from handrail.core.schedule_records import (
    OPEN,
    Past,
    chain_of,
    lock_of,
    missed,
    past,
    skipped_body,
    target_of,
)
from handrail.core.world import Declared, World
from handrail.errors import FencedError, UsageError
from handrail.estate.shapes import nearest
from handrail.operations.model import Operation, Schedule
from handrail.plans import schedule as calendar
from handrail.plans.canonical import time_text
from handrail.plans.notice import Notice
from handrail.plans.schedule import Due, said
from handrail.ports import Entry

LOOK_S = 60
_ATTEMPTS = 3


@dataclass(frozen=True)
class Standing:
    """Where one schedule of an operation stands, for people.

    Attributes:
        next_at: when it begins next, with its jitter; None for never, or while it is paused.
        last_time: the newest due time, ISO 8601 UTC; empty where there was none.
        last: what that came to: a kind of the chain, `running`, or a run's outcome.
        run: the run of it; 0 where there is none.
        why: more about it.
        paused: who paused it, why and until when; empty where it is not.
        expected_by: by when the next success is expected; None for never.
        since: of the last success, or when the expectation was first seen.
        succeeded: whether it was a success.
        overdue: whether that is over.
    """

    operation: str
    schedule: Schedule
    target: str
    next_at: datetime | None
    last_time: str
    last: str
    run: int
    why: str
    paused: Mapping[str, Any]
    expected_by: datetime | None
    since: datetime | None
    succeeded: bool
    overdue: bool


def standings(world: World, declared: Declared) -> Iterator[Standing]:
    """Yield where every schedule stands, by the journal; changes nothing."""
    for operation in declared.operations.values():
        known = past(world, operation.name) if operation.schedules else None
        for schedule in operation.schedules:
            if known is not None:
                yield _standing(world, operation, schedule, known)


def _standing(world: World, operation: Operation, schedule: Schedule, known: Past) -> Standing:
    now = world.clock.now()
    paused = known.paused(now) or {}
    kind, body = known.last_of(schedule) or ("", {})
    expected = expecting.standing(world, operation.name, schedule)
    overdue = expected.absent or (expected.deadline is not None and expected.deadline <= now)
    is_busy = kind in {"due", "begun"} and world.locks.holder(lock_of(operation.name)) is not None
    return Standing(
        operation=operation.name,
        schedule=schedule,
        target=target_of(operation, schedule),
        next_at=None if paused else _next_at(operation, schedule, known, now),
        last_time=str(body.get("time", "")),
        last="running" if is_busy else str(body.get("outcome", kind)),
        run=int(body.get("run", 0)),
        why=str(body.get("why", "")),
        paused=paused,
        expected_by=expected.deadline,
        since=expected.since,
        succeeded=expected.succeeded,
        overdue=overdue and not paused,
    )


def _next_at(
    operation: Operation, schedule: Schedule, known: Past, now: datetime
) -> datetime | None:
    if not schedule.cron:
        return None
    base = known.base(schedule, now) or now
    found = calendar.look(operation.name, schedule, base, now, known.taken(schedule))
    return found.due.begins_at if found.due else found.wakes_at


def tick(world: World, declared: Declared, begin: Callable[[Due], None]) -> datetime:
    """Look at every schedule once, and return when to look again, at the latest in a minute.

    Args:
        world: the ports.
        declared: the team's declarations.
        begin: is given what is due, and sees that `carry_out` is called with it: here and now, or
            in another thread. Given the same again while that has not come to its end; that
            does no harm.

    Raises:
        JournalError: it cannot be read or written.
    """
    now = world.clock.now()
    wakes = [now + timedelta(seconds=LOOK_S)]
    for operation in declared.operations.values():
        if operation.schedules:
            wakes += _look_at(world, declared, operation, begin)
    wakes += expecting.look(
        world, declared, is_paused=lambda name: past(world, name).paused(now) is not None
    )
    return min(wakes)


@dataclass
class _Noted:
    """What one look at an operation found: what to record, to tell, to begin, and when to look."""

    entries: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    ready: list[Due] = field(default_factory=list)
    wakes: list[datetime] = field(default_factory=list)


def _look_at(
    world: World, declared: Declared, operation: Operation, begin: Callable[[Due], None]
) -> list[datetime]:
    for _ in range(_ATTEMPTS):
        try:
            noted = _note(world, declared, operation)
        except FencedError:
            continue  # another server looked in this moment: see what it saw
        for due in noted.ready:
            begin(due)
        return noted.wakes
    return []


def _note(world: World, declared: Declared, operation: Operation) -> _Noted:
    """Record what is over; return what is to be begun, and when the next look is worth it."""
    now, known, noted = world.clock.now(), past(world, operation.name), _Noted()
    if known.paused(now) is not None:
        return noted
    if known.is_pause_over(now):
        _resume(world, operation, "")
        known = past(world, operation.name)
    is_busy = world.locks.holder(lock_of(operation.name)) is not None
    for schedule in operation.schedules:
        if schedule.cron:
            _note_one(world, declared, operation, schedule, known, noted, is_busy=is_busy)
    fence, entries = known.fence, []
    for kind, body in noted.entries:
        entries.append(Entry(chain_of(operation.name), kind, body, after=fence))
        fence = ""
    notifying.queue(world, declared, noted.notices, entries)
    return noted


def _note_one(
    world: World,
    declared: Declared,
    operation: Operation,
    schedule: Schedule,
    known: Past,
    noted: _Noted,
    *,
    is_busy: bool,
) -> None:
    now = world.clock.now()
    base = known.base(schedule, now)
    if base is None or known.is_fading(schedule):
        base = base or now
        noted.entries.append(("declared", {"schedule": schedule.key, "time": time_text(base)}))
    found = calendar.look(operation.name, schedule, base, now, known.taken(schedule))
    noted.wakes += [found.wakes_at] if found.wakes_at else []
    if is_busy:
        return  # the one before is not at its end: nothing is said of this one yet
    last = known.last_of(schedule)
    standing = last if last is not None and last[0] in OPEN else None
    if found.skipped is not None:
        noted.entries.append(("skipped", skipped_body(schedule, found.skipped)))
        if found.due is None:
            noted.notices.append(missed(declared, operation, schedule, found.skipped))
    if found.due is not None:
        noted.entries += _superseded(schedule, standing, found.due)
        noted.ready.append(found.due)
    elif standing is not None:
        noted.ready += _again(world, operation, schedule, standing, now)


def _superseded(
    schedule: Schedule, standing: tuple[str, dict[str, Any]] | None, due: Due
) -> list[tuple[str, dict[str, object]]]:
    """Return the end of a due time that still waits when the next one comes."""
    if standing is None or standing[0] == "begun":
        return []
    time = str(standing[1]["time"])
    why = f"it still waited at the next time, {said(due.time)}"
    return [("skipped", {"schedule": schedule.key, "time": time, "count": 1, "why": why})]


def _again(
    world: World,
    operation: Operation,
    schedule: Schedule,
    standing: tuple[str, dict[str, Any]],
    now: datetime,
) -> list[Due]:
    """Return an earlier due time that is to be looked at again: nobody is at it any more."""
    kind, body = standing
    due = calendar.one(operation.name, schedule, datetime.fromisoformat(body["time"]))
    if kind == "waiting":
        approved = len(records.approvals(world.journal, str(body["plan"])))
        return [due] if approved != body.get("approvals", 0) else []
    if kind == "postponed":
        # Planned anew only once the target is free, or it is too late: a plan counts rows.
        late_s = (now - due.begins_at).total_seconds()
        target = target_of(operation, schedule)
        is_held = bool(target) and world.locks.holder(target) is not None
        return [] if is_held and late_s <= schedule.late_s else [due]
    return [due]


def pause(
    world: World, declared: Declared, name: str, because: str, *, for_s: int = 0
) -> datetime | None:
    """Let an operation's schedules begin nothing, and return until when; None for until resumed.

    Raises:
        UsageError: there is no such schedule.
    """
    _scheduled(declared, name)
    now = world.clock.now()
    until = now + timedelta(seconds=for_s) if for_s else None
    body = {
        "person": world.person,
        "because": because,
        "until": time_text(until) if until else "",
    }
    world.journal.append(chain_of(name), "paused", body)
    return until


def resume(world: World, declared: Declared, name: str) -> None:
    """Let an operation's schedules begin again. What passed meanwhile is not made up for.

    Raises:
        UsageError: there is no such schedule, or it is not paused.
    """
    operation = _scheduled(declared, name)
    if past(world, name).paused(world.clock.now()) is None:
        raise UsageError("schedule.unknown", f"`{name}` is not paused", hint="handrail schedules")
    _resume(world, operation, world.person)


def _resume(world: World, operation: Operation, person: str) -> None:
    world.journal.append(chain_of(operation.name), "resumed", {"person": person})
    expecting.begin_anew(world, operation)


def _scheduled(declared: Declared, name: str) -> Operation:
    known = {o.name: o for o in declared.operations.values() if o.schedules}
    if name in known:
        return known[name]
    raise UsageError(
        "schedule.unknown",
        f"no operation `{name}` has a schedule",
        hint=nearest(name, tuple(known)) or "declare it: `schedule:` in operations/*.yaml",
    )
