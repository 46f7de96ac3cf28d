"""One connection to the journal's server, made anew where it broke.

Rules:
- Work is tried again, within a patience, where the server went away, restarts, or is no longer the
  primary: a restart or a failover that is short is not seen.
- Before work is tried again whose outcome nobody knows, the old server process is ended: nothing of
  it arrives late.
- An answer is waited for no longer than the patience; then the connection is given up.
- The address holds a password: it is in no error and in no record.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo, errors

from handrail.errors import JournalError, UsageError

T = TypeVar("T")
APPLICATION = "handrail journal"
_SCHEMES = ("postgres://", "postgresql://")
_CONNECT_TIMEOUT_S, _SHORTEST_CONNECT_S = 10, 2
# The server is given the patience, and then some time to say that it is over.
_ANSWER_TIMES = 1.5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_ENDING_S = 5.0
# The server ends a transaction of ours that stands still: it holds up every other writer.
_IDLE_S = 60
_SETTINGS = {
    "search_path": "",
    "default_transaction_isolation": "read committed",
    "client_min_messages": "warning",
    "idle_in_transaction_session_timeout": f"{_IDLE_S}s",
    # A machine that is cut off loses its locks in half a minute, not in two hours.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
}
# A commit is on the disk when it returns, whatever the role's own setting says.
_DURABLE = (
    "SELECT pg_catalog.set_config('synchronous_commit', 'on', false)"
    " WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local')"
)
_WARNING = "01000"
_MYSELF = (
    "SELECT pid, backend_start::text, pg_catalog.pg_is_in_recovery()"
    " FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()"
)
_END = (
    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
    " WHERE pid = %s AND backend_start::text = %s"
)


class Bounded(psycopg.Connection[tuple[Any, ...]]):
    """A connection that waits no longer than `patience_s` for an answer.

    Attributes:
        patience_s: None while it is being set up.
        quick: a cursor that is there already; one a statement costs as much as the statement.
        warned: whether the server warned of something since this was last set to False: at a COMMIT
            it warns where somebody cancelled its waiting for the synchronous standby.
    """

    patience_s: float | None = None
    warned = False
    quick: psycopg.Cursor[tuple[Any, ...]]

    def hear(self, notice: psycopg.errors.Diagnostic) -> None:
        """Note a warning. One of another class is of the connection's end, which is noticed."""
        self.warned |= notice.sqlstate == _WARNING

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait as psycopg does, but not for ever."""
        return super().wait(gen, interval, timeout or self.patience_s)


class Link:
    """The connection, while it lasts.

    Attributes:
        secrets: what must never be shown of the address.
    """

    def __init__(self, url: str, patience_s: float = 20.0) -> None:
        """Connect to nothing yet.

        Raises:
            UsageError: the address cannot be read. It is not repeated: it may hold a password.
        """
        try:
            # Not `host=... dbname=...`: a path that was meant for a file would be taken for one.
            given = conninfo.conninfo_to_dict(url) if url.startswith(_SCHEMES) else {}
        except psycopg.Error:
            given = {}
        if not given:
            raise UsageError(
                "usage",
                "the address in HANDRAIL_JOURNAL cannot be read",
                hint="write it as postgres://user@host:5432/database",
            )
        self._given = {key: str(value) for key, value in given.items() if value is not None}
        self._patience_s = patience_s
        self._session: Bounded | None = None
        self._old: list[tuple[int, str]] = []
        self._myself: tuple[int, str] | None = None
        self.secrets = tuple(
            self._given[key] for key in ("password", "sslpassword") if self._given.get(key)
        )

    def __str__(self) -> str:
        host = self._given.get("host") or self._given.get("service") or "the default host"
        return f"{self._given.get('dbname', 'the default database')} at {host}"

    def attempt(
        self, work: Callable[[Bounded], T], is_unknown: Callable[[], bool] = lambda: False
    ) -> T:
        """Return what `work` does, tried again within the patience where the connection is lost.

        Args:
            work: on a session outside of a transaction. When it is called again, the server
                process that did the last attempt has ended.
            is_unknown: whether a commit may have been asked for: an error is `journal.unknown`.

        Raises:
            JournalError: the server cannot be reached for longer than the patience, or refuses.
        """
        until = time.monotonic() + self._patience_s
        pause_s = _FIRST_PAUSE_S
        was_unknown = False
        while True:
            try:
                return work(self._opened())
            except psycopg.Error as error:
                self._give_up()
                unknown = is_unknown() and _may_hide(error)
                if unknown and not was_unknown:
                    # The patience may be over by now; finding out is worth some more.
                    was_unknown = True
                    until = time.monotonic() + self._patience_s
                if not is_lost(error) or time.monotonic() + pause_s > until:
                    raise self._translated(error, unknown=unknown) from None
            except BaseException:
                # Ctrl-C in the middle of a transaction: nobody knows how far it came.
                self._give_up()
                raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def connect(self) -> Bounded:
        """Return a connection of its own, with the settings of all of them."""
        connect_s = min(_CONNECT_TIMEOUT_S, max(_SHORTEST_CONNECT_S, int(self._patience_s)))
        given = {"connect_timeout": str(connect_s), **self._given}
        given |= {"application_name": APPLICATION, "tcp_user_timeout": "30000"}
        given["client_encoding"] = "utf8"
        session = Bounded.connect(conninfo.make_conninfo("", **given), autocommit=True)
        try:
            session.prepare_threshold = 1
            session.quick = session.cursor()
            session.patience_s = self._patience_s * _ANSWER_TIMES
            session.add_notice_handler(session.hear)
            wait_ms = str(int(self._patience_s * 1000))
            settings = _SETTINGS | {"statement_timeout": wait_ms, "lock_timeout": wait_ms}
            calls = ", ".join(["pg_catalog.set_config(%s, %s, false)"] * len(settings))
            values = [word for pair in settings.items() for word in pair]
            session.execute(f"SELECT {calls}".encode(), values, prepare=False)
            session.execute(_DURABLE, prepare=False)
        except BaseException:
            session.close()
            raise
        return session

    def close(self) -> None:
        """Let go of the connection; the next attempt makes another."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def translated(self, error: psycopg.Error) -> JournalError:
        """Return what an error means where nothing was to be written."""
        return self._translated(error, unknown=False)

    def _opened(self) -> Bounded:
        if self._session is None:
            session = self.connect()
            try:
                self._end_old(session)
                self._myself = _who(session)
            except BaseException:
                session.close()
                raise
            self._session = session
        return self._session

    def _end_old(self, session: Bounded) -> None:
        """End the server processes of connections that were lost, and wait until they have."""
        until = time.monotonic() + min(_ENDING_S, self._patience_s)
        for old in tuple(self._old):
            while session.execute(_END, old, prepare=False).fetchone() is not None:
                if time.monotonic() > until:
                    raise psycopg.OperationalError("the server does not end a connection's work")
                time.sleep(_FIRST_PAUSE_S)
            self._old.remove(old)

    def _give_up(self) -> None:
        if self._session is not None:
            if self._myself is not None:
                self._old.append(self._myself)
            self._session.close()
            self._session = self._myself = None

    def _translated(self, error: psycopg.Error, *, unknown: bool) -> JournalError:
        said = self._clean(error)
        if unknown:
            return JournalError(
                "journal.unknown",
                f"nobody knows whether a record was kept in {self}: {said}",
                hint="when the server answers again, the journal is read before anything else",
            )
        hint = "nothing is done without the journal; look at the server: pg_isready"
        for kind, better in _HINTS:
            if isinstance(error, kind):
                hint = better
        return JournalError(
            "journal.unwritable", f"the journal in {self} cannot be used: {said}", hint=hint
        )

    def _clean(self, error: psycopg.Error) -> str:
        text = " ".join((error.diag.message_primary or str(error) or type(error).__name__).split())
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


_HINTS: tuple[tuple[type[psycopg.Error], str], ...] = (
    (errors.DiskFull, "free some space on the server, then repeat the command"),
    (errors.LockNotAvailable, "another process is writing to it: wait for that, then repeat"),
    (errors.QueryCanceled, "the server is slow: try again"),
    (
        errors.InsufficientPrivilege,
        "GRANT CREATE ON DATABASE to this role, or use the schema's owner",
    ),
    (errors.ReadOnlySqlTransaction, "use the primary: target_session_attrs=read-write"),
    (errors.InvalidPassword, "check the user and the password"),
    (errors.InvalidCatalogName, "check the database's name"),
)
# Classes and codes of errors after which another connection may do better: connection exceptions,
# the server's shutdown, recovery and timeouts, a standby, all connections in use.
_LOST = ("08", "57P", "25P03", "25006", "53300")
_REFUSED = (
    "password authentication failed",
    "no password supplied",
    "pg_hba.conf",
    "does not exist",
    "is not permitted to log in",
    "permission denied",
)


def _who(session: Bounded) -> tuple[int, str]:
    """Return how to tell this connection's server process from all others."""
    row = session.execute(_MYSELF, prepare=False).fetchone()
    if row is None:
        raise psycopg.OperationalError("the server does not know this connection")
    pid, since, is_standby = row
    if is_standby:
        # What it has not replayed yet would be taken for what was never written.
        raise errors.ReadOnlySqlTransaction("the server is a standby")
    return pid, since


def _may_hide(error: psycopg.Error) -> bool:
    """Whether a commit may have been made although this is what was heard of it.

    An error that the server itself answers with is one of a transaction that it rolled back; but
    for those that end the connection.
    """
    return not error.sqlstate or error.sqlstate.startswith(("08", "57P"))


def is_lost(error: psycopg.Error) -> bool:
    """Whether the connection is to blame, or the server's present state, and not what was asked."""
    if error.sqlstate:
        return error.sqlstate.startswith(_LOST)
    # Connecting has no state: the server's text is all there is.
    text = str(error)
    return isinstance(error, psycopg.OperationalError) and not any(s in text for s in _REFUSED)
