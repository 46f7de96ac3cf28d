"""People by token: who may speak to a server, as what, and until when.

Rules:
- A token is shown once, when it is made. Kept is the SHA-256 of its 256 random bits: that needs no
  slow hash, since nobody can guess the bits.
- Compared in constant time; unknown, wrong, revoked and expired ones are refused before anything
  else is looked at.
- What was done stands in the chain `tokens`: `created`, `revoked`, and `used` once an hour at most.
- A clock that is set back revives no token while the server lives.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Lock

from handrail.core import records
from handrail.core.world import World
from handrail.errors import JournalError, RefusedError, UsageError
from handrail.estate.shapes import nearest
from handrail.plans.canonical import plain, sha256, time_text
from handrail.plans.policy import Policy
from handrail.plans.roles import ROLES, Holder, may
from handrail.ports import Record

CHAIN = "tokens"
LONGEST_S = 366 * 86400
_MARK = "handrail"
_NOTED = timedelta(hours=1)
_ID_CHARACTERS = 8


@dataclass(frozen=True)
class Token:
    """What is kept of a token.

    Attributes:
        id: how people call it; part of the token, and no secret.
        role: the most that it gives; see `plans/roles.py`.
        team: the group as whose member it counts; empty for all of the person's.
        digest: SHA-256 of the secret part.
        used_at: when it was last used, to the hour; empty for never.
    """

    id: str
    person: str
    role: str
    team: str
    made_at: str
    expires_at: str
    made_by: str
    digest: str
    revoked_at: str = ""
    used_at: str = ""

    @property
    def holder(self) -> Holder:
        """Whose rights it gives."""
        return Holder(self.person, self.role, self.team)


def create(
    world: World, policy: Policy, *, person: str, role: str, team: str, lasts_s: int
) -> tuple[Token, str]:
    """Make a token, and return it with the text that its person is given, once.

    Raises:
        UsageError: no such role or team, not a member of it, or a time that is too long.
    """
    _refuse_wrong(policy, person, role, team, lasts_s)
    now = world.clock.now()
    secret = world.ids.new() + world.ids.new()
    digest = sha256(secret)
    if any(token.id == digest[:_ID_CHARACTERS] for token in tokens(world)):
        return create(world, policy, person=person, role=role, team=team, lasts_s=lasts_s)
    token = Token(
        id=digest[:_ID_CHARACTERS],
        person=person,
        role=role,
        team=team,
        made_at=time_text(now),
        expires_at=time_text(now + timedelta(seconds=lasts_s)),
        made_by=world.person,
        digest=digest,
    )
    body = plain(token)
    world.journal.append(CHAIN, "created", body if isinstance(body, dict) else {})
    return token, f"{_MARK}_{token.id}_{secret}"


def _refuse_wrong(policy: Policy, person: str, role: str, team: str, lasts_s: int) -> None:
    if not person or not person.isprintable() or " " in person:
        raise UsageError("auth.token", "a token is for one person, as in allowed_signers")
    if role not in ROLES:
        raise UsageError(
            "auth.token", f"`{role}` is no role", hint=nearest(role, ROLES) or ", ".join(ROLES)
        )
    if team and person.casefold() not in {p.casefold() for p in policy.groups.get(team, ())}:
        raise UsageError(
            "auth.token",
            f"`{person}` is not in the group `{team}` of the policy",
            hint=nearest(team, tuple(policy.groups))
            or f"declare it under `groups` in {policy.file}",
        )
    if not 0 < lasts_s <= LONGEST_S:
        raise UsageError("auth.token", f"a token lasts {LONGEST_S // 86400} days at most")


def revoke(world: World, name: str) -> Token:
    """Revoke the token whose id begins with `name`. Twice equals once.

    Raises:
        UsageError: there is none, or more than one.
    """
    found = [token for token in tokens(world) if name and token.id.startswith(name.lower())]
    if len(found) != 1:
        said = "several tokens have" if found else "no token has"
        raise UsageError(
            "auth.token", f"{said} an id that begins with `{name}`", hint="handrail tokens list"
        )
    token = found[0]
    if not token.revoked_at:
        world.journal.append(CHAIN, "revoked", {"id": token.id, "person": world.person})
    return next(one for one in tokens(world) if one.id == token.id)


def tokens(world: World) -> tuple[Token, ...]:
    """Return every token, the oldest first, revoked and expired ones too."""
    return tuple(_read(world.journal.records(CHAIN)).values())


def _read(found: Iterable[Record]) -> dict[str, Token]:
    made: dict[str, Token] = {}
    for record in found:
        body = records.body(record)
        if record.kind == "created":
            made[body["id"]] = records.decode(body, Token)
        elif body["id"] in made:
            time = {"revoked": "revoked_at", "used": "used_at"}[record.kind]
            made[body["id"]] = replace(made[body["id"]], **{time: record.time})
    return made


class Register:
    """Every token, kept in memory for as long as the journal has nothing new of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[str, Token] = {}
        self._seen = ""
        self._latest = ""
        self._lock = Lock()

    def find(self, text: str) -> Token:
        """Return the token that `text` is.

        Raises:
            RefusedError: it is none, or counts no more.
        """
        if not text:
            raise RefusedError(
                "auth.missing", "this needs a token", hint="Authorization: Bearer handrail_..."
            )
        mark, _, rest = text.partition("_")
        name, _, secret = rest.partition("_")
        token = self._tokens().get(name)
        # Compared also where there is none of that name: the time taken tells nothing.
        same = hmac.compare_digest(sha256(secret), token.digest if token else sha256(""))
        if token is None or not same or mark != _MARK:
            raise RefusedError("auth.missing", "no such token", hint="handrail tokens create")
        now = self._now()
        if token.revoked_at:
            raise RefusedError("auth.revoked", f"the token {token.id} was revoked")
        if token.expires_at <= now:
            raise RefusedError(
                "auth.expired",
                f"the token {token.id} has expired on {token.expires_at[:10]}",
                hint=f"handrail tokens create --person {token.person} --role {token.role}",
            )
        self._note_use(token, now)
        return token

    def _now(self) -> str:
        with self._lock:
            self._latest = max(self._latest, time_text(self._world.clock.now()))
            return self._latest

    def _tokens(self) -> dict[str, Token]:
        last = self._world.journal.last(CHAIN)
        seen = last.hash if last else ""
        if seen != self._seen:
            known = _read(self._world.journal.records(CHAIN))
            with self._lock:
                self._known, self._seen = known, seen
        return self._known

    def _note_use(self, token: Token, now: str) -> None:
        then = token.used_at
        if then and datetime.fromisoformat(now) - datetime.fromisoformat(then) < _NOTED:
            return
        # Whoever only looks may do so while the journal's disk is full.
        with suppress(JournalError):
            self._world.journal.append(CHAIN, "used", {"id": token.id})


def insist(policy: Policy, token: Token, role: str, on: tuple[tuple[str, str], ...]) -> None:
    """Raise unless the token's person has `role` on all of `on`; see `roles.may`.

    Raises:
        RefusedError: not there, not so much, or not any more.
    """
    if may(token.holder, role, policy.roles, policy.groups, on):
        return
    where = f" on {', '.join(ref for ref, _ in on)}" if on else ""
    team = f" for {token.team}" if token.team else ""
    raise RefusedError(
        "auth.forbidden",
        f"{token.person} ({token.role}{team}) is not {role}{where}",
        hint=f"`roles` in {policy.file or 'policy.yaml'} says who is; "
        "a token gives no more than it was made with",
    )
