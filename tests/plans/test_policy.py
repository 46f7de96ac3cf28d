"""The policy: what a team asks, what it may not turn down, and the calendar of freezes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.plans.policy import (
    BINDING,
    DAYS,
    NEVER_ABOVE,
    PASSABLE,
    USUALLY_PASSED,
    Freeze,
    Glass,
    Policy,
)
from support.declarations import problems, read, told, write
from support.mistakes import POLICY

LONDON = ZoneInfo("Europe/London")


def policy(root: Path, text: str) -> Policy:
    return read(write(root, {"policy.yaml": text})).policy


def make_freeze(**said: object) -> Freeze:
    rest: dict[str, object] = dict.fromkeys(("start", "end", "first", "last", "because"), "")
    found = {"risk": "high", "days": (), "zone": "UTC", "place": "policy.yaml:1", **rest, **said}
    return Freeze(**found)  # type: ignore[arg-type]  # a test names any of the fields


@pytest.mark.parametrize(("text", "code", "line", "hint"), POLICY.values(), ids=POLICY)
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, text: str, code: str, line: int, hint: str
) -> None:
    """Each mistake has one error, with its code, its line, and the nearest right word."""
    (problem,) = problems(write(tmp_path, {"policy.yaml": text}))
    assert (problem.code, str(problem.at)) == (code, f"policy.yaml:{line}")
    assert hint in problem.hint


def test_every_mistake_is_told(tmp_path: Path) -> None:
    """An unknown guard does not hide an unknown group or zone."""
    text = "guards: {a: high}\napproval: {by: {high: b}}\nfreezes: [{zone: c}]\n"
    assert told(write(tmp_path, {"policy.yaml": text})) == [
        "policy.unknown-guard policy.yaml:1",
        "policy.unknown-group policy.yaml:2",
        "estate.wrong-type policy.yaml:3",
    ]


@pytest.mark.parametrize("text", [None, "", "# nothing\n", "{}\n"])
def test_without_a_word_the_default_holds(tmp_path: Path, text: str | None) -> None:
    """No file, an empty file and a file of comments ask what the default asks."""
    if text is not None:
        write(tmp_path, {"policy.yaml": text})
    found = read(tmp_path).policy
    default = Policy(file="" if text is None else "policy.yaml")
    assert found == default


def test_the_default_cannot_be_turned_down_by_itself() -> None:
    """Each guard that never bends binds by default at its limit or below."""
    policy = Policy()
    assert all(policy.binds(guard, risk) for guard, risk in NEVER_ABOVE.items())


def test_a_guard_may_be_turned_up_and_down(tmp_path: Path) -> None:
    """A guard binds from the risk that the policy says, and says where that stands."""
    found = policy(tmp_path, "guards:\n  review: none\n  rehearsed: critical\n")
    assert found.binds("review", "none")
    assert not found.binds("rehearsed", "high")
    assert found.binds("rehearsed", "critical")
    assert (found.declared("rehearsed"), found.declared("lock")) == ("policy.yaml:3", "policy.yaml")


def test_who_approves(tmp_path: Path) -> None:
    """A group alone stands for one of it; a mapping says how many, and need not name a group."""
    found = policy(
        tmp_path,
        "groups: {dba: [ben, chi]}\n"
        "approval: {by: {low: dba, high: {of: 2}, critical: {group: dba, of: 2}}}\n",
    )
    assert found.approvers == {"low": "dba", "critical": "dba"}
    assert found.quorum == {"high": 2, "critical": 2}


def test_what_stands(tmp_path: Path) -> None:
    """How long, and up to which risk, an approval may stand; by default 30 days up to high."""
    assert (Policy().standing_risk, Policy().standing_age_s) == ("high", 30 * 86400)
    found = policy(tmp_path, "approval: {standing: {risk: low, max-age: 2d}}\n")
    assert (found.standing_risk, found.standing_age_s) == ("low", 2 * 86400)


def test_glass(tmp_path: Path) -> None:
    """Breaking the glass is allowed by default, and each key of it can be said.

    What an incident taught is passed where a policy says so, and not by default.
    """
    assert Policy().glass == Glass(allowed=True, passes=USUALLY_PASSED, blocks="team")
    assert set(PASSABLE) - set(USUALLY_PASSED) == {"contraindication"}
    taught = policy(tmp_path, "break-glass: {passes: [contraindication]}\n")
    assert taught.glass.passes == ("contraindication",)
    found = policy(
        tmp_path,
        "groups: {dba: [ben]}\nbreak-glass: {by: dba, passes: freeze, blocks: person, "
        "reviewed-by: dba}\n",
    )
    assert found.glass == Glass(
        allowed=True, by="dba", passes=("freeze",), blocks="person", reviewed_by="dba"
    )
    assert not policy(tmp_path, "break-glass: {allowed: false}\n").glass.allowed


def test_nothing_but_people_can_be_passed() -> None:
    """No guard that states a fact of the store, the script or its rehearsal is among them."""
    assert set(PASSABLE) <= set(BINDING)
    facts = {"identity", "lock", "environment", "rehearsed", "backup-proven", "production-data"}
    assert not facts & set(PASSABLE)


def test_a_guard_that_no_policy_knows_binds_always() -> None:
    """A kit's guard can stop any plan until a policy says otherwise."""
    assert Policy().binds("quota", "none")
    assert "quota" not in BINDING


def test_bounds_are_read_in_their_units(tmp_path: Path) -> None:
    """Durations become seconds and percentages fractions; what is not said keeps its default."""
    found = policy(
        tmp_path,
        "rehearsal: {max-age: 2h, drift: 0.5 %, tolerance-rows: 0, confine: require}\n"
        "approval: {max-age: 30m, by: {critical: dba}}\ngroups: {dba: [ben, chi]}\n"
        "undo-for: 2d\n",
    )
    assert (found.rehearsal_age_s, found.drift, found.drift_rows) == (7200, 0.005, 100)
    assert (found.tolerance, found.tolerance_rows, found.confine) == (0.01, 0, "require")
    assert (found.approval_age_s, found.undo_age_s) == (1800, 2 * 86400)
    assert (found.approvers, found.groups) == ({"critical": "dba"}, {"dba": ("ben", "chi")})


@pytest.mark.parametrize(
    ("moment", "frozen"),
    [
        # Summer: London is an hour ahead of UTC.
        (datetime(2026, 7, 3, 13, 59, 59, tzinfo=UTC), False),
        (datetime(2026, 7, 3, 14, 0, tzinfo=UTC), True),
        (datetime(2026, 7, 3, 22, 59, tzinfo=UTC), True),
        (datetime(2026, 7, 3, 23, 0, tzinfo=UTC), False),
        # Winter: London is at UTC.
        (datetime(2026, 1, 30, 14, 59, 59, tzinfo=UTC), False),
        (datetime(2026, 1, 30, 15, 0, tzinfo=UTC), True),
        (datetime(2026, 1, 30, 23, 59, tzinfo=UTC), True),
        (datetime(2026, 1, 31, 0, 0, tzinfo=UTC), False),
        # Another day at the same time, and another zone's name for a frozen moment.
        (datetime(2026, 1, 29, 16, 0, tzinfo=UTC), False),
        (datetime(2026, 1, 30, 16, 0, tzinfo=ZoneInfo("Europe/Berlin")), True),
    ],
)
def test_friday_after_three_in_london(moment: datetime, frozen: bool) -> None:
    """A freeze is by the clock on the team's wall, in summer and in winter."""
    freeze = make_freeze(days=("friday",), start="15:00", zone="Europe/London")
    assert freeze.covers(moment) is frozen


@pytest.mark.parametrize(
    ("day", "frozen"),
    [("2025-12-19", False), ("2025-12-20", True), ("2026-01-02", True), ("2026-01-03", False)],
)
def test_a_range_of_dates_has_both_its_ends(day: str, frozen: bool) -> None:
    """From the first date's midnight to the end of the last date, in the freeze's own zone."""
    freeze = make_freeze(first="2025-12-20", last="2026-01-02", zone="America/New_York")
    for clock in ("00:00", "12:00", "23:59"):
        local = datetime.fromisoformat(f"{day} {clock}").replace(tzinfo=ZoneInfo(freeze.zone))
        assert freeze.covers(local.astimezone(UTC)) is frozen


@pytest.mark.parametrize(
    ("clock", "frozen"),
    [("08:59", False), ("09:00", True), ("16:59", True), ("17:00", False)],
)
def test_a_freeze_begins_with_its_start_and_is_over_at_its_end(clock: str, frozen: bool) -> None:
    """The start belongs to it, the end does not."""
    freeze = make_freeze(start="09:00", end="17:00")
    assert freeze.covers(datetime.fromisoformat(f"2026-01-31 {clock}+00:00")) is frozen


def test_the_end_of_the_day_can_be_said() -> None:
    """`24:00` is the end of the day, as an end that is left out is."""
    late = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
    assert make_freeze(start="15:00", end="24:00").covers(late)
    assert make_freeze(start="15:00").covers(late)


@pytest.mark.parametrize(
    ("moment", "frozen"),
    [
        ("2026-01-30 21:59", False),
        ("2026-01-30 22:00", True),
        ("2026-01-31 05:59", True),
        ("2026-01-31 06:00", False),
        ("2026-01-31 23:00", False),
        ("2026-01-30 05:00", False),
    ],
)
def test_a_freeze_may_last_over_midnight(moment: str, frozen: bool) -> None:
    """An end that is not after the start is on the next day; the day is that of its evening."""
    freeze = make_freeze(days=("friday",), start="22:00", end="06:00")
    assert freeze.covers(datetime.fromisoformat(f"{moment}+00:00")) is frozen


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.sampled_from(DAYS))  # noqa: DTZ001  drawn without, and given one
def test_a_day_is_frozen_from_midnight_to_midnight(moment: datetime, day: str) -> None:
    """A freeze of one weekday covers just the moments that are that weekday there."""
    freeze = make_freeze(days=(day,), zone="Europe/London")
    aware = moment.replace(tzinfo=UTC)
    assert freeze.covers(aware) == (aware.astimezone(LONDON).strftime("%A").lower() == day)


@given(st.integers(0, 2**31), st.integers(0, 1439), st.integers(0, 1439))
def test_a_freeze_and_its_opposite_cover_each_moment_once(at_s: int, start: int, end: int) -> None:
    """From a to b, and from b to a over midnight: together always, never both."""
    moment = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=at_s)
    first, second = (f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (start, end))
    if first == second:
        assert make_freeze(start=first, end=second).covers(moment)
    else:
        forth, back = make_freeze(start=first, end=second), make_freeze(start=second, end=first)
        assert forth.covers(moment) != back.covers(moment)
