"""Connects to a Redis server: addresses, sessions, and its errors as ours.

Rules:
- Every reply is bytes, as RESP2 has it: keys and values are binary, and nothing is decoded.
- No command is sent twice: a connection that breaks is an error, and whoever asked decides.
- Our connections are named `handrail`, so that nobody takes them for a user's.
- An address that is handed out never has an empty user name: `redis-cli` would send it as one.
- No error has a password in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

from redis import connection as library
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from handrail.errors import StoreError

CLIENT_NAME = "handrail"
SCHEMES = ("redis://", "rediss://", "unix://")
_DEFAULT_PORT = 6379
_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 120.0
# The library's own types say less than it does.
_library: Any = library
Link: TypeAlias = Any
# Bulk strings are bytes; simple strings too; errors inside of replies are values.
Reply: TypeAlias = Any
Word: TypeAlias = bytes | str | int


@dataclass(frozen=True)
class Address:
    """Where a server is, and as whom it is reached.

    Attributes:
        scheme: `redis`, `rediss` (TLS) or `unix`.
        host: name or address; empty for a socket.
        port: 0 for a socket.
        path: of a Unix socket; empty elsewhere.
        user: empty where none is given: the server's `default`.
        password: empty where none is given.
        database: number from 0, where a script begins.
        options: of TLS and the like, as they stood in the URL.
    """

    scheme: str
    host: str
    port: int
    path: str
    user: str
    password: str
    database: int
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        place = self.path or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"{place}:{self.port}" if self.port else place

    @cached_property
    def url(self) -> str:
        """The address with its secret."""
        who = ""
        if self.password:
            user, password = quote(self.user or "default", safe=""), quote(self.password, safe="")
            who = f"{user}:{password}@"
        if self.scheme == "unix":
            more = urlencode([("db", self.database), *self.options])
            return f"unix://{who}{self.path}?{more}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        more = f"?{urlencode(self.options)}" if self.options else ""
        return f"{self.scheme}://{who}{host}:{self.port}/{self.database}{more}"

    def at_database(self, number: int) -> Address:
        """Return the same server at another database."""
        return replace(self, database=number)


def read_address(url: str) -> Address:
    """Return what `url` says.

    Raises:
        StoreError: it is no address of a Redis server.
    """
    if not url.startswith(SCHEMES):
        raise _no_address("it begins with none of redis://, rediss:// and unix://")
    try:
        found: Mapping[str, Any] = _library.parse_url(url)
    except ValueError as error:
        raise _no_address(str(error)) from error
    scheme = url.partition(":")[0]
    known = {"host", "port", "path", "username", "password", "db", "connection_class"}
    return Address(
        scheme=scheme,
        host="" if scheme == "unix" else str(found.get("host", "127.0.0.1")),
        port=0 if scheme == "unix" else int(found.get("port", _DEFAULT_PORT)),
        path=str(found.get("path", "")),
        user=str(found.get("username", "")),
        password=str(found.get("password", "")),
        database=int(found.get("db", 0)),
        options=tuple((name, str(found[name])) for name in sorted(found.keys() - known)),
    )


def _no_address(why: str) -> StoreError:
    return StoreError(
        "store.url",
        f"the address of a Redis server cannot be read: {why}",
        hint="write it as redis://user:password@host:6379/0",
    )


class Session:
    """One connection. Commands go out as they are, replies come back as bytes."""

    def __init__(self, link: Link, address: Address) -> None:
        self.link = link
        self.address = address

    def ask(self, *command: Word) -> Reply:
        """Return the reply to one command.

        Raises:
            redis.exceptions.ResponseError: the server refuses it.
        """
        self.link.send_command(*command)
        return self.link.read_response()

    def many(self, commands: Sequence[tuple[Word, ...]]) -> list[Reply]:
        """Return the replies to commands that go out together; an error reply is an item."""
        if not commands:
            return []
        self.link.send_packed_command([b"".join(map(_packed, commands))])
        return [self._reply() for _ in commands]

    def must(self, commands: Sequence[tuple[Word, ...]]) -> list[Reply]:
        """Return the replies; raise the first error once all have been read."""
        replies = self.many(commands)
        for reply in replies:
            if isinstance(reply, exceptions.ResponseError):
                raise reply
        return replies

    def may(self, *command: Word) -> Reply:
        """Return the reply, or None where the server refuses the command or does not know it."""
        reply = self.many([command])[0]
        return None if isinstance(reply, exceptions.ResponseError) else reply

    def info(self, section: str) -> dict[str, str]:
        """Return a section of INFO; empty where it may not be read."""
        text = self.may("INFO", section) or b""
        lines = text.decode("utf-8", "replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and line[0] != "#")

    def _reply(self) -> Reply:
        try:
            return self.link.read_response(disconnect_on_error=False)
        except exceptions.ResponseError as error:
            return error


def _packed(command: tuple[Word, ...]) -> bytes:
    """Return a command as it goes out: bytes as they are, text as UTF-8."""
    words = [
        word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape")
        for word in command
    ]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


@contextmanager
def connected(address: Address, timeout_s: float = _READ_TIMEOUT_S) -> Iterator[Session]:
    """Give a session at the database of `address`, for the time of a `with`.

    Raises:
        StoreError: for everything that the server or the network refuses, also inside the `with`.
    """
    with translated(address):
        link = _link(address, timeout_s)
        try:
            link.connect()
            session = Session(link, address)
            # A user without the right to it is nameless, and can do everything else.
            session.may("CLIENT", "SETNAME", CLIENT_NAME)
            # From 7.2 on, reading a key need not make it look used.
            session.may("CLIENT", "NO-TOUCH", "ON")
            yield session
        finally:
            link.disconnect()


def _link(address: Address, timeout_s: float) -> Link:
    """Return a connection that is not yet made."""
    found: dict[str, Any] = dict(_library.parse_url(address.url))
    made = found.pop("connection_class", library.Connection)
    found |= {
        "protocol": 2,
        "decode_responses": False,
        "encoding_errors": "surrogateescape",
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": _CONNECT_TIMEOUT_S,
        "socket_timeout": timeout_s,
        "health_check_interval": 0,
    }
    for option in ("max_connections", "timeout", "retry_on_timeout", "decode_responses_default"):
        found.pop(option, None)
    return made(**found)


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Turn what the library and the server raise into `StoreError`."""
    try:
        yield
    except (exceptions.AuthenticationError, exceptions.NoPermissionError) as error:
        raise StoreError(
            "store.denied",
            f"Redis at {address} refuses: {_words(error, address)}",
            hint="check user and password in its url, and what `ACL WHOAMI` may do",
        ) from error
    except exceptions.TimeoutError as error:
        raise StoreError(
            "store.unreachable",
            f"Redis at {address} does not answer in time",
            hint="a long command may block it: `redis-cli --stat`, `SLOWLOG GET`",
        ) from error
    except exceptions.BusyLoadingError as error:
        raise StoreError(
            "store.recovering", f"Redis at {address} is still loading", hint="wait, then try again"
        ) from error
    except (exceptions.ConnectionError, OSError) as error:
        raise StoreError(
            "store.unreachable",
            f"Redis at {address} does not answer: {_words(error, address)}",
            hint="check that it runs, its url, and what stands between",
        ) from error
    except exceptions.RedisError as error:
        raise _refused(error, address) from error


def _refused(error: exceptions.RedisError, address: Address) -> StoreError:
    said = _words(error, address)
    if re.match(r"NOAUTH|WRONGPASS|NOPERM|DENIED|invalid password", said):
        code, hint = "store.denied", "check user and password in its url, and the user's rights"
    elif re.match(r"READONLY|MASTERDOWN", said):
        code, hint = "store.recovering", "use the primary's address"
    elif re.match(r"MOVED|ASK|CLUSTERDOWN|CROSSSLOT", said):
        code, hint = "store.unsupported", "a Redis cluster is not supported"
    else:
        code, hint = "store.failed", "see the message"
    return StoreError(code, f"Redis at {address} refuses: {said}", hint=hint)


def _words(error: BaseException, address: Address) -> str:
    """Return an error's text on one line, without what nobody may read."""
    text = " ".join(str(error).split())[:300]
    for secret in (address.password, quote(address.password, safe="")):
        text = text.replace(secret, "***") if secret else text
    return text


def databases(session: Session) -> tuple[int, ...]:
    """Return the numbers of the databases that hold keys, from the lowest."""
    numbers = [name.removeprefix("db") for name in session.info("keyspace")]
    return tuple(sorted(int(number) for number in numbers if number.isdigit()))


def socket_folder(address: Address) -> tuple[Path, ...]:
    """Return what a script must be able to reach for a Unix socket; empty for a network."""
    return (Path(address.path).parent,) if address.path else ()
