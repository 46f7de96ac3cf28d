"""What an engine of one process has to stand: its journal's faults, other engines, clocks."""

from __future__ import annotations

import signal
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.adapters.embedded import EmbeddedEngine
from handrail.adapters.file_locks import FileLocks
from handrail.adapters.sqlite_journal import SqliteJournal
from handrail.adapters.system import RandomIds, SystemClock
from handrail.errors import JournalError
from handrail.plans.canonical import time_text
from handrail.plans.walk import Bounds, Mark
from handrail.plans.walk_records import mark_body, opened_mark, walk_chain
from handrail.ports import ActCall, Acted, Entry, Record
from handrail.testing.clock import FakeClock
from handrail.testing.journal import MemoryJournal
from handrail.testing.locks import MemoryLocks
from support.engines import House, wait_until, word
from support.walk_games import simple_walk


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def journal(clock: FakeClock) -> MemoryJournal:
    return MemoryJournal(clock, secrets=["tr0ub4dor&3"])


@pytest.fixture
def house(journal: MemoryJournal, clock: FakeClock) -> Iterator[House]:
    found = House(journal, MemoryLocks(), clock)
    yield found
    found.close()


def nothing(_: Mark) -> None:
    """Hear a mark."""


def made(house: House, most_at_once: int = 64) -> EmbeddedEngine:
    """Return a new engine."""
    found = house.make(most_at_once=most_at_once)
    assert isinstance(found, EmbeddedEngine)
    return found


def open_files() -> int:
    """Return how many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# The journal fails.


def test_nothing_begins_while_the_journal_cannot_be_written(
    house: House, journal: MemoryJournal
) -> None:
    """A running step ends, nothing new begins, it is said; later all of it is recorded."""
    engine = made(house)
    house.act.hold("store/0/s0")
    run = engine.submit(simple_walk(1, 2), "one")
    house.act.wait_for("store/0/s0")
    journal.fails = True
    house.act.release("store/0/s0")
    wait_until(lambda: any("nothing begins" in text for text in house.said))
    assert house.act.count("store/0/s1") == 0
    assert house.kinds(run)[-1] == "begun store/0/s0"
    journal.fails = False
    assert engine.follow(run, nothing, 30).outcome == "done"
    assert house.act.count("store/0/s0") == 1


class DoubtfulJournal(MemoryJournal):
    """A journal of which nobody knows whether it kept what it was given.

    Attributes:
        doubts: for each of the next writes, whether it is kept all the same.
    """

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.doubts: list[bool] = []

    def write(self, entries: Sequence[Entry]) -> tuple[Record, ...]:
        if not self.doubts:
            return super().write(entries)
        if self.doubts.pop(0):
            super().write(entries)
        raise JournalError("journal.unknown", "the connection was lost during COMMIT")


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_commit_whose_outcome_nobody_knows_is_looked_up(
    clock: FakeClock, *, is_kept: bool
) -> None:
    """The chain is read again: what was kept counts, what was not, is written; none acts twice."""
    journal = DoubtfulJournal(clock)
    house = House(journal, MemoryLocks(), clock)
    engine = made(house)
    house.act.hold("store/0/s1")
    run = engine.submit(simple_walk(2, 3, bounds=Bounds(at_once=1)), "one")
    house.act.wait_for("store/0/s1")
    journal.doubts = [is_kept] * 3
    house.act.release("store/0/s1")
    assert engine.follow(run, nothing, 30).outcome == "done"
    assert journal.doubts == []
    assert sorted(call[1] for call in house.act.calls) == sorted(engine.load(run).steps)
    house.close()


def test_what_an_act_told_that_may_not_be_kept(house: House) -> None:
    """A secret in what an act returned is not recorded; that the step was done is."""
    engine = made(house)
    house.act.says("store/0/s0", Acted("done", "password tr0ub4dor&3", {"url": "tr0ub4dor&3"}))
    run = engine.submit(simple_walk(1, 2), "one")
    found = engine.follow(run, nothing, 30)
    assert found.outcome == "done"
    assert found.steps["store/0/s0"].why == "what was told of it may not be kept in the journal"
    assert "tr0ub4dor" not in "".join(house.journal.export())
    assert house.act.count("store/0/s0") == 1


def test_a_damaged_run_is_left_alone_and_others_go_on(house: House) -> None:
    """A chain that makes no walk is said, and stops nobody else."""
    broken = house.journal.open_run()
    house.journal.append(walk_chain(broken), "opened", {"body": {"walk": {"format": 1}}})
    good = house.journal.open_run()
    _record(house, good)
    engine = made(house)
    assert engine.recover() == 2
    assert engine.follow(good, nothing, 30).outcome == "done"
    wait_until(lambda: any(f"run {broken} is left alone" in text for text in house.said))


def _record(house: House, run: int, *more: Mark, awaits: tuple[str, ...] = ()) -> None:
    """Let the journal have a walk of two steps, with marks of an engine that is dead."""
    walk = simple_walk(1, 2, awaits=awaits)
    marks = (opened_mark(walk, 0), *more)
    chain = walk_chain(run)
    house.journal.write([Entry(chain, mark.kind, mark_body(mark)) for mark in marks])


# Other engines.


def test_an_engine_that_comes_back_from_the_dead_is_fenced(house: House) -> None:
    """What a deposed engine's step returns is recorded nowhere; the run goes on under its heir."""
    # Each has locks of its own, as on two machines whose locks failed: the fence alone decides.
    old, new = made(house), House(house.journal, MemoryLocks(), house.clock)
    house.act.hold("store/0/s0")
    run = old.submit(simple_walk(1, 2, recovery="check"), "one")
    house.act.wait_for("store/0/s0")
    heir = made(new)
    assert heir.recover() == 1
    assert heir.follow(run, nothing, 30).outcome == "done"
    assert new.act.count("store/0/s0", "check") == 1
    kinds = house.kinds(run)
    house.act.release("store/0/s0")
    wait_until(lambda: any(f"run {run} is let go" in text for text in house.said))
    assert house.kinds(run) == kinds
    assert house.act.count("store/0/s1") == 0
    new.close()


def test_what_another_process_acts_on_is_left_to_it(house: House) -> None:
    """While a living engine holds a run's lock, nobody else takes it up, and it can be followed."""
    first, second = made(house), made(house)
    house.act.hold("store/0/s0")
    run = first.submit(simple_walk(1, 1), "one")
    house.act.wait_for("store/0/s0")
    second.recover()
    assert second.follow(run, nothing, 0).state == "running"
    house.act.release("store/0/s0")
    assert second.follow(run, nothing, 30).outcome == "done"
    assert house.act.count("store/0/s0") == 1


def test_two_engines_hear_one_word(house: House) -> None:
    """Both have a waiting run, and its approval comes: one goes on, each step acts once."""
    engines = [made(house) for _ in range(3)]
    runs = [engines[0].submit(simple_walk(1, 3, awaits=("approval",)), str(n)) for n in range(5)]
    for engine in engines[1:]:
        assert engine.recover() == 5
    for run in runs:
        engines[run % 3].signal(run, word("approval"))
    for run in runs:
        assert engines[0].follow(run, nothing, 30).outcome == "done"
        assert sum(kind.startswith("begun") for kind in house.kinds(run)) == 3
    wait_until(lambda: house.journal.open_chains("walk-") == ())
    assert len(house.act.calls) == 15


def test_a_cut_off_run_is_taken_up(house: House) -> None:
    """A step that a dead engine began is found out about; `ask` means that a human is asked."""
    run = house.journal.open_run()
    wave = Mark("wave-begun", body={"number": 0})
    _record(house, run, wave, Mark("begun", "store/0/s0", body={"attempt": 1}))
    engine = made(house)
    engine.recover()
    held = engine.follow(run, nothing, 30)
    assert (held.state, held.steps["store/0/s0"].state) == ("held", "unknown")
    assert house.act.calls == []
    engine.signal(run, word("accept", step="store/0/s0"))
    assert engine.follow(run, nothing, 30).outcome == "done"
    assert [call[1] for call in house.act.calls] == ["store/0/s1"]


def test_a_word_that_came_while_nobody_lived(house: House) -> None:
    """A word that was recorded before an engine took the run up is heard then."""
    run = house.journal.open_run()
    _record(house, run, awaits=("approval",))
    first = made(house)
    first.signal(run, word("approval"))
    first.close()
    engine = made(house)
    engine.recover()
    assert engine.follow(run, nothing, 30).outcome == "done"


# Clocks.


def test_a_soak_lasts_as_long_as_it_lasts(house: House, clock: FakeClock) -> None:
    """A clock that is set, either way, makes a soak neither shorter nor longer."""
    for jump_s in (-86_400, 86_400):
        engine = made(house)
        walk = simple_walk(2, 1, waves=(1, 1), soak_s=60)
        run = engine.submit(walk, f"jump {jump_s}")
        house.wait_for(run, "soaking")
        clock.jump(jump_s)
        clock.advance(59)
        engine.look()
        assert engine.follow(run, nothing, 0).state == "soaking"
        assert "begun store/1/s0" not in house.kinds(run)
        clock.advance(2)
        engine.look()
        wait_until(lambda run=run, engine=engine: engine.load(run).outcome == "done")  # type: ignore[misc]  # of this turn


def test_a_run_begins_by_the_calendar(house: House, clock: FakeClock) -> None:
    """A run that begins at a time does so when the calendar says so, also when that was set."""
    engine = made(house)
    begins = time_text(clock.now() + timedelta(days=2))
    run = engine.submit(simple_walk(1, 1, begins_at=begins), "one")
    assert engine.follow(run, nothing, 0).wakes_at == begins
    clock.jump(2 * 86_400)
    engine.look()
    wait_until(lambda: engine.load(run).outcome == "done")


def test_what_expired_stays_so(house: House, clock: FakeClock) -> None:
    """A run whose time is over has ended; setting the clock back does not bring it back."""
    engine = made(house)
    expires = time_text(clock.now() + timedelta(hours=1))
    run = engine.submit(simple_walk(1, 1, awaits=("approval",), expires_at=expires), "one")
    engine.follow(run, nothing, 0)
    clock.advance(3601)
    engine.look()
    wait_until(lambda: engine.load(run).outcome == "expired")
    clock.jump(-86_400)
    other = made(house)
    assert other.recover() == 0
    assert house.act.calls == []


# Threads, memory, and the end.


def test_waiting_runs_hold_no_thread_no_file_and_little_memory(tmp_path: Path) -> None:
    """A thousand waiting runs cost no thread, no open file, and less than a kilobyte each."""
    system = SystemClock()
    journal = SqliteJournal(tmp_path / "journal.db", system)
    walk = simple_walk(1, 1, awaits=("approval",))
    count = 1_000
    for start in range(0, count, 100):
        entries = [
            Entry(walk_chain(journal.open_run()), "opened", mark_body(opened_mark(walk, 0)))
            for _ in range(start, start + 100)
        ]
        journal.write(entries)
    house = House(journal, FileLocks(tmp_path / "locks"), system)
    engine = made(house)
    threads, files = threading.active_count(), open_files()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    assert engine.recover() == count
    wait_until(lambda: not engine.is_busy())
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert threading.active_count() <= threads + 1, "the engine's own thread alone"
    assert open_files() <= files
    assert (after - before) / count < 1_000
    engine.signal(count // 2, word("approval"))
    assert engine.follow(count // 2, nothing, 30).outcome == "done"
    house.close()
    journal.shut()


def test_no_more_steps_act_than_there_may_be_threads(house: House) -> None:
    """Over all runs, no step is said to begin for which there is no thread."""
    engine = made(house, most_at_once=2)
    for number in range(4):
        house.act.hold(f"store/{number}/s0")
    runs = [engine.submit(simple_walk(4, 1), str(number)) for number in range(2)]
    house.act.wait_until(lambda: len(house.act.calls) == 2)
    begun = [kind for run in runs for kind in house.kinds(run) if kind.startswith("begun")]
    assert len(begun) == 2
    for number in range(4):
        house.act.release(f"store/{number}/s0")
    for run in runs:
        assert engine.follow(run, nothing, 30).outcome == "done"


def press_ctrl_c(engine: EmbeddedEngine) -> None:
    """Interrupt this thread as soon as it follows a run, and not before."""
    main = threading.get_ident()

    def press() -> None:
        wait_until(lambda: bool(engine._loop._followers))
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=press).start()


def test_ctrl_c_cancels_a_run_that_has_begun(house: House) -> None:
    """Ctrl-C begins nothing more, asks what runs to end, records that, and is passed on."""
    engine = made(house)
    house.act.hold("store/0/s0")
    run = engine.submit(simple_walk(1, 2), "one")
    house.act.wait_for("store/0/s0")
    press_ctrl_c(engine)
    with pytest.raises(KeyboardInterrupt):
        engine.follow(run, nothing, 30)
    found = engine.load(run)
    assert (found.state, found.why) == ("held", "cancelled by ana: Ctrl-C")
    assert found.steps["store/0/s0"].state == "done"
    engine.signal(run, word("resume"))
    assert engine.follow(run, nothing, 30).outcome == "done"


def test_ctrl_c_leaves_a_run_that_waits_as_it_is(house: House) -> None:
    """Ctrl-C while a run waits for its time ends the following alone."""
    engine = made(house)
    begins = time_text(house.clock.now() + timedelta(days=2))
    run = engine.submit(simple_walk(1, 1, begins_at=begins), "one")
    press_ctrl_c(engine)
    with pytest.raises(KeyboardInterrupt):
        engine.follow(run, nothing, 30)
    assert house.kinds(run) == ["opened"]


def test_a_closed_engine_has_no_threads(house: House) -> None:
    """After `close`, nothing of the engine runs, and what it has recorded is whole."""
    before = threading.active_count()
    engine = made(house)
    runs = [engine.submit(simple_walk(5, 5), str(number)) for number in range(3)]
    house.act.wait_until(lambda: len(house.act.calls) > 3)
    engine.close()
    engine.close()
    for run in runs:
        states = {one.state for one in engine.load(run).steps.values()}
        assert "begun" not in states
    wait_until(lambda: threading.active_count() <= before)


def test_a_closed_engine_only_records(house: House) -> None:
    """A closed engine takes nothing up; what it is given then is done by the next one."""
    engine = made(house)
    engine.close()
    run = engine.submit(simple_walk(1, 1, awaits=("approval",)), "one")
    assert engine.signal(run, word("approval"))
    assert engine.recover() == 0
    assert engine.follow(run, nothing, 5).state == "waiting"
    heir = made(house)
    heir.recover()
    assert heir.follow(run, nothing, 30).outcome == "done"


def test_a_lost_result_is_said(house: House) -> None:
    """What a fenced engine could not record is told to people, step by step."""
    engine = made(house)
    house.act.hold("store/0/s0")
    run = engine.submit(simple_walk(1, 1), "one")
    house.act.wait_for("store/0/s0")
    house.journal.append(walk_chain(run), "taken", {"body": {"by": "another"}})
    house.act.release("store/0/s0")
    wait_until(lambda: any("not recorded: store/0/s0 is done" in text for text in house.said))


class Slow:
    """An act that only ends when it is over."""

    def do(self, call: ActCall) -> Acted:
        """Wait until it is over."""
        wait_until(call.is_over)
        return Acted("failed", "it was told to end")

    check = undo = do


def test_a_closing_engine_tells_its_steps(house: House) -> None:
    """A step that asks whether it is over hears it from a closing engine."""
    engine = EmbeddedEngine(
        house.journal, house.clock, RandomIds(), house.locks, {"fake": Slow()}, say=print
    )
    run = engine.submit(simple_walk(1, 1), "one")
    house.wait_for(run, "begun store/0/s0")
    engine.close()
    assert engine.load(run).steps["store/0/s0"].why == "it was told to end"


def test_a_walk_of_thousands_of_steps(house: House) -> None:
    """A walk of 4,000 steps is done, in a time that grows with its steps and not faster."""
    engine = made(house)
    began = time.perf_counter()
    run = engine.submit(simple_walk(2_000, 2, bounds=Bounds(at_once=50)), "one")
    assert engine.follow(run, nothing, 60).outcome == "done"
    assert time.perf_counter() - began < 30
    assert len(house.act.calls) == 4_000
