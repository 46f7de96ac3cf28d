"""Notifying: what happened is told, at least once, to whom it concerns; nothing waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from handrail.core import (
    asking,
    expecting,
    holding,
    noticing,
    notifying,
    records,
    scheduling,
)
from handrail.core.world import World
from handrail.errors import FencedError, JournalError, NotifyError, UsageError
from handrail.operations.model import Question
from handrail.plans.notice import Destination
from handrail.ports import Entry, Notifier, Record
from support.worlds import HEALTH, ILL, FakeWorld

TO_ALL = """\
link: https://handrail.internal/runs/{run}
to:
  on-call: {webhook: {url: "https://hooks.internal/x"}}
"""
HOUR_S = 3600


class Listener:
    """A destination that keeps what it takes, and fails as told."""

    def __init__(self) -> None:
        self.taken: list[Mapping[str, Any]] = []
        self.tries = 0
        self.fails: NotifyError | Exception | None = None

    def send(self, notice: Mapping[str, Any]) -> None:
        self.tries += 1
        if self.fails is not None:
            raise self.fails
        self.taken.append(notice)

    @property
    def kinds(self) -> list[str]:
        return [str(notice["kind"]) for notice in self.taken]


class Outside:
    """Everybody who can be told, by name."""

    def __init__(self, fake: FakeWorld) -> None:
        self.fake = fake
        self.listeners: dict[str, Listener] = {}

    def __getitem__(self, name: str) -> Listener:
        return self.listeners.setdefault(name, Listener())

    def world(self) -> World:
        from dataclasses import replace

        return replace(self.fake.world(), open_notifier=self._open)

    def deliver(self) -> Any:
        return notifying.deliver(self.world(), self.fake.declared)

    def _open(self, destination: Destination) -> Notifier:
        return self[destination.name]


def failing(*, is_passing: bool = True, retry_after_s: float = 0.0) -> NotifyError:
    error = NotifyError("notify.failed", "it answers 503")
    error.is_passing, error.retry_after_s = is_passing, retry_after_s
    return error


@pytest.fixture
def outside(fake: FakeWorld) -> Outside:
    """A team that has somebody on call, who has heard of nothing yet."""
    fake.write("notifications.yaml", TO_ALL)
    made = Outside(fake)
    made.deliver()
    return made


def undo_a_run(fake: FakeWorld) -> None:
    """Let a run be undone because its watch saw it ill."""
    fake.checks.set(HEALTH, ILL)
    assert fake.begin().outcome == "undone"


def test_a_run_that_is_not_confirmed_is_told_with_its_reason(outside: Outside) -> None:
    """What, where, by whom, why, what comes next, and where there is more."""
    undo_a_run(outside.fake)
    outside.deliver()
    notice = next(one for one in outside["on-call"].taken if one["kind"] == "failed")
    assert (notice["run"], notice["resource"], notice["environment"]) == (
        1,
        "store/pilot-db",
        "pilot",
    )
    assert notice["title"] == "run 1 was undone: trim on store/pilot-db"
    assert "ill" in notice["text"]
    assert notice["next"] == "handrail runs show 1"
    assert notice["link"] == "https://handrail.internal/runs/1"


def test_each_notice_is_told_once(outside: Outside) -> None:
    """Looking again tells nothing again."""
    undo_a_run(outside.fake)
    for _ in range(5):
        outside.deliver()
        outside.fake.clock.advance(60)
    ids = [notice["id"] for notice in outside["on-call"].taken]
    assert ids
    assert len(ids) == len(set(ids))
    assert notifying.pending(outside.world()) == ()


def test_a_confirmed_run_is_told_to_those_alone_who_want_it(outside: Outside) -> None:
    """Nobody is disturbed by what went well, unless they asked for it."""
    outside.fake.write(
        "notifications.yaml",
        TO_ALL
        + '  chat: {slack: {url: {env: X}}, for: [confirmed], resources: ["store/pilot-*"]}\n'
        '  other: {slack: {url: {env: X}}, for: [confirmed], resources: ["service/*"]}\n',
    )
    outside.fake.begin()
    outside.deliver()
    assert outside["on-call"].kinds == ["waiting"]
    assert outside["chat"].kinds == ["confirmed"]
    assert outside["other"].kinds == []


def test_what_waits_for_an_approval_is_told_once_it_is_all_that_is_missing(
    outside: Outside,
) -> None:
    """A plan that is refused, or was not rehearsed, asks nobody to approve it yet."""
    outside.fake.decide()
    outside.deliver()
    assert outside["on-call"].taken == []
    decided = outside.fake.rehearse()
    outside.deliver()
    (notice,) = outside["on-call"].taken
    assert notice["kind"] == "waiting"
    assert notice["next"] == f"handrail approve {records.short(decided.plan.digest)}"


def test_what_happened_before_anybody_was_to_be_told_is_history(fake: FakeWorld) -> None:
    """Declaring a destination does not send it the last three years."""
    undo_a_run(fake)
    fake.write("notifications.yaml", TO_ALL)
    outside = Outside(fake)
    outside.deliver()
    outside.deliver()
    assert outside["on-call"].taken == []


def test_what_happened_while_nobody_was_declared_is_history(outside: Outside) -> None:
    """Also between two times that somebody was; and who is new hears what is new."""
    outside.fake.write("notifications.yaml", "")
    undo_a_run(outside.fake)
    outside.deliver()
    outside.fake.write("notifications.yaml", TO_ALL)
    outside.deliver()
    assert outside["on-call"].taken == []
    outside.fake.begin()
    outside.deliver()
    outside.fake.write(
        "notifications.yaml", TO_ALL + "  chat: {slack: {url: {env: X}}, for: [confirmed]}\n"
    )
    outside.deliver()
    assert outside["chat"].taken == []
    assert outside.fake.kinds("notices-lost") == []


def test_a_run_that_was_cut_off_is_told(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: not while it is young, nor while somebody is at it, nor each minute again."""
    fake = outside.fake
    decided = fake.make_ready()
    outside.deliver()
    outside["on-call"].taken.clear()

    def dying(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fake.store, "effects", dying)
        with pytest.raises(KeyboardInterrupt):
            fake.begin(decided)
    outside.deliver()
    assert outside["on-call"].taken == []
    fake.clock.advance(120)
    with fake.locks.hold("store/pilot-db", "resume of run 1"):
        outside.deliver()
        assert outside["on-call"].taken == []
    for _ in range(3):
        outside.deliver()
        fake.clock.advance(60)
    (notice,) = outside["on-call"].taken
    assert (notice["kind"], notice["next"]) == ("waiting", "handrail resume 1")


def test_broken_glass_is_an_incident(outside: Outside) -> None:
    """Who broke it, why, and who has to look at it."""
    break_glass(outside.fake)
    outside.fake.journal.append("break-glass", "reviewed", {"id": "5d0c7e1f"})
    outside.deliver()
    (notice,) = outside["on-call"].taken
    assert (notice["kind"], notice["severity"]) == ("break-glass", "incident")
    assert notice["title"] == "ana broke the glass: trim on store/pilot-db"
    assert notice["next"] == "handrail review 5d0c7e1f"


def break_glass(fake: FakeWorld, name: str = "5d0c7e1f") -> None:
    """Let something happen that is one notice."""
    glass = {"id": name, "person": "ana", "because": "fire", "made_at": "", "digest": ""}
    body = {"glass": glass, "operation": "trim", "target": "store/pilot-db", "risk": "high"}
    fake.journal.append("break-glass", "broken", body)


def test_a_question_and_a_statement_that_wait_are_told(outside: Outside) -> None:
    """With what is asked, by which run, and the command that answers."""
    world = outside.world()
    question = Question("size", "int", "how many rows?", expires_s=HOUR_S)
    asked = asking.make(world, 7, question, "half way", "store/pilot-db", "trim")
    asking.ask(world, asked)
    over = iter((False, True))
    holding.wait(world, "run-7", "store/pilot-db", "DELETE $1", "not rehearsed", lambda: next(over))
    outside.deliver()
    first, second = outside["on-call"].taken
    assert (first["title"], first["next"]) == (
        "run 7 asks: how many rows?",
        "handrail answer 7 size VALUE",
    )
    assert "half way" in first["text"]
    assert (second["run"], second["resource"]) == (7, "store/pilot-db")
    assert second["next"].startswith("handrail release ")


def test_a_destination_that_is_down_is_tried_five_times_in_an_hour(outside: Outside) -> None:
    """Then the notice is given up, and that is on record."""
    listener, clock = outside["on-call"], outside.fake.clock
    listener.fails = failing()
    break_glass(outside.fake)
    began, tried = clock.now(), []
    for _ in range(500):
        before = listener.tries
        outside.deliver()
        if listener.tries > before:
            tried.append((clock.now() - began).total_seconds())
        clock.advance(10)
    assert tried == [0, 60, 300, 1200, 3600]
    assert notifying.pending(outside.world()) == ()
    (given_up,) = notifying.given_up(outside.world())
    assert (given_up["to"], given_up["why"]) == ("on-call", "it answers 503")


def test_of_many_notices_for_one_that_is_down_none_is_told_after_a_day(outside: Outside) -> None:
    """The oldest is tried for all of them; what is a day old concerns nobody any more."""
    listener, clock = outside["on-call"], outside.fake.clock
    listener.fails = failing()
    for number in range(50):
        break_glass(outside.fake, str(number))
    for _ in range(24 * 60):
        outside.deliver()
        clock.advance(60)
    assert 24 * 4 <= listener.tries <= 24 * 6
    clock.advance(120)
    outside.deliver()
    assert notifying.pending(outside.world()) == ()
    listener.fails = None
    break_glass(outside.fake, "the next")
    outside.deliver()
    assert listener.kinds == ["break-glass"]


def test_a_destination_that_comes_back_hears_what_it_missed(outside: Outside) -> None:
    """500, then 200: told once, by the same id."""
    outside["on-call"].fails = failing()
    undo_a_run(outside.fake)
    outside.deliver()
    outside["on-call"].fails = None
    outside.deliver()
    assert outside["on-call"].taken == []
    outside.fake.clock.advance(61)
    outside.deliver()
    assert "failed" in outside["on-call"].kinds


def test_a_refusal_for_good_is_not_repeated(outside: Outside) -> None:
    """A hook that is gone is asked once a notice, and the loss is on record."""
    outside["on-call"].fails = failing(is_passing=False)
    undo_a_run(outside.fake)
    outside.deliver()
    tries = outside["on-call"].tries
    outside.fake.clock.advance(2 * HOUR_S)
    outside.deliver()
    assert outside["on-call"].tries == tries == len(notifying.given_up(outside.world()))


def test_what_was_said_of_another_attempt_is_heard(outside: Outside) -> None:
    """`Retry-After` of ten minutes is ten minutes, not one; of a year it is an hour."""
    listener = outside["on-call"]
    listener.fails = failing(retry_after_s=600)
    undo_a_run(outside.fake)
    outside.deliver()
    tries = listener.tries
    outside.fake.clock.advance(599)
    outside.deliver()
    assert listener.tries == tries
    listener.fails = failing(retry_after_s=365 * 86400)
    outside.fake.clock.advance(2)
    outside.deliver()
    assert listener.tries == tries + 1
    listener.fails = None
    outside.fake.clock.advance(HOUR_S + 1)
    outside.deliver()
    assert "failed" in listener.kinds


def test_a_destination_that_is_down_holds_up_no_other(outside: Outside) -> None:
    """The others hear at once; of the many notices for the one that is down, one is tried."""
    fake = outside.fake
    fake.write("notifications.yaml", TO_ALL + "  chat: {slack: {url: {env: X}}}\n")
    outside["on-call"].fails = failing()
    for number in range(20):
        break_glass(fake, str(number))
    outside.deliver()
    assert len(outside["chat"].taken) == 20
    assert outside["on-call"].tries == 1


def test_a_defect_of_one_destination_is_its_own(outside: Outside) -> None:
    """An adapter that breaks counts as one that is down: what it broke by is not repeated."""
    outside["on-call"].fails = RuntimeError("s3cret")
    undo_a_run(outside.fake)
    outside.deliver()
    (pending, *_) = notifying.pending(outside.world())
    assert pending.why == {"on-call": "a defect: RuntimeError"}


def test_a_destination_that_is_not_declared_any_more_is_given_up(outside: Outside) -> None:
    """What was queued for it does not wait for ever."""
    outside["on-call"].fails = failing()
    undo_a_run(outside.fake)
    outside.deliver()
    outside.fake.write("notifications.yaml", TO_ALL.replace("on-call", "another"))
    outside.fake.clock.advance(61)
    outside.deliver()
    assert notifying.pending(outside.world()) == ()
    assert "not declared" in notifying.given_up(outside.world())[0]["why"]


def test_a_clock_that_is_set_back_keeps_nothing_for_a_year(outside: Outside) -> None:
    """A try that was put off to a time far away is due at once."""
    outside["on-call"].fails = failing()
    undo_a_run(outside.fake)
    outside.deliver()
    outside["on-call"].fails = None
    outside.fake.clock.jump(-365 * 86400)
    outside.deliver()
    assert "failed" in outside["on-call"].kinds


class DeadError(BaseException):
    """The process was killed."""


@pytest.mark.parametrize("after", range(1, 9))
def test_killed_at_any_record_everything_is_told_at_least_once(
    outside: Outside, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who starts again goes on where it was; twice is told by the same id."""
    undo_a_run(outside.fake)
    journal = outside.fake.journal
    append, write, left = journal.append, journal.write, [after]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise DeadError

    def dying_append(chain: str, kind: str, body: Mapping[str, Any]) -> Record:
        count()
        return append(chain, kind, body)

    def dying_write(entries: Any) -> tuple[Record, ...]:
        count()
        return write(entries)

    monkeypatch.setattr(journal, "append", dying_append)
    monkeypatch.setattr(journal, "write", dying_write)
    with suppress(DeadError):
        outside.deliver()
    monkeypatch.undo()
    outside.deliver()
    told = {notice["id"]: notice["kind"] for notice in outside["on-call"].taken}
    assert sorted(told.values()) == ["failed", "waiting"]
    assert notifying.pending(outside.world()) == ()


def test_two_processes_tell_nothing_twice(outside: Outside) -> None:
    """While one delivers the other does nothing, and is told when to come again."""
    undo_a_run(outside.fake)
    with outside.fake.locks.hold(notifying.CHAIN, "another server"):
        again_at = outside.deliver()
    assert outside["on-call"].taken == []
    assert again_at == outside.fake.clock.now() + timedelta(seconds=notifying.LOOK_S)


def test_queued_by_two_at_once_it_is_there_once(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes second sees that it is there, and still writes what else it had to."""
    fake = outside.fake
    said = {"title": "a", "text": "b", "time": "2026-01-05T09:00:00.000000Z"}
    notice = noticing.make(fake.declared, ("a",), "incident", **said)
    write = fake.journal.write
    calls: list[int] = []

    def overtaken(entries: Any) -> tuple[Record, ...]:
        if not calls:
            calls.append(1)
            notifying.queue(outside.world(), fake.declared, [notice])
            raise FencedError("journal.fenced", "another was first")
        return write(entries)

    monkeypatch.setattr(fake.journal, "write", overtaken)
    notifying.queue(outside.world(), fake.declared, [notice], [Entry("expected-a", "absent", {})])
    assert len(notifying.pending(outside.world())) == 1
    assert fake.kinds("expected-a") == ["absent"]


def test_a_journal_that_cannot_be_written_fails_no_run(outside: Outside) -> None:
    """Telling fails, by itself; the run has long ended."""
    undo_a_run(outside.fake)
    outside.fake.journal.fails = True
    with pytest.raises(JournalError):
        outside.deliver()
    outside.fake.journal.fails = False
    outside.deliver()
    assert "failed" in outside["on-call"].kinds


def test_trying_a_destination_out_leaves_nothing_behind(outside: Outside) -> None:
    """It hears one notice of kind `test`; a slip of its name suggests the right one."""
    notifying.try_out(outside.world(), outside.fake.declared, "on-call")
    assert outside["on-call"].kinds == ["test"]
    assert outside.fake.journal.chains("notice-") == ()
    with pytest.raises(UsageError) as raised:
        notifying.try_out(outside.world(), outside.fake.declared, "oncall")
    assert "`on-call`" in raised.value.hint


EXPECTING = "operation: trim\nrun: ./scripts/trim.sh\non: store/pilot-db\nundo: restore\n"


def expect(fake: FakeWorld, said: str) -> None:
    from support.worlds import commit

    fake.write("operations/trim.yaml", f"{EXPECTING}watch: {{soak: 0s}}\nschedule: {said}\n")
    commit(fake, 2)


def look(fake: FakeWorld) -> Any:
    return scheduling.tick(fake.world(), fake.declared, lambda due: None)


def test_what_has_not_succeeded_in_time_is_an_incident_once(outside: Outside) -> None:
    """Counted from the first sight of the declaration, told once, and resolved by a success."""
    fake = outside.fake
    expect(fake, "{expect: 26h}")
    look(fake)
    fake.clock.advance(26 * HOUR_S - 1)
    look(fake)
    outside.deliver()
    assert outside["on-call"].kinds == []
    for _ in range(3):
        fake.clock.advance(61)
        look(fake)
        outside.deliver()
    assert outside["on-call"].kinds == ["incident"]
    assert (
        outside["on-call"].taken[0]["title"].startswith("trim has not succeeded by 2026-01-06 11")
    )
    fake.begin()
    look(fake)
    outside.deliver()
    assert "resolved" in outside["on-call"].kinds
    fake.clock.advance(26 * HOUR_S)
    look(fake)
    outside.deliver()
    assert outside["on-call"].kinds.count("incident") == 2


def test_a_run_by_hand_counts_and_one_that_failed_does_not(outside: Outside) -> None:
    """Whoever begins it: what is expected is that it succeeds."""
    fake = outside.fake
    expect(fake, "{expect: 26h}")
    look(fake)
    fake.clock.advance(20 * HOUR_S)
    assert fake.begin().outcome == "confirmed"
    look(fake)
    fake.clock.advance(20 * HOUR_S)
    fake.processes.programs = {**fake.processes.programs, "trim.sh": fake.program("SELECT 1", 1)}
    look(fake)
    found = next(iter(scheduling.standings(fake.world(), fake.declared)))
    assert (found.succeeded, found.overdue) == (True, False)
    fake.clock.advance(7 * HOUR_S)
    look(fake)
    found = next(iter(scheduling.standings(fake.world(), fake.declared)))
    assert found.overdue


def test_a_paused_operation_is_never_absent_and_counts_anew(outside: Outside) -> None:
    """It says that it is paused; resumed, it has its whole time again."""
    fake = outside.fake
    expect(fake, "{expect: 26h}")
    look(fake)
    scheduling.pause(fake.world(), fake.declared, "trim", "we move")
    fake.clock.advance(100 * HOUR_S)
    look(fake)
    found = next(iter(scheduling.standings(fake.world(), fake.declared)))
    assert (found.overdue, found.paused["because"]) == (False, "we move")
    scheduling.resume(fake.world(), fake.declared, "trim")
    fake.clock.advance(25 * HOUR_S)
    look(fake)
    outside.deliver()
    assert outside["on-call"].kinds == []
    fake.clock.advance(2 * HOUR_S)
    look(fake)
    outside.deliver()
    assert outside["on-call"].kinds == ["incident"]


def test_an_absence_is_on_record_where_nobody_is_to_be_told(fake: FakeWorld) -> None:
    """Without notifications.yaml the journal has it, and `handrail schedules` shows it."""
    expect(fake, "{expect: 1h}")
    look(fake)
    fake.clock.advance(2 * HOUR_S)
    look(fake)
    (operation,) = fake.declared.operations.values()
    chain = expecting.chain_of("trim", operation.schedules[0])
    assert fake.kinds(chain) == ["seen", "absent"]
    assert fake.journal.chains("notice-") == ()


def test_a_refused_and_a_missed_time_are_told(outside: Outside) -> None:
    """The reason of the guard, and the number of times."""
    from handrail.core import taking

    fake = outside.fake
    expect(fake, '{cron: "0 3 * * *"}')
    look(fake)
    fake.clock.advance(18 * HOUR_S)

    def begin(due: Any) -> None:
        taking.carry_out(fake.world(), fake.declared, due, fake.talk)

    scheduling.tick(fake.world(), fake.declared, begin)
    outside.deliver()
    assert outside["on-call"].kinds == ["refused"]
    assert outside["on-call"].taken[0]["next"].startswith("handrail ")
    fake.clock.advance(60 * HOUR_S)
    scheduling.tick(fake.world(), fake.declared, begin)
    outside.deliver()
    assert outside["on-call"].kinds == ["refused", "skipped"]
    assert "2 times" in outside["on-call"].taken[1]["text"]
