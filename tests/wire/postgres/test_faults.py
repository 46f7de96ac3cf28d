"""What a guard leaves behind when it is killed, or when the network fails it: nothing."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from handrail.adapters.postgres import PostgresStore
from handrail.plans.holding import Limits
from support import guard_process
from support.faults import Proxy, proxy
from support.guard_process import GuardProcess
from support.guarding import Database, Guarded, budget, hold
from support.postgres_server import RESOURCE, tools

ALLOWED = (
    ("delete", "table", "notes", 50),
    ("delete", "table", "devices", 20),
    ("delete", "table", "readings", 600),
)
# Counted by its tag alone, and by what the gate reads: a cascade takes readings with a device.
STATEMENTS = ("DELETE FROM notes WHERE id = 1", "DELETE FROM devices WHERE id = 1")
DEADLINE_S = 30


def by(wire: Proxy, database: Database) -> str:
    """Return the database's address by way of a wire."""
    address = database.server.url(database.name)
    return address.replace(f":{database.server.cluster.port}/", f":{wire.port}/")


@contextmanager
def killable(database: Database) -> Iterator[tuple[GuardProcess, Proxy]]:
    """Give a guard in a process of its own, with a wire between it and the server."""
    with proxy("127.0.0.1", database.server.cluster.port) as wire:
        started = guard_process.running(
            "postgres", by(wire, database), mode="hold", allowed=ALLOWED
        )
        with started as guard:
            yield guard, wire


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """Return a client that begins no transaction by itself."""
    return psycopg.connect(url, autocommit=True)


def is_so(condition: Callable[[], bool], what: str) -> None:
    """Look until something is so; fail where it never is."""
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, what


def nobody_is_connected(database: Database) -> None:
    """Wait until the server has no session left for the database, but for the one that asks."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    is_so(lambda: database.ask(query) == 0, "a session of the guard is left on the server")


def copy_into_notes(client: psycopg.Connection[tuple[object, ...]], lines: str) -> None:
    """Send rows of the table `notes`."""
    with client.cursor() as cursor, cursor.copy("COPY notes FROM STDIN") as copy:
        copy.write(lines)


def in_background(work: Callable[[], object]) -> threading.Thread:
    """Do something that will fail when the guard dies, beside the test."""

    def attempt() -> None:
        with contextlib.suppress(psycopg.Error):
            work()

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    return thread


def ends(thread: threading.Thread) -> None:
    """Wait for what was done in the background; fail where it hangs."""
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), "the client hangs"


def killed_and_as_before(database: Database, guard: GuardProcess, wire: Proxy) -> None:
    """Kill the guard, and find the database as it was and without its session."""
    guard.kill()
    wire.cut()
    nobody_is_connected(database)
    assert database.counts() == {"notes": 50, "devices": 20, "readings": 600}


# --- the guard is killed ------------------------------------------------------------------------


def test_a_guard_killed_after_begin_leaves_all_as_it_was(database: Database) -> None:
    """A transaction that has just begun is gone with the guard."""
    with killable(database) as (guard, wire):
        client = connect(guard.url)
        client.execute("BEGIN")
        killed_and_as_before(database, guard, wire)
        with pytest.raises(psycopg.OperationalError):
            client.execute("DELETE FROM notes")
        client.close()


def test_a_guard_killed_after_a_statement_leaves_all_as_it_was(database: Database) -> None:
    """Rows that a transaction has deleted are there again when the guard is killed."""
    with killable(database) as (guard, wire):
        client = connect(guard.url)
        client.execute("BEGIN")
        assert client.execute("DELETE FROM notes").rowcount == 50
        killed_and_as_before(database, guard, wire)
        client.close()


def test_a_guard_killed_while_it_reads_the_gate_leaves_all_as_it_was(database: Database) -> None:
    """Between the client's COMMIT and the answer to what the gate asks, nothing has happened."""
    with killable(database) as (guard, wire):
        client = connect(guard.url)
        client.execute("BEGIN")
        client.execute("DELETE FROM devices")
        asked = wire.taken("up")
        wire.stop("down")
        committing = in_background(lambda: client.execute("COMMIT"))
        wire.wait_passed("up", asked + 1)
        killed_and_as_before(database, guard, wire)
        ends(committing)
        client.close()


def size_of_a_commit(database: Database, statement: str) -> int:
    """Return how many bytes the guard sends from the client's COMMIT to its end."""
    with killable(database) as (guard, wire), connect(guard.url) as client:
        client.execute("BEGIN")
        client.execute(statement.encode())
        before = wire.taken("up")
        client.execute("COMMIT")
        return wire.taken("up") - before


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("part", [0, 0.3, 0.6, 1])
def test_a_guard_killed_at_any_byte_before_commit_leaves_all_as_it_was(
    database: Database, tmp_path: Path, statement: str, part: float
) -> None:
    """Wherever what leads to a COMMIT is broken off, and be it by its last byte, it never was."""
    measured = Database(database.server, tmp_path)
    point = int((size_of_a_commit(measured, statement) - 1) * part)
    measured.drop()
    with killable(database) as (guard, wire):
        client = connect(guard.url)
        client.execute("BEGIN")
        client.execute(statement.encode())
        before = wire.taken("up")
        wire.stop_after("up", point)
        committing = in_background(lambda: client.execute("COMMIT"))
        wire.wait_passed("up", before + point)
        killed_and_as_before(database, guard, wire)
        ends(committing)
        client.close()


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_guard_killed_in_an_autocommit_statement_leaves_all_as_it_was(
    database: Database, statement: str
) -> None:
    """A statement that is its own transaction is gone with a guard that dies before its gate."""
    with killable(database) as (guard, wire):
        client = connect(guard.url)
        client.execute("SELECT 1")
        asked = wire.taken("up")
        wire.stop("down")
        deleting = in_background(lambda: client.execute(statement.encode()))
        wire.wait_passed("up", asked + 1)
        killed_and_as_before(database, guard, wire)
        ends(deleting)
        client.close()


def test_a_guard_killed_after_commit_has_lost_nothing(database: Database) -> None:
    """What a client was told is committed stays, whatever becomes of the guard."""
    with killable(database) as (guard, _), connect(guard.url) as client:
        client.execute("DELETE FROM notes WHERE id <= 10")
        guard.kill()
        client.close()
    nobody_is_connected(database)
    assert database.counts()["notes"] == 40


# --- the network fails between guard and server -------------------------------------------------


@contextmanager
def over_a_wire(database: Database) -> Iterator[tuple[Guarded, Proxy]]:
    """Give a guard in this process that reaches its server by a wire."""
    threads = set(threading.enumerate())
    with proxy("127.0.0.1", database.server.cluster.port) as wire:
        store = PostgresStore(RESOURCE, by(wire, database), environment=tools())
        with database.guarded(hold(budget(delete_notes=50)), store) as guarded:
            yield guarded, wire
    left = [t for t in threading.enumerate() if t not in threads and t.is_alive()]
    assert not left, f"threads are left: {left}"
    nobody_is_connected(database)


def test_a_cut_to_the_server_ends_the_client_at_once(database: Database) -> None:
    """A client learns that the server is gone; the transaction is rolled back, nothing is left."""
    with over_a_wire(database) as (guarded, wire):
        client = guarded.connect()
        client.execute("BEGIN")
        client.execute("DELETE FROM notes")
        wire.cut()
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
        client.close()
        report = guarded.settle()
    assert report.effects == ()
    assert database.counts()["notes"] == 50


def test_a_cut_within_an_answer_is_no_answer(database: Database) -> None:
    """A result that breaks off fails in the client; it is not taken for a shorter one."""
    with over_a_wire(database) as (guarded, wire):
        client = guarded.connect()
        client.execute("SELECT 1")
        wire.cut_after("down", 100_000)
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
        client.close()


def test_a_commit_whose_answer_is_lost_is_not_reported_as_undone(database: Database) -> None:
    """Where the answer to a COMMIT never comes, the report does not claim that nothing happened."""
    with over_a_wire(database) as (guarded, wire):
        client = guarded.connect()
        client.execute("BEGIN")
        client.execute("DELETE FROM notes WHERE id = 1")
        wire.stop("down")
        before = wire.taken("up")
        committing = in_background(lambda: client.execute("COMMIT"))
        # Whatever part of the way to COMMIT the guard could go without an answer, it has gone.
        wire.wait_passed("up", before + 1)
        wire.go_on()
        ends(committing)
        client.close()
        report = guarded.settle()
    assert sum(effect.rows or 0 for effect in report.effects) == 50 - database.counts()["notes"]


def test_a_slow_server_delays_and_changes_nothing(database: Database) -> None:
    """Every answer late: the client waits, and what is done and counted is the same."""
    with over_a_wire(database) as (guarded, wire):
        wire.delay(0.02)
        with guarded.connect() as client:
            assert client.execute("DELETE FROM notes WHERE id <= 7").rowcount == 7
            assert len(client.execute("SELECT * FROM notes").fetchall()) == 43
        report = guarded.settle()
    assert [(e.verb, e.name, e.rows) for e in report.effects] == [("delete", "notes", 7)]


def test_a_narrow_wire_delays_and_changes_nothing(database: Database) -> None:
    """A throttled wire passes a large COPY in whole, in both directions."""
    lines = "".join(f"{number}\tnote {'x' * 100}\n" for number in range(1000, 3000))
    with (
        database.guarded(hold(budget(insert_notes=2000))) as near,
        proxy("127.0.0.1", int(near.guard.connection().parts["port"])) as wire,
    ):
        wire.throttle(2_000_000)
        url = near.url.replace(f":{near.guard.connection().parts['port']}/", f":{wire.port}/")
        with connect(url) as client:
            copy_into_notes(client, lines)
            found = client.execute("SELECT count(*), sum(length(body)) FROM notes").fetchone()
        assert found is not None
        assert found[0] == 2050
        assert near.settle().stop is None


def test_a_server_that_does_not_answer_does_not_hold_the_end_up(database: Database) -> None:
    """A pulled cable while a statement runs: the guard settles in time, and leaves nothing."""
    began = time.monotonic()
    with over_a_wire(database) as (guarded, wire):
        client = guarded.connect()
        client.execute("BEGIN")
        client.execute("DELETE FROM notes")
        wire.stop()
        waiting = in_background(lambda: client.execute("SELECT 1"))
        report = guarded.settle()
        ends(waiting)
        client.close()
        wire.go_on()
    assert report.effects == ()
    assert database.counts()["notes"] == 50
    assert time.monotonic() - began < DEADLINE_S


# --- the network fails between client and guard -------------------------------------------------


@contextmanager
def far(database: Database, limits: Limits | None = None) -> Iterator[tuple[Guarded, Proxy, str]]:
    """Give a guard, a wire to it, and the address of the guard by that wire."""
    threads = set(threading.enumerate())
    with database.guarded(limits or hold(budget(delete_notes=50))) as guarded:
        port = guarded.guard.connection().parts["port"]
        with proxy("127.0.0.1", int(port)) as wire:
            yield guarded, wire, guarded.url.replace(f":{port}/", f":{wire.port}/")
    assert not [t for t in threading.enumerate() if t not in threads and t.is_alive()]
    nobody_is_connected(database)


def test_a_client_that_is_cut_off_is_rolled_back(database: Database) -> None:
    """A client that is gone within its transaction leaves neither rows nor a session."""
    with far(database) as (guarded, wire, url):
        client = connect(url)
        client.execute("BEGIN")
        client.execute("DELETE FROM notes")
        wire.cut()
        nobody_is_connected(database)
        client.close()
        assert guarded.settle().effects == ()
    assert database.counts()["notes"] == 50


@pytest.mark.parametrize("point", [1, 5, 20, 40])
def test_a_statement_that_arrives_half_is_not_run(database: Database, point: int) -> None:
    """A frame whose rest never comes does nothing."""
    with far(database) as (guarded, wire, url):
        client = connect(url)
        client.execute("SELECT 1")
        wire.cut_after("up", point)
        with pytest.raises(psycopg.OperationalError):
            client.execute("DELETE FROM notes WHERE id IN (1, 2, 3, 4, 5, 6, 7, 8, 9)")
        nobody_is_connected(database)
        client.close()
        assert guarded.settle().effects == ()
    assert database.counts()["notes"] == 50


def test_a_client_cut_off_within_a_copy_has_copied_nothing(database: Database) -> None:
    """Rows of a COPY whose end never comes are not kept."""
    with far(database, hold(budget(insert_notes=10_000))) as (guarded, wire, url):
        client = connect(url)
        wire.cut_after("up", 60_000)
        lines = "".join(f"{number}\tnote {number}\n" for number in range(1000, 9000))
        with pytest.raises(psycopg.OperationalError):
            copy_into_notes(client, lines)
        nobody_is_connected(database)
        client.close()
        assert guarded.settle().effects == ()
    assert database.counts()["notes"] == 50


def test_a_client_that_closes_its_half_still_gets_its_answer(database: Database) -> None:
    """Half a close says that nothing more comes: what was sent is done, and answered."""
    with far(database) as (guarded, wire, url):
        client = connect(url)
        client.execute("SELECT 1")
        client.pgconn.send_query(b"DELETE FROM notes WHERE id = 1")
        client.pgconn.flush()
        wire.wait_passed("up", wire.taken("up"))
        wire.close_half("up")
        nobody_is_connected(database)
        client.close()
        report = guarded.settle()
    done = 50 - database.counts()["notes"]
    assert sum(effect.rows or 0 for effect in report.effects) == done


def test_a_client_that_reads_nothing_does_not_fill_the_guard(database: Database) -> None:
    """A result nobody reads waits on the server: the guard keeps a small part of it."""
    with proxy_to_process(database) as (guard, wire, url):
        client = connect(url)
        client.execute("SELECT 1")
        before_kb = resident_kb(guard.pid)
        wire.stop("down")
        client.pgconn.send_query(b"SELECT repeat('x', 10000) FROM generate_series(1, 20000)")
        client.pgconn.flush()
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'"
            " AND datname = current_database()"
        )
        is_so(lambda: database.ask(query) == 1, "the server never waits for its client")
        assert resident_kb(guard.pid) - before_kb < 32 * 1024
        wire.cut()
        nobody_is_connected(database)
        client.close()


@contextmanager
def proxy_to_process(database: Database) -> Iterator[tuple[GuardProcess, Proxy, str]]:
    """Give a guard in a process of its own, and a wire between a client and it."""
    url = database.server.url(database.name)
    with (
        guard_process.running("postgres", url, mode="hold", allowed=ALLOWED) as guard,
        proxy("127.0.0.1", int(guard.parts["port"])) as wire,
    ):
        yield guard, wire, guard.url.replace(f":{guard.parts['port']}/", f":{wire.port}/")


def resident_kb(pid: int) -> int:
    """Return what a process has in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_a_crowd_that_comes_and_goes_leaves_no_file_open(database: Database) -> None:
    """A hundred clients, half of them cut off: the guard has as many files open as before."""
    with proxy_to_process(database) as (guard, wire, url):
        connect(url).close()
        nobody_is_connected(database)
        wire.wait_closed()
        before = open_files(guard.pid)
        for _ in range(5):
            crowd = [connect(url) for _ in range(20)]
            for client in crowd[:10]:
                client.close()
            wire.cut()
            for client in crowd:
                client.close()
        nobody_is_connected(database)
        is_so(lambda: open_files(guard.pid) <= before, "sockets of the guard are left open")


def open_files(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - what counts is the number
