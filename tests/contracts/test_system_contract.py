"""The contract of clocks and ids: this machine's and the fakes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from handrail.adapters.system import RandomIds, SystemClock
from handrail.ports import Clock, Ids
from handrail.testing.clock import FakeClock, FakeIds


@pytest.fixture(params=[SystemClock, FakeClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


def test_now_is_utc(clock: Clock) -> None:
    """The wall clock's time is aware, in UTC."""
    assert clock.now().tzinfo is UTC


def test_sleeping_lets_time_pass(clock: Clock) -> None:
    """After a sleep, at least that much time has passed; below zero is none."""
    before = clock.elapsed_s()
    clock.sleep(0.01)
    clock.sleep(-5)
    assert clock.elapsed_s() - before >= 0.01


@pytest.mark.parametrize("ids", [RandomIds(), FakeIds()])
def test_ids_are_32_digits_and_differ(ids: Ids) -> None:
    """Each id is 32 hexadecimal digits, and no two are the same."""
    made = [ids.new() for _ in range(100)]
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)
    assert len(set(made)) == 100


def test_the_system_s_clock_is_the_system_s() -> None:
    """The wall clock is the machine's own."""
    assert abs(SystemClock().now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_jump_moves_the_wall_clock_alone() -> None:
    """A wall clock that is set back leaves the time that has passed as it was."""
    clock = FakeClock()
    before = clock.now()
    clock.jump(-3600)
    clock.advance(60)
    assert clock.now() - before == timedelta(seconds=-3540)
    assert clock.elapsed_s() == 60
