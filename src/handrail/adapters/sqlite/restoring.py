"""Puts a database file back to a backup, under whoever has it open.

Rules:
- The backup is proven to be what was written before anything is touched.
- What is there is kept beside it first, as `<name>.before-restore-<backup id>`, and a file of that
  name is never overwritten.
- Where a database is in place, the content goes *into* that file, in one transaction: other
  processes keep their connections and see either the old content or the new. Only where no
  database is in place (deleted, damaged beyond use, something else) a new file takes the name.
- A journal or log that belonged to the old file never meets the new one: it would be replayed
  into it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from handrail.adapters.sqlite.catalog import has_wal_header
from handrail.adapters.sqlite.connecting import (
    COMPANIONS,
    DatabaseFile,
    answering,
    connect,
    error_name,
    is_no_database,
    reading,
)
from handrail.adapters.sqlite.copying import (
    FORM,
    OWNER,
    copy_database,
    copy_pages,
    fingerprint_of,
    flush,
    publish,
    require_space,
)
from handrail.adapters.sqlite.identity import identify, keep_apart
from handrail.adapters.sqlite.openers import openers
from handrail.errors import StoreError
from handrail.plans.facts import Backup, Fingerprint
from handrail.ports import Progress


def restore(file: DatabaseFile, backup: Backup, progress: Progress) -> tuple[str, ...]:
    """Put `file` back to `backup`; return what differs afterwards, empty when nothing does."""
    with answering(file):
        expected = prove(file, backup)
        former_id = _former_id(file)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        _keep(file, file.beside(f".before-restore-{backup.id}"))
        left = _put_back(file, Path(backup.path), progress)
        keep_apart(file, former_id)
        return (*left, *fingerprint_of(file).differences(expected))


def prove(file: DatabaseFile, backup: Backup) -> Fingerprint:
    """Return the fingerprint of `backup`, read now.

    Raises:
        StoreError: it is not there, of another form, or not as it was written.
    """
    copy = require_backup(file, backup)
    try:
        found = fingerprint_of(copy, is_frozen=True)
    except StoreError as error:
        raise _damaged(file, backup, error.message) from error
    if backup.fingerprint is not None and found != backup.fingerprint:
        raise _damaged(file, backup, ", ".join(found.differences(backup.fingerprint)))
    return found


def require_backup(file: DatabaseFile, backup: Backup) -> DatabaseFile:
    """Return the file of `backup`, after a look at its form and size."""
    if backup.form != FORM:
        raise StoreError(
            "store.unsupported",
            f"{file.resource}: backup {backup.id} has the form `{backup.form}`, not `{FORM}`",
            hint="open or decrypt it first, or choose a backup of this store",
        )
    path = Path(backup.path)
    if not path.is_file() or path.stat().st_size != backup.size_bytes:
        raise _damaged(file, backup, f"`{path}` is missing or of another size")
    return replace(file, path=path)


def _damaged(file: DatabaseFile, backup: Backup, problem: str) -> StoreError:
    return StoreError(
        "backup.damaged",
        f"{file.resource}: backup {backup.id} is not as it was written: {problem}",
        hint="restore another backup; nothing has been changed",
    )


def _former_id(file: DatabaseFile) -> str:
    try:
        return identify(file).id
    except StoreError:
        return ""


def _keep(file: DatabaseFile, kept: Path) -> None:
    """Keep what is at `file` as `kept`, durably; nothing where nothing is, or where it is kept."""
    if os.path.lexists(kept) or not os.path.lexists(file.path):
        return
    if not stat.S_ISREG(file.path.lstat().st_mode):
        file.path.rename(kept)
        flush(kept.parent)
        return
    try:
        with reading(file) as source:
            copy_database(file, source, kept, _nothing)
    except StoreError as error:
        if not is_no_database(error.__cause__):
            raise
        _keep_bytes(file, kept)
    _give_owner(kept, _owner(file.path))


def _keep_bytes(file: DatabaseFile, kept: Path) -> None:
    """Keep a file that is no database as it is, and its journals with it."""
    require_space(file, kept.parent, file.path.stat().st_size)
    for suffix in ("-journal", "-wal"):
        if file.beside(suffix).is_file():
            shutil.copyfile(file.beside(suffix), kept.with_name(kept.name + suffix))
    partial = kept.with_name(kept.name + ".partial")
    shutil.copyfile(file.path, partial)
    publish(partial, kept)


def _put_back(file: DatabaseFile, copy: Path, progress: Progress) -> tuple[str, ...]:
    require_space(file, file.path.parent, copy.stat().st_size)
    with closing(connect(copy, "immutable", file.busy_timeout_s)) as source:
        if file.path.is_file():
            try:
                return _write_into(file, source, copy, progress)
            except sqlite3.DatabaseError as error:
                if not is_no_database(error):
                    raise
        return _write_anew(file, source, copy.with_name(OWNER), progress)


def _write_into(
    file: DatabaseFile, source: sqlite3.Connection, copy: Path, progress: Progress
) -> tuple[str, ...]:
    """Write the content of `source` into the database that is in place."""
    wanted = "wal" if has_wal_header(copy) else "delete"
    with closing(connect(file.path, "rw", file.busy_timeout_s)) as target:
        _look(target)
        if _page_size(target) != _page_size(source):
            # A log cannot hold pages of another size; nothing changes where there is no log.
            target.execute("PRAGMA journal_mode = delete")
        # `copy_pages` tries again by itself, and counts.
        target.execute("PRAGMA busy_timeout = 0")
        copy_pages(file, source, target, progress)
        target.execute(f"PRAGMA busy_timeout = {int(file.busy_timeout_s * 1000)}")
        with suppress(sqlite3.OperationalError):
            # Refused while others have it open; the fingerprint tells.
            target.execute(f"PRAGMA journal_mode = {wanted}")
    return ()


def _look(target: sqlite3.Connection) -> None:
    """Read the header, and roll a hot journal back; a schema beyond reading is no hindrance."""
    try:
        target.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if not error_name(error).startswith("SQLITE_CORRUPT"):
            raise


def _page_size(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA page_size").fetchone()[0])


def _write_anew(
    file: DatabaseFile, source: sqlite3.Connection, owner: Path, progress: Progress
) -> tuple[str, ...]:
    """Put a new file with the content of `source` in the place of what is no database."""
    fresh = file.beside(".restoring")
    copy_database(file, source, fresh, progress)
    left = _give_owner(fresh, _recorded_owner(owner) or _owner(fresh))
    behind = openers(file)
    for suffix in COMPANIONS:
        file.beside(suffix).unlink(missing_ok=True)
    flush(file.path.parent)
    publish(fresh, file.path)
    return (*left, *(f"{who} has the old file open: restart it" for who in behind))


def _owner(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mode & 0o7777, found.st_uid, found.st_gid


def _recorded_owner(path: Path) -> tuple[int, int, int] | None:
    if not path.is_file():
        return None
    mode, user, group = path.read_text().split()
    return int(mode, 8), int(user), int(group)


def _give_owner(path: Path, wanted: tuple[int, int, int]) -> tuple[str, ...]:
    """Give mode and owner back, and return what could not be."""
    mode, user, group = wanted
    path.chmod(mode)
    if _owner(path) == wanted:
        return ()
    try:
        os.chown(path, user, group)
    except PermissionError:
        return (f"owner of {path.name}: was user {user}, group {group}",)
    # A change of owner takes the mode's special bits away.
    path.chmod(mode)
    return ()


def _nothing(done: int, total: int | None) -> None:
    """Take the progress of a copy that nobody waits for by name."""
