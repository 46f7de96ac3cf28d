"""Locks in PostgreSQL: a connection holds, and its end releases, whatever ends it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from handrail.adapters.postgres_journal.link import Link
from handrail.adapters.postgres_journal.locks import PostgresLocks
from handrail.errors import RefusedError
from handrail.testing.clock import FakeClock
from support.faults import proxy
from support.journals import journal_database, journal_url

__all__ = ["journal_database", "journal_url"]

HOLD = """
import sys
from handrail.adapters.postgres_journal.link import Link
from handrail.adapters.postgres_journal.locks import PostgresLocks
from handrail.adapters.system import SystemClock
with PostgresLocks(Link(sys.argv[1]), SystemClock()).hold('store/pilot-db', 'ana, run 7'):
    print('held', flush=True)
    sys.stdin.read()
"""
END_HOLDERS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_locks"
    " WHERE locktype = 'advisory' AND objsubid = 1"
)


@pytest.fixture
def locks(journal_url: str) -> Iterator[PostgresLocks]:
    link = Link(journal_url, patience_s=2)
    yield PostgresLocks(link, FakeClock())
    link.close()


def _released(locks: PostgresLocks, resource: str) -> bool:
    """Wait until nobody holds a resource; False where somebody does for half a minute."""
    never = threading.Event()
    return any(locks.holder(resource) is None or never.wait(0.02) for _ in range(1500))


def test_death_releases(locks: PostgresLocks, journal_url: str) -> None:
    """A process that is killed holds nothing any more, whatever the table still says."""
    arguments = [sys.executable, "-c", HOLD, journal_url]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert locks.holder("store/pilot-db") == "ana, run 7"
        with (
            pytest.raises(RefusedError, match=f"process {process.pid} on "),
            locks.hold("store/pilot-db", "ben"),
        ):
            pytest.fail("held twice")
        process.kill()
        process.wait(timeout=20)
    assert _released(locks, "store/pilot-db")
    with locks.hold("store/pilot-db", "ben"):
        assert locks.holder("store/pilot-db") == "ben"


def test_a_lost_connection_releases(locks: PostgresLocks, journal_url: str) -> None:
    """Whoever lost the connection holds nothing any more, and leaves as if nothing had been."""
    with psycopg.connect(journal_url) as other, locks.hold("store/pilot-db", "ana"):
        other.execute(END_HOLDERS)
        assert _released(locks, "store/pilot-db")
        with locks.hold("store/pilot-db", "ben"):
            assert locks.holder("store/pilot-db") == "ben"


def test_a_holder_that_said_nothing_holds_all_the_same(
    locks: PostgresLocks, journal_url: str
) -> None:
    """The server's lock decides; a row that somebody removed only costs the name."""
    with psycopg.connect(journal_url) as other, locks.hold("store/pilot-db", "ana"):
        other.execute("DELETE FROM handrail.holders")
        other.commit()
        assert locks.holder("store/pilot-db") == "somebody"
        with pytest.raises(RefusedError, match="somebody"), locks.hold("store/pilot-db", "ben"):
            pytest.fail("held twice")


def test_looking_makes_nothing(locks: PostgresLocks, journal_url: str) -> None:
    """Asking who holds a resource makes no schema."""
    assert locks.holder("store/pilot-db") is None
    with psycopg.connect(journal_url) as other:
        found: Any = other.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'handrail'")
        assert found.fetchone() is None


def test_of_threads_one_holds(locks: PostgresLocks) -> None:
    """Of threads that ask at once, exactly one holds, and lets the next one in afterwards."""
    together = threading.Barrier(4)
    held: list[str] = []
    refused: list[str] = []

    def work(name: str) -> None:
        together.wait(20)
        try:
            with locks.hold("store/pilot-db", name):
                held.append(name)
                together.wait(20)
        except RefusedError:
            refused.append(name)
            together.wait(20)

    threads = [threading.Thread(target=work, args=(f"ana {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 3)
    assert locks.holder("store/pilot-db") is None


def test_without_a_server_nothing_is_held() -> None:
    """A server that does not answer is a refusal that says so."""
    with proxy("127.0.0.1", 1) as wire:
        link = Link(f"postgres://ana:hunter2hunter2@127.0.0.1:{wire.port}/x", patience_s=1)
        wire.close()
        locks = PostgresLocks(link, FakeClock())
        with pytest.raises(RefusedError) as caught, locks.hold("store/pilot-db", "ana"):
            pytest.fail("held")
    assert caught.value.code == "run.locked"
    assert "hunter2" not in str(caught.value)
