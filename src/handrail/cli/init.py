"""Write a commented start: an estate, an operation, a policy. Overwrites nothing.

With --from it asks a database for its facts and declares it; with --script also the operation.

examples:
  handrail init
  handrail init --from data/app.db --script ./scripts/reset.sh
  handrail init --from postgres://db.internal/pilot --environment pilot
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--from",
        dest="address",
        metavar="URL-OR-FILE",
        help="a database to declare by its own facts",
    )
    parser.add_argument(
        "--script", metavar="FILE", help="a script to declare as an operation on it"
    )
    parser.add_argument(
        "--environment",
        default="pilot",
        metavar="NAME",
        help="the environment that the database belongs to",
    )


def run(call: Call) -> int:
    """Write what is not there yet."""
    from handrail.cli import screen
    from handrail.core import starting

    options = call.options
    if options.address:
        written = starting.declare(
            call.world,
            call.declared.estate,
            options.address,
            options.environment,
            options.script or "",
        )
    else:
        written = starting.start(call.root)
    if options.json:
        screen.write_json(
            {
                "format": 1,
                "written": [name for name, _ in written.files],
                "notes": list(written.notes),
            }
        )
        return 0
    rows = [(f"wrote {name}", what) for name, what in written.files]
    lines = screen.columns(rows, indent="") or ["everything is there already."]
    screen.write("\n".join([*lines, *written.notes, f"next: {written.next}"]))
    return 0
