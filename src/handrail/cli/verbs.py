"""What commands that are verbs of their own (`deploy`, `drain`) share with `plan` and `run`.

Rules:
- A verb is an operation of a kit, said shorter: it fills in the options of `run`, and goes on
  there.
- An operation that a team declared under the same name is not meant by it: `handrail run` is.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.core.deciding import Decided


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options that every verb has."""
    parser.add_argument("--plan", action="store_true", help="say what it would do, and do nothing")
    parser.add_argument("--because", default="", metavar="TEXT", help="why, for the record")
    parser.add_argument(
        "--break-glass",
        metavar="WHY",
        help="wait for nobody, in an emergency; another person reviews it afterwards",
    )


def mean(
    call: Call,
    operation: str,
    on: str | None,
    parameters: Mapping[str, str],
    without: Sequence[str] = (),
) -> None:
    """Put what a verb says into the options of `plan` and `run`; empty parameters are left out."""
    options = call.options
    options.operation, options.on, options.without = operation, on, list(without)
    options.parameter = [f"{name}={value}" for name, value in parameters.items() if value]
    if options.plan and options.break_glass is not None:
        raise UsageError("usage", "--plan changes nothing: there is no glass to break for it")


def run(call: Call) -> int:
    """Plan, or plan and run, what `mean` put into the options."""
    from handrail.cli import plan as plans
    from handrail.cli import run as runs

    insist(call)
    return plans.run(call) if call.options.plan else runs.run(call)


def insist(call: Call) -> None:
    """Refuse a verb whose name the team gave to an operation of its own.

    Raises:
        UsageError: it is a script here.
    """
    name = call.options.operation
    own = call.declared.operations.get(name)
    if own is not None and not own.act:
        raise UsageError(
            "usage",
            f"`{name}` is an operation of your own here, not what `handrail {name}` means",
            at=own.place,
            hint=f"handrail run {name}",
        )


def decide(call: Call) -> Decided:
    """Plan and judge what `mean` put into the options."""
    from handrail.cli import choosing

    insist(call)
    return choosing.decide(call)
