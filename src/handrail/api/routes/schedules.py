"""Schedules: where they stand, paused and resumed."""

from __future__ import annotations

from typing import Any

from handrail.api.route import Answer, Asked, On, Route
from handrail.api.shapes import BackupLine, Paused, Pausing, ScheduleLine, ScheduleLines
from handrail.api.targets import on_of, sees
from handrail.core import backing_up, scheduling
from handrail.core.schedule_records import target_of
from handrail.core.scheduling import Standing
from handrail.errors import UsageError
from handrail.plans.canonical import plain


def on_schedule(asked: Asked) -> On:
    """Return what the operation in the address is scheduled on."""
    operation = asked.declared.operations.get(asked.path["operation"])
    if operation is None or not operation.schedules:
        name = asked.path["operation"][:80]
        raise UsageError("operations.unknown", f"no operation `{name}` has a schedule")
    targets = dict.fromkeys(target_of(operation, one) for one in operation.schedules)
    return tuple(pair for target in targets for pair in on_of(asked.declared, target))


def listed(asked: Asked) -> Answer:
    """Answer where every schedule and backup stands that the person may see."""
    found = scheduling.standings(asked.world, asked.declared)
    lines = tuple(_line(one) for one in found if sees(asked, one.target))
    kept = backing_up.standings(asked.world, asked.declared)
    return Answer(ScheduleLines(lines, tuple(_backup(b) for b in kept if sees(asked, b.store))))


def _backup(one: backing_up.Standing) -> BackupLine:
    said: Any = plain(one)
    return BackupLine(**said)


def _line(one: Standing) -> ScheduleLine:
    schedule = one.schedule
    said: Any = plain(
        {
            "operation": one.operation,
            "name": schedule.name,
            "cron": schedule.cron,
            "zone": schedule.zone,
            "expects": schedule.expects,
            "target": one.target,
            "next_at": one.next_at,
            "last_time": one.last_time,
            "last": one.last,
            "run": one.run,
            "why": one.why,
            "paused": one.paused,
            "expected_by": one.expected_by,
            "since": one.since,
            "succeeded": one.succeeded,
            "overdue": one.overdue,
        }
    )
    return ScheduleLine(**said)


def pause(asked: Asked) -> Answer:
    """Let an operation's schedules begin nothing."""
    said, name = asked.body, asked.path["operation"]
    until = scheduling.pause(asked.world, asked.declared, name, said.because, for_s=said.for_s)
    return Answer(Paused(name, str(plain(until)) if until else None))


def resume(asked: Asked) -> Answer:
    """Let an operation's schedules begin again."""
    name = asked.path["operation"]
    scheduling.resume(asked.world, asked.declared, name)
    return Answer(Paused(name, None))


ROUTES = (
    Route(
        "GET",
        "/v1/schedules",
        "Say what begins next, what the last time came to, and what is overdue.",
        "viewer",
        listed,
        answer=ScheduleLines,
    ),
    Route(
        "POST",
        "/v1/schedules/{operation}/pause",
        "Let an operation's schedules begin nothing, for a while or until they are resumed.",
        "operator",
        pause,
        on=on_schedule,
        body=Pausing,
        answer=Paused,
    ),
    Route(
        "POST",
        "/v1/schedules/{operation}/resume",
        "Let an operation's schedules begin again.",
        "operator",
        resume,
        on=on_schedule,
        answer=Paused,
    ),
)
