"""A look inside an open transaction: an ordinary client reads the catalogs as it sees them.

Rules:
- The client comes from this process alone, by a secret of this look, and speaks to the very
  connection of the session; nothing else is under way on it.
- A savepoint surrounds the look: whatever it set is taken back.
- Where it cannot be done, nobody knows what was done: that is refused.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from handrail.errors import HandrailError
from handrail.plans.effect import Effect
from handrail.wire.postgres import clients, frames
from handrail.wire.postgres.gate import GateError
from handrail.wire.postgres.pipe import Pipe

if TYPE_CHECKING:
    from handrail.wire.postgres.link import Link
    from handrail.wire.postgres.rules import Look, Rules

_BEGIN = "SAVEPOINT handrail_look; SET LOCAL client_encoding = 'UTF8'"
_END = "ROLLBACK TO SAVEPOINT handrail_look; RELEASE SAVEPOINT handrail_look"
_LONGEST_S = 60
# What a client asks of a server before it believes that it is one.
_TOLD = (
    "server_version",
    "server_encoding",
    "standard_conforming_strings",
    "integer_datetimes",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "is_superuser",
)


async def look_inside(link: Link, rules: Rules, database: str) -> tuple[Effect, ...]:
    """Return all that is not rows and that the run has done so far, the open transaction's too.

    Raises:
        GateError: it could not be read.
    """
    if rules.look is None or database != rules.database:
        return (rules.unseen("database", database, "what it held before was not observed"),)
    answer = await link.ask(frames.query(_BEGIN))
    if answer.error is not None:
        raise GateError(answer.error.message)
    try:
        return await asyncio.wait_for(_looked(link, rules.look), _LONGEST_S)
    except (HandrailError, OSError, TimeoutError) as error:
        raise GateError(f"its catalogs could not be read: {error}") from error
    finally:
        link.raw = None
        if not link.closed:
            await link.ask(frames.query(_END))


async def _looked(link: Link, look: Look) -> tuple[Effect, ...]:
    loop = asyncio.get_running_loop()
    secret = clients.Secret(frozenset({"handrail"}), secrets.token_hex(16))
    arrived: list[asyncio.Task[None]] = []

    def accept() -> Pipe:
        return Pipe(lambda opened: arrived.append(loop.create_task(_let_in(opened, secret, link))))

    server = await loop.create_server(accept, "127.0.0.1", 0, backlog=1)
    port = server.sockets[0].getsockname()[1]
    conninfo = (
        f"host=127.0.0.1 port={port} user=handrail password={secret.password}"
        f" dbname=handrail sslmode=disable gssencmode=disable connect_timeout=10"
    )
    try:
        return await loop.run_in_executor(None, look, conninfo)
    finally:
        server.close()
        for task in arrived:
            task.cancel()


async def _let_in(pipe: Pipe, secret: clients.Secret, link: Link) -> None:
    """Let the client of this look speak to the session's server."""
    greeted = await clients.greet(pipe, secret, None)
    if not isinstance(greeted, clients.Client):
        pipe.transport.close()
        return
    told = {name: link.statuses[name] for name in _TOLD if name in link.statuses}
    told["client_encoding"] = "UTF8"
    hello = clients.ok() + b"".join(clients.status(n, v) for n, v in told.items())
    hello += clients.key_data(0, b"\0" * 4) + clients.ready(ord("T"))
    link.raw = pipe.transport
    pipe.transport.set_protocol(_Inside(link))
    pipe.transport.write(hello)
    pipe.transport.resume_reading()


class _Inside(asyncio.Protocol):
    """Passes what the look asks to the server."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._splitter = frames.Splitter()

    def data_received(self, data: bytes) -> None:
        for item in self._splitter.feed(data):
            if item.kind != ord("X"):
                self._link.transport.write(item.data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._link.raw = None
