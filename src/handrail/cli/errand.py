"""Do one errand for a server: called by `handrail serve` alone."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""
    del parser


def run(call: Call) -> int:
    """Read what to do from stdin, and do it."""
    from handrail.api.errand import main

    del call
    return main()
