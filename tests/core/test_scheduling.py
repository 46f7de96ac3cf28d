"""Scheduling: what is due begins once, what was missed is told, and nothing is made up twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from handrail.core import records, scheduling, taking
from handrail.core.schedule_records import chain_of, lock_of
from handrail.core.scheduling import Standing
from handrail.errors import FencedError, UsageError
from handrail.plans.schedule import Due
from handrail.ports import Entry, Record
from support.worlds import BEN, ROWS, FakeWorld, commit

NIGHTLY = 'schedule: {cron: "0 3 * * *"'
FREE = (
    "guards: {review: critical, backup-proven: critical, rehearsed: critical, committed: critical,"
    " avoidable: critical, unheld: critical, privilege: critical, production-data: critical}\n"
)
DAY_S, HOUR_S = 86400, 3600
NEXT_NIGHT = datetime(2026, 1, 6, 3, 0, tzinfo=UTC)
HEAD = "operation: trim\nrun: ./scripts/trim.sh\non: store/pilot-db\nundo: restore\n"
HEAD += "watch: {soak: 0s}\neffects: [{insert: table sessions, rows: 5}]\n"
ADD = "INSERT INTO sessions (device) VALUES (7)"


def schedule(fake: FakeWorld, more: str = "") -> FakeWorld:
    """Let an operation that only adds rows run each night at three: nobody has to approve it."""
    fake.write("operations/trim.yaml", f"{HEAD}{NIGHTLY}{more}}}\n")
    fake.write("policy.yaml", FREE)
    fake.processes.programs = {**fake.processes.programs, "trim.sh": fake.program(ADD)}
    commit(fake, 2)
    return fake


@pytest.fixture
def nightly(fake: FakeWorld) -> FakeWorld:
    """A world in which an operation runs each night at three, UTC."""
    return schedule(fake)


def carry(fake: FakeWorld) -> Callable[[Due], None]:
    def begin(due: Due) -> None:
        taking.carry_out(fake.world(), fake.declared, due, fake.talk)

    return begin


def tick(fake: FakeWorld) -> datetime:
    return scheduling.tick(fake.world(), fake.declared, carry(fake))


def to(fake: FakeWorld, moment: datetime) -> None:
    fake.clock.jump((moment - fake.clock.now()).total_seconds())


def kinds(fake: FakeWorld) -> list[str]:
    return fake.kinds(chain_of("trim"))


def bodies(fake: FakeWorld, kind: str) -> list[dict[str, Any]]:
    found = fake.journal.records(chain_of("trim"))
    return [records.body(record) for record in found if record.kind == kind]


def standing(fake: FakeWorld) -> Standing:
    (found,) = scheduling.standings(fake.world(), fake.declared)
    return found


def test_a_due_time_is_planned_run_and_recorded(nightly: FakeWorld) -> None:
    """At its time the operation runs like any other, and the record says which run it was."""
    assert tick(nightly) <= nightly.clock.now() + timedelta(minutes=1)
    assert kinds(nightly) == ["declared"]
    to(nightly, NEXT_NIGHT)
    tick(nightly)
    assert kinds(nightly) == ["declared", "due", "begun", "ended"]
    assert bodies(nightly, "ended")[0]["outcome"] == "confirmed", bodies(nightly, "ended")
    assert nightly.count() == ROWS + 1
    opened = next(nightly.journal.records("run-1"))
    request = records.body(opened)["plan"]["request"]
    assert (request["person"], request["because"]) == (
        "schedule",
        "due 2026-01-06T03:00:00.000000Z by 0 3 * * * UTC",
    )


def test_a_schedule_begins_with_the_first_look_at_it(nightly: FakeWorld) -> None:
    """What would have been due before anybody looked never happens."""
    tick(nightly)
    tick(nightly)
    assert kinds(nightly) == ["declared"]
    assert standing(nightly).next_at == NEXT_NIGHT


def test_a_time_is_begun_once_however_often_it_is_looked_at(nightly: FakeWorld) -> None:
    """Looking again, at once or later that day, begins nothing."""
    tick(nightly)
    to(nightly, NEXT_NIGHT)
    for _ in range(3):
        tick(nightly)
        nightly.clock.advance(600)
    assert nightly.count() == ROWS + 1


def test_a_clock_that_is_set_back_begins_nothing_twice(nightly: FakeWorld) -> None:
    """The same three o'clock comes again, and is known; the next one begins."""
    tick(nightly)
    to(nightly, NEXT_NIGHT)
    tick(nightly)
    nightly.clock.jump(-2 * HOUR_S)
    for _ in range(8):
        tick(nightly)
        nightly.clock.advance(1800)
    assert nightly.count() == ROWS + 1
    to(nightly, NEXT_NIGHT + timedelta(days=1))
    tick(nightly)
    assert nightly.count() == ROWS + 2


def test_a_clock_that_was_years_ahead_for_a_moment_silences_nothing(nightly: FakeWorld) -> None:
    """Back in the present, the next night begins as if nothing had been."""
    tick(nightly)
    to(nightly, NEXT_NIGHT + timedelta(days=3650))
    tick(nightly)
    ran_ahead = nightly.count()
    to(nightly, NEXT_NIGHT - timedelta(hours=1))
    tick(nightly)
    assert nightly.count() == ran_ahead
    to(nightly, NEXT_NIGHT + timedelta(seconds=1))
    tick(nightly)
    assert nightly.count() == ran_ahead + 1


def test_a_clock_set_back_before_all_records_begins_each_later_time_once(
    nightly: FakeWorld,
) -> None:
    """With nothing known of the present, it starts as new, and still repeats nothing it knows."""
    tick(nightly)
    to(nightly, NEXT_NIGHT)
    tick(nightly)
    to(nightly, NEXT_NIGHT - timedelta(days=2, hours=1))
    for _ in range(3 * 24):
        tick(nightly)
        nightly.clock.advance(HOUR_S)
    times = [body["time"] for body in bodies(nightly, "due")]
    assert len(times) == len(set(times)) == nightly.count() - ROWS == 3


@pytest.mark.parametrize(
    ("more", "down_h", "runs", "skipped"),
    [
        ("", 0.5, 1, 0),
        ("", 3, 0, 1),
        (", late: 6h", 3, 1, 0),
        (", late: 6h", 3 + 24, 1, 1),
        (", missed: once", 72 + 3, 1, 3),
        ("", 72 + 3, 0, 4),
    ],
    ids=["late", "too late", "may be late", "two, one late", "made up once", "skipped"],
)
def test_what_was_missed_follows_the_policy(
    fake: FakeWorld, more: str, down_h: float, runs: int, skipped: int
) -> None:
    """However many times passed, at most one begins; the others are recorded with their number."""
    schedule(fake, more)
    tick(fake)
    to(fake, NEXT_NIGHT + timedelta(hours=down_h))
    tick(fake)
    assert fake.count() - ROWS == runs
    assert sum(body["count"] for body in bodies(fake, "skipped")) == skipped
    to(fake, NEXT_NIGHT + timedelta(days=5))
    tick(fake)
    assert fake.count() - ROWS == runs + 1


def test_what_needs_approval_waits_and_goes_on_once_approved(fake: FakeWorld) -> None:
    """A plan of high risk waits; nobody is `schedule`, so anybody may approve, and then it runs."""
    yaml = "operation: trim\nrun: ./scripts/trim.sh\non: store/pilot-db\nundo: restore\n"
    fake.write("operations/trim.yaml", f"{yaml}watch: {{soak: 0s}}\n{NIGHTLY}, rehearse: true}}\n")
    commit(fake, 2)
    tick(fake)
    to(fake, NEXT_NIGHT)
    tick(fake)
    assert kinds(fake)[-1] == "waiting"
    count = len(kinds(fake))
    fake.clock.advance(600)
    tick(fake)
    assert len(kinds(fake)) == count
    plan = records.find_plan(fake.journal, bodies(fake, "waiting")[0]["plan"])
    from handrail.core import approving

    approving.approve(fake.world(BEN), fake.declared, plan, Path(BEN), typed=plan.target.resource)
    tick(fake)
    assert kinds(fake)[-1] == "ended"
    assert fake.count() == 5


def test_what_nobody_approves_is_over_with_the_next_time(fake: FakeWorld) -> None:
    """The next due time takes its place; yesterday's is recorded as skipped."""
    yaml = "operation: trim\nrun: ./scripts/trim.sh\non: store/pilot-db\nundo: restore\n"
    fake.write("operations/trim.yaml", f"{yaml}{NIGHTLY}, rehearse: true}}\n")
    commit(fake, 2)
    tick(fake)
    to(fake, NEXT_NIGHT)
    tick(fake)
    to(fake, NEXT_NIGHT + timedelta(days=1))
    tick(fake)
    (skipped,) = bodies(fake, "skipped")
    assert skipped["time"] == "2026-01-06T03:00:00.000000Z"
    assert "still waited" in skipped["why"]
    assert [body["time"][:10] for body in bodies(fake, "waiting")] == ["2026-01-06", "2026-01-07"]


def test_what_a_guard_refuses_is_recorded_with_its_reason(fake: FakeWorld) -> None:
    """A script that nobody rehearsed is refused, and the record says what to do."""
    text = (fake.root / "operations/trim.yaml").read_text()
    fake.write("operations/trim.yaml", f"{text}{NIGHTLY}}}\n")
    commit(fake, 2)
    tick(fake)
    to(fake, NEXT_NIGHT)
    tick(fake)
    (refused,) = bodies(fake, "refused")
    assert refused["why"]
    assert refused["hint"]
    assert fake.count() == ROWS
    assert standing(fake).last == "refused"


def test_a_target_in_use_is_waited_for_as_long_as_it_may_be_late(nightly: FakeWorld) -> None:
    """Held by somebody's run it is postponed; freed in time it begins, else it is skipped."""
    tick(nightly)
    to(nightly, NEXT_NIGHT)
    with nightly.locks.hold("store/pilot-db", "ana"):
        tick(nightly)
        assert kinds(nightly)[-1] == "postponed"
        for _ in range(50):
            nightly.clock.advance(60)
            tick(nightly)
        assert kinds(nightly).count("postponed") == 1
        assert len(tuple(nightly.journal.records(nightly.journal.chains("plans-")[0]))) == 1
    nightly.clock.advance(60)
    tick(nightly)
    assert kinds(nightly)[-1] == "ended"
    to(nightly, NEXT_NIGHT + timedelta(days=1))
    with nightly.locks.hold("store/pilot-db", "ana"):
        tick(nightly)
        nightly.clock.advance(HOUR_S + 61)
        tick(nightly)
    assert "too late" in bodies(nightly, "skipped")[-1]["why"]


def test_while_one_is_carried_out_the_next_is_left_alone(nightly: FakeWorld) -> None:
    """Another server's look at a schedule that is being carried out records and begins nothing."""
    tick(nightly)
    to(nightly, NEXT_NIGHT)
    with nightly.locks.hold(lock_of("trim"), "another server"):
        tick(nightly)
        assert kinds(nightly) == ["declared"]
    tick(nightly)
    assert kinds(nightly)[-1] == "ended"


def test_two_servers_that_look_at_once_begin_it_once(nightly: FakeWorld) -> None:
    """Both hand the same time over; who comes second finds it done."""
    tick(nightly)
    to(nightly, NEXT_NIGHT)
    due: list[Due] = []
    for _ in range(2):
        scheduling.tick(nightly.world(), nightly.declared, due.append)
    assert len(due) == 2
    for one in due:
        taking.carry_out(nightly.world(), nightly.declared, one, nightly.talk)
    assert nightly.count() == ROWS + 1


def test_a_record_that_another_server_wrote_meanwhile_makes_it_look_again(
    nightly: FakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that was overtaken writes nothing, and sees what the other wrote."""
    write = nightly.journal.write
    calls: list[Sequence[Entry]] = []

    def overtaken(entries: Sequence[Entry]) -> tuple[Record, ...]:
        if not calls:
            calls.append(entries)
            nightly.journal.append(chain_of("trim"), "resumed", {"person": "ana"})
            raise FencedError("journal.fenced", "another was first")
        return write(entries)

    monkeypatch.setattr(nightly.journal, "write", overtaken)
    tick(nightly)
    assert kinds(nightly) == ["resumed", "declared"]


@pytest.mark.parametrize("died_at", ["due", "begun"])
def test_what_a_dead_process_took_is_begun_or_found(nightly: FakeWorld, died_at: str) -> None:
    """Without a run of it, it is begun; with one, that one is found, and none begins beside it."""

    class DeadError(BaseException):
        pass

    tick(nightly)
    to(nightly, NEXT_NIGHT)
    append = nightly.journal.append

    def dying(chain: str, kind: str, body: Mapping[str, Any]) -> Record:
        record = append(chain, kind, body)
        if chain == chain_of("trim") and kind == died_at:
            raise DeadError
        return record

    nightly.journal.append = dying  # type: ignore[method-assign]
    with pytest.raises(DeadError):
        tick(nightly)
    nightly.journal.append = append  # type: ignore[method-assign]
    nightly.clock.advance(60)
    tick(nightly)
    assert len(nightly.journal.chains("run-")) == 1
    if died_at == "due":
        assert kinds(nightly) == ["declared", "due", "due", "begun", "ended"]
        return
    assert kinds(nightly) == ["declared", "due", "begun"]
    nightly.resume(1)
    tick(nightly)
    assert kinds(nightly) == ["declared", "due", "begun", "ended"]
    assert nightly.count() == ROWS + 1


def test_a_run_is_found_that_was_opened_and_not_noted(nightly: FakeWorld) -> None:
    """A process that died between opening the run and noting it has begun it all the same."""

    class DeadError(BaseException):
        pass

    tick(nightly)
    to(nightly, NEXT_NIGHT)
    append = nightly.journal.append

    def dying(chain: str, kind: str, body: Mapping[str, Any]) -> Record:
        if chain == chain_of("trim") and kind == "begun":
            raise DeadError
        return append(chain, kind, body)

    nightly.journal.append = dying  # type: ignore[method-assign]
    with pytest.raises(DeadError):
        tick(nightly)
    nightly.journal.append = append  # type: ignore[method-assign]
    tick(nightly)
    assert kinds(nightly) == ["declared", "due", "begun"]
    assert bodies(nightly, "begun")[0]["run"] == 1


def test_what_ends_its_process_each_time_is_given_up(nightly: FakeWorld) -> None:
    """After three attempts that left no run behind, it is skipped, and said so."""

    class DeadError(BaseException):
        pass

    tick(nightly)
    to(nightly, NEXT_NIGHT)
    identify = nightly.store.identify

    def dying() -> Any:
        raise DeadError

    nightly.store.identify = dying  # type: ignore[method-assign]
    for _ in range(3):
        with pytest.raises(DeadError):
            tick(nightly)
    tick(nightly)
    nightly.store.identify = identify  # type: ignore[method-assign]
    assert kinds(nightly) == ["declared", "due", "due", "due", "skipped"]
    assert "died, 3 times" in bodies(nightly, "skipped")[0]["why"]


def test_a_paused_schedule_begins_nothing_and_makes_up_for_nothing(nightly: FakeWorld) -> None:
    """Who paused it and why is said; resumed, it begins with the next time."""
    tick(nightly)
    scheduling.pause(nightly.world(), nightly.declared, "trim", "we move")
    to(nightly, NEXT_NIGHT + timedelta(hours=1))
    tick(nightly)
    found = standing(nightly)
    assert (found.paused["because"], found.next_at) == ("we move", None)
    scheduling.resume(nightly.world(), nightly.declared, "trim")
    tick(nightly)
    assert nightly.count() == ROWS
    to(nightly, NEXT_NIGHT + timedelta(days=1))
    tick(nightly)
    assert nightly.count() == ROWS + 1


def test_a_pause_for_a_time_ends_by_itself(nightly: FakeWorld) -> None:
    """Once its time is over, the next due time begins; those in between are not made up for."""
    tick(nightly)
    scheduling.pause(nightly.world(), nightly.declared, "trim", "we move", for_s=2 * DAY_S)
    to(nightly, NEXT_NIGHT + timedelta(days=2))
    tick(nightly)
    assert (kinds(nightly)[-1], nightly.count()) == ("resumed", ROWS)
    to(nightly, NEXT_NIGHT + timedelta(days=3))
    tick(nightly)
    assert nightly.count() == ROWS + 1


def test_only_what_has_a_schedule_is_paused_and_only_what_is_paused_resumed(
    nightly: FakeWorld,
) -> None:
    """A slip of the name suggests the right one; nothing is recorded."""
    with pytest.raises(UsageError) as raised:
        scheduling.pause(nightly.world(), nightly.declared, "trimm", "x")
    assert "`trim`" in raised.value.hint
    with pytest.raises(UsageError, match="not paused"):
        scheduling.resume(nightly.world(), nightly.declared, "trim")
    assert kinds(nightly) == []


def test_a_changed_time_is_a_new_schedule(nightly: FakeWorld) -> None:
    """A cron expression that was moved to an earlier hour makes up for nothing."""
    tick(nightly)
    to(nightly, NEXT_NIGHT - timedelta(minutes=30))
    text = (nightly.root / "operations/trim.yaml").read_text()
    nightly.write("operations/trim.yaml", text.replace("0 3 *", "0 2 *"))
    commit(nightly, 3)
    tick(nightly)
    assert kinds(nightly) == ["declared", "declared"]
    assert nightly.count() == ROWS


def test_one_of_many_records_is_not_forgotten_behind_another(fake: FakeWorld) -> None:
    """Beside a schedule of every minute, that of a month keeps its place in the record."""
    yaml = 'schedule: [{name: a, cron: "* * * * *"}, {name: b, cron: "0 0 1 * *"}]\n'
    fake.write("operations/trim.yaml", f"{HEAD}{yaml}")
    fake.write("policy.yaml", FREE)
    commit(fake, 2)
    tick(fake)
    for number in range(400):
        body = {
            "schedule": "a * * * * * UTC",
            "time": f"2026-01-05T0{number // 60}:{number % 60:02}:00.000000Z",
        }
        fake.journal.append(chain_of("trim"), "due", body)
        if number % 40 == 0:
            scheduling.tick(fake.world(), fake.declared, lambda due: None)
    found = [records.body(record) for record in fake.journal.records(chain_of("trim"))]
    declared = [body for body in found[-100:] if body["schedule"].startswith("b")]
    assert declared
    assert declared[-1]["time"] == "2026-01-05T09:00:00.000000Z"
