"""Who has seen a commit: a forge's word, a trailer, a signature, a mere name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.guards import review
from handrail.kits.deploys.model import Commit
from handrail.kits.deploys.reviewing import change_of
from support.builders import make_case, make_facts, make_request

ANA, BEN, CHI = "ana@example.com", "ben@example.com", "chi@example.com"
ID = "a3f91c0" + "0" * 33
WHEN = "2026-01-05T06:00:00.000000Z"
PEOPLE = st.sampled_from([ANA, BEN, CHI, ANA.upper(), ""])


def commit_by(author: str, reviewers: tuple[str, ...] = (), signed_by: str = "") -> Commit:
    return Commit(ID, author, "Somebody", WHEN, "change", reviewers, signed_by)


def verdict(commit: Commit, forge: tuple[str, ...] | None, deployer: str = ANA) -> str:
    change = change_of(commit, forge, deployer)
    case = make_case(facts=make_facts(change=change), request=make_request(person=deployer))
    return review.judge(case).verdict


@pytest.mark.parametrize(
    ("commit", "forge", "expected"),
    [
        (commit_by(ANA), None, "refuse"),
        (commit_by(ANA, (ANA.upper(),)), None, "refuse"),
        (commit_by(ANA, (BEN,)), None, "allow"),
        (commit_by(ANA, (), ANA), None, "refuse"),
        (commit_by(BEN, (), BEN), None, "allow"),
        (commit_by(ANA, (), BEN), None, "allow"),
        (commit_by(BEN), None, "refuse"),  # whoever pushed it may have written any name
        (commit_by(ANA), ("ben@github",), "allow"),
        (commit_by(BEN), (), "refuse"),
        (commit_by(BEN, (CHI,), BEN), (), "refuse"),
    ],
)
def test_another_person_must_have_seen_it(
    commit: Commit, forge: tuple[str, ...] | None, expected: str
) -> None:
    """A forge's approval, else a trailer or signature of another person; never a mere name."""
    assert verdict(commit, forge) == expected


def test_what_is_refused_is_said_as_it_is() -> None:
    """Nobody is told that they wrote what another one did."""
    case = make_case(facts=make_facts(change=change_of(commit_by(BEN), None, ANA)))
    assert (
        review.judge(case).because == "nobody is known to have reviewed the last change (a3f91c0)"
    )


@given(PEOPLE, st.lists(PEOPLE).map(tuple), PEOPLE, st.none() | st.lists(PEOPLE).map(tuple), PEOPLE)
def test_the_deployer_is_never_among_the_reviewers(
    author: str,
    reviewers: tuple[str, ...],
    signed_by: str,
    forge: tuple[str, ...] | None,
    deployer: str,
) -> None:
    """Reviewers are other people, each once, and of the forge alone where there is one."""
    change = change_of(commit_by(author, reviewers, signed_by), forge, deployer)
    written = [one.casefold() for one in change.reviewers]
    assert deployer.casefold() not in written
    assert "" not in written
    assert len(written) == len(set(written))
    if forge is not None:
        assert set(change.reviewers) <= set(forge)
