"""Schedules, against a server: listed, paused and resumed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from handrail.cli import schedules
from handrail.core import backing_up
from handrail.core.scheduling import Standing
from handrail.errors import Place, UsageError
from handrail.operations.model import Schedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handrail.cli.remote import RemoteCall


def run(call: RemoteCall) -> int:
    """List, or do what was said."""
    action, name = call.options.action, call.options.operation
    if action is None:
        found = call.server.ask("GET", "/v1/schedules")
        kept = [_backup(one) for one in found["backups"]]
        return schedules.show(call, [_standing(one) for one in found["schedules"]], kept)
    if action == "run-due":
        raise UsageError("remote.local-only", "the server begins what is due by itself")
    if not name:
        raise UsageError("usage", "which operation?", hint=f"handrail schedules {action} OPERATION")
    path = f"/v1/schedules/{quote(name, safe='')}/{action}"
    if action == "resume":
        call.server.ask("POST", path)
        return schedules.show_resumed(call, name)
    because, for_s = schedules.pausing(call, name)
    until = call.server.ask("POST", path, {"because": because, "for_s": for_s})["until"]
    return schedules.show_paused(call, name, _time(until))


def _standing(told: Mapping[str, Any]) -> Standing:
    """Return where a schedule stands, as far as a screen shows it."""
    schedule = Schedule(
        Place("the server"),
        name=told["name"],
        cron=told["cron"],
        zone=told["zone"],
        by="told" if told["expects"] else "",
    )
    return Standing(
        operation=told["operation"],
        schedule=schedule,
        target=told["target"],
        next_at=_time(told["next_at"]),
        last_time=told["last_time"],
        last=told["last"],
        run=told["run"],
        why=told["why"],
        paused=told["paused"],
        expected_by=_time(told["expected_by"]),
        since=_time(told["since"]),
        succeeded=told["succeeded"],
        overdue=told["overdue"],
    )


def _backup(told: Mapping[str, Any]) -> backing_up.Standing:
    times = {name: _time(told[name]) for name in ("next_at", "due_by")}
    return backing_up.Standing(**{**told, **times})


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
