"""`ports.Journal` in PostgreSQL: durable when a call returns, append only, never forked.

Rules (docs/reference/journal-format.md is the specification):
- One write is one transaction with its anchors. Behind records that this process wrote, the next
  are tried at once, in one statement; the database refuses what does not follow. All else is looked
  up in a transaction that holds the lock of the writers alone.
- When the connection is lost while a commit is under way, the journal is read before anything else:
  what is there is not written twice, what is not is written. `journal.unknown` is raised where the
  server does not come back within the patience.
- Reading a database without the schema finds the journal empty, and makes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import errors

from handrail.adapters.postgres_journal import schema
from handrail.adapters.postgres_journal.link import Bounded, Link
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
from handrail.plans.chain import ANCHORS, FORMAT
from handrail.ports import Clock, Entry, Record

T = TypeVar("T")

_LAST: LiteralString = (
    "SELECT chain, sequence, time, kind, body, previous, hash FROM handrail.records"
    " WHERE chain = %s ORDER BY sequence DESC LIMIT 1"
)
_BEYOND: LiteralString = (
    "SELECT chain, sequence, time, kind, body, previous, hash FROM handrail.records"
    " WHERE chain = %s AND sequence > %s ORDER BY sequence"
)
_REST: LiteralString = (
    "SELECT chain, sequence, time, kind, body, previous, hash FROM handrail.records"
    " WHERE chain <> %s ORDER BY chain, sequence"
)
_INSERT: LiteralString = "INSERT INTO handrail.records VALUES (%s, %s, %s, %s, %s, %s, %s)"
_INSERT_ALL: LiteralString = (
    "INSERT INTO handrail.records SELECT * FROM unnest("
    "%s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])"
)
_TAIL: LiteralString = (
    "SELECT sequence, hash FROM handrail.records WHERE chain = %s ORDER BY sequence DESC LIMIT 1"
)
_IS_OPEN: LiteralString = "SELECT 1 FROM handrail.chains WHERE chain = %s AND is_open"
_USED: LiteralString = (
    "SELECT 1 FROM handrail.records"
    " WHERE chain = 'used' AND pg_catalog.md5(body) = pg_catalog.md5(%s) AND body = %s"
)
_KEPT: LiteralString = (
    "SELECT 1 FROM handrail.records WHERE chain = %s AND sequence = %s AND hash = %s"
)
_CHAINS: LiteralString = (
    "SELECT chain FROM handrail.chains WHERE chain >= %s AND chain < %s ORDER BY opened"
)
_OPEN: LiteralString = (
    "SELECT chain FROM handrail.chains WHERE is_open AND chain >= %s AND chain < %s ORDER BY opened"
)
_ENDS: LiteralString = (
    "SELECT last.* FROM handrail.chains, LATERAL (SELECT * FROM handrail.records"
    " WHERE records.chain = chains.chain ORDER BY sequence DESC LIMIT 1) AS last"
    " WHERE is_open AND chains.chain >= %s AND chains.chain < %s ORDER BY opened"
)
_OPEN_RUN: LiteralString = "INSERT INTO handrail.runs (time) VALUES (%s) RETURNING number"
_ANY: LiteralString = "SELECT 1 FROM handrail.records LIMIT 1"
_RUNS_FROM: LiteralString = (
    "SELECT pg_catalog.setval(pg_catalog.pg_get_serial_sequence('handrail.runs', 'number'),"
    " greatest(%s, (SELECT max(number) FROM handrail.runs)), %s)"
)
_ALONE: LiteralString = "SELECT pg_catalog.pg_advisory_xact_lock(%s, %s)"
# How often `wait` looks whether another process has written.
_LOOK_S = 0.25
_EXPORTED_AT_ONCE = 2000
_IMPORTED_AT_ONCE = 500


class PostgresJournal:
    """`ports.Journal` in the schema `handrail` of a database."""

    def __init__(self, link: Link, clock: Clock, *, secrets: Collection[str] = ()) -> None:
        """Connect to nothing yet.

        Args:
            link: to the database.
            clock: gives the records their time.
            secrets: no body may hold one of them. Read at each append: it may grow.
        """
        self._link = link
        self._clock = clock
        self._secrets = secrets
        self._remembered = Remembered()
        self._together = Together(self._commit)
        # The session whose schema has been looked at.
        self._known: Bounded | None = None
        self._written = threading.Condition()

    def append(self, chain: str, kind: str, body: Mapping[str, Any]) -> Record:
        """Write one record; see `ports.Journal`."""
        return self._together.make(appending(chain, kind, body))

    def write(self, entries: Sequence[Entry]) -> tuple[Record, ...]:
        """Write all of `entries`, or none; see `ports.Journal`."""
        return self._together.make(writing(entries))

    def close(self, chain: str) -> None:
        """Anchor the end of `chain`; see `ports.Journal`."""
        # Looking first spares the write, and the schema where there is none yet.
        if self._read(lambda one: _Found(one).is_open(chain), empty=False):
            self._together.make(lambda draft: draft.close(chain))

    def open_run(self) -> int:
        """Return a new run number; see `ports.Journal`. A failure may leave one out."""

        def insert(session: Bounded) -> int:
            self._ensure(session)
            row = session.execute(_OPEN_RUN, (time_text(self._clock.now()),)).fetchone()
            assert row is not None  # noqa: S101  an insert always returns one
            return int(row[0])

        with self._together.lock:
            return self._link.attempt(insert)

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

        It is seen within a quarter of a second; one of this process mostly at once.
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
                yield encode({"format": FORMAT, **vars(record)})
        except psycopg.Error as error:
            raise self._link.translated(error) from None
        yield encode({"end": count, "format": FORMAT})

    def take_over(self, records: Sequence[Record], runs: int) -> None:
        """Write another journal's records; see `ports.Journal`."""
        sent: list[Record] = []

        def insert(session: Bounded) -> None:
            self._ensure(session)
            if sent and _is_kept(session, sent[-1]):
                return
            sent.clear()
            with session.transaction():
                session.quick.execute(_ALONE, (schema.KEY, schema.WRITERS))
                if session.execute(_ANY).fetchone() is not None:
                    raise refuse_filled()
                for first in range(0, len(records), _IMPORTED_AT_ONCE):
                    _insert(session, records[first : first + _IMPORTED_AT_ONCE])
                session.execute(_RUNS_FROM, (max(runs, 1), runs > 0))
                sent.extend(records[-1:])

        with self._together.lock:
            self._link.attempt(insert, lambda: bool(sent))

    def shut(self) -> None:
        """Let go of the connection. The next call makes another."""
        with self._together.lock:
            self._link.close()
            self._remembered.forget()

    def _everything(self) -> Iterator[Record]:
        # Looks at the schema, and brings it up where it is older.
        if not self._read(lambda _: True, empty=False):
            return
        with closing(self._link.connect()) as session, session.transaction():
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            session.execute("SET LOCAL statement_timeout = 0")
            for query, of in ((_BEYOND, (ANCHORS, 0)), (_REST, (ANCHORS,))):
                with session.cursor(f"export_{len(of)}") as cursor:
                    cursor.itersize = _EXPORTED_AT_ONCE
                    for row in cursor.execute(query, of):
                        yield Record(*row)

    def _names(self, query: LiteralString, prefix: str) -> tuple[str, ...]:
        none: list[Any] = []
        rows = self._read(lambda one: one.execute(query, _between(prefix)).fetchall(), none)
        return tuple(name for (name,) in rows)

    def _goes_beyond(self, chain: str, after: int) -> bool:
        tail = self._read(lambda one: _Found(one).tail(chain), None)
        return tail is not None and tail.sequence > after

    def _read(self, action: Callable[[Bounded], T], empty: T) -> T:
        """Return what `action` finds; `empty` where there is no journal yet."""

        def look(session: Bounded) -> T:
            if session is not self._known and not schema.is_made(session):
                return empty
            self._ensure(session)
            return action(session)

        with self._together.lock:
            return self._link.attempt(look)

    def _ensure(self, session: Bounded) -> None:
        if session is not self._known:
            schema.ensure(session, time_text(self._clock.now()))
            self._known = session

    def _commit(self, requests: Sequence[Request[Any]]) -> None:
        """Write all that was asked for, in one transaction."""
        sent: list[Record] = []

        def attempt(session: Bounded) -> None:
            self._ensure(session)
            if sent and _is_kept(session, sent[-1]):
                return
            sent.clear()
            session.warned = False
            if not self._commit_guess(session, requests, sent):
                self._commit_alone(session, requests, sent)
            if session.warned:
                self._refuse_warned()

        try:
            self._link.attempt(attempt, lambda: bool(sent))
        except BaseException:
            self._remembered.forget()
            raise
        with self._written:
            self._written.notify_all()

    def _commit_guess(
        self, session: Bounded, requests: Sequence[Request[Any]], sent: list[Record]
    ) -> bool:
        """Write behind what this process wrote last; False, having written nothing, in doubt."""
        sent.clear()
        records = guessed(requests, self._remembered, self._draft)
        if records is None:
            return False
        # Everybody's statements touch chains in one order: none waits for another in a circle.
        records.sort(key=lambda record: (record.chain, record.sequence))
        sent += records
        try:
            _insert(session, records)
        except (errors.IntegrityError, errors.DeadlockDetected):
            self._remembered.forget()
            return False
        return True

    def _commit_alone(
        self, session: Bounded, requests: Sequence[Request[Any]], sent: list[Record]
    ) -> None:
        """Look up where the records go, while nobody else writes, and write them."""
        sent.clear()
        found = _Found(session)
        with session.transaction():
            session.quick.execute(_ALONE, (schema.KEY, schema.WRITERS))
            for request in requests:
                draft = Draft(found, self._clock, self._secrets)
                request.draw_on(draft)
                _insert(session, draft.records)
                self._remembered.note(draft)
                sent += draft.records

    def _draft(self) -> Draft:
        return Draft(self._remembered, self._clock, self._secrets)

    def _refuse_warned(self) -> None:
        """Raise: somebody cancelled the server's waiting for its standby."""
        raise JournalError(
            "journal.unknown",
            f"a record is kept in {self._link}, but nobody knows whether its standby has it",
            hint="look at the server's log and at its synchronous standby",
        )


class _Found:
    """`chaining.Source`: what the database holds, while nobody else writes."""

    def __init__(self, session: Bounded) -> None:
        self._session = session

    def tail(self, chain: str) -> Tail | None:
        row = self._session.quick.execute(_TAIL, (chain,)).fetchone()
        return None if row is None else Tail(*row)

    def is_open(self, chain: str) -> bool:
        return self._session.quick.execute(_IS_OPEN, (chain,)).fetchone() is not None

    def is_used(self, body: str) -> bool:
        return self._session.quick.execute(_USED, (body, body)).fetchone() is not None


def _between(prefix: str) -> tuple[str, str]:
    """Return the bounds of the names that begin with `prefix`; none has the last character."""
    return prefix, prefix + "\U0010ffff"


def _insert(session: Bounded, records: Sequence[Record]) -> None:
    if not records:
        return
    if len(records) == 1:
        session.quick.execute(_INSERT, tuple(vars(records[0]).values()))
        return
    columns = zip(*(vars(record).values() for record in records), strict=True)
    session.quick.execute(_INSERT_ALL, [list(column) for column in columns])


def _is_kept(session: Bounded, record: Record) -> bool:
    row = session.execute(_KEPT, (record.chain, record.sequence, record.hash)).fetchone()
    return row is not None
