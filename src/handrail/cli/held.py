"""How a script was held, as text: what stopped it, what is held before a run, what was seen.

Rules:
- The first line says what would have been done, in verbs and nouns; the last what comes next.
- What could not be held is said before the run as well as after it.
"""

from __future__ import annotations

from collections.abc import Sequence

from handrail.cli.screen import columns, shorten, wrap
from handrail.errors import sanitise
from handrail.plans.effect import Effect
from handrail.plans.holding import Event, Report, Stop
from handrail.plans.model import Plan

_DONE = {
    "delete": "deleted",
    "update": "updated",
    "insert": "inserted",
    "drop": "dropped",
    "truncate": "truncated",
    "replace": "replaced",
    "rewrite": "rewritten",
    "alter": "altered",
    "rename": "renamed",
    "create": "created",
    "grant": "granted",
    "revoke": "revoked",
    "expire": "expired",
    "advance": "advanced",
}
_BEFORE = {
    "before COMMIT": "stopped before COMMIT",
    "before each command": "stopped before the command",
    "copied and swapped in": "stopped before the swap",
}
_EVENTS = 12
_STATEMENT = 78
_LABEL = 18


def stop_lines(stop: Stop, how: str, script: str, measure: str, state: str) -> list[str]:
    """Return why a script was stopped.

    Args:
        stop: what the guard says.
        how: how the guard holds, as in its report.
        script: how people call it.
        measure: what it was held to: `it did in rehearsal`, `its budget allows`.
        state: what of it was kept, as a sentence.
    """
    head = _BEFORE.get(how, "stopped")
    effect = stop.effect
    if effect is None:
        lines = [wrap(f"{head}: {script}: {stop.what}", "  "), ""]
    else:
        lines = [wrap(f"{head}: {script} would have {_beyond(stop, effect, measure)}", "  "), ""]
        lines.append(_row(f"{effect.kind} {effect.name}", _amounts(stop, effect)))
    if stop.statement:
        lines.append(_row("statement", shorten(sanitise(stop.statement), _STATEMENT)))
    lines.append(_row("state", state))
    return lines


def _beyond(stop: Stop, effect: Effect, measure: str) -> str:
    done = _DONE.get(effect.verb, "done")
    if stop.allowed is None:
        return f"{done} {effect.kind} {effect.name}, which is not in its budget"
    return f"{done} more than {measure}"


def _amounts(stop: Stop, effect: Effect) -> str:
    done = _DONE.get(effect.verb, effect.verb)
    amount = done if effect.rows is None else f"{effect.rows:,} {done} so far"
    if stop.allowed is None:
        return f"{amount}; budget 0"
    if stop.allowed.rows is None:
        return amount
    return f"{amount}; budget {stop.allowed.rows:,}, tolerance {stop.allowed.tolerance:,}"


def _row(label: str, text: str) -> str:
    shown = shorten(sanitise(label), 40)
    indent = " " * (2 + max(_LABEL, len(shown) + 1))
    return f"  {shown:<{len(indent) - 2}}" + wrap(text, indent)


def state_of(stop: Stop, number: int | None = None) -> str:
    """Return what of a stopped script was kept."""
    if not stop.kept:
        return "nothing that it did was kept"
    were = "one earlier one was" if stop.kept == 1 else f"{stop.kept:,} earlier ones were"
    where = "" if number is None else f": handrail runs show {number}"
    return f"nothing of this transaction was kept; {were}{where}"


def report_lines(reports: Sequence[Report]) -> list[str]:
    """Return how each store was held, what could only be undone, and what else was seen."""
    lines = []
    for report in reports:
        by = ", as a limited role" if report.role == "limited" else ""
        lines.append(wrap(f"{report.resource}: {_how(report.how)}{by}", "  "))
        if report.avoidable:
            lines.append(wrap(f"  it could have gone round the guard: {report.avoidable}", "    "))
        if report.unheld:
            lines.append(wrap(f"  took effect as it ran: {_some(report.unheld)}", "    "))
        lines += event_lines(report.events)
    return lines


def part_lines(report: Report) -> list[str]:
    """Return what of each store was kept, where a script had several, and what only undo brings."""
    rows = [(part.resource, _kept(part)) for part in report.parts]
    return columns(rows)


def _kept(part: Report) -> str:
    held = {
        "before COMMIT": ("transaction", "held before COMMIT"),
        "before each command": ("command", "held before each command"),
    }
    if part.how not in held:
        swapped = part.how == "copied and swapped in" and part.kept
        state = "worked on a copy: " + ("swapped in" if swapped else "nothing of it was kept")
        return state if part.how.startswith("copied") else part.how
    noun, how = held[part.how]
    some = f"{part.kept:,} {noun}{'' if part.kept == 1 else 's'} kept" if part.kept else ""
    parts = [how, some or "nothing kept"]
    if part.stop is not None:
        parts.append(f"stopped with {part.stop.elsewhere}" if part.stop.elsewhere else "stopped")
    if part.unheld:
        parts.append(f"only undo brings back: {_some(part.unheld)}")
    return "; ".join(parts)


def stopped_part(report: Report) -> Report:
    """Return the report of the store at which a run was stopped."""
    own = (part for part in report.parts if part.stop and not part.stop.elsewhere)
    return next(own, report)


def event_lines(events: Sequence[Event]) -> list[str]:
    """Return events, one line each; many are cut with a count."""
    # What took effect as it ran has a line of its own.
    told = [event for event in events if event.kind != "unheld"]
    lines = columns([(event.kind, event.text) for event in told[:_EVENTS]], indent="    ")
    if len(told) > _EVENTS:
        lines.append(f"    and {len(told) - _EVENTS} more: --json shows all")
    return lines


def _how(how: str) -> str:
    known = {
        "before COMMIT": "each transaction was held before its COMMIT",
        "before each command": "each command was held before it ran",
        "copied and swapped in": "it worked on a copy, swapped in at the end",
        "copied and left": "it worked on a copy, of which nothing was kept",
        "observed only": "observed only: nothing was held",
    }
    return known.get(how, how)


def plan_lines(plan: Plan) -> list[str]:
    """Return how a run of this plan will be held, and what of it could only be undone."""
    rehearsal = plan.facts.rehearsal
    if rehearsal is None or not rehearsal.how or rehearsal.ended != "exited" or rehearsal.exit_code:
        return []  # what failed in rehearsal is not run
    if rehearsal.how == "observed only":
        lines = [wrap("held: not at all; what it does can only be undone", "  ")]
    else:
        by = ", by privilege and gate" if rehearsal.role == "limited" else ""
        why = f", by the gate alone: {rehearsal.role_because}" if rehearsal.role_because else ""
        lines = [wrap(f"held: {rehearsal.how}{by}{why}", "  ")]
    if rehearsal.unheld:
        lines.append(wrap(f"can only be undone: {_some(rehearsal.unheld)}", "  "))
    if plan.facts.avoidable:
        lines.append(wrap(f"it could go round the guard: {plan.facts.avoidable}", "  "))
    return lines


def _some(statements: Sequence[str]) -> str:
    some = "; ".join(shorten(statement, _STATEMENT) for statement in statements[:3])
    return some if len(statements) <= 3 else f"{some}; and {len(statements) - 3} more"  # noqa: PLR2004
