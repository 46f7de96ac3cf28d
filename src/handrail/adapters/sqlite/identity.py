"""Who a database file says it is.

Rules:
- The id lies in the file, in a table of its own, so it goes wherever a copy goes; the endpoint
  is the real path, and tells copies apart.
- A clone is known by the file `.handrail-clone` in its directory and by the marker in its table,
  which are the same. No other file has a marker, whatever was copied into it.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from handrail.adapters.sqlite.catalog import IDENTITY_TABLE
from handrail.adapters.sqlite.connecting import DatabaseFile, reading, writing
from handrail.plans.facts import Identity

UNADOPTED = "unadopted"
_NOBODY = (UNADOPTED, "")
CLONE_FILE = ".handrail-clone"


def identify(file: DatabaseFile) -> Identity:
    """Return who `file` says it is."""
    with reading(file) as connection:
        return identify_with(file, connection)


def identify_with(file: DatabaseFile, connection: sqlite3.Connection) -> Identity:
    """Return who the database that `connection` reads says it is."""
    who, marker = _read(connection) or _NOBODY
    return Identity(
        id=f"sqlite:{who}",
        endpoint=os.path.realpath(file.path),
        version=f"SQLite {sqlite3.sqlite_version}",
        marker=marker,
    )


def adopt(file: DatabaseFile, new_id: str) -> None:
    """Write `new_id` into a database that has none."""
    with reading(file) as connection:
        who, marker = _read(connection) or _NOBODY
    if who == UNADOPTED:
        with writing(file) as connection:
            _write(connection, new_id, marker)


def keep_apart(file: DatabaseFile, former_id: str) -> None:
    """Give `file`, whose content came from elsewhere, the marker that its place has.

    Args:
        file: the database.
        former_id: `sqlite:...` that it had before; used where the content has no id.
    """
    marker = read_marker(file.path.parent)
    with reading(file) as connection:
        found = _read(connection)
    who = found[0] if found else former_id.removeprefix("sqlite:") or UNADOPTED
    if (found or _NOBODY) == (who, marker):
        return
    with writing(file) as connection:
        _write(connection, who, marker)


def read_marker(directory: Path) -> str:
    """Return the marker of the clone in `directory`; empty when no clone is there."""
    try:
        return (directory / CLONE_FILE).read_text().strip()
    except OSError:
        return ""


def _read(connection: sqlite3.Connection) -> tuple[str, str] | None:
    is_there = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    if connection.execute(is_there, (IDENTITY_TABLE,)).fetchone() is None:
        return None
    row = connection.execute(
        f"SELECT id, marker FROM {IDENTITY_TABLE} ORDER BY rowid LIMIT 1"  # noqa: S608 - a constant
    ).fetchone()
    return (str(row[0]), str(row[1] or "")) if row else None


def _write(connection: sqlite3.Connection, who: str, marker: str) -> None:
    connection.execute(f"CREATE TABLE IF NOT EXISTS {IDENTITY_TABLE} (id TEXT, marker TEXT)")
    connection.execute(f"DELETE FROM {IDENTITY_TABLE}")  # noqa: S608 - a constant
    connection.execute(f"INSERT INTO {IDENTITY_TABLE} VALUES (?, ?)", (who, marker))  # noqa: S608
