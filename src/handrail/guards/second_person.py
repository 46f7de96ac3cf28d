"""No one approves their own run: other people's signatures over this very digest."""

from __future__ import annotations

from handrail.plans import quorum
from handrail.plans.judging import Case
from handrail.plans.model import Approval, Decision

name = "second-person"


def judge(case: Case) -> Decision:
    """Require approvals by others: as many, and of the group, as the policy says for this risk.

    An approval that stands counts while the plan is inside its bounds.
    """
    plan = case.plan
    if not plan.request.person:
        return Decision(
            name,
            "refuse",
            "nobody knows who you are, so anybody's approval could be your own",
            remedy="git config user.email NAME@EXAMPLE.ORG",
        )
    counting = quorum.counting(plan, case.policy)
    if not quorum.lacking(plan, case.policy):
        return Decision(name, "allow", "; ".join(map(_said, counting)))
    return Decision(
        name,
        "require",
        _wanted(case, counting),
        remedy=f"handrail approve {plan.digest[:4]}-{plan.digest[4:8]}",
    )


def _said(approval: Approval) -> str:
    because = f', "{approval.because}"' if approval.because else ""
    if approval.bounds is not None:
        until = approval.expires_at[:16]
        return f"standing approval of {approval.person}, until {until}{because}"
    return f"{approval.person}, {approval.made_at[:16]}{because}"


def _wanted(case: Case, counting: tuple[Approval, ...]) -> str:
    """Return who has approved, and who still may."""
    plan, policy = case.plan, case.policy
    group, of = policy.approvers.get(plan.risk, ""), quorum.wanted(policy, plan.risk)
    may = ", ".join(quorum.candidates(plan, policy))
    if of == 1:
        ask = f"one of `{group}` ({may or 'nobody else is in it'})"
        return f"{ask if group else 'anybody in allowed_signers'}, not {plan.request.person}"
    whom = f"of `{group}`" if group else "people in allowed_signers"
    have = ", ".join(a.person for a in counting)
    has = f": {have} {'has' if len(counting) == 1 else 'have'}" if have else ""
    left = f"; {may} may" if may else "; nobody else is in it"
    return f"{of} {whom}{has}{left if group else ''}, not {plan.request.person}"
