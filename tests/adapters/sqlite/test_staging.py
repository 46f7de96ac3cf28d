"""A script works on a copy of a database; the copy is written back when it is inside its budget."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handrail.adapters.sqlite import SqliteStore, staging
from handrail.adapters.sqlite.connecting import DatabaseFile
from handrail.errors import StoreError
from handrail.plans import budget as budgets
from handrail.plans.holding import Event, Limits, Mode, Report
from handrail.plans.model import Budget
from support.sqlite_files import (
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

DELETES = "DELETE FROM readings WHERE id < 3"
MANY = """
WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
INSERT INTO readings SELECT i, hex(randomblob(800)) FROM n
"""


@pytest.fixture(params=["delete", "wal"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> SqliteStore:
    """A database in either journal mode."""
    path = tmp_path / "app.db"
    run_pragma(path, f"PRAGMA journal_mode = {request.param}")
    return make_store(path, READINGS)


class Guarding:
    """Runs a script behind a guard, and keeps what was heard."""

    def __init__(self, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self._number = 0
        self.heard: list[Event] = []

    def folder(self) -> Path:
        """Return a new private folder."""
        self._number += 1
        made = self._tmp_path / f"guard-{self._number}"
        made.mkdir(mode=0o700)
        return made

    def run(
        self,
        store: SqliteStore,
        script: str | Callable[[Path], None],
        mode: Mode = "measure",
        budget: Budget | None = None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Report:
        """Run SQL, or a function, on what the guard gives, and settle."""
        limits = Limits(mode, budget)
        with staging.guarded(store, limits, self.folder(), self.heard.append) as guard:
            path = Path(guard.connection().parts["path"])
            execute(path, script) if isinstance(script, str) else script(path)
            meanwhile()
            report = guard.settle()
            assert guard.settle() is report
            return report


@pytest.fixture
def guarding(tmp_path: Path) -> Guarding:
    """Nothing heard yet."""
    return Guarding(tmp_path)


def count(store: SqliteStore) -> int:
    """Return how many readings there are."""
    return int(str(rows(path_of(store), "SELECT count(*) FROM readings")[0][0]))


def budget_of(report: Report) -> Budget:
    """Return a budget of exactly what a report says."""
    return budgets.from_effects(report.effects, relative=0, absolute=0)


def test_original_waits(store: SqliteStore, guarding: Guarding) -> None:
    """The original has what the script did only after it was settled."""
    with staging.guarded(store, Limits("measure"), guarding.folder(), print) as guard:
        execute(Path(guard.connection().parts["path"]), DELETES)
        assert count(store) == 3
        report = guard.settle()
    assert count(store) == 1
    assert [(e.verb, e.name, e.rows) for e in report.effects] == [("delete", "readings", 2)]
    assert (report.how, report.kept, report.stop) == ("copied and swapped in", 1, None)


def test_not_settled(store: SqliteStore, guarding: Guarding) -> None:
    """What was not settled never was."""
    before = store.fingerprint()
    with staging.guarded(store, Limits("measure"), guarding.folder(), print) as guard:
        execute(Path(guard.connection().parts["path"]), DELETES)
    assert store.fingerprint() == before


def test_inside_budget(store: SqliteStore, guarding: Guarding, tmp_path: Path) -> None:
    """A run that does what its rehearsal did takes effect, and keeps the journal mode."""
    mode = rows(path_of(store), "PRAGMA journal_mode")
    clone = make_store(tmp_path / "clone.db", READINGS)
    rehearsed = guarding.run(clone, DELETES)
    report = guarding.run(store, DELETES, "hold", budget_of(rehearsed))
    assert report.stop is None
    assert report.effects == rehearsed.effects
    assert count(store) == 1
    assert rows(path_of(store), "PRAGMA journal_mode") == mode
    assert rows(path_of(store), "PRAGMA integrity_check") == [("ok",)]


def test_beyond_budget(store: SqliteStore, guarding: Guarding, tmp_path: Path) -> None:
    """One row more than the budget, and nothing takes effect."""
    clone = make_store(tmp_path / "clone.db", READINGS)
    budget = budget_of(guarding.run(clone, "DELETE FROM readings WHERE id < 2"))
    before = store.fingerprint()
    report = guarding.run(store, DELETES, "hold", budget)
    assert report.stop is not None
    assert "would delete table readings 2 rows; budget 1" in report.stop.what
    assert report.stop.allowed is not None
    assert (report.kept, report.effects) == (0, ())
    assert [event.kind for event in guarding.heard] == ["refused"]
    assert store.fingerprint() == before


def test_read_only(store: SqliteStore, guarding: Guarding) -> None:
    """In read-only mode a write is thrown away, and stops the run; a look is fine."""
    before = store.fingerprint()
    report = guarding.run(store, DELETES, "read-only")
    assert report.stop is not None
    assert store.fingerprint() == before
    assert guarding.run(store, "SELECT 1", "read-only").stop is None


def test_observe(store: SqliteStore, guarding: Guarding) -> None:
    """An observed script has the database itself, and its effects are told."""
    report = guarding.run(store, DELETES, "observe")
    assert report.how == "observed only"
    assert [(e.verb, e.rows) for e in report.effects] == [("delete", 2)]
    assert count(store) == 1


def test_others_wrote(store: SqliteStore, guarding: Guarding) -> None:
    """A row that another process wrote meanwhile is not lost: the run is refused."""

    def insert() -> None:
        with another_process(path_of(store)) as other:
            tell(other, "INSERT INTO readings VALUES (77, 'theirs')")

    report = guarding.run(store, DELETES, meanwhile=insert)
    assert report.stop is not None
    assert "by others" in report.stop.what
    assert rows(path_of(store), "SELECT id FROM readings ORDER BY id") == [(1,), (2,), (3,), (77,)]


def test_script_goes_past_its_copy(store: SqliteStore, guarding: Guarding) -> None:
    """A script that writes to the original by an address of its own is found out."""
    report = guarding.run(store, lambda _: execute(path_of(store), DELETES))
    assert report.stop is not None
    assert "past its copy" in report.stop.what


def test_others_wrote_before(store: SqliteStore, guarding: Guarding) -> None:
    """What was in log or journal before the copy was made, and is moved meanwhile, is no write."""
    with another_process(path_of(store), "INSERT INTO readings VALUES (77, 'theirs')") as other:

        def checkpoint() -> None:
            tell(other, "PRAGMA wal_checkpoint(TRUNCATE)")
            tell(other, "SELECT count(*) FROM readings")

        report = guarding.run(store, DELETES, meanwhile=checkpoint)
    assert report.stop is None
    assert rows(path_of(store), "SELECT id FROM readings ORDER BY id") == [(3,), (77,)]


def test_open_handles_stay_valid(store: SqliteStore, guarding: Guarding) -> None:
    """A process that has the database open sees the new content, and can go on writing."""
    with another_process(path_of(store), "SELECT * FROM readings") as other:
        guarding.run(store, DELETES)
        assert tell(other, "SELECT count(*) FROM readings") == "[(1,)]"
        tell(other, "INSERT INTO readings VALUES (78, 'later')")
    assert count(store) == 2


def test_reader_keeps_us_waiting(tmp_path: Path, guarding: Guarding) -> None:
    """Who holds the original's lock for too long is an error, and nothing is written."""
    store = make_store(tmp_path / "app.db", READINGS)
    with another_process(path_of(store)) as other:

        def lock() -> None:
            tell(other, "BEGIN IMMEDIATE")

        original = DatabaseFile(store.resource, path_of(store), 0.2)
        copy = DatabaseFile(store.resource, tmp_path / "copy.db", 0.2)
        make_store(copy.path, READINGS)
        lock()
        with pytest.raises(StoreError) as raised:
            staging.write_back(original, copy, lambda: False)
        assert raised.value.code == "store.locked"
    assert count(store) == 3


def test_hot_journal(tmp_path: Path, guarding: Guarding) -> None:
    """What a dead process left in a hot journal is rolled back before anything is copied."""
    store = make_store(tmp_path / "app.db", READINGS)
    execute(path_of(store), MANY)
    die_while(
        path_of(store),
        "PRAGMA cache_size = 5",
        "BEGIN",
        "DELETE FROM readings",
        "INSERT INTO readings SELECT 1, hex(randomblob(2000000))",
    )
    assert path_of(store).with_name("app.db-journal").exists()
    guarding.run(store, DELETES)
    assert count(store) == 3 - 2 + 4991
    assert rows(path_of(store), "PRAGMA integrity_check") == [("ok",)]


def test_log_of_a_dead_process(tmp_path: Path, guarding: Guarding) -> None:
    """Rows that lie in a write-ahead log alone are in the copy, and not counted as the script's."""
    run_pragma(tmp_path / "app.db", "PRAGMA journal_mode = wal")
    store = make_store(tmp_path / "app.db", READINGS)
    die_while(path_of(store), "INSERT INTO readings VALUES (77, 'in the log')")
    report = guarding.run(store, DELETES)
    assert [(e.verb, e.rows) for e in report.effects] == [("delete", 2)]
    assert rows(path_of(store), "SELECT id FROM readings ORDER BY id") == [(3,), (77,)]


def test_script_killed_in_a_transaction(store: SqliteStore, guarding: Guarding) -> None:
    """What a script had not committed when it died is no effect of it."""

    def die(path: Path) -> None:
        die_while(path, "PRAGMA cache_size = 5", "BEGIN", "DELETE FROM readings", MANY)

    report = guarding.run(store, die)
    assert report.effects == ()
    assert count(store) == 3


@pytest.mark.parametrize("statement", ["VACUUM", "PRAGMA user_version = 7", "DROP TABLE readings"])
def test_whole_file_statements(store: SqliteStore, guarding: Guarding, statement: str) -> None:
    """VACUUM, a setting and a dropped table come over like rows."""
    guarding.run(store, lambda path: run_pragma(path, "CREATE TABLE more (a)", statement))
    found = rows(path_of(store), "SELECT name FROM sqlite_master WHERE name = 'more'")
    assert found == [("more",)]
    version = rows(path_of(store), "PRAGMA user_version")
    assert version == [(7 if "user_version" in statement else 0,)]
    assert rows(path_of(store), "PRAGMA integrity_check") == [("ok",)]


def test_page_size(store: SqliteStore, guarding: Guarding) -> None:
    """Pages of another size are refused, and nothing is written."""
    before = store.fingerprint()
    statements = ("PRAGMA journal_mode = delete", "PRAGMA page_size = 8192", "VACUUM", DELETES)
    with pytest.raises(StoreError) as raised:
        guarding.run(store, lambda path: run_pragma(path, *statements))
    assert raised.value.code == "store.unsupported"
    assert store.fingerprint() == before


def test_emptied(tmp_path: Path, guarding: Guarding) -> None:
    """A database of a single page cannot be checked before it is committed, so it is refused."""
    path = tmp_path / "app.db"
    execute(path, READINGS)
    store = SqliteStore("store/app-db", path)
    with pytest.raises(StoreError):
        guarding.run(store, lambda copy: run_pragma(copy, "DROP TABLE readings", "VACUUM"))
    assert count(store) == 3


def spoil(path: Path) -> None:
    """Put something else in the place of a database."""
    path.write_text("no database, but longer than the header of one " * 9)


@pytest.mark.parametrize("script", [Path.unlink, spoil])
def test_removed(store: SqliteStore, guarding: Guarding, script: Callable[[Path], None]) -> None:
    """A script that leaves no database in its place is stopped."""
    report = guarding.run(store, script)
    assert report.stop is not None
    assert count(store) == 3


def test_replaced_original(store: SqliteStore, guarding: Guarding, tmp_path: Path) -> None:
    """Another file that took the original's name meanwhile is not written to."""
    make_store(tmp_path / "other.db", "CREATE TABLE other (a)")
    report = guarding.run(
        store, DELETES, meanwhile=lambda: (tmp_path / "other.db").rename(path_of(store))
    )
    assert report.stop is not None
    assert rows(path_of(store), "SELECT name FROM sqlite_master WHERE name = 'other'")


def test_files_beside(store: SqliteStore, guarding: Guarding) -> None:
    """A file that the script wrote beside the database is named: it is lost with the copy."""

    def export(path: Path) -> None:
        path.with_name("export.csv").write_text("1")

    report = guarding.run(store, export)
    assert [event.kind for event in report.events] == ["unheld"]
    assert "export.csv" in report.events[0].text


_KILLED = """
import os, signal, sys
from pathlib import Path
from handrail.adapters.sqlite import staging
original, copy, at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
seen = 0
real = staging.copy_pages
def dying(file, source, target, progress, pages):
    def step(done, total):
        global seen
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
        progress(done, total)
    real(file, source, target, step, pages)
    if at == 0:
        os.kill(os.getpid(), signal.SIGKILL)
staging.copy_pages = dying
file = staging.DatabaseFile("store/app-db", original, 5.0)
staging.write_back(file, staging.replace(file, path=copy), lambda: False)
"""


@pytest.mark.parametrize("at", [1, 2, 3, 0])
def test_killed_while_writing_back(store: SqliteStore, tmp_path: Path, at: int) -> None:
    """SIGKILL at any step leaves the old content, after the last one the new; never a mixture."""
    execute(path_of(store), MANY)
    before = store.fingerprint()
    copy = make_store(tmp_path / "copy.db", READINGS)
    run_pragma(path_of(copy), MANY, "DELETE FROM readings WHERE id % 2", "VACUUM")
    command = [sys.executable, "-c", _KILLED, str(path_of(store)), str(path_of(copy)), str(at)]
    ended = subprocess.run(command, timeout=60, check=False)
    assert ended.returncode == -9
    expected = copy.fingerprint() if at == 0 else before
    assert store.fingerprint().tables == expected.tables
    assert rows(path_of(store), "PRAGMA integrity_check") == [("ok",)]


_ROW = st.tuples(st.integers(1, 30), st.text("ab", max_size=2))
_STATEMENT = st.one_of(
    st.tuples(st.just("DELETE FROM readings WHERE id = ? OR value = ?"), _ROW),
    st.tuples(st.just("UPDATE readings SET value = value || ?2 WHERE id > ?1"), _ROW),
    st.tuples(st.just("INSERT OR REPLACE INTO readings VALUES (?, ?)"), _ROW),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_ROW, unique_by=lambda row: row[0]), st.lists(_STATEMENT, max_size=6))
def test_law(
    tmp_path_factory: pytest.TempPathFactory,
    content: list[tuple[int, str]],
    statements: list[tuple[str, tuple[int, str]]],
) -> None:
    """What a clone's run did, the original's does; with one row less allowed it does nothing."""
    at = tmp_path_factory.mktemp("law")
    guarding = Guarding(at)

    def script(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            for sql, values in statements:
                connection.execute(sql, values)

    stores = [make_store(at / f"{name}.db", READINGS) for name in ("clone", "real", "less")]
    for store in stores:
        with closing(sqlite3.connect(path_of(store))) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO readings VALUES (?, ?)", content)
    clone, real, less = stores
    rehearsed = guarding.run(clone, script)
    budget = budget_of(rehearsed)
    observed = guarding.folder()
    real.observe(observed)
    report = guarding.run(real, script, "hold", budget)
    assert report.stop is None
    assert report.effects == rehearsed.effects == real.effects(observed)
    assert real.fingerprint() == clone.fingerprint()
    if not rehearsed.effects:
        return
    first, *rest = budget.allowances
    smaller = Budget((replace(first, rows=(first.rows or 0) - 1), *rest), budget.source)
    before = less.fingerprint()
    assert guarding.run(less, script, "hold", smaller).stop is not None
    assert less.fingerprint() == before
