"""Some statements take effect as they run: nothing can hold them, and a policy may refuse that."""

from __future__ import annotations

from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "unheld"
_SHOWN = 80


def judge(case: Case) -> Decision | None:
    """Judge what could only be undone; nothing to say before the rehearsal."""
    rehearsal = case.plan.facts.rehearsal
    if rehearsal is None:
        return None
    if not rehearsal.unheld:
        return Decision(name, "allow", "nothing took effect as it ran")
    more = f" and {len(rehearsal.unheld) - 1} more" if len(rehearsal.unheld) > 1 else ""
    because = f"it takes effect as it runs: {rehearsal.unheld[0][:_SHOWN]}{more}"
    if case.policy.guard.unheld == "refuse":
        remedy = "put it into an operation of its own, with an undo of its own"
        return Decision(name, "refuse", because, remedy=remedy)
    return Decision(name, "allow", f"{because}; it can only be undone")
