"""What runs is what is in git: no uncommitted change in anything that the plan is made of."""

from __future__ import annotations

from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "committed"


def judge(case: Case) -> Decision:
    """Refuse when the estate, the policy, the operation or its files differ from the commit."""
    facts = case.plan.facts
    if facts.uncommitted:
        some = ", ".join(facts.uncommitted[:3])
        more = f" and {len(facts.uncommitted) - 3} more" if len(facts.uncommitted) > 3 else ""  # noqa: PLR2004  the three that are shown
        return Decision(
            name,
            "refuse",
            f"not committed: {some}{more}",
            remedy="commit it, or put it away with git stash",
        )
    if not facts.commit:
        return Decision(
            name,
            "refuse",
            "nothing of this is in a git repository",
            remedy="git init, commit, then plan again",
        )
    return Decision(name, "allow", f"commit {facts.commit[:7]}")
