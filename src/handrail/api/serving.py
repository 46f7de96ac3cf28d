"""Serving: the process of `handrail serve`, from its lock to its end.

Rules:
- One server a state: it holds the lock `engine` for as long as it lives; a second one refuses.
- SIGTERM or SIGINT: nothing begins any more, what runs may end by itself for `grace_s`; then its
  scripts are ended as by Ctrl-C, what they did is recorded, and only then the server ends. A second
  signal shortens the grace to nothing.
- A run that a dead server left behind goes on when the next one begins, where that needs nobody's
  word; the rest waits for a person, as on the command line.
- A token goes over the wire: beyond this machine only with TLS, or when a proxy is said to do that.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn

from handrail.api import logs, telemetry, ticking
from handrail.api.app import make_app
from handrail.api.errand import Ask
from handrail.api.metrics import TimedJournal
from handrail.api.protocol import Protocol
from handrail.api.server import Bounds, Server
from handrail.api.targets import on_of
from handrail.api.ticking import Tick
from handrail.core import recalling, records
from handrail.core.world import Declared, World
from handrail.errors import HandrailError, RefusedError, UsageError

LOCK = "engine"
_ENDING_S = 15.0


@dataclass(frozen=True)
class Listening:
    """Where a server listens, and how it ends.

    Attributes:
        address: `host:port`; empty for none. Port 0 is any free one.
        path: of a socket in the file system, for its owner alone; None for none.
        certificate: PEM files of TLS; empty for none.
        is_proxied: whether TLS is somebody else's business.
        grace_s: how long what runs may go on once the server is told to end.
    """

    address: str = "127.0.0.1:8321"
    path: Path | None = None
    certificate: str = ""
    key: str = ""
    is_proxied: bool = False
    grace_s: float = 60.0


def serve(
    world: World,
    load: Callable[[], Declared],
    listening: Listening,
    bounds: Bounds,
) -> int:
    """Serve until told to end; return the exit code.

    Raises:
        RefusedError: another server works on this state, or it may not listen there.
        UsageError: it cannot listen there.
    """
    sockets = _sockets(listening)
    try:
        who = f"handrail serve, {world.person or 'somebody'}"
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(world.locks.hold(LOCK, who))
            except RefusedError as error:
                raise RefusedError("server.running", error.message, hint=error.hint) from error
            load()  # broken declarations are said before anybody connects
            logging.getLogger().addHandler(logs.Handler())
            telemetry.begin(world.environment)
            server = Server(world, load, bounds)
            timed: Any = TimedJournal(world.journal, server.metrics.commit_s)
            server.world = replace(world, journal=timed)
            asyncio.run(_Life(server, listening, sockets).live())
            telemetry.end()
    finally:
        for one in sockets:
            one.close()
        if listening.path is not None:
            listening.path.unlink(missing_ok=True)
    return 0


class _Life:
    """One server's life in its event loop."""

    def __init__(
        self,
        server: Server,
        listening: Listening,
        sockets: list[socket.socket],
    ) -> None:
        self._server = server
        self._listening = listening
        self._sockets = sockets
        self._engine = ticking.engine_of(server)
        self._told = asyncio.Event()
        self._hurry = asyncio.Event()

    async def live(self) -> None:
        """Serve, and end well."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._hear, signal.Signals(number).name)
        web = _Web(_config(self._server, self._listening))
        serving = asyncio.create_task(web.serve(sockets=self._sockets))
        ended = asyncio.create_task(self._told.wait())
        await asyncio.to_thread(recover, self._server)
        ticks = (
            ticking.walks(self._engine),
            ticking.schedules,
            ticking.backups,
            ticking.pushes,
            ticking.notices,
        )
        looking = [asyncio.create_task(self._tick(tick)) for tick in ticks]
        for one in self._sockets:
            logs.tell("listening", at=_shown(one, self._listening), pid=os.getpid())
        await asyncio.wait((ended, serving), return_when=asyncio.FIRST_COMPLETED)
        self._server.drain()
        for task in looking:
            task.cancel()
        closing = asyncio.create_task(asyncio.to_thread(self._engine.close))
        await self._end_errands()
        await closing
        web.should_exit = True
        await serving
        logs.tell("ended")

    def _hear(self, name: str) -> None:
        logs.tell("signal", signal=name, working=len(self._server.errands.working()))
        (self._hurry if self._told.is_set() else self._told).set()

    async def _end_errands(self) -> None:
        """Let what runs end by itself for a while; then end it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._listening.grace_s):
                while self._server.errands.working() and not self._hurry.is_set():  # noqa: ASYNC110  told by threads
                    await asyncio.sleep(0.05)
        for errand in self._server.errands.working():
            logs.tell("interrupted", errand=errand.id, run=errand.run)
            self._server.errands.interrupt(errand, "undo")
        # What undoes is not interrupted: it ends when it has ended.
        while self._server.errands.working():  # noqa: ASYNC110  the same
            await asyncio.sleep(0.05)

    async def _tick(self, tick: Tick) -> None:
        """Call `tick` whenever it wants to be; a mistake of it is told, and tried again."""
        while True:
            try:
                wait_s = await asyncio.to_thread(tick, self._server)
            except HandrailError as error:
                logs.tell("tick", level="warning", code=error.code, text=error.message)
                wait_s = 60.0
            await asyncio.sleep(max(0.2, wait_s))


class _Web(uvicorn.Server):
    """Uvicorn, but signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def _config(server: Server, listening: Listening) -> uvicorn.Config:
    return uvicorn.Config(
        make_app(server),
        http=Protocol.with_head_s(server.bounds.head_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=server.bounds.connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(_ENDING_S),
        ssl_certfile=listening.certificate or None,
        ssl_keyfile=listening.key or None,
    )


def recover(server: Server) -> None:
    """Take up what a dead server left behind: what ends by itself goes on, the rest waits."""
    world = server.world
    for number in _open_runs(world):
        try:
            plan = recalling.recorded_plan(world, number)
            if any(world.locks.holder(ref) for ref in plan.target.stores):
                continue  # somebody is at it
            told = recalling.story(world, number)
            opened = next(body for _, kind, body in told if kind == "opened")
            if opened.get("walk"):
                continue  # its engine takes it up
            ask = Ask(
                kind="resume",
                person=str(opened.get("person", "")),
                root=str(world.root),
                state=str(world.state),
                number=number,
            )
            on = on_of(server.declarations.now(), plan.target.resource)
            errand = server.errands.begin(ask, on)
            logs.tell("recovering", run=number, errand=errand.id)
        except HandrailError as error:
            logs.tell("recovering", level="warning", run=number, text=error.message)


def _open_runs(world: World) -> list[int]:
    chains = world.journal.chains("resource-")
    found = {n for c in chains for n in records.unfinished(world.journal, c[len("resource-") :])}
    return sorted(found)


def _sockets(listening: Listening) -> list[socket.socket]:
    found = []
    if listening.address:
        found.append(_network_socket(listening))
    if listening.path is not None:
        found.append(_file_socket(listening.path))
    return found


def _network_socket(listening: Listening) -> socket.socket:
    host, _, port = listening.address.rpartition(":")
    host = host.strip("[]")
    if not port.isdecimal() or int(port) > 65535 or not host:  # noqa: PLR2004  the last port
        raise UsageError(
            "server.listen", f"`{listening.address}` is not HOST:PORT", hint="127.0.0.1:8321"
        )
    if not (listening.certificate or listening.is_proxied or is_loopback(host)):
        raise RefusedError(
            "server.listen",
            f"at {host} tokens would go over the network unencrypted",
            hint="--certificate FILE --key FILE, or --behind-proxy where one speaks TLS",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, int(port)))
    except OSError as error:
        one.close()
        said = f"cannot listen at {listening.address}: {error.strerror or error}"
        raise UsageError("server.listen", said, hint="choose another: --listen") from error
    return one


def is_loopback(host: str) -> bool:
    """Whether only this machine is meant."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _file_socket(path: Path) -> socket.socket:
    """Return a socket that its owner alone may use; one that nobody serves any more is replaced."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode) and not _is_served(path):
                path.unlink()
        before = os.umask(0o177)
        try:
            one.bind(str(path))
        finally:
            os.umask(before)
    except OSError as error:
        one.close()
        said = f"cannot listen at {path}: {error.strerror or error}"
        raise UsageError("server.listen", said, hint="choose another: --socket") from error
    return one


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _shown(one: socket.socket, listening: Listening) -> str:
    name = one.getsockname()
    if one.family == socket.AF_UNIX:
        return str(name)
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{'https' if listening.certificate else 'http'}://{host}:{name[1]}"
