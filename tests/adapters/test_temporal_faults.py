"""Workers and servers that die, stop, and come back, on a real Temporal server."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from temporalio import activity

from handrail.adapters.postgres_journal.journal import PostgresJournal
from handrail.adapters.postgres_journal.link import Link
from handrail.adapters.postgres_journal.locks import PostgresLocks
from handrail.adapters.sqlite_journal import SqliteJournal
from handrail.adapters.system import SystemClock
from handrail.adapters.temporal import hands, link, workflow
from handrail.adapters.temporal.engine import TemporalEngine
from handrail.adapters.temporal.link import Where, home, workflow_id
from handrail.core.journal import verify_export
from handrail.errors import EngineError, UsageError
from handrail.plans.canonical import plain
from handrail.plans.walk import Bounds, Mark
from handrail.plans.walk_records import SIGNALS
from handrail.ports import Acted
from support.engines import wait_until, word
from support.journals import journal_database, journal_url
from support.temporal_house import TemporalHouse, WorkedEngine
from support.temporal_process import deeds, wait_for_deed, worker_process
from support.temporal_server import TemporalServer, running_server
from support.walk_games import simple_walk

__all__ = ["journal_database", "journal_url"]

_SECRET = "hunter2-hunter2"


def nothing(_: Mark) -> None:
    """Hear a mark."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalServer]:
    with running_server(tmp_path_factory.mktemp("temporal")) as found:
        yield found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    found = SqliteJournal(tmp_path / "journal.db", SystemClock())
    yield found
    found.shut()


@pytest.fixture
def house(
    server: TemporalServer, journal: SqliteJournal, tmp_path: Path
) -> Iterator[TemporalHouse]:
    found = TemporalHouse(journal, tmp_path, server.where())
    yield found
    found.close()


@pytest.fixture
def engine(house: TemporalHouse) -> TemporalEngine:
    """An engine without a worker of its own: processes work."""
    found = WorkedEngine(
        house.journal, house.clock, _Ids(), house.locks, house.where, say=house.said.append
    )
    house.engines.append(found)
    return found


@contextmanager
def beat_once(slot: object, _every_s: float) -> Iterator[None]:
    """Say once that an attempt lives, and never again."""
    activity.heartbeat(slot)
    yield


class _Ids:
    def __init__(self) -> None:
        self._numbers = iter(range(1, 1000))

    def new(self) -> str:
        return f"{next(self._numbers):032x}"


def test_a_worker_is_killed_in_mid_step(
    house: TemporalHouse, engine: TemporalEngine, tmp_path: Path
) -> None:
    """What its worker died of is checked, done again or asked about; what was done stays done."""
    address = str(tmp_path / "journal.db")
    runs = {
        recovery: engine.submit(simple_walk(1, 2, recovery=recovery, act="slow"), recovery)
        for recovery in ("check", "retry", "ask")
    }
    with worker_process(address, tmp_path, house.where) as first:
        wait_until(lambda: len(deeds(tmp_path)) == 3, lambda: str(deeds(tmp_path)))
        first.kill()
    (tmp_path / "go").touch()
    with worker_process(address, tmp_path, house.where) as second:
        asked = engine.follow(runs["ask"], nothing, 60)
        assert (asked.state, asked.steps["store/0/s0"].state) == ("held", "unknown")
        engine.signal(runs["ask"], word("rerun", step="store/0/s0"))
        assert {engine.follow(run, nothing, 60).outcome for run in runs.values()} == {"done"}
        assert second.end() == 0
    did = Counter(one[1:3] for one in deeds(tmp_path) if one[0] == "do")
    assert (len(did), set(did.values())) == (6, {1})
    assert [one[1] for one in deeds(tmp_path) if one[0] == "check"] == [str(runs["check"])]
    assert all("taken store/0/s0" in house.kinds(run) for run in runs.values())
    assert verify_export(house.journal.export()) == ()


def test_only_the_step_of_the_dead_worker_is_taken_up(
    house: TemporalHouse, engine: TemporalEngine, tmp_path: Path
) -> None:
    """While one worker dies, what the other one does goes on, and is not found out about."""
    address = str(tmp_path / "journal.db")
    run = engine.submit(simple_walk(2, 1, recovery="check", act="slow"), "one")
    assert any("no worker is there" in text for text in house.said)
    with worker_process(address, tmp_path, house.where, most_at_once=1) as first:
        wait_until(lambda: len(deeds(tmp_path)) == 1)
        with worker_process(address, tmp_path, house.where, most_at_once=1) as second:
            wait_until(lambda: len(deeds(tmp_path)) == 2)
            first.kill()
            lost = next(one[2] for one in deeds(tmp_path) if one[3] == str(first.pid))
            house.wait_for(run, f"taken {lost}")
            (tmp_path / "go").touch()
            assert engine.follow(run, nothing, 60).outcome == "done"
            assert second.end() == 0
    assert [one[2] for one in deeds(tmp_path) if one[0] == "check"] == [lost]
    taken = [mark.step for mark in house.marks(run) if mark.kind == "taken"]
    assert taken == [lost]


def test_a_worker_comes_back_from_the_dead(
    house: TemporalHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody acts on a step while the worker that was given up still does; then it is checked."""
    engine = house.make()
    with monkeypatch.context() as silent:
        silent.setattr(hands, "_beating", beat_once)
        house.act.hold("store/0/s0")
        run = engine.submit(simple_walk(1, 1, recovery="check"), "one")
        house.act.wait_for("store/0/s0")
    house.act.says("store/0/s0", Acted("done"), to="check")
    house.wait_for(run, "taken store/0/s0")
    assert engine.follow(run, nothing, 1.0).state == "running"
    assert [call[0] for call in house.act.calls] == ["do"]
    house.act.release("store/0/s0")
    assert engine.follow(run, nothing, 60).outcome == "done"
    assert [call[0] for call in house.act.calls] == ["do", "check"]


def test_who_finds_out_is_lost_too(house: TemporalHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that is not heard of any more is made again, once nobody acts on the step."""
    waits: list[int] = []
    wait_for = hands.Hands._wait_for

    def counted(self: hands.Hands, were: Sequence[Any], asked: hands.Asked) -> None:
        waits.append(len(were))
        wait_for(self, were, asked)

    engine = house.make()
    with monkeypatch.context() as silent:
        silent.setattr(hands, "_beating", beat_once)
        silent.setattr(hands.Hands, "_wait_for", counted)
        house.act.hold("store/0/s0")
        run = engine.submit(simple_walk(1, 1, recovery="check"), "one")
        wait_until(lambda: 2 in waits, lambda: str(waits))
    assert house.act.count("store/0/s0", "check") == 0
    house.act.release("store/0/s0")
    assert engine.follow(run, nothing, 60).outcome == "done"
    assert house.act.count("store/0/s0", "do") == 1


def test_a_worker_that_is_told_to_end_records_its_step(
    house: TemporalHouse, engine: TemporalEngine, tmp_path: Path
) -> None:
    """SIGTERM lets the step end; what became of it is in the journal when the worker is gone."""
    run = engine.submit(simple_walk(1, 1, act="slow"), "one")
    with worker_process(str(tmp_path / "journal.db"), tmp_path, house.where) as worker:
        wait_for_deed(tmp_path, "begun", "store/0/s0")
        worker.send(signal.SIGTERM)
        assert worker.end() == 0
    assert "failed store/0/s0" in house.kinds(run)
    assert engine.load(run).steps["store/0/s0"].why == "asked to end"


def test_the_server_is_killed_in_mid_run(
    server: TemporalServer, house: TemporalHouse, tmp_path: Path
) -> None:
    """A server that comes back on its file goes on; every step was done once."""
    engine = house.make()
    house.act.hold("store/1/s0")
    walk = simple_walk(3, 2, recovery="check", bounds=Bounds(at_once=1))
    run = engine.submit(walk, "one")
    house.act.wait_for("store/1/s0")
    server.kill()
    try:
        house.act.release("store/1/s0")
        with pytest.raises(EngineError):
            engine.submit(simple_walk(1, 1), "two")
        assert engine.load(run).state == "running"
    finally:
        server.start()
    assert engine.follow(run, nothing, 60).outcome == "done"
    did = Counter(step for what, step, _ in house.act.calls if what == "do")
    assert (len(did), set(did.values())) == (6, {1})
    wait_until(lambda: not list(engine.list()))


def test_a_word_while_the_server_is_away(server: TemporalServer, house: TemporalHouse) -> None:
    """A word is recorded without the server, and heard once it is back."""
    engine = house.make()
    run = engine.submit(simple_walk(1, 1, awaits=("approval",)), "one")
    house.wait_for(run, "opened")
    server.kill()
    try:
        assert engine.signal(run, word("approval"))
        assert any("once a worker has looked" in text for text in house.said)
    finally:
        server.start()
    wait_until(lambda: engine.load(run).outcome == "done")


def test_words_that_do_not_count(house: TemporalHouse) -> None:
    """A word that somebody recorded for another plan is marked with the reason; twice, once."""
    engine = house.make()
    run = engine.submit(simple_walk(1, 1, awaits=("approval",)), "one")
    for said in (word("approval", 7, digest="e" * 64), word("approval"), word("approval")):
        house.journal.append(SIGNALS, "signal", {"run": run, "signal": plain(said)})
    wait_until(lambda: engine.load(run).outcome == "done")
    marks = [mark for mark in house.marks(run) if mark.kind == "signal"]
    assert [bool(mark.body.get("ignored")) for mark in marks] == [True, False]


def test_cancelled_on_the_server(house: TemporalHouse) -> None:
    """A workflow that somebody cancels on the server is a run that was cancelled: it is held."""
    engine = house.make()
    house.act.hold("store/0/s0")
    run = engine.submit(simple_walk(1, 2), "one")
    house.act.wait_for("store/0/s0")
    _ask(engine, run, "cancel")
    wait_until(lambda: engine.load(run).state == "held")
    held = engine.follow(run, nothing, 30)
    assert "cancelled on the Temporal server" in held.why
    engine.signal(run, word("resume"))
    assert engine.follow(run, nothing, 30).outcome == "done"
    assert house.act.count("store/0/s1") == 1


def test_terminated_on_the_server(house: TemporalHouse) -> None:
    """What the server forgot begins anew from the journal; a step that acted is found out about."""
    engine = house.make()
    house.act.hold("store/0/s1")
    run = engine.submit(simple_walk(1, 3, recovery="check"), "one")
    house.act.wait_for("store/0/s1")
    _ask(engine, run, "terminate")
    house.act.says("store/0/s1", Acted("done"), to="check")
    house.act.release("store/0/s1")
    other = house.make()
    assert other.recover() == 1
    assert other.recover() == 0
    assert other.follow(run, nothing, 60).outcome == "done"
    assert [call[:2] for call in house.act.calls] == [
        ("do", "store/0/s0"),
        ("do", "store/0/s1"),
        ("check", "store/0/s1"),
        ("do", "store/0/s2"),
    ]


def test_long_histories_are_given_up(house: TemporalHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workflow begins anew from the journal, again and again; no step is done twice for that."""
    monkeypatch.setattr(workflow, "_LONG_EVENTS", 20)
    monkeypatch.setattr(workflow, "_TOO_LONG_EVENTS", 30)
    engine = house.make()
    run = engine.submit(simple_walk(6, 2, bounds=Bounds(at_once=2)), "one")
    assert engine.follow(run, nothing, 60).outcome == "done"
    assert set(Counter(step for _, step, _ in house.act.calls).values()) == {1}
    assert "taken" not in house.kinds(run)
    assert _executions(engine, run) > 1


def test_another_engine_wrote(house: TemporalHouse) -> None:
    """A chain that somebody else has gone on with is let go; what acted is not recorded there."""
    engine = house.make()
    house.act.hold("store/0/s0")
    run = engine.submit(simple_walk(1, 2), "one")
    house.act.wait_for("store/0/s0")
    house.journal.append(f"walk-{run}", "taken", {"body": {"by": "another"}})
    house.act.release("store/0/s0")
    wait_until(lambda: any("is let go" in text for text in house.said))
    assert house.kinds(run)[-1] == "taken"


def test_large_steps(house: TemporalHouse) -> None:
    """What is larger than the server takes at once is read from the journal, in pieces."""
    body = {"text": Random(5).randbytes(400_000).hex()}
    walk = simple_walk(6, 1)
    lanes = tuple(
        replace(lane, steps=tuple(replace(one, body=body) for one in lane.steps))
        for lane in walk.lanes
    )
    engine = house.make()
    run = engine.submit(replace(walk, lanes=lanes), "one")
    assert engine.follow(run, nothing, 60).outcome == "done"
    assert all(call.body == body for _, _, call in house.act.calls)


def test_a_secret_never_leaves_the_worker(house: TemporalHouse) -> None:
    """What an act told and may not be kept reaches neither the server nor the journal."""
    worker = house.make_worker(secrets=(_SECRET,))
    try:
        house.act.says("store/0/s0", Acted("done", f"with {_SECRET}", {"url": _SECRET}))
        engine = WorkedEngine(
            house.journal, house.clock, _Ids(), house.locks, house.where, say=house.said.append
        )
        run = engine.submit(simple_walk(1, 1), "one")
        found = engine.follow(run, nothing, 30)
        assert found.outcome == "done"
        assert found.steps["store/0/s0"].why == "what was told of it may not be kept in the journal"
        assert _SECRET not in _history(engine, run)
        engine.close()
    finally:
        worker.close()


def test_two_journals_share_a_server(
    house: TemporalHouse, server: TemporalServer, tmp_path: Path
) -> None:
    """Runs of two journals have the same numbers, and never meet."""
    folder = tmp_path / "other"
    other_journal = SqliteJournal(folder / "journal.db", SystemClock())
    other = TemporalHouse(other_journal, folder, server.where())
    try:
        first, second = house.make(), other.make()
        runs = [engine.submit(simple_walk(1, 1), "one") for engine in (first, second)]
        assert runs[0] == runs[1]
        for engine, run in zip((first, second), runs, strict=True):
            assert engine.follow(run, nothing, 30).outcome == "done"
        assert len(house.act.calls) == len(other.act.calls) == 1
        assert home(house.journal, house.where) != home(other.journal, other.where)
    finally:
        other.close()
        other_journal.shut()


def _ask(engine: object, run: int, what: str) -> None:
    """Do something to a workflow that only the server's own tools do."""
    assert isinstance(engine, TemporalEngine)
    name = home(engine._journal, engine._where)

    async def ask(client: object) -> None:
        handle = client.get_workflow_handle(workflow_id(name, run))  # type: ignore[attr-defined]  # a client: the link gave it
        await getattr(handle, what)()

    engine._link.do(ask)


def _executions(engine: object, run: int) -> int:
    """Return how many workflows a walk has had so far."""
    assert isinstance(engine, TemporalEngine)
    name = home(engine._journal, engine._where)
    found: list[int] = []

    async def count(client: object) -> None:
        query = f"WorkflowId = '{workflow_id(name, run)}'"
        found.append((await client.count_workflows(query)).count)  # type: ignore[attr-defined]  # a client: the link gave it

    def is_seen() -> bool:
        engine._link.do(count)  # what the server lists is a moment old
        return found[-1] > 1

    wait_until(is_seen)
    return found[-1]


def _history(engine: TemporalEngine, run: int) -> str:
    """Return everything that the server keeps of a workflow."""
    name = home(engine._journal, engine._where)
    found: list[str] = []

    async def read(client: object) -> None:
        handle = client.get_workflow_handle(workflow_id(name, run))  # type: ignore[attr-defined]  # a client: the link gave it
        async for event in handle.fetch_history_events():
            found.append(str(event))

    engine._link.do(read)
    return "\n".join(found)


def test_addresses() -> None:
    """What names no server is refused, with what would."""
    assert str(Where.read("127.0.0.1:7233", {})) == "127.0.0.1:7233/default"
    assert str(Where.read("t.internal:7233/ops", {})) == "t.internal:7233/ops"
    for wrong in ("t", "t:x", ":7233", "t:7233/a/b", "t:7233\x1b"):
        with pytest.raises(UsageError, match="HANDRAIL_TEMPORAL"):
            Where.read(wrong, {})


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Temporal's package is not installed, that is said, with what installs it."""
    monkeypatch.setattr(link, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="not installed") as caught:
        Where.read("127.0.0.1:7233", {})
    assert caught.value.hint == "pip install 'handrail[temporal]'"


def test_a_journal_in_postgres(server: TemporalServer, journal_url: str, tmp_path: Path) -> None:
    """With journal and locks in PostgreSQL, two workers do a run together, each step once."""
    clock = SystemClock()
    with closing(Link(journal_url)) as session:
        found = TemporalHouse(PostgresJournal(session, clock), tmp_path, server.where())
        found.locks = PostgresLocks(session, clock)
        second = found.make_worker(most_at_once=2)
        engine = found.make()
        try:
            run = engine.submit(simple_walk(4, 2, bounds=Bounds(at_once=4)), "one")
            assert engine.follow(run, nothing, 60).outcome == "done"
            assert set(Counter(call[1] for call in found.act.calls).values()) == {1}
            assert verify_export(found.journal.export()) == ()
        finally:
            second.close()
            found.close()
