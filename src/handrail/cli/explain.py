"""Print every decision of a plan or a run again, from the record: nothing is looked up anew.

examples:
  handrail explain 412
  handrail explain 7f3a-91c2
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.plans.model import Plan


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("what", metavar="RUN-OR-PLAN", help="number of a run, or digest of a plan")


def run(call: Call) -> int:
    """Show the recorded plan with every decision, the silent ones too."""
    from handrail.core import recalling, records, walks

    what = call.options.what
    if what.isdecimal() and records.is_walk(call.world.journal, int(what)):
        what = walks.standing(call.world, int(what)).walk.digest
    is_run = what.isdecimal() and int(what) in records.runs(call.world.journal)
    plan = (
        recalling.recorded_plan(call.world, int(what))
        if is_run
        else records.find_plan(call.world.journal, what)
    )
    return show(call, plan)


def show(call: Call, plan: Plan) -> int:
    """Write a recorded plan with every decision."""
    from handrail.cli import fan_outs, screen
    from handrail.cli import plan as plans
    from handrail.core import records
    from handrail.plans.fan_out import KIND

    if call.options.json:
        screen.write_json(plans.as_json(plan))
        return 0
    lines = [
        f"plan {screen.short(plan.digest)}, made {plan.facts.now[:16].replace('T', ' ')} UTC "
        f"by {plan.request.person or '?'}"
    ]
    lines.append(screen.wrap(f"risk {plan.risk}: {plan.risk_because}", "  "))
    if plan.request.because:
        lines.append(f"because: {plan.request.because}")
    fan_out = records.fan_out(call.world.journal, plan.digest) if plan.target.kind == KIND else None
    if fan_out is not None:
        lines += ["", *fan_outs.fan_out_lines(fan_out, with_next=False), ""]
    else:
        lines += ["", *screen.measured_lines(plan), *screen.consequence_lines(plan), ""]
    lines += screen.explanation_lines(plan.decisions)
    screen.write("\n".join(lines))
    return 0
