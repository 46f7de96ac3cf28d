"""Walking: what the marks of a walk amount to, and what comes next. Pure.

Rules:
- Told by the journal alone: an engine that took a run up a moment ago knows what the first one did.
- A step that is begun and not ended is unknown once its engine is dead; never done twice for that.
- Nothing new begins while a walk is held, cancelled, over its bounds, or has an open question.
- Undoing goes in reverse order, over what was done, or may have been; never what did not begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from handrail.plans.walk import Walk


@dataclass(frozen=True)
class StepStanding:
    """Where one step stands.

    Attributes:
        state: `waiting`, `begun`, `done`, `failed`, `unknown`, `undoing`, `undone`, `undo-failed`.
        attempts: how often it was begun.
        why: as told by what ended it.
        body: what it last returned.
    """

    state: str = "waiting"
    attempts: int = 0
    why: str = ""
    body: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """Where a walk stands.

    Attributes:
        walk: as it was opened.
        state: `waiting` (for a signal or a time), `running`, `soaking`, `held` (for a human),
            `undoing` or `ended`.
        steps: by `target/name`.
        wave: of its waves, the present one, from 0.
        outcome: how it ended; empty while it has not: `done`, `failed`, `undone`, `cancelled`,
            `expired`, `refused`.
        why: one sentence for people.
        wakes_at: when it goes on by itself, ISO 8601 UTC; empty where only a word helps.
        awaits: names of the words that it waits for.
    """

    walk: Walk
    state: str
    steps: Mapping[str, StepStanding] = field(default_factory=dict)
    wave: int = 0
    outcome: str = ""
    why: str = ""
    wakes_at: str = ""
    awaits: tuple[str, ...] = ()
