"""What holds of every walk: engines die, clocks jump, and humans say anything."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.plans.canonical import encode_plain
from handrail.plans.moving import moves
from handrail.plans.walk import Mark
from handrail.plans.walk_records import check, mark_body, opened_mark, read_mark, read_walk
from handrail.plans.walking import course, opened, step
from support.walk_games import START, Game, look_at_end, random_walk


@given(st.integers(0, 2**32))
@settings(max_examples=400, deadline=None)
def test_every_walk_that_is_answered_ends_truthfully(seed: int) -> None:
    """No done step acts again, no bound is passed, nothing is undone that never began, and it ends.

    What must hold at each mark is asserted by the game itself.
    """
    random = Random(seed)
    game = Game(random_walk(random), random)
    game.play()
    look_at_end(game)


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_the_same_marks_give_the_same_moves(seed: int) -> None:
    """After each mark, whoever reads the journal thinks the same as who wrote it."""
    random = Random(seed)
    game = Game(random_walk(random), random)
    game.play()
    gone_on = opened(game.walk)
    for number, mark in enumerate(game.marks, 1):
        gone_on = step(gone_on, mark)
        if random.random() < 0.2:
            read = course(game.walk, [_read(m) for m in game.marks[:number]])
            assert moves(read, game.now) == moves(gone_on, game.now)


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_a_walk_comes_back_from_the_journal_as_it_was(seed: int) -> None:
    """A walk is sound, and read again it is the same."""
    walk = random_walk(Random(seed))
    check(walk)
    assert read_walk(_read(opened_mark(walk, 7))) == walk
    assert moves(opened(walk), START) == moves(
        opened(read_walk(_read(opened_mark(walk, 0)))), START
    )


def _read(mark: Mark) -> Mark:
    """Return a mark as the journal gives it back."""
    return read_mark(mark.kind, mark.time, encode_plain(mark_body(mark)))
