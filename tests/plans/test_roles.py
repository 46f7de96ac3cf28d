"""Roles: what a person may do, from the policy's grants and a token's own bounds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.plans.roles import ROLES, Grant, Holder, may

GROUPS = {"web": ("ana@x", "ben@x"), "data": ("ben@x",)}
PILOT, OTHER = ("store/pilot-db", "pilot"), ("store/other-db", "production")


def grant(role: str, *groups: str, **rest: Sequence[str]) -> Grant:
    """Return a grant."""
    return Grant(
        role,
        groups,
        tuple(rest.get("people", ())),
        tuple(rest.get("resources", ())),
        tuple(rest.get("environments", ())),
        "policy.yaml:1",
    )


@pytest.mark.parametrize("given_role", ROLES)
@pytest.mark.parametrize("wanted", ROLES)
def test_without_grants_a_token_alone_counts(given_role: str, wanted: str) -> None:
    """Where the policy grants nothing, a token's role counts everywhere; a team's nowhere."""
    is_enough = ROLES.index(given_role) >= ROLES.index(wanted)
    for on in ((), (PILOT,), (PILOT, OTHER)):
        assert may(Holder("ana@x", given_role), wanted, (), GROUPS, on) is is_enough
        assert not may(Holder("ana@x", given_role, "web"), wanted, (), GROUPS, on)


@given(st.sampled_from(ROLES), st.sampled_from(ROLES), st.sampled_from(ROLES))
def test_the_lesser_counts(of_token: str, of_policy: str, wanted: str) -> None:
    """Neither a token nor a grant gives more than the other."""
    least = min(ROLES.index(of_token), ROLES.index(of_policy))
    found = may(Holder("ana@x", of_token), wanted, [grant(of_policy, "web")], GROUPS, (PILOT,))
    assert found is (least >= ROLES.index(wanted))


@pytest.mark.parametrize(
    ("grants", "on", "expected"),
    [
        ([grant("operator", "web", resources=["store/pilot-*"])], (PILOT,), True),
        ([grant("operator", "web", resources=["store/pilot-*"])], (OTHER,), False),
        ([grant("operator", "web", resources=["store/pilot-*"])], (PILOT, OTHER), False),
        ([grant("operator", "web", resources=["store/*"])], (PILOT, OTHER), True),
        ([grant("operator", "web", environments=["pilot"])], (PILOT,), True),
        ([grant("operator", "web", environments=["pilot"])], (OTHER,), False),
        ([grant("operator", "data")], (PILOT,), False),
        ([grant("operator", people=["ANA@x"])], (PILOT,), True),
        ([grant("operator", "gone")], (PILOT,), False),
        (
            [
                grant("operator", "web", resources=["store/pilot-*"]),
                grant("operator", people=["ana@x"], environments=["production"]),
            ],
            (PILOT, OTHER),
            True,
        ),
    ],
)
def test_where(grants: list[Grant], on: tuple[tuple[str, str], ...], expected: bool) -> None:
    """A grant counts where its patterns and environments say, for those whom it names; each of
    several resources must be granted, by whichever grant."""
    assert may(Holder("ana@x", "admin"), "operator", grants, GROUPS, on) is expected


def test_team() -> None:
    """A token of one team gives what that group is granted, and only while its person is in it."""
    grants = [grant("approver", "data"), grant("operator", "web")]
    assert may(Holder("ben@x", "admin"), "approver", grants, GROUPS, (PILOT,))
    assert not may(Holder("ben@x", "admin", "web"), "approver", grants, GROUPS, (PILOT,))
    assert may(Holder("ben@x", "admin", "web"), "operator", grants, GROUPS, (PILOT,))
    assert not may(Holder("ana@x", "admin", "data"), "viewer", grants, GROUPS, (PILOT,))
    assert not may(Holder("ben@x", "admin"), "viewer", grants, {"web": (), "data": ()}, (PILOT,))


def test_admin_of_a_part_is_none() -> None:
    """Tokens and the whole journal are for an admin of everything."""
    assert may(Holder("ana@x", "admin"), "admin", [grant("admin", "web")], GROUPS, ())
    part = [grant("admin", "web", resources=["store/pilot-*"])]
    assert not may(Holder("ana@x", "admin"), "admin", part, GROUPS, ())
    assert may(Holder("ana@x", "admin"), "viewer", part, GROUPS, ())
