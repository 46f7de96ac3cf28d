"""Opens a database file, and says in Handrail's errors why that cannot be done.

Rules:
- Opening never makes a file: what is missing is an error, not a new and empty database.
- The file is never opened other than by SQLite while it is a database: closing any descriptor of
  it drops every lock that this process holds on it. Source: sqlite.org/howtocorrupt.html, 2.2.
- Reading opens for writing with `query_only`, where this user may write: only so is a hot journal
  rolled back, and a write-ahead log left as tidy as it was. Where this user may not, SQLite falls
  back to reading; a file without journal or log in a read-only directory is opened `immutable`.
- Everything that is read under one `reading` is of one snapshot.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from handrail.errors import StoreError

# What SQLite keeps beside a database file; each belongs to the file of that very name.
COMPANIONS = ("-journal", "-wal", "-shm")
_NO_DATABASE = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
_NOT_ALLOWED = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")


@dataclass(frozen=True)
class DatabaseFile:
    """Where a database is.

    Attributes:
        resource: the store that it is, `kind/name`.
        path: absolute.
        busy_timeout_s: how long to wait for a lock that another process holds.
    """

    resource: str
    path: Path
    busy_timeout_s: float

    def beside(self, suffix: str) -> Path:
        """Return the path of a file with the same name and `suffix`."""
        return self.path.with_name(self.path.name + suffix)


class Snapshot(sqlite3.Connection):
    """A connection that reads.

    Attributes:
        frozen: the files of schemas that were opened `immutable`. SQLite takes no lock on those,
            and does not look at their journal mode.
    """

    def __init__(self, database: str, *, timeout: float, isolation_level: None, uri: bool) -> None:
        super().__init__(database, timeout=timeout, isolation_level=isolation_level, uri=uri)
        self.frozen: dict[str, Path] = {}

    def attach(self, path: Path, schema: str) -> None:
        """Attach the file at `path`, which nobody writes, as `schema`."""
        self.execute(f"ATTACH ? AS {quoted(schema)}", (address(path, "immutable"),))
        self.frozen[schema] = path


def quoted(name: str) -> str:
    """Return `name` as an SQL identifier, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def address(path: Path, mode: str) -> str:
    """Return the URI of `path`; `mode` is `rw`, `ro` or `immutable`."""
    option = "immutable=1" if mode == "immutable" else f"mode={mode}"
    return f"file:{quote(os.fsencode(path))}?{option}"


def connect(path: Path, mode: str, busy_timeout_s: float) -> Snapshot:
    """Return a connection in autocommit mode. Nothing has been read yet."""
    connection = Snapshot(
        address(path, mode), timeout=busy_timeout_s, isolation_level=None, uri=True
    )
    if mode == "immutable":
        connection.frozen["main"] = path
    return connection


@contextmanager
def reading(file: DatabaseFile, *, is_frozen: bool = False) -> Iterator[Snapshot]:
    """Give a connection that reads one snapshot of `file` and cannot write.

    Where the journal mode is not WAL, writers wait until it ends.

    Args:
        file: the database.
        is_frozen: nobody writes it, for it is a copy that Handrail keeps.

    Raises:
        StoreError: also for what SQLite raises inside the `with`.
    """
    with answering(file):
        require(file)
        opened = _begin_reading(file, "immutable") if is_frozen else _open_snapshot(file)
        with closing(opened) as connection:
            yield connection


@contextmanager
def writing(file: DatabaseFile) -> Iterator[sqlite3.Connection]:
    """Give a connection in one transaction that holds the write lock, and commit it at the end.

    Raises:
        StoreError: also for what SQLite raises inside the `with`; then nothing was written.
    """
    with answering(file):
        require(file)
        with closing(connect(file.path, "rw", file.busy_timeout_s)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")


def require(file: DatabaseFile) -> None:
    """Check that a regular file is there.

    Raises:
        StoreError: it is missing, out of reach, or something else.
    """
    try:
        mode = file.path.stat().st_mode
    except OSError as error:
        raise _of_system(error, file) from error
    if not stat.S_ISREG(mode):
        raise StoreError(
            "store.not-a-store",
            f"{file.resource}: `{file.path}` is not a regular file",
            hint="give the path of the SQLite database file itself",
        )


@contextmanager
def answering(file: DatabaseFile) -> Iterator[None]:
    """Translate what SQLite and the system raise inside the `with` into `StoreError`."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _of_sqlite(error, file) from error
    except OSError as error:
        raise _of_system(error, file) from error


def is_no_database(error: BaseException | None) -> bool:
    """Whether `error` says that a file is no database, or a damaged one."""
    return error_name(error).startswith(_NO_DATABASE)


def error_name(error: BaseException | None) -> str:
    """Return SQLite's own name of `error`, such as `SQLITE_BUSY`; empty where it has none."""
    return str(getattr(error, "sqlite_errorname", None) or "")


def locked(file: DatabaseFile) -> StoreError:
    """Return the error of a lock that was not given in time."""
    return StoreError(
        "store.locked",
        f"{file.resource}: `{file.path}` is locked by another process for longer than "
        f"{file.busy_timeout_s:g} s",
        hint=f"end or pause what writes to it (fuser -v {file.path}), then try again",
    )


def _open_snapshot(file: DatabaseFile) -> Snapshot:
    try:
        return _begin_reading(file, "rw")
    except sqlite3.OperationalError as error:
        if not error_name(error).startswith(_NOT_ALLOWED) or _has_leftovers(file):
            raise
        return _begin_reading(file, "immutable")


def _begin_reading(file: DatabaseFile, mode: str) -> Snapshot:
    connection = connect(file.path, mode, file.busy_timeout_s)
    try:
        connection.execute("PRAGMA query_only = 1")
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _has_leftovers(file: DatabaseFile) -> bool:
    """Whether a journal or log holds pages that `immutable` would not see."""
    found = (file.beside(suffix) for suffix in ("-journal", "-wal"))
    return any(path.exists() and path.stat().st_size for path in found)


def _of_sqlite(error: Exception, file: DatabaseFile) -> StoreError:
    name = error_name(error)
    where = f"{file.resource}: `{file.path}`"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return locked(file)
    if name.startswith("SQLITE_NOTADB"):
        return StoreError(
            "store.not-a-store",
            f"{where} is not an SQLite database, or an encrypted one",
            hint="check the path; an encrypted database cannot be handled",
        )
    if name.startswith("SQLITE_CORRUPT"):
        return StoreError(
            "store.failed",
            f"{where} is damaged ({error})",
            hint="look with `PRAGMA integrity_check`, and restore the last good backup",
        )
    if name.startswith("SQLITE_FULL"):
        return _disk_full(where)
    if name.startswith(_NOT_ALLOWED):
        return StoreError(
            "store.denied",
            f"{where} may not be opened or written by this user ({error})",
            hint="run as the user that the database belongs to",
        )
    return StoreError("store.failed", f"{where}: {error}", hint=f"sqlite3 {file.path}")


def _of_system(error: OSError, file: DatabaseFile) -> StoreError:
    where = f"{file.resource}: `{error.filename or file.path}`"
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return StoreError(
            "store.missing",
            f"{where} does not exist",
            hint="check the path; Handrail never makes an empty database in its place",
        )
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return _disk_full(where)
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return StoreError(
            "store.denied",
            f"{where} is not accessible to this user ({error.strerror})",
            hint="run as the user that the database belongs to",
        )
    return StoreError("store.failed", f"{where}: {error.strerror}", hint="look at the path")


def _disk_full(where: str) -> StoreError:
    return StoreError(
        "store.disk-full", f"{where}: no space is left on the disk", hint="free space: df -h"
    )
