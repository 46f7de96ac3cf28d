"""Say what an operation would do, and what every guard says. Changes nothing.

examples:
  handrail plan reset-pilot
  handrail plan trim-sessions --on store/pilot-db -p days=30
  handrail plan ./old_script.sh --on data/app.db
  handrail plan trim-sessions --on all                    every target, in waves

Exit code: 0 when it may run, 3 when a guard refuses, 4 when somebody has to act first.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.cli import choosing

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.plans.model import Plan


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    choosing.configure(parser)


def run(call: Call) -> int:
    """Plan, and show the plan."""
    from handrail.cli import walks

    if walks.are_meant(call):
        return walks.plan(call)
    decided = choosing.decide(call)
    show(call, decided.plan)
    return {"allow": 0, "refuse": 3, "require": 4}[decided.plan.verdict]


def show(call: Call, plan: Plan, *, with_next: bool = True) -> None:
    """Write a plan to stdout, as text or as its documented JSON."""
    from handrail.cli import screen, walks

    if walks.show_plan(call, plan, with_next=with_next):
        return
    if call.options.json:
        screen.write_json(as_json(plan))
    else:
        screen.write("\n".join(screen.plan_lines(plan, with_next=with_next)))


def as_json(plan: Plan) -> dict[str, object]:
    """Return the documented JSON shape of a plan."""
    from handrail.plans.canonical import plain
    from handrail.plans.deeds import next_command

    told = {"verdict": plan.verdict, "next": next_command(plan), "plan": plain(plan.shown)}
    return {"format": 1, **told}
