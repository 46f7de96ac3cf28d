"""When a schedule is due, what was missed, and by when a success is expected. Pure.

Rules:
- Times are aware and in UTC; a schedule's zone is where its cron expression is read. In the night
  that has an hour twice, a time of day comes once; in the one that lacks it, at its end.
- However many times have passed, one of them begins, the newest: the others are skipped, and told.
- Jitter comes from the operation and the time alone: every server, and every look, has the same.
- A wall clock that jumps changes what is looked at, never what was taken before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from handrail.operations.model import Schedule
from handrail.operations.schedules import zone_of

# More missed times than these are told as these: nobody waits for their exact number.
MANY = 1000
_WINDOWS = (
    timedelta(hours=1),
    timedelta(days=1),
    timedelta(days=32),
    timedelta(days=366),
    timedelta(days=9 * 366),
)


@dataclass(frozen=True)
class Due:
    """One time of a schedule, to be begun.

    Attributes:
        operation: its name.
        time: as the cron expression means it, in UTC: what it is known by.
        begins_at: with its jitter.
    """

    operation: str
    schedule: Schedule
    time: datetime
    begins_at: datetime


@dataclass(frozen=True)
class Skipped:
    """Times that are over and will not begin: the first and last of them, how many, and why."""

    first: datetime
    last: datetime
    count: int
    why: str


@dataclass(frozen=True)
class Look:
    """What a schedule amounts to at a moment.

    Attributes:
        due: what is to begin now; None where nothing is.
        skipped: what is over and will not begin; None where nothing is.
        wakes_at: when it is worth looking again; None where that is never.
    """

    due: Due | None = None
    skipped: Skipped | None = None
    wakes_at: datetime | None = None


def times(cron: str, zone: str, after: datetime) -> Iterator[datetime]:
    """Yield the times of a cron expression beyond `after`, in order, in UTC.

    Raises:
        ValueError: there is no such zone.
    """
    from cronsim import CronSim  # noqa: PLC0415  few commands look at a calendar

    try:
        for found in CronSim(cron, after.astimezone(zone_of(zone))):
            moment = found.astimezone(UTC)
            # In the hour that comes twice the first is given once more to whoever asks in between.
            if moment > after:
                yield moment
    except OverflowError:
        return  # the end of the calendar


def jitter_s(operation: str, schedule: Schedule, time: datetime) -> int:
    """Return how much later than its time it begins: from 0 to what is declared."""
    text = f"{operation}\n{schedule.key}\n{time.astimezone(UTC).isoformat()}"
    drawn = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return drawn % (schedule.jitter_s + 1)


def one(operation: str, schedule: Schedule, time: datetime) -> Due:
    """Return a time of a schedule with its jitter."""
    later = timedelta(seconds=jitter_s(operation, schedule, time))
    return Due(operation, schedule, time, time + later)


def look(
    operation: str,
    schedule: Schedule,
    after: datetime,
    now: datetime,
    taken: Collection[datetime] = (),
) -> Look:
    """Return what is due of a schedule that has a cron expression.

    Args:
        operation: its name.
        schedule: as declared.
        after: times up to here are done with.
        now: the wall clock.
        taken: times beyond `after` that were begun before, as when the clock was set back.
    """
    passed = [
        one(operation, schedule, time)
        for time in _newest(schedule, after, now, operation)
        if time not in taken
    ]
    ready = [due for due in passed if due.begins_at <= now]
    wakes_at = _wakes_at(operation, schedule, passed, now)
    if not ready:
        return Look(wakes_at=wakes_at)
    newest = ready[-1]
    if now - newest.begins_at <= timedelta(seconds=schedule.late_s) or schedule.missed == "once":
        why = f"made up for by the one of {said(newest.time)}"
        return Look(newest, _skipped(schedule, after, newest.time, why, taken), wakes_at)
    why = "nothing could begin it in time"
    beyond = newest.time + timedelta(seconds=1)
    return Look(None, _skipped(schedule, after, beyond, why, taken), wakes_at)


def _newest(
    schedule: Schedule, after: datetime, now: datetime, operation: str
) -> tuple[datetime, ...]:
    """Return the last times up to now, at least one that is ready where there is one."""
    for window in _WINDOWS:
        start = max(after, now - window - timedelta(seconds=schedule.jitter_s))
        found = []
        for time in times(schedule.cron, schedule.zone, start):
            if time > now:
                break
            found.append(time)
        is_ready = any(one(operation, schedule, time).begins_at <= now for time in found)
        if is_ready or start <= after:
            return tuple(found)
    return ()


def _skipped(
    schedule: Schedule,
    after: datetime,
    before: datetime,
    why: str,
    taken: Collection[datetime],
) -> Skipped | None:
    found: list[datetime] = []
    last = None
    for time in times(schedule.cron, schedule.zone, after):
        if time >= before or len(found) >= MANY:
            break
        if time not in taken:
            found.append(time)
            last = time
    if last is None:
        return None
    if len(found) >= MANY:
        last = before - timedelta(seconds=1)
    return Skipped(found[0], last, len(found), why)


def _wakes_at(
    operation: str, schedule: Schedule, passed: list[Due], now: datetime
) -> datetime | None:
    """Return when the next one begins: one that only waits for its jitter, or one to come."""
    waiting = [due.begins_at for due in passed if due.begins_at > now]
    coming = next(times(schedule.cron, schedule.zone, now), None)
    if coming is not None:
        waiting.append(one(operation, schedule, coming).begins_at)
    return min(waiting, default=None)


def deadline(schedule: Schedule, since: datetime, *, succeeded: bool) -> datetime | None:
    """Return by when a success is expected; None where none is, ever.

    Args:
        schedule: as declared.
        since: of the last success, or when the declaration was first seen.
        succeeded: whether it was a success: then the `by` that it was made for is kept already.
    """
    found = []
    if schedule.expect_s:
        found.append(since + timedelta(seconds=schedule.expect_s))
    if schedule.by:
        coming = times(schedule.by, schedule.zone, since)
        first = next(coming, None)
        second = next(coming, None)
        by = second if succeeded else first
        if by is not None:
            found.append(by)
    return min(found, default=None)


def said(moment: datetime) -> str:
    """Return a time as people read it: `2026-01-05 03:00 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
