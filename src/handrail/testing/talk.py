"""Somebody to talk to who keeps what was said, and answers as a test decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class QuietTalk:
    """`core.world.Talk` that shows nothing.

    Attributes:
        answers: what `choose` gives, in order; when they are used up, nobody is there.
        begun: stages in the order of their beginning.
        ended: stage, text and whether it went well, in the order of their ends.
        printed: everything that scripts printed.
        asked: the questions.
    """

    answers: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    ended: list[tuple[str, str, bool]] = field(default_factory=list)
    printed: bytes = b""
    asked: list[str] = field(default_factory=list)

    def begin(self, stage: str, text: str) -> None:  # noqa: ARG002  the port's
        """Keep that a stage has begun."""
        self.begun.append(stage)

    def progress(self, done: int, total: int | None) -> None:
        """Keep nothing."""

    def output(self, piece: bytes) -> None:
        """Keep what a script printed."""
        self.printed += piece

    def end(self, stage: str, text: str, *, ok: bool = True) -> None:
        """Keep how a stage ended."""
        self.ended.append((stage, text, ok))

    def choose(self, question: str, choices: Mapping[str, str], otherwise: str) -> str:
        """Return the next answer, which must be one of `choices`."""
        self.asked.append(question)
        if not self.answers:
            return otherwise
        answer = self.answers.pop(0)
        if answer not in choices:
            raise AssertionError(f"{answer!r} is none of {', '.join(choices)}")
        return answer
