"""Laws of the SQLite store, over random changes to a small database."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from handrail.adapters.sqlite import SqliteStore
from handrail.plans.effect import worst_first
from support.sqlite_files import back_up, make_store, path_of, quiet

TABLES = """
CREATE TABLE keyed (id INTEGER PRIMARY KEY, v, parent REFERENCES keyed (id) ON DELETE CASCADE);
CREATE TABLE worded (k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v NUMERIC);
CREATE TABLE paired (k INTEGER, v, w REAL, PRIMARY KEY (w, k)) WITHOUT ROWID;
CREATE TABLE loose (k TEXT, v);
CREATE TABLE numbered (k INTEGER PRIMARY KEY AUTOINCREMENT, v);
CREATE TABLE audit (v);
CREATE TRIGGER keep AFTER DELETE ON loose BEGIN INSERT INTO audit VALUES (old.v); END;
INSERT INTO keyed VALUES (1, 'a', NULL), (2, 1, 1), (3, 1.0, 1), (4, x'31', 2);
INSERT INTO worded VALUES ('a', 1), ('B', '2'), ('c', 'x');
INSERT INTO paired VALUES (1, 'a', 1), (2, 'a', 1), (1, NULL, 2.5);
INSERT INTO loose VALUES ('a', 1), ('a', 1), ('a', 1.0), (NULL, NULL);
INSERT INTO numbered (v) VALUES (1), (2);
"""
# Where a row's key is, and what of it has to be equal to be the same key.
KEYS: dict[str, Callable[[Any], object]] = {
    "keyed": lambda row: row[0],
    "worded": lambda row: row[0].lower(),
    "paired": lambda row: (row[0], row[2]),
    "numbered": lambda row: row[0],
}
NAMES = ("keyed", "worded", "paired", "loose", "numbered", "audit")
TEXT_KEYS, NUMBER_KEYS = ["'a'", "'A'", "'b'", "'C'", "'d'"], ["1", "2", "3", "4", "7"]
VALUES = ["1", "1.0", "'1'", "x'31'", "NULL", "'a'", "'A'", "''", "2", "2.5", "CAST(x'ff' AS TEXT)"]

tables = st.sampled_from(["keyed", "worded", "paired", "loose", "numbered"])
values = st.sampled_from(VALUES)


def keys_of(table: str) -> st.SearchStrategy[tuple[str, str]]:
    """Give a table with one of its keys, as SQL."""
    literals = TEXT_KEYS if table in {"worded", "loose"} else NUMBER_KEYS
    return st.tuples(st.just(table), st.sampled_from(literals))


def key_column(table: str) -> str:
    """Return the name of the column that holds the key."""
    return "id" if table == "keyed" else "k"


keyed = tables.flatmap(keys_of)
inserts = st.builds(
    lambda tk, v: (
        f"INSERT OR REPLACE INTO {tk[0]} ({key_column(tk[0])}, v"
        + (", w) VALUES" if tk[0] == "paired" else ") VALUES")
        + f" ({tk[1]}, {v}"
        + (", 1)" if tk[0] == "paired" else ")")
    ),
    keyed,
    values,
)
updates = st.builds(
    lambda tk, v: f"UPDATE {tk[0]} SET v = {v} WHERE {key_column(tk[0])} = {tk[1]}", keyed, values
)
key_changes = st.builds(
    lambda tk: f"UPDATE OR IGNORE {tk[0]} SET {key_column(tk[0])} = {tk[1]}", keyed
)
deletes = st.builds(lambda tk: f"DELETE FROM {tk[0]} WHERE {key_column(tk[0])} = {tk[1]}", keyed)
emptyings = st.builds(lambda table: f"DELETE FROM {table}", tables)
row_changes = st.one_of(inserts, updates, key_changes, deletes, emptyings, st.just("VACUUM"))
shape_changes = st.sampled_from(
    [
        "DROP TABLE keyed",
        "DROP TABLE loose",
        "DROP TRIGGER keep",
        "CREATE TABLE extra (a, b)",
        "CREATE INDEX i ON keyed (v)",
        "CREATE VIEW shown AS SELECT 1 AS one",
        "ALTER TABLE worded ADD COLUMN more DEFAULT 7",
        "ALTER TABLE paired RENAME TO coupled",
        "ALTER TABLE numbered RENAME COLUMN v TO w",
        "PRAGMA user_version = 3",
        "PRAGMA journal_mode = wal",
        "PRAGMA page_size = 1024",
        "VACUUM",
        "DROP TABLE _handrail_identity",
    ]
)
LAW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def change(path: Path, statements: list[str]) -> None:
    """Run what can be run of `statements`; a change that another made impossible is none."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = 1")
        connection.execute("PRAGMA recursive_triggers = 1")
        for statement in statements:
            with suppress(sqlite3.Error):
                connection.execute(statement).fetchall()


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of all tables, each value with its type."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in NAMES}


def typed(row: tuple[object, ...]) -> tuple[object, ...]:
    """Return a row that is equal only where the types are."""
    return tuple((type(value).__name__, value) for value in row)


def count_naively(
    name: str, before: list[tuple[object, ...]], after: list[tuple[object, ...]]
) -> dict[tuple[str, str], int]:
    """Return deleted, updated and inserted rows, counted one by one."""
    if name in KEYS:
        old, new = ({KEYS[name](row): typed(row) for row in rows} for rows in (before, after))
        found = {
            "delete": len(old.keys() - new.keys()),
            "update": sum(old[key] != new[key] for key in old.keys() & new.keys()),
            "insert": len(new.keys() - old.keys()),
        }
    else:
        old_rows, new_rows = Counter(map(typed, before)), Counter(map(typed, after))
        found = {
            "delete": (old_rows - new_rows).total(),
            "insert": (new_rows - old_rows).total(),
        }
    return {(verb, name): rows for verb, rows in found.items() if rows}


def observed(directory: Path) -> tuple[SqliteStore, Path]:
    """Return a new store and what it is, kept."""
    store, before = make_store(directory / "app.db", TABLES), directory / "before"
    before.mkdir()
    store.observe(before)
    return store, before


@given(st.lists(row_changes, max_size=8))
@example(["DELETE FROM loose", "VACUUM"])
@example(["UPDATE OR IGNORE worded SET k = 'A'", "DELETE FROM keyed WHERE id = 1"])
@LAW
def test_effects_equal_a_naive_count(statements: list[str]) -> None:
    """For any changes of rows, the effects are what counting one by one gives."""
    with tempfile.TemporaryDirectory() as directory:
        store, before = observed(Path(directory))
        was = contents(path_of(store))
        change(path_of(store), statements)
        now = contents(path_of(store))
        expected: dict[tuple[str, str], int] = {}
        for name in NAMES:
            expected |= count_naively(name, was[name], now[name])
        effects = store.effects(before)
        found = {(e.verb, e.name): e.rows for e in effects if e.kind == "table"}
        assert found == expected
        assert effects == worst_first(effects)


@given(st.lists(st.one_of(row_changes, shape_changes), max_size=8))
@LAW
def test_restore_undoes_anything(statements: list[str]) -> None:
    """After any changes, a restore gives the backup's content, and there are no effects left."""
    with tempfile.TemporaryDirectory() as directory:
        store, before = observed(Path(directory))
        backup = back_up(store, Path(directory) / "backup")
        change(path_of(store), statements)
        assert store.restore(backup, quiet) == ()
        assert store.fingerprint() == backup.fingerprint
        assert store.identify() == backup.identity
        assert store.effects(before) == ()


@given(st.lists(st.one_of(row_changes, shape_changes), max_size=5))
@LAW
def test_effects_and_fingerprint_agree(statements: list[str]) -> None:
    """There are effects exactly when the fingerprint has changed, or the identity was lost."""
    with tempfile.TemporaryDirectory() as directory:
        store, before = observed(Path(directory))
        fingerprint = store.fingerprint()
        change(path_of(store), statements)
        effects = store.effects(before)
        of_content = [effect for effect in effects if effect.name != "_handrail_identity"]
        assert bool(of_content) == (store.fingerprint() != fingerprint)
