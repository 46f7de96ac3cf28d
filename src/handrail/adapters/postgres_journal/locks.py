"""Locks for several machines: a connection holds a resource, and its end releases it.

Rules:
- PostgreSQL's advisory lock decides; the row in `holders` only says who, for people. A row that a
  dead process left is never believed.
- One connection for each resource that is held, for as long as it is. The server notices the death
  of a process at once, that of a machine in half a minute.
- A server that restarts or fails over forgets its locks. What is under way then goes on; that no
  other run begins on its resource is what the journal's `run-begun` is for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, LiteralString

import psycopg

from handrail.adapters.postgres_journal import schema
from handrail.adapters.postgres_journal.link import Bounded, Link
from handrail.errors import RefusedError
from handrail.plans.canonical import sha256, time_text
from handrail.ports import Clock

_TRY: LiteralString = "SELECT pg_catalog.pg_try_advisory_lock(%s)"
_RELEASE: LiteralString = "SELECT pg_catalog.pg_advisory_unlock(%s)"
_SAY: LiteralString = (
    "INSERT INTO handrail.holders (key, resource, who, machine, pid, backend)"
    " VALUES (%s, %s, %s, %s, %s, pg_catalog.pg_backend_pid()) ON CONFLICT (key) DO UPDATE SET"
    " resource = EXCLUDED.resource, who = EXCLUDED.who, machine = EXCLUDED.machine,"
    " pid = EXCLUDED.pid, backend = EXCLUDED.backend"
)
# A lock of one 64-bit key is shown as two halves, and `objsubid` 1.
_WHO: LiteralString = (
    "SELECT who, machine, holders.pid FROM pg_catalog.pg_locks AS held"
    " LEFT JOIN handrail.holders ON key = %(key)s AND backend = held.pid"
    " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_catalog.pg_database"
    "     WHERE datname = pg_catalog.current_database())"
    " AND (classid::bigint << 32) | objid::bigint = %(key)s"
)


class PostgresLocks:
    """`ports.Locks` in the database of the journal."""

    def __init__(self, link: Link, clock: Clock) -> None:
        """Connect to nothing yet."""
        self._link = link
        self._clock = clock

    @contextmanager
    def hold(self, resource: str, who: str) -> Iterator[None]:
        """Hold `resource` for the time of a `with`; see `ports.Locks`."""
        with closing(self._taken(resource, who)) as session:
            try:
                yield
            finally:
                # Closing alone releases it too, a moment later.
                with suppress(psycopg.Error):
                    session.execute(_RELEASE, (_key(resource),))

    def holder(self, resource: str) -> str | None:
        """Return who holds `resource` now; see `ports.Locks`."""
        return self._link.attempt(lambda session: _holder(session, resource))[0]

    def _taken(self, resource: str, who: str) -> Bounded:
        """Return the connection that holds the lock."""
        try:
            session = self._link.connect()
        except psycopg.Error as error:
            raise _unusable(resource, self._link, error) from None
        try:
            schema.ensure(session, time_text(self._clock.now()))
            _take(session, resource, who)
        except psycopg.Error as error:
            session.close()
            raise _unusable(resource, self._link, error) from None
        except BaseException:
            session.close()
            raise
        return session


def _take(session: Bounded, resource: str, who: str) -> None:
    key = _key(resource)
    if session.execute(_TRY, (key,)).fetchone() != (True,):
        raise _held(resource, *_holder(session, resource))
    session.execute(_SAY, (key, resource, who, socket.gethostname(), os.getpid()))


def _key(resource: str) -> int:
    """Return the lock's number: 63 bits of a hash, so that no halves have a sign."""
    return int(sha256(resource)[:16], 16) >> 1


def _holder(session: Bounded, resource: str) -> tuple[str | None, str]:
    """Return who holds a lock, and from where, as far as the row tells."""
    if not schema.is_made(session):
        return None, ""
    row: tuple[Any, ...] | None = session.execute(_WHO, {"key": _key(resource)}).fetchone()
    if row is None:
        return None, ""
    who, machine, pid = row
    # The holder has not written it yet.
    return ("somebody", "") if who is None else (who, f" (process {pid} on {machine})")


def _held(resource: str, who: str | None, where: str) -> RefusedError:
    return RefusedError(
        "run.locked",
        f"`{resource}` is held by {who or 'somebody'}{where}",
        hint="wait until that has ended; `handrail runs` shows what it is doing",
    )


def _unusable(resource: str, link: Link, error: psycopg.Error) -> RefusedError:
    return RefusedError(
        "run.locked",
        f"`{resource}` cannot be locked: {link.translated(error).message}",
        hint="nothing is done without the lock; look at the server: pg_isready",
    )
