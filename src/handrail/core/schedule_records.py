"""What the journal holds of an operation's schedules, and the words of it.

The chain `schedule-<operation>` has `declared` (first seen), `due` (taken, about to be planned),
`waiting` (for an approval), `postponed`, `refused`, `begun`, `ended`, `skipped`, `paused` and
`resumed`.

Rules:
- Only the newest records are read: a schedule of every minute has a long past.
- A time counts as done with only once the clock has come to it: a clock that was a year ahead for
  a moment must not silence a schedule for that year.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from handrail.core import noticing, records
from handrail.core.world import Declared, World
from handrail.operations.model import Operation, Schedule
from handrail.plans.canonical import time_text
from handrail.plans.notice import Notice
from handrail.plans.schedule import Skipped, said
from handrail.ports import Record

# What a due time comes to that is not its end.
OPEN = frozenset({"due", "waiting", "postponed", "begun"})
_TAIL = 100
_TIMED = frozenset({"declared", "due", "skipped"})


@dataclass(frozen=True)
class Past:
    """The newest records of an operation's schedules.

    Attributes:
        told: kind, body and record, oldest first.
        fence: what the next record must follow.
    """

    told: tuple[tuple[str, dict[str, Any], Record], ...]
    fence: str

    def paused(self, now: datetime) -> dict[str, Any] | None:
        """Return who paused it, why and until when; None where it is not paused now."""
        last = self._pause()
        until = str(last.get("until", "")) if last else ""
        return None if until and datetime.fromisoformat(until) <= now else last

    def is_pause_over(self, now: datetime) -> bool:
        """Whether it was paused until a time, and that has come."""
        return self._pause() is not None and self.paused(now) is None

    def _pause(self) -> dict[str, Any] | None:
        last = next((t for t in reversed(self.told) if t[0] in {"paused", "resumed"}), None)
        return None if last is None or last[0] == "resumed" else last[1]

    def base(self, schedule: Schedule, now: datetime) -> datetime | None:
        """Return up to when its times are done with; None where it was never seen."""
        key = schedule.key
        found = [
            datetime.fromisoformat(record.time if kind == "resumed" else body["time"])
            for kind, body, record in self.told
            if kind == "resumed" or (kind in _TIMED and body["schedule"] == key)
        ]
        is_seen = any(body.get("schedule") == key for _, body, _ in self.told)
        return max((at for at in found if at <= now), default=None) if is_seen else None

    def is_fading(self, schedule: Schedule) -> bool:
        """Whether a schedule is about to be forgotten, behind the many records of another."""
        recent = self.told[-_TAIL // 2 :]
        return len(self.told) > len(recent) and not any(
            kind in _TIMED and body["schedule"] == schedule.key for kind, body, _ in recent
        )

    def taken(self, schedule: Schedule) -> frozenset[datetime]:
        """Return the times that were begun with."""
        key = schedule.key
        return frozenset(
            datetime.fromisoformat(body["time"])
            for kind, body, _ in self.told
            if kind == "due" and body["schedule"] == key
        )

    def last_of(self, schedule: Schedule) -> tuple[str, dict[str, Any]] | None:
        """Return the kind and body that its newest due time came to; None where there is none."""
        key = schedule.key
        begun = [t[1]["time"] for t in self.told if t[0] == "due" and t[1]["schedule"] == key]
        return self.of(schedule, begun[-1]) if begun else None

    def of(self, schedule: Schedule, time: str) -> tuple[str, dict[str, Any]] | None:
        """Return the newest kind and body of one due time."""
        for kind, body, _ in reversed(self.told):
            if body.get("schedule") == schedule.key and body.get("time") == time:
                return kind, body
        return None

    def attempts(self, schedule: Schedule, time: str) -> int:
        """Return how often one due time was taken."""
        own = (t for t in self.told if t[0] == "due" and t[1]["schedule"] == schedule.key)
        return sum(body["time"] == time for _, body, _ in own)

    def number(self, schedule: Schedule, time: str) -> int:
        """Return the run of one due time; 0 where none was noted."""
        for kind, body, _ in self.told:
            is_it = body.get("schedule") == schedule.key and body.get("time") == time
            if kind == "begun" and is_it:
                return int(body["run"])
        return 0


def chain_of(operation: str) -> str:
    """Return the chain of an operation's schedules."""
    return f"schedule-{operation}"


def past(world: World, operation: str) -> Past:
    """Return what the journal has of an operation's schedules."""
    last = world.journal.last(chain_of(operation))
    if last is None:
        return Past((), "new")
    found = world.journal.records(chain_of(operation), max(0, last.sequence - _TAIL))
    told = tuple((record.kind, records.body(record), record) for record in found)
    return Past(told, told[-1][2].hash)


def lock_of(operation: str) -> str:
    """Return what is held while a due time of an operation is carried out."""
    return f"schedule/{operation}"


def skipped_body(schedule: Schedule, skipped: Skipped) -> dict[str, object]:
    """Return the body of `skipped`."""
    return {
        "schedule": schedule.key,
        "first": time_text(skipped.first),
        "time": time_text(skipped.last),
        "count": skipped.count,
        "why": skipped.why,
    }


def missed(
    declared: Declared, operation: Operation, schedule: Schedule, skipped: Skipped
) -> Notice:
    """Return the notice of times that did not begin."""
    times = said(skipped.last)
    if skipped.count > 1:
        times = f"{said(skipped.first)} to {times}, {skipped.count:,} times"
    return noticing.make(
        declared,
        ("schedule", operation.name, schedule.key, time_text(skipped.last)),
        "skipped",
        title=f"{operation.name} did not begin at {said(skipped.last)}",
        text=f"{times}: {skipped.why}",
        time=time_text(skipped.last),
        operation=operation.name,
        resource=target_of(operation, schedule),
        next=f"handrail run {operation.name}",
    )


def target_of(operation: Operation, schedule: Schedule) -> str:
    """Return the resource that a schedule is for; empty where that is found out by planning."""
    on = operation.on
    return schedule.on or (f"{on.kind}/{on.name}" if on.name else "")
