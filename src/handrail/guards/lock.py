"""One run at a time on a resource, and none while an earlier one hangs unfinished."""

from __future__ import annotations

from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "lock"


def judge(case: Case) -> Decision:
    """Refuse while a live process holds the target or an earlier run on it was cut off."""
    facts, target = case.plan.facts, case.plan.target.resource
    if facts.holder:
        return Decision(
            name, "refuse", f"{facts.holder} holds {target}", remedy="wait for it: handrail runs"
        )
    if facts.unfinished:
        number = facts.unfinished[0]
        return Decision(
            name,
            "refuse",
            f"run {number} on {target} was cut off in the middle",
            remedy=f"handrail resume {number}",
        )
    return Decision(name, "allow", f"nobody else runs on {target}")
