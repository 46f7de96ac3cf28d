"""The guard itself: lets the script's clients in, opens the server's side, and settles at the end.

Rules:
- The real credentials stay in this process; what the script gets is valid here, and for this run.
- Everything of it runs in one loop in one thread; what is left open is closed when it ends.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from handrail.errors import StoreError
from handrail.plans.holding import Report
from handrail.ports import Asks, Connection, Store
from handrail.wire.ledger import Ledger
from handrail.wire.redis import catalog, limited
from handrail.wire.redis.judging import Judge
from handrail.wire.redis.line import Line
from handrail.wire.redis.replies import Reply
from handrail.wire.redis.requests import Requests
from handrail.wire.redis.server import Control, Server, open_control, read_server
from handrail.wire.redis.session import Session
from handrail.wire.serving import Loop

HOST = "127.0.0.1"
USER = "handrail"
SETTLING_S = 10.0
MOST_SESSIONS = 4000
_HOW = {"observe": "observed only", "read-only": "read only"}
_DATABASES = 16


@dataclass
class _Open:
    """What is open as long as the guard is."""

    judge: Judge
    server: Server
    control: Control
    own: Control | None = None
    sessions: set[Line] = field(default_factory=set)


class RedisGuard:
    """`ports.StoreGuard` over one Redis server.

    Args:
        store: has the real credentials.
        ledger: what the run is held to, and counts.
        folder: where large requests and replies wait.
        hear: hears the run's events; it is asked where it can be (`ports.Asks`).

    Raises:
        StoreError: the server does not answer, or cannot be guarded.
    """

    def __init__(self, store: Store, ledger: Ledger, folder: Path, hear: object = None) -> None:
        self._resource = store.resource
        self._ledger = ledger
        self._folder = folder
        self._asks = hear if isinstance(hear, Asks) else None
        self._real = store.connection()
        self._server = read_server(self._real.parts)
        self._password = secrets.token_hex(16)
        self._report: Report | None = None
        self._loop = Loop("handrail-guard-redis")
        try:
            self._open = self._loop.run(self._begin())
            self._listener, self._port = self._loop.run(self._listen())
        except BaseException:
            self._loop.stop()
            raise

    # --- the port ------------------------------------------------------------------------------

    def connection(self) -> Connection:
        """Return the guard's own address, with the secret of this run."""
        database = self._real.parts.get("database") or "0"
        url = f"redis://{USER}:{self._password}@{HOST}:{self._port}/{database}"
        parts = {
            "url": url,
            "host": HOST,
            "port": str(self._port),
            "user": USER,
            "password": self._password,
            "database": database,
        }
        environment = {
            "DATABASE_URL": url,
            "REDIS_URL": url,
            "REDIS_HOST": HOST,
            "REDIS_PORT": str(self._port),
            "REDIS_USERNAME": USER,
            "REDIS_PASSWORD": self._password,
            "REDISCLI_AUTH": self._password,
            "REDIS_DB": database,
        }
        return Connection(
            environment=environment,
            parts=parts,
            sockets=((HOST, self._port),),
            secrets=(self._password, url),
        )

    def settle(self) -> Report:
        """Say what was done, once nobody is connected any more."""
        if self._report is None:
            self._loop.run(self._end())
            ledger = self._ledger
            self._report = Report(
                resource=self._resource,
                how=_HOW.get(ledger.limits.mode, "before each command"),
                effects=ledger.effects,
                stop=ledger.stop,
                events=ledger.events,
                trace=ledger.trace,
                unheld=ledger.unheld,
                kept=ledger.kept,
                role=ledger.limits.role,
            )
        return self._report

    def halt(self, elsewhere: str) -> None:
        """Refuse everything from now on: the run was stopped at another store."""
        self._ledger.halt(elsewhere)

    def close(self) -> None:
        """End everything. Twice equals once."""
        try:
            self.settle()
        finally:
            self._loop.stop()

    # --- for the sessions ----------------------------------------------------------------------

    @property
    def judge(self) -> Judge:
        """What all sessions share."""
        return self._open.judge

    def is_secret(self, user: bytes, password: bytes) -> bool:
        """Whether a client shows this run's secret; which user it names does not matter much."""
        known = {b"", b"default", USER.encode(), self._server.user.encode()}
        matches = hmac.compare_digest(password, self._password.encode())
        return matches and user in known

    async def connect(self, line: Line) -> asyncio.Transport:
        """Open the server's side of a line."""
        return await self._open.server.connect(line.link)

    def sign_in(self) -> Sequence[Sequence[bytes]]:
        """Return the commands that sign a session in."""
        return self._open.server.sign_in()

    def left(self, line: Line) -> None:
        """Take note that a line has ended."""
        self._open.sessions.discard(line)

    # --- beginning and end ---------------------------------------------------------------------

    async def _begin(self) -> _Open:
        control = await open_control(self._server, self._resource)
        try:
            judge = await self._judge_of(control)
            server, own = self._server, None
            if self._ledger.limits.role == "limited":
                server = await limited.make(control, server, self._ledger.limits)
                own = await open_control(server, self._resource)
            return _Open(judge, server, control, own)
        except BaseException:
            control.close()
            raise

    async def _judge_of(self, control: Control) -> Judge:
        commands, databases = await control.ask((b"COMMAND",), (b"CONFIG", b"GET", b"databases"))
        if not isinstance(commands, list):
            raise StoreError(
                "store.denied",
                f"`{self._resource}` does not tell its commands, so that none can be judged",
                hint="allow the store's user `+command`",
            )
        return Judge(catalog.read(commands), self._ledger, _number(databases), self._asks)

    async def _listen(self) -> tuple[asyncio.Server, int]:
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(self._let_in, HOST, 0, backlog=512)
        return listener, int(listener.sockets[0].getsockname()[1])

    def _let_in(self) -> asyncio.Protocol:
        if len(self._open.sessions) >= MOST_SESSIONS:
            return _Full()
        session = Session(self, Requests(self._folder))
        self._open.sessions.add(session)
        return session

    async def _end(self) -> None:
        """Let nobody in any more; wait for what is under way, then cut it off."""
        self._listener.close()
        self._open.judge.is_over = True
        waiting = [session.leave() for session in tuple(self._open.sessions)]
        if waiting:
            await asyncio.wait(waiting, timeout=SETTLING_S)
        for session in tuple(self._open.sessions):
            session.cut()
        opened = self._open
        if opened.own is not None:
            opened.own.close()
            try:
                await limited.remove(opened.control, opened.server.user)
            except OSError as error:
                self._ledger.tell("bypass", f"user {opened.server.user} was left over: {error}")
        opened.control.close()


class _Full(asyncio.Protocol):
    """One client too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        client = cast("asyncio.Transport", transport)
        client.write(b"-ERR max number of clients reached\r\n")
        client.close()


def _number(told: Reply) -> int:
    if isinstance(told, list) and len(told) > 1 and isinstance(told[1], bytes):
        return int(told[1])
    return _DATABASES
