"""The contract of locks: in files, in PostgreSQL and in memory; and what only files can do."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.adapters.file_locks import FileLocks
from handrail.adapters.postgres_journal.link import Link
from handrail.adapters.postgres_journal.locks import PostgresLocks
from handrail.errors import RefusedError
from handrail.ports import Locks
from handrail.testing.clock import FakeClock
from handrail.testing.locks import MemoryLocks
from support.journals import journal_database, journal_url

__all__ = ["journal_database", "journal_url"]

HOLD = """
import sys
from pathlib import Path
from handrail.adapters.file_locks import FileLocks
with FileLocks(Path(sys.argv[1])).hold('store/pilot-db', 'ana, run 7'):
    print('held', flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["file", "postgres", "memory"])
def locks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Locks]:
    if request.param == "postgres":
        link = Link(request.getfixturevalue("journal_url"))
        yield PostgresLocks(link, FakeClock())
        link.close()
    else:
        yield FileLocks(tmp_path / "locks") if request.param == "file" else MemoryLocks()


def test_nobody_holds_what_was_never_held(locks: Locks) -> None:
    """A resource that was never held has no holder."""
    assert locks.holder("store/pilot-db") is None


def test_a_holder_is_named_and_lets_go(locks: Locks) -> None:
    """Who holds a resource is known while it is held, and not afterwards."""
    with locks.hold("store/pilot-db", "ana, run 7"):
        assert locks.holder("store/pilot-db") == "ana, run 7"
        assert locks.holder("store/other") is None
    assert locks.holder("store/pilot-db") is None


def test_a_held_resource_is_refused_to_others(locks: Locks) -> None:
    """A second holder is refused, and told who is first; the first keeps it."""
    with locks.hold("store/pilot-db", "ana, run 7"):
        with (
            pytest.raises(RefusedError, match="ana, run 7") as caught,
            locks.hold("store/pilot-db", "ben"),
        ):
            pytest.fail("held twice")
        assert caught.value.code == "run.locked"
        assert locks.holder("store/pilot-db") == "ana, run 7"
    with locks.hold("store/pilot-db", "ben"):
        assert locks.holder("store/pilot-db") == "ben"


def test_an_error_inside_lets_go(locks: Locks) -> None:
    """What goes wrong while a resource is held releases it."""
    with pytest.raises(ZeroDivisionError), locks.hold("store/pilot-db", "ana"):
        raise ZeroDivisionError
    assert locks.holder("store/pilot-db") is None


@pytest.mark.parametrize("resource", ["..", "a/../b", "a\nb", "größe", "x" * 5000, "-x", ""])
def test_any_name_can_be_held(locks: Locks, resource: str) -> None:
    """A resource may have any name; no two of them share a lock."""
    with locks.hold(resource, "ana"), locks.hold(f"{resource}.", "ben"):
        assert (locks.holder(resource), locks.holder(f"{resource}.")) == ("ana", "ben")


def test_a_lock_stays_in_its_directory(tmp_path: Path) -> None:
    """A name with slashes and dots makes a file in the directory of locks and nowhere else."""
    with FileLocks(tmp_path / "locks").hold("../../x", "ana"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["locks"]
    assert [p.name for p in (tmp_path / "locks").iterdir()] == ["..%2F..%2Fx.lock"]


def test_death_releases(tmp_path: Path) -> None:
    """A process that is killed holds nothing any more, whatever its lock's text still says."""
    locks = FileLocks(tmp_path)
    arguments = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert locks.holder("store/pilot-db") == "ana, run 7"
        with (
            pytest.raises(RefusedError, match=f"process {process.pid}"),
            locks.hold("store/pilot-db", "ben"),
        ):
            pytest.fail("held twice")
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=20)
    assert b"ana" in (tmp_path / "store%2Fpilot-db.lock").read_bytes()
    assert locks.holder("store/pilot-db") is None
    with locks.hold("store/pilot-db", "ben"):
        assert locks.holder("store/pilot-db") == "ben"


def test_looking_never_makes_a_lock_fail(tmp_path: Path) -> None:
    """Asking who holds a resource, over and over, refuses it to nobody."""
    locks = FileLocks(tmp_path)
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            locks.holder("store/pilot-db")

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(200):
            with locks.hold("store/pilot-db", "ana"):
                pass
    finally:
        done.set()
        thread.join()


def test_a_directory_that_cannot_be_used_refuses(tmp_path: Path) -> None:
    """Without a place for the lock, nothing is held, and the refusal says why."""
    (tmp_path / "file").write_text("")
    locks = FileLocks(tmp_path / "file")
    with pytest.raises(RefusedError) as caught, locks.hold("store/pilot-db", "ana"):
        pytest.fail("held")
    assert caught.value.code == "run.locked"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"who":1}', '{"pid":"x","who":"y"}'])
def test_a_text_that_cannot_be_read_holds_all_the_same(tmp_path: Path, text: str) -> None:
    """The kernel's lock decides; a text that somebody broke only costs the name."""
    locks = FileLocks(tmp_path)
    with locks.hold("r", "ana"):
        (tmp_path / "r.lock").write_text(text)
        assert locks.holder("r") == "somebody"
