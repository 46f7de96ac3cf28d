"""Questions that a script asks while it runs: how they are declared, and what an answer may be.

Rules:
- An answer is one line: it is printed to a script, which reads it as it reads any other value.
- What a rehearsal answers is declared (`default`) or given beforehand (`-p`): nobody waits there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from handrail.errors import DeclarationError, Place, UsageError
from handrail.estate.shapes import DURATION, TEXT, Choice, Key, ListOf, MapOf, Record, nearest
from handrail.operations.model import Operation, Question

TYPES = ("text", "int", "bool", "choice")
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_LENGTH = 1000


def _question(
    *,
    place: Place,
    type: str,  # noqa: A002  the key's own name
    text: str,
    choices: tuple[str, ...],
    expires: int,
    default: str | None,
    by: str,
) -> Question:
    del place
    return Question("", "choice" if choices else type, text, choices, expires, default, by)


_QUESTION = Record(
    _question,
    {
        "type": Key(Choice(*TYPES), "what an answer may be", default="text"),
        "text": Key(TEXT, "what is asked, as people read it", required=True),
        "choices": Key(ListOf(TEXT), "the only answers there are", default=()),
        "expires": Key(DURATION, "how long it waits for an answer", default=86400),
        "default": Key(TEXT, "what a rehearsal answers; nobody's silence does in a run"),
        "by": Key(TEXT, "group whose members may answer", default=""),
    },
)
QUESTIONS = MapOf(_QUESTION)


def named(found: Mapping[str, Any]) -> tuple[Question, ...]:
    """Return questions as they are read, each with its name."""
    return tuple(
        Question(name, q.type, q.text, q.choices, q.expires_s, q.default, q.by)
        for name, q in found.items()
    )


def errors(operation: Operation) -> Iterator[DeclarationError]:
    """Yield what is wrong with the questions of an operation."""
    parameters = {parameter.name for parameter in operation.parameters}
    if operation.questions and operation.runs_on:
        yield DeclarationError(
            "operations.question",
            f"its script runs on {operation.runs_on}, where nobody can be asked",
            at=operation.place,
            hint="ask by a parameter instead: -p NAME=VALUE",
        )
    for question in operation.questions:
        said = _wrong(question, is_parameter=question.name in parameters)
        if said:
            yield DeclarationError(
                "operations.question", f"question `{question.name}` {said}", at=operation.place
            )


def group_errors(
    operations: Iterable[Operation], groups: Collection[str]
) -> Iterator[DeclarationError]:
    """Yield the questions that a group answers which the policy does not declare."""
    for operation in operations:
        for question in operation.questions:
            if question.by and question.by not in groups:
                yield DeclarationError(
                    "policy.unknown-group",
                    f"question `{question.name}` is answered by unknown group `{question.by}`",
                    at=operation.place,
                    hint=nearest(question.by, tuple(groups)) or "declare it under `groups`",
                )


def _wrong(question: Question, *, is_parameter: bool) -> str:
    if is_parameter:
        return "is a parameter, too: give one of them another name"
    if question.type == "choice" and not question.choices:
        return "has no `choices`"
    if question.expires_s < 1:
        return "expires before it could be answered"
    unfit = [one for one in question.choices if not _is_line(one)]
    if unfit:
        return "has a choice that is not one line of text"
    if question.default is not None and not fits(question, question.default):
        return f"has the default `{question.default}`, which is not {wanted(question)}"
    return ""


def fits(question: Question, value: str) -> bool:
    """Whether `value` may be an answer."""
    return {
        "int": _WHOLE.fullmatch(value) is not None,
        "bool": value in {"true", "false"},
        "choice": value in question.choices,
        "text": _is_line(value),
    }[question.type]


def _is_line(value: str) -> bool:
    return 0 < len(value) <= _LENGTH and value.isprintable()


def wanted(question: Question) -> str:
    """Return what an answer may be, in words."""
    return {
        "int": "a whole number",
        "bool": "`true` or `false`",
        "choice": "one of " + ", ".join(f"`{one}`" for one in question.choices),
        "text": f"one line of text, {_LENGTH} characters at most",
    }[question.type]


def insist(question: Question, value: str, at: Place | None = None) -> str:
    """Return `value`, which may be an answer.

    Raises:
        UsageError: it may not.
    """
    if fits(question, value):
        return value
    raise UsageError(
        "question.answer",
        f"`{question.name}` is answered by {wanted(question)}, not by `{value[:80]}`",
        at=at,
    )
