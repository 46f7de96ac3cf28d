"""Hearing: which words to a walk count, and why the others do not. Pure.

Rules:
- A word counts once, for the plan that it names, and where it means something now.
- One about a step may say which `attempt` it means: one that comes late is not taken for another.
- One that does not count is marked all the same, with the reason: nobody wonders where it went.
"""

from __future__ import annotations

from handrail.plans.canonical import plain
from handrail.plans.standing import Course
from handrail.plans.walk import Mark, Signal

_DOUBTFUL = frozenset({"failed", "unknown", "undo-failed", "undo-unknown"})


def heard(course: Course, signal: Signal) -> Mark:
    """Return the mark of a word: it counts, or the mark says why it does not."""
    why = refusal(course, signal)
    body: dict[str, object] = {"signal": plain(signal)}
    return Mark("signal", body=body | ({"ignored": why} if why else {}))


def refusal(course: Course, signal: Signal) -> str:
    """Return why a word does not count, in one sentence; empty when it does."""
    if signal.id in course.heard:
        return "it was heard before"
    if signal.digest != course.layout.walk.digest:
        return f"it is for another plan: {signal.digest[:16] or 'none'}"
    known = _MEANT.get(signal.name)
    if known is not None:
        return known(course, signal)
    if signal.name not in course.layout.walk.awaits:
        return f"this run expects no word `{signal.name[:40]}`"
    if course.outcome:
        return f"the run has ended: {course.outcome}"
    return "it came before" if signal.name in course.words else ""


def _resume(course: Course, _: Signal) -> str:
    return _open(course) or ("" if course.hold else "the run is not held")


def _rerun(course: Course, signal: Signal) -> str:
    if course.is_undoing:
        return "the run is being undone, or was"
    if course.outcome and course.outcome != "failed":
        return f"the run has ended: {course.outcome}"
    if not (course.hold or course.outcome):
        return "the run is not held"
    if "step" in signal.body:
        return _step(course, signal, frozenset({"failed", "unknown"}))
    return ""


def _undo(course: Course, _: Signal) -> str:
    if course.outcome == "undone":
        return "the run is undone"
    if course.is_undoing and not (course.hold or course.outcome):
        return "the run is being undone"
    return ""


def _accept(course: Course, signal: Signal) -> str:
    if "step" in signal.body:
        why = _step(course, signal, _DOUBTFUL)
        is_undone = course.outcome == "failed" and course.is_undoing
        return why or ("" if is_undone else _open(course))
    return _open(course) or ("" if course.hold else "the run is not held")


def _pause(course: Course, _: Signal) -> str:
    return _open(course) or ("the run is held already" if course.hold else "")


def _cancel(course: Course, _: Signal) -> str:
    return _open(course) or ("it was cancelled" if course.cause == "cancelled" else "")


def _answer(course: Course, signal: Signal) -> str:
    if not course.asked:
        return "no question is open"
    if "answer" not in signal.body:
        return "it holds no answer"
    if "step" not in signal.body:
        return "" if len(course.asked) == 1 else "several questions are open: say which `step`"
    return _step(course, signal, frozenset({"asked"}))


def _open(course: Course) -> str:
    return f"the run has ended: {course.outcome}" if course.outcome else ""


def _step(course: Course, signal: Signal, states: frozenset[str]) -> str:
    """Return why the step that is named is not one that is meant."""
    name = signal.body["step"]
    if not isinstance(name, str) or name not in course.layout.numbers:
        return f"this run has no step `{str(name)[:80]}`"
    one, meant = course.steps[name], signal.body.get("attempt")
    if meant is not None and meant != one.attempts:
        return f"it is about attempt {meant} at {name}, which was begun again since"
    return "" if one.state in states else f"{name} is {one.state}"


_MEANT = {
    "resume": _resume,
    "rerun": _rerun,
    "undo": _undo,
    "accept": _accept,
    "pause": _pause,
    "cancel": _cancel,
    "answer": _answer,
}
WORDS = frozenset(_MEANT)
