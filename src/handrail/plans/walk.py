"""A walk: a plan's steps over lanes, in waves, as data that any engine can go on with.

Rules:
- A step's identity is its lane and its name: nothing is told apart by the order of calls, and no
  code of a user's is played again.
- What happened is a list of marks, from the journal; `walking.py` says what they amount to, and
  what comes next. Both are pure, and the same under every engine.
- No value here holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FORMAT = 1
Recovery = Literal["retry", "check", "ask"]


@dataclass(frozen=True)
class WalkStep:
    """The smallest journalled act on one lane.

    Attributes:
        name: unique in its lane.
        act: which act does it, by its name in the registry: `run`, `watch`, `script`.
        body: what the act is given: JSON values.
        recovery: what is done when nobody knows whether it happened: `retry` it (twice equals
            once), `check` it (the act can tell), or `ask` a human.
        undo: whether the act can undo it; else why not is told by the plan.
    """

    name: str
    act: str
    body: Mapping[str, object] = field(default_factory=dict)
    recovery: Recovery = "ask"
    undo: bool = True


@dataclass(frozen=True)
class Lane:
    """One target with its steps, done in order.

    Attributes:
        target: the resource, `store/pilot-db`; unique in the walk.
        steps: in order; a failed one ends the lane.
        groups: what it is counted under for limits, kind to name: `{site: berlin}`.
    """

    target: str
    steps: tuple[WalkStep, ...]
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wave:
    """Lanes that go together, and how long they are left alone afterwards.

    Attributes:
        name: `canary`, `10%`, `rest`.
        targets: of its lanes, in the order of beginning.
        soak_s: after its last lane is done, before the next wave begins.
    """

    name: str
    targets: tuple[str, ...]
    soak_s: int = 0


@dataclass(frozen=True)
class Bounds:
    """How much may go at once, and how much may fail.

    Attributes:
        at_once: lanes that are under way at once.
        at_once_per: the same for each member of a group: `{site: 2}`.
        failures: failed lanes that are borne; one more stops the walk.
        failures_per: the same for each member of a group.
        then: what stopping means: `hold` for a human, or `undo` what was done.
    """

    at_once: int = 10
    at_once_per: Mapping[str, int] = field(default_factory=dict)
    failures: int = 0
    failures_per: Mapping[str, int] = field(default_factory=dict)
    then: Literal["hold", "undo"] = "hold"


@dataclass(frozen=True)
class Walk:
    """Everything that an engine needs to know of one run over many lanes.

    Attributes:
        digest: of the plan that was approved; for people and for approvals.
        title: one line for people.
        person: who asked for it.
        lanes: every one, each target once.
        waves: each lane in exactly one.
        awaits: names of signals that must have come before anything begins: `approval`.
        begins_at: not before this time, ISO 8601 UTC; empty for at once.
        expires_at: what has not begun by then never does; empty for never.
    """

    digest: str
    title: str
    person: str
    lanes: tuple[Lane, ...]
    waves: tuple[Wave, ...]
    bounds: Bounds = field(default_factory=Bounds)
    awaits: tuple[str, ...] = ()
    begins_at: str = ""
    expires_at: str = ""
    format: int = FORMAT


@dataclass(frozen=True)
class Signal:
    """A word to a run, from a person or a program.

    Attributes:
        id: given twice, it counts once.
        name: `approval`, `resume`, `rerun`, `undo`, `accept`, `pause`, `cancel`, `answer`.
        person: who says so; empty for a program.
        digest: of the plan that is meant: one for another plan is refused.
        body: more: `{step: store/a/run}`, `{question: ..., answer: ...}`.
        time: when it was given, ISO 8601 UTC.
    """

    id: str
    name: str
    person: str
    digest: str
    body: Mapping[str, object] = field(default_factory=dict)
    time: str = ""


@dataclass(frozen=True)
class Mark:
    """One record of a walk, as the journal has it.

    Attributes:
        kind: what happened: a key of `KINDS`.
        step: `target/name`; empty where no single step is meant.
        time: ISO 8601 UTC.
        body: more of it.
    """

    kind: str
    step: str = ""
    time: str = ""
    body: Mapping[str, object] = field(default_factory=dict)


# What a walk's chain in the journal holds, in the words of its reader.
KINDS: Mapping[str, str] = {
    "opened": "the walk itself, whole",
    "taken": "an engine took it up, or one step whose worker died",
    "signal": "a word was heard",
    "wave-begun": "a wave begins",
    "begun": "a step is about to act: from here on nobody knows, until the next mark of it",
    "later": "it goes on at a time, and holds nothing until then",
    "done": "it acted, and that is over",
    "failed": "it ended badly",
    "unknown": "its engine died while it acted, and nobody can tell what became of it",
    "checked": "what became of it was found out: it happened, or it never did",
    "soaking": "a wave is done, and is left alone until a time",
    "asked": "a question is open",
    "held": "it waits for a human",
    "undo-begun": "a step is about to be undone",
    "undo-done": "it is undone",
    "undo-failed": "its undo ended badly",
    "undo-unknown": "its engine died while it was undone",
    "expired": "what has not begun by now never does",
    "ended": "how the walk ended",
}


def step_id(target: str, name: str) -> str:
    """Return a step's identity in its walk."""
    return f"{target}/{name}"
