"""Say what is wrong with the declarations: errors that make them unusable, and warnings.

Exit code: 0 when there is no error, 2 when there is.

examples:
  handrail check
  handrail check --json
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.errors import DeclarationError, DeclarationErrors, HandrailError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handrail.cli.call import Call
    from handrail.core.lessons import Lesson


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")


def run(call: Call) -> int:
    """Check everything that is declared."""
    from datetime import UTC, datetime

    from handrail.estate.checking import warnings as find_warnings

    errors: tuple[DeclarationError, ...] = ()
    warnings: list[DeclarationError] = []
    counted = ""
    lessons: tuple[Lesson, ...] = ()
    try:
        declared = call.declared
        lessons, errors = _learnt(call)
        warnings = find_warnings(declared.estate, datetime.now(UTC).date())
        counted = (
            f"{len(declared.estate.resources)} resources, {len(declared.own_operations)} operations"
        )
    except DeclarationErrors as error:
        errors = error.errors
    show(call, errors, warnings, counted, lessons)
    return 2 if errors or (call.options.strict and warnings) else 0


def _learnt(call: Call) -> tuple[tuple[Lesson, ...], tuple[DeclarationError, ...]]:
    """Return the contraindications, and those that would not have refused what they should have.

    What became of them stands in the journal: a machine that has none says nothing of that.
    """
    import os

    estate = call.declared.estate
    if not estate.harmed:
        return (), ()
    from handrail.core import lessons

    has_journal = call.state.is_dir() or "HANDRAIL_JOURNAL" in os.environ
    world = call.world if has_journal else None
    return lessons.lessons(world, estate), lessons.errors(world, estate) if world else ()


def _lines(lessons: Sequence[Lesson]) -> list[str]:
    from handrail.cli import screen
    from handrail.guards.contraindication import times

    lines = []
    for one in lessons:
        overridden = times(one.passed + one.heeded)
        said = [f"refused {times(one.refused)}, overridden {overridden}"]
        if one.replay:
            known = {
                None: f"run {one.replay} is not known here",
                True: f"would have refused run {one.replay}",
                False: f"would not have refused run {one.replay}",
            }
            said.append(known[one.would_refuse])
        said += [f"still open: {action}" for action in one.open]
        said.append(f"looked after by {one.owner or 'nobody'}")
        if one.expires:
            said.append(f"until {one.expires}")
        head = f"{one.operation} harms {one.protects}: "
        lines.append("  " + screen.wrap(head + "; ".join(said), " " * 6))
    return lines


def show(
    call: Call,
    errors: Sequence[HandrailError],
    warnings: Sequence[HandrailError],
    counted: str,
    lessons: Sequence[Lesson] = (),
) -> None:
    """Write what is wrong, and what there is."""
    from handrail.cli import screen
    from handrail.errors import render
    from handrail.plans.canonical import plain

    if call.options.json:
        screen.write_json(
            {
                "format": 1,
                "errors": [e.as_json() for e in errors],
                "warnings": [w.as_json() for w in warnings],
                **({"contraindications": plain(list(lessons))} if lessons else {}),
            }
        )
        return
    parts = [render(error) for error in errors]
    parts += [render(warning).replace("error[", "warning[", 1) for warning in warnings]
    parts += ["\n".join(["contraindications:", *_lines(lessons)])] if lessons else []
    tail = f"{len(errors)} errors, {len(warnings)} warnings"
    screen.write("\n\n".join([*parts, f"{counted}; {tail}" if counted else tail]))
