"""A Redis guard before a real server, and clients that speak to it in plain bytes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handrail.plans.holding import Event, Limits, Report
from handrail.ports import Connection, StoreGuard
from handrail.wire import redis as wire
from handrail.wire.redis.replies import Reply, advance, decode
from handrail.wire.redis.requests import encode
from support.redis_server import RedisServer

RESOURCE = "store/cache"
PATIENCE_S = 20.0


class GuardedStore:
    """As much of a store as a guard needs: where the server is."""

    resource = RESOURCE
    kind = "redis"

    def __init__(self, url: str, database: int = 0) -> None:
        self.url = url
        self.database = database

    def connection(self) -> Connection:
        return Connection({}, {"url": self.url, "database": str(self.database)})


def words(*arguments: bytes | str | int) -> tuple[bytes, ...]:
    """Return arguments as bytes."""
    return tuple(a if isinstance(a, bytes) else str(a).encode() for a in arguments)


def encoded(*arguments: bytes | str | int) -> bytes:
    """Return a command as clients send it."""
    return encode(*words(*arguments))


class Client:
    """A connection that sends bytes and reads replies, without any library between."""

    def __init__(self, host: str, port: int, user: str = "", password: str = "") -> None:
        self.socket = socket.create_connection((host, port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""
        if password:
            asked = (user, password) if user else (password,)
            assert self.ask("AUTH", *asked) == b"OK"

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def raw(self) -> bytes:
        """Return the bytes of the next reply (or push)."""
        left, skip, at = 1, 0, 0
        while True:
            at, left, skip = advance(self._data, at, left, skip, is_new=not at)
            if not left:
                frame, self._data = self._data[:at], self._data[at:]
                return frame
            more = self.socket.recv(65536)
            if not more:
                raise EOFError(self._data)
            self._data += more

    def reply(self) -> Reply:
        return decode(self.raw())

    def ask(self, *arguments: bytes | str | int) -> Reply:
        self.send(encoded(*arguments))
        return self.reply()

    def is_closed(self) -> bool:
        """Whether the other side has closed; waits until it has, or says something."""
        if self._data:
            return False
        self._data = self.socket.recv(65536)
        return not self._data

    def close(self) -> None:
        self.socket.close()


@dataclass
class Guarded:
    """A guard that is open."""

    guard: StoreGuard
    server: RedisServer
    events: list[Event] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    def client(self, protocol: int = 2) -> Client:
        """Return a client that has shown the secret."""
        parts = self.guard.connection().parts
        client = Client(parts["host"], int(parts["port"]), parts["user"], parts["password"])
        self.clients.append(client)
        if protocol == 3:
            client.ask("HELLO", 3)
        return client

    def stranger(self) -> Client:
        """Return a client that has not."""
        parts = self.guard.connection().parts
        client = Client(parts["host"], int(parts["port"]))
        self.clients.append(client)
        return client

    def report(self) -> Report:
        return self.guard.settle()

    def amounts(self) -> dict[tuple[str, str, str], int | None]:
        """Return what was done, by verb, kind and name."""
        return {(e.verb, e.kind, e.name): e.rows for e in self.report().effects}

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@contextmanager
def guarding(
    server: RedisServer, limits: Limits, folder: Path, *, url: str = "", database: int = 0
) -> Iterator[Guarded]:
    """Open a guard; its clients are closed with it."""
    events: list[Event] = []
    store: Any = GuardedStore(url or server.url, database)
    with wire.guarded(store, limits, folder, events.append) as guard:
        run = Guarded(guard, server, events)
        try:
            yield run
        finally:
            for client in run.clients:
                client.close()


@contextmanager
def direct(server: RedisServer, protocol: int = 2) -> Iterator[Client]:
    """Give a client of the server itself."""
    with closing(Client(server.host, server.port, "", server.password)) as client:
        if protocol == 3:
            client.ask("HELLO", 3)
        yield client
