"""SQLite files for tests, made and changed by the library itself, and by processes that die."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from handrail.adapters.sqlite import SqliteStore
from handrail.plans.facts import Backup

ID = "5d0c" * 8
READINGS = """
CREATE TABLE readings (id INTEGER PRIMARY KEY, value TEXT);
INSERT INTO readings VALUES (1, 'a'), (2, 'b'), (3, 'c');
"""
_DEADLINE_S = 20


def execute(path: Path, sql: str) -> None:
    """Run the statements of `sql`, as an application that enforces foreign keys would."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(f"BEGIN; {sql}; COMMIT;")


def run_pragma(path: Path, *statements: str) -> None:
    """Run statements that no transaction may hold."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Return what a query gives."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def make_store(path: Path, sql: str = "", *, busy_timeout_s: float = 10.0) -> SqliteStore:
    """Return an adopted store at `path`, with what `sql` makes in it."""
    execute(path, sql)
    store = SqliteStore("store/app-db", path, busy_timeout_s=busy_timeout_s)
    store.adopt(ID)
    return store


def path_of(store: SqliteStore) -> Path:
    """Return the file of `store`."""
    return Path(store.connection().parts["path"])


def quiet(done: int, total: int | None) -> None:
    """Take progress and say nothing."""


def back_up(store: SqliteStore, into: Path, backup_id: str = "b1") -> Backup:
    """Return a backup of `store` in the new directory `into`."""
    into.mkdir()
    return store.backup(backup_id, into, quiet)


def die_while(path: Path, *statements: str) -> None:
    """Run `statements` in a process that is gone, as if killed, before it could tidy up."""
    program = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
os._exit(0)
"""
    command = [sys.executable, "-c", program, str(path), *statements]
    subprocess.run(command, check=True, timeout=_DEADLINE_S)


@contextmanager
def another_process(path: Path, *statements: str) -> Iterator[subprocess.Popen[str]]:
    """Give a process that has run `statements` and keeps the connection, until the `with` ends.

    A line written to it is a statement more; it answers with what the statement gave.
    """
    program = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print('ready', flush=True)
for line in sys.stdin:
    try:
        print(connection.execute(line).fetchall(), flush=True)
    except sqlite3.Error as error:
        print(error, flush=True)
"""
    command = [sys.executable, "-c", program, str(path), *statements]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str], statement: str) -> str:
    """Return what `statement` gives in the process of `another_process`."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(statement + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()
