"""End a machine for ever; its group starts another unless --no-replace says otherwise.

examples:
  handrail terminate node/router-3
  handrail terminate i-0abc --on group/routers --no-replace

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
    parser.add_argument("--no-replace", action="store_true", help="let its group become smaller")


def mean(call: Call) -> None:
    """Say it in the words of `run`."""
    replace = "false" if call.options.no_replace else ""
    machines.mean(call, "terminate", {"replace": replace})


def run(call: Call) -> int:
    """End it."""
    mean(call)
    return machines.run(call)
