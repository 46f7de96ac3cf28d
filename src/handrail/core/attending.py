"""Attending: while a script runs, somebody looks whether it asks, and brings it the answers.

Rules:
- A thread looks; the script's own process waits. Nothing of it is left when the script has ended.
- What was given beforehand (`-p`) is answered at once, in a rehearsal and in a run alike. What was
  not, a rehearsal answers with the declared default, and a run with what a person says.
- When the journal fails, the asking fails: nothing is answered that is not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from handrail.core import asking
from handrail.core.asking import Asked
from handrail.core.desk import Desk
from handrail.core.world import Talk, World
from handrail.errors import HandrailError
from handrail.operations.model import Question
from handrail.plans.policy import Policy

LOOK_S = 0.2
# What a script is told, and by whom; None to wait on.
Reply = tuple[str, str, str] | None


@dataclass
class Clerk:
    """Whoever answers one script.

    Attributes:
        questions: that it may ask.
        given: answers that were given beforehand.
        reply: what a question is answered with that was not.
        note: records that a question was answered: kind, name, value, person.
        failure: what went wrong while nobody could be told.
    """

    questions: Sequence[Question]
    given: Mapping[str, str]
    reply: Callable[[Question, str], Reply]
    note: Callable[[str, str, str, str], None]
    failure: HandrailError | None = None
    _done: set[str] = field(default_factory=set)

    def look(self, desk: Desk) -> None:
        """Answer what is asked and can be answered now."""
        for question in self.questions:
            said = None if question.name in self._done else desk.asked(question.name)
            if said is None:
                continue
            try:
                reply = self._reply(question, said)
                if reply is not None:
                    self.note(reply[0], question.name, reply[1], reply[2])
            except HandrailError as error:
                self.failure = self.failure or error
                reply = ("refused", "it could not be recorded", "")
            if reply is not None:
                self._done.add(question.name)
                desk.answer(question.name, reply[0], reply[1])

    def _reply(self, question: Question, said: str) -> Reply:
        if question.name in self.given:
            return "answer", self.given[question.name], "given beforehand"
        return self.reply(question, said)


@contextmanager
def attending(home: Path, clerk: Clerk) -> Iterator[None]:
    """Look after the script with that home for the time of a `with`.

    Raises:
        HandrailError: what went wrong meanwhile, once the script has ended.
    """
    if not clerk.questions:
        yield
        return
    is_over = Event()
    with Desk(home, [question.name for question in clerk.questions]) as desk:
        thread = Thread(target=_attend, args=(desk, clerk, is_over), name="clerk", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
    if clerk.failure is not None:
        raise clerk.failure


def _attend(desk: Desk, clerk: Clerk, is_over: Event) -> None:
    try:
        while not is_over.wait(LOOK_S):
            clerk.look(desk)
    finally:
        desk.close()  # a defect here must not leave a script waiting


def by_default(question: Question, said: str) -> Reply:
    """Answer as a rehearsal does: with the declared default, or not at all."""
    del said
    if question.default is None:
        why = f"no rehearsal can answer it: give -p {question.name}=..., or declare a default"
        return "refused", why, ""
    return "answer", question.default, "default"


def by_people(
    world: World,
    policy: Policy,
    run: int,
    resource: str,
    operation: str,
    talk: Talk,
    note: Callable[[Asked], None],
) -> Callable[[Question, str], Reply]:
    """Return how a run's questions are answered: as people say, in the journal.

    Args:
        world: the ports.
        policy: for the groups.
        run: its number.
        resource: whose lock it holds.
        operation: its name.
        talk: told what is asked, and answered.
        note: records in the run that it asks.
    """
    asked: dict[str, Asked] = {}
    since_s: dict[str, float] = {}

    def reply(question: Question, said: str) -> Reply:
        if question.name not in asked:
            made = asking.make(world, run, question, said, resource, operation)
            asked[question.name] = asking.ask(world, made)
            note(asked[question.name])
            since_s[question.name] = world.clock.elapsed_s()
            besides = f" ({said})" if said else ""
            talk.begin("ask", f"{question.text}{besides}  handrail answer {run} {question.name} ..")
        one = asked[question.name]
        # A wall clock that was set back lets nobody wait for longer.
        is_late = world.clock.elapsed_s() - since_s[question.name] >= question.expires_s
        told = asking.taken(world, policy, one, is_late=is_late)
        if told is None:
            return None
        kind, answer = told
        value, person = (answer.value, answer.person) if answer else ("", "")
        talk.end("ask", f"{question.name}: {value or kind}, {person or 'nobody'}", ok=bool(value))
        return kind, value, person

    return reply
