"""Statements that a run's guard holds, and another person's word over each of them."""

from __future__ import annotations

from handrail.api.route import Answer, Asked, On, Route
from handrail.api.shapes import (
    HeldLines,
    PreparedRelease,
    Released,
    SignedRelease,
    Verdict,
)
from handrail.api.targets import on_of, sees
from handrail.core import holding
from handrail.errors import UsageError


def on_held(asked: Asked) -> On:
    """Return which resource the statement in the address is held on."""
    return on_of(asked.declared, holding.find(asked.world, asked.path["id"]).resource)


def listed(asked: Asked) -> Answer:
    """Answer what waits."""
    held = holding.standing(asked.world)
    return Answer(HeldLines(tuple(one for one in held if sees(asked, one.resource))))


def prepare(asked: Asked) -> Answer:
    """Answer what the person has to sign."""
    said, name = asked.body, asked.path["id"]
    unsigned = holding.prepare(asked.world, name, allow=said.allow, because=said.because)
    signed = holding.payload(holding.find(asked.world, name), unsigned)
    return Answer(PreparedRelease(unsigned, signed.decode()))


def release(asked: Asked) -> Answer:
    """Record a release that was signed elsewhere."""
    said, held = asked.body.release, holding.find(asked.world, asked.path["id"])
    if said.id != held.id:
        raise UsageError("hold.unknown", f"what was signed is not for `{held.id}`")
    return Answer(Released(holding.accept(asked.world, said)), 201)


ROUTES = (
    Route(
        "GET",
        "/v1/holds",
        "List the statements that wait for another person.",
        "viewer",
        listed,
        answer=HeldLines,
    ),
    Route(
        "POST",
        "/v1/holds/{id}/release-drafts",
        "Say what has to be signed to let a statement go on, or to refuse it.",
        "approver",
        prepare,
        on=on_held,
        body=Verdict,
        answer=PreparedRelease,
    ),
    Route(
        "POST",
        "/v1/holds/{id}/releases",
        "Record a signed release, having verified it. Nobody releases their own statement.",
        "approver",
        release,
        on=on_held,
        body=SignedRelease,
        answer=Released,
        status=201,
    ),
)
