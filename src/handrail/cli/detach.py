"""Take a machine out of its group and leave it running, or end it there.

For some services a machine that was only detached is poison: their contraindications refuse it, and
say what is safe instead.

examples:
  handrail detach node/router-3
  handrail detach node/router-3 --alternative        plan what is safe for its services
  handrail detach i-0abc --on group/routers --then terminate

Exit code: as of `handrail run`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.cli import machines

if TYPE_CHECKING:
    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    machines.configure(parser)
    parser.add_argument(
        "--then", choices=["none", "terminate"], default="", help="what becomes of it afterwards"
    )
    parser.add_argument("--replace", action="store_true", help="let the group start another")


def mean(call: Call) -> None:
    """Say it in the words of `run`."""
    options = call.options
    replace = "true" if options.replace else ""
    machines.mean(call, "detach", {"then": options.then, "replace": replace})


def run(call: Call) -> int:
    """Detach it."""
    mean(call)
    return machines.run(call)
