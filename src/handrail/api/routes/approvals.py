"""Approvals that count, their withdrawal, and broken glass with its review."""

from __future__ import annotations

import msgspec

from handrail.api.route import Answer, Asked, On, Route
from handrail.api.shapes import Words
from handrail.api.targets import on_of, on_plan, plan_of, sees
from handrail.core import breaking, records, standing, withdrawing
from handrail.core.breaking import Break, Review
from handrail.core.standing import Living
from handrail.core.withdrawing import Withdrawal
from handrail.errors import UsageError
from handrail.plans.canonical import time_text
from handrail.plans.model import Approval


class Counting(msgspec.Struct, frozen=True):
    """Approvals that count: for one run, and those that stand, with how they were used."""

    once: tuple[Approval, ...]
    standing: tuple[Living, ...]


class Why(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """In a person's words: why, or what was found."""

    because: Words = ""


class PreparedWithdrawals(msgspec.Struct, frozen=True):
    """Withdrawals to sign, and of each the bytes, as text."""

    withdrawals: tuple[Withdrawal, ...]
    payloads: tuple[str, ...]


class SignedWithdrawal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A withdrawal as it was prepared, with its signature."""

    withdrawal: Withdrawal


class Withdrawn(msgspec.Struct, frozen=True):
    """A withdrawal that was recorded."""

    withdrawal: Withdrawal


class Breaks(msgspec.Struct, frozen=True):
    """Each time that the glass was broken, the oldest first, with its review."""

    glass: tuple[Break, ...]


class PreparedReview(msgspec.Struct, frozen=True):
    """A review to sign: of what, and the bytes, as text."""

    glass: Break
    review: Review
    payload: str


class SignedReview(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A review as it was prepared, with its signature."""

    review: Review


class Reviewed(msgspec.Struct, frozen=True):
    """A review that was recorded, with what it is of."""

    glass: Break


def listed(asked: Asked) -> Answer:
    """Answer what counts now."""
    world, now = asked.world, time_text(asked.world.clock.now())
    once = tuple(
        approval
        for _, approval in withdrawing.living(world)
        if approval.bounds is None
        and approval.made_at <= now < approval.expires_at
        and sees(asked, records.find_plan(world.journal, approval.digest).target.resource)
    )
    stands = tuple(
        one
        for one in standing.living(world)
        if one.approval.bounds and sees(asked, one.approval.bounds.target)
    )
    return Answer(Counting(once, stands))


def prepare_withdrawal(asked: Asked) -> Answer:
    """Answer what the person has to sign to withdraw their approvals of the plan."""
    found = withdrawing.prepare(asked.world, plan_of(asked).digest, asked.body.because)
    payloads = tuple(withdrawing.payload(one).decode() for one in found)
    return Answer(PreparedWithdrawals(found, payloads))


def withdraw(asked: Asked) -> Answer:
    """Record a withdrawal that was signed elsewhere."""
    said = asked.body.withdrawal
    if (said.digest, said.person) != (plan_of(asked).digest, asked.world.person):
        raise UsageError("approval.none", "what was signed is not for this plan, by this person")
    return Answer(Withdrawn(withdrawing.accept(asked.world, said)), 201)


def broken(asked: Asked) -> Answer:
    """Answer each time that the glass was broken."""
    found = breaking.breaks(asked.world)
    return Answer(Breaks(tuple(one for one in found if sees(asked, one.target))))


def on_glass(asked: Asked) -> On:
    """Return which resource the glass in the address was broken for."""
    return on_of(asked.declared, breaking.find(asked.world, asked.path["id"]).target)


def prepare_review(asked: Asked) -> Answer:
    """Answer what the person has to sign to review it."""
    glass, unsigned = breaking.prepare(
        asked.world, asked.declared, asked.path["id"], asked.body.because
    )
    signed = breaking.review_payload(glass, unsigned)
    return Answer(PreparedReview(glass, unsigned, signed.decode()))


def review(asked: Asked) -> Answer:
    """Record a review that was signed elsewhere."""
    found = breaking.accept(asked.world, asked.declared, asked.path["id"], asked.body.review)
    return Answer(Reviewed(found), 201)


ROUTES = (
    Route(
        "GET", "/v1/approvals", "List the approvals that count.", "viewer", listed, answer=Counting
    ),
    Route(
        "POST",
        "/v1/plans/{digest}/withdrawal-drafts",
        "Say what an approver has to sign to take their approvals of a plan back.",
        "approver",
        prepare_withdrawal,
        on=on_plan,
        body=Why,
        answer=PreparedWithdrawals,
    ),
    Route(
        "POST",
        "/v1/plans/{digest}/withdrawals",
        "Record a signed withdrawal, having verified it. Only the approver withdraws.",
        "approver",
        withdraw,
        on=on_plan,
        body=SignedWithdrawal,
        answer=Withdrawn,
        status=201,
    ),
    Route(
        "GET",
        "/v1/glass",
        "List each time that the glass was broken.",
        "viewer",
        broken,
        answer=Breaks,
    ),
    Route(
        "POST",
        "/v1/glass/{id}/review-drafts",
        "Say what has to be signed to review what was done behind broken glass.",
        "approver",
        prepare_review,
        on=on_glass,
        body=Why,
        answer=PreparedReview,
    ),
    Route(
        "POST",
        "/v1/glass/{id}/reviews",
        "Record a signed review, having verified it. Nobody reviews their own.",
        "approver",
        review,
        on=on_glass,
        body=SignedReview,
        answer=Reviewed,
        status=201,
    ),
)
