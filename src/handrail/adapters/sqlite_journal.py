"""The journal in one SQLite file: durable when a call returns, append only, never forked.

Rules (docs/reference/journal-format.md is the specification):
- One write is one transaction with its anchors, and it is on the disk when a method returns (WAL,
  synchronous=FULL). What several threads write at once may be one transaction.
- Two processes at one chain wait for each other. Where the next record goes is looked up inside
  BEGIN IMMEDIATE; but behind records that this process wrote, the next are tried at once: the file
  itself (primary key and triggers) refuses what does not follow the last record of an open chain.
- Nothing is opened before it is needed. Reading a journal that does not exist finds it empty, and
  makes no file; reading one of today's format writes nothing into it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from handrail.adapters.sqlite_journal_file import connect, make, translate
from handrail.core.chaining import (
    Draft,
    Remembered,
    Request,
    Tail,
    Together,
    appending,
    guessed,
    refuse_filled,
    writing,
)
from handrail.errors import JournalError
from handrail.plans.canonical import encode, time_text
from handrail.plans.chain import ANCHORS, CLOSED, FORMAT
from handrail.ports import Clock, Entry, Record

_T = TypeVar("_T")

_COLUMNS = "chain, sequence, time, kind, body, previous, hash"
_LAST = f"SELECT {_COLUMNS} FROM records WHERE chain = ? ORDER BY sequence DESC LIMIT 1"  # noqa: S608  # both are constants
_ALL = f"SELECT {_COLUMNS} FROM records WHERE chain = ? ORDER BY sequence"  # noqa: S608  # the same
_BEYOND = f"SELECT {_COLUMNS} FROM records WHERE chain = ? AND sequence > ? ORDER BY sequence"  # noqa: S608  # the same
_REST = f"SELECT {_COLUMNS} FROM records WHERE chain <> '{ANCHORS}' ORDER BY chain, sequence"  # noqa: S608  # the same
_INSERT = f"INSERT INTO records ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # the same
_TAIL = "SELECT sequence, hash FROM records WHERE chain = ? ORDER BY sequence DESC LIMIT 1"
# Named, because SQLite would choose the primary key, and read every anchor there is.
_LAST_ANCHOR = (
    "SELECT kind FROM records INDEXED BY anchors_of_chain"
    " WHERE chain = 'anchors' AND json_extract(body, '$.chain') = ? ORDER BY sequence DESC LIMIT 1"
)
_CHAINS = "SELECT chain FROM chains WHERE chain >= ? AND chain < ? ORDER BY opened"
_OPEN = (
    "SELECT chain FROM chains INDEXED BY open_chains"
    " WHERE is_open AND chain >= ? AND chain < ? ORDER BY opened"
)
_ENDS = (
    "SELECT records.* FROM chains INDEXED BY open_chains JOIN records"
    " ON records.chain = chains.chain AND records.sequence ="
    " (SELECT max(sequence) FROM records WHERE chain = chains.chain)"
    " WHERE is_open AND chains.chain >= ? AND chains.chain < ? ORDER BY opened"
)
_USED = "SELECT 1 FROM records WHERE chain = 'used' AND body = ?"
# How often `wait` looks whether another process has written.
_LOOK_S = 0.1


class SqliteJournal:
    """`ports.Journal` in a file, usually `.handrail/journal.db`."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        secrets: Collection[str] = (),
        busy_timeout_s: float = 10.0,
    ) -> None:
        """Open nothing yet.

        Args:
            path: of the database; its directory is made, for the present user alone.
            clock: gives the records their time.
            secrets: no body may hold one of them. Read at each append: it may grow.
            busy_timeout_s: how long to wait for another process that is writing.
        """
        self._path = path
        self._clock = clock
        self._secrets = secrets
        self._busy_timeout_s = busy_timeout_s
        self._connection: sqlite3.Connection | None = None
        self._remembered = Remembered()
        self._together = Together(self._commit)
        # One transaction at a time: the output of a script may be journalled by another thread.
        self._lock = self._together.lock
        self._written = threading.Condition()

    def append(self, chain: str, kind: str, body: Mapping[str, Any]) -> Record:
        """Write one record; see `ports.Journal`."""
        return self._together.make(appending(chain, kind, body))

    def write(self, entries: Sequence[Entry]) -> tuple[Record, ...]:
        """Write all of `entries`, or none; see `ports.Journal`."""
        return self._together.make(writing(entries))

    def close(self, chain: str) -> None:
        """Anchor the end of `chain`; see `ports.Journal`."""
        # Looking first spares the write, and the file where there is none yet.
        if self._read(lambda one: _Found(one).is_open(chain), empty=False):
            self._together.make(lambda draft: draft.close(chain))

    def open_run(self) -> int:
        """Return a new run number; see `ports.Journal`."""
        with self._lock:
            try:
                return self._transact(self._open_run)
            except (sqlite3.Error, OSError) as error:
                raise translate(self._path, error) from error

    def single_use(self, key: str) -> bool:
        """Mark `key` as used; see `ports.Journal`."""
        return self._together.make(lambda draft: draft.use(key))

    def records(self, chain: str, after: int = 0) -> Iterator[Record]:
        """Yield a chain's records as they are now; what is appended meanwhile is not among them."""
        none: list[Any] = []
        rows = self._read(lambda one: one.execute(_BEYOND, (chain, after)).fetchall(), none)
        yield from (Record(*row) for row in rows)

    def open_chains(self, prefix: str) -> tuple[str, ...]:
        """Return the chains that are not closed; see `ports.Journal`."""
        return self._names(_OPEN, prefix)

    def open_ends(self, prefix: str) -> tuple[Record, ...]:
        """Return the last records of open chains; see `ports.Journal`."""
        none: list[Any] = []
        rows = self._read(lambda one: one.execute(_ENDS, _between(prefix)).fetchall(), none)
        return tuple(Record(*row) for row in rows)

    def wait(self, chain: str, after: int, timeout_s: float) -> bool:
        """Wait, in real time, for a record of anybody; see `ports.Journal`.

        It is seen within a tenth of a second; one of this process mostly at once.
        """
        until = time.monotonic() + timeout_s
        while not (found := self._goes_beyond(chain, after)):
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            with self._written:
                self._written.wait(min(left_s, _LOOK_S))
        return found

    def chains(self, prefix: str = "") -> tuple[str, ...]:
        """Return the names of chains; see `ports.Journal`."""
        return self._names(_CHAINS, prefix)

    def last(self, chain: str) -> Record | None:
        """Return a chain's last record; see `ports.Journal`."""
        row = self._read(lambda one: one.execute(_LAST, (chain,)).fetchone(), None)
        return None if row is None else Record(*row)

    def anchors(self) -> Iterator[Record]:
        """Yield the chain of chains; see `ports.Journal`."""
        yield from self.records(ANCHORS)

    def export(self) -> Iterator[str]:
        """Yield the journal's lines, of one moment; a connection of its own streams them."""
        count = 0
        try:
            for record in self._everything():
                count += 1
                yield _line(record)
        except (sqlite3.Error, OSError) as error:
            raise translate(self._path, error) from error
        yield encode({"end": count, "format": FORMAT})

    def take_over(self, records: Sequence[Record], runs: int) -> None:
        """Write another journal's records; see `ports.Journal`."""

        def insert(one: sqlite3.Connection) -> None:
            if one.execute("SELECT 1 FROM records LIMIT 1").fetchone() is not None:
                raise refuse_filled()
            _insert(one, records)
            if runs:
                now = time_text(self._clock.now())
                one.execute("INSERT OR IGNORE INTO runs VALUES (?, ?)", (runs, now))

        with self._lock:
            try:
                self._transact(insert)
            except (sqlite3.Error, OSError) as error:
                raise translate(self._path, error) from error

    def shut(self) -> None:
        """Let go of the file. The next call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._remembered.forget()

    def _everything(self) -> Iterator[Record]:
        if not self._path.exists():
            return
        with closing(connect(self._path, self._busy_timeout_s)) as connection:
            connection.execute("BEGIN")
            for query, of in ((_ALL, (ANCHORS,)), (_REST, ())):
                for row in connection.execute(query, of):
                    yield Record(*row)

    def _names(self, query: str, prefix: str) -> tuple[str, ...]:
        none: list[Any] = []
        rows = self._read(lambda one: one.execute(query, _between(prefix)).fetchall(), none)
        return tuple(name for (name,) in rows)

    def _goes_beyond(self, chain: str, after: int) -> bool:
        tail = self._read(lambda one: _Found(one).tail(chain), None)
        return tail is not None and tail.sequence > after

    def _commit(self, requests: Sequence[Request[Any]]) -> None:
        """Write all that was asked for, in one transaction."""
        try:
            if not self._commit_guess(requests):
                self._transact(lambda one: self._add_all(one, requests))
        except (sqlite3.Error, OSError) as error:
            raise translate(self._path, error) from error
        with self._written:
            self._written.notify_all()

    def _commit_guess(self, requests: Sequence[Request[Any]]) -> bool:
        """Write behind what this process wrote last; False, having written nothing, in doubt."""
        connection = self._connection
        if connection is None:
            return False
        records = guessed(requests, self._remembered, self._draft)
        if records is None:
            return False
        try:
            if len(records) == 1:
                # A statement by itself is a transaction.
                connection.execute(_INSERT, tuple(vars(records[0]).values()))
            else:
                self._transact(lambda one: _insert(one, records))
        except sqlite3.IntegrityError:
            self._remembered.forget()
            return False
        except BaseException:
            self._remembered.forget()
            raise
        return True

    def _add_all(self, one: sqlite3.Connection, requests: Sequence[Request[Any]]) -> None:
        self._refuse_moved()
        found = _Found(one)
        for request in requests:
            draft = Draft(found, self._clock, self._secrets)
            request.draw_on(draft)
            _insert(one, draft.records)
            self._remembered.note(draft)

    def _draft(self) -> Draft:
        return Draft(self._remembered, self._clock, self._secrets)

    def _open_run(self, one: sqlite3.Connection) -> int:
        now = time_text(self._clock.now())
        number = one.execute("INSERT INTO runs (time) VALUES (?)", (now,)).lastrowid
        assert number is not None  # noqa: S101  # an insert always has one
        return number

    def _transact(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        """Return what `action` does in one transaction that is durable on return."""
        connection = self._opened()
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = action(connection)
            connection.execute("COMMIT")
        except BaseException:
            self._remembered.forget()
            # SQLite has already rolled back by itself where the disk failed it.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _read(self, action: Callable[[sqlite3.Connection], _T], empty: _T) -> _T:
        """Return what `action` finds; `empty` where there is no journal yet."""
        with self._lock:
            try:
                if self._connection is None and not self._path.exists():
                    return empty
                return action(self._opened())
            except (sqlite3.Error, OSError) as error:
                raise translate(self._path, error) from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            if not self._path.exists():
                make(self._path)
            self._connection = connect(self._path, self._busy_timeout_s)
            self._file = self._path.stat()
        return self._connection

    def _refuse_moved(self) -> None:
        """Raise when the file is no longer where it was opened.

        SQLite would go on writing, durably, into a file that nobody can find again.
        """
        if not _is_same(self._path, self._file):
            raise JournalError(
                "journal.unwritable",
                f"the journal `{self._path}` was moved or removed while it was in use",
                hint="put it back; nothing is done without it",
            )


class _Found:
    """`chaining.Source`: what the file holds, inside of a transaction."""

    def __init__(self, one: sqlite3.Connection) -> None:
        self._one = one

    def tail(self, chain: str) -> Tail | None:
        row = self._one.execute(_TAIL, (chain,)).fetchone()
        return None if row is None else Tail(*row)

    def is_open(self, chain: str) -> bool:
        row = self._one.execute(_LAST_ANCHOR, (chain,)).fetchone()
        return row is not None and row[0] != CLOSED

    def is_used(self, body: str) -> bool:
        return self._one.execute(_USED, (body,)).fetchone() is not None


def _between(prefix: str) -> tuple[str, str]:
    """Return the bounds of the names that begin with `prefix`; none has the last character."""
    return prefix, prefix + "\U0010ffff"


def _insert(one: sqlite3.Connection, records: Sequence[Record]) -> None:
    one.executemany(_INSERT, [tuple(vars(record).values()) for record in records])


def _is_same(path: Path, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), file)
    except FileNotFoundError:
        return False


def _line(record: Record) -> str:
    return encode({"format": FORMAT, **vars(record)})
