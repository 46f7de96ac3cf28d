"""Asking: what a running script asks waits in the journal until a person answers it.

Rules:
- A question has a chain of its own: `asked`, and once `answered`, `expired` or `over`; of two
  answers at the same moment one counts, and the other is told.
- An answer is signed by whom it is of, and looked at again when the script gets it: one by a person
  who has left the team, or the group, meanwhile is noted as `rejected`, and the question stays.
- Silence answers nothing: what is not answered in time ends the asking with a failure.
- A question that no living run waits for is not shown, and cannot be answered.
- A team without `allowed_signers` has nobody to tell apart: there an answer needs no signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from handrail.core import records, signing
from handrail.core.world import Declared, World
from handrail.errors import FencedError, KeysError, RefusedError, UsageError
from handrail.estate.shapes import nearest
from handrail.operations import questions
from handrail.operations.model import Question
from handrail.plans.canonical import plain, time_text
from handrail.plans.policy import Policy
from handrail.ports import Entry, Record

PREFIX = "question-"
_OPEN = frozenset({"asked", "rejected"})


@dataclass(frozen=True)
class Asked:
    """A question that a run has asked.

    Attributes:
        note: what the script said besides.
        resource: whose lock the run holds.
        person: who runs it.
    """

    run: int
    question: Question
    note: str
    resource: str
    operation: str
    person: str
    asked_at: str
    expires_at: str

    @property
    def chain(self) -> str:
        """Where it stands in the journal."""
        return chain_of(self.run, self.question.name)


@dataclass(frozen=True)
class Answer:
    """A person's answer, signed; with `refused`, that there will be none."""

    run: int
    name: str
    value: str
    person: str
    made_at: str
    refused: bool = False
    because: str = ""
    signature: str = ""


def chain_of(run: int, name: str) -> str:
    """Return the chain of a question."""
    return f"{PREFIX}{run}-{name}"


def ask(world: World, asked: Asked) -> Asked:
    """Record a question, and return it as it was recorded first: a run asks each once."""
    entry = Entry(asked.chain, "asked", _body(asked), "new")
    try:
        world.journal.write([entry])
    except FencedError:
        return _asked(world, asked.chain) or asked
    return asked


def make(
    world: World, run: int, question: Question, note: str, resource: str, operation: str
) -> Asked:
    """Return a question as it is asked now."""
    now = world.clock.now()
    expires = now + timedelta(seconds=question.expires_s)
    return Asked(
        run, question, note, resource, operation, world.person, time_text(now), time_text(expires)
    )


def open_questions(world: World) -> tuple[Asked, ...]:
    """Return what living runs ask now, the oldest first."""
    found = [
        asked
        for chain in world.journal.open_chains(PREFIX)
        if (asked := _open(world, chain)) is not None
        and world.locks.holder(asked.resource) is not None
    ]
    return tuple(sorted(found, key=lambda asked: asked.asked_at))


def answer(
    world: World,
    declared: Declared,
    run: int,
    name: str,
    value: str,
    key: Callable[[], Path],
    *,
    refused: bool = False,
    because: str = "",
) -> Answer:
    """Answer a question, or refuse to.

    Args:
        world: the ports.
        declared: for the groups of the policy.
        run: number of the run.
        name: of the question.
        value: as its type wants it; empty where it is refused.
        key: gives the private SSH key, or the public one of a key that an agent holds; asked where
            there is an `allowed_signers`.
        refused: there will be no answer: the script goes on with a failure.
        because: why, for those who read it later.

    Raises:
        UsageError: no such question is open, or the value is not one that it allows.
        RefusedError: the person may not answer it, or somebody has.
        KeysError: the key cannot be used, or belongs to nobody who is allowed.
    """
    if not world.allowed_signers.exists():
        unsigned = prepare(world, declared, run, name, value, refused=refused, because=because)
        return accept(world, declared, unsigned)
    own = key()
    people = signing.people_of(world, own)
    asked, unsigned = _unsigned(world, declared, (run, name), people, value, refused, because)
    signature = world.keys.sign(payload(asked, unsigned), own)
    return accept(world, declared, replace(unsigned, signature=signature))


def prepare(
    world: World,
    declared: Declared,
    run: int,
    name: str,
    value: str,
    *,
    refused: bool = False,
    because: str = "",
) -> Answer:
    """Return the answer of `world.person` without its signature, for a key that lies elsewhere.

    Raises:
        UsageError, RefusedError: as `answer`.
    """
    return draft(world, declared, run, name, value, refused=refused, because=because)[1]


def draft(
    world: World,
    declared: Declared,
    run: int,
    name: str,
    value: str,
    *,
    refused: bool = False,
    because: str = "",
) -> tuple[Asked, Answer]:
    """Return what `prepare` does, with the question that it answers.

    Raises:
        UsageError, RefusedError: as `answer`.
    """
    people = (world.person,)
    return _unsigned(world, declared, (run, name), people, value, refused, because)


def accept(world: World, declared: Declared, said: Answer) -> Answer:
    """Record an answer that is signed.

    Raises:
        UsageError, RefusedError, KeysError: as `answer`.
    """
    asked, anew = _unsigned(
        world, declared, (said.run, said.name), (said.person,), said.value, said.refused,
        said.because,
    )  # fmt: skip
    if replace(anew, made_at=said.made_at, signature=said.signature) != said:
        raise RefusedError("plan.stale", "this answer is not what was to be signed")
    if world.allowed_signers.exists():
        signing.insist(world, payload(asked, said), said.signature, said.person)
    last = world.journal.last(asked.chain)
    try:
        world.journal.write(
            [Entry(asked.chain, "answered", _body(said), last.hash if last else "new")]
        )
    except FencedError as error:
        raise _not_open(world, said.run, said.name) from error
    return said


def payload(asked: Asked, said: Answer) -> bytes:
    """Return the bytes that an answer signs: the question as it was asked, and what is said."""
    body = {name: value for name, value in _body(said).items() if name != "signature"}
    return signing.payload({"asked": plain(asked), "answers": body})


def taken(
    world: World, policy: Policy, asked: Asked, *, is_late: bool = False
) -> tuple[str, Answer | None] | None:
    """Return what the script is to be told: `answer`, `refused` or `expired`; None to wait on.

    Only the run that asked calls this. Records what it finds to be over.

    Args:
        world: the ports.
        policy: for the groups.
        asked: as it was recorded.
        is_late: whether its time is over by a clock that nobody sets back.
    """
    last = world.journal.last(asked.chain)
    if last is None or last.kind == "expired":
        return "expired", None
    if last.kind == "answered":
        said = records.decode(records.body(last), Answer)
        why = _unfit(world, policy, asked, said)
        if not why:
            return ("refused" if said.refused else "answer"), said
        _write(world, asked, "rejected", {"person": said.person, "why": why}, last)
        return None
    if not is_late and time_text(world.clock.now()) < asked.expires_at:
        return None
    return ("expired", None) if _write(world, asked, "expired", {}, last) else None


def clear(world: World, run: int) -> None:
    """Close the questions of a run that has ended. Twice equals once."""
    for chain in world.journal.open_chains(f"{PREFIX}{run}-"):
        asked = _open(world, chain)
        last = world.journal.last(chain)
        if asked is not None and last is not None:
            _write(world, asked, "over", {}, last)
        world.journal.close(chain)


def _write(world: World, asked: Asked, kind: str, body: Mapping[str, object], last: Record) -> bool:
    """Write the next record of a question; False where somebody was first."""
    try:
        world.journal.write([Entry(asked.chain, kind, body, last.hash)])
    except FencedError:
        return False
    return True


def _unfit(world: World, policy: Policy, asked: Asked, said: Answer) -> str:
    """Return why an answer does not count by now; empty when it does."""
    if not (said.refused or questions.fits(asked.question, said.value)):
        return "it is not what the question allows"
    if asked.question.by and said.person not in policy.groups.get(asked.question.by, ()):
        return f"{said.person} is not in `{asked.question.by}`"
    now = time_text(world.clock.now())
    is_signed = signing.is_signed(world, payload(asked, said), said.signature, said.person, now)
    if world.allowed_signers.exists() and not is_signed:
        return f"its signature is not one of {said.person}, by the keys of today"
    return ""


def _unsigned(
    world: World,
    declared: Declared,
    what: tuple[int, str],
    people: Sequence[str],
    value: str,
    refused: bool,  # noqa: FBT001  as the answer has it
    because: str,
) -> tuple[Asked, Answer]:
    asked = _find(world, *what)
    person = _person(declared.policy, asked.question, people)
    if not refused:
        questions.insist(asked.question, value)
    now = time_text(world.clock.now())
    said = Answer(asked.run, asked.question.name, "" if refused else value, person, now, refused)
    return asked, replace(said, because=because)


def _find(world: World, run: int, name: str) -> Asked:
    found = _open(world, chain_of(run, name))
    now = time_text(world.clock.now())
    if found is None or now >= found.expires_at or world.locks.holder(found.resource) is None:
        raise _not_open(world, run, name)
    return found


def _not_open(world: World, run: int, name: str) -> UsageError:
    """Return why a question cannot be answered (any more)."""
    last = world.journal.last(chain_of(run, name))
    if last is not None and last.kind == "answered":
        said = records.decode(records.body(last), Answer)
        what = "refused to answer" if said.refused else f"answered `{said.value}`"
        return UsageError("question.answered", f"{said.person} has {what}: `{name}` of run {run}")
    if last is not None:
        said_of = {"expired": "has expired", "over": "is over: the run has ended"}
        why = said_of.get(last.kind, "is not asked any more")
        return UsageError("question.answered", f"question `{name}` of run {run} {why}")
    asked = [one for one in open_questions(world) if one.run == run]
    hint = nearest(name, [one.question.name for one in asked]) if asked else "handrail"
    return UsageError("question.unknown", f"run {run} asks no question `{name}`", hint=hint)


def _person(policy: Policy, question: Question, people: Sequence[str]) -> str:
    members = policy.groups.get(question.by, ())
    allowed = [person for person in people if person and (not question.by or person in members)]
    if allowed:
        return allowed[0]
    if not any(people):
        raise KeysError(
            "keys.not-allowed",
            "nobody knows who you are, and an answer is somebody's",
            hint="git config user.email NAME@EXAMPLE.ORG",
        )
    raise RefusedError(
        "keys.not-allowed",
        f"{people[0]} is not in `{question.by}`, who answer `{question.name}`",
        hint=f"ask one of {', '.join(members)}",
    )


def _open(world: World, chain: str) -> Asked | None:
    """Return the question of a chain while it waits; None when it does not."""
    last = world.journal.last(chain)
    return _asked(world, chain) if last is not None and last.kind in _OPEN else None


def _asked(world: World, chain: str) -> Asked | None:
    for record in world.journal.records(chain):
        return records.decode(records.body(record), Asked) if record.kind == "asked" else None
    return None


def _body(value: object) -> dict[str, object]:
    body = plain(value)
    if not isinstance(body, dict):
        raise TypeError("a record is a mapping")
    return body
