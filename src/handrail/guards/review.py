"""Two people have seen the script: whoever runs it is not the only one who wrote or reviewed it."""

from __future__ import annotations

from handrail.plans.judging import Case
from handrail.plans.model import Decision, LastChange

name = "review"


def judge(case: Case) -> Decision:
    """Refuse a script whose last change was made by the person who runs it, and read by nobody."""
    change, person = case.plan.facts.change, case.plan.request.person
    if change is None:
        return Decision(
            name,
            "refuse",
            "the script's last change is in no commit",
            remedy="commit it with a `Reviewed-by:` line of somebody else",
        )
    if not person:
        return Decision(
            name,
            "refuse",
            "nobody knows who you are, so nobody knows who else has seen the script",
            remedy="git config user.email NAME@EXAMPLE.ORG",
        )
    # Mail addresses are the same in small and in capital letters.
    mine = person.casefold()
    seen = {one for one in (change.author, *change.reviewers) if one and one.casefold() != mine}
    if not seen:
        return Decision(
            name,
            "refuse",
            _unseen(change, mine, person),
            remedy="let somebody review it: a `Reviewed-by:` line in a commit to it",
        )
    who = ", ".join(sorted(seen))
    return Decision(name, "allow", f"last changed in {change.commit[:7]}, seen by {who}")


def _unseen(change: LastChange, mine: str, person: str) -> str:
    if change.author.casefold() == mine:
        return f"{person} wrote the last change ({change.commit[:7]}) and nobody reviewed it"
    return f"nobody is known to have reviewed the last change ({change.commit[:7]})"
