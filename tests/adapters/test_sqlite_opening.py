"""Opening a database file: what is refused, what is repaired, and what is never done."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from handrail.adapters.sqlite import SqliteStore
from handrail.errors import StoreError
from support.sqlite_files import (
    ID,
    READINGS,
    another_process,
    die_while,
    execute,
    make_store,
    path_of,
    rows,
    run_pragma,
    tell,
)

NOBODY = 65534


def error_of(path: Path) -> StoreError:
    """Return the error that identifying the file at `path` gives."""
    with pytest.raises(StoreError) as raised:
        SqliteStore("store/app-db", path, busy_timeout_s=0.1).identify()
    assert raised.value.hint
    assert "store/app-db" in raised.value.message
    return raised.value


def test_missing_stays_missing(tmp_path: Path) -> None:
    """Asking a missing database who it is makes no file."""
    assert error_of(tmp_path / "no.db").code == "store.missing"
    assert error_of(tmp_path / "no" / "no.db").code == "store.missing"
    assert list(tmp_path.iterdir()) == []


def test_dangling_link(tmp_path: Path) -> None:
    """A link to nothing is a missing database."""
    (tmp_path / "link.db").symlink_to(tmp_path / "gone.db")
    assert error_of(tmp_path / "link.db").code == "store.missing"


def test_not_a_file(tmp_path: Path) -> None:
    """A directory, a FIFO and a device are refused at once, without waiting for them."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
        assert error_of(path).code == "store.not-a-store"


@pytest.mark.parametrize("content", [b"just text\n" * 100, os.urandom(8192), b"SQLite format 2\0"])
def test_not_a_database(tmp_path: Path, content: bytes) -> None:
    """Text, and what looks random as an encrypted database does, are no database."""
    path = tmp_path / "x.db"
    path.write_bytes(content)
    assert error_of(path).code == "store.not-a-store"
    assert path.read_bytes() == content


def test_damaged(tmp_path: Path) -> None:
    """A database whose schema is overwritten is an error that names the remedy."""
    store = make_store(tmp_path / "x.db", READINGS)
    with path_of(store).open("r+b") as stream:
        stream.seek(100)
        stream.write(b"\xff" * 3000)
    error = error_of(path_of(store))
    assert error.code == "store.failed"
    assert "damaged" in error.message


@pytest.mark.parametrize(
    "name", ["a?b#c%41 d.db", "x?mode=memory", "a'b\"c\n.db", "ü\u202e.db", "-"]
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    """The name of a file is a name, whatever it would mean in a URI."""
    store = make_store(tmp_path / name, READINGS)
    assert store.measure().rows == 3
    before = tmp_path / "before"
    before.mkdir()
    store.observe(before)
    execute(tmp_path / name, "DELETE FROM readings")
    assert [effect.rows for effect in store.effects(before)] == [3]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "before"])


def test_name_that_is_not_unicode(tmp_path: Path) -> None:
    """A file name of any bytes can be opened."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.db"))
    make_store(tmp_path / "plain.db", READINGS)
    (tmp_path / "plain.db").rename(path)
    assert SqliteStore("store/app-db", path).measure().rows == 3


def test_link_is_resolved(tmp_path: Path) -> None:
    """The endpoint is the real path, so that two names of one file are one store."""
    store = make_store(tmp_path / "real.db", READINGS)
    (tmp_path / "link.db").symlink_to("real.db")
    linked = SqliteStore("store/app-db", tmp_path / "link.db")
    assert linked.identify() == store.identify()
    assert linked.identify().endpoint == os.path.realpath(tmp_path / "real.db")


def test_adopt(tmp_path: Path) -> None:
    """Adopting gives an id once; it goes wherever a copy of the file goes."""
    execute(tmp_path / "a.db", READINGS)
    store = SqliteStore("store/app-db", tmp_path / "a.db")
    assert store.identify().id == "sqlite:unadopted"
    fingerprint = store.fingerprint()
    assert store.adopt(ID).id == f"sqlite:{ID}"
    assert store.adopt("0" * 32).id == f"sqlite:{ID}"
    assert store.fingerprint() == fingerprint
    shutil.copy(tmp_path / "a.db", tmp_path / "b.db")
    copied = SqliteStore("store/app-db", tmp_path / "b.db").identify()
    assert (copied.id, copied.marker) == (f"sqlite:{ID}", "")
    assert copied.endpoint != store.identify().endpoint


def test_an_empty_file_is_an_empty_database(tmp_path: Path) -> None:
    """A file of no bytes is what SQLite makes of it: a database without tables."""
    (tmp_path / "x.db").touch()
    store = SqliteStore("store/app-db", tmp_path / "x.db")
    assert store.measure().rows == 0
    assert store.adopt(ID).id == f"sqlite:{ID}"


def test_locked(tmp_path: Path) -> None:
    """A lock that is not given in time is an error that says how to find its holder."""
    store = make_store(tmp_path / "x.db", READINGS, busy_timeout_s=0.1)
    with another_process(path_of(store), "BEGIN EXCLUSIVE"), pytest.raises(StoreError) as raised:
        store.measure()
    assert raised.value.code == "store.locked"
    assert "fuser" in raised.value.hint


def test_hot_journal(tmp_path: Path) -> None:
    """What a killed process had half written is rolled back before anything is read."""
    store = make_store(tmp_path / "x.db", READINGS)
    before = store.fingerprint()
    fill = "WITH RECURSIVE n (i) AS (SELECT 4 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
    die_while(
        path_of(store),
        "PRAGMA cache_size = 5",
        "BEGIN",
        "UPDATE readings SET value = 'half'",
        f"INSERT INTO readings {fill} SELECT i, hex(randomblob(50)) FROM n",
    )
    assert (tmp_path / "x.db-journal").stat().st_size > 0
    assert store.fingerprint() == before
    assert not (tmp_path / "x.db-journal").exists()


def test_log_left_behind(tmp_path: Path) -> None:
    """What a killed process had committed into the log counts, and the log is tidied up."""
    store = make_store(tmp_path / "x.db", READINGS)
    run_pragma(path_of(store), "PRAGMA journal_mode = wal")
    die_while(path_of(store), "INSERT INTO readings VALUES (4, 'd')")
    assert (tmp_path / "x.db-wal").stat().st_size > 0
    assert store.measure().rows == 4
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]


def test_own_locks_are_kept(tmp_path: Path) -> None:
    """Looking at a database does not drop the locks that this process holds on it.

    Closing any descriptor of a file drops them all, so nothing may open it but SQLite.
    """
    store = make_store(tmp_path / "x.db", READINGS)
    path = path_of(store)
    with (
        another_process(path, "PRAGMA busy_timeout = 0") as other,
        closing(sqlite3.connect(path, isolation_level=None)) as mine,
    ):
        mine.execute("BEGIN IMMEDIATE")
        store.fingerprint()
        store.identify()
        store.others()
        assert store.measure().size_bytes > 0
        assert store.ask("SELECT 1", 5) == "1"
        assert "locked" in tell(other, "BEGIN IMMEDIATE")


def test_others(tmp_path: Path) -> None:
    """Another process that has the file open is named, this one is not."""
    store = make_store(tmp_path / "x.db", READINGS)
    with (
        closing(sqlite3.connect(path_of(store))) as mine,
        another_process(path_of(store), "SELECT * FROM readings") as other,
    ):
        mine.execute("SELECT * FROM readings").fetchall()
        (found,) = store.others()
        assert found.endswith(f"(pid {other.pid})")
        assert found.startswith("python")
    assert store.others() == ()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory that every user can reach."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    directory.chmod(0o755)
    shutil.rmtree(directory)


def as_reader(path: Path, look: Callable[[], object]) -> str:
    """Return what `look` gives, or its error's code, for a user who may only read there."""
    path.parent.chmod(0o555)
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    try:
        return str(look())
    except StoreError as error:
        return error.code
    finally:
        os.seteuid(was)
        path.parent.chmod(0o755)


def test_read_only_directory(shared: Path) -> None:
    """A database with a log's header is read where no log can be made beside it."""
    store = make_store(shared / "x.db", READINGS)
    run_pragma(path_of(store), "PRAGMA journal_mode = wal")
    expected = store.fingerprint()
    path_of(store).chmod(0o444)
    assert as_reader(path_of(store), lambda: store.measure().rows) == "3"
    assert as_reader(path_of(store), lambda: store.fingerprint().schema) == expected.schema
    assert as_reader(path_of(store), lambda: store.adopt("1" * 32).id) == f"sqlite:{ID}"
    path_of(store).chmod(0o644)
    execute(path_of(store), "DROP TABLE _handrail_identity")
    path_of(store).chmod(0o444)
    assert as_reader(path_of(store), lambda: store.adopt("1" * 32).id) == "store.denied"


def test_read_only_directory_with_a_log(shared: Path) -> None:
    """A log that this user cannot read into the database is not passed over in silence."""
    store = make_store(shared / "x.db", READINGS)
    run_pragma(path_of(store), "PRAGMA journal_mode = wal")
    die_while(path_of(store), "INSERT INTO readings VALUES (4, 'd')")
    (shared / "x.db-shm").unlink()
    assert as_reader(path_of(store), lambda: store.measure().rows) == "store.denied"


def test_unreadable(shared: Path) -> None:
    """A file that this user may not read is denied, not missing."""
    store = make_store(shared / "x.db", READINGS)
    path_of(store).chmod(0o000)
    assert as_reader(path_of(store), lambda: store.identify().id) == "store.denied"


def test_sparse_giant(tmp_path: Path) -> None:
    """A file that claims terabytes is not copied onto a disk that has no room for it."""
    store = make_store(tmp_path / "x.db", READINGS)
    with path_of(store).open("r+b") as stream:
        stream.seek(28)
        stream.write((2**31).to_bytes(4, "big"))
        stream.truncate(2**31 * 4096)
    into = tmp_path / "backup"
    into.mkdir()
    with pytest.raises(StoreError) as raised:
        store.backup("b1", into, lambda *_: None)
    assert raised.value.code == "store.disk-full"
    assert list(into.iterdir()) == []


def test_connection(tmp_path: Path) -> None:
    """A script gets the path plainly, and a URL in which a name cannot be mistaken for a query."""
    store = make_store(tmp_path / "a?b.db", READINGS)
    connection = store.connection()
    assert connection.environment["SQLITE_DATABASE"] == str(tmp_path / "a?b.db")
    assert connection.parts["url"] == f"sqlite:///{tmp_path}/a%3Fb.db"
    assert connection.paths == (tmp_path,)
    assert (connection.sockets, connection.secrets) == ((), ())
    assert rows(Path(connection.parts["path"]), "SELECT count(*) FROM readings") == [(3,)]
