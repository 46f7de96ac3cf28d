"""Backups of a database file, going back to them, and clones made of them."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handrail.adapters.sqlite import SqliteStore
from handrail.errors import StoreError
from handrail.plans.facts import Backup
from support.sqlite_files import (
    ID,
    READINGS,
    another_process,
    back_up,
    die_while,
    execute,
    make_store,
    path_of,
    quiet,
    rows,
    run_pragma,
    tell,
)

MARKER = "abcd" * 8
MORE = """
CREATE TABLE more (id INTEGER PRIMARY KEY, filler BLOB);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000)
INSERT INTO more SELECT i, randomblob(200) FROM n;
"""


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    """A store of some pages, alone in its directory."""
    (tmp_path / "live").mkdir()
    return make_store(tmp_path / "live" / "app.db", READINGS + MORE, busy_timeout_s=0.5)


@pytest.fixture
def backup(store: SqliteStore, tmp_path: Path) -> Backup:
    """A backup of it."""
    return back_up(store, tmp_path / "backup")


def kept(store: SqliteStore, backup: Backup) -> Path:
    """Return where a restore keeps what was there."""
    return path_of(store).with_name(f"app.db.before-restore-{backup.id}")


# --- backups -----------------------------------------------------------------------------------


def test_backup_is_private_and_whole(store: SqliteStore, tmp_path: Path) -> None:
    """A backup is one private file with nothing half made beside it, and says when it was begun."""
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    dated = SqliteStore("store/app-db", path_of(store), now=lambda: when)
    backup = back_up(dated, tmp_path / "backup")
    assert (backup.form, backup.made_at) == ("sqlite", "2026-01-02T03:04:05+00:00")
    assert Path(backup.path).stat().st_mode & 0o777 == 0o600
    assert backup.size_bytes == Path(backup.path).stat().st_size
    assert backup.fingerprint == store.fingerprint()
    names = {path.name for path in (tmp_path / "backup").iterdir()}
    assert names == {"store.sqlite", "store.owner"}


def test_backup_reports_progress(store: SqliteStore, tmp_path: Path) -> None:
    """Progress ends at the whole."""
    seen: list[tuple[int, int | None]] = []
    (tmp_path / "backup").mkdir()
    store.backup("b1", tmp_path / "backup", lambda done, total: seen.append((done, total)))
    assert seen
    assert seen[-1][0] == seen[-1][1]


def test_backup_while_others_write(tmp_path: Path) -> None:
    """A backup under writers is one moment of the database: no transaction is in it by half."""
    sql = "CREATE TABLE a (n INTEGER); CREATE TABLE b (n INTEGER);" + MORE
    store = make_store(tmp_path / "app.db", sql)
    run_pragma(path_of(store), "PRAGMA journal_mode = wal")
    stop = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path_of(store), isolation_level=None, timeout=30)) as writer:
            while not stop.is_set():
                writer.executescript(
                    "BEGIN IMMEDIATE; INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); COMMIT"
                )

    thread = threading.Thread(target=write)
    thread.start()
    try:
        backups = [back_up(store, tmp_path / f"backup-{n}", f"b{n}") for n in range(3)]
    finally:
        stop.set()
        thread.join()
    for backup in backups:
        counted = rows(Path(backup.path), "SELECT (SELECT count(*) FROM a) - count(*) FROM b")
        assert counted == [(0,)]
    assert len({backup.fingerprint for backup in backups}) > 1


def test_backup_of_a_log(store: SqliteStore, tmp_path: Path) -> None:
    """What is committed in the log alone is in the backup, and in what is restored of it."""
    run_pragma(path_of(store), "PRAGMA journal_mode = wal")
    die_while(path_of(store), "INSERT INTO readings VALUES (4, 'd')")
    backup = back_up(store, tmp_path / "backup")
    execute(path_of(store), "DELETE FROM readings")
    assert store.restore(backup, quiet) == ()
    assert store.fingerprint() == backup.fingerprint
    assert rows(path_of(store), "SELECT count(*) FROM readings") == [(4,)]
    assert rows(path_of(store), "PRAGMA journal_mode") == [("wal",)]


def test_backup_of_damage(store: SqliteStore, tmp_path: Path) -> None:
    """A database with damaged pages gives an error and no backup."""
    pages = path_of(store).stat().st_size // 4096
    with path_of(store).open("r+b") as stream:
        stream.seek((pages // 2) * 4096)
        stream.write(b"\xab" * 4096)
    (tmp_path / "backup").mkdir()
    with pytest.raises(StoreError) as raised:
        store.backup("b1", tmp_path / "backup", quiet)
    assert raised.value.code == "backup.failed"
    assert list((tmp_path / "backup").iterdir()) == []


def test_backup_of_bad_rows(tmp_path: Path) -> None:
    """Rows that break a constraint are no reason to have no backup."""
    sql = "CREATE TABLE p (id INTEGER PRIMARY KEY);"
    sql += "CREATE TABLE c (p REFERENCES p, n CHECK (n > 0))"
    store = make_store(tmp_path / "app.db", sql)
    run_pragma(
        path_of(store),
        "PRAGMA ignore_check_constraints = 1",
        "INSERT INTO c VALUES (77, -5)",
    )
    backup = back_up(store, tmp_path / "backup")
    assert backup.fingerprint == store.fingerprint()


def test_interrupted_backup(store: SqliteStore, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a backup leaves its directory empty."""

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    (tmp_path / "backup").mkdir()
    with pytest.raises(KeyboardInterrupt):
        store.backup("b1", tmp_path / "backup", interrupt)
    assert list((tmp_path / "backup").iterdir()) == []


# --- restoring ---------------------------------------------------------------------------------


def test_restore_keeps_what_was_there(store: SqliteStore, backup: Backup) -> None:
    """What a restore replaces is kept beside it, and a second restore does not overwrite that."""
    execute(path_of(store), "UPDATE readings SET value = 'wrong'")
    assert store.restore(backup, quiet) == ()
    assert rows(kept(store, backup), "SELECT DISTINCT value FROM readings") == [("wrong",)]
    assert store.restore(backup, quiet) == ()
    assert rows(kept(store, backup), "SELECT DISTINCT value FROM readings") == [("wrong",)]
    assert {path.name for path in path_of(store).parent.iterdir()} == {
        "app.db",
        kept(store, backup).name,
    }


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_restore_under_another_process(store: SqliteStore, tmp_path: Path, mode: str) -> None:
    """A process that has the database open sees the restored content, and can go on writing."""
    run_pragma(path_of(store), f"PRAGMA journal_mode = {mode}")
    backup = back_up(store, tmp_path / "backup")
    with another_process(path_of(store), "DELETE FROM readings") as other:
        assert store.restore(backup, quiet) == ()
        assert tell(other, "SELECT count(*) FROM readings") == "[(3,)]"
        assert tell(other, "INSERT INTO readings VALUES (9, 'after')") == "[]"
    assert rows(path_of(store), "SELECT count(*) FROM readings") == [(4,)]
    assert rows(path_of(store), "PRAGMA integrity_check") == [("ok",)]


def test_restore_under_a_reader_of_the_log(store: SqliteStore, tmp_path: Path) -> None:
    """A reader in the middle of a transaction keeps its old content, and then sees the new."""
    run_pragma(path_of(store), "PRAGMA journal_mode = wal")
    backup = back_up(store, tmp_path / "backup")
    execute(path_of(store), "DELETE FROM readings")
    begun = ("BEGIN", "SELECT count(*) FROM readings")
    with another_process(path_of(store), *begun) as reader:
        assert store.restore(backup, quiet) == ()
        assert tell(reader, "SELECT count(*) FROM readings") == "[(0,)]"
        assert tell(reader, "COMMIT") == "[]"
        assert tell(reader, "SELECT count(*) FROM readings") == "[(3,)]"


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_restore_under_a_lock(store: SqliteStore, backup: Backup, lock: str) -> None:
    """A lock that is not given in time is an error, and nothing has changed."""
    execute(path_of(store), "DELETE FROM readings")
    before = store.fingerprint()
    with another_process(path_of(store), lock), pytest.raises(StoreError) as raised:
        store.restore(backup, quiet)
    assert raised.value.code == "store.locked"
    assert store.fingerprint() == before
    assert store.restore(backup, quiet) == ()


def test_restore_under_a_reader_without_log(store: SqliteStore, backup: Backup) -> None:
    """Without a log, a reader that does not end keeps the old content, and the restore says so."""
    execute(path_of(store), "DELETE FROM readings")
    before = store.fingerprint()
    begun = ("BEGIN", "SELECT * FROM readings")
    with another_process(path_of(store), *begun), pytest.raises(StoreError) as raised:
        store.restore(backup, quiet)
    assert raised.value.code == "store.locked"
    assert store.fingerprint() == before


def delete(path: Path) -> None:
    """Delete the database, but not what lies beside it."""
    path.unlink()


def delete_directory(path: Path) -> None:
    """Delete the directory with everything in it."""
    shutil.rmtree(path.parent)


def overwrite(path: Path) -> None:
    """Write something else over it."""
    path.write_text("reset done\n" * 1000)


def damage_schema(path: Path) -> None:
    """Damage the first page behind its header."""
    with path.open("r+b") as stream:
        stream.seek(100)
        stream.write(b"\xff" * 3900)


def damage_middle(path: Path) -> None:
    """Damage a page in the middle."""
    with path.open("r+b") as stream:
        stream.seek(4096 * 20)
        stream.write(b"\xff" * 4096)


def cut(path: Path) -> None:
    """Cut the file off in the middle."""
    os.truncate(path, path.stat().st_size // 2 + 100)


def cut_to_nothing(path: Path) -> None:
    """Cut the file to nothing."""
    os.truncate(path, 0)


def replace_file(path: Path) -> None:
    """Put another database in its place, of other page size, encoding and journal mode."""
    path.unlink()
    run_pragma(
        path,
        "PRAGMA page_size = 1024",
        "PRAGMA encoding = 'UTF-16'",
        "PRAGMA journal_mode = wal",
        "CREATE TABLE other (a)",
    )


def change_page_size(path: Path) -> None:
    """Write it anew in pages of another size."""
    run_pragma(path, "PRAGMA page_size = 16384", "VACUUM")


def change_page_size_and_mode(path: Path) -> None:
    """Write it anew in pages of another size, and with a log."""
    run_pragma(path, "PRAGMA page_size = 512", "VACUUM", "PRAGMA journal_mode = wal")


def leave_log(path: Path) -> None:
    """Switch to a log, write, and die."""
    run_pragma(path, "PRAGMA journal_mode = wal")
    die_while(path, "DELETE FROM readings", "DELETE FROM more")


def leave_hot_journal(path: Path) -> None:
    """Die in the middle of a transaction."""
    begun = ("PRAGMA cache_size = 5", "BEGIN", "UPDATE more SET filler = 1", "DELETE FROM readings")
    die_while(path, *begun)
    assert path.with_name("app.db-journal").stat().st_size > 0


def delete_under_hot_journal(path: Path) -> None:
    """Die in the middle of a transaction, then lose the file: the journal would be replayed."""
    leave_hot_journal(path)
    path.unlink()


def link_elsewhere(path: Path) -> None:
    """Put a link to another database in its place."""
    execute(path.with_name("other.db"), "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    path.unlink()
    path.symlink_to("other.db")


def make_directory(path: Path) -> None:
    """Put a directory in its place."""
    path.unlink()
    path.mkdir()


def make_malformed(path: Path) -> None:
    """Write nonsense into the schema, as `writable_schema` allows."""
    nonsense = "UPDATE sqlite_master SET sql = 'CREATE nonsense'"
    run_pragma(path, "PRAGMA writable_schema = 1", nonsense)


HARMS = [
    delete,
    delete_directory,
    overwrite,
    damage_schema,
    damage_middle,
    cut,
    cut_to_nothing,
    replace_file,
    change_page_size,
    change_page_size_and_mode,
    leave_log,
    leave_hot_journal,
    delete_under_hot_journal,
    link_elsewhere,
    make_directory,
    make_malformed,
]


@pytest.mark.parametrize("harm", HARMS)
def test_restore_after(store: SqliteStore, backup: Backup, harm: Callable[[Path], None]) -> None:
    """Whatever a script did to the file, the restore ends in the backup's content."""
    path = path_of(store)
    path.chmod(0o640)
    harm(path)
    assert store.restore(backup, quiet) == ()
    assert store.fingerprint() == backup.fingerprint
    assert store.identify() == backup.identity
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert rows(path, "PRAGMA journal_mode") == [("delete",)]
    assert not path.is_symlink()
    leftovers = {p.name for p in path.parent.iterdir() if p.name.endswith(("-wal", "-journal"))}
    assert {name for name in leftovers if not name.startswith("app.db.before-restore-")} == set()
    assert store.restore(backup, quiet) == ()


@pytest.mark.parametrize("harm", [overwrite, damage_middle, make_directory, link_elsewhere])
def test_restore_keeps_what_is_no_database(
    store: SqliteStore, backup: Backup, harm: Callable[[Path], None]
) -> None:
    """What is damaged, or something else, is kept beside it too."""
    harm(path_of(store))
    was_file = path_of(store).is_file()
    store.restore(backup, quiet)
    assert os.path.lexists(kept(store, backup))
    assert kept(store, backup).is_file() == was_file


def test_restore_follows_no_link(store: SqliteStore, backup: Backup) -> None:
    """A link that was put in the file's place does not lead the restore to another database."""
    link_elsewhere(path_of(store))
    store.restore(backup, quiet)
    assert rows(path_of(store).with_name("other.db"), "SELECT a FROM t") == [(1,)]


def test_restore_gives_mode_back(store: SqliteStore, tmp_path: Path) -> None:
    """A file that was deleted is there again as its owner's users could read it."""
    path_of(store).chmod(0o664)
    if os.geteuid() == 0:
        os.chown(path_of(store), 1234, 4321)
    was = path_of(store).stat()
    backup = back_up(store, tmp_path / "backup")
    path_of(store).unlink()
    assert store.restore(backup, quiet) == ()
    found = path_of(store).stat()
    assert (found.st_mode, found.st_uid, found.st_gid) == (was.st_mode, was.st_uid, was.st_gid)


def test_restore_names_who_must_be_restarted(store: SqliteStore, backup: Backup) -> None:
    """A process that still has a deleted file open cannot see the new one, and is named."""
    with another_process(path_of(store), "SELECT * FROM readings") as other:
        path_of(store).unlink()
        (left,) = store.restore(backup, quiet)
        assert f"(pid {other.pid})" in left


def test_restore_after_a_log_was_switched_on(store: SqliteStore, backup: Backup) -> None:
    """A journal mode that others hold on to is told as what could not be put back."""
    run_pragma(path_of(store), "PRAGMA journal_mode = wal")
    with another_process(path_of(store), "DELETE FROM readings") as other:
        assert store.restore(backup, quiet) == ("schema",)
        assert tell(other, "SELECT count(*) FROM readings") == "[(3,)]"
    assert store.restore(backup, quiet) == ()


def test_restore_keeps_the_identity(tmp_path: Path) -> None:
    """A backup from before the adoption does not take the id away again."""
    execute(tmp_path / "app.db", READINGS)
    store = SqliteStore("store/app-db", tmp_path / "app.db")
    backup = back_up(store, tmp_path / "backup")
    store.adopt(ID)
    assert store.restore(backup, quiet) == ()
    assert store.identify().id == f"sqlite:{ID}"


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_interrupted_restore(store: SqliteStore, tmp_path: Path, mode: str) -> None:
    """Ctrl-C in the middle of a restore leaves the content as it was before."""
    run_pragma(path_of(store), f"PRAGMA journal_mode = {mode}")
    backup = back_up(store, tmp_path / "backup")
    execute(path_of(store), "DELETE FROM readings; UPDATE more SET filler = 1")
    before = store.fingerprint()

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.restore(backup, interrupt)
    assert store.fingerprint() == before
    assert store.restore(backup, quiet) == ()


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("harm", [None, "garbage"])
def test_killed_restore(store: SqliteStore, tmp_path: Path, mode: str, harm: str | None) -> None:
    """A restore that is killed in the middle leaves the old content, and is simply done again."""
    run_pragma(path_of(store), f"PRAGMA journal_mode = {mode}")
    backup = back_up(store, tmp_path / "backup")
    execute(path_of(store), "DELETE FROM readings; UPDATE more SET filler = 1")
    before = store.fingerprint()
    if harm:
        path_of(store).write_text(harm * 1000)
    program = (
        "import os, pickle, sys; from pathlib import Path\n"
        "from handrail.adapters.sqlite import SqliteStore\n"
        "store = SqliteStore('store/app-db', Path(sys.argv[1]))\n"
        "store.restore(pickle.loads(bytes.fromhex(sys.argv[2])), lambda *_: os._exit(9))\n"
    )
    command = [sys.executable, "-c", program, str(path_of(store)), pickle.dumps(backup).hex()]
    assert subprocess.run(command, check=False, timeout=30).returncode == 9
    if harm:
        assert path_of(store).read_text() == harm * 1000
    else:
        assert store.fingerprint() == before
    assert store.restore(backup, quiet) == ()
    assert store.fingerprint() == backup.fingerprint


def test_restore_of_other_forms(store: SqliteStore, backup: Backup) -> None:
    """A backup of another form, still encrypted for one, is refused."""
    with pytest.raises(StoreError) as raised:
        store.restore(replace(backup, form="sqlite+age"), quiet)
    assert raised.value.code == "store.unsupported"


@pytest.mark.parametrize("harm", [overwrite, damage_middle, cut, delete])
def test_restore_of_a_damaged_backup(
    store: SqliteStore, backup: Backup, harm: Callable[[Path], None]
) -> None:
    """A backup that is not as it was written is refused before anything is touched."""
    execute(path_of(store), "DELETE FROM readings")
    before = store.fingerprint()
    harm(Path(backup.path))
    with pytest.raises(StoreError) as raised:
        store.restore(backup, quiet)
    assert raised.value.code == "backup.damaged"
    assert store.fingerprint() == before
    assert not kept(store, backup).exists()


def test_restore_of_a_changed_backup(store: SqliteStore, backup: Backup) -> None:
    """A backup that somebody wrote to is refused, though it is a database."""
    execute(Path(backup.path), "UPDATE readings SET value = 'forged' WHERE id = 1")
    with pytest.raises(StoreError) as raised:
        store.restore(backup, quiet)
    assert raised.value.code == "backup.damaged"
    assert "table readings" in raised.value.message


# --- clones ------------------------------------------------------------------------------------


def test_clone_is_marked_and_private(store: SqliteStore, backup: Backup, tmp_path: Path) -> None:
    """A clone keeps the name and the id, and has its marker, alone for the present user."""
    at = tmp_path / "clone"
    at.mkdir(mode=0o755)
    clone = store.clone(backup, at, MARKER, quiet)
    who = clone.identify()
    assert (who.id, who.marker, who.endpoint) == (f"sqlite:{ID}", MARKER, str(at / "app.db"))
    assert (at / "app.db").stat().st_mode & 0o777 == 0o600
    assert at.stat().st_mode & 0o777 == 0o700


def test_clone_of_what_was_not_adopted(tmp_path: Path) -> None:
    """A database without an identity has clones with a marker, and is not written to for it."""
    execute(tmp_path / "app.db", READINGS)
    store = SqliteStore("store/app-db", tmp_path / "app.db")
    content = (tmp_path / "app.db").read_bytes()
    backup = back_up(store, tmp_path / "backup")
    (tmp_path / "clone").mkdir()
    clone = store.clone(backup, tmp_path / "clone", MARKER, quiet)
    assert clone.identify().marker == MARKER
    assert clone.fingerprint() == store.fingerprint() == backup.fingerprint
    assert (tmp_path / "app.db").read_bytes() == content


def test_clone_stays_a_clone(store: SqliteStore, backup: Backup, tmp_path: Path) -> None:
    """A clone that is restored, from ruins even, has its marker again."""
    (tmp_path / "clone").mkdir()
    clone = store.clone(backup, tmp_path / "clone", MARKER, quiet)
    who = clone.identify()
    execute(tmp_path / "clone" / "app.db", "DROP TABLE _handrail_identity; DELETE FROM readings")
    assert clone.restore(backup, quiet) == ()
    assert clone.identify() == who
    overwrite(tmp_path / "clone" / "app.db")
    assert clone.restore(replace(backup, id="b2"), quiet) == ()
    assert clone.identify() == who


def test_copy_of_a_clone_has_no_marker_by_restore(store: SqliteStore, tmp_path: Path) -> None:
    """A marker that came into the real store with foreign content is taken out by a restore."""
    backup = back_up(store, tmp_path / "backup")
    execute(path_of(store), f"UPDATE _handrail_identity SET marker = '{MARKER}'")
    foreign = back_up(store, tmp_path / "foreign", "b2")
    assert store.restore(foreign, quiet) == ()
    assert store.identify().marker == ""
    assert backup.identity == store.identify()


def test_clone_beside_something(store: SqliteStore, backup: Backup, tmp_path: Path) -> None:
    """A clone is made in an empty directory and nowhere else, least of all beside the original."""
    for at in (path_of(store).parent, tmp_path):
        with pytest.raises(StoreError) as raised:
            store.clone(backup, at, MARKER, quiet)
        assert raised.value.code == "clone.not-distinct"


def test_discard_half_made(store: SqliteStore, backup: Backup, tmp_path: Path) -> None:
    """A clone whose making was cut off at any moment is removed whole."""

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    at = tmp_path / "clone"
    at.mkdir()
    with pytest.raises(KeyboardInterrupt):
        store.clone(backup, at, MARKER, interrupt)
    assert list(at.iterdir())
    store.discard(at)
    assert not at.exists()


def test_discard_what_a_script_left(store: SqliteStore, backup: Backup, tmp_path: Path) -> None:
    """What a script left in a clone's directory goes with it; what it linked to stays."""
    at, outside = tmp_path / "clone", tmp_path / "outside"
    at.mkdir()
    outside.mkdir()
    (outside / "precious").write_text("x")
    store.clone(backup, at, MARKER, quiet)
    (at / "deep" / "er").mkdir(parents=True)
    (at / "deep" / "er" / "file").write_text("x")
    (at / "deep" / "er").chmod(0o000)
    (at / "link").symlink_to(outside)
    (at / "deep" / "link").symlink_to(outside)
    os.mkfifo(at / "fifo")
    store.discard(at)
    assert not at.exists()
    assert (outside / "precious").exists()


def test_discard_what_a_script_made_read_only(store: SqliteStore) -> None:
    """Directories without rights in a clone do not keep an ordinary user from removing it."""
    shared = Path(tempfile.mkdtemp())
    shared.chmod(0o777)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        at = shared / "clone"
        (at / "deep" / "er").mkdir(parents=True)
        (at / ".handrail-clone").write_text(MARKER)
        for name in ("deep/er/one", "deep/er/two", "deep/three"):
            (at / name).write_text("x")
        (at / "deep" / "er").chmod(0o000)
        (at / "deep").chmod(0o500)
        store.discard(at)
        assert list(shared.iterdir()) == []
    finally:
        os.seteuid(was)
        shutil.rmtree(shared)


def test_discard_refuses_what_is_no_clone(store: SqliteStore, tmp_path: Path) -> None:
    """The directory of the real store, a file and a link are not removed."""
    (tmp_path / "link").symlink_to(tmp_path / "live")
    (tmp_path / "file").write_text("x")
    for at in (tmp_path / "live", tmp_path / "link", tmp_path / "file"):
        with pytest.raises(StoreError) as raised:
            store.discard(at)
        assert raised.value.code == "store.not-a-store"
    assert store.measure().rows == 8003


def test_no_room(store: SqliteStore, backup: Backup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk has no room, nothing is begun."""
    usage = shutil.disk_usage(path_of(store))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    before = store.fingerprint()
    with pytest.raises(StoreError) as raised:
        store.restore(backup, quiet)
    assert raised.value.code == "store.disk-full"
    assert store.fingerprint() == before
