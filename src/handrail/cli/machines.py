"""What `drain`, `detach` and `terminate` share: which machine is meant, and the safe alternative.

Rules:
- An alternative is only planned, never run at once: what it does is another thing than was asked.
- It is offered where a contraindication refuses, by one key at a terminal, else by `--alternative`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from handrail.cli import verbs
from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.core.deciding import Decided

_EXIT = {"allow": 0, "refuse": 3, "require": 4}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "machine",
        metavar="MACHINE",
        help="a declared node: router-3, or node/router-3; with --on a machine's id or name",
    )
    parser.add_argument(
        "--on", metavar="TARGET", help="the declared group or platform of a machine that is none"
    )
    parser.add_argument(
        "--alternative",
        action="store_true",
        help="where a contraindication refuses: plan what it says is safe",
    )
    verbs.configure(parser)


def mean(call: Call, operation: str, parameters: Mapping[str, str]) -> None:
    """Say it in the words of `run`."""
    options = call.options
    if options.on:
        verbs.mean(call, operation, options.on, {"machine": options.machine, **parameters})
    else:
        verbs.mean(call, operation, options.machine, parameters)


def run(call: Call) -> int:
    """Plan, or plan and run; where that is contraindicated, plan the alternative if it is wanted.

    Raises:
        UsageError: an alternative is wanted of what nothing speaks against, or there is none.
    """
    from handrail.cli import plan as plans
    from handrail.cli import run as runs
    from handrail.core import lessons

    options = call.options
    # Whoever breaks the glass has said why.
    options.because = options.because or options.break_glass or ""
    decided = verbs.decide(call)
    if options.alternative:
        return _show(call, _alternative(call, decided))
    if not options.plan and (decided.plan.verdict != "refuse" or options.break_glass is not None):
        return runs.go(call, decided)
    plans.show(call, decided.plan)
    if lessons.is_refused(decided.plan) and _is_wanted(call):
        return _show(call, _alternative(call, decided))
    return _EXIT[decided.plan.verdict]


def _is_wanted(call: Call) -> bool:
    question = "plan the safe alternative instead?"
    return call.talk.key(question, {"a": "plan it", "q": "leave it"}, "q") == "a"


def _alternative(call: Call, decided: Decided) -> Decided:
    from handrail.core import alternatives

    found = alternatives.alternative(call.world, call.declared, decided)
    if found is None:
        request = decided.plan.request
        raise UsageError(
            "usage",
            f"no contraindication of {request.operation} on {request.target} names an alternative",
            hint=f"handrail plan {request.asked}",
        )
    return found


def _show(call: Call, decided: Decided) -> int:
    from handrail.cli import plan as plans

    plans.show(call, decided.plan)
    return _EXIT[decided.plan.verdict]
