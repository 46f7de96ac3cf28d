"""Measuring, fingerprinting and asking a database file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from handrail.adapters.sqlite import SqliteStore
from handrail.errors import StoreError
from support.sqlite_files import READINGS, execute, make_store, path_of, rows, run_pragma


def span(tmp_path: Path, declared: str, *values: object) -> tuple[str | None, str | None]:
    """Return the oldest and newest time in a table of one column, `declared` so."""
    store = make_store(tmp_path / "app.db", f"CREATE TABLE t ({declared})")
    with closing(sqlite3.connect(path_of(store))) as connection:
        connection.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
        connection.commit()
    (table,) = store.measure().tables
    assert table.rows == len(values)
    return table.oldest, table.newest


OLD, NEW = "2019-03-02 10:00:00", "2024-06-30 23:59:59"
OLD_ISO, NEW_ISO = "2019-03-02T10:00:00+00:00", "2024-06-30T23:59:59+00:00"


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("t DATETIME", [OLD, NEW]),
        ("t TIMESTAMP WITH TIME ZONE", [NEW, OLD, None]),
        ("created_at TEXT", [OLD, NEW]),
        ("x TEXT", [OLD, NEW]),
        ("x", [OLD, NEW]),
        ("t DATETIME", ["2019-03-02T12:30:00+02:30", "2024-06-30T23:59:59.999Z"]),
        ("t DATETIME", [OLD, NEW, "", "soon", "2024-99-99", "now", 7, b"\xff", 0.5, "0000-00-00"]),
        ("t DATETIME", [OLD, NEW, "0001-01-01", "1900-01-01", "9999-12-31 23:59:59"]),
        ("created_at INTEGER", [1551520800, 1719791999]),
        ("createdAt INTEGER", [1551520800, 1719791999, -1, 0, 7, 2**62]),
        ("event_time INTEGER", [1551520800000, 1719791999000]),
        ("date", [1551520800000000, 1719791999000000]),
    ],
)
def test_time_columns(tmp_path: Path, declared: str, values: list[object]) -> None:
    """Times are found by declared type, name or content, and what is no time is skipped."""
    assert span(tmp_path, declared, *values) == (OLD_ISO, NEW_ISO)


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("customer INTEGER", [1551520800]),
        ("timeout INTEGER", [1551520800]),
        ("candidate INTEGER", [1551520800]),
        ("x TEXT", ["2019-03-02", "a", "b", "c"]),
        ("created_at TEXT", ["never"]),
        ("t DATE", []),
    ],
)
def test_no_time_columns(tmp_path: Path, declared: str, values: list[object]) -> None:
    """Numbers that nothing says are times, and text that mostly is not, give no age."""
    assert span(tmp_path, declared, *values) == (None, None)


def test_size_counts_the_log(tmp_path: Path) -> None:
    """What is in the log alone counts in the size."""
    store = make_store(tmp_path / "app.db", READINGS)
    run_pragma(path_of(store), "PRAGMA journal_mode = wal")
    before = store.measure().size_bytes
    with closing(sqlite3.connect(path_of(store))) as writer:
        writer.execute("INSERT INTO readings (value) VALUES (hex(randomblob(100000)))")
        writer.commit()
        assert store.measure().size_bytes > before + 200_000


def checksum(tmp_path: Path, *values: str) -> str:
    """Return the checksum of a table of one column that holds the SQL `values`."""
    path = tmp_path / "one.db"
    path.unlink(missing_ok=True)
    inserts = "".join(f"INSERT INTO t VALUES ({value});" for value in values)
    store = make_store(path, f"CREATE TABLE t (x); {inserts}")
    return dict(store.fingerprint().tables)["t"]


def test_types_differ(tmp_path: Path) -> None:
    """Values that look alike differ by type, length, encoding and what follows a NUL."""
    values = [
        "1", "1.0", "'1'", "x'31'", "NULL", "''", "x''", "'NULL'", "0", "'a'", "'A'", "'a '",
        "CAST(x'6100' AS TEXT)", "CAST(x'610062' AS TEXT)", "CAST(x'6162ff' AS TEXT)",
        "CAST(x'6162fe' AS TEXT)", "x'6162ff'", "9223372036854775807", "9.223372036854775807e18",
        "0.1", "0.1 + 1e-17 + 2e-17", "1e999", "-1e999", "char(233)", "'e' || char(769)",
    ]  # fmt: skip
    assert len({checksum(tmp_path, value) for value in values}) == len(values)


def test_duplicates_count(tmp_path: Path) -> None:
    """Two, three and four of the same row are not the same, nor are pairs of others."""
    found = [checksum(tmp_path, *["1"] * times) for times in range(5)]
    found += [checksum(tmp_path, "1", "1", "2", "2"), checksum(tmp_path, "2", "2")]
    assert len(set(found)) == 7


def test_order_does_not_count(tmp_path: Path) -> None:
    """Rows in another order, bytes that are no text among them, give the same checksum."""
    values = ["1", "'b'", "x'ff'", "CAST(x'ff' AS TEXT)", "NULL"]
    assert checksum(tmp_path, *values) == checksum(tmp_path, *reversed(values))


def test_columns_are_apart(tmp_path: Path) -> None:
    """The same bytes split otherwise between columns are another row."""
    found = set()
    for number, values in enumerate(["'a', 'bc'", "'ab', 'c'", "'abc', ''", "'abc', NULL"]):
        sql = f"CREATE TABLE t (x, y); INSERT INTO t VALUES ({values})"
        store = make_store(tmp_path / f"{number}.db", sql)
        found.add(dict(store.fingerprint().tables)["t"])
    assert len(found) == 4


def test_row_numbers_count_only_as_columns(tmp_path: Path) -> None:
    """A row number that VACUUM would give anew does not count; a declared one does."""
    sql = "CREATE TABLE loose (x); INSERT INTO loose (rowid, x) VALUES ({0}, 1);"
    sql += "CREATE TABLE keyed (id INTEGER PRIMARY KEY, x); INSERT INTO keyed VALUES ({0}, 1)"
    one, two = (make_store(tmp_path / f"{n}.db", sql.format(n)).fingerprint() for n in (1, 2))
    assert one.differences(two) == ("table keyed",)


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA user_version = 5",
        "PRAGMA application_id = 5",
        "PRAGMA journal_mode = wal",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER t AFTER DELETE ON readings BEGIN SELECT 1; END",
        "ALTER TABLE readings RENAME COLUMN value TO amount",
    ],
)
def test_shape_counts(tmp_path: Path, statement: str) -> None:
    """Settings that the file keeps, and every object, are part of the schema's checksum."""
    store = make_store(tmp_path / "app.db", READINGS)
    before = store.fingerprint()
    run_pragma(path_of(store), statement)
    assert store.fingerprint().differences(before) == ("schema",)


def test_white_space_does_not_count(tmp_path: Path) -> None:
    """The same table written with other spaces and comments has the same shape."""
    plain = "CREATE TABLE t (a TEXT DEFAULT 'x  y', b INTEGER)"
    other = "CREATE TABLE t(a  TEXT /* why */ DEFAULT 'x  y' ,\n  b INTEGER -- because\n)"
    changed = "CREATE TABLE t (a TEXT DEFAULT 'x y', b INTEGER)"
    made = [make_store(tmp_path / f"{n}.db", s) for n, s in enumerate([plain, other, changed])]
    one, two, three = (store.fingerprint() for store in made)
    assert one == two
    assert one.differences(three) == ("schema",)


# --- asking ------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    """A store with a full-text table beside the ordinary one."""
    sql = (
        READINGS + "CREATE VIRTUAL TABLE docs USING fts5(body); INSERT INTO docs VALUES ('a word')"
    )
    return make_store(tmp_path / "app.db", sql)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("SELECT count(*) FROM readings;", "3"),
        ("  -- how many\nSELECT max(value) FROM readings", "c"),
        ("SELECT x'00ff'", "00ff"),
        ("SELECT 1.5", "1.5"),
        ("SELECT body FROM docs WHERE docs MATCH 'word'", "a word"),
        ("PRAGMA quick_check", "ok"),
        ("PRAGMA user_version", "0"),
        ("VALUES (7)", "7"),
    ],
)
def test_ask(store: SqliteStore, query: str, answer: str) -> None:
    """Queries, full-text ones too, and pragmas that only look are answered."""
    assert store.ask(query, 10) == answer


@pytest.mark.parametrize(
    "query",
    [
        "PRAGMA user_version = 9",
        "PRAGMA journal_mode = wal",
        "PRAGMA query_only = 0",
        "PRAGMA writable_schema = 1",
        "ATTACH '{other}' AS o",
        "VACUUM INTO '{other}'",
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('simple', x'00')",
        "INSERT INTO docs (docs) VALUES ('optimize')",
        "BEGIN",
        "REINDEX",
        "ANALYZE",
        "CREATE TEMP TABLE t (a)",
    ],
)
def test_ask_refuses(store: SqliteStore, tmp_path: Path, query: str) -> None:
    """What writes, attaches, sets or loads is refused, and has done nothing."""
    before = store.fingerprint()
    with pytest.raises(StoreError) as raised:
        store.ask(query.format(other=tmp_path / "other.db"), 10)
    assert raised.value.hint
    assert store.fingerprint() == before
    assert {path.name for path in tmp_path.iterdir()} == {"app.db"}


def test_ask_says_that_time_is_up(store: SqliteStore) -> None:
    """A query that takes too long is told apart from one that is wrong."""
    endless = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    )
    with pytest.raises(StoreError, match=r"longer than 0.1 s"):
        store.ask(endless, 0.1)
    execute(path_of(store), "DELETE FROM readings")
    assert rows(path_of(store), "SELECT count(*) FROM readings") == [(0,)]
