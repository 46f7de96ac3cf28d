"""Put back what a run changed: from the backup made before it, or by its undo script.

What others wrote since is not lost silently: it is said, and needs --lose-newer.

examples:
  handrail undo 412
  handrail undo 412 --lose-newer
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("number", type=int, metavar="RUN", help="number of the run")
    parser.add_argument("--on", metavar="TARGET", help="where an undeclared target is")
    parser.add_argument(
        "--lose-newer",
        action="store_true",
        help="go back although others wrote since the run ended",
    )


def run(call: Call) -> int:
    """Undo, and show how it ended."""
    from handrail.cli import walks
    from handrail.cli.run import show
    from handrail.core import recalling, running

    options = call.options
    if walks.is_walk(call, options.number):
        if options.lose_newer:
            raise UsageError(
                "usage",
                "what others wrote since is lost for one target at a time",
                hint=f"handrail runs show {options.number}     names the run of each target",
            )
        return walks.undo(call, options.number)
    decided = recalling.recorded(call.world, call.declared, options.number, options.on)
    outcome = running.undo(
        call.world, options.number, decided, call.talk, lose_newer=options.lose_newer
    )
    return show(call, outcome, decided, 0 if outcome.outcome == "undone" else 1)
