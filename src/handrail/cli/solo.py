"""The terminal while one operation of a kit runs, and how it ended: a walk of one lane.

Rules:
- Its own words (`web 2/3 healthy`) are said once each; what rewrites itself stands below them.
- What is shown comes from the walk's marks: the same on every engine, and from a server.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.plans.standing import Standing
    from handrail.plans.walk import Mark, Walk

OVER = {"done", "failed", "undo-done", "undo-failed"}


def is_meant(walk: Walk) -> bool:
    """Whether a walk is one operation of a kit on one target."""
    from handrail.plans.fan_out import KIT_ACT

    return len(walk.lanes) == 1 and walk.lanes[0].steps[-1].act == KIT_ACT


class Solo:
    """Tells of one operation: a line for each thing that it says, one for each stage that ended."""

    def __init__(self, call: Call, walk: Walk) -> None:
        self._talk = call.talk
        self._operation = walk.title.partition(" on ")[0]
        self._lock = threading.Lock()
        self._said = ""
        self._stage = ""
        self._passed_s = 0

    def told(self, mark: Mark) -> None:
        """Show what a mark says."""
        if not mark.step:
            return
        with self._lock:
            kept = mark.body.get("body")
            if mark.kind == "later" and isinstance(kept, Mapping):
                self._later(kept)
            elif mark.kind == "done":
                self._watched()
                self._talk.below(())
                self._talk.end("watch", str(mark.body.get("why", "")).rpartition("; ")[2])
            elif mark.kind in OVER:
                self._talk.below(())
            if mark.kind in {"undo-done", "undo-failed"}:
                is_done = mark.kind == "undo-done"
                self._talk.end("undo", str(mark.body.get("why", "")), ok=is_done)

    def _later(self, kept: Mapping[str, Any]) -> None:
        stage = str(kept.get("stage", ""))
        if stage == "watching":
            self._watched()
            self._below("watch", f"{float(kept.get('soaked_s', 0)):.0f} s healthy")
        else:
            self._below(self._operation, self._said)
        self._stage = stage

    def _watched(self) -> None:
        """Say that what was begun is there, once."""
        if self._stage != "watching":
            self._talk.end(self._operation, "done, as its platform says")
        self._stage = "watching"

    def _below(self, stage: str, text: str) -> None:
        passed = f"   {self._passed_s} s" if self._passed_s and stage != "watch" else ""
        self._talk.below([f"  ..  {stage:<9} {text}{passed}".rstrip()])

    def talk_to(self, target: str) -> Solo:
        """Return who is told: there is one target alone."""
        del target
        return self

    def begin(self, stage: str, text: str) -> None:
        """Say nothing: the line of the stage says it."""

    def progress(self, done: int, total: int | None) -> None:
        """Note how long it has been followed."""
        del total
        with self._lock:
            self._passed_s = done
            self._below(self._operation, self._said)

    def output(self, piece: bytes) -> None:
        """Pass on what is new of what it says."""
        for line in piece.splitlines():
            text = line.decode("utf-8", "replace").strip()
            with self._lock:
                if text and text != self._said:
                    self._said = text
                    self._talk.output(line + b"\n")

    def end(self, stage: str, text: str, *, ok: bool = True) -> None:
        """Say what is wrong; what is right is told by marks."""
        if not ok:
            with self._lock:
                if stage == "watch":
                    self._watched()
                self._talk.end(stage, text, ok=False)

    def choose(self, question: str, choices: Mapping[str, str], otherwise: str) -> str:
        """Ask nobody: it runs in a thread of the engine."""
        del question, choices
        return otherwise

    def clear(self) -> None:
        """Leave no half line behind."""
        self._talk.below(())


def lines(call: Call, number: int, stands: Standing) -> list[str]:
    """Return how it ended, and what can be done about it."""
    from handrail.cli import screen
    from handrail.core import walks

    (lane,) = walks.lanes(stands)
    said = [screen.wrap(f"{walks.outcome(stands)}: run {number}. {lane.why}.", "  ")]
    if stands.outcome == "done":
        until = call.world.clock.now() + timedelta(seconds=call.declared.policy.undo_age_s)
        said.append(f"undo until {until:%Y-%m-%d %H:%M} UTC: handrail undo {number}")
    else:
        said.append(f"more: handrail runs show {number}")
    return said
