"""Where a walk stands, as values; and the ground plan that a walk's marks are counted on.

Rules:
- `Standing` is what people and programs are shown. `Course` is what it is made from, and what an
  engine keeps: a value too, of which the next one is made without copying a walk of 100,000 steps.
- Lanes are numbered in the order of the waves, steps in the order of the lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from handrail.plans.walk import Lane, Walk, WalkStep, step_id

# Steps are kept in pieces of so many: one changes, and the others are shared.
_PIECE = 256
# What is counted together: `("site", "berlin")`.
Member = tuple[str, str]


@dataclass(frozen=True, slots=True)
class StepStanding:
    """Where one step stands.

    Attributes:
        state: `waiting`; `begun`; `later` (it goes on at a time), `asked`, `answered`; `cut-off`
            (its engine died while it acted: not yet found out); `done`, `failed`, `unknown`;
            `again` (it failed, and waits for its next attempt); `undoing`, `undo-cut-off`,
            `undone`, `undo-failed`, `undo-unknown`.
        attempts: how often it was begun.
        why: as told by what ended it.
        body: what it last returned.
        again_at: when it goes on by itself, ISO 8601 UTC.
        order: of its last mark in the walk; what ended later has the larger one.
    """

    state: str = "waiting"
    attempts: int = 0
    why: str = ""
    body: Mapping[str, object] = field(default_factory=dict)
    again_at: str = ""
    order: int = 0


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
            `expired`.
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


class Layout:
    """A walk with its numbers: made once a walk, and never changed.

    Attributes:
        walk: itself.
        lanes: in the order of the waves.
        steps: of all lanes, in their order.
        ids: of the steps.
        numbers: of the steps, by id.
        lane_of: number of a step's lane.
        first: number of a lane's first step; one more at the end.
        queues: of each wave: lanes that are counted under the same members, in order.
        members: of each lane, where the bounds count them at once.
    """

    def __init__(self, walk: Walk) -> None:
        by_target = {lane.target: lane for lane in walk.lanes}
        self.walk = walk
        self.lanes: tuple[Lane, ...] = tuple(
            by_target[target] for wave in walk.waves for target in wave.targets
        )
        self.steps: tuple[WalkStep, ...] = tuple(s for lane in self.lanes for s in lane.steps)
        self.ids = tuple(step_id(lane.target, s.name) for lane in self.lanes for s in lane.steps)
        self.numbers = {name: number for number, name in enumerate(self.ids)}
        self.lane_of = tuple(n for n, lane in enumerate(self.lanes) for _ in lane.steps)
        first = [0]
        for lane in self.lanes:
            first.append(first[-1] + len(lane.steps))
        self.first = tuple(first)
        kinds = tuple(sorted(walk.bounds.at_once_per))
        self.members = tuple(_members(lane, kinds) for lane in self.lanes)
        self.queues = self._queues()

    def _queues(self) -> tuple[Mapping[tuple[Member, ...], tuple[int, ...]], ...]:
        found, lane = [], 0
        for wave in self.walk.waves:
            queues: dict[tuple[Member, ...], list[int]] = {}
            for _ in wave.targets:
                queues.setdefault(self.members[lane], []).append(lane)
                lane += 1
            found.append({members: tuple(lanes) for members, lanes in queues.items()})
        return tuple(found)


def _members(lane: Lane, kinds: tuple[str, ...]) -> tuple[Member, ...]:
    return tuple((kind, lane.groups[kind]) for kind in kinds if kind in lane.groups)


class Steps(Mapping[str, StepStanding]):
    """Where each step stands, by id; never changed: `put` returns another one."""

    __slots__ = ("_layout", "_pieces")

    def __init__(
        self, layout: Layout, pieces: tuple[tuple[StepStanding, ...], ...] | None = None
    ) -> None:
        """Begin with every step waiting."""
        self._layout = layout
        if pieces is None:
            waiting, count = StepStanding(), len(layout.ids)
            pieces = tuple((waiting,) * min(_PIECE, count - at) for at in range(0, count, _PIECE))
        self._pieces = pieces

    def at(self, number: int) -> StepStanding:
        """Return where the step of that number stands."""
        return self._pieces[number // _PIECE][number % _PIECE]

    def put(self, number: int, one: StepStanding) -> Steps:
        """Return the same, but for the step of that number."""
        at, inside = divmod(number, _PIECE)
        piece = list(self._pieces[at])
        piece[inside] = one
        pieces = list(self._pieces)
        pieces[at] = tuple(piece)
        return Steps(self._layout, tuple(pieces))

    def numbered(self) -> Iterator[tuple[int, StepStanding]]:
        """Yield every step's number and where it stands."""
        return enumerate(one for piece in self._pieces for one in piece)

    def __getitem__(self, name: str) -> StepStanding:
        return self.at(self._layout.numbers[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.ids)

    def __len__(self) -> int:
        return len(self._layout.ids)


_NO_LANES: Mapping[int, int] = MappingProxyType({})
_NO_HEADS: Mapping[tuple[Member, ...], int] = MappingProxyType({})
_NO_FAILURES: Mapping[Member, int] = MappingProxyType({})


class Course(NamedTuple):  # of all frozen values, the one that is changed soonest
    """A walk as far as its marks tell.

    Attributes:
        layout: the walk with its numbers.
        steps: where each step stands.
        marks: how many there were.
        latest: the latest time of them: no clock that was set back makes it earlier.
        wave: the present one; -1 before the first has begun.
        heads: lanes of the present wave that have begun, by queue.
        again: lanes that go again, before those that never began.
        lanes: that are under way: number, and the number of the step that is next or acts.
        failures: lanes that failed since somebody last said what to do about them.
        failures_per: the same by member.
        cut_off: steps that were acting when the walk was taken up.
        asked: steps that wait for an answer.
        hold: why nothing new begins; empty where it may.
        cause: of the hold: `paused`, `cancelled`, `failures`, `unknown`.
        is_noted: whether the hold has its mark.
        is_undoing: whether it is being undone.
        undo_line: steps to undo, in order; None while that is not known yet.
        undo_next: place in the line.
        undo_lanes: lanes where a step is being undone, and which.
        stuck: lanes where an undo failed: what came before it there is left alone.
        heard: ids of the signals so far.
        words: names of the awaited ones.
        is_expired: whether what had not begun by its time never will.
        is_left: whether somebody takes it as it stands.
        soak_until: of the present wave, once it is done.
        outcome: how it ended.
        why: one sentence.
    """

    layout: Layout
    steps: Steps
    marks: int = 0
    latest: str = ""
    wave: int = -1
    heads: Mapping[tuple[Member, ...], int] = _NO_HEADS
    again: tuple[int, ...] = ()
    lanes: Mapping[int, int] = _NO_LANES
    failures: int = 0
    failures_per: Mapping[Member, int] = _NO_FAILURES
    cut_off: frozenset[int] = frozenset()
    asked: frozenset[int] = frozenset()
    hold: str = ""
    cause: str = ""
    is_noted: bool = False
    is_undoing: bool = False
    undo_line: tuple[int, ...] | None = None
    undo_next: int = 0
    undo_lanes: Mapping[int, int] = _NO_LANES
    stuck: frozenset[int] = frozenset()
    heard: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    is_expired: bool = False
    is_left: bool = False
    soak_until: str = ""
    outcome: str = ""
    why: str = ""
