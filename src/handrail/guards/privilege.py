"""Where the policy wants scripts to run as a limited role, one that cannot is refused."""

from __future__ import annotations

from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "privilege"


def judge(case: Case) -> Decision | None:
    """Judge as whom the script will run; nothing to say before the rehearsal."""
    rehearsal = case.plan.facts.rehearsal
    if rehearsal is None:
        return None
    if rehearsal.role == "limited":
        return Decision(name, "allow", "it runs as a role that may do what its budget needs")
    why = f"held by the gate alone: {rehearsal.role_because or 'no limited role was tried'}"
    if case.policy.guard.role == "limited":
        remedy = f"handrail rehearse {case.plan.request.asked}"
        return Decision(name, "refuse", why, remedy=remedy)
    return Decision(name, "allow", why)
