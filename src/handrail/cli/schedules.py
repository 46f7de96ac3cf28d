"""List schedules and backups: what begins next, what the last time came to, what is overdue.

A schedule stands in its operation: `schedule:` in operations/*.yaml; how a store is backed up in
the estate. `handrail serve` begins what is due; where there is no server, let cron or systemd call
`handrail schedules run-due`.

examples:
  handrail schedules
  handrail schedules run-due                      begin what is due now, and tell who is to be told
  handrail schedules pause trim --because "we move the database" --for 2d
  handrail schedules resume trim

Exit code of `run-due`: that of the run which went worst; 1 where a backup failed; 3 where one was
refused, 4 where one waits for somebody; else 0.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from handrail.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from handrail.cli.call import Call
    from handrail.core import backing_up
    from handrail.core.scheduling import Standing
    from handrail.core.world import World
    from handrail.plans.schedule import Due
    from handrail.ports import Engine

# What a backup came to, where the word in the record is not the word for people.
_CAME_TO = {"": "-", "ended": "made", "begun": "cut off", "made": "cut off"}
_ACTIONS = ("run-due", "pause", "resume")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "action", nargs="?", choices=_ACTIONS, help="what to do; else they are listed"
    )
    parser.add_argument("operation", nargs="?", metavar="OPERATION", help="to pause or resume")
    parser.add_argument("--because", default="", metavar="TEXT", help="why it is paused")
    parser.add_argument("--for", dest="lasts", metavar="TIME", help="how long: `2h`, `3d`")


def run(call: Call) -> int:
    """List, or do what was said."""
    action, name = call.options.action, call.options.operation
    if action in {"pause", "resume"} and not name:
        raise UsageError("usage", "which operation?", hint=f"handrail schedules {action} OPERATION")
    match action:
        case "run-due":
            return _run_due(call)
        case "pause":
            return _pause(call, name)
        case "resume":
            return _resume(call, name)
        case _:
            return _list(call)


def _list(call: Call) -> int:
    from handrail.core import backing_up, scheduling

    world, declared = call.world, call.declared
    kept = list(backing_up.standings(world, declared))
    return show(call, list(scheduling.standings(world, declared)), kept)


def show(call: Call, found: Sequence[Standing], kept: Sequence[backing_up.Standing]) -> int:
    """Write where schedules and backups stand."""
    from handrail.cli import screen

    if call.options.json:
        from handrail.plans.canonical import plain

        schedules = [as_json(one) for one in found]
        backups = [plain(one) for one in kept]
        screen.write_json({"format": 1, "schedules": schedules, "backups": backups})
        return 0
    if not found:
        screen.write(
            "no operation has a schedule.\nnext: handrail schema operation     has `schedule`"
        )
    else:
        _show_schedules(found)
    if kept:
        screen.write("")
        _show_backups(kept)
    return 0


def _show_backups(kept: Sequence[backing_up.Standing]) -> None:
    from handrail.cli import screen

    rows = [("backups of", "every", "next (UTC)", "newest (UTC)", "proven (UTC)", "came to")]
    for one in kept:
        next_at = f"{one.next_at:%Y-%m-%d %H:%M}" if one.next_at else "not looked yet"
        overdue = f"OVERDUE since {one.due_by:%Y-%m-%d %H:%M}" if one.overdue else ""
        rows.append(
            (
                one.store,
                _every(one.every_s),
                next_at,
                one.made_at[:16].replace("T", " ") or "-",
                one.proven_at[:16].replace("T", " ") or "never",
                ", ".join(part for part in (_CAME_TO.get(one.last, one.last), overdue) if part),
            )
        )
    lines = screen.columns(rows, indent="")
    for one in kept:
        if one.why and one.last != "ended":
            lines.append(screen.wrap(f"{one.store}: {one.last}: {one.why}", "  "))
    screen.write("\n".join(lines))


def _every(seconds: int) -> str:
    """Return a time as it is declared: `1d`, `90m`."""
    for unit, length_s in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length_s == 0:
            return f"{seconds // length_s}{unit}"
    return f"{seconds}s"


def _show_schedules(found: Sequence[Standing]) -> None:
    from handrail.cli import screen

    head = ("operation", "schedule", "next (UTC)", "last (UTC)", "came to", "expected")
    lines = screen.columns([head, *(_row(one) for one in found)], indent="")
    for one in found:
        if one.paused:
            lines.append(screen.wrap(_paused(one), "  "))
        elif one.why and one.last not in {"confirmed", "running"}:
            lines.append(screen.wrap(f"{one.operation}: {one.last}: {one.why}", "  "))
    screen.write("\n".join(lines))


def _row(one: Standing) -> tuple[str, ...]:
    schedule = one.schedule
    when = " ".join(part for part in (schedule.name, schedule.cron) if part) or "by others"
    next_at = f"{one.next_at:%Y-%m-%d %H:%M}" if one.next_at else "paused" if one.paused else "-"
    last = f"{one.last}, run {one.run}" if one.run else one.last or "-"
    return (
        one.operation,
        when if schedule.zone == "UTC" or not schedule.cron else f"{when} {schedule.zone}",
        next_at,
        one.last_time[:16].replace("T", " ") or "-",
        last,
        _expected(one),
    )


def _expected(one: Standing) -> str:
    if not one.schedule.expects:
        return "-"
    if one.paused:
        return "paused"
    if one.expected_by is None:
        return "not looked yet"
    said = f"{one.expected_by:%Y-%m-%d %H:%M}"
    return f"OVERDUE since {said}" if one.overdue else f"by {said}"


def _paused(one: Standing) -> str:
    until = str(one.paused.get("until", ""))[:16].replace("T", " ")
    return (
        f"{one.operation} is paused by {one.paused.get('person') or 'somebody'}"
        + (f" until {until} UTC" if until else "")
        + f": {one.paused.get('because') or 'no reason given'}"
    )


def as_json(one: Standing) -> dict[str, Any]:
    """Return where a schedule stands as its documented JSON shape."""
    from handrail.plans.canonical import plain

    schedule = one.schedule
    return {
        "operation": one.operation,
        "name": schedule.name,
        "cron": schedule.cron,
        "zone": schedule.zone,
        "target": one.target,
        "next_at": plain(one.next_at),
        "last_time": one.last_time,
        "last": one.last,
        "run": one.run,
        "why": one.why,
        "paused": plain(one.paused),
        "expected_by": plain(one.expected_by),
        "since": plain(one.since),
        "succeeded": one.succeeded,
        "overdue": one.overdue,
    }


def _run_due(call: Call) -> int:
    from handrail import wiring
    from handrail.core import acts, backing_up, notifying, scheduling, taking

    code = 0

    def engines(world: World) -> Engine:
        return wiring.engine(world, acts.acts(world, call.declared, lambda _: call.talk))

    def begin(due: Due) -> None:
        nonlocal code
        if not call.options.json:
            call.talk.end("due", f"{due.operation}, {due.time:%Y-%m-%d %H:%M} UTC")
        taking.carry_out(call.world, call.declared, due, call.talk, engines)
        code = max(code, _show(call, due))

    def back_up(task: backing_up.Task) -> None:
        nonlocal code
        code = max(code, _back_up(call, task))

    scheduling.tick(call.world, call.declared, begin)
    backing_up.tick(call.world, call.declared, back_up)
    notifying.deliver(call.world, call.declared)
    if call.options.json:
        return _list(call) or code
    return code


def _back_up(call: Call, task: backing_up.Task) -> int:
    from handrail.cli import screen
    from handrail.core import backing_up

    if not call.options.json:
        call.talk.end("due", f"backup of {task.store}, {task.time:%Y-%m-%d %H:%M} UTC")
    came_to = backing_up.carry_out(call.world, call.declared, task, call.talk)
    if not call.options.json:
        (one,) = (
            one
            for one in backing_up.standings(call.world, call.declared)
            if one.store == task.store
        )
        said = _CAME_TO.get(came_to, came_to) if came_to else "left to another process"
        why = f": {one.why}" if one.why and came_to != "ended" else ""
        screen.write(screen.wrap(f"{said}, backup of {task.store}{why}.", "  "))
    return 1 if came_to == "failed" else 0


def _show(call: Call, due: Due) -> int:
    """Write what a due time came to, and return the exit code that it means."""
    from handrail.cli import screen
    from handrail.core.outcome import OUTCOMES
    from handrail.core.schedule_records import past
    from handrail.plans.canonical import time_text

    kind, body = past(call.world, due.operation).of(due.schedule, time_text(due.time)) or ("", {})
    outcome = str(body.get("outcome", ""))
    if not call.options.json:
        said = outcome or kind or "left to another process"
        run = f": run {body['run']}" if body.get("run") else ""
        why = f". {body['why']}" if body.get("why") else ""
        screen.write(screen.wrap(f"{said}{run}, {due.operation}{why}.", "  "))
    if outcome:
        return OUTCOMES.get(outcome, 1)
    return {"refused": 3, "waiting": 4, "begun": 4, "skipped": 1}.get(kind, 0)


def _pause(call: Call, name: str) -> int:
    from handrail.core import scheduling

    because, for_s = pausing(call, name)
    until = scheduling.pause(call.world, call.declared, name, because, for_s=for_s)
    return show_paused(call, name, until)


def pausing(call: Call, name: str) -> tuple[str, int]:
    """Return why, and for how many seconds; 0 until somebody resumes it."""
    if not call.options.because:
        hint = f'handrail schedules pause {name} --because "..."'
        raise UsageError("usage", "say why: somebody else will wonder", hint=hint)
    return str(call.options.because), _seconds(call.options.lasts)


def show_paused(call: Call, name: str, until: datetime | None) -> int:
    """Write until when an operation's schedules begin nothing."""
    from handrail.cli import screen

    if call.options.json:
        from handrail.plans.canonical import plain

        screen.write_json({"format": 1, "paused": name, "until": plain(until)})
        return 0
    said = f"until {until:%Y-%m-%d %H:%M} UTC" if until else "until somebody resumes it"
    screen.write(f"{name} is paused {said}.\nnext: handrail schedules resume {name}")
    return 0


def _seconds(text: str | None) -> int:
    from handrail.estate.shapes import seconds

    if text is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,6} ?[smhdw]", text) or not seconds(text):
        raise UsageError("usage", f"`{text}` is no time such as `2h` or `3d`")
    return seconds(text)


def _resume(call: Call, name: str) -> int:
    from handrail.core import scheduling

    scheduling.resume(call.world, call.declared, name)
    return show_resumed(call, name)


def show_resumed(call: Call, name: str) -> int:
    """Write that an operation's schedules begin again."""
    from handrail.cli import screen

    if call.options.json:
        screen.write_json({"format": 1, "resumed": name})
    else:
        screen.write(f"{name} begins again at its next time; what passed is not made up for.")
    return 0
