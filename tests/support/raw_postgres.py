"""A client that speaks PostgreSQL's protocol byte by byte, as a driver never would.

Rules:
- It sends what a test says, whole or in halves, and reads what comes: frames, in order.
- Whatever does not answer within `PATIENCE_S` fails the test: nothing hangs.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from handrail.wire.postgres import frames as wire
from support.opening import Raw, prove, start

PATIENCE_S = 30
COPY_DONE = wire.build(b"c")
_NO_VALUES = b"\0\0"


@dataclass(frozen=True)
class Place:
    """Where a client connects to, and as whom."""

    host: str
    port: int
    user: str
    password: str
    database: str


def place(url: str) -> Place:
    """Return what an address says; of a guard, or of the server itself."""
    given = psycopg.conninfo.conninfo_to_dict(url)
    host = str(given.get("hostaddr") or given.get("host"))
    words = [str(given[name]) for name in ("user", "password", "dbname")]
    return Place(host, int(given["port"] or 0), *words)


@dataclass(frozen=True)
class Heard:
    """What came as the answer to something.

    Attributes:
        frames: letters and bodies, in order.
        closed: whether the other side ended the connection.
    """

    frames: tuple[tuple[str, bytes], ...]
    closed: bool = False

    @property
    def letters(self) -> str:
        """The letters of the frames, without the settings that the server reports."""
        return "".join(letter for letter, _ in self.frames if letter != "S")

    @property
    def errors(self) -> list[wire.Said]:
        """The errors among them."""
        return [wire.said(body) for letter, body in self.frames if letter == "E"]

    @property
    def codes(self) -> list[str]:
        """The codes of the errors."""
        return [error.code for error in self.errors]

    @property
    def tags(self) -> list[str]:
        """The tags of the commands that were done."""
        return [wire.tag(body) for letter, body in self.frames if letter == "C"]

    @property
    def rows(self) -> list[tuple[str | None, ...]]:
        """The rows."""
        return [wire.columns(body) for letter, body in self.frames if letter == "D"]


class Client:
    """A connection that is open, or about to be.

    Args:
        url: of a guard, or of the server.
        opens: whether to begin it; else the test does.
        settings: what it begins with besides user and database.
    """

    def __init__(
        self, url: str, *, opens: bool = True, settings: Mapping[str, str] | None = None
    ) -> None:
        self.place = place(url)
        there = (self.place.host, self.place.port)
        if self.place.host.startswith("/"):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(f"{self.place.host}/.s.PGSQL.{self.place.port}")
        else:
            connection = socket.create_connection(there)
        connection.settimeout(PATIENCE_S)
        self.raw = Raw(connection)
        self.pid, self.key = 0, b""
        if opens:
            self.open(settings or {})

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.socket.close()

    def open(self, settings: Mapping[str, str]) -> Heard:
        """Begin the connection; return what was said until it was ready, or closed."""
        given = {"user": self.place.user, "database": self.place.database, **settings}
        self.send(start(3 << 16, **given))
        if self.raw.socket.recv(1, socket.MSG_PEEK) == b"E":
            return self.answer()
        prove(self.raw, self.place.password)
        heard = self.answer()
        for letter, body in heard.frames:
            if letter == "K":
                self.pid, self.key = int.from_bytes(body[:4]), body[4:]
        return heard

    def send(self, *messages: bytes) -> None:
        """Send messages in one piece; one that is cut off already loses them."""
        try:
            self.raw.send(b"".join(messages))
        except (BrokenPipeError, ConnectionResetError):
            return

    def answer(self, *until: str) -> Heard:
        """Return what comes up to one of these letters, ReadyForQuery, or the end."""
        found: list[tuple[str, bytes]] = []
        while not found or found[-1][0] not in {"Z", *until}:
            try:
                letter, body = self.raw.message()
            except ConnectionResetError:
                letter, body = b"", b""
            if not letter:
                return Heard(tuple(found), closed=True)
            found.append((letter.decode("latin-1"), body))
        return Heard(tuple(found))

    def ask(self, *messages: bytes) -> Heard:
        """Send messages that end with Query, Sync or FunctionCall, and return their answer."""
        self.send(*messages)
        return self.answer()

    def query(self, sql: str | bytes) -> Heard:
        """Run a simple query; one that copies in is given nothing."""
        self.send(query(sql))
        heard = self.answer("G")
        if heard.letters.endswith("G"):
            rest = self.ask(COPY_DONE)
            return Heard(heard.frames + rest.frames, rest.closed)
        return heard

    def hang_up(self) -> None:
        """Close the connection at once, without a word."""
        self.raw.socket.close()


def query(sql: str | bytes) -> bytes:
    """Return a Query; the text may hold anything."""
    return wire.build(b"Q", (sql.encode() if isinstance(sql, str) else sql) + b"\0")


def parse(sql: str | bytes, name: str = "") -> bytes:
    """Return a Parse."""
    text = sql.encode() if isinstance(sql, str) else sql
    return wire.build(b"P", name.encode() + b"\0" + text + b"\0" + _NO_VALUES)


def bind(name: str = "", portal: str = "", values: Sequence[str] = ()) -> bytes:
    """Return a Bind of a portal to a prepared statement."""
    said = b"".join(len(v.encode()).to_bytes(4) + v.encode() for v in values)
    body = portal.encode() + b"\0" + name.encode() + b"\0" + _NO_VALUES
    return wire.build(b"B", body + len(values).to_bytes(2) + said + _NO_VALUES)


def describe(portal: str = "") -> bytes:
    """Return a Describe of a portal."""
    return wire.build(b"D", b"P" + portal.encode() + b"\0")


def execute(portal: str = "", most: int = 0) -> bytes:
    """Return an Execute; of at most so many rows."""
    return wire.build(b"E", portal.encode() + b"\0" + most.to_bytes(4))


def close(kind: str, name: str = "") -> bytes:
    """Return a Close; kind `S` a statement, `P` a portal."""
    return wire.build(b"C", kind.encode() + name.encode() + b"\0")


def extended(sql: str | bytes) -> bytes:
    """Return one statement by the extended protocol, up to Sync."""
    return parse(sql) + bind() + describe() + execute() + wire.SYNC


def copied(lines: str) -> bytes:
    """Return rows of a COPY."""
    return wire.build(b"d", lines.encode())


def call(function: int, *arguments: bytes) -> bytes:
    """Return a FunctionCall with binary arguments and a binary result."""
    said = b"".join(len(value).to_bytes(4) + value for value in arguments)
    head = function.to_bytes(4) + b"\0\1\0\1"
    return wire.build(b"F", head + len(arguments).to_bytes(2) + said + b"\0\1")


def cancel(pid: int, key: bytes) -> bytes:
    """Return a CancelRequest."""
    return (12 + len(key)).to_bytes(4) + (80877102).to_bytes(4) + pid.to_bytes(4) + key
