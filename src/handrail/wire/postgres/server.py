"""Where a store's PostgreSQL server is, and how to get in: libpq's parameters as a value.

Rules:
- Its text never has a password in it.
- A setting that demands more than the guard can give refuses; it is not passed over.
- `target_session_attrs` and `load_balance_hosts` are not followed: the address is a store's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import conninfo

from handrail.errors import StoreError

_DEFAULT_PORT = 5432
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_BINDINGS = ("disable", "prefer", "require")
# What libpq can be told to insist on and a guard cannot: where it is asked for, nobody gets in.
_IMPOSSIBLE = {
    "gssencmode": {"require"},
    "sslcertmode": {"require"},
    "min_protocol_version": {"3.2", "latest"},
}


@dataclass(frozen=True)
class Place:
    """One address of a server.

    Attributes:
        host: its name, or the directory of its socket; what a certificate is compared with.
        port: its port, part of a socket's name too.
        address: its IP address where it is known; empty: the name is looked up.
    """

    host: str
    port: int = _DEFAULT_PORT
    address: str = ""

    @property
    def socket(self) -> str:
        """Path of its Unix socket; empty where it is reached by network."""
        if self.address or not self.host.startswith(("/", "@")):
            return ""
        return f"{self.host}/.s.PGSQL.{self.port}"

    def __str__(self) -> str:
        return self.socket or f"{self.host or self.address}:{self.port}"


@dataclass(frozen=True)
class Server:
    """A server, a database on it, and who asks.

    Attributes:
        places: in the order in which they are tried.
        given: libpq's other parameters, such as `sslmode` and `sslrootcert`.
    """

    places: tuple[Place, ...]
    user: str
    database: str
    password: str = field(default="", repr=False)
    given: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def sslmode(self) -> str:
        """How encrypted the connection has to be; one of libpq's words."""
        full = self.given.get("sslrootcert") == "system"
        return self.given.get("sslmode") or ("verify-full" if full else "prefer")

    @property
    def channel_binding(self) -> str:
        """Whether the password's proof is bound to the TLS connection."""
        return self.given.get("channel_binding") or "prefer"


def read_server(url: str) -> Server:
    """Return what a libpq URI or conninfo string says; nothing of it is looked up elsewhere.

    Raises:
        StoreError: it cannot be read, names no host or user, or asks for what a guard cannot do.
            The text is not repeated: it may hold a password.
    """
    try:
        found = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        raise _unusable("the PostgreSQL address cannot be read") from None
    given = {name: str(value) for name, value in found.items() if value is not None}
    user = given.pop("user", "")
    if not user:
        raise _unusable("the PostgreSQL address names no user")
    places = _places(given)
    password, database = given.pop("password", ""), given.pop("dbname", user)
    server = Server(places, user, database, password, given)
    _check(server)
    return server


def _places(given: dict[str, str]) -> tuple[Place, ...]:
    hosts, addresses, ports = (
        given.pop(name, "").split(",") for name in ("host", "hostaddr", "port")
    )
    count = max(len(hosts), len(addresses))
    if hosts == [""] and addresses == [""]:
        raise _unusable("the PostgreSQL address names no host")
    if count > 1 and any(len(words) not in {1, count} for words in (hosts, addresses, ports)):
        raise _unusable("the PostgreSQL address has not as many ports as hosts")
    hosts, addresses, ports = (
        words * count if len(words) == 1 else words for words in (hosts, addresses, ports)
    )
    try:
        return tuple(
            Place(host, int(port or _DEFAULT_PORT), address)
            for host, address, port in zip(hosts, addresses, ports, strict=True)
        )
    except ValueError:
        raise _unusable("the PostgreSQL address has a port that is no number") from None


def _check(server: Server) -> None:
    """Refuse what is misspelt, and what cannot be done."""
    if server.sslmode not in _SSL_MODES or server.channel_binding not in _BINDINGS:
        raise _unusable("the PostgreSQL address has an unknown sslmode or channel_binding")
    if is_direct(server) and server.sslmode not in {"require", "verify-ca", "verify-full"}:
        raise _unusable("sslnegotiation=direct needs sslmode=require or more")
    for name, values in _IMPOSSIBLE.items():
        if server.given.get(name) in values:
            raise _unusable(f"a guard cannot do {name}={server.given[name]}")


def is_direct(server: Server) -> bool:
    """Whether TLS begins at once, without being asked for."""
    return server.given.get("sslnegotiation") == "direct"


def reached(place: Place, address: str) -> Place:
    """Return a place whose name has been looked up."""
    return replace(place, address=address)


def _unusable(what: str) -> StoreError:
    return StoreError("store.url", what, hint="write it as postgresql://user@host:5432/database")
