"""The journal in PostgreSQL while its server, or the way there, fails: kept once, or known unknown.

Each test that ends a server has one of its own; the others share the test process's.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from handrail.adapters.postgres import backups, scratch
from handrail.adapters.postgres.connecting import Address
from handrail.adapters.postgres_journal import schema
from handrail.adapters.postgres_journal.journal import PostgresJournal
from handrail.adapters.postgres_journal.link import Link
from handrail.core.journal import verify_export
from handrail.errors import FencedError, JournalError
from handrail.ports import Entry, Record
from handrail.testing.clock import FakeClock
from support.faults import Proxy, proxy
from support.journals import journal_database, journal_url
from support.postgres_server import SETTINGS, Server, run_server

__all__ = ["journal_database", "journal_url"]

LOCK_WRITERS = f"SELECT pg_advisory_lock({schema.KEY}, {schema.WRITERS})"
CANCEL_WAITING = (
    "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
)
SYNCHRONOUS = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"
END_OTHERS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE application_name = 'handrail journal'"
)

# Far beyond what it takes with a patience of 0.3 s, on a machine that is busy.
IN_TIME_S = 15


@pytest.fixture(scope="module")
def breaking(postgres_server: Server) -> Iterator[tuple[PostgresJournal, Proxy]]:
    with _wired(postgres_server.url(postgres_server.make_database())) as (journal, wire):
        yield journal, wire


@pytest.fixture
def own_server() -> Iterator[Server]:
    yield from run_server()


@contextmanager
def _journal(url: str, patience_s: float = 20) -> Iterator[PostgresJournal]:
    journal = PostgresJournal(Link(url, patience_s=patience_s), FakeClock())
    try:
        yield journal
    finally:
        journal.shut()


@contextmanager
def _wired(url: str, patience_s: float = 20) -> Iterator[tuple[PostgresJournal, Proxy]]:
    """Give a journal that is reached through a faulty wire."""
    given = {key: str(value) for key, value in conninfo_to_dict(url).items()}
    with proxy("127.0.0.1", int(given["port"])) as wire:
        through = Address({**given, "port": str(wire.port)}).url()
        with _journal(through, patience_s) as journal:
            yield journal, wire


def _whole(journal: PostgresJournal, *bodies: dict[str, int]) -> None:
    """The chain `run-1` has records of these bodies, once each, and verifies."""
    found = [record.body for record in journal.records("run-1")]
    assert found == [f'{{"n":{body["n"]}}}' for body in bodies]
    assert verify_export(journal.export()) == ()


@contextmanager
def _appending(journal: PostgresJournal, chain: str) -> Iterator[list[str]]:
    """Append from a thread without end; give the hashes of what was returned."""
    returned: list[str] = []
    errors: list[JournalError] = []
    is_over = threading.Event()

    def work() -> None:
        try:
            while not is_over.is_set():
                returned.append(journal.append(chain, "done", {"n": len(returned)}).hash)
        except JournalError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield returned
    finally:
        is_over.set()
        thread.join()
    assert errors == []


def _reach(reader: PostgresJournal, chain: str, sequence: int) -> None:
    """Wait until a chain has a record beyond `sequence`."""
    assert any(reader.wait(chain, sequence, 10) for _ in range(3))


def test_a_connection_that_was_ended_while_idle_is_not_seen(journal_url: str) -> None:
    """Whatever ends an idle connection, the next record is written, and the next one read."""
    with _journal(journal_url) as journal, psycopg.connect(journal_url) as other:
        journal.append("run-1", "x", {"n": 1})
        other.execute(END_OTHERS)
        journal.append("run-1", "x", {"n": 2})
        other.execute(END_OTHERS)
        _whole(journal, {"n": 1}, {"n": 2})


@pytest.mark.parametrize("ways", [("up", 40), ("down", 1)], ids=["the record", "the answer"])
@pytest.mark.parametrize("is_remembered", [True, False])
def test_a_record_is_kept_once_when_the_wire_breaks(
    journal_url: str, ways: tuple[Any, int], *, is_remembered: bool
) -> None:
    """A connection that breaks under a record, or its answer, neither loses nor doubles it."""
    with _wired(journal_url) as (journal, wire):
        journal.append("run-1", "x", {"n": 1})
        journal.append("run-1", "x", {"n": 2})
        if not is_remembered:
            journal._remembered.forget()
        wire.cut_after(*ways)
        record = journal.append("run-1", "x", {"n": 3})
        assert journal.last("run-1") == record
        _whole(journal, {"n": 1}, {"n": 2}, {"n": 3})


def test_a_commit_whose_answer_is_lost_is_kept_once(journal_url: str) -> None:
    """However far the answers to a transaction get before the wire breaks, it is there once."""
    with _wired(journal_url) as (journal, wire):
        for n in range(25):
            journal._remembered.forget()
            wire.cut_after("down", 1 + 12 * n)
            journal.write([Entry("run-1", "x", {"n": n}), Entry(f"other-{n}", "x", {})])
        _whole(journal, *({"n": n} for n in range(25)))
        assert len(journal.chains("other-")) == 25


def test_a_key_is_used_once_when_the_answer_is_lost(journal_url: str) -> None:
    """Whoever used a key and lost the answer is told that the use was theirs."""
    with _wired(journal_url) as (journal, wire):
        for n in range(12):
            wire.cut_after("down", 1 + 30 * n)
            assert journal.single_use(f"approval {n}")
            assert not journal.single_use(f"approval {n}")


_WORK = st.tuples(
    st.sampled_from(["append", "write", "fenced", "close", "use"]),
    st.sampled_from(["one", "two"]),
    st.sampled_from(["up", "down", ""]),
    st.integers(1, 700),
)


@settings(max_examples=12, deadline=None)
@given(works=st.lists(_WORK, min_size=3, max_size=12))
def test_whatever_is_cut_is_kept_once(
    breaking: tuple[PostgresJournal, Proxy], works: list[tuple[str, str, Any, int]]
) -> None:
    """Wherever the wire breaks, and under whatever work, each record is there once, in order."""
    journal, wire = breaking
    wire.mend()
    example = len(journal.chains("example-"))
    journal.append(f"example-{example}", "x", {})
    kept: dict[str, list[Record]] = {}
    for number, (work, name, way, count) in enumerate(works):
        chain = f"{name}-{example}"
        if way:
            wire.cut_after(way, count)
        if work == "append":
            kept.setdefault(chain, []).append(journal.append(chain, "x", {"n": number}))
        elif work == "close":
            journal.close(chain)
        elif work == "use":
            assert journal.single_use(f"key {example} {number}")
            assert not journal.single_use(f"key {example} {number}")
        else:
            after = kept[chain][-1].hash if chain in kept else "new"
            other = f"{name}-too-{example}"
            entries = [Entry(chain, "x", {"n": number}, after), Entry(other, "x", {"n": number})]
            for record in journal.write(entries[: 1 if work == "fenced" else 2]):
                kept.setdefault(record.chain, []).append(record)
    assert {chain: list(journal.records(chain)) for chain in kept} == kept
    # An export streams, and is not tried again: no cut may be left over for it.
    wire.mend()
    assert verify_export(journal.export()) == ()


def test_a_server_that_stays_away_leaves_the_outcome_unknown(journal_url: str) -> None:
    """Where nobody can tell whether a record was kept, the error says so; reading tells later."""
    with _wired(journal_url, patience_s=0.3) as (journal, wire), _journal(journal_url) as other:
        first = journal.append("run-1", "x", {"n": 1})
        wire.stop("down")
        began = time.monotonic()
        with pytest.raises(JournalError) as caught:
            journal.write([Entry("run-1", "x", {"n": 2}, first.hash)])
        assert time.monotonic() - began < IN_TIME_S
        assert caught.value.code == "journal.unknown"
        _whole(other, {"n": 1}, {"n": 2})
        wire.cut()
        wire.go_on()
        with pytest.raises(FencedError):
            journal.write([Entry("run-1", "x", {"n": 2}, first.hash)])
        last = journal.last("run-1")
        assert last is not None
        journal.write([Entry("run-1", "x", {"n": 3}, last.hash)])
        _whole(journal, {"n": 1}, {"n": 2}, {"n": 3})


@pytest.mark.parametrize("count", [1, 60, 300, 600])
def test_a_wire_that_goes_silent_before_the_commit_keeps_nothing(
    journal_url: str, count: int
) -> None:
    """Where a transaction's statements reach nobody, the write ends in time, and is refused."""
    with _wired(journal_url, patience_s=0.3) as (journal, wire), _journal(journal_url) as other:
        journal.append("run-1", "x", {"n": 1})
        journal._remembered.forget()
        wire.stop_after("up", count)
        began = time.monotonic()
        with pytest.raises(JournalError) as caught:
            journal.write([Entry("run-1", "x", {"n": 2}), Entry("other", "x", {"n": 2})])
        assert time.monotonic() - began < IN_TIME_S
        assert caught.value.code == "journal.unwritable"
        wire.cut()
        _whole(other, {"n": 1})


def test_a_server_that_is_not_there_keeps_nothing(journal_url: str) -> None:
    """Where nothing was sent, the error is no `unknown`, and does not hold the address's secret."""
    with _wired(journal_url, patience_s=0.1) as (journal, wire):
        wire.close()
        with pytest.raises(JournalError) as caught:
            journal.append("run-1", "x", {})
        assert caught.value.code == "journal.unwritable"


def test_what_was_sent_late_never_arrives_late(journal_url: str) -> None:
    """A server process that stood still is ended before what became of its work is looked up."""
    with _journal(journal_url, patience_s=0.5) as journal, _journal(journal_url) as other:
        first = journal.append("run-1", "x", {"n": 1})
        journal.append("run-1", "x", {"n": 2})
        session = journal._link._session
        assert session is not None
        backend = session.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(JournalError) as caught:
                journal.append("run-1", "x", {"n": 3})
            assert caught.value.code == "journal.unknown"
        finally:
            os.kill(backend, signal.SIGCONT)
        journal.append("run-1", "x", {"n": 4})
        bodies = [record.body for record in other.records("run-1", first.sequence + 1)]
        assert bodies in (['{"n":4}'], ['{"n":3}', '{"n":4}'])
        assert verify_export(other.export()) == ()


def test_a_server_that_is_slow_is_waited_for_and_then_left(journal_url: str) -> None:
    """A write that waits for too long is an error, and not written when the wait is over."""
    with _journal(journal_url, patience_s=0.5) as journal, psycopg.connect(journal_url) as other:
        journal.append("run-1", "x", {"n": 1})
        other.execute(LOCK_WRITERS.encode())
        with pytest.raises(JournalError) as caught:
            journal.append("run-1", "x", {"n": 2})
        assert caught.value.code == "journal.unwritable"
        other.close()
        journal.append("run-1", "x", {"n": 3})
        _whole(journal, {"n": 1}, {"n": 3})


def test_a_read_only_database_keeps_nothing(journal_url: str) -> None:
    """What a read-only database refuses is not written, and not unknown; reading goes on."""
    database = conninfo_to_dict(journal_url)["dbname"]
    with (
        _journal(journal_url, patience_s=0.2) as journal,
        psycopg.connect(journal_url, autocommit=True) as other,
    ):
        journal.append("run-1", "x", {"n": 1})
        other.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on".encode())
        try:
            other.execute(END_OTHERS)
            with pytest.raises(JournalError) as caught:
                journal.append("run-1", "x", {"n": 2})
            assert caught.value.code == "journal.unwritable"
            _whole(journal, {"n": 1})
        finally:
            other.execute("SET default_transaction_read_only = off")
            other.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only".encode())


def test_a_full_disk_keeps_nothing(journal_url: str) -> None:
    """What the server's disk has no room for is an error that says so, and is not written."""
    with _journal(journal_url) as journal:
        journal.append("run-1", "x", {"n": 1})

        def full(_: object) -> None:
            raise psycopg.errors.DiskFull("could not extend file: No space left on device")

        with pytest.raises(JournalError, match="No space left") as caught:
            journal._link.attempt(full, lambda: True)
        assert (caught.value.code, "free some space" in caught.value.hint) == (
            "journal.unwritable",
            True,
        )


def test_a_server_that_crashes_and_comes_back_is_not_seen(own_server: Server) -> None:
    """A writer goes on over a crash of the server, every record once and none missing."""
    url = own_server.url(own_server.make_database())
    with _journal(url) as journal, _journal(url) as reader:
        with _appending(journal, "run-1") as returned:
            _reach(reader, "run-1", 20)
            scratch.stop(own_server.cluster.data)
            cluster = own_server.cluster
            settings = {**SETTINGS, "port": str(cluster.port)}
            scratch.start(cluster.place, cluster.data, cluster.binaries, settings)
            before = len(returned)
            _reach(reader, "run-1", before + 20)
        assert [record.hash for record in reader.records("run-1")] == returned
        assert verify_export(reader.export()) == ()


def test_a_failover_loses_nothing_that_was_returned(own_server: Server, tmp_path: Path) -> None:
    """A writer goes on at the standby once that is promoted, with every record that it had."""
    database = own_server.make_database()
    with _standby(own_server, tmp_path) as port:
        own_server.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        own_server.execute("SELECT pg_reload_conf()")
        with psycopg.connect(own_server.superuser_url("postgres"), autocommit=True) as primary:
            _until(lambda: primary.execute(SYNCHRONOUS).fetchone() == ("sync",))
        first = own_server.url(database)
        hosts = f"127.0.0.1:{own_server.cluster.port}"
        second = first.replace(hosts, f"127.0.0.1:{port}")
        both = first.replace(hosts, f"{hosts},127.0.0.1:{port}")
        with _journal(both, patience_s=40) as journal:
            with _appending(journal, "run-1") as returned:
                _until(lambda: len(returned) > 20)
                scratch.stop(own_server.cluster.data)
                with psycopg.connect(_superuser(own_server, port), autocommit=True) as standby:
                    standby.execute("SELECT pg_promote()")
                count = len(returned)
                _until(lambda: len(returned) > count + 20)
        with _journal(second) as reader:
            assert [record.hash for record in reader.records("run-1")] == returned
            assert verify_export(reader.export()) == ()


def _until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition, for half a minute at most."""
    changed = threading.Event()
    for _ in range(3000):
        if is_so():
            return
        changed.wait(0.01)
    raise TimeoutError


def _superuser(server: Server, port: int) -> str:
    return Address({**server.cluster.address().parameters, "port": str(port)}).url()


@contextmanager
def _standby(server: Server, tmp_path: Path) -> Iterator[int]:
    """Give the port of a standby that follows `server`."""
    binaries = server.cluster.binaries
    (tmp_path / "copy").mkdir()
    argv = [binaries.program("pg_basebackup"), "-D", str(tmp_path / "copy"), "-X", "stream"]
    address = server.cluster.address()
    backups.Running([*argv, "-c", "fast", "--no-sync"], address).wait(lambda: None)
    place = scratch.prepare(tmp_path / "at")
    try:
        if not place.data.exists():
            scratch.own_folder(place, place.data)
        for path in (tmp_path / "copy").iterdir():
            path.rename(place.data / path.name)
        (place.data / "standby.signal").touch()
        scratch.hand_over(place, place.data)
        given = address.parameters
        wanted = " ".join(
            f"{key}={given[key]}" for key in ("host", "port", "user", "password", "sslmode")
        )
        yield scratch.start(place, place.data, binaries, {**SETTINGS, "primary_conninfo": wanted})
    finally:
        scratch.discard(place.at)


def test_a_commit_that_nobody_confirmed_is_unknown(own_server: Server) -> None:
    """Where the wait for a standby is cancelled, nobody knows whether that has the record."""
    url = own_server.url(own_server.make_database())
    own_server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    with _journal(url) as journal:
        journal.append("run-1", "x", {})
        errors: list[JournalError] = []

        def append() -> None:
            try:
                while True:
                    journal.append("run-1", "x", {})
            except JournalError as error:
                errors.append(error)

        thread = threading.Thread(target=append)
        thread.start()
        own_server.execute("SELECT pg_reload_conf()")
        with psycopg.connect(own_server.superuser_url("postgres"), autocommit=True) as other:
            _until(lambda: other.execute(CANCEL_WAITING).fetchone() != (0,))
        thread.join()
        assert [error.code for error in errors] == ["journal.unknown"]
