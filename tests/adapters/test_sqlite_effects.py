"""What has changed in a database file: each way in which a script can change one."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from handrail.adapters.sqlite import SqliteStore
from handrail.errors import StoreError
from handrail.plans.effect import Effect
from support.sqlite_files import back_up, die_while, execute, make_store, path_of, rows, run_pragma

TABLES = """
CREATE TABLE readings (id INTEGER PRIMARY KEY, value TEXT, at TEXT);
CREATE INDEX by_value ON readings (value);
CREATE TRIGGER keep BEFORE DELETE ON readings WHEN old.id < 0 BEGIN SELECT raise(ABORT, 'no'); END;
CREATE TABLE words (word TEXT COLLATE NOCASE PRIMARY KEY, n INTEGER);
CREATE TABLE pairs (a INTEGER, b TEXT, c, PRIMARY KEY (b, a)) WITHOUT ROWID;
CREATE TABLE loose (x, y);
CREATE VIEW latest AS SELECT max(at) FROM readings;
INSERT INTO readings VALUES (1, 'a', '1'), (2, 'b', '2'), (3, NULL, '3'), (4, 'd', NULL);
INSERT INTO words VALUES ('one', 1), ('Two', 2), (NULL, 3), (NULL, 3);
INSERT INTO pairs VALUES (1, 'x', 1), (2, 'x', 2.0), (1, 'y', x'31');
INSERT INTO loose VALUES (1, 'p'), (1, 'p'), (1.0, 'p'), ('1', 'p'), (NULL, NULL);
"""
SHUFFLE = """
CREATE TEMP TABLE aside AS SELECT * FROM loose ORDER BY rowid DESC;
DELETE FROM loose;
INSERT INTO loose SELECT * FROM aside ORDER BY rowid;
"""
Told = list[tuple[str, str, str, int | None]]


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    """A store with tables of every kind of key."""
    return make_store(tmp_path / "app.db", TABLES)


@pytest.fixture
def before(store: SqliteStore, tmp_path: Path) -> Path:
    """What the store was, kept."""
    return observe(store, tmp_path / "before")


def observe(store: SqliteStore, into: Path) -> Path:
    """Return the new directory `into` with what the store is now."""
    into.mkdir()
    store.observe(into)
    return into


def told(effects: tuple[Effect, ...]) -> Told:
    """Return effects without their details."""
    assert all(effect.net is None and effect.resource == "store/app-db" for effect in effects)
    return [(e.verb, e.kind, e.name, e.rows) for e in effects]


def after(store: SqliteStore, before: Path, sql: str) -> Told:
    """Return what `sql` did."""
    execute(path_of(store), sql)
    return told(store.effects(before))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("UPDATE readings SET value = NULL", [("update", "table", "readings", 3)]),
        ("UPDATE loose SET y = y || 'x'; UPDATE loose SET y = substr(y, 1, 1)", []),
        ("UPDATE readings SET value = 'A' WHERE id = 1", [("update", "table", "readings", 1)]),
        ("DELETE FROM readings", [("delete", "table", "readings", 4)]),
        ("REPLACE INTO readings VALUES (1, 'z', '9'), (9, 'z', '9')",
         [("update", "table", "readings", 1), ("insert", "table", "readings", 1)]),
        ("DELETE FROM words WHERE word IS NULL", [("delete", "table", "words", 2)]),
        ("UPDATE pairs SET c = 2 WHERE a = 2", [("update", "table", "pairs", 1)]),
        ("UPDATE pairs SET c = '1' WHERE b = 'y'", [("update", "table", "pairs", 1)]),
        ("UPDATE pairs SET a = 7 WHERE b = 'y'",
         [("delete", "table", "pairs", 1), ("insert", "table", "pairs", 1)]),
        ("DELETE FROM loose WHERE typeof(x) = 'integer'", [("delete", "table", "loose", 2)]),
        ("UPDATE loose SET x = 1 WHERE typeof(x) = 'real'",
         [("delete", "table", "loose", 1), ("insert", "table", "loose", 1)]),
        ("INSERT INTO loose VALUES (1, 'p')", [("insert", "table", "loose", 1)]),
        (SHUFFLE, []),
    ],
)  # fmt: skip
def test_rows(store: SqliteStore, before: Path, sql: str, expected: Told) -> None:
    """Rows are told apart by key, else by content; values by type, bytes and NULL."""
    assert after(store, before, sql) == expected


def test_key_that_holds_null(store: SqliteStore, before: Path) -> None:
    """A key that holds NULL tells no rows apart, so a changed row is one that went and one more."""
    assert after(store, before, "UPDATE words SET n = 8 WHERE word = 'one'") == [
        ("delete", "table", "words", 1),
        ("insert", "table", "words", 1),
    ]


def test_key_of_a_collation(store: SqliteStore, tmp_path: Path) -> None:
    """A key that differs in case alone is, to a NOCASE column, the same key: an update."""
    execute(path_of(store), "DELETE FROM words WHERE word IS NULL")
    before = observe(store, tmp_path / "before")
    sql = "UPDATE words SET word = 'ONE' WHERE word = 'one'"
    assert after(store, before, sql) == [("update", "table", "words", 1)]


def test_dropped_table(store: SqliteStore, before: Path) -> None:
    """A dropped table takes its index and trigger with it, and is told once."""
    assert after(store, before, "DROP TABLE readings") == [("drop", "table", "readings", 4)]


def test_dropped_and_made_again(store: SqliteStore, before: Path) -> None:
    """A table dropped and made again alike is a table that was emptied, less its index."""
    sql = "DROP TABLE readings; CREATE TABLE readings (id INTEGER PRIMARY KEY,value TEXT , at TEXT)"
    assert after(store, before, sql) == [
        ("drop", "index", "by_value", None),
        ("drop", "trigger", "keep", None),
        ("delete", "table", "readings", 4),
    ]


def test_replaced_table(store: SqliteStore, before: Path) -> None:
    """A table of the same name with other columns and other rows is another table."""
    sql = "DROP TABLE loose; CREATE TABLE loose (id INTEGER PRIMARY KEY, z);"
    sql += "INSERT INTO loose VALUES (1, 2)"
    assert after(store, before, sql) == [
        ("replace", "table", "loose", 5),
        ("insert", "table", "loose", 1),
    ]


def test_renamed_table(store: SqliteStore, before: Path) -> None:
    """A renamed table is told as such: nothing of it is lost."""
    execute(path_of(store), "ALTER TABLE readings RENAME TO measurements")
    effects = store.effects(before)
    assert ("rename", "table", "readings", None) in told(effects)
    assert [e.detail for e in effects if e.verb == "rename"] == ["to measurements"]
    assert not [effect for effect in effects if effect.is_destructive]


def test_renamed_and_emptied_is_dropped(store: SqliteStore, before: Path) -> None:
    """A table that lost rows on its way to another name is dropped, and another one made."""
    sql = "ALTER TABLE loose RENAME TO other; DELETE FROM other WHERE x IS NULL"
    assert after(store, before, sql) == [
        ("drop", "table", "loose", 5),
        ("create", "table", "other", 4),
    ]


def test_table_made_from_another(store: SqliteStore, before: Path) -> None:
    """The usual way to change a table in SQLite, by copying it, is told by what it did."""
    sql = (
        "CREATE TABLE fresh (id INTEGER PRIMARY KEY, value TEXT NOT NULL DEFAULT '', at TEXT);"
        "INSERT INTO fresh SELECT id, coalesce(value, ''), at FROM readings;"
        "DROP VIEW latest; DROP TABLE readings; ALTER TABLE fresh RENAME TO readings"
    )
    execute(path_of(store), sql)
    effects = store.effects(before)
    assert ("update", "table", "readings", 1) in told(effects)
    assert [e.detail for e in effects if e.verb == "alter"] == [
        "now TEXT NOT NULL DEFAULT '', was TEXT"
    ]
    assert not [e for e in effects if e.kind == "table" and e.is_destructive]


def test_columns(store: SqliteStore, before: Path) -> None:
    """Columns that came, went and changed their name are told, those lost with their values."""
    execute(path_of(store), "ALTER TABLE words ADD COLUMN colour TEXT DEFAULT 'red'")
    execute(path_of(store), "ALTER TABLE pairs DROP COLUMN c")
    execute(path_of(store), "ALTER TABLE loose RENAME COLUMN y TO z")
    assert told(store.effects(before)) == [
        ("drop", "column", "pairs.c", 3),
        ("rename", "column", "loose.y", None),
        ("create", "column", "words.colour", None),
    ]


def test_dropped_column_is_not_hidden_by_a_new_one(store: SqliteStore, before: Path) -> None:
    """A column in the place of another, with other values, is not the other renamed."""
    sql = "ALTER TABLE loose DROP COLUMN y; ALTER TABLE loose ADD COLUMN z"
    assert after(store, before, sql) == [
        ("drop", "column", "loose.y", 4),
        ("create", "column", "loose.z", None),
    ]


def test_options_of_a_table(store: SqliteStore, before: Path) -> None:
    """A constraint that went with nothing else is an altered table."""
    run_pragma(
        path_of(store),
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_master SET sql = replace(sql, ' COLLATE NOCASE', '') WHERE name = 'words'",
    )
    assert ("alter", "table", "words", None) in told(store.effects(before))


def test_other_objects(store: SqliteStore, before: Path) -> None:
    """Indexes, views and triggers made, changed and dropped are told by name."""
    sql = (
        "DROP INDEX by_value; CREATE INDEX by_value ON readings (value, at);"
        "DROP VIEW latest; DROP TRIGGER keep; CREATE TRIGGER keep2 AFTER INSERT ON loose BEGIN"
        " SELECT 1; END; CREATE UNIQUE INDEX more ON pairs (c)"
    )
    assert after(store, before, sql) == [
        ("drop", "trigger", "keep", None),
        ("drop", "view", "latest", None),
        ("alter", "index", "by_value", None),
        ("create", "index", "more", None),
        ("create", "trigger", "keep2", None),
    ]


def test_settings(store: SqliteStore, before: Path) -> None:
    """Settings that the file keeps are told with both values."""
    run_pragma(
        path_of(store),
        "PRAGMA user_version = 7",
        "PRAGMA application_id = 9",
        "PRAGMA journal_mode = wal",
    )
    effects = store.effects(before)
    assert [(e.verb, e.kind, e.name, e.detail) for e in effects] == [
        ("alter", "setting", "application_id", "now 9, was 0"),
        ("alter", "setting", "journal_mode", "now wal, was delete"),
        ("alter", "setting", "user_version", "now 7, was 0"),
    ]


def test_sequence(tmp_path: Path) -> None:
    """The number that AUTOINCREMENT gave last is content: a row that came and went leaves it."""
    sql = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO t (v) VALUES (1)"
    store = make_store(tmp_path / "app.db", sql)
    before = observe(store, tmp_path / "before")
    fingerprint = store.fingerprint()
    assert after(store, before, "INSERT INTO t VALUES (50, 1); DELETE FROM t WHERE id = 50") == [
        ("advance", "sequence", "t", None)
    ]
    assert store.fingerprint().differences(fingerprint) == ("table sqlite_sequence",)
    assert after(store, before, "DELETE FROM sqlite_sequence") == [("alter", "sequence", "t", None)]


def test_vacuum_and_analyze(store: SqliteStore, before: Path) -> None:
    """VACUUM, which gives rows new numbers, ANALYZE and REINDEX change nothing."""
    fingerprint = store.fingerprint()
    execute(path_of(store), "INSERT INTO loose VALUES (8, 8)")
    execute(path_of(store), "DELETE FROM loose WHERE x = 8")
    row_numbers = rows(path_of(store), "SELECT rowid FROM loose")
    execute(path_of(store), "DELETE FROM loose WHERE rowid = 1; INSERT INTO loose VALUES (1, 'p')")
    run_pragma(path_of(store), "VACUUM", "ANALYZE", "REINDEX")
    assert store.effects(before) == ()
    assert store.fingerprint() == fingerprint
    assert len(row_numbers) == 5


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE _handrail_identity",
        "DELETE FROM _handrail_identity",
    ],
)
def test_lost_identity(store: SqliteStore, before: Path, sql: str) -> None:
    """The loss of the identity is an effect, though the table counts nowhere else."""
    assert "_handrail_identity" not in str(store.measure()) + str(store.fingerprint())
    assert after(store, before, sql) == [("drop", "table", "_handrail_identity", 1)]


def test_other_identity(store: SqliteStore, before: Path) -> None:
    """Another identity in its place is told."""
    sql = "UPDATE _handrail_identity SET id = 'other'"
    assert after(store, before, sql) == [("update", "table", "_handrail_identity", 1)]


def vanish(path: Path) -> None:
    """Delete the database."""
    path.unlink()


def overwrite(path: Path) -> None:
    """Write something else over the database."""
    path.write_text("reset done\n" * 1000)


def damage(path: Path) -> None:
    """Write over the schema of the database."""
    with path.open("r+b") as stream:
        stream.seek(100)
        stream.write(b"\xff" * 3900)


def cut(path: Path) -> None:
    """Cut the file off in the middle of its first page."""
    os.truncate(path, 1000)


def make_directory(path: Path) -> None:
    """Put a directory in the place of the database."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [vanish, overwrite, damage, cut, make_directory])
def test_lost_database(store: SqliteStore, before: Path, harm: object) -> None:
    """A database that is gone, or is none any more, is dropped with all its rows."""
    assert callable(harm)
    harm(path_of(store))
    assert told(store.effects(before)) == [("drop", "database", "app.db", 16)]


def test_emptied_database(store: SqliteStore, before: Path) -> None:
    """A file cut to nothing is a database whose tables were all dropped."""
    os.truncate(path_of(store), 0)
    found = told(store.effects(before))
    assert [effect for effect in found if effect[1] == "table"] == [
        ("drop", "table", "loose", 5),
        ("drop", "table", "readings", 4),
        ("drop", "table", "words", 4),
        ("drop", "table", "pairs", 3),
        ("drop", "table", "_handrail_identity", 1),
    ]


def test_database_of_another_encoding(store: SqliteStore, before: Path) -> None:
    """A file that was replaced by one of another encoding is another database."""
    path_of(store).unlink()
    run_pragma(path_of(store), "PRAGMA encoding = 'UTF-16'", "CREATE TABLE t (a)")
    assert told(store.effects(before)) == [("replace", "database", "app.db", 16)]


def test_lost_copy(store: SqliteStore, before: Path) -> None:
    """Where the kept copy is gone, that is an error and not an effect."""
    (before / "before.sqlite").unlink()
    with pytest.raises(StoreError):
        store.effects(before)


def test_change_in_the_log_alone(store: SqliteStore, tmp_path: Path) -> None:
    """What is committed in the write-ahead log is seen before it reaches the file."""
    run_pragma(path_of(store), "PRAGMA journal_mode = wal")
    before = observe(store, tmp_path / "before")
    die_while(path_of(store), "DELETE FROM loose")
    assert told(store.effects(before)) == [("delete", "table", "loose", 5)]


def test_many_columns(tmp_path: Path) -> None:
    """A table of 1,500 columns, with a key or without, is compared like any other."""
    many = ", ".join(f"c{number}" for number in range(1500))
    sql = f"CREATE TABLE wide ({many}); INSERT INTO wide (c0, c1499) VALUES (1, 2), (3, 4);"
    sql += f"CREATE TABLE keyed (id INTEGER PRIMARY KEY, {many}); INSERT INTO keyed (id) VALUES (1)"
    store = make_store(tmp_path / "app.db", sql)
    before = observe(store, tmp_path / "before")
    sql = "UPDATE wide SET c1499 = 9 WHERE c0 = 1; UPDATE keyed SET c700 = 1"
    assert after(store, before, sql) == [
        ("delete", "table", "wide", 1),
        ("update", "table", "keyed", 1),
        ("insert", "table", "wide", 1),
    ]
    assert {(table.name, table.rows) for table in store.measure().tables} == {
        ("wide", 2),
        ("keyed", 1),
    }


def test_odd_tables(tmp_path: Path) -> None:
    """Names that need quoting, generated columns and columns called rowid are all right."""
    sql = """
    CREATE TABLE "select ""x"" from"  ("a b" TEXT, "rowid" INTEGER, "_rowid_", "group" TEXT);
    INSERT INTO "select ""x"" from" VALUES ('1', 2, 3, '4'), ('1', 2, 3, '4');
    CREATE TABLE all_taken (rowid TEXT, _rowid_ TEXT, oid TEXT);
    INSERT INTO all_taken VALUES (1, 2, 3), (1, 2, 3);
    CREATE TABLE computed (id INTEGER PRIMARY KEY, n INT, twice AS (n * 2), kept AS (n) STORED);
    INSERT INTO computed (n) VALUES (1), (2);
    CREATE TABLE [white
    space] (a);
    """
    store = make_store(tmp_path / "app.db", sql)
    assert store.measure().rows == 6
    before = observe(store, tmp_path / "before")
    sql = """
    UPDATE "select ""x"" from" SET "rowid" = 9;
    DELETE FROM all_taken;
    UPDATE computed SET n = 3 WHERE n = 2;
    INSERT INTO [white
    space] VALUES (1);
    """
    assert sorted(after(store, before, sql)) == sorted(
        [
            ("delete", "table", 'select "x" from', 2),
            ("insert", "table", 'select "x" from', 2),
            ("delete", "table", "all_taken", 2),
            ("update", "table", "computed", 1),
            ("insert", "table", "white\n    space", 1),
        ]
    )


def test_virtual_tables(tmp_path: Path) -> None:
    """A full-text or spatial table is told by its rows, and its storage tables are not told."""
    sql = """
    CREATE VIRTUAL TABLE docs USING fts5(title, body);
    CREATE VIRTUAL TABLE words USING fts5vocab(docs, row);
    CREATE VIRTUAL TABLE old USING fts4(body);
    CREATE VIRTUAL TABLE areas USING rtree(id, x0, x1);
    INSERT INTO docs VALUES ('one', 'same'), ('one', 'same'), ('two', 'other');
    INSERT INTO old VALUES ('text');
    INSERT INTO areas VALUES (1, 0, 1), (2, 0, 2);
    """
    store = make_store(tmp_path / "app.db", sql)
    assert {(t.name, t.rows) for t in store.measure().tables} == {
        ("docs", 3),
        ("old", 1),
        ("areas", 2),
    }
    before = observe(store, tmp_path / "before")
    fingerprint = store.fingerprint()
    execute(path_of(store), "INSERT INTO docs (docs) VALUES ('optimize')")
    assert store.effects(before) == ()
    assert store.fingerprint() == fingerprint
    sql = "DELETE FROM docs WHERE rowid = 2; DELETE FROM areas; DROP TABLE old"
    assert after(store, before, sql) == [
        ("drop", "table", "old", 1),
        ("delete", "table", "areas", 2),
        ("delete", "table", "docs", 1),
    ]


def test_virtual_table_without_module(tmp_path: Path) -> None:
    """A virtual table whose module only the application has is spoken for by its storage."""
    sql = "CREATE VIRTUAL TABLE docs USING fts5(body); INSERT INTO docs VALUES ('a'), ('b')"
    store = make_store(tmp_path / "app.db", sql)
    run_pragma(
        path_of(store),
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_master SET sql = replace(sql, 'fts5', 'vec99') WHERE name = 'docs'",
    )
    before = observe(store, tmp_path / "before")
    assert store.fingerprint() == store.fingerprint()
    assert after(store, before, "DELETE FROM docs_content") == [
        ("delete", "table", "docs_content", 2)
    ]


def test_collation_of_the_application(tmp_path: Path) -> None:
    """Tables under a collation that only the application has are counted and compared."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.create_collation("local", lambda a, b: (a > b) - (a < b))
        connection.executescript(
            "CREATE TABLE t (k TEXT COLLATE local PRIMARY KEY, v); CREATE INDEX i ON t (v, k);"
            "INSERT INTO t VALUES ('a', 1), ('b', 2);"
        )
    store = SqliteStore("store/app-db", path)
    before = observe(store, tmp_path / "before")
    assert store.measure().rows == 2
    assert store.effects(before) == ()
    with closing(sqlite3.connect(path)) as connection:
        connection.create_collation("local", lambda a, b: (a > b) - (a < b))
        connection.executescript("DELETE FROM t WHERE k = 'a'")
    assert told(store.effects(before)) == [("delete", "table", "t", 1)]
    assert back_up(store, tmp_path / "backup").fingerprint == store.fingerprint()


def test_replace_cascades(tmp_path: Path) -> None:
    """REPLACE deletes the old row first, and with it what refers to it."""
    sql = """
    CREATE TABLE a (id INTEGER PRIMARY KEY, v);
    CREATE TABLE b (id INTEGER PRIMARY KEY, a REFERENCES a (id) ON DELETE CASCADE);
    INSERT INTO a VALUES (1, 'x'); INSERT INTO b VALUES (1, 1), (2, 1);
    """
    store = make_store(tmp_path / "app.db", sql)
    before = observe(store, tmp_path / "before")
    assert after(store, before, "REPLACE INTO a VALUES (1, 'x')") == [("delete", "table", "b", 2)]
