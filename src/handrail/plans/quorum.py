"""Quorum: whose approvals of a plan count, how many people it takes, and who still may. Pure.

Rules:
- One person counts once, however many keys and approvals they have, in small and capital letters.
- Never the requester, never anybody outside of the group that the policy names for this risk.
- One that stands counts for what is inside its bounds, for as long as the policy lets it stand.
"""

from __future__ import annotations

from datetime import timedelta

from handrail.plans.bounds import breach, is_for
from handrail.plans.canonical import time_text
from handrail.plans.model import RISKS, Approval, Plan
from handrail.plans.planning import moment
from handrail.plans.policy import Policy


def wanted(policy: Policy, risk: str) -> int:
    """Return how many people must approve a plan of `risk`."""
    return policy.quorum.get(risk, 1)


def counting(plan: Plan, policy: Policy) -> tuple[Approval, ...]:
    """Return the approvals of `plan` that count, one a person, those that stand last."""
    found: dict[str, Approval] = {}
    for approval in sorted(plan.facts.approvals, key=lambda one: one.bounds is not None):
        if _counts(approval, plan, policy):
            found.setdefault(approval.person.casefold(), approval)
    return tuple(found.values())


def lacking(plan: Plan, policy: Policy) -> int:
    """Return how many people have still to approve `plan`; 0 when enough have."""
    return max(0, wanted(policy, plan.risk) - len(counting(plan, policy)))


def candidates(plan: Plan, policy: Policy) -> tuple[str, ...]:
    """Return who of the group still may approve; empty where no group is named."""
    group = policy.approvers.get(plan.risk, "")
    gone = {plan.request.person.casefold(), *(a.person.casefold() for a in counting(plan, policy))}
    return tuple(m for m in policy.groups.get(group, ()) if m.casefold() not in gone)


def _counts(approval: Approval, plan: Plan, policy: Policy) -> bool:
    group = policy.approvers.get(plan.risk, "")
    return (
        approval.person.casefold() != plan.request.person.casefold()
        and approval.expires_at > plan.facts.now
        and (not group or approval.person in policy.groups.get(group, ()))
        and _is_over(approval, plan, policy)
    )


def _is_over(approval: Approval, plan: Plan, policy: Policy) -> bool:
    """Whether an approval is over this plan: by its digest, or by its bounds."""
    bounds = approval.bounds
    if bounds is None:
        return approval.digest == plan.digest
    oldest = moment(plan.facts.now) - timedelta(seconds=policy.standing_age_s)
    return (
        RISKS.index(plan.risk) <= RISKS.index(policy.standing_risk)
        and approval.made_at >= time_text(oldest)
        and is_for(bounds, plan)
        and not breach(bounds, plan)
    )
