"""Set how many instances an app has, or how many machines a group.

examples:
  handrail scale shop 3
  handrail scale shop web=3         the group `web` of its specification
  handrail scale group/routers 4

Exit code: as of `handrail run`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.cli import verbs
from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "target", metavar="TARGET", help="a declared app or group: shop, group/routers"
    )
    parser.add_argument("count", metavar="COUNT", help="a number; of an app also GROUP=NUMBER")
    verbs.configure(parser)


def mean(call: Call) -> None:
    """Say it in the words of `run`.

    Raises:
        UsageError: COUNT is no number.
    """
    count = call.options.count
    number = count.rpartition("=")[2]
    if not (number.isascii() and number.isdecimal()):
        raise UsageError("usage", f"`{count}` is no number", hint="handrail scale shop web=3")
    verbs.mean(call, "scale", call.options.target, {"count": count})


def run(call: Call) -> int:
    """Scale it."""
    mean(call)
    return verbs.run(call)
