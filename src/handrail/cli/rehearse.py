"""Run an operation on a clone of its target: back up, restore, run, measure, undo, compare.

Nothing in the target changes. The backup that was restored is proven; the effects that were
measured become the budget of the real run.

examples:
  handrail rehearse reset-pilot
  handrail rehearse ./old_script.sh --on postgres://db.internal/pilot
  handrail rehearse ./old_script.sh --on data/app.db --json
  handrail rehearse trim-sessions --on all      every target that needs it, one after the other
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
    """Rehearse, and show what was measured."""
    from handrail.cli import walks
    from handrail.core.rehearsing import rehearse

    if walks.are_meant(call):
        return walks.rehearse(call)
    decided = rehearse(call.world, choosing.decide(call), call.talk)
    policy = decided.declared.policy
    show(call, decided.plan, policy.rehearsal_age_s, is_declared=decided.operation.declared)
    rehearsal = decided.plan.facts.rehearsal
    return 0 if rehearsal and rehearsal.ended == "exited" and rehearsal.exit_code == 0 else 1


def show(call: Call, plan: Plan, kept_s: int, *, is_declared: bool) -> None:
    """Write what was measured, and how long that counts."""
    from handrail.cli import plan as plans
    from handrail.cli import screen
    from handrail.core.declaring import without_password

    if call.options.json:
        screen.write_json(plans.as_json(plan))
        return
    lines = ["", *screen.measured_lines(plan), *screen.consequence_lines(plan), ""]
    hours = kept_s // 3600
    lines.append(f"budget {screen.short(plan.digest)} kept for {hours} h, risk {plan.risk}.")
    if is_declared:
        lines += screen.next_lines(plan)
    else:
        lines.append(
            f"next: handrail init --from {without_password(call.options.on)} "
            f"--script {call.options.operation}     puts it behind Handrail"
        )
    screen.write("\n".join(lines))
