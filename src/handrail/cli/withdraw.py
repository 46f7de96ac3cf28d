"""Take back an approval of your own, before a run has used it; signed with an SSH key.

One that stands for many runs ends with it; what has run has run.

examples:
  handrail withdraw 7f3a-91c2                          your approvals of that plan
  handrail withdraw 5d0c7e1f00aa --because "the table has grown"
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.core.withdrawing import Withdrawal


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "what", metavar="PLAN-OR-ID", help="digest of the plan, or id of the approval"
    )
    parser.add_argument("--key", metavar="FILE", help="SSH key to sign with")
    parser.add_argument("--because", default="", metavar="TEXT", help="why, for the record")


def run(call: Call) -> int:
    """Sign and record. Nothing is asked: taking back does no harm."""
    from handrail.cli.approve import key_of
    from handrail.core import withdrawing

    options = call.options
    return show(call, withdrawing.withdraw(call.world, options.what, key_of(call), options.because))


def show(call: Call, done: Sequence[Withdrawal]) -> int:
    """Write what was withdrawn."""
    from handrail.cli import screen

    if call.options.json:
        from handrail.plans.canonical import plain

        screen.write_json({"format": 1, "withdrawn": plain(done)})
        return 0
    for one in done:
        screen.write(
            f"withdrawn: the approval {one.id} of {screen.short(one.digest)}, by {one.person}."
        )
    return 0
