"""Walks put together at random, and an engine of no threads that is killed at any mark.

Rules:
- The engine does what `moves` says and nothing else; what it wrote is all that survives it.
- Beside the marks there is the truth: how often a step really acted, and was undone.
- What must never happen is looked for at each mark, not at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from handrail.plans.canonical import time_text
from handrail.plans.hearing import heard
from handrail.plans.moving import (
    Acting,
    Await,
    Check,
    Do,
    Note,
    Undo,
    Wake,
    after,
    before,
    moves,
    show,
)
from handrail.plans.standing import Course
from handrail.plans.walk import Bounds, Lane, Mark, Signal, Walk, WalkStep, Wave
from handrail.plans.walking import course, opened, step

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
DIGEST = "d" * 64
_PATIENCE = 3_000


def simple_walk(
    lanes: int = 3,
    steps: int = 2,
    *,
    waves: Sequence[int] = (),
    soak_s: int = 0,
    recovery: str = "ask",
    act: str = "fake",
    bounds: Bounds | None = None,
    **more: object,
) -> Walk:
    """Return a walk over `store/0`, `store/1` ..., with the steps `s0`, `s1` ..."""
    every = tuple(
        Lane(
            f"store/{n}",
            tuple(WalkStep(f"s{i}", act, {}, recovery) for i in range(steps)),  # type: ignore[arg-type]  # given as text
            {"site": f"site-{n % 2}"},
        )
        for n in range(lanes)
    )
    targets = [lane.target for lane in every]
    found, at = [], 0
    for number, size in enumerate(waves or (lanes,)):
        found.append(Wave(f"wave {number}", tuple(targets[at : at + size]), soak_s))
        at += size
    return Walk(
        DIGEST,
        "a walk",
        "ana",
        every,
        tuple(found),
        bounds or Bounds(),
        **more,  # type: ignore[arg-type]  # as the test says
    )


def random_walk(random: Random) -> Walk:
    """Return any walk of a few lanes."""
    count = random.randint(1, 6)
    lanes = [
        Lane(
            f"store/{n}",
            tuple(
                WalkStep(
                    f"s{i}",
                    "fake",
                    {},
                    random.choice(["retry", "check", "ask"]),
                    undo=random.random() < 0.9,
                )
                for i in range(random.randint(1, 3))
            ),
            {"site": random.choice("ab")} if random.random() < 0.8 else {},
        )
        for n in range(count)
    ]
    cuts = sorted({random.randint(1, count) for _ in range(random.randint(0, 2))} | {count})
    waves, first = [], 0
    for cut in cuts:
        targets = tuple(lane.target for lane in lanes[first:cut])
        waves.append(Wave(f"to {cut}", targets, random.choice([0, 0, 60])))
        first = cut
    bounds = Bounds(
        random.randint(1, 4),
        {"site": random.randint(1, 2)} if random.random() < 0.5 else {},
        random.randint(0, 2),
        {"site": random.randint(0, 1)} if random.random() < 0.3 else {},
        random.choice(["hold", "hold", "undo"]),
    )
    random.shuffle(lanes)
    expires = time_text(START + timedelta(seconds=random.choice([5, 600, 10**6])))
    return Walk(
        DIGEST,
        "a walk",
        "ana",
        tuple(lanes),
        tuple(waves),
        bounds,
        ("approval",) if random.random() < 0.3 else (),
        time_text(START + timedelta(seconds=30)) if random.random() < 0.2 else "",
        expires if random.random() < 0.3 else "",
    )


class Game:
    """One walk under an engine that may die at any time, and a human who answers."""

    def __init__(self, walk: Walk, random: Random, *, deaths: int = 6) -> None:
        self.walk, self.random, self.deaths = walk, random, deaths
        self.marks: list[Mark] = []
        self.course: Course = opened(walk)
        self.now = START
        self.acting: dict[str, Acting] = {}
        self.acted: Counter[str] = Counter()
        self.undone: Counter[str] = Counter()
        self.accepted: set[str] = set()
        self.words = 0
        self.is_calm = False

    def play(self) -> None:
        """Go on until the walk has ended."""
        for turn in range(_PATIENCE):
            self.is_calm = turn > _PATIENCE // 10
            if self.course.outcome:
                return
            self._turn()
        raise AssertionError(f"no end: {show(self.course, self.now)}, {self.marks[-10:]}")

    def write(self, mark: Mark) -> None:
        """Make a mark durable, and look at what must hold."""
        look(self.course, mark)
        mark = replace(mark, time=time_text(self.now))
        self.course = step(self.course, mark)
        self.marks.append(mark)

    def say(self, name: str, **body: object) -> None:
        """Let a human say something, sensible or not."""
        self.words += 1
        digest = DIGEST if self.is_calm or self.random.random() < 0.9 else "e" * 64
        number = self.words if self.is_calm else self.random.randint(1, self.words)
        signal = Signal(f"w{number}", name, "ben", digest, body)
        mark = heard(self.course, signal)
        if name == "accept" and "step" in body and not mark.body.get("ignored"):
            self.accepted.add(str(body["step"]))
        self.write(mark)

    def _turn(self) -> None:
        choice = self.random.random()
        if not self.is_calm and choice < 0.05 and self.deaths:
            self.die()
        elif not self.is_calm and choice < 0.1:
            self.now += timedelta(seconds=self.random.choice([-3600, -60, 1, 60, 3600]))
        elif not self.is_calm and choice < 0.13:
            self.say(self.random.choice(["pause", "cancel", "undo", "resume", "rerun", "nonsense"]))
        elif self.acting and (choice < 0.6 or not self._move()):
            self._come_back(self.random.choice(sorted(self.acting)))
        elif not self.acting:
            self._move()

    def die(self) -> None:
        """Lose what was acting, some of it after it had its effect; another engine takes over."""
        self.deaths -= 1
        for name, move in self.acting.items():
            if self.random.random() < 0.5:
                self._effect(name, move)
        self.acting = {}
        self.write(Mark("taken"))

    def _effect(self, name: str, move: Acting) -> None:
        if isinstance(move, Do):
            self.acted[name] += 1
        elif isinstance(move, Undo):
            self.undone[name] += 1

    def _move(self) -> bool:
        """Make one of the moves; return whether there was one."""
        found = moves(self.course, self.now)
        notes = [move for move in found if isinstance(move, Note)]
        if notes:
            self.write(notes[0].mark)
            return True
        new = [m for m in found if isinstance(m, Acting) and m.step not in self.acting]
        checked = {name for name, move in self.acting.items() if isinstance(move, Check)}
        is_kept = any(isinstance(m, Undo) and m.step in checked for m in found)
        fresh = [m for m in new if not (is_kept and isinstance(m, Undo))]
        if fresh:
            self._begin(fresh[0])
            return True
        if not self.acting:
            self._wait(found)
        return False

    def _begin(self, move: Acting) -> None:
        mark = before(move)
        if mark is not None:
            self.write(mark)
        self.acting[move.step] = move

    def _come_back(self, name: str) -> None:
        move = self.acting.pop(name)
        if isinstance(move, Check):
            sure = self.random.random() < 0.7
            outcome = ("done" if self.acted[name] else "never") if sure else "unknown"
            self.write(after(move, outcome))
            return
        outcome = self._outcome(move)
        if outcome != "failed" or self.random.random() < 0.5:
            self._effect(name, move)
        again = time_text(self.now + timedelta(seconds=10)) if outcome == "later" else ""
        self.write(after(move, outcome, again_at=again))

    def _outcome(self, move: Acting) -> str:
        if self.is_calm:
            return "done"
        if isinstance(move, Undo):
            return self.random.choice(["done"] * 8 + ["failed", "unknown"])
        return self.random.choice(["done"] * 8 + ["failed", "failed", "later", "asked", "unknown"])

    def _wait(self, found: Sequence[object]) -> None:
        """Let time pass, or a human say what is waited for."""
        names = [name for move in found if isinstance(move, Await) for name in move.names]
        wakes = [move for move in found if isinstance(move, Wake)]
        if names and (not wakes or self.random.random() < 0.5):
            self._answer(names)
        elif wakes:
            at = datetime.fromisoformat(self.random.choice(wakes).at)
            assert at > self.now, "woken for nothing"
            self.now = at
        else:
            raise AssertionError(f"stuck: {found}, {show(self.course, self.now)}")

    def _answer(self, names: Sequence[str]) -> None:
        doubtful = [
            name
            for name, one in self.course.steps.items()
            if one.state in {"unknown", "failed", "undo-unknown", "undo-failed"}
        ]
        name = self.random.choice(names)
        if self.is_calm and "resume" in names:
            name = "accept" if doubtful else "resume"
        if name == "accept":
            some = {"step": self.random.choice(doubtful)} if doubtful else {}
            self.say("accept", **some)
        elif name == "answer":
            self.say("answer", step=self.course.layout.ids[min(self.course.asked)], answer=1)
        else:
            self.say(name)


def look(course: Course, mark: Mark) -> None:
    """Assert what must hold of every mark that an engine writes."""
    if mark.kind == "begun":
        _look_at_beginning(course, mark)
    elif mark.kind == "undo-begun":
        one = course.steps[mark.step]
        assert one.attempts > 0, "undone, and it never began"
        assert one.state not in {"waiting", "undone", "undoing", "begun"}, one
        later = [
            name
            for name, other in course.steps.items()
            if other.order > one.order and other.state in {"done", "failed", "unknown"}
            if course.layout.lane_of[course.layout.numbers[name]] not in course.stuck
        ]
        assert not later or not course.layout.steps[course.layout.numbers[mark.step]].undo, (
            f"{mark.step} is undone before {later}"
        )


def _look_at_beginning(course: Course, mark: Mark) -> None:
    one = course.steps[mark.step]
    number = course.layout.numbers[mark.step]
    lane = course.layout.lane_of[number]
    bounds = course.layout.walk.bounds
    assert one.state in {"waiting", "again", "later", "answered", "cut-off"}, (
        f"{mark.step} was {one.state}"
    )
    if one.state == "cut-off":
        assert course.layout.steps[number].recovery == "retry"
    if one.state in {"waiting", "again", "cut-off"}:
        assert not course.hold, "something new began while it was held"
        assert not course.asked, "something new began while a question was open"
    assert not course.is_undoing
    assert not course.outcome
    assert set(course.layout.walk.awaits) <= course.words, "it began without what it awaits"
    earlier = range(course.layout.first[lane], number)
    assert all(course.steps.at(n).state == "done" for n in earlier), "out of order"
    if lane not in course.lanes:
        assert len(course.lanes) < bounds.at_once
        for kind, most in bounds.at_once_per.items():
            mine = course.layout.lanes[lane].groups.get(kind)
            same = [o for o in course.lanes if course.layout.lanes[o].groups.get(kind) == mine]
            assert mine is None or len(same) < most
        if course.is_expired:
            assert one.attempts or lane in course.again, "begun after its time"


def look_at_end(game: Game) -> None:
    """Assert that the end is true."""
    again = course(game.walk, game.marks)
    assert show(again, game.now) == show(game.course, game.now), "other marks, other end"
    states = {name: one.state for name, one in game.course.steps.items()}
    unknown = Counter(name.rsplit("/", 1)[0] for name, s in states.items() if s == "unknown")
    assert all(count == 1 for count in unknown.values()), "two unknown steps on one target"
    if game.course.outcome == "done":
        assert set(states.values()) == {"done"}
    for name, state in states.items():
        if state == "done" and name not in game.accepted:
            assert game.acted[name], f"{name} is said to be done, and never acted"
        if state == "undone" and name not in game.accepted:
            assert game.undone[name], f"{name} is said to be undone, and never was"
        if state == "waiting":
            assert not game.acted[name], f"{name} acted, and nobody knows"
    if game.course.outcome == "undone":
        assert set(states.values()) <= {"undone", "waiting"}
    if game.course.outcome == "expired":
        assert "waiting" in states.values()
