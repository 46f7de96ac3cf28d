"""Go on with a run that was cut off: by a crash, a reboot, a lost connection.

Tells apart what never began, what is done, and what nobody knows. For the last it says what has
changed, and wants to be told.

examples:
  handrail resume 412
  handrail resume 412 --undo       put everything back
  handrail resume 412 --accept     what is there is right: go on to watch it
  handrail resume 7 --rerun        of many targets: those that failed, then those that never began
  handrail resume 7 --accept --on store/edge-c
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
    parser.add_argument(
        "--on",
        metavar="TARGET",
        help="where an undeclared target is; of many targets, the one that is meant",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--undo", action="store_true", help="put everything back")
    choice.add_argument("--accept", action="store_true", help="take it as done")
    choice.add_argument(
        "--rerun", action="store_true", help="of many targets: those that failed go again"
    )
    choice.add_argument("--leave", action="store_true", help="of many targets: end it as it stands")


def run(call: Call) -> int:
    """Resume, and show how it ended."""
    from handrail.cli import walks
    from handrail.cli.run import show
    from handrail.core import recalling, running

    options = call.options
    if walks.is_walk(call, options.number):
        return walks.resume(call, options.number)
    decided = recalling.recorded(call.world, call.declared, options.number, options.on)
    if options.rerun or options.leave:
        raise UsageError(
            "usage",
            f"run {options.number} is of one target: --rerun and --leave are for many",
            hint=f"handrail runs show {options.number}",
        )
    choice = "undo" if options.undo else "accept" if options.accept else ""
    outcome = running.resume(call.world, options.number, decided, call.talk, choice=choice)
    return show(call, outcome, decided)
