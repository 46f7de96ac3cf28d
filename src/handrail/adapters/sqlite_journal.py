"""The journal in one SQLite file: durable when a call returns, append only, never forked.

Rules (docs/reference/journal-format.md is the specification):
- One record is one transaction with its anchor, and it is on the disk when `append` returns (WAL,
  synchronous=FULL).
- Two processes at one chain wait for each other. Where the next record goes is looked up inside
  BEGIN IMMEDIATE; but behind a record that this process wrote, the next is tried at once: the file
  itself (primary key and triggers) refuses what does not follow the last record of an open chain.
- Nothing is opened before it is needed. Reading a journal that does not exist finds it empty, and
  makes no file; reading one that exists writes nothing into it.
- A body that holds one of `secrets` is refused: the callers see to it, this is the second pair of
  eyes.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from handrail.adapters.sqlite_journal_file import connect, make, translate
from handrail.errors import JournalError
from handrail.plans.canonical import encode, encode_plain, time_text
from handrail.plans.chain import (
    ANCHORS,
    CLOSED,
    FORMAT,
    GENESIS,
    OPENED,
    REOPENED,
    RESERVED,
    USED,
    ended_body,
    is_name,
    leaks,
    opened_body,
    record_hash,
    used_body,
)
from handrail.ports import Clock, Record

_T = TypeVar("_T")

_COLUMNS = "chain, sequence, time, kind, body, previous, hash"
_LAST = f"SELECT {_COLUMNS} FROM records WHERE chain = ? ORDER BY sequence DESC LIMIT 1"  # noqa: S608  # both are constants
_ALL = f"SELECT {_COLUMNS} FROM records WHERE chain = ? ORDER BY sequence"  # noqa: S608  # the same
_REST = f"SELECT {_COLUMNS} FROM records WHERE chain <> '{ANCHORS}' ORDER BY chain, sequence"  # noqa: S608  # the same
_INSERT = f"INSERT INTO records ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # the same
# Named, because SQLite would choose the primary key, and read every anchor there is.
_LAST_ANCHOR = (
    "SELECT kind FROM records INDEXED BY anchors_of_chain"
    " WHERE chain = 'anchors' AND json_extract(body, '$.chain') = ? ORDER BY sequence DESC LIMIT 1"
)
_CHAINS = (
    "SELECT json_extract(body, '$.chain') FROM records"
    " WHERE chain = 'anchors' AND kind = 'opened' ORDER BY sequence"
)


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
        # What was appended last: the next record of that chain follows it, unless others write too.
        self._tail: Record | None = None
        # One transaction at a time: the output of a script may be journalled by another thread.
        self._lock = threading.RLock()

    def append(self, chain: str, kind: str, body: Mapping[str, Any]) -> Record:
        """Write one record; see `ports.Journal`."""
        if chain in RESERVED:
            raise AssertionError(f"the chain {chain!r} is written by the journal itself")
        text = encode_plain(body)
        with self._lock:
            followed = self._follow(chain, kind, text)
            return followed or self._write(lambda one: self._append(one, chain, kind, text))

    def close(self, chain: str) -> None:
        """Anchor the end of `chain`; see `ports.Journal`."""
        # Looking first spares the write, and the file where there is none yet.
        if self._read(lambda one: _is_open(one, chain), empty=False):
            self._write(lambda one: self._close(one, chain))

    def open_run(self) -> int:
        """Return a new run number; see `ports.Journal`."""
        return self._write(self._open_run)

    def single_use(self, key: str) -> bool:
        """Mark `key` as used; see `ports.Journal`."""
        return self._write(lambda one: self._use(one, key))

    def records(self, chain: str) -> Iterator[Record]:
        """Yield a chain's records as they are now; what is appended meanwhile is not among them."""
        none: list[Any] = []
        rows = self._read(lambda one: one.execute(_ALL, (chain,)).fetchall(), none)
        yield from (Record(*row) for row in rows)

    def chains(self, prefix: str = "") -> tuple[str, ...]:
        """Return the names of chains; see `ports.Journal`."""
        none: list[Any] = []
        rows = self._read(lambda one: one.execute(_CHAINS).fetchall(), none)
        return tuple(name for (name,) in rows if name.startswith(prefix))

    def last(self, chain: str) -> Record | None:
        """Return a chain's last record; see `ports.Journal`."""
        return self._read(lambda one: _last(one, chain), None)

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

    def shut(self) -> None:
        """Let go of the file. The next call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _everything(self) -> Iterator[Record]:
        if not self._path.exists():
            return
        with closing(connect(self._path, self._busy_timeout_s)) as connection:
            connection.execute("BEGIN")
            for query, of in ((_ALL, (ANCHORS,)), (_REST, ())):
                for row in connection.execute(query, of):
                    yield Record(*row)

    def _follow(self, chain: str, kind: str, body: str) -> Record | None:
        """Write a record behind the one that was appended last, in a transaction of one statement.

        Returns:
            None, having written nothing, where that is not the last record of an open chain.
        """
        last, self._tail = self._tail, None
        if last is None or last.chain != chain or self._connection is None:
            return None
        what = (chain, kind, body)
        try:
            self._tail = self._add(self._connection, what, last.sequence + 1, last.hash)
        except sqlite3.IntegrityError:
            return None
        except sqlite3.Error as error:
            raise translate(self._path, error) from error
        return self._tail

    def _append(self, one: sqlite3.Connection, chain: str, kind: str, body: str) -> Record:
        self._refuse_moved()
        last = _last(one, chain)
        if last is None:
            opened = self._anchor(one, OPENED, opened_body(chain))
            self._tail = self._add(one, (chain, kind, body), 1, opened.hash)
            return self._tail
        if not _is_open(one, chain):
            self._anchor(one, REOPENED, ended_body(chain, last.sequence, last.hash))
        self._tail = self._add(one, (chain, kind, body), last.sequence + 1, last.hash)
        return self._tail

    def _close(self, one: sqlite3.Connection, chain: str) -> None:
        # Asked again inside the transaction: another process may have closed it meanwhile.
        last = _last(one, chain)
        if last is not None and _is_open(one, chain):
            self._anchor(one, CLOSED, ended_body(chain, last.sequence, last.hash))

    def _use(self, one: sqlite3.Connection, key: str) -> bool:
        body = used_body(key)
        found = one.execute("SELECT 1 FROM records WHERE chain = 'used' AND body = ?", (body,))
        if found.fetchone() is not None:
            return False
        self._append(one, USED, "used", body)
        return True

    def _open_run(self, one: sqlite3.Connection) -> int:
        now = time_text(self._clock.now())
        number = one.execute("INSERT INTO runs (time) VALUES (?)", (now,)).lastrowid
        assert number is not None  # noqa: S101  # an insert always has one
        return number

    def _anchor(self, one: sqlite3.Connection, kind: str, body: str) -> Record:
        last = _last(one, ANCHORS)
        if last is None:
            return self._add(one, (ANCHORS, kind, body), 1, GENESIS)
        return self._add(one, (ANCHORS, kind, body), last.sequence + 1, last.hash)

    def _add(
        self, one: sqlite3.Connection, what: tuple[str, str, str], sequence: int, previous: str
    ) -> Record:
        chain, kind, body = what
        self._refuse_unfit(chain, kind, body)
        time = time_text(self._clock.now())
        digest = record_hash(
            chain=chain, sequence=sequence, time=time, kind=kind, body=body, previous=previous
        )
        record = (chain, sequence, time, kind, body, previous, digest)
        one.execute(_INSERT, record)
        return Record(*record)

    def _refuse_unfit(self, chain: str, kind: str, body: str) -> None:
        if not (is_name(chain) and is_name(kind)):
            raise AssertionError(f"{chain!r} or {kind!r} cannot be a chain's or a record's name")
        if self._secrets and leaks(body, self._secrets):
            raise JournalError(
                "internal",
                f"a record `{kind}` of `{chain}` would have held a secret; it was not written",
                hint="report this as a defect; what was about to happen did not begin",
            )

    def _write(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        """Return what `action` does in one transaction that is durable on return."""
        with self._lock:
            try:
                return self._commit(action)
            except (sqlite3.Error, OSError) as error:
                raise translate(self._path, error) from error

    def _commit(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        connection = self._opened()
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = action(connection)
            connection.execute("COMMIT")
        except BaseException:
            self._tail = None
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


def _last(one: sqlite3.Connection, chain: str) -> Record | None:
    row = one.execute(_LAST, (chain,)).fetchone()
    return None if row is None else Record(*row)


def _is_open(one: sqlite3.Connection, chain: str) -> bool:
    row = one.execute(_LAST_ANCHOR, (chain,)).fetchone()
    return row is not None and row[0] != CLOSED


def _is_same(path: Path, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), file)
    except FileNotFoundError:
        return False


def _line(record: Record) -> str:
    return encode({"format": FORMAT, **vars(record)})
