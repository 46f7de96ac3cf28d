"""Who has seen the commit that is deployed, besides whoever deploys it. Pure.

Rules:
- Where a forge is declared it alone says who reviewed: neither a trailer nor a signature makes up
  for an approval that is not there.
- Else `Reviewed-by` trailers count, and the signature of another person than the deployer.
- An author's name proves nothing, as anybody can write any: where nobody vouches for it (a
  signature), it is left out. The deployer's own is kept: it is to be said that he wrote it himself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from handrail.kits.deploys.model import Commit
from handrail.plans.model import LastChange


def change_of(commit: Commit, forge_reviewers: Sequence[str] | None, deployer: str) -> LastChange:
    """Return the commit as the fact that the guard `review` judges.

    Args:
        commit: what is deployed.
        forge_reviewers: who approved it there; None where no forge is declared. For one that does
            not answer pass none at all, and tell it as a fact that could not be read.
        deployer: mail address of whoever asked for the deploy.
    """
    if forge_reviewers is not None:
        author, reviewers = _own(commit, deployer), tuple(forge_reviewers)
    else:
        author = _own(commit, deployer) or _vouched(commit)
        reviewers = (*commit.reviewers, commit.signed_by)
    return LastChange(commit.id, author, tuple(_others(reviewers, deployer)), commit.when)


def _own(commit: Commit, deployer: str) -> str:
    return commit.author if _same(commit.author, deployer) else ""


def _vouched(commit: Commit) -> str:
    return commit.author if _same(commit.author, commit.signed_by) else ""


def _others(people: Iterable[str], deployer: str) -> Iterator[str]:
    """Yield each person once, but the deployer; as first written."""
    seen = {deployer.casefold(), ""}
    for person in people:
        if person.casefold() not in seen:
            seen.add(person.casefold())
            yield person


def _same(one: str, other: str) -> bool:
    # Mail addresses are the same in small and in capital letters.
    return one.casefold() == other.casefold()
