"""SQLite files for tests, made and changed by the library itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from handrail.adapters.sqlite import SqliteStore

ID = "5d0c" * 8


def execute(path: Path, sql: str) -> None:
    """Run the statements of `sql`, as an application that enforces foreign keys would."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(f"BEGIN; {sql}; COMMIT;")


def make_store(path: Path, sql: str = "") -> SqliteStore:
    """Return an adopted store at `path`, with what `sql` makes in it."""
    execute(path, sql)
    store = SqliteStore("store/app-db", path)
    store.adopt(ID)
    return store
