"""Roles: what a person may do through a server, by team and by resource. Pure.

Rules:
- The policy grants, a token narrows: what counts is the lesser of the two.
- Without any grant in the policy, a token's own role counts on every resource.
- A person who has left a group has lost what the group was granted, whatever their token says.
- Nothing here lets anybody approve their own run: that is judged where approvals are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

# Each may do what those before it may.
ROLES = ("viewer", "operator", "approver", "admin")
DEEDS = {
    "viewer": "look: plans, runs, what waits",
    "operator": "plan, rehearse, run, resume, undo",
    "approver": "approve what somebody else wants to run, and let held statements go on",
    "admin": "make and revoke tokens, export the journal",
}


@dataclass(frozen=True)
class Grant:
    """One line of the policy's `roles`.

    Attributes:
        role: of `ROLES`.
        groups: of the policy; a team is such a group.
        people: besides them.
        resources: patterns such as `store/pilot-*`; empty for every resource.
        environments: names; empty for every one.
        place: where it is declared.
    """

    role: str
    groups: tuple[str, ...]
    people: tuple[str, ...]
    resources: tuple[str, ...]
    environments: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class Holder:
    """Whose rights are asked for.

    Attributes:
        person: as in `allowed_signers`.
        role: the most that the token gives.
        team: the group as whose member the token counts; empty for all of the person's.
    """

    person: str
    role: str
    team: str = ""


def may(
    holder: Holder,
    role: str,
    grants: Sequence[Grant],
    groups: Mapping[str, Sequence[str]],
    on: Sequence[tuple[str, str]],
) -> bool:
    """Whether `holder` has at least `role`.

    Args:
        holder: who asks.
        role: that is needed.
        grants: of the policy.
        groups: of the policy.
        on: resources with their environments, each of which must be granted; empty for what
            concerns no single one: there any grant of that role will do, but `admin` must be
            granted on everything.
    """
    if _rank(holder.role) < _rank(role):
        return False
    if not grants:
        return not holder.team
    own = [g for g in grants if _rank(g.role) >= _rank(role) and _is_for(g, holder, groups)]
    if not on:
        return any(role != "admin" or not (g.resources or g.environments) for g in own)
    return all(any(_covers(grant, *one) for grant in own) for one in on)


def _rank(role: str) -> int:
    return ROLES.index(role)


def _is_for(grant: Grant, holder: Holder, groups: Mapping[str, Sequence[str]]) -> bool:
    person = holder.person.casefold()
    teams = grant.groups if not holder.team else tuple({holder.team} & {*grant.groups})
    members = {one.casefold() for team in teams for one in groups.get(team, ())}
    direct = {one.casefold() for one in grant.people} if not holder.team else set()
    return person in members | direct


def _covers(grant: Grant, resource: str, environment: str) -> bool:
    fits = not grant.resources or any(fnmatchcase(resource, one) for one in grant.resources)
    return fits and (not grant.environments or environment in grant.environments)
