"""Questions that runs ask, and a person's answer, signed by a key that never comes here."""

from __future__ import annotations

from typing import Annotated

import msgspec

from handrail.api import route
from handrail.api.route import Asked, Route
from handrail.api.shapes import Words
from handrail.api.targets import on_run
from handrail.core import asking
from handrail.core.asking import Answer
from handrail.core.asking import Asked as Question
from handrail.errors import UsageError

Value = Annotated[str, msgspec.Meta(max_length=1000)]


class Questions(msgspec.Struct, frozen=True):
    """What a run asks now, the oldest first."""

    questions: tuple[Question, ...]


class Saying(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is answered; with `refused`, that there will be no answer."""

    value: Value = ""
    refused: bool = False
    because: Words = ""


class PreparedAnswer(msgspec.Struct, frozen=True):
    """An answer to sign: `payload` are the bytes, as text."""

    asked: Question
    answer: Answer
    payload: str


class SignedAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An answer as it was prepared, with its signature."""

    answer: Answer


class Answered(msgspec.Struct, frozen=True):
    """An answer that was recorded."""

    answer: Answer


def listed(asked: Asked) -> route.Answer:
    """Answer what the run asks."""
    found = asking.open_questions(asked.world)
    return route.Answer(Questions(tuple(one for one in found if one.run == asked.number)))


def prepare(asked: Asked) -> route.Answer:
    """Answer what the person has to sign."""
    said, name = asked.body, asked.path["id"]
    question, unsigned = asking.draft(
        asked.world,
        asked.declared,
        asked.number,
        name,
        said.value,
        refused=said.refused,
        because=said.because,
    )
    signed = asking.payload(question, unsigned)
    return route.Answer(PreparedAnswer(question, unsigned, signed.decode()))


def answer(asked: Asked) -> route.Answer:
    """Record an answer that was signed elsewhere."""
    said = asked.body.answer
    if (said.run, said.name) != (asked.number, asked.path["id"]):
        raise UsageError("question.unknown", "what was signed is an answer to something else")
    if said.person != asked.world.person:
        raise UsageError("question.answer", "what was signed is another person's answer")
    return route.Answer(Answered(asking.accept(asked.world, asked.declared, said)), 201)


ROUTES = (
    Route(
        "GET",
        "/v1/runs/{number}/questions",
        "List what a run asks now.",
        "viewer",
        listed,
        on=on_run,
        answer=Questions,
    ),
    Route(
        "POST",
        "/v1/runs/{number}/questions/{id}/answer-drafts",
        "Say what has to be signed to answer a question, or to refuse it.",
        "operator",
        prepare,
        on=on_run,
        body=Saying,
        answer=PreparedAnswer,
    ),
    Route(
        "POST",
        "/v1/runs/{number}/questions/{id}/answers",
        "Record a signed answer, having verified it. The first one counts.",
        "operator",
        answer,
        on=on_run,
        body=SignedAnswer,
        answer=Answered,
        status=201,
    ),
)
