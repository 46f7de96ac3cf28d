"""At the highest risk the approver types the target's name: a signature alone can be a reflex."""

from __future__ import annotations

from handrail.plans import quorum
from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "typed-name"


def judge(case: Case) -> Decision:
    """Require that each approval that is needed was given with the target's name typed out."""
    plan = case.plan
    typed = [a for a in quorum.counting(plan, case.policy) if a.named_target]
    who = "the approver" if quorum.wanted(case.policy, plan.risk) == 1 else "each approver"
    if len(typed) >= quorum.wanted(case.policy, plan.risk):
        return Decision(name, "allow", f"{who} typed {plan.target.resource}")
    return Decision(
        name,
        "require",
        f"{who} types {plan.target.resource}",
        remedy=f"handrail approve {plan.digest[:4]}-{plan.digest[4:8]}",
    )
