"""Reads all keys of a server into a table on the disk, and compares two of them.

Rules:
- Memory is bounded whatever the server holds: the table is a file of SQLite's, sorted by key.
- A key counts once, though SCAN may give it twice.
- Handrail's own key (`IDENTITY_KEY`) is no content.
- SCAN is no snapshot: a key that others write meanwhile is read as it was before or after.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from handrail.adapters.redis.connecting import Session, databases
from handrail.adapters.redis.values import Reader
from handrail.plans.patterns import pattern_of

IDENTITY_KEY = b"handrail:identity"
_PAGE = 500
_SCHEMA = """
CREATE TABLE keys (database INTEGER, key BLOB, type TEXT, members INTEGER, expires_ms INTEGER,
    digest BLOB, pattern TEXT, PRIMARY KEY (database, key)) WITHOUT ROWID;
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""


def name_of(database: int, key: bytes) -> str:
    """Return the pattern under which a key is spoken of: `session:*`, `db1 session:*`."""
    pattern = pattern_of(key.decode("utf-8", "backslashreplace"))
    return f"db{database} {pattern}" if database else pattern


@contextmanager
def new_table(path: Path | None = None) -> Iterator[sqlite3.Connection]:
    """Give an empty table, in the new file `path` or in one that goes by itself."""
    # An empty name is a file that SQLite itself removes.
    with closing(sqlite3.connect("" if path is None else path)) as table:
        table.execute("PRAGMA journal_mode = OFF")
        table.execute("PRAGMA synchronous = OFF")
        table.executescript(_SCHEMA)
        yield table
        table.commit()


def scan(session: Session) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the number of a database and some of its keys; the session is at that database."""
    for database in databases(session):
        session.ask("SELECT", database)
        cursor = b"0"
        while True:
            cursor, page = session.ask("SCAN", cursor, "COUNT", _PAGE)
            own = page if database else [key for key in page if key != IDENTITY_KEY]
            if own:
                yield database, list(dict.fromkeys(own))
            if cursor == b"0":
                break


def read_keys(session: Session, table: sqlite3.Connection) -> bool:
    """Write every key with its value's digest; return whether expiries are exact."""
    reader = Reader(session)
    for database, keys in scan(session):
        rows = [
            (
                database,
                key,
                value.type,
                value.members,
                value.expires_ms,
                value.digest,
                name_of(database, key),
            )
            for key, value in zip(keys, reader.read(keys), strict=True)
            if value is not None
        ]
        table.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    table.commit()
    return reader.is_exact


def read_names(session: Session, table: sqlite3.Connection) -> None:
    """Write every key with its pattern alone."""
    for database, keys in scan(session):
        rows = [(database, key, name_of(database, key)) for key in keys]
        table.executemany(
            "INSERT OR REPLACE INTO keys (database, key, pattern) VALUES (?, ?, ?)", rows
        )
    table.commit()
