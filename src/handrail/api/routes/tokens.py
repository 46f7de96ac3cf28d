"""Tokens: made, listed, revoked; by an admin of everything alone."""

from __future__ import annotations

from handrail.api.route import Answer, Asked, Route
from handrail.api.shapes import MadeToken, NewToken, TokenLine, TokenLines
from handrail.core import people
from handrail.core.people import Token
from handrail.errors import UsageError


def line_of(token: Token) -> TokenLine:
    """Return a token as it is answered: without the digest of its secret."""
    return TokenLine(
        id=token.id,
        person=token.person,
        role=token.role,
        team=token.team,
        made_at=token.made_at,
        expires_at=token.expires_at,
        made_by=token.made_by,
        revoked_at=token.revoked_at,
        used_at=token.used_at,
    )


def listed(asked: Asked) -> Answer:
    """Answer every token."""
    return Answer(TokenLines(tuple(line_of(token) for token in people.tokens(asked.world))))


def create(asked: Asked) -> Answer:
    """Make a token, and answer its secret this once."""
    wanted: NewToken = asked.body
    token, secret = people.create(
        asked.world,
        asked.declared.policy,
        person=wanted.person,
        role=wanted.role,
        team=wanted.team,
        lasts_s=wanted.lasts_s,
    )
    return Answer(MadeToken(line_of(token), secret), 201, {"Cache-Control": "no-store"})


def revoke(asked: Asked) -> Answer:
    """Revoke a token; twice equals once."""
    name = asked.path["id"]
    # Whole: the beginning of one, sent by mistake, would be somebody's.
    if all(token.id != name for token in people.tokens(asked.world)):
        raise UsageError("api.not-found", f"there is no token `{name[:32]}`")
    return Answer(line_of(people.revoke(asked.world, name)))


ROUTES = (
    Route("GET", "/v1/tokens", "List tokens.", "admin", listed, answer=TokenLines),
    Route(
        "POST",
        "/v1/tokens",
        "Make a token for a person; its secret is answered this once.",
        "admin",
        create,
        body=NewToken,
        answer=MadeToken,
        status=201,
    ),
    Route(
        "DELETE",
        "/v1/tokens/{id}",
        "Revoke a token.",
        "admin",
        revoke,
        answer=TokenLine,
    ),
)
