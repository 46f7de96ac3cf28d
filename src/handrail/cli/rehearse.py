"""Run an operation on a clone of its target: back up, restore, run, measure, undo, compare.

Nothing in the target changes. The backup that was restored is proven; the effects that were
measured become the budget of the real run.

examples:
  handrail rehearse reset-pilot
  handrail rehearse ./old_script.sh --on postgres://db.internal/pilot
  handrail rehearse ./old_script.sh --on data/app.db --json
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.cli import choosing

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.core.deciding import Decided


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    choosing.configure(parser)


def run(call: Call) -> int:
    """Rehearse, and show what was measured."""
    from handrail.core.rehearsing import rehearse

    decided = rehearse(call.world, choosing.decide(call), call.talk)
    _show(call, decided)
    rehearsal = decided.plan.facts.rehearsal
    return 0 if rehearsal and rehearsal.ended == "exited" and rehearsal.exit_code == 0 else 1


def _show(call: Call, decided: Decided) -> None:
    from handrail.cli import plan as plans
    from handrail.cli import screen
    from handrail.core.declaring import without_password

    plan = decided.plan
    if call.options.json:
        screen.write_json(plans.as_json(plan))
        return
    lines = ["", *screen.measured_lines(plan), *screen.consequence_lines(plan), ""]
    hours = decided.declared.policy.rehearsal_age_s // 3600
    lines.append(f"budget {screen.short(plan.digest)} kept for {hours} h, risk {plan.risk}.")
    if decided.operation.declared:
        lines += screen.next_lines(plan)
    else:
        lines.append(
            f"next: handrail init --from {without_password(call.options.on)} "
            f"--script {call.options.operation}     puts it behind Handrail"
        )
    screen.write("\n".join(lines))
