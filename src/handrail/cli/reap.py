"""Stand by until a rehearsal ends or its deadline passes, then destroy what its clone left."""

from __future__ import annotations

import argparse
import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("clone", metavar="CLONE", help="name of the clone's directory")
    parser.add_argument("--deadline", type=float, required=True, metavar="SECONDS")
    parser.add_argument("--state", required=True, metavar="DIR", help="Handrail's own directory")


def run(call: Call) -> int:
    """Wait for the pipe to close or the deadline; the clone is gone afterwards."""
    ready, _, _ = select.select([sys.stdin], [], [], call.options.deadline)
    late = not (ready and os.read(sys.stdin.fileno(), 1) == b"")
    from handrail import wiring
    from handrail.core import clones

    world = wiring.world(call.root, Path(call.options.state), dict(os.environ))
    why = "its deadline passed" if late else "its rehearsal died"
    clones.destroy(world, call.options.clone, why)
    return 0
