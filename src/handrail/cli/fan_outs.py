"""What a person sees of an operation over many targets: its plan, and where its walk stands.

Rules:
- As in `screen.py`: 100 columns, the worst first, numbers with units, the same facts in plain text.
- A list of targets is cut with a count: 500 of them fit on one screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from handrail.cli import screen
from handrail.plans.amounts import duration
from handrail.plans.deeds import next_deeds

if TYPE_CHECKING:
    from handrail.core.walks import LaneStanding
    from handrail.plans.fan_out import FanOut, Said
    from handrail.plans.standing import Standing
    from handrail.plans.walk import Bounds

_NAMED = 4
_LINES = 12
_HEADS = {"refuse": "refused", "require": "waiting", "allow": "ready"}
_LANE_MARKS = {"done": "ok", "failed": "x", "not undone": "x", "unknown": "?"}


def some(targets: Sequence[str], named: int = _NAMED) -> str:
    """Return targets as a list of a bounded length: `store/a, store/b and 498 more`."""
    if len(targets) <= named:
        return ", ".join(targets)
    return f"{', '.join(targets[: named - 1])} and {len(targets) - named + 1:,} more"


def fan_out_lines(fan_out: FanOut, *, with_next: bool = True) -> list[str]:
    """Return a fan-out on one screen: verdict, waves, totals, consequences, decisions, next."""
    plan = fan_out.plan
    lines = [screen.titled(f"{_HEADS[fan_out.verdict]}: {fan_out.title}", plan.risk), ""]
    lines += [*_waves(fan_out), *_verdicts(fan_out)]
    lines.append("  risk    " + screen.wrap(f"{plan.risk}: {plan.risk_because}", " " * 10))
    lines += ["", *total_lines(fan_out), *screen.consequence_lines(plan)]
    if fan_out.said:
        lines += ["", *_decisions(fan_out.said)]
    return [*lines, "", *_next(fan_out)] if with_next else lines


def _waves(fan_out: FanOut) -> list[str]:
    rows = [
        (
            wave.name,
            str(len(wave.targets)),
            some(wave.targets),
            f"then {duration(wave.soak_s)} of soak" if wave.soak_s else "",
        )
        for wave in fan_out.waves[:_LINES]
    ]
    lines = screen.columns(rows, indent=" " * 10, right=(1,))
    lines[0] = "  waves   " + lines[0][10:]
    if len(fan_out.waves) > _LINES:
        lines.append(f"{' ' * 10}and {len(fan_out.waves) - _LINES} more: --json shows all")
    return [*lines, "  bounds  " + screen.wrap(bounds_text(fan_out.bounds), " " * 10)]


def bounds_text(bounds: Bounds) -> str:
    """Return in one sentence how much goes at once, and what failures mean."""
    limits = [f"{bounds.at_once} at once"]
    limits += [f"{count} at once per {kind}" for kind, count in bounds.at_once_per.items()]
    borne = f"{bounds.failures} failed are borne" if bounds.failures else "no failure is borne"
    failures = [borne, *(f"{n} per {kind}" for kind, n in bounds.failures_per.items())]
    then = "undoes all that was done" if bounds.then == "undo" else "holds for somebody"
    return f"{', '.join(limits)}; {', '.join(failures)}; beyond that it {then}"


def _verdicts(fan_out: FanOut) -> list[str]:
    """Return the targets by verdict, the worst first."""
    lines = []
    for verdict in ("refuse", "require", "allow"):
        found = [child.target for child in fan_out.children if child.verdict == verdict]
        if found:
            said = f"{len(found):,}: {some(found)}"
            lines.append(f"  {_HEADS[verdict]:<7} " + screen.wrap(said, " " * 10))
    return lines


def total_lines(fan_out: FanOut) -> list[str]:
    """Return what it would do to all targets together."""
    count = len(fan_out.children)
    operation, where = fan_out.plan.request.operation, fan_out.title.partition(" on ")[2]
    lines = []
    if fan_out.unknown:
        said = f"what {operation} would do is unknown on {some(fan_out.unknown)}: not rehearsed."
        lines.append(screen.wrap(said, "  "))
    if not fan_out.totals:
        return lines or [f"{operation} would change nothing on {where}."]
    lines.append(f"{operation} would, on {where} together:")
    rows = [
        (
            total.verb,
            f"{total.kind} {total.name}",
            "" if total.rows is None else f"{total.rows:,} rows",
            f"on {'all' if total.targets == count else f'{total.targets:,}'}",
        )
        for total in fan_out.totals[:_LINES]
    ]
    lines += screen.columns(rows, right=(2,))
    if len(fan_out.totals) > _LINES:
        lines.append(f"  and {len(fan_out.totals) - _LINES} more: --json shows all")
    return lines


def _decisions(said: Sequence[Said]) -> list[str]:
    width = max(len(one.decision.guard) for one in said)
    lines = []
    for one in said[:_LINES]:
        head = f"  {screen.MARKS[one.decision.verdict]:<2} {one.decision.guard:<{width}}  "
        text = f"{one.decision.because}   ({some(one.targets, 3)})"
        lines.append(head + screen.wrap(text, " " * len(head)))
    if len(said) > _LINES:
        lines.append(f"  and {len(said) - _LINES} more: --json shows all")
    return lines


def _next(fan_out: FanOut) -> list[str]:
    deeds = next_deeds(fan_out.plan)
    lines = [screen.wrap(f"next: {deeds[0]}", "      ")]
    lines += [screen.wrap(f"then: {deed}", "      ") for deed in deeds[1:4]]
    if fan_out.verdict == "refuse":
        refused = [child.target for child in fan_out.children if child.verdict == "refuse"]
        if len(refused) < len(fan_out.children) and len(refused) <= _NAMED:
            left_out = " ".join(f"--except {target}" for target in refused)
            lines.append(f"  or: handrail plan {fan_out.plan.request.asked} {left_out}")
    return lines


def walk_lines(number: int, stands: Standing) -> list[str]:
    """Return where a walk stands, and what can be done about it."""
    from handrail.core import walks

    head = walks.outcome(stands)
    why = f": {stands.why}" if stands.why else ""
    lines = [screen.wrap(f"{head}: run {number}, {stands.walk.title}{why}", "  "), ""]
    lines += _state_lines(walks.by_word(stands))
    ways = walks.next_commands(number, stands)
    width = max((len(command) for command, _ in ways), default=0)
    for place, (command, does) in enumerate(ways):
        lead = "  or: " if place else "\nnext: "
        lines.append(f"{lead}{command:<{width}}   {does}")
    return lines


def _state_lines(found: Mapping[str, Sequence[LaneStanding]]) -> list[str]:
    """Return the lanes by what became of them; each that went wrong has a line of its own."""
    lines: list[str] = []
    for word, lanes in found.items():
        mark = _LANE_MARKS.get(word, ".")
        if word in {"done", "not begun", "undone"}:
            text = f"{len(lanes):,}: {some([lane.target for lane in lanes])}"
            lines.append(f"  {mark:<2} {word:<10} " + screen.wrap(text, " " * 16))
            continue
        for lane in lanes[:_LINES]:
            run = f"run {lane.run}: " if lane.run else ""
            text = f"{lane.target}   {run}{lane.why}".rstrip(": ")
            lines.append(f"  {mark:<2} {word:<10} " + screen.wrap(text, " " * 16))
        if len(lanes) > _LINES:
            lines.append(f"  {mark:<2} {word:<10} and {len(lanes) - _LINES:,} more")
    return lines
