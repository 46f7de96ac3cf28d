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
    try:
        declared = call.declared
        warnings = find_warnings(declared.estate, datetime.now(UTC).date())
        counted = (
            f"{len(declared.estate.resources)} resources, {len(declared.own_operations)} operations"
        )
    except DeclarationErrors as error:
        errors = error.errors
    show(call, errors, warnings, counted)
    return 2 if errors or (call.options.strict and warnings) else 0


def show(
    call: Call,
    errors: Sequence[HandrailError],
    warnings: Sequence[HandrailError],
    counted: str,
) -> None:
    """Write what is wrong, and what there is."""
    from handrail.cli import screen
    from handrail.errors import render

    if call.options.json:
        screen.write_json(
            {
                "format": 1,
                "errors": [e.as_json() for e in errors],
                "warnings": [w.as_json() for w in warnings],
            }
        )
        return
    parts = [render(error) for error in errors]
    parts += [render(warning).replace("error[", "warning[", 1) for warning in warnings]
    tail = f"{len(errors)} errors, {len(warnings)} warnings"
    screen.write("\n\n".join([*parts, f"{counted}; {tail}" if counted else tail]))
