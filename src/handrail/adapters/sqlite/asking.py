"""Answers one question of a check: a query that reads, and nothing else.

Rules:
- SQLite itself is asked to allow each thing that a query would do: what is not on the list here
  (writing, ATTACH, a transaction's end, a function that reaches files) is refused before it runs.
- Exactly one statement, with a result.
- The query is interrupted at its time limit.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace

from handrail.adapters.sqlite.catalog import read_catalog
from handrail.adapters.sqlite.connecting import DatabaseFile, reading
from handrail.errors import StoreError

_READS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
# Pragmas that only look; none of them may be given a value to set.
_PRAGMAS = frozenset(
    {
        "application_id", "data_version", "foreign_key_check", "foreign_key_list",
        "freelist_count", "index_info", "index_list", "integrity_check", "page_count", "page_size",
        "quick_check", "table_info", "table_list", "table_xinfo", "user_version",
    }
)  # fmt: skip
_PRAGMAS_OF_A_NAME = frozenset(
    {name for name in _PRAGMAS if name.startswith(("foreign", "index", "table"))}
)
# Of extensions and of the sqlite3 shell: they reach files, programs or memory.
_FUNCTIONS = frozenset(
    {"edit", "fts3_tokenizer", "load_extension", "readfile", "writefile", "zipfile"}
)
_STEPS_A_LOOK = 1000


def ask(file: DatabaseFile, query: str, timeout_s: float) -> str:
    """Return the first value of the first row as text; empty for NULL and for no row."""
    deadline_s = time.monotonic() + timeout_s
    patient = replace(file, busy_timeout_s=min(file.busy_timeout_s, timeout_s))
    with reading(patient) as connection:
        connection.execute("PRAGMA trusted_schema = 0")
        # Virtual tables set themselves up when they are first read, by statements of their own.
        read_catalog(connection)
        connection.set_authorizer(_allow)
        connection.set_progress_handler(lambda: time.monotonic() > deadline_s, _STEPS_A_LOOK)
        try:
            return _first_value(connection, query)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise _refused(file, error, timeout_s) from error


def _first_value(connection: sqlite3.Connection, query: str) -> str:
    cursor = connection.execute(query)
    if cursor.description is None:
        raise ValueError("it is not a query: it has no result")
    row = cursor.fetchone()
    value = row[0] if row else None
    if isinstance(value, bytes):
        return value.hex()
    return "" if value is None else str(value)


def _allow(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_PRAGMA:
        name = str(first).lower()
        is_fine = name in (_PRAGMAS if second is None else _PRAGMAS_OF_A_NAME)
    elif action == sqlite3.SQLITE_FUNCTION:
        is_fine = str(second).lower() not in _FUNCTIONS
    else:
        is_fine = action in _READS
    return sqlite3.SQLITE_OK if is_fine else sqlite3.SQLITE_DENY


def _refused(file: DatabaseFile, error: Exception, timeout_s: float) -> StoreError:
    if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
        problem = f"the query took longer than {timeout_s:g} s"
    else:
        problem = f"the query was refused: {error}"
    return StoreError(
        "store.failed",
        f"{file.resource}: {problem}",
        hint="a query of a check is one SELECT that reads tables and ends soon",
    )
