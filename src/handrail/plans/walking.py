"""Walking: what the marks of a walk amount to, mark by mark. Pure.

Rules:
- Told by the journal alone: an engine that took a run up a moment ago knows what the first one did.
- A step that is begun and not ended is unknown once its engine is dead; never done twice for that.
- Nothing new begins while a walk is held, cancelled, over its bounds, or has an open question.
- Undoing goes in reverse order, over what was done, or may have been; never what did not begin.
- `moving.py` says what an engine does next, `hearing.py` which words count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from handrail.errors import JournalError
from handrail.plans.moving import is_past, moves, show
from handrail.plans.standing import Course, Layout, Member, Standing, Steps, StepStanding
from handrail.plans.walk import Mark, Walk

__all__ = ["Course", "Standing", "StepStanding", "course", "moves", "opened", "standing", "step"]

# What began, and was not found to have never acted, or been undone.
_MAYBE_DONE = frozenset(
    (
        *("later", "asked", "answered", "cut-off", "done", "failed", "unknown", "again"),
        *("undo-cut-off", "undo-failed", "undo-unknown"),
    )
)


def opened(walk: Walk) -> Course:
    """Return where a walk stands of which nothing is marked yet; the walk must be sound."""
    layout = Layout(walk)
    return Course(layout, Steps(layout))


def course(walk: Walk, marks: Iterable[Mark]) -> Course:
    """Return how far `marks`, in their order, brought `walk`."""
    found = opened(walk)
    for mark in marks:
        found = step(found, mark)
    return found


def standing(walk: Walk, marks: Iterable[Mark], now: datetime) -> Standing:
    """Return where a walk stands."""
    return show(course(walk, marks), now)


def step(course: Course, mark: Mark) -> Course:
    """Return where the walk stands after one more mark.

    Raises:
        JournalError: no Handrail of this version writes such a mark.
    """
    fold = _FOLDS.get(mark.kind)
    if fold is None:
        raise JournalError("journal.format", f"a walk has a mark `{mark.kind}`")
    latest = max(course.latest, mark.time)
    after = fold(course._replace(marks=course.marks + 1, latest=latest), mark)
    return _lined_up(after) if after.is_undoing else after


def _number(course: Course, mark: Mark) -> int:
    try:
        return course.layout.numbers[mark.step]
    except KeyError as error:
        message = f"a mark `{mark.kind}` is of step `{mark.step}`, which the walk does not have"
        raise JournalError("journal.damaged", message) from error


def _text(mark: Mark, name: str) -> str:
    value = mark.body.get(name, "")
    return value if isinstance(value, str) else ""


def _body(mark: Mark) -> Mapping[str, object]:
    value = mark.body.get("body", {})
    return value if isinstance(value, Mapping) else {}


def _without(lanes: Mapping[int, int], lane: int) -> Mapping[int, int]:
    return {key: value for key, value in lanes.items() if key != lane}


def _put(course: Course, number: int, state: str, mark: Mark) -> Steps:
    """Return the steps, with what `mark` says of one."""
    before = course.steps.at(number)
    after = StepStanding(
        state,
        before.attempts,
        _text(mark, "why"),
        _body(mark),
        _text(mark, "again_at"),
        course.marks,
    )
    return course.steps.put(number, after)


def _nothing(course: Course, _: Mark) -> Course:
    return course


def _taken(course: Course, mark: Mark) -> Course:
    """Count what was acting as cut off: its engine is gone, and no result of it will come.

    A mark that names a step says it of that one alone: who acted on it is gone, the others act on.
    """
    steps = course.steps
    cut_off = set(course.cut_off)
    only = _number(course, mark) if mark.step else None
    for number in course.lanes.values():
        if only in {None, number} and steps.at(number).state == "begun":
            steps = steps.put(number, replace(steps.at(number), state="cut-off"))
            cut_off.add(number)
    for number in course.undo_lanes.values():
        if only in {None, number} and steps.at(number).state == "undoing":
            steps = steps.put(number, replace(steps.at(number), state="undo-cut-off"))
    return course._replace(steps=steps, cut_off=frozenset(cut_off))


def _wave_begun(course: Course, mark: Mark) -> Course:
    number = mark.body.get("number")
    if not isinstance(number, int) or not 0 <= number < len(course.layout.queues):
        raise JournalError("journal.damaged", f"a walk has no wave {number}")
    return course._replace(wave=number, heads={}, soak_until="")


def _begun(course: Course, mark: Mark) -> Course:
    number = _number(course, mark)
    lane = course.layout.lane_of[number]
    before = course.steps.at(number)
    attempt = mark.body.get("attempt")
    attempts = attempt if isinstance(attempt, int) else before.attempts + 1
    steps = course.steps.put(
        number, StepStanding("begun", attempts, "", before.body, "", course.marks)
    )
    heads, again = course.heads, course.again
    if lane in again:
        again = tuple(one for one in again if one != lane)
    elif lane not in course.lanes:
        key = course.layout.members[lane]
        heads = {**heads, key: heads.get(key, 0) + 1}
    lanes = {**course.lanes, lane: number} if course.lanes.get(lane) != number else course.lanes
    if not (course.cut_off or course.asked):
        return course._replace(steps=steps, heads=heads, again=again, lanes=lanes)
    return course._replace(
        steps=steps,
        heads=heads,
        again=again,
        lanes=lanes,
        cut_off=course.cut_off - {number},
        asked=course.asked - {number},
    )


def _later(course: Course, mark: Mark) -> Course:
    number = _number(course, mark)
    steps = _put(course, number, "later", mark)
    return course._replace(steps=steps, cut_off=course.cut_off - {number})


def _asked(course: Course, mark: Mark) -> Course:
    number = _number(course, mark)
    steps = _put(course, number, "asked", mark)
    return course._replace(steps=steps, asked=course.asked | {number})


def _done(course: Course, mark: Mark) -> Course:
    number = _number(course, mark)
    lane = course.layout.lane_of[number]
    if number + 1 < course.layout.first[lane + 1]:
        lanes: Mapping[int, int] = {**course.lanes, lane: number + 1}
    else:
        lanes = _without(course.lanes, lane)
    steps = _put(course, number, "done", mark)
    if number not in course.cut_off:
        return course._replace(steps=steps, lanes=lanes)
    return course._replace(steps=steps, lanes=lanes, cut_off=course.cut_off - {number})


def _failed(course: Course, mark: Mark) -> Course:
    number = _number(course, mark)
    lane = course.layout.lane_of[number]
    after = course._replace(
        steps=_put(course, number, "failed", mark),
        lanes=_without(course.lanes, lane),
        cut_off=course.cut_off - {number},
        failures=course.failures + 1,
        failures_per=_counted(course, lane, 1),
    )
    why = breach(after)
    if not why or after.is_undoing:
        return after
    if after.layout.walk.bounds.then == "undo":
        return after._replace(is_undoing=True, why=why)
    return after if after.hold else after._replace(hold=why, cause="failures", is_noted=False)


def _counted(course: Course, lane: int, change: int) -> Mapping[Member, int]:
    """Return the failures by member, with one more or less of `lane`."""
    found = dict(course.failures_per)
    groups = course.layout.lanes[lane].groups
    for kind in course.layout.walk.bounds.failures_per:
        if kind in groups:
            member = (kind, groups[kind])
            found[member] = max(found.get(member, 0) + change, 0)
    return found


def breach(course: Course) -> str:
    """Return which bound the failures are beyond, in one sentence; empty where they are borne."""
    bounds = course.layout.walk.bounds
    if course.failures > bounds.failures:
        borne = f"{bounds.failures} would be borne"
        return f"{course.failures} of {len(course.layout.lanes)} targets failed; {borne}"
    for (kind, name), count in course.failures_per.items():
        if count > bounds.failures_per[kind]:
            return f"{count} failed in {kind} {name}; {bounds.failures_per[kind]} would be borne"
    return ""


def _unknown(course: Course, mark: Mark) -> Course:
    number = _number(course, mark)
    after = course._replace(
        steps=_put(course, number, "unknown", mark),
        lanes=_without(course.lanes, course.layout.lane_of[number]),
        cut_off=course.cut_off - {number},
    )
    why = f"nobody knows whether {mark.step} happened"
    if after.is_undoing or after.cause == "unknown":
        return after  # undoing covers what may have been done
    cause = after.cause if after.cause == "cancelled" else "unknown"
    return after._replace(hold=after.hold or why, cause=cause, is_noted=False)


def _checked(course: Course, mark: Mark) -> Course:
    if course.undo_line is not None or course.steps.at(_number(course, mark)).state != "cut-off":
        return course  # it comes too late: what may have been done is being undone
    outcome = _text(mark, "outcome")
    if outcome in {"done", "failed", "later"}:
        return _FOLDS[outcome](course, mark)
    if outcome != "never":
        return _unknown(course, mark)
    number = _number(course, mark)
    one = course.steps.at(number)
    # Of an attempt before this one it is not said that it never acted.
    never = replace(one, state="waiting" if one.attempts == 1 else "again")
    steps = course.steps.put(number, never)
    return course._replace(steps=steps, cut_off=course.cut_off - {number})


def _soaking(course: Course, mark: Mark) -> Course:
    return course._replace(soak_until=_text(mark, "until"))


def _held(course: Course, _: Mark) -> Course:
    return course._replace(is_noted=True)


def _expired(course: Course, _: Mark) -> Course:
    return course._replace(is_expired=True)


def _ended(course: Course, mark: Mark) -> Course:
    why = _text(mark, "why")
    return course._replace(outcome=_text(mark, "outcome"), why=why, hold="", cause="")


def _undo_begun(course: Course, mark: Mark) -> Course:
    number = _number(course, mark)
    lane = course.layout.lane_of[number]
    steps = course.steps.put(number, replace(course.steps.at(number), state="undoing"))
    line, at = course.undo_line or (), course.undo_next
    is_next = at < len(line) and line[at] == number
    return course._replace(
        steps=steps,
        undo_lanes={**course.undo_lanes, lane: number},
        undo_next=at + is_next,
    )


def _undone(course: Course, number: int, state: str, mark: Mark) -> Course:
    """Return the course with what became of an undo; a step keeps its place in the order."""
    before = course.steps.at(number)
    after = replace(before, state=state, why=_text(mark, "why"))
    return course._replace(steps=course.steps.put(number, after))


def _undo_done(course: Course, mark: Mark) -> Course:
    number = _number(course, mark)
    lanes = _without(course.undo_lanes, course.layout.lane_of[number])
    return _undone(course, number, "undone", mark)._replace(undo_lanes=lanes)


def _undo_failed(course: Course, mark: Mark) -> Course:
    number = _number(course, mark)
    lane = course.layout.lane_of[number]
    after = _undone(course, number, "undo-failed", mark)
    if mark.body.get("irreversible"):  # what came before it in the lane may have an undo
        return after._replace(undo_next=course.undo_next + 1)
    lanes = _without(course.undo_lanes, lane)
    return after._replace(undo_lanes=lanes, stuck=course.stuck | {lane})


def _undo_unknown(course: Course, mark: Mark) -> Course:
    number = _number(course, mark)
    lane = course.layout.lane_of[number]
    return _undone(course, number, "undo-unknown", mark)._replace(
        undo_lanes=_without(course.undo_lanes, lane),
        stuck=course.stuck | {lane},
        hold=course.hold or f"nobody knows whether {mark.step} is undone",
        cause=course.cause or "unknown",
        is_noted=False,
    )


def _lined_up(course: Course) -> Course:
    """Return the course with what there is to undo, as soon as nothing acts any more."""
    if course.undo_line is None:
        under_way = (*course.lanes.values(), *course.undo_lanes.values())
        if any(course.steps.at(number).state in {"begun", "undoing"} for number in under_way):
            return course
        found = [(s.order, n) for n, s in course.steps.numbered() if s.state in _MAYBE_DONE]
        line = tuple(number for _, number in sorted(found, reverse=True))
        none: frozenset[int] = frozenset()
        empty: Mapping[int, int] = MappingProxyType({})
        course = course._replace(undo_line=line, undo_next=0, undo_lanes=empty, lanes=empty)
        course = course._replace(again=(), cut_off=none, asked=none)
    line, at = course.undo_line or (), course.undo_next
    while at < len(line) and is_past(course, line[at]):
        at += 1
    return course if at == course.undo_next else course._replace(undo_next=at)


def _signal(course: Course, mark: Mark) -> Course:
    """Return the course after a word; one that does not count leaves all as it was."""
    given = mark.body.get("signal")
    told: Mapping[str, object] = given if isinstance(given, Mapping) else {}
    name, person = str(told.get("name", "")), str(told.get("person", "")) or "a program"
    if mark.body.get("ignored"):
        return course
    course = course._replace(heard=course.heard | {str(told.get("id", ""))})
    more = told.get("body", {})
    body: Mapping[str, object] = more if isinstance(more, Mapping) else {}
    word = _WORDS.get(name)
    if word is None:
        return course._replace(words=course.words | {name})
    return word(course, body, person)


Word = Callable[[Course, Mapping[str, object], str], Course]


def _go_on(course: Course, _: Mapping[str, object], __: str) -> Course:
    return course._replace(hold="", cause="", is_noted=False, failures=0, failures_per={})


def _stop(cause: str) -> Word:
    def word(course: Course, body: Mapping[str, object], person: str) -> Course:
        why = str(body.get("why", ""))
        hold = f"{cause} by {person}" + (f": {why}" if why else "")
        return course._replace(hold=hold, cause=cause, is_noted=False)

    return word


def _rerun(course: Course, body: Mapping[str, object], _: str) -> Course:
    """Let failed steps go again: all, or the one that is named."""
    named = body.get("step")
    if isinstance(named, str):
        numbers = [course.layout.numbers[named]]
    else:
        numbers = [n for n, one in course.steps.numbered() if one.state == "failed"]
    steps = course.steps
    for number in numbers:
        steps = steps.put(number, replace(steps.at(number), state="again"))
    lanes = {course.layout.lane_of[number] for number in numbers}
    again = tuple(sorted({*course.again, *lanes}))
    return _go_on(course, body, "")._replace(steps=steps, again=again, outcome="", is_left=False)


def _undo(course: Course, body: Mapping[str, object], person: str) -> Course:
    return _go_on(course, body, person)._replace(
        is_undoing=True,
        undo_line=None,
        stuck=frozenset(),
        outcome="",
        why=f"undone for {person}",
    )


def _accept(course: Course, body: Mapping[str, object], person: str) -> Course:
    """Count a step as done, or as undone; without one, take everything as it stands."""
    if "step" not in body:
        return course._replace(is_left=True)
    number = course.layout.numbers[str(body["step"])]
    lane = course.layout.lane_of[number]
    before = course.steps.at(number)
    is_undo = before.state.startswith("undo-")
    state = "undone" if is_undo else "done"
    accepted = replace(before, state=state, why=f"accepted by {person}")
    course = course._replace(steps=course.steps.put(number, accepted), outcome="")
    if before.state == "failed":
        counted = _counted(course, lane, -1)
        course = course._replace(failures=max(course.failures - 1, 0), failures_per=counted)
    if not is_undo and number + 1 < course.layout.first[lane + 1]:
        course = course._replace(again=tuple(sorted({*course.again, lane})))
    open_ones = {"unknown", "undo-unknown"}
    is_open = any(one.state in open_ones for _, one in course.steps.numbered())
    if course.cause in {"failures", "unknown"} and not is_open and not breach(course):
        return course._replace(hold="", cause="", is_noted=False)
    return course


def _answer(course: Course, body: Mapping[str, object], person: str) -> Course:
    """Let a step that asked go on with what it was told."""
    named = body.get("step")
    number = course.layout.numbers[named] if isinstance(named, str) else min(course.asked)
    before = course.steps.at(number)
    told = {**before.body, "answer": body.get("answer"), "answered_by": person}
    steps = course.steps.put(number, replace(before, state="answered", body=told))
    return course._replace(steps=steps, asked=course.asked - {number})


_WORDS: Mapping[str, Word] = {
    "resume": _go_on,
    "rerun": _rerun,
    "undo": _undo,
    "accept": _accept,
    "answer": _answer,
    "pause": _stop("paused"),
    "cancel": _stop("cancelled"),
}
_FOLDS: Mapping[str, Callable[[Course, Mark], Course]] = {
    "opened": _nothing,
    "taken": _taken,
    "signal": _signal,
    "wave-begun": _wave_begun,
    "begun": _begun,
    "later": _later,
    "done": _done,
    "failed": _failed,
    "unknown": _unknown,
    "checked": _checked,
    "soaking": _soaking,
    "asked": _asked,
    "held": _held,
    "undo-begun": _undo_begun,
    "undo-done": _undo_done,
    "undo-failed": _undo_failed,
    "undo-unknown": _undo_unknown,
    "expired": _expired,
    "ended": _ended,
}
