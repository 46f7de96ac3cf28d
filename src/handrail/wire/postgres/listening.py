"""The guard itself: lets the script's clients in, opens the server's side, and settles at the end.

Rules:
- A client that does not prove the run's secret never reaches the server; each failure is an event.
- In `hold` no other database than the one that was rehearsed is reached.
- `settle` waits for what is under way; what does not end in time is cut off, and rolled back.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from dataclasses import dataclass, replace
from urllib.parse import quote

from handrail.errors import StoreError
from handrail.plans.holding import Report
from handrail.ports import Asks, Connection, Store
from handrail.wire.ledger import Ledger, Refusal
from handrail.wire.postgres import clients, refusing, tables, upstream
from handrail.wire.postgres.clients import CancelAsked, Client
from handrail.wire.postgres.pipe import Pipe
from handrail.wire.postgres.rules import Look, Rules
from handrail.wire.postgres.session import Session
from handrail.wire.serving import Loop

HOST = "127.0.0.1"
_GREETING_S = 60
_SETTLING_S = 10
_MOST_SESSIONS = 500
_READING_DEFAULT = "default_transaction_read_only"
_HOW = {"observe": "observed only", "read-only": "read only"}


@dataclass
class _Open:
    """A session that is open, and what cancels it."""

    session: Session
    upstream: upstream.Upstream
    key: bytes


class PostgresGuard:
    """`ports.StoreGuard` over one PostgreSQL database.

    Args:
        store: has the real credentials.
        ledger: what the run is held to, and counts.
        look: see `guarded`.
        hear: whoever hears the events; asked where a statement waits, if it can be.
        role: user and password of the role that it connects as; None for the store's own.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        look: Look | None,
        hear: object = None,
        role: tuple[str, str] | None = None,
    ) -> None:
        self._store = store
        self._role = role
        self._ledger = ledger
        self._real = store.connection()
        self._server = upstream.read_server(self._real.parts["url"])
        self._secret = clients.Secret(
            frozenset({self._real.parts.get("user") or self._server.user}), secrets.token_hex(16)
        )
        if role is not None:
            self._server = replace(self._server, user=role[0], password=role[1])
        asks = hear if isinstance(hear, Asks) else None
        database = self._real.parts["database"]
        self._rules = Rules(ledger, look, database, self._plain_tables, asks)
        self._sessions: dict[int, _Open] = {}
        self._cut: deque[upstream.Upstream] = deque(maxlen=_MOST_SESSIONS)
        self._numbers = 0
        self._greeting: set[asyncio.Task[None]] = set()
        self._report: Report | None = None
        self._loop = Loop("handrail-guard-postgres")
        self._listener, self._port = self._loop.run(self._listen())

    def _plain_tables(self) -> tables.Plain | None:
        if self._ledger.limits.mode == "observe":
            return None
        try:
            return tables.read(self._real.parts["url"])
        except StoreError:
            return None  # each transaction is gated, then

    # --- the port ------------------------------------------------------------------------------

    def connection(self) -> Connection:
        """Return the guard's own address, with the secret of this run."""
        parts = self._real.parts
        user, password = next(iter(self._secret.users)), self._secret.password
        database = parts["database"]
        url = (
            f"postgresql://{quote(user, safe='')}:{password}@{HOST}:{self._port}/"
            f"{quote(database, safe='')}?sslmode=disable"
        )
        given = {
            "PGHOST": HOST,
            "PGPORT": str(self._port),
            "PGUSER": user,
            "PGPASSWORD": password,
            "PGDATABASE": database,
            "PGSSLMODE": "disable",
            "PGGSSENCMODE": "disable",
            "DATABASE_URL": url,
        }
        kept = {k: v for k, v in self._real.environment.items() if k not in _OF_THE_SERVER}
        place = {"url": url, "host": HOST, "port": str(self._port), "user": user}
        return Connection(
            environment={**kept, **given},
            parts={**parts, **place, "password": password},
            sockets=((HOST, self._port),),
            secrets=(password, url),
        )

    def settle(self) -> Report:
        """Say what was done, once nobody is connected any more."""
        if self._report is None:
            self._loop.run(self._end())
            ledger = self._ledger
            self._report = Report(
                resource=self._store.resource,
                how=_HOW.get(ledger.limits.mode, "before COMMIT"),
                effects=ledger.effects,
                stop=ledger.stop,
                events=ledger.events,
                trace=ledger.trace,
                unheld=ledger.unheld,
                kept=ledger.kept,
                role="own" if self._role is None else "limited",
            )
        return self._report

    def halt(self, elsewhere: str) -> None:
        """Refuse everything from now on: the run was stopped at another store."""
        self._ledger.halt(elsewhere)

    def close(self) -> None:
        """End everything. Twice equals once."""
        self.settle()
        self._loop.stop()

    # --- clients -------------------------------------------------------------------------------

    async def _listen(self) -> tuple[asyncio.Server, int]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Pipe(self._arrived), HOST, 0, backlog=128)
        return server, int(server.sockets[0].getsockname()[1])

    def _arrived(self, pipe: Pipe) -> None:
        if len(self._sessions) + len(self._greeting) >= _MOST_SESSIONS:
            pipe.transport.write(
                clients.error("FATAL", "53300", "too many connections for a guard")
            )
            pipe.transport.close()
            return
        task = asyncio.get_running_loop().create_task(self._let_in(pipe))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    async def _let_in(self, pipe: Pipe) -> None:
        try:
            async with asyncio.timeout(_GREETING_S):
                greeted = await clients.greet(pipe, self._secret, None)
                if isinstance(greeted, Client):
                    await self._open(greeted)
                elif isinstance(greeted, CancelAsked):
                    await self._cancel(greeted)
                    pipe.transport.close()
                else:
                    self._ledger.tell("bypass", f"a client was sent away: {greeted.why}")
        except (TimeoutError, OSError):
            pipe.transport.close()
        except asyncio.CancelledError:  # the guard ends before the client has come in
            pipe.transport.abort()
            raise

    async def _open(self, client: Client) -> None:
        """Open the server's side of a client, and let the two speak."""
        transport = client.pipe.transport
        refusal = self._refuse_start(client)
        if refusal is not None:
            transport.write(
                refusing.frame(refusal).replace(b"SERROR\0VERROR\0", b"SFATAL\0VFATAL\0", 1)
            )
            transport.close()
            return
        try:
            opened = await upstream.connect(
                replace(
                    self._server, database=client.parameters.get("database", self._server.database)
                ),
                self._parameters(client),
            )
        except upstream.ServerRefused as error:
            transport.write(clients.frame_of(error))
            transport.close()
            return
        except (OSError, StoreError) as error:
            transport.write(clients.error("FATAL", "08006", f"handrail: the server: {error}"))
            transport.close()
            return
        if transport.is_closing():  # meanwhile the client has gone
            opened.transport.abort()
            return
        self._join(client, opened)

    def _refuse_start(self, client: Client) -> Refusal | None:
        """Say why a client may not begin at all."""
        wanted = client.parameters.get("database", self._server.database)
        if self._ledger.limits.mode == "hold" and wanted != self._server.database:
            self._ledger.tell("bypass", f"it asked for another database, {wanted}")
            return self._ledger.refuse(f"open database {wanted}, which was not rehearsed")
        return None

    def _parameters(self, client: Client) -> dict[str, str]:
        """Return the settings that the server's side begins with."""
        given = {k: v for k, v in client.parameters.items() if k not in {"user", "database"}}
        if self._ledger.limits.mode != "observe":
            # In other letters it is the same setting to the server, and the last one counts.
            given = {k: v for k, v in given.items() if k.lower() != _READING_DEFAULT}
            # As the session's own default: RESET and DISCARD come back to it.
            given[_READING_DEFAULT] = "on"
        return given

    def _join(self, client: Client, opened: upstream.Upstream) -> None:
        """Make a session of the two sides."""
        key = secrets.token_bytes(len(opened.key))
        hidden = {_READING_DEFAULT: "on" if self._ledger.limits.mode == "read-only" else "off"}
        shown = opened.statuses | (
            hidden
            if _READING_DEFAULT in opened.statuses and self._ledger.limits.mode != "observe"
            else {}
        )
        hello = clients.ok() + b"".join(clients.status(n, v) for n, v in shown.items())
        hello += opened.notices + clients.key_data(opened.pid, key) + clients.ready(ord("I"))
        transport = client.pipe.transport
        database = client.parameters.get("database", self._server.database)
        session = Session(self._rules, transport, opened.transport, opened.statuses, database)
        number = self._numbers = self._numbers + 1
        self._sessions[number] = _Open(session, opened, key)
        session.ended.add_done_callback(lambda _: self._ended(number))
        left = client.pipe.leftover()
        transport.set_protocol(session)
        opened.transport.set_protocol(session.link)
        transport.write(hello)
        if opened.leftover:
            session.link.data_received(opened.leftover)
        opened.transport.resume_reading()
        transport.resume_reading()
        if left:
            session.data_received(left)

    def _ended(self, number: int) -> None:
        ended = self._sessions.pop(number)
        if not ended.session.parted:
            self._cut.append(ended.upstream)

    async def _cancel(self, asked: CancelAsked) -> None:
        for one in tuple(self._sessions.values()):
            if one.upstream.pid == asked.pid and secrets.compare_digest(one.key, asked.key):
                await upstream.cancel(one.upstream)

    # --- the end -------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Let nobody in any more; wait for what is under way, then cut it off."""
        self._rules.is_over = True
        self._listener.close()
        for task in tuple(self._greeting):
            task.cancel()
        waiting = [one.session.leave() for one in tuple(self._sessions.values())]
        if waiting:
            await asyncio.wait(waiting, timeout=_SETTLING_S)
        for one in tuple(self._sessions.values()):
            one.session.close()
        await asyncio.sleep(0)  # what ends a session is called when the loop comes by
        # A server goes on with a statement whose client is gone: nobody waits for it any more.
        await asyncio.gather(*(upstream.cancel(one) for one in self._cut))


# Settings of the real address that mean nothing, or something else, at the guard.
_OF_THE_SERVER = frozenset(
    {
        "PGHOSTADDR",
        "PGSERVICE",
        "PGSSLCERT",
        "PGSSLKEY",
        "PGSSLROOTCERT",
        "PGSSLCRL",
        "PGSSLNEGOTIATION",
        "PGSSLMINPROTOCOLVERSION",
        "PGCHANNELBINDING",
        "PGREQUIREAUTH",
        "PGKRBSRVNAME",
        "PGTARGETSESSIONATTRS",
    }
)
