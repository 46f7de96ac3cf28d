"""What the marks of a walk amount to, and what comes next: fact by fact."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from handrail.errors import JournalError, UsageError
from handrail.plans.canonical import time_text
from handrail.plans.hearing import heard, refusal
from handrail.plans.moving import (
    Acting,
    Await,
    Check,
    Do,
    Move,
    Note,
    Undo,
    Wake,
    after,
    before,
    call,
    moves,
    show,
)
from handrail.plans.standing import Course
from handrail.plans.walk import KINDS, Bounds, Lane, Mark, Signal, Walk, WalkStep, Wave
from handrail.plans.walk_records import check, read_mark, read_signal, read_walk
from handrail.plans.walking import opened, standing, step
from support.walk_games import DIGEST, START, simple_walk


def go(
    walk: Course | Walk, *, bad: tuple[str, ...] = (), now: datetime = START, until: str = ""
) -> Course:
    """Let a walk go on, each step to its end, until nothing more is to do at `now`.

    Args:
        walk: or how far one is.
        bad: steps that fail, and whose undo does.
        now: the time, which stands still.
        until: a step; it begins, and that is the last thing.
    """
    course = opened(walk) if isinstance(walk, Walk) else walk
    while True:
        move = next((m for m in moves(course, now) if isinstance(m, Note | Do | Undo)), None)
        if move is None:
            return course
        if isinstance(move, Note):
            course = step(course, move.mark)
            continue
        course = begin(course, move)
        if move.step == until:
            return course
        course = step(course, after(move, "failed" if move.step in bad else "done"))


def begin(course: Course, move: Acting) -> Course:
    mark = before(move)
    return course if mark is None else step(course, mark)


def say(course: Course, name: str, **body: object) -> Course:
    """Let somebody say a word that counts."""
    signal = Signal(f"{name}-{course.marks}", name, "ben", DIGEST, body)
    assert not refusal(course, signal)
    return step(course, heard(course, signal))


def states(course: Course) -> list[str]:
    return [one.state for one in course.steps.values()]


def acting(course: Course, now: datetime = START) -> list[Move]:
    return [move for move in moves(course, now) if not isinstance(move, Await)]


def test_all_done() -> None:
    """A walk of which every step is done has ended as done."""
    course = go(simple_walk(3, 2, waves=(1, 2)))
    assert course.outcome == "done"
    assert set(states(course)) == {"done"}


def test_waves_go_in_their_order() -> None:
    """Nothing of a wave begins before every target of the one before it has ended."""
    course = go(simple_walk(3, 2, waves=(1, 2)), until="store/0/s1")
    assert states(course) == ["done", "begun", "waiting", "waiting", "waiting", "waiting"]
    assert acting(course) == []


def test_soak_between_waves() -> None:
    """A wave is left alone for its time, counted from its last target's end, and once."""
    course = go(simple_walk(2, 1, waves=(1, 1), soak_s=60))
    assert show(course, START).state == "soaking"
    until = time_text(START + timedelta(seconds=60))
    assert moves(course, START) == (Wake(until, is_rest=True),)
    begun = go(course, now=START + timedelta(seconds=60), until="store/1/s0")
    back = go(step(begun, Mark("done", "store/1/s0")), now=START - timedelta(days=1))
    assert back.outcome == "done", "a clock that was set back brought the soak again"


def test_at_once() -> None:
    """No more targets are under way at once than the bounds allow, over all and in each group."""
    walk = simple_walk(6, 1, bounds=Bounds(at_once=3, at_once_per={"site": 1}))
    course = go(walk, until="store/0/s0")
    assert [m.step for m in acting(course) if isinstance(m, Do)] == ["store/1/s0"]
    course = begin(course, Do("store/1/s0"))
    assert acting(course) == [], "both sites are taken"
    course = step(course, Mark("done", "store/0/s0"))
    assert [m.step for m in acting(course) if isinstance(m, Do)] == ["store/2/s0"]


def test_failure_beyond_the_bounds_holds() -> None:
    """One failure more than is borne, and nothing new begins; what is under way goes to its end."""
    course = go(simple_walk(4, 1, bounds=Bounds(at_once=1, failures=1)), bad=("store/0/s0",))
    assert course.outcome == "failed", "one failure is borne, and the others are done"
    course = go(simple_walk(4, 1, bounds=Bounds(at_once=1)), bad=("store/1/s0",))
    assert states(course) == ["done", "failed", "waiting", "waiting"]
    assert show(course, START).state == "held"
    assert show(course, START).why == "1 of 4 targets failed; 0 would be borne"


def test_failures_in_a_group() -> None:
    """A group has bounds of its own."""
    walk = simple_walk(6, 1, bounds=Bounds(at_once=1, failures=5, failures_per={"site": 1}))
    course = go(walk, bad=("store/0/s0", "store/1/s0", "store/2/s0"))
    assert show(course, START).why == "2 failed in site site-0; 1 would be borne"


def test_resume_goes_on_as_it_is() -> None:
    """After `resume`, what failed is left, and what never began goes on."""
    course = go(simple_walk(3, 1, bounds=Bounds(at_once=1)), bad=("store/0/s0",))
    course = go(say(course, "resume"))
    assert states(course) == ["failed", "done", "done"]
    assert course.outcome == "failed"
    assert "1 failed" in course.why


def test_rerun_is_exactly_the_failed_and_the_not_started() -> None:
    """After `rerun`, no done step acts again, failed ones do, and so do those that never began."""
    course = go(simple_walk(3, 2, bounds=Bounds(at_once=1)), bad=("store/1/s1",))
    course = go(say(course, "rerun"))
    assert course.outcome == "done"
    assert [one.attempts for one in course.steps.values()] == [1, 1, 1, 2, 1, 1]


def test_rerun_of_a_run_that_has_ended() -> None:
    """Also a run that ended with failures that were borne runs its failed targets again."""
    course = go(simple_walk(2, 1, bounds=Bounds(failures=1)), bad=("store/0/s0",))
    assert course.outcome == "failed"
    assert go(say(course, "rerun")).outcome == "done"


def test_undo_goes_in_reverse_order_over_what_began() -> None:
    """Undone is what was done or may have been, the last first; nothing that never began."""
    course = go(simple_walk(3, 2, bounds=Bounds(at_once=1)), bad=("store/1/s1",))
    course = say(course, "undo")
    order = []
    while not course.outcome:
        move = moves(course, START)[0]
        if isinstance(move, Note):
            course = step(course, move.mark)
        else:
            assert isinstance(move, Undo)
            order.append(move.step)
            course = step(begin(course, move), after(move, "done"))
    assert order == ["store/1/s1", "store/1/s0", "store/0/s1", "store/0/s0"]
    assert course.outcome == "undone"


def test_then_undo() -> None:
    """Where stopping means undoing, no human is asked."""
    bounds = Bounds(at_once=1, then="undo")
    course = go(simple_walk(3, 1, bounds=bounds), until="store/1/s0")
    course = go(step(course, Mark("failed", "store/1/s0")))
    assert course.outcome == "undone"
    assert states(course) == ["undone", "undone", "waiting"]


def test_undo_of_an_ended_run() -> None:
    """A run that is done can be undone, and not twice."""
    course = go(say(go(simple_walk(2, 1)), "undo"))
    assert course.outcome == "undone"
    assert refusal(course, Signal("x", "undo", "ben", DIGEST)) == "the run is undone"


def test_a_step_without_undo_does_not_stop_the_others() -> None:
    """What cannot be undone is said, and what came before it is undone all the same."""
    walk = simple_walk(1, 3)
    steps = [replace(s, undo=s.name != "s1") for s in walk.lanes[0].steps]
    walk = replace(walk, lanes=(replace(walk.lanes[0], steps=tuple(steps)),))
    course = go(say(go(walk), "undo"))
    assert states(course) == ["undone", "undo-failed", "undone"]
    assert course.outcome == "failed"
    assert "cannot be undone" in course.steps["store/0/s1"].why


def test_a_failed_undo_leaves_what_came_before_it_on_that_target() -> None:
    """Where an undo failed, the target is left as it is; other targets are undone."""
    course = say(go(simple_walk(2, 2, bounds=Bounds(at_once=1))), "undo")
    course = go(course, bad=("store/1/s1",))
    assert states(course) == ["undone", "undone", "done", "undo-failed"]
    assert course.outcome == "failed"
    course = go(say(course, "undo"))
    assert course.outcome == "undone", "a second word undoes the rest"


@pytest.mark.parametrize(
    ("recovery", "move"),
    [
        ("retry", Do("store/0/s0", 2)),
        ("check", Check("store/0/s0", 1)),
        (
            "ask",
            Note(Mark("unknown", "store/0/s0", body={"why": "its engine died while it acted"})),
        ),
    ],
)
def test_recovery_of_a_step_that_was_cut_off(recovery: str, move: Move) -> None:
    """A step whose engine died is done again, checked, or left to a human: as it is declared."""
    course = go(simple_walk(1, 1, recovery=recovery), until="store/0/s0")
    assert moves(course, START) == ()
    assert moves(step(course, Mark("taken")), START) == (move,)


@pytest.mark.parametrize(
    ("outcome", "state", "end"),
    [("done", "done", "done"), ("never", "waiting", ""), ("failed", "failed", "")],
)
def test_what_a_check_finds_out(outcome: str, state: str, end: str) -> None:
    """A check says whether the step happened; it counts as if its engine had lived."""
    course = go(simple_walk(1, 1, recovery="check"), until="store/0/s0")
    course = step(step(course, Mark("taken")), after(Check("store/0/s0"), outcome))
    assert states(course) == [state]
    assert go(course, until="store/0/s0").outcome == end


def test_what_nobody_knows_waits_for_a_human() -> None:
    """An unknown outcome holds the run; `accept` counts it as done and lets the run go on."""
    course = go(simple_walk(1, 2, recovery="check"), until="store/0/s0")
    course = step(course, Mark("taken"))
    course = go(step(course, after(Check("store/0/s0"), "unknown")))
    assert show(course, START).why == "nobody knows whether store/0/s0 happened"
    course = go(say(course, "accept", step="store/0/s0"))
    assert course.outcome == "done"
    assert course.steps["store/0/s0"].why == "accepted by ben"
    assert course.steps["store/0/s0"].attempts == 1


def test_an_unknown_step_that_somebody_says_never_happened_goes_again() -> None:
    """`rerun` with its name does an unknown step again; without a name it is left alone."""
    course = go(simple_walk(1, 1), until="store/0/s0")
    course = go(step(course, Mark("taken")))
    assert go(say(course, "rerun")).outcome == "failed"
    assert go(say(course, "rerun", step="store/0/s0")).outcome == "done"


def test_an_undo_that_was_cut_off() -> None:
    """It is done again, or left to a human where its step says `ask`."""
    ended = opened(simple_walk(1, 1))
    for recovery, expected in (("retry", Undo), ("check", Undo), ("ask", Note)):
        course = say(go(simple_walk(1, 1, recovery=recovery)), "undo")
        course = step(begin(course, Undo("store/0/s0", 1)), Mark("taken"))
        assert isinstance(moves(course, START)[0], expected)
        ended = go(course)
        assert ended.outcome == ("" if recovery == "ask" else "undone")
    assert go(say(ended, "accept", step="store/0/s0")).outcome == "undone"


def test_later_holds_nothing_until_its_time() -> None:
    """A step that goes on later is begun again at its time, as the same attempt."""
    course = go(simple_walk(1, 1), until="store/0/s0")
    at = time_text(START + timedelta(seconds=10))
    course = step(course, after(Do("store/0/s0"), "later", body={"round": 1}, again_at=at))
    assert moves(course, START) == (Wake(at, is_rest=True),)
    then = START + timedelta(seconds=10)
    move = Do("store/0/s0", 1, goes_on=True)
    assert moves(course, then) == (move,)
    assert call(course, move).before == {"round": 1}
    assert go(course, now=then).outcome == "done"


def test_a_held_run_goes_on_watching() -> None:
    """What has begun and goes on later does so while nothing new begins; not once cancelled."""
    course = go(simple_walk(1, 2), until="store/0/s0")
    at = time_text(START)
    course = step(course, after(Do("store/0/s0"), "later", again_at=at))
    paused = go(say(course, "pause"))
    assert states(paused) == ["done", "waiting"]
    assert states(go(say(course, "cancel"))) == ["later", "waiting"]


def test_a_question_stops_what_is_new_until_it_is_answered() -> None:
    """An open question holds the run, and the answer reaches the step that asked."""
    course = go(simple_walk(2, 1, bounds=Bounds(at_once=1)), until="store/0/s0")
    course = step(course, after(Do("store/0/s0"), "asked", body={"question": "how many?"}))
    assert moves(course, START) == (Await(("answer",)),)
    assert show(course, START).state == "held"
    course = say(course, "answer", answer=12)
    move = moves(course, START)[0]
    assert isinstance(move, Do)
    assert call(course, move).before == {
        "question": "how many?",
        "answer": 12,
        "answered_by": "ben",
    }
    assert go(course).outcome == "done"


def test_nothing_begins_before_it_is_approved() -> None:
    """A run waits for the words that it awaits; each counts for its own digest alone."""
    course = go(simple_walk(1, 1, awaits=("approval",)))
    assert show(course, START).state == "waiting"
    assert moves(course, START) == (Await(("approval",)),)
    foreign = heard(course, Signal("a", "approval", "ben", "e" * 64))
    assert foreign.body["ignored"] == "it is for another plan: eeeeeeeeeeeeeeee"
    assert go(step(course, foreign)).outcome == ""
    assert go(say(course, "approval")).outcome == "done"


def test_not_before_its_time() -> None:
    """A run begins at its time, by the calendar."""
    begins = START + timedelta(hours=1)
    walk = simple_walk(1, 1, begins_at=begins.isoformat())
    course = go(walk)
    assert moves(course, START) == (Wake(time_text(begins)),)
    assert show(course, START).wakes_at == time_text(begins)
    assert go(course, now=begins).outcome == "done"


def test_expired_before_it_began() -> None:
    """What has not begun by its time never does, also when the clock is set back afterwards."""
    expires = START + timedelta(hours=1)
    walk = simple_walk(1, 1, awaits=("approval",), expires_at=time_text(expires))
    course = go(go(walk), now=expires)
    assert course.outcome == "expired"
    late = Signal("a", "approval", "ben", DIGEST)
    assert refusal(course, late) == "the run has ended: expired"
    assert moves(course, START - timedelta(days=1)) == ()


def test_expired_while_it_ran() -> None:
    """What was under way ends; what had not begun does not, whatever the clock says later."""
    expires = START + timedelta(hours=1)
    walk = simple_walk(3, 2, bounds=Bounds(at_once=1), expires_at=time_text(expires))
    course = go(walk, until="store/0/s0")
    course = go(step(course, Mark("done", "store/0/s0")), now=expires, until="store/0/s1")
    course = go(step(course, Mark("done", "store/0/s1")), now=START)
    assert course.outcome == "expired"
    assert states(course) == ["done", "done", "waiting", "waiting", "waiting", "waiting"]


def test_cancelled_before_it_began() -> None:
    """A run that is cancelled before anything began has ended; one that has begun is held."""
    waiting = go(simple_walk(1, 1, awaits=("approval",)))
    assert go(say(waiting, "cancel", why="not today")).outcome == "cancelled"
    begun = go(simple_walk(1, 2), until="store/0/s0")
    held = go(step(say(begun, "cancel", why="not today"), Mark("done", "store/0/s0")))
    assert show(held, START).why == "cancelled by ben: not today"
    assert states(held) == ["done", "waiting"]
    assert go(say(held, "resume")).outcome == "done"


def test_a_held_run_is_taken_as_it_stands() -> None:
    """`accept` without a step ends a held run, and says how much of it was done."""
    course = go(simple_walk(3, 1, bounds=Bounds(at_once=1)), bad=("store/1/s0",))
    course = go(say(course, "accept"))
    assert course.outcome == "cancelled"
    assert course.why == "taken as it stands; 1 of 3 done; 1 failed, 1 not begun"


@pytest.mark.parametrize(
    ("signal", "why"),
    [
        (Signal("a", "resume", "ben", DIGEST), "the run is not held"),
        (Signal("a", "dance", "ben", DIGEST), "this run expects no word `dance`"),
        (Signal("a", "undo", "ben", ""), "it is for another plan: none"),
        (Signal("a", "answer", "ben", DIGEST, {"answer": 1}), "no question is open"),
        (Signal("a", "accept", "ben", DIGEST, {"step": "store/9/x"}), "this run has no step"),
        (Signal("a", "accept", "ben", DIGEST, {"step": "store/0/s0"}), "store/0/s0 is begun"),
        (Signal("a", "accept", "ben", DIGEST, {"step": 7}), "this run has no step `7`"),
        (Signal("a", "rerun", "ben", DIGEST), "the run is not held"),
    ],
)
def test_words_that_mean_nothing_are_marked_with_the_reason(signal: Signal, why: str) -> None:
    """A word that does not count leaves a mark that says why, and changes nothing else."""
    course = go(simple_walk(1, 1), until="store/0/s0")
    mark = heard(course, signal)
    assert why in str(mark.body["ignored"])
    after_it = step(course, mark)
    assert after_it._replace(marks=0) == course._replace(marks=0)


def test_a_word_twice_counts_once() -> None:
    """The same id again is not heard again."""
    course = go(simple_walk(1, 1, awaits=("approval",)))
    signal = Signal("a", "approval", "ben", DIGEST)
    course = step(course, heard(course, signal))
    assert heard(course, signal).body["ignored"] == "it was heard before"


def test_what_waits_to_be_done_again_is_undone_too() -> None:
    """A failed step may have done something: also while it waits for its next attempt."""
    walk = simple_walk(2, 1, bounds=Bounds(at_once=1))
    course = go(walk, bad=("store/0/s0",))
    course = say(say(course, "rerun"), "undo")
    assert states(course) == ["again", "waiting"]
    assert states(go(course)) == ["undone", "waiting"]


def test_a_late_word_is_not_taken_for_another_attempt() -> None:
    """A word about a step's first attempt does not count for its second."""
    course = go(step(go(simple_walk(1, 1), until="store/0/s0"), Mark("taken")))
    late = Signal("late", "rerun", "ben", DIGEST, {"step": "store/0/s0", "attempt": 1})
    assert refusal(course, late) == ""
    course = go(say(course, "rerun", step="store/0/s0", attempt=1), until="store/0/s0")
    course = go(step(course, Mark("taken")))
    assert course.steps["store/0/s0"].state == "unknown"
    assert "about attempt 1" in refusal(course, late)


def test_marks_that_make_no_sense_are_refused() -> None:
    """A mark of no known kind, of a step that is not there, or of no wave: the journal's fault."""
    course = opened(simple_walk(1, 1))
    with pytest.raises(JournalError, match="a mark `dance`"):
        step(course, Mark("dance"))
    with pytest.raises(JournalError, match="does not have"):
        step(course, Mark("done", "store/9/s0"))
    with pytest.raises(JournalError, match="no wave 7"):
        step(course, Mark("wave-begun", body={"number": 7}))


@pytest.mark.parametrize("body", ["{", "[]", '{"step":7}', '{"body":7}', "[" * 100_000])
def test_bodies_that_are_no_marks(body: str) -> None:
    """A record that holds no mark is refused, and not taken for one."""
    with pytest.raises(JournalError, match="cannot be read"):
        read_mark("done", "", body)


def test_walks_and_words_that_cannot_be_read() -> None:
    """A walk of a newer format and a word without a run are refused."""
    with pytest.raises(JournalError, match="format 9"):
        read_walk(Mark("opened", body={"walk": {"format": 9}}))
    with pytest.raises(JournalError, match="cannot be read"):
        read_walk(Mark("opened", body={"walk": {"format": 1, "lanes": 7}}))
    with pytest.raises(JournalError, match="cannot be read"):
        read_signal('{"signal":{}}')


def _lane(target: str, *names: str) -> Lane:
    return Lane(target, tuple(WalkStep(name, "fake") for name in names))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"digest": ""}, "no digest"),
        ({"format": 2}, "format 2"),
        ({"lanes": (_lane("a", "x"), _lane("a", "x"))}, "`a` twice"),
        ({"waves": (Wave("w", ("a",)),)}, "not in exactly one wave"),
        ({"waves": (Wave("w", ("a", "b", "b")),)}, "`b` is not in exactly one wave"),
        ({"waves": (Wave("w", ("a", "b"), -1),)}, "less than no time"),
        ({"lanes": (_lane("a", "x"), _lane("b"))}, "no step"),
        ({"lanes": (_lane("a", "x", "x"), _lane("b", "x"))}, "one name"),
        ({"lanes": (_lane("a", "x/y"), _lane("b", "x"))}, "slash"),
        ({"bounds": Bounds(at_once=0)}, "at least one"),
        ({"bounds": Bounds(failures=-1)}, "fewer than no"),
        ({"awaits": ("undo",)}, "can await the word `undo`"),
        ({"begins_at": "tomorrow"}, "is not a time"),
        ({"expires_at": "2026-01-01T00:00:00"}, "is not a time"),
    ],
)
def test_walks_that_are_not_sound(change: dict[str, object], why: str) -> None:
    """A walk that is put together wrongly is refused, in words."""
    lanes = (_lane("a", "x"), _lane("b", "x"))
    walk = Walk(DIGEST, "", "ana", lanes, (Wave("w", ("a", "b")),))
    check(walk)
    with pytest.raises(UsageError, match=why):
        check(replace(walk, **change))  # type: ignore[arg-type]  # as the case says


def test_every_kind_of_mark_has_its_words() -> None:
    """The table of kinds and the fold know the same marks."""
    from handrail.plans.walking import _FOLDS

    assert set(_FOLDS) == set(KINDS)


def test_a_standing_from_marks() -> None:
    """Where a walk stands is told from its marks alone."""
    walk = simple_walk(1, 1)
    marks = [Mark("opened"), Mark("wave-begun", body={"number": 0}), Mark("begun", "store/0/s0")]
    found = standing(walk, marks, START)
    assert (found.state, found.steps["store/0/s0"].state) == ("running", "begun")
    assert len(found.steps) == 1


def test_a_mark_of_a_huge_walk_costs_no_more_than_one_of_a_small_walk() -> None:
    """A walk of 100,000 steps is not copied for each mark."""

    def seconds(lanes: int) -> float:
        course = go(simple_walk(lanes, 2), until="store/0/s0")
        best = 1.0
        for _ in range(30):
            began = time.perf_counter()
            for _ in range(20):
                moves(step(course, Mark("done", "store/0/s0")), START)
            best = min(best, time.perf_counter() - began)
        return best

    assert seconds(50_000) < 5 * seconds(50)
