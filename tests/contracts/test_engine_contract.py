"""The contract of engines: one process over journals in memory, in SQLite and in PostgreSQL, and
workers of a Temporal server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.adapters.postgres_journal.journal import PostgresJournal
from handrail.adapters.postgres_journal.link import Link
from handrail.adapters.sqlite_journal import SqliteJournal
from handrail.adapters.system import SystemClock
from handrail.errors import RefusedError, StoreError, UsageError
from handrail.plans.canonical import time_text
from handrail.plans.walk import Bounds, Mark
from handrail.ports import Acted, Journal
from handrail.testing.journal import MemoryJournal
from support.engines import House, file_house, wait_until, word
from support.journals import journal_database, journal_url
from support.temporal_house import TemporalHouse
from support.temporal_server import TemporalServer, running_server
from support.walk_games import simple_walk

__all__ = ["journal_database", "journal_url"]


@pytest.fixture(scope="module")
def temporal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalServer]:
    with running_server(tmp_path_factory.mktemp("temporal")) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "postgres", "temporal"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    clock = SystemClock()
    with ExitStack() as held:
        journal: Journal = MemoryJournal(clock)
        if request.param == "postgres":
            link = Link(request.getfixturevalue("journal_url"))
            held.callback(link.close)
            journal = PostgresJournal(link, clock)
        elif request.param != "memory":
            journal = file = SqliteJournal(tmp_path / "journal.db", clock)
            held.callback(file.shut)
        found = file_house(journal, tmp_path)
        if request.param == "temporal":
            server: TemporalServer = request.getfixturevalue("temporal")
            found = TemporalHouse(journal, tmp_path, server.where())
        held.callback(found.close)
        yield found


def nothing(_: Mark) -> None:
    """Hear a mark."""


def test_a_run_goes_to_its_end(house: House) -> None:
    """A submitted run is done step by step, and its chain is closed then."""
    engine = house.make()
    run = engine.submit(simple_walk(3, 2, waves=(1, 2)), "one")
    found = engine.follow(run, nothing, 30)
    assert (found.state, found.outcome) == ("ended", "done")
    assert engine.load(run) == found
    wait_until(lambda: house.journal.open_chains("walk-") == ())
    assert [number for number, _ in engine.list(ended=True)] == [run]
    assert list(engine.list()) == []


def test_a_step_is_journalled_before_it_acts(house: House) -> None:
    """While a step acts, the journal has its beginning; after it, its end, and what it returned."""
    engine = house.make()
    house.act.hold("store/0/s0")
    house.act.says("store/0/s0", Acted("done", "well", {"rows": 3}))
    run = engine.submit(simple_walk(1, 1), "one")
    house.act.wait_for("store/0/s0")
    assert house.kinds(run) == ["opened", "wave-begun", "begun store/0/s0"]
    house.act.release("store/0/s0")
    found = engine.follow(run, nothing, 30)
    assert found.steps["store/0/s0"].body == {"rows": 3}
    assert found.steps["store/0/s0"].why == "well"


def test_the_same_request_is_the_same_run(house: House) -> None:
    """A request that is made again, by anybody, gives the number that it gave before."""
    engine, walk = house.make(), simple_walk(1, 1)
    run = engine.submit(walk, "one")
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(house.make().submit(walk, "one")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [run] * 3
    assert engine.submit(walk, "two") != run


def test_a_run_waits_for_its_word(house: House) -> None:
    """What awaits an approval begins with it; a second one of the same id is not recorded."""
    engine = house.make()
    run = engine.submit(simple_walk(1, 1, awaits=("approval",)), "one")
    assert engine.follow(run, nothing, 30).state == "waiting"
    assert house.act.calls == []
    assert engine.signal(run, word("approval"))
    assert not engine.signal(run, word("approval"))
    assert engine.follow(run, nothing, 30).outcome == "done"
    assert sum(kind == "signal" for kind in house.kinds(run)) == 1


def test_a_word_from_another_process(house: House) -> None:
    """A word that somebody else recorded is heard by the engine that has the run."""
    engine, other = house.make(), house.make()
    run = engine.submit(simple_walk(1, 1, awaits=("approval",)), "one")
    assert other.signal(run, word("approval"))
    wait_until(lambda: engine.load(run).outcome == "done")


def test_words_that_mean_nothing_are_refused(house: House) -> None:
    """A word for another digest, of no known name, or too late, is refused and not recorded."""
    engine = house.make()
    run = engine.submit(simple_walk(1, 1, awaits=("approval",)), "one")
    for bad in (word("approval", digest="e" * 64), word("dance"), word("resume"), word("accept")):
        with pytest.raises(RefusedError, match=bad.name):
            engine.signal(run, bad)
    with pytest.raises(RefusedError, match="longer than"):
        engine.signal(run, word("approval", text="x" * 100_000))
    with pytest.raises(UsageError, match="no run 999"):
        engine.signal(999, word("approval"))
    engine.signal(run, word("approval"))
    engine.follow(run, nothing, 30)
    with pytest.raises(RefusedError, match="has ended"):
        engine.signal(run, word("approval", 2))
    assert sum(1 for _ in house.journal.records("signals")) == 1


def test_a_failure_holds_and_a_rerun_is_exactly_what_failed_and_never_began(house: House) -> None:
    """A held run waits for a human; after `rerun` no done step acts a second time."""
    engine = house.make()
    house.act.says("store/1/s0", StoreError("store.failed", "no room"))
    run = engine.submit(simple_walk(3, 2, bounds=Bounds(at_once=1)), "one")
    held = engine.follow(run, nothing, 30)
    assert (held.state, held.steps["store/1/s0"].why) == ("held", "no room")
    assert engine.signal(run, word("rerun"))
    assert engine.follow(run, nothing, 30).outcome == "done"
    assert {step: house.act.count(step) for _, step, _ in house.act.calls} == {
        "store/0/s0": 1,
        "store/0/s1": 1,
        "store/1/s0": 2,
        "store/1/s1": 1,
        "store/2/s0": 1,
        "store/2/s1": 1,
    }


def test_undo_in_reverse_order(house: House) -> None:
    """An ended run is undone, the last step first; what never began is not touched."""
    engine = house.make()
    house.act.says("store/1/s1", Acted("failed", "ill"))
    bounds = Bounds(at_once=1, then="undo")
    run = engine.submit(simple_walk(3, 2, bounds=bounds), "one")
    assert engine.follow(run, nothing, 30).outcome == "undone"
    undone = [step for to, step, _ in house.act.calls if to == "undo"]
    assert undone == ["store/1/s1", "store/1/s0", "store/0/s1", "store/0/s0"]


@pytest.mark.parametrize("failing", range(4))
def test_failing_at_each_step_puts_back_exactly_what_began(house: House, failing: int) -> None:
    """Whichever step fails, all that began is undone once, the last first, and nothing else."""
    engine = house.make()
    steps = [f"store/{lane}/s{number}" for lane in range(2) for number in range(2)]
    house.act.says(steps[failing], StoreError("store.failed", "no room"))
    bounds = Bounds(at_once=1, then="undo")
    run = engine.submit(simple_walk(2, 2, bounds=bounds), "one")
    assert engine.follow(run, nothing, 30).outcome == "undone"
    assert [step for to, step, _ in house.act.calls if to == "do"] == steps[: failing + 1]
    undone = [step for to, step, _ in house.act.calls if to == "undo"]
    assert undone == steps[failing::-1]


def test_an_undo_that_fails_is_said_and_done_again_on_a_word(house: House) -> None:
    """What could not be undone is not called undone; a second `undo` does that, and only that."""
    engine = house.make()
    house.act.says("store/0/s0", StoreError("store.failed", "no room"), to="undo")
    run = engine.submit(simple_walk(1, 2), "one")
    engine.follow(run, nothing, 30)
    engine.signal(run, word("undo", 1))
    first = engine.follow(run, nothing, 30)
    assert first.steps["store/0/s0"].state == "undo-failed"
    assert engine.signal(run, word("undo", 2))
    last = engine.follow(run, nothing, 30)
    assert last.outcome == "undone"
    assert house.act.count("store/0/s1", "undo") == 1
    assert house.act.count("store/0/s0", "undo") == 2


def test_undo_of_a_run_that_has_ended(house: House) -> None:
    """A done run is undone on a word, also by another process, and has ended again then."""
    engine = house.make()
    run = engine.submit(simple_walk(1, 2), "one")
    engine.follow(run, nothing, 30)
    other = house.make()
    assert other.signal(run, word("undo"))
    assert other.follow(run, nothing, 30).outcome == "undone"
    with pytest.raises(RefusedError, match="undone"):
        other.signal(run, word("undo", 2))


def test_cancel_ends_what_runs_and_holds(house: House) -> None:
    """A cancelled run asks its steps to end, begins nothing, and waits; twice equals once."""
    engine = house.make()
    house.act.hold("store/0/s0")
    run = engine.submit(simple_walk(2, 2, bounds=Bounds(at_once=1)), "one")
    house.act.wait_for("store/0/s0")
    engine.cancel(run, "ben", "wrong day")
    held = engine.follow(run, nothing, 30)
    assert (held.state, held.why) == ("held", "cancelled by ben: wrong day")
    assert [call[1] for call in house.act.calls] == ["store/0/s0"]
    engine.cancel(run, "ben", "wrong day")
    assert sum(kind == "signal" for kind in house.kinds(run)) == 1
    engine.signal(run, word("resume"))
    assert engine.follow(run, nothing, 30).outcome == "done"


def test_a_step_goes_on_later(house: House) -> None:
    """A step that goes on later is asked again at its time, with what it returned before."""
    engine = house.make()
    soon = time_text(house.clock.now() + timedelta(seconds=0.05))
    house.act.says("store/0/s0", Acted("later", body={"round": 1}, again_at=soon))
    run = engine.submit(simple_walk(1, 1), "one")
    assert engine.follow(run, nothing, 30).outcome == "done"
    first, second = (call for _, _, call in house.act.calls)
    assert (dict(first.before), dict(second.before)) == ({}, {"round": 1})
    assert (first.attempt, second.attempt) == (1, 1)


def test_a_wave_soaks(house: House) -> None:
    """The second wave begins when the first was left alone for its time, and not before."""
    engine = house.make()
    run = engine.submit(simple_walk(2, 1, waves=(1, 1), soak_s=1), "one")
    house.wait_for(run, "soaking")
    assert engine.load(run).state == "soaking"
    assert engine.follow(run, nothing, 30).outcome == "done"
    times = {f"{mark.kind} {mark.step}": mark.time for mark in house.marks(run)}
    assert times["begun store/1/s0"] > times["soaking "]
    until = next(m.body["until"] for m in house.marks(run) if m.kind == "soaking")
    assert times["begun store/1/s0"] >= str(until)


def test_a_question_is_answered(house: House) -> None:
    """A step that asks waits without a thread, and goes on with the answer."""
    engine = house.make()
    house.act.says("store/0/s0", Acted("asked", body={"question": "how many?"}))
    run = engine.submit(simple_walk(1, 1), "one")
    asked = engine.follow(run, nothing, 30)
    assert (asked.state, asked.awaits) == ("held", ("answer",))
    engine.signal(run, word("answer", answer=12))
    assert engine.follow(run, nothing, 30).outcome == "done"
    assert house.act.calls[-1][2].before["answer"] == 12


def test_later_steps_know_what_earlier_ones_returned(house: House) -> None:
    """A step is told the bodies of the steps before it on its target, by name."""
    engine = house.make()
    house.act.says("store/0/s0", Acted("done", body={"run": 7}))
    run = engine.submit(simple_walk(1, 2), "one")
    engine.follow(run, nothing, 30)
    assert dict(house.act.calls[1][2].earlier) == {"s0": {"run": 7}}


def test_bounds_hold_while_threads_race(house: House) -> None:
    """No more targets act at once than the bounds allow, over all and in each group."""
    engine = house.make()
    bounds = Bounds(at_once=5, at_once_per={"site": 2})
    run = engine.submit(simple_walk(20, 2, bounds=bounds), "one")
    assert engine.follow(run, nothing, 60).outcome == "done"
    acting: set[str] = set()
    most = 0
    for mark in house.marks(run):
        if mark.kind == "begun":
            acting.add(mark.step)
        elif mark.kind == "done":
            acting.discard(mark.step)
        sites = [int(step.split("/")[1]) % 2 for step in acting]
        assert max(sites.count(0), sites.count(1)) <= 2
        most = max(most, len(acting))
    assert most == 4, "two sites of two"


def test_marks_are_told(house: House) -> None:
    """Who follows a run from its beginning is told each mark, in the journal's order."""
    engine = house.make()
    walk = simple_walk(2, 2, awaits=("approval",), bounds=Bounds(at_once=1))
    run = engine.submit(walk, "one")
    told: list[Mark] = []
    engine.follow(run, told.append, 30)
    engine.signal(run, word("approval"))
    engine.follow(run, told.append, 30)
    kinds = [f"{mark.kind} {mark.step}".strip() for mark in told]
    # The word itself may be written before anybody follows.
    assert kinds[-1] == "ended"
    assert kinds == house.kinds(run)[-len(kinds) :]


def test_time_is_up_for_who_follows(house: House) -> None:
    """Following ends when its time is up, and the run goes on."""
    engine = house.make()
    house.act.hold("store/0/s0")
    run = engine.submit(simple_walk(1, 1), "one")
    house.act.wait_for("store/0/s0")
    assert engine.follow(run, nothing, 0.05).state == "running"
    house.act.release("store/0/s0")
    assert engine.follow(run, nothing, 30).outcome == "done"


def test_closing_records_what_acts_and_another_engine_goes_on(house: House) -> None:
    """A closing engine lets its steps end and begins none; the next one does the rest."""
    engine = house.make()
    house.act.hold("store/0/s0")
    run = engine.submit(simple_walk(1, 3), "one")
    house.act.wait_for("store/0/s0")
    engine.close()
    assert "done store/0/s0" in house.kinds(run)
    assert len(house.act.calls) == 1
    other = house.make()
    if not isinstance(house, TemporalHouse):  # there, the server has it all the time
        assert house.kinds(run)[-1] == "done store/0/s0"
        house.act.hold("store/0/s1")  # a run that has ended is nobody's
        assert other.recover() == 1
        house.act.wait_for("store/0/s1")
        assert other.recover() == 0
        house.act.release("store/0/s1")
    else:
        assert other.recover() == 0
    assert other.follow(run, nothing, 30).outcome == "done"
    assert [step for _, step, _ in house.act.calls] == ["store/0/s0", "store/0/s1", "store/0/s2"]


def test_walks_that_are_not_sound_are_refused(house: House) -> None:
    """A walk that is put together wrongly is refused, and leaves nothing behind."""
    engine = house.make()
    chains = house.journal.chains()
    with pytest.raises(UsageError):
        engine.submit(replace(simple_walk(1, 1), digest=""), "one")
    assert house.journal.chains() == chains
    with pytest.raises(UsageError, match="no run 7"):
        engine.load(7)


def test_acts_that_misbehave_fail(house: House) -> None:
    """A defect, a body that is huge or no JSON, and an unknown act are failures, in words."""
    engine = house.make()
    house.act.says("store/0/s0", ZeroDivisionError("oops"))
    house.act.says("store/1/s0", Acted("done", body={"x": "y" * 100_000}))
    house.act.says("store/2/s0", Acted("done", body={"x": object()}))
    house.act.says("store/3/s0", Acted("glorious"))
    house.act.says("store/4/s0", Acted("later"))
    house.act.says("store/5/s0", Acted("failed", "\x1b[31m" + "x" * 10_000))
    walk = simple_walk(7, 1, bounds=Bounds(failures=10))
    lane = replace(walk.lanes[6], steps=(replace(walk.lanes[6].steps[0], act="unheard-of"),))
    walk = replace(walk, lanes=(*walk.lanes[:6], lane))
    found = engine.follow(engine.submit(walk, "one"), nothing, 30)
    assert (found.state, found.outcome) == ("ended", "failed")
    whys = [one.why for one in found.steps.values()]
    assert "oops" in whys[0]
    assert "at most 65,536" in whys[1]
    assert "cannot be kept" in whys[2]
    assert "glorious" in whys[3]
    assert "not when" in whys[4]
    assert len(whys[5]) < 3_000
    assert "\x1b" not in whys[5]
    assert "no act `unheard-of`" in whys[6]
