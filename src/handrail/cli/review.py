"""Sign that you looked at what somebody did behind broken glass, and say what you found.

Until then the glass cannot be broken again. Nobody reviews their own.

examples:
  handrail review 412 --because "the disk was full; the rows deleted were the right ones"
  handrail review 5d0c7e1f --because "..." --key ~/.ssh/id_ed25519
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.core.breaking import Break


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "what", metavar="RUN-OR-ID", help="number of the run, or id of the broken glass"
    )
    parser.add_argument("--because", default="", metavar="TEXT", help="what you found, in words")
    parser.add_argument("--key", metavar="FILE", help="SSH key to sign with")
    parser.add_argument("--yes", action="store_true", help="sign without asking")


def run(call: Call) -> int:
    """Show what was done, ask, sign and record."""
    from handrail.cli.approve import key_of
    from handrail.core import breaking

    options = call.options
    confirm(call, breaking.find(call.world, options.what))
    return show(
        call,
        breaking.review(call.world, call.declared, options.what, key_of(call), options.because),
    )


def confirm(call: Call, broken: Break) -> None:
    """Show what was done, and ask whether that is signed.

    Raises:
        UsageError: it is not, or nobody is there to say.
    """
    from handrail.cli import screen
    from handrail.cli.approve import ask

    if not call.options.json:
        screen.write("\n".join(lines(broken)))
    if not call.options.yes and ask("sign that you looked at it? [y/N] ").lower() != "y":
        raise UsageError("usage", "not signed")


def show(call: Call, reviewed: Break) -> int:
    """Write that it was reviewed."""
    from handrail.cli import screen

    if call.options.json:
        from handrail.plans.canonical import plain

        screen.write_json({"format": 1, "glass": plain(reviewed)})
    elif reviewed.review is not None:
        screen.write(f"reviewed by {reviewed.review.person}: {reviewed.glass.id}.")
    return 0


def lines(broken: Break) -> list[str]:
    """Return who broke the glass, for what, why, and what that passed."""
    from handrail.cli.screen import columns, short, wrap

    glass = broken.glass
    head = (
        f"{glass.person} broke the glass at {glass.made_at[:16].replace('T', ' ')} UTC for "
        f"{broken.operation} on {broken.target}, risk {broken.risk}, plan {short(glass.digest)}"
    )
    said = "because: " + wrap(f'"{glass.because}"', " " * 9)
    return [wrap(head, "  "), said, "passed:", *columns(broken.passed), ""]
