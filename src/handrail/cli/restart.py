"""Restart an app's instances, a few at a time, and watch it: what runs stays the same version.

examples:
  handrail restart shop
  handrail restart shop --plan

Exit code: as of `handrail run`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.cli import verbs

if TYPE_CHECKING:
    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("app", metavar="APP", help="a declared app: shop, or app/shop")
    verbs.configure(parser)


def mean(call: Call) -> None:
    """Say it in the words of `run`."""
    verbs.mean(call, "restart", call.options.app, {})


def run(call: Call) -> int:
    """Restart it."""
    mean(call)
    return verbs.run(call)
