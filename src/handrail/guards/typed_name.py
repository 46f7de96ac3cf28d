"""At the highest risk the approver types the target's name: a signature alone can be a reflex."""

from __future__ import annotations

from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "typed-name"


def judge(case: Case) -> Decision:
    """Require that an approval of this digest was given with the target's name typed out."""
    plan = case.plan
    me = plan.request.person.casefold()
    approvals = [a for a in plan.facts.approvals if a.person.casefold() != me]
    if any(a.named_target and a.digest == plan.digest for a in approvals):
        return Decision(name, "allow", f"the approver typed {plan.target.resource}")
    return Decision(
        name,
        "require",
        f"the approver types {plan.target.resource}",
        remedy=f"handrail approve {plan.digest[:4]}-{plan.digest[4:8]}",
    )
