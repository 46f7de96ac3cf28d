"""An engine that does one thing after the other, in fake time, and dies where a test says.

Rules:
- It decides nothing: `plans/moving.py` says what comes next. What it writes is what every engine
  writes, in the same chain, so that whoever reads a walk reads this one.
- Time passes only when there is nothing else to do: it is then as late as the walk waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from handrail.core.acting import act_on
from handrail.plans.hearing import heard
from handrail.plans.moving import Acting, Note, Wake, before, call, moves, show
from handrail.plans.standing import Course, Standing
from handrail.plans.walk import Mark, Signal, Walk
from handrail.plans.walk_records import mark_body, opened_mark, read_mark, walk_chain
from handrail.plans.walking import course
from handrail.ports import Act, Journal
from handrail.testing.clock import FakeClock


class Died(Exception):  # noqa: N818  no error: what a test asked for
    """The engine is gone, in the middle of something."""


class Simulated:
    """One walk and who drives it.

    Attributes:
        dies: told each mark before it is written; returns whether the engine dies just then.
        is_over: whether steps are asked to end.
    """

    def __init__(
        self, journal: Journal, clock: FakeClock, acts: Mapping[str, Act], walk: Walk
    ) -> None:
        self._journal, self._clock, self._acts, self._walk = journal, clock, acts, walk
        self.number = journal.open_run()
        self.dies: Callable[[Mark], bool] = lambda _: False
        self.is_over: Callable[[], bool] = lambda: False
        self._write(opened_mark(walk, 0))

    @property
    def chain(self) -> str:
        """The chain of its marks."""
        return walk_chain(self.number)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What was written so far."""
        found = self._journal.records(self.chain)
        return tuple(read_mark(one.kind, one.time, one.body) for one in found)

    @property
    def course(self) -> Course:
        """How far it is."""
        return course(self._walk, self.marks)

    def told(self, kind: str) -> list[str]:
        """Return the targets that marks of a kind are about, in order."""
        return [mark.step.rpartition("/")[0] for mark in self.marks if mark.kind == kind]

    def say(self, word: str, body: Mapping[str, Any] | None = None) -> None:
        """Say a word to it, as Ana; it must count."""
        name = f"{word}-{len(self.marks)}"
        mark = heard(self.course, Signal(name, word, "ana", self._walk.digest, body or {}))
        assert "ignored" not in mark.body, mark.body["ignored"]
        self._write(mark)

    def go(self) -> Standing:
        """Take it up, and drive it until it has ended or only a human helps.

        Raises:
            Died: where `dies` said so.
        """
        self._write(Mark("taken"))
        while True:
            found = moves(self.course, self._clock.now())
            acting = [move for move in found if isinstance(move, Acting)]
            notes = [move for move in found if isinstance(move, Note)]
            wakes = [move.at for move in found if isinstance(move, Wake)]
            if notes:
                self._write(notes[0].mark)
            elif acting:
                self._act(acting[0])
            elif wakes:
                left = datetime.fromisoformat(min(wakes)) - self._clock.now()
                self._clock.advance(max(left.total_seconds(), 0))
            else:
                return show(self.course, self._clock.now())

    def _act(self, move: Acting) -> None:
        mark = before(move)
        if mark is not None:
            self._write(mark)
        told = call(self.course, move)
        self._write(act_on(self._acts, self.number, move, told, self.is_over))

    def _write(self, mark: Mark) -> None:
        if self.dies(mark):
            raise Died(mark.kind)
        self._journal.append(self.chain, mark.kind, mark_body(mark))
