"""No one approves their own run: another person's signature over this very digest."""

from __future__ import annotations

from handrail.plans.judging import Case
from handrail.plans.model import Approval, Decision

name = "second-person"


def judge(case: Case) -> Decision:
    """Require an approval by somebody else, of the group that the policy names for this risk."""
    plan = case.plan
    group = case.policy.approvers.get(plan.risk, "")
    if not plan.request.person:
        return Decision(
            name,
            "refuse",
            "nobody knows who you are, so anybody's approval could be your own",
            remedy="git config user.email NAME@EXAMPLE.ORG",
        )
    valid = [a for a in plan.facts.approvals if _counts(a, case, group)]
    if valid:
        said = f', "{valid[0].because}"' if valid[0].because else ""
        return Decision(name, "allow", f"{valid[0].person}, {valid[0].made_at[:16]}{said}")
    members = [m for m in case.policy.groups.get(group, ()) if m != plan.request.person]
    ask = f"one of `{group}` ({', '.join(members)})" if group else "anybody in allowed_signers"
    return Decision(
        name,
        "require",
        f"{ask}, not {plan.request.person}",
        remedy=f"handrail approve {plan.digest[:4]}-{plan.digest[4:8]}",
    )


def _counts(approval: Approval, case: Case, group: str) -> bool:
    return (
        approval.digest == case.plan.digest
        and approval.person.casefold() != case.plan.request.person.casefold()
        and approval.expires_at > case.plan.facts.now
        and (not group or approval.person in case.policy.groups.get(group, ()))
    )
