"""Reach a server: read its address, open connections to it, and translate what goes wrong.

Rules:
- An address is a libpq URI or conninfo string; `service=NAME` and PG* variables work as in psql.
- A password is never in an error, a log or an argument list; programs get it by environment.
- Every connection has a connect timeout and asks for no lock longer than `LOCK_TIMEOUT_S`: we never
  queue in front of production.
- Settings are made with `SET LOCAL` only: behind a pooler the server connection outlives us.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString
from urllib.parse import quote

import psycopg
from psycopg import conninfo, errors

from handrail.errors import StoreError

CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 5
LOOK_TIMEOUT_S = 60
APPLICATION = "handrail"
SCRIPT_APPLICATION = "handrail-script"

Session = psycopg.Connection[tuple[Any, ...]]

# libpq's parameters and the variables by which its programs take them.
VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "passfile": "PGPASSFILE",
    "service": "PGSERVICE",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "channel_binding": "PGCHANNELBINDING",
    "require_auth": "PGREQUIREAUTH",
    "gssencmode": "PGGSSENCMODE",
    "krbsrvname": "PGKRBSRVNAME",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "client_encoding": "PGCLIENTENCODING",
}
# What makes `row::text` and our own texts the same whoever asks.
STABLE_SETTINGS = {
    "search_path": "",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "row_security": "off",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
}


@dataclass(frozen=True)
class Address:
    """Where a database is, as libpq's own parameters. Its text has no password in it."""

    parameters: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        host = self.parameters.get("host") or self.parameters.get("service") or "the default host"
        port = self.parameters.get("port", "")
        return f"{host}:{port}" if port else host

    @property
    def database(self) -> str:
        """The database's name; empty when libpq is to choose it."""
        return self.parameters.get("dbname", "")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        return tuple(
            v for k, v in self.parameters.items() if k in {"password", "sslpassword"} and v
        )

    def on(self, database: str) -> Address:
        """Return the address of another database of the same server."""
        return Address({**self.parameters, "dbname": database})

    def environment(self) -> dict[str, str]:
        """Return the variables that make libpq's programs connect here."""
        return {VARIABLES[key]: value for key, value in self.parameters.items() if key in VARIABLES}

    def url(self) -> str:
        """Return it as a libpq URI, secrets included."""
        given = self.parameters
        user = quote(given.get("user", ""), safe="")
        if "password" in given:
            user += ":" + quote(given["password"], safe="")
        host, port = given.get("host", ""), given.get("port", "")
        in_path = not host.startswith(("/", "@")) and "," not in host
        place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
        rest = {k: v for k, v in given.items() if k not in {"user", "password", "dbname"}}
        if in_path:
            rest = {k: v for k, v in rest.items() if k not in {"host", "port"}}
        query = "&".join(f"{k}={quote(v, safe='')}" for k, v in sorted(rest.items()))
        head = f"{user}@" if user else ""
        name = quote(given.get("dbname", ""), safe="")
        return f"postgresql://{head}{place if in_path else ''}/{name}" + (
            f"?{query}" if query else ""
        )


def read_address(text: str) -> Address:
    """Return the address that a URI or conninfo string says.

    Raises:
        StoreError: it cannot be read. The text is not repeated: it may hold a password.
    """
    try:
        found = conninfo.conninfo_to_dict(text)
    except psycopg.Error:
        raise StoreError(
            "store.url",
            "the PostgreSQL address cannot be read",
            hint="write it as postgresql://user@host:5432/database, or host=... dbname=...",
        ) from None
    return Address({key: str(value) for key, value in found.items() if value is not None})


def connect(address: Address, *, autocommit: bool = False) -> Session:
    """Return an open connection.

    Raises:
        StoreError: the server does not answer in time, or refuses.
    """
    given = {"connect_timeout": str(CONNECT_TIMEOUT_S), **address.parameters}
    given |= {"application_name": APPLICATION, "tcp_user_timeout": "60000"}
    given["client_encoding"] = "utf8"
    with translated(address):
        return psycopg.connect(
            conninfo.make_conninfo("", **given), autocommit=autocommit, prepare_threshold=None
        )


@contextmanager
def reading(
    address: Address,
    timeout_s: float = LOOK_TIMEOUT_S,
    settings: Mapping[str, str] = STABLE_SETTINGS,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> Iterator[Session]:
    """Give one read-only snapshot of a database; a statement of more than `timeout_s` is ended.

    `timeout_s` 0 is no limit: for reading all of a large table.
    """
    with translated(address), connect(address) as session:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        session.read_only = True
        settle(session, {**settings, **limits(timeout_s, lock_timeout_s)})
        yield session
        # Not a rollback: those are counted, and effects are read from the counters.
        session.commit()


def limits(timeout_s: float, lock_timeout_s: float = LOCK_TIMEOUT_S) -> dict[str, str]:
    """Return the settings that end what takes too long; a statement's 0 is no limit."""
    return {
        "statement_timeout": str(int(timeout_s * 1000)),
        "lock_timeout": str(int(lock_timeout_s * 1000)),
        "idle_in_transaction_session_timeout": "0",
    }


def settle(session: Session, wanted: Mapping[str, str]) -> None:
    """Make settings for the present transaction alone."""
    calls = ", ".join(["pg_catalog.set_config(%s, %s, true)"] * len(wanted))
    values = [word for pair in wanted.items() for word in pair]
    session.execute(f"SELECT {calls}".encode(), values)


@contextmanager
def administering(address: Address) -> Iterator[Session]:
    """Give a connection without a transaction, for what PostgreSQL refuses inside of one.

    It keeps the role's own `search_path`: say `pg_catalog.` wherever it is used.
    """
    with translated(address), connect(address, autocommit=True) as session:
        yield session


def administrative(address: Address) -> Address:
    """Return the address of a database of the same server that is surely not the target."""
    for name in ("postgres", "template1"):
        if name != address.database:
            try:
                with connect(address.on(name)):
                    return address.on(name)
            except StoreError as error:
                if error.code not in {"store.missing", "store.denied"}:
                    raise
    return address


def rows(session: Session, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    """Return all rows of a query."""
    return session.execute(query, values or None).fetchall()


def one(session: Session, query: LiteralString, *values: object) -> Any:
    """Return the first value of the first row; None where there is no row."""
    row = session.execute(query, values or None).fetchone()
    return row[0] if row else None


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Turn what the driver raises into `StoreError`."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, address) from None if _has_secret(error, address) else error


def _has_secret(error: psycopg.Error, address: Address) -> bool:
    return any(secret in str(error) for secret in address.secrets)


# The beginning of a server's message at connecting, where no SQLSTATE reaches us.
REFUSALS = (
    ("password authentication failed", "store.denied", "check the user and the password"),
    ("no password supplied", "store.denied", "give a password, or a passfile that has it"),
    ("no pg_hba.conf entry", "store.denied", "the server's pg_hba.conf must let this machine in"),
    ("authentication failed", "store.denied", "check the user and how the server authenticates"),
    ("permission denied for database", "store.denied", "GRANT CONNECT ON DATABASE to this role"),
    ("is not permitted to log in", "store.denied", "use a role that has LOGIN"),
    (
        "not currently accepting connections",
        "store.missing",
        "it has ALLOW_CONNECTIONS false",
    ),
    ("starting up", "store.recovering", "wait until the server has started"),
    ("recovery", "store.recovering", "use the primary"),
    ("too many", "store.unreachable", "all connections are in use; try again, or raise the limit"),
)
STATES: tuple[tuple[type[psycopg.Error], str, str], ...] = (
    (errors.InvalidPassword, "store.denied", "check the user and the password"),
    (errors.InvalidCatalogName, "store.missing", "check the database's name"),
    (
        errors.InsufficientPrivilege,
        "store.denied",
        "use a role that may: its owner, for one",
    ),
    (errors.ReadOnlySqlTransaction, "store.recovering", "use the primary"),
    (errors.QueryCanceled, "store.failed", "the server is slow: try again"),
    (
        errors.LockNotAvailable,
        "store.failed",
        "another session holds a lock: try later",
    ),
    (errors.DiskFull, "store.disk-full", "free some space on the server"),
    (errors.CannotConnectNow, "store.recovering", "wait until the server has started"),
    (errors.OutOfMemory, "store.failed", "the server is out of memory"),
)


def translate(error: psycopg.Error, address: Address) -> StoreError:
    """Return the `StoreError` that says what the driver's `error` means."""
    message = _clean(error, address)
    for kind, code, hint in STATES:
        if isinstance(error, kind):
            return StoreError(code, f"PostgreSQL at {address}: {message}", hint=hint)
    if error.sqlstate and not error.sqlstate.startswith(("08", "57P")):
        hint = "the server's log says more"
        return StoreError("store.failed", f"PostgreSQL at {address}: {message}", hint=hint)
    if "database" in message and "does not exist" in message:
        return StoreError(
            "store.missing", f"PostgreSQL at {address}: {message}", hint="check the database's name"
        )
    for text, code, hint in REFUSALS:
        if text in message:
            return StoreError(code, f"PostgreSQL at {address}: {message}", hint=hint)
    return StoreError(
        "store.unreachable",
        f"PostgreSQL at {address} does not answer: {message}",
        hint="check host, port and network, and that the server runs: pg_isready",
    )


def _clean(error: psycopg.Error, address: Address) -> str:
    text = error.diag.message_primary or str(error).strip() or type(error).__name__
    text = " ".join(text.split())
    for secret in address.secrets:
        text = text.replace(secret, "***")
    return text
