"""Let a statement go on that a run's guard holds, or refuse it; signed with an SSH key.

A statement is held when the rehearsal did not have it and the policy says `divergence: hold`.
Nobody releases a statement of their own run. `handrail` alone shows what waits.

examples:
  handrail release 5d0c7e1f
  handrail release 5d0c7e1f --refuse --because "not today"
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handrail.cli.call import Call
    from handrail.core.holding import Held, Release


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("id", metavar="ID", help="of the statement; its beginning is enough")
    parser.add_argument("--refuse", action="store_true", help="it may not begin")
    parser.add_argument("--key", metavar="FILE", help="SSH key to sign with")
    parser.add_argument("--because", default="", metavar="TEXT", help="why, for the record")
    parser.add_argument("--yes", action="store_true", help="sign without asking")


def run(call: Call) -> int:
    """Show the statement, ask, sign and record."""
    from handrail.cli.approve import key_of
    from handrail.core import holding

    options = call.options
    found = [held for held in holding.standing(call.world) if held.id.startswith(options.id)]
    confirm(call, found)
    released = holding.release(
        call.world,
        options.id,
        key_of(call),
        allow=not options.refuse,
        because=options.because,
    )
    return show(call, released)


def confirm(call: Call, found: Sequence[Held]) -> None:
    """Show what waits, and ask whether that is meant.

    Raises:
        UsageError: it is not.
    """
    from handrail.cli import screen
    from handrail.cli.approve import ask

    options = call.options
    if not options.json:
        for held in found:
            screen.write(
                f"{held.id} on {held.resource}, run by {held.person}: {held.why}\n  "
                + screen.wrap(held.statement, "  ")
            )
    said = "refuse" if options.refuse else "let it go on"
    if not options.yes and found and ask(f"{said}? [y/N] ").lower() != "y":
        raise UsageError("usage", "not signed")


def show(call: Call, released: Release) -> int:
    """Write what was said of a statement."""
    from handrail.cli import screen

    if call.options.json:
        from handrail.plans.canonical import plain

        screen.write_json({"format": 1, "release": plain(released)})
    else:
        done = "may begin" if released.allow else "is refused"
        screen.write(f"{released.id} {done}, says {released.person}.")
    return 0
