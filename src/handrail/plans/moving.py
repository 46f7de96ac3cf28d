"""Moving: what an engine does next with a walk, and which marks its doing leaves. Pure.

Rules:
- The same marks give the same moves; what an engine is doing already, it is told again.
- A `Note` is written before anything else is asked: after it the moves are others.
- `Do` and `Undo` are written (`before`) before they act, and what came of them after (`after`).
- What is over stays over: a time that has passed leaves a mark, so a clock that is set back does
  not bring it again. How long something rests is counted on a clock that nobody sets.
- `Undo`s begin in the order they are told: one whose step is still being checked keeps the others
  waiting.
- What a move costs does not grow with the walk, but with what is under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from handrail.errors import UsageError
from handrail.plans.canonical import time_text
from handrail.plans.standing import Course, Layout, Member, Standing
from handrail.plans.walk import Mark, Wave

_RESUMING = ("resume", "rerun", "undo", "accept", "cancel")


@dataclass(frozen=True, slots=True)
class Do:
    """Write `begun`, and let the act do the step; `goes_on`: it said `later` or `asked` before."""

    step: str
    attempt: int = 1
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """Ask the act what became of a step whose engine died."""

    step: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Undo:
    """Write `undo-begun`, and let the act undo the step."""

    step: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Note:
    """Write a mark: nothing acts."""

    mark: Mark


@dataclass(frozen=True, slots=True)
class Wake:
    """Ask again at `at`, ISO 8601 UTC; `is_rest`: a soak, on the clock that nobody sets."""

    at: str
    is_rest: bool = False


@dataclass(frozen=True, slots=True)
class Await:
    """Only one of these words helps."""

    names: tuple[str, ...]


Acting = Do | Check | Undo
Move = Do | Check | Undo | Note | Wake | Await


@lru_cache(maxsize=4096)
def moment(text: str) -> str:
    """Return a time as `time_text` writes it: such texts sort as times do.

    Raises:
        UsageError: it is not ISO 8601 with a zone.
    """
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return time_text(found.astimezone(UTC))
    except (ValueError, OverflowError):
        pass
    raise UsageError("walk.wrong", f"`{text[:40]}` is not a time in ISO 8601 with its zone")


@dataclass(frozen=True, slots=True)
class _Now:
    """What time it is, by the calendar, and by a clock that nobody sets."""

    time: str
    rest: str


def moves(course: Course, now: datetime, steady: datetime | None = None) -> tuple[Move, ...]:
    """Return what comes next; empty when the walk has ended, or all waits for what acts now.

    Args:
        course: as far as it is.
        now: by the calendar: when a walk begins, and expires.
        steady: the same, but for what was set on that clock since: for soaks.
    """
    if course.outcome:
        return ()
    time = time_text(now)
    both = _Now(time, time if steady is None else time_text(steady))
    found = _undoing(course) if course.is_undoing else _doing(course, both)
    if course.hold and not course.is_noted:
        found.insert(0, Note(Mark("held", body={"why": course.hold, "cause": course.cause})))
    if course.hold or course.asked:
        found.append(Await(awaited(course)))
    return tuple(found)


def awaited(course: Course) -> tuple[str, ...]:
    """Return the words that help now."""
    if course.outcome:
        return ()
    answer = ("answer",) if course.asked else ()
    if course.hold:
        return (*answer, *_RESUMING)
    missing = tuple(name for name in course.layout.walk.awaits if name not in course.words)
    return answer or missing


def _doing(course: Course, now: _Now) -> list[Move]:
    """Return the moves of a walk that nobody undoes."""
    if course.is_left and not _is_acting(course):
        return [_end(course, "cancelled", "taken as it stands")]
    if course.wave < 0:
        return _before_all(course, now.time)
    found = _expire(course, now.time) or _under_way(course, now.rest)
    if course.hold or course.asked or course.is_left:
        return found
    lanes = () if found and isinstance(found[0], Note) else beginning(course)
    found += [_do(course, _next_step(course, lane)) for lane in lanes]
    if found or course.lanes:
        return found
    return [_next_wave(course, now.rest)]


def _is_acting(course: Course) -> bool:
    return any(course.steps.at(number).state == "begun" for number in course.lanes.values())


def _before_all(course: Course, time: str) -> list[Move]:
    """Return what comes before the first wave."""
    walk = course.layout.walk
    if course.cause == "cancelled":
        return [_end(course, "cancelled", course.hold)]
    if walk.expires_at and time >= moment(walk.expires_at):
        return [_end(course, "expired", "nothing had begun by then")]
    wakes = [moment(walk.expires_at)] if walk.expires_at else []
    missing = tuple(name for name in walk.awaits if name not in course.words)
    begins = moment(walk.begins_at) if walk.begins_at else ""
    if course.hold or missing:
        return [*(Wake(at) for at in wakes), *([] if course.hold else [Await(missing)])]
    if time < begins:
        return [Wake(min([begins, *wakes]))]
    return [_wave(course, 0)]


def _wave(course: Course, number: int) -> Note:
    wave = course.layout.walk.waves[number]
    return Note(Mark("wave-begun", body={"wave": wave.name, "number": number}))


def _expire(course: Course, time: str) -> list[Move]:
    """Say that what has not begun never will, once that is so."""
    at = course.layout.walk.expires_at
    if not at or course.is_expired or time < moment(at) or not _is_any_left(course):
        return []
    return [Note(Mark("expired"))]


def _is_any_left(course: Course) -> bool:
    """Whether a lane has not begun yet."""
    return course.wave + 1 < len(course.layout.queues) or any(
        course.heads.get(key, 0) < len(lanes)
        for key, lanes in course.layout.queues[course.wave].items()
    )


def _under_way(course: Course, time: str) -> list[Move]:
    """Return what goes on in the lanes that have begun; at most one `Wake`, the first."""
    found: list[Move] = []
    wake = ""
    is_free = not (course.hold or course.asked or course.is_left)
    for number in course.lanes.values():
        one = course.steps.at(number)
        if one.state == "begun":
            continue
        if one.state in {"waiting", "again"}:
            found += [_do(course, number)] if is_free else []
        elif one.state == "cut-off":
            found += _find_out(course, number, is_free=is_free)
        elif one.state == "answered" and course.cause != "cancelled":
            found.append(Do(course.layout.ids[number], one.attempts, goes_on=True))
        elif one.state == "later" and course.cause != "cancelled":
            again_at = moment(one.again_at)
            if time >= again_at:
                found.append(Do(course.layout.ids[number], one.attempts, goes_on=True))
            else:
                wake = min(wake or again_at, again_at)
    if wake:
        found.append(Wake(wake, is_rest=True))
    return sorted(found, key=_notes_first) if course.cut_off else found


def _notes_first(move: Move) -> bool:
    return not isinstance(move, Note)


def _find_out(course: Course, number: int, *, is_free: bool) -> list[Move]:
    """Return how to find out about a step that was cut off."""
    name, one = course.layout.ids[number], course.steps.at(number)
    match course.layout.steps[number].recovery:
        case "retry":
            return [Do(name, one.attempts + 1)] if is_free else []
        case "check":
            return [Check(name, one.attempts)]
        case _:
            why = "its engine died while it acted"
            return [Note(Mark("unknown", name, body={"why": why}))]


def _do(course: Course, number: int) -> Do:
    return Do(course.layout.ids[number], course.steps.at(number).attempts + 1)


def _next_step(course: Course, lane: int) -> int:
    """Return the number of a lane's first step that is not done."""
    numbers = range(course.layout.first[lane], course.layout.first[lane + 1])
    return next(number for number in numbers if course.steps.at(number).state != "done")


def beginning(course: Course) -> tuple[int, ...]:
    """Return the lanes that may begin now, in their order, inside the bounds."""
    layout, bounds = course.layout, course.layout.walk.bounds
    room = bounds.at_once - len(course.lanes)
    if room <= 0:
        return ()
    counts = Counter(member for lane in course.lanes for member in layout.members[lane])
    found: list[int] = []
    for lane in course.again:
        if len(found) < room and _fits(layout.members[lane], counts, bounds.at_once_per):
            found.append(lane)
            counts.update(layout.members[lane])
    if not course.is_expired:
        found += _heads(course, room - len(found), counts)
    return tuple(found)


def _heads(course: Course, room: int, counts: Counter[Member]) -> list[int]:
    """Return lanes that never began, the first of all queues first."""
    found: list[int] = []
    limits = course.layout.walk.bounds.at_once_per
    places = {
        key: (lanes, course.heads.get(key, 0))
        for key, lanes in course.layout.queues[course.wave].items()
    }
    while len(found) < room:
        heads = [
            (lanes[at], key)
            for key, (lanes, at) in places.items()
            if at < len(lanes) and _fits(key, counts, limits)
        ]
        if not heads:
            break
        lane, key = min(heads)
        found.append(lane)
        counts.update(key)
        places[key] = (places[key][0], places[key][1] + 1)
    return found


def _fits(members: Sequence[Member], counts: Counter[Member], limits: Mapping[str, int]) -> bool:
    return all(counts[member] < limits[member[0]] for member in members)


def _next_wave(course: Course, time: str) -> Move:
    """Return what follows a wave of which nothing is under way or left."""
    waves: tuple[Wave, ...] = course.layout.walk.waves
    if course.is_expired or course.wave + 1 >= len(waves):
        return _end_done(course)
    soak_s = waves[course.wave].soak_s
    if soak_s and not course.soak_until:
        until = time_text(datetime.fromisoformat(time) + timedelta(seconds=soak_s))
        body = {"until": until, "wave": waves[course.wave].name}
        return Note(Mark("soaking", body=body))
    if time < course.soak_until:
        return Wake(course.soak_until, is_rest=True)
    return _wave(course, course.wave + 1)


def _end_done(course: Course) -> Note:
    """Return how a walk ends of which nothing is left to do."""
    if all(one.state == "done" for _, one in course.steps.numbered()):
        return _end(course, "done", "")
    if course.is_expired and _is_any_left(course):
        return _end(course, "expired", "its time was over before all had begun")
    return _end(course, "failed", "")


def _end(course: Course, outcome: str, why: str) -> Note:
    told = "; ".join(one for one in (why, _tally(course)) if one)
    return Note(Mark("ended", body={"outcome": outcome, "why": told}))


def _tally(course: Course) -> str:
    """Return how the lanes ended, in one sentence: `498 of 500 done; 1 failed, 1 not begun`."""
    counts: Counter[str] = Counter(_lane_state(course, n) for n in range(len(course.layout.lanes)))
    done, total = counts.pop("done", 0), len(course.layout.lanes)
    rest = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return f"{done} of {total} done" + (f"; {rest}" if rest else "")


_WORDS = {
    "undo-unknown": "unknown",
    "undo-cut-off": "unknown",
    "undo-failed": "not undone",
    "unknown": "unknown",
    "cut-off": "unknown",
    "failed": "failed",
}


def _lane_state(course: Course, lane: int) -> str:
    """Return the one word for a lane of a walk that ends."""
    numbers = range(course.layout.first[lane], course.layout.first[lane + 1])
    states = {course.steps.at(number).state for number in numbers}
    for state, word in _WORDS.items():
        if state in states:
            return word
    if states <= {"waiting", "undone"}:
        return "undone" if "undone" in states else "not begun"
    return "done" if states == {"done"} else "half done"


def _undoing(course: Course) -> list[Move]:
    """Return the moves of a walk that is being undone."""
    if course.undo_line is None:
        return []  # what acts has to end first
    found: list[Move] = []
    if course.is_left and not course.undo_lanes:
        return [_end(course, "failed", "taken as it stands")]
    for number in course.undo_lanes.values():
        if course.steps.at(number).state == "undo-cut-off":
            found += _undo_again(course, number)
    if course.hold or (found and isinstance(found[0], Note)):
        return found
    found += _undo_next(course)
    if found or course.undo_lanes:
        return found
    left = any(
        one.state in {"undo-failed", "undo-unknown", "done", "failed", "unknown"}
        for _, one in course.steps.numbered()
    )
    return [_end(course, "failed" if left else "undone", course.why)]


def _undo_again(course: Course, number: int) -> list[Move]:
    """Return how to go on with an undo that was cut off: twice equals once, unless a human says."""
    name = course.layout.ids[number]
    if course.layout.steps[number].recovery == "ask":
        why = "its engine died while it was undone"
        return [Note(Mark("undo-unknown", name, body={"why": why}))]
    return [] if course.hold else [Undo(name, course.steps.at(number).attempts)]


def is_past(course: Course, number: int) -> bool:
    """Whether a step in the line is not to be undone any more."""
    is_stuck = course.layout.lane_of[number] in course.stuck
    return is_stuck or course.steps.at(number).state == "undone"


def _undo_next(course: Course) -> list[Move]:
    """Return the steps to undo now: never one before what ended after it has begun to be undone."""
    layout, bounds, line = course.layout, course.layout.walk.bounds, course.undo_line or ()
    busy = set(course.undo_lanes)
    counts = Counter(member for lane in busy for member in layout.members[lane])
    found: list[Move] = []
    for number in line[course.undo_next :]:
        lane, name = layout.lane_of[number], layout.ids[number]
        if is_past(course, number):
            continue
        if lane in busy or len(busy) >= bounds.at_once:
            break
        if not _fits(layout.members[lane], counts, bounds.at_once_per):
            break
        if not layout.steps[number].undo:
            body = {"why": "it cannot be undone: its plan says why", "irreversible": True}
            return found or [Note(Mark("undo-failed", name, body=body))]
        busy.add(lane)
        counts.update(layout.members[lane])
        found.append(Undo(name, course.steps.at(number).attempts))
    return found


def before(move: Acting) -> Mark | None:
    """Return the mark that has to be durable before the move is made; a check needs none."""
    match move:
        case Do():
            more = {"goes_on": True} if move.goes_on else {}
            return Mark("begun", move.step, body={"attempt": move.attempt, **more})
        case Undo():
            return Mark("undo-begun", move.step)
        case _:
            return None


# What an act may say of what it was asked to do, and the mark that this leaves.
_DONE = {"done": "done", "failed": "failed", "later": "later", "asked": "asked"}
_UNDONE = {"done": "undo-done", "failed": "undo-failed", "unknown": "undo-unknown"}


def after(
    move: Acting,
    outcome: str,
    why: str = "",
    body: Mapping[str, object] | None = None,
    again_at: str = "",
) -> Mark:
    """Return the mark of what became of a move, as its act said; nonsense is a failure."""
    more: dict[str, object] = {"why": why, "body": body, "again_at": again_at}
    told = {name: value for name, value in more.items() if value}
    match move:
        case Check():
            return Mark("checked", move.step, body={"outcome": outcome, **told})
        case Undo():
            kind = _UNDONE.get(outcome)
        case _:
            kind = {**_DONE, "unknown": "unknown"}.get(outcome)
    if kind is None:
        told["why"] = f"its act said `{outcome}`, which means nothing here" + f": {why}" * bool(why)
        kind = "undo-failed" if isinstance(move, Undo) else "failed"
    return Mark(kind, move.step, body=told)


@dataclass(frozen=True, slots=True)
class Call:
    """What an act is told of the step that it acts on; see `ports.ActCall`."""

    act: str
    target: str
    name: str
    body: Mapping[str, object]
    attempt: int
    before: Mapping[str, object]
    earlier: Mapping[str, Mapping[str, object]]


class Earlier(Mapping[str, Mapping[str, object]]):
    """What a lane's earlier steps returned, by name; looked up only when asked for."""

    __slots__ = ("_course", "_first", "_until")

    def __init__(self, course: Course, first: int, until: int) -> None:
        self._course, self._first, self._until = course, first, until

    def __getitem__(self, name: str) -> Mapping[str, object]:
        for at in range(self._first, self._until):
            if self._course.layout.steps[at].name == name:
                return self._course.steps.at(at).body
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (self._course.layout.steps[at].name for at in range(self._first, self._until))

    def __len__(self) -> int:
        return self._until - self._first


def call(course: Course, move: Acting) -> Call:
    """Return what the act of a move is told."""
    layout: Layout = course.layout
    number = layout.numbers[move.step]
    lane = layout.lane_of[number]
    step, one = layout.steps[number], course.steps.at(number)
    earlier = Earlier(course, layout.first[lane], number)
    target = layout.lanes[lane].target
    return Call(step.act, target, step.name, step.body, move.attempt, one.body, earlier)


def has_begun(course: Course) -> bool:
    """Whether a step acts as far as the journal tells: its engine may be dead."""
    under_way = (*course.lanes.values(), *course.undo_lanes.values())
    return any(course.steps.at(number).state in {"begun", "undoing"} for number in under_way)


def show(course: Course, now: datetime) -> Standing:
    """Return where a walk stands, for people and programs."""
    wakes = [move.at for move in moves(course, now) if isinstance(move, Wake)]
    return Standing(
        course.layout.walk,
        _state(course),
        course.steps,
        max(course.wave, 0),
        course.outcome,
        course.hold or course.why or _question(course),
        min(wakes, default=""),
        awaited(course),
    )


def _state(course: Course) -> str:
    if course.outcome:
        return "ended"
    if course.hold or course.asked:
        return "held"
    if course.is_undoing:
        return "undoing"
    if course.wave < 0:
        return "waiting"
    if course.soak_until and not course.lanes:
        return "soaking"
    return "running"


def _question(course: Course) -> str:
    if not course.asked:
        return ""
    return f"{course.layout.ids[min(course.asked)]} has a question"
