"""Copies a database through SQLite's online backup, and makes backups with it.

Rules:
- A copy is of one moment, whoever writes meanwhile: the source is held in one read transaction.
- A file gets its name when it is whole: written under a temporary name, flushed, renamed, and the
  directory flushed. Copies are readable by the present user alone.
- A backup is checked page by page. Rows that break a constraint are the data's own fault and no
  reason to have no backup; a damaged page is.
- The fingerprint of a backup is read from the copy, never from the original.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from handrail.adapters.sqlite.connecting import (
    COMPANIONS,
    DatabaseFile,
    answering,
    connect,
    error_name,
    is_no_database,
    locked,
    reading,
)
from handrail.adapters.sqlite.content import fingerprint
from handrail.adapters.sqlite.identity import identify_with
from handrail.errors import StoreError
from handrail.plans.facts import Backup, Fingerprint
from handrail.ports import Progress

FORM = "sqlite"
# Beside a backup: mode, owner and group of the original, for when the original is gone.
OWNER = "store.owner"
_BACKUP = "store.sqlite"
_PARTIAL = ".partial"
_PAGES_A_STEP = 256
_RETRY_S = 0.05
# A disk is kept this far from full: others write on it too.
_RESERVE_BYTES = 16 * 1024 * 1024
# What `quick_check` says about rows rather than about pages.
_DATA_FAULTS = ("CHECK constraint", "NULL value in", "non-", "NUMERIC value in", "TEXT value in")


def make_backup(
    file: DatabaseFile, backup_id: str, into: Path, made_at: datetime, progress: Progress
) -> Backup:
    """Write a checked backup of `file` into the empty directory `into`, durable on return."""
    copy = into / _BACKUP
    with answering(file), _all_or_nothing(into):
        with reading(file) as source:
            who = identify_with(file, source)
            copy_database(file, source, copy, progress)
        _check(file, copy)
        keep_owner(file.path, into / OWNER)
        held = fingerprint_of(replace(file, path=copy), is_frozen=True)
        return Backup(
            id=backup_id,
            path=str(copy.absolute()),
            form=FORM,
            size_bytes=copy.stat().st_size,
            made_at=made_at.isoformat(),
            identity=who,
            fingerprint=held,
        )


def copy_database(
    file: DatabaseFile, source: sqlite3.Connection, to: Path, progress: Progress
) -> None:
    """Write what `source` reads to the new file `to`, durable on return.

    Raises:
        StoreError: the disk has no room for it; nothing was written.
    """
    pages, page_bytes = (
        int(source.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "page_size")
    )
    require_space(file, to.parent, pages * page_bytes)
    partial = to.with_name(to.name + _PARTIAL)
    _make_private(partial)
    with closing(connect(partial, "rw", file.busy_timeout_s)) as target:
        # Nobody else reads it before it is whole, so no journal has to protect it.
        target.execute("PRAGMA synchronous = OFF")
        target.execute("PRAGMA journal_mode = OFF")
        copy_pages(file, source, target, progress)
    publish(partial, to)


def copy_pages(
    file: DatabaseFile,
    source: sqlite3.Connection,
    target: sqlite3.Connection,
    progress: Progress,
    pages: int = _PAGES_A_STEP,
) -> None:
    """Make `target` hold what `source` reads, in one transaction of `target`.

    Progress is told after each step of `pages`; what it raises takes the whole back, unless the
    last step was made.

    Raises:
        StoreError: another process held `target`'s lock for `busy_timeout_s`; it is unchanged.
    """
    tries = max(1, int(file.busy_timeout_s / _RETRY_S))
    refused = 0

    def report(status: int, remaining: int, total: int) -> None:
        # Python tries again for ever on a lock; only from here can it be told to stop.
        nonlocal refused
        refused = refused + 1 if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} else 0
        if refused >= tries:
            raise locked(file)
        progress(total - remaining, total)

    source.backup(target, pages=pages, progress=report, sleep=_RETRY_S)


def fingerprint_of(file: DatabaseFile, *, is_frozen: bool = False) -> Fingerprint:
    """Return the checksums of a file's content."""
    with reading(file, is_frozen=is_frozen) as connection:
        return fingerprint(connection)


def require_space(file: DatabaseFile, directory: Path, size_bytes: int) -> None:
    """Check that `size_bytes` more fit into `directory`.

    Raises:
        StoreError: they do not.
    """
    free = shutil.disk_usage(directory).free
    if free < size_bytes + _RESERVE_BYTES:
        raise StoreError(
            "store.disk-full",
            f"{file.resource}: a copy needs {size_bytes:,} bytes in `{directory}`, "
            f"and {free:,} are free",
            hint="free space there, or give another directory",
        )


def publish(partial: Path, to: Path) -> None:
    """Give the whole file `partial` its name, durably."""
    flush(partial)
    partial.rename(to)
    flush(to.parent)


def flush(path: Path) -> None:
    """Make what is written to a file, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep_owner(of: Path, at: Path) -> None:
    """Write mode, owner and group of the file `of` to the file `at`, durably."""
    found = of.stat()
    at.write_text(f"{found.st_mode & 0o7777:o} {found.st_uid} {found.st_gid}\n")
    flush(at)
    flush(at.parent)


def _make_private(path: Path) -> None:
    for leftover in (path, *(path.with_name(path.name + suffix) for suffix in COMPANIONS)):
        leftover.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


@contextmanager
def _all_or_nothing(directory: Path) -> Iterator[None]:
    """Empty `directory` again when the `with` ends in an error, Ctrl-C included."""
    try:
        yield
    except BaseException:
        for path in directory.iterdir():
            path.unlink(missing_ok=True)
        raise


def _check(file: DatabaseFile, copy: Path) -> None:
    damage = [text for text in _faults(file, copy) if not text.startswith(_DATA_FAULTS)]
    if damage:
        raise StoreError(
            "backup.failed",
            f"{file.resource}: `{file.path}` is damaged: {damage[0]}",
            hint=f"sqlite3 {file.path} 'PRAGMA integrity_check', then restore an older backup",
        )


def _faults(file: DatabaseFile, copy: Path) -> list[str]:
    """Return what SQLite finds wrong with a copy; empty when it finds nothing."""
    with closing(connect(copy, "immutable", file.busy_timeout_s)) as connection:
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check")]
        except sqlite3.DatabaseError as error:
            if is_no_database(error):
                return [str(error)]
            if not error_name(error).startswith("SQLITE_ERROR"):
                raise
            # The check needs a collation, function or module that only the application has. The
            # copy is the original's, page by page, and its rows are read for the fingerprint.
            return []
    return [text for text in found if text != "ok"]
