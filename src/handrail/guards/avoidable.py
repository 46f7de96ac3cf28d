"""On a machine that cannot keep a script to its guard, the policy says whether that is enough."""

from __future__ import annotations

from handrail.guards import second_person
from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "avoidable"


def judge(case: Case) -> Decision | None:
    """Judge that the script could go round its guard; nothing to say before the rehearsal."""
    plan = case.plan
    if plan.facts.rehearsal is None:
        return None
    why = plan.facts.avoidable
    if not why:
        return Decision(name, "allow", "the script reaches its store through the guard alone")
    because = f"the script could go round the guard: {why}"
    said = case.policy.guard.avoidable
    if said == "refuse":
        remedy = "run it on a machine that allows namespaces"
        return Decision(name, "refuse", because, remedy=remedy)
    if said == "require":
        # Whatever the risk: another person has to know it.
        asked = second_person.judge(case)
        return Decision(name, asked.verdict, because, remedy=asked.remedy)
    return Decision(name, "allow", because)
