"""The journal's file: its formats, how it is made and opened, and what its errors mean.

Rules:
- A file is made whole under another name first: no crash leaves half a journal.
- A newer format is refused, an older one is brought up step by step; a copy of the file as it was
  is kept beside it first.
- Opening a file of today's format writes nothing into it.
- Every error of SQLite becomes `journal.unwritable` (nothing is wrong with what is written) or
  `journal.damaged`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from handrail.errors import JournalError

_APPLICATION_ID = 0x48616E64  # "Hand", in the file's header: `file journal.db` shows it

# SQLite begins its log anew after so many pages. A commit that makes the log's file longer takes
# up to twice as long as one that writes over what is there; with SQLite's own 1,000 pages, nearly
# every commit of nearly every command would be of the first kind (bench/journal_rate.py).
CHECKPOINT_PAGES = 64

# One script a format: script n brings a file of format n to n + 1. A released one never changes.
#
# That no chain forks stands in the primary key (one record a sequence) and in `records_follow` (it
# holds the hash of the one before). UNIQUE (chain, previous) would say less, and its index is a
# second page that every commit has to write. `records_reopen` sees the close that the primary key
# does not. So a writer may insert behind the record that it remembers, without looking first.
_FORMATS = (
    """
    CREATE TABLE records (
        chain TEXT NOT NULL,
        sequence INTEGER NOT NULL CHECK (sequence > 0),
        time TEXT NOT NULL,
        kind TEXT NOT NULL,
        body TEXT NOT NULL,
        previous TEXT NOT NULL,
        hash TEXT NOT NULL,
        PRIMARY KEY (chain, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX anchors_of_chain ON records (json_extract(body, '$.chain'), sequence)
        WHERE chain = 'anchors';
    CREATE UNIQUE INDEX used_once ON records (body) WHERE chain = 'used';
    CREATE TABLE runs (number INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL) STRICT;
    CREATE TRIGGER records_follow BEFORE INSERT ON records
        WHEN NEW.sequence > 1 AND NEW.previous IS NOT
            (SELECT hash FROM records WHERE chain = NEW.chain AND sequence = NEW.sequence - 1)
        BEGIN SELECT RAISE(ABORT, 'a record follows the last one of its chain'); END;
    CREATE TRIGGER records_reopen BEFORE INSERT ON records
        WHEN 'closed' =
            (SELECT kind FROM records INDEXED BY anchors_of_chain
                WHERE chain = 'anchors' AND json_extract(body, '$.chain') = NEW.chain
                ORDER BY sequence DESC LIMIT 1)
        BEGIN SELECT RAISE(ABORT, 'a closed chain is reopened in the anchors first'); END;
    CREATE TRIGGER records_stay_as_they_are BEFORE UPDATE ON records
        BEGIN SELECT RAISE(ABORT, 'the journal is append only: no record is ever changed'); END;
    CREATE TRIGGER records_stay BEFORE DELETE ON records
        BEGIN SELECT RAISE(ABORT, 'the journal is append only: no record is ever removed'); END;
    CREATE TRIGGER runs_stay_as_they_are BEFORE UPDATE ON runs
        BEGIN SELECT RAISE(ABORT, 'a run number is never changed'); END;
    CREATE TRIGGER runs_stay BEFORE DELETE ON runs
        BEGIN SELECT RAISE(ABORT, 'a run number is never given twice'); END;
    """,
    # Which chains there are and which are open: found without reading every anchor. All of it
    # follows from the anchors, by triggers; nobody writes it.
    """
    CREATE TABLE chains (
        chain TEXT NOT NULL PRIMARY KEY,
        opened INTEGER NOT NULL,
        is_open INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX open_chains ON chains (chain, opened) WHERE is_open;
    INSERT INTO chains
        SELECT json_extract(body, '$.chain'), sequence,
            'closed' IS NOT (SELECT kind FROM records AS anchor INDEXED BY anchors_of_chain
                WHERE anchor.chain = 'anchors'
                    AND json_extract(anchor.body, '$.chain') = json_extract(records.body, '$.chain')
                ORDER BY anchor.sequence DESC LIMIT 1)
        FROM records WHERE chain = 'anchors' AND kind = 'opened';
    CREATE TRIGGER chains_open AFTER INSERT ON records
        WHEN NEW.chain = 'anchors' AND NEW.kind = 'opened'
        BEGIN INSERT INTO chains VALUES (json_extract(NEW.body, '$.chain'), NEW.sequence, 1); END;
    CREATE TRIGGER chains_change AFTER INSERT ON records
        WHEN NEW.chain = 'anchors' AND NEW.kind <> 'opened'
        BEGIN UPDATE chains SET is_open = NEW.kind <> 'closed'
            WHERE chain = json_extract(NEW.body, '$.chain'); END;
    CREATE TRIGGER chains_are_anchored BEFORE INSERT ON chains
        WHEN NEW.chain IS NOT (SELECT json_extract(body, '$.chain') FROM records
            WHERE chain = 'anchors' AND sequence = NEW.opened AND kind = 'opened')
        BEGIN SELECT RAISE(ABORT, 'the anchors say which chains there are'); END;
    CREATE TRIGGER chains_are_as_anchored BEFORE UPDATE ON chains
        WHEN NEW.chain <> OLD.chain OR NEW.opened <> OLD.opened OR NEW.is_open IS NOT
            ('closed' IS NOT (SELECT kind FROM records INDEXED BY anchors_of_chain
                WHERE chain = 'anchors' AND json_extract(body, '$.chain') = NEW.chain
                ORDER BY sequence DESC LIMIT 1))
        BEGIN SELECT RAISE(ABORT, 'the anchors say which chains are open'); END;
    CREATE TRIGGER chains_stay BEFORE DELETE ON chains
        BEGIN SELECT RAISE(ABORT, 'the journal is append only: no chain is ever removed'); END;
    """,
)


def connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """Return a connection to an existing journal of a known format."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        _check_format(connection, path)
        if _version(connection) < len(_FORMATS):
            _bring_up(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = _version(connection)
    if application != _APPLICATION_ID or version < 1:
        raise JournalError(
            "journal.damaged",
            f"`{path}` is a database, but no journal of Handrail, or an emptied one",
            hint="restore it from a backup, or move it away to begin a new journal",
        )
    if version > len(_FORMATS):
        raise JournalError(
            "journal.format",
            f"`{path}` has format {version}; this Handrail knows formats up to {len(_FORMATS)}",
            hint="install the newer Handrail that wrote it",
        )


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    """Apply the formats that the file does not have yet, after a copy of it was made."""
    with _locked(path.parent) as directory:
        # Asked again: another process may have done it meanwhile.
        version = _version(connection)
        if version < len(_FORMATS):
            _copy(connection, path.with_name(f"{path.stem}-format-{version}{path.suffix}"))
            os.fsync(directory)
            _apply(connection)


def _copy(connection: sqlite3.Connection, at: Path) -> None:
    """Write the journal as it is now to another file, durable; whole or not at all."""
    number, name = tempfile.mkstemp(prefix=".journal-", dir=at.parent)
    try:
        with closing(sqlite3.connect(name)) as copy:
            connection.backup(copy)
        os.fsync(number)
        Path(name).replace(at)
    finally:
        os.close(number)
        Path(name).unlink(missing_ok=True)


def _apply(connection: sqlite3.Connection) -> None:
    """Apply formats, each in a transaction of its own."""
    version = _version(connection)
    for number, script in enumerate(_FORMATS[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT"
        )


def make(path: Path) -> None:
    """Make an empty journal, whole or not at all, for the present user alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path.parent) as directory:
        if path.exists():
            return
        number, name = tempfile.mkstemp(prefix=".journal-", dir=path.parent)
        os.close(number)
        try:
            with closing(sqlite3.connect(name, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                _apply(connection)
            Path(name).replace(path)
        finally:
            for left_over in path.parent.glob(Path(name).name + "*"):
                left_over.unlink()
        os.fsync(directory)
    _sync(path.parent.parent)


@contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Hold `directory` against other processes that make a journal in it."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield number
    finally:
        os.close(number)


def _sync(directory: Path) -> None:
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


# By the beginning of SQLite's own name of the error.
_UNWRITABLE = {
    "SQLITE_FULL": ("the disk is full", "free some space, then repeat the command"),
    "SQLITE_READONLY": ("it is read-only here", "make the file and its directory writable"),
    "SQLITE_BUSY": ("another process is writing to it", "wait for that process, then repeat"),
    "SQLITE_LOCKED": ("another process is writing to it", "wait for that process, then repeat"),
    "SQLITE_CANTOPEN": (
        "it cannot be opened",
        "make the file and its directory readable and writable for you",
    ),
    "SQLITE_IOERR": ("the disk answers with an error", "look at the disk before anything else"),
    "SQLITE_PERM": ("the right to it is missing", "make the file and its directory writable"),
}


def translate(path: Path, error: sqlite3.Error | OSError) -> JournalError:
    """Return what an error of SQLite or the kernel means for the journal at `path`."""
    if isinstance(error, OSError):
        return JournalError(
            "journal.unwritable",
            f"the journal `{path}` cannot be used: {error.strerror or error}",
            hint="make its directory writable for you; nothing is done without it",
        )
    name = getattr(error, "sqlite_errorname", "") or ""
    for beginning, (why, hint) in _UNWRITABLE.items():
        if name.startswith(beginning):
            return JournalError(
                "journal.unwritable", f"the journal `{path}` cannot be written: {why}", hint=hint
            )
    return JournalError(
        "journal.damaged",
        f"the journal `{path}` is damaged: {error}",
        hint="keep a copy of it as it is, then restore it from a backup",
    )
