"""When a schedule is due: zones, nights with too many hours and too few, jitter, missed times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.errors import Place
from handrail.operations.model import Schedule
from handrail.plans.schedule import MANY, deadline, jitter_s, look, times

BERLIN, SYDNEY, LORD_HOWE = "Europe/Berlin", "Australia/Sydney", "Australia/Lord_Howe"
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
MOMENTS = st.integers(0, 12 * 366 * 86_400).map(
    lambda s: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=s)
)
CRONS = st.sampled_from(
    [
        "0 3 * * *",
        "30 2 * * *",
        "*/7 * * * *",
        "15 */3 * * *",
        "0 0 1 * *",
        "0 0 29 2 *",
        "0 6 * * 1-5",
        "59 23 L * *",
        "0 12 * * 1#2",
    ]
)
ZONES = st.sampled_from(["UTC", BERLIN, SYDNEY, LORD_HOWE, "America/New_York", "Asia/Kathmandu"])


def make(**said: Any) -> Schedule:
    return Schedule(**{"place": Place("operations/a.yaml", 1), "cron": "0 3 * * *", **said})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def first(cron: str, zone: str, after: str, count: int) -> list[str]:
    found = islice(times(cron, zone, at(after)), count)
    return [f"{time:%Y-%m-%dT%H:%M}" for time in found]


def test_an_hour_that_is_not_there_is_made_up_for_at_once() -> None:
    """Half past two of the night that skips it is three o'clock summer time, once."""
    found = first("30 2 * * *", BERLIN, "2026-03-28T00:00", 3)
    assert found == ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"]
    assert first("0,30 2 * * *", BERLIN, "2026-03-28T12:00", 2)[0] == "2026-03-29T01:00"


def test_an_hour_that_comes_twice_counts_once() -> None:
    """Half past two of the night that has it twice is the first of them, whoever asks when."""
    expected = ["2026-10-25T00:30", "2026-10-26T01:30"]
    assert first("30 2 * * *", BERLIN, "2026-10-24T12:00", 2) == expected
    for after in ("2026-10-25T00:30", "2026-10-25T00:59", "2026-10-25T01:10", "2026-10-25T01:45"):
        assert first("30 2 * * *", BERLIN, after, 1) == expected[1:]


def test_every_quarter_of_an_hour_goes_on_through_both_nights() -> None:
    """What is meant as an interval has no gap and no double, also where clocks move by half."""
    for zone, night in ((BERLIN, "2026-10-25"), (BERLIN, "2026-03-29"), (LORD_HOWE, "2026-04-04")):
        found = list(islice(times("*/15 * * * *", zone, at(f"{night}T00:00")), 96))
        assert {later - one for one, later in pairwise(found)} == {timedelta(minutes=15)}


def test_the_other_half_of_the_world_changes_in_april_and_october() -> None:
    """South of the equator the same holds, with the nights the other way round."""
    assert first("30 2 * * *", SYDNEY, "2026-10-03T00:00", 1) == ["2026-10-03T16:00"]
    assert first("30 2 * * *", SYDNEY, "2026-04-04T00:00", 2) == [
        "2026-04-04T15:30",
        "2026-04-05T16:30",
    ]


def test_a_leap_day_comes_every_four_years() -> None:
    """The 29th of February is due in leap years, and no other day takes its place."""
    assert first("0 0 29 2 *", "UTC", "2026-01-01T00:00", 2) == [
        "2028-02-29T00:00",
        "2032-02-29T00:00",
    ]
    assert first("0 0 29 2 *", "UTC", "2096-03-01T00:00", 1) == ["2104-02-29T00:00"]


@settings(deadline=None)
@given(cron=CRONS, zone=ZONES, after=MOMENTS)
def test_times_go_forward(cron: str, zone: str, after: datetime) -> None:
    """Each is later than the one before, and all are later than what was asked for."""
    found = [after, *islice(times(cron, zone, after), 5)]
    assert all(one < later for one, later in pairwise(found))


@settings(deadline=None)
@given(cron=CRONS, zone=ZONES, after=MOMENTS, part=st.floats(0, 0.999))
def test_asking_in_between_changes_nothing(
    cron: str, zone: str, after: datetime, part: float
) -> None:
    """Whoever asks between two times is told the second: no look leads another way."""
    one, later = islice(times(cron, zone, after), 2)
    between = one + (later - one) * part
    assert next(times(cron, zone, between)) == later


@settings(deadline=None)
@given(
    cron=CRONS,
    zone=ZONES,
    after=MOMENTS,
    steps=st.lists(st.integers(1, 400_000), min_size=1, max_size=8),
    jitter=st.sampled_from([0, 600, 7200]),
    late=st.sampled_from([0, 3600, 90_000]),
    missed=st.sampled_from(["skip", "once"]),
)
def test_every_time_is_begun_or_skipped_once(
    cron: str, zone: str, after: datetime, steps: list[int], jitter: int, late: int, missed: str
) -> None:
    """However often and when it is looked, no time is begun twice, and none disappears."""
    schedule = make(cron=cron, zone=zone, jitter_s=jitter, late_s=late, missed=missed)
    now = base = after
    begun: list[datetime] = []
    skipped = 0
    for step in steps:
        now += timedelta(seconds=step)
        found = look("a", schedule, base, now, begun)
        if found.skipped:
            skipped += found.skipped.count
            base = max(base, found.skipped.last)
        if found.due:
            assert found.due.begins_at <= now
            assert found.due.time not in begun
            begun.append(found.due.time)
            base = max(base, found.due.time)
    every = []
    for time in times(cron, zone, after):
        if time > base:
            break
        every.append(time)
    assert len(begun) + skipped == len(every) or skipped >= MANY


@given(time=MOMENTS, most=st.integers(0, 86_400))
def test_jitter_is_the_same_for_everybody_and_inside_its_bound(time: datetime, most: int) -> None:
    """It comes from operation, schedule and time alone."""
    schedule = make(jitter_s=most)
    drawn = jitter_s("a", schedule, time)
    assert drawn == jitter_s("a", make(jitter_s=most), time)
    assert 0 <= drawn <= most


def test_jitter_spreads_operations_over_its_whole_time() -> None:
    """A hundred operations of one hour's jitter begin in every quarter of it."""
    schedule = make(jitter_s=3600)
    drawn = {jitter_s(f"operation-{n}", schedule, START) // 900 for n in range(100)}
    assert {0, 1, 2, 3} <= drawn


def test_nothing_begins_before_its_jitter_is_over() -> None:
    """Between the time and its jitter nothing is due, and the next look is at its end."""
    schedule = make(jitter_s=3600)
    time = at("2026-01-06T03:00")
    late_s = jitter_s("a", schedule, time)
    assert late_s > 1
    begins_at = time + timedelta(seconds=late_s)
    before = look("a", schedule, START, begins_at - timedelta(seconds=1))
    assert (before.due, before.skipped, before.wakes_at) == (None, None, begins_at)
    found = look("a", schedule, START, begins_at)
    assert found.due is not None
    assert found.due.time == time


def test_years_of_minutes_are_counted_as_many_and_at_once() -> None:
    """A server that was off for two years begins one, and does not count a million."""
    schedule = make(cron="* * * * *", missed="once")
    now = START + timedelta(days=730)
    found = look("a", schedule, START, now)
    assert found.due is not None
    assert found.due.time == now
    assert found.skipped is not None
    assert found.skipped.count == MANY
    assert found.skipped.last < now


def test_the_end_of_the_calendar_is_an_end() -> None:
    """A clock in the year 9999 breaks nothing."""
    assert list(times("0 0 * * *", "UTC", datetime(9999, 12, 30, 12, tzinfo=UTC))) == [
        datetime(9999, 12, 31, tzinfo=UTC)
    ]


@pytest.mark.parametrize(
    ("said", "since", "succeeded", "expected"),
    [
        ({"expect_s": 26 * 3600}, "2026-01-05T03:05", True, "2026-01-06T05:05"),
        ({"expect_s": 26 * 3600}, "2026-01-05T03:05", False, "2026-01-06T05:05"),
        ({"by": "0 6 * * *"}, "2026-01-05T03:05", True, "2026-01-06T06:00"),
        ({"by": "0 6 * * *"}, "2026-01-05T03:05", False, "2026-01-05T06:00"),
        ({"by": "0 6 * * *"}, "2026-01-05T06:00", True, "2026-01-07T06:00"),
        ({"by": "0 6 * * 1-5"}, "2026-01-09T03:05", True, "2026-01-12T06:00"),
        ({"by": "0 6 * * *", "zone": BERLIN}, "2026-03-28T03:05", True, "2026-03-29T04:00"),
        ({"by": "0 6 * * *", "expect_s": 3600}, "2026-01-05T03:05", True, "2026-01-05T04:05"),
        ({}, "2026-01-05T03:05", True, None),
    ],
)
def test_when_a_success_is_expected(
    said: dict[str, Any], since: str, succeeded: bool, expected: str | None
) -> None:
    """A success keeps the hour that it was made for; the next hour wants the next success."""
    found = deadline(make(**said), at(since), succeeded=succeeded)
    assert found == (at(expected) if expected else None)
