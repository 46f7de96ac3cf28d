"""Move everything away from a machine, and put nothing there any more.

Says first what every service would lose: capacity, quorum, its last machine in a zone. What runs
there, and what depends on that, is watched while it soaks; ill, it takes instances again.

examples:
  handrail drain node/router-3
  handrail drain i-0abc --on group/routers --deadline 20m
  handrail drain node/router-3 --plan

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
        "--deadline", default="", metavar="TIME", help="how long instances may take to move: 10m"
    )


def mean(call: Call) -> None:
    """Say it in the words of `run`."""
    machines.mean(call, "drain", {"deadline": call.options.deadline})


def run(call: Call) -> int:
    """Drain it."""
    mean(call)
    return machines.run(call)
