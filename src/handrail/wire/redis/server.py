"""The real server: where it is, as whom it is reached, and a connection of the guard's own.

Rules:
- The credentials live here and in the store alone; no error has them in it.
- What the server does not tell is not guessed: a guard that cannot read its commands is not opened.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qs, unquote, urlsplit

from handrail.errors import StoreError
from handrail.wire.redis.pairing import Pairing, Silent
from handrail.wire.redis.replies import ErrorReply, FramingError, Reply
from handrail.wire.redis.requests import encode

DEFAULT_PORT = 6379
CONNECT_S = 10.0
ANSWER_S = 30.0


@dataclass(frozen=True)
class Server:
    """Where a server is, and as whom it is reached.

    Attributes:
        host: name or address; empty for a socket.
        port: of the host.
        path: of a Unix socket; else empty.
        user: empty for the server's `default`.
        password: empty where none is asked for.
        tls: how it is trusted; None for a plain connection.
    """

    host: str
    port: int
    path: str
    user: str
    password: str = field(repr=False)
    tls: ssl.SSLContext | None = None

    def sign_in(self) -> tuple[tuple[bytes, ...], ...]:
        """Return the commands that sign in; none where no password is asked for."""
        if not self.password:
            return ()
        user = (self.user.encode(),) if self.user and self.user != "default" else ()
        return ((b"AUTH", *user, self.password.encode()),)

    async def connect(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Open a connection.

        Raises:
            OSError: the server does not answer.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            if self.path:
                transport, _ = await loop.create_unix_connection(lambda: protocol, self.path)
            else:
                transport, _ = await loop.create_connection(
                    lambda: protocol, self.host, self.port, ssl=self.tls
                )
        return transport


def read_server(parts: Mapping[str, str]) -> Server:
    """Return where the server of a store's `connection().parts` is.

    Raises:
        StoreError: the address cannot be read.
    """
    if not parts["url"].startswith(("redis://", "rediss://", "unix://")):
        text = "the address of the Redis server is neither redis://, rediss:// nor unix://"
        raise StoreError("store.url", text)
    try:
        url = urlsplit(parts["url"])
        options = {name: values[-1] for name, values in parse_qs(url.query).items()}
        user = unquote(url.username or "") or parts.get("user", "")
        password = unquote(url.password or "") or parts.get("password", "")
        if url.scheme == "unix":
            return Server("", 0, unquote(url.path), user, password)
        tls = _trust(options) if url.scheme == "rediss" else None
        return Server(
            url.hostname or "localhost", url.port or DEFAULT_PORT, "", user, password, tls
        )
    except (ValueError, OSError) as error:
        # The address itself may have a password in it.
        text = f"the address of the Redis server cannot be read ({type(error).__name__})"
        raise StoreError("store.url", text) from None


def _trust(options: Mapping[str, str]) -> ssl.SSLContext:
    """Return how a server is trusted, by the options that redis-py has in its addresses."""
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    if options.get("ssl_check_hostname", "true").lower() in {"false", "0", "no"}:
        context.check_hostname = False
    if options.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Control(asyncio.Protocol):
    """A connection of the guard's own."""

    def __init__(self) -> None:
        self._pairing = Pairing(lambda _: None)
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has transports of its own, which are none by class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._pairing.feed(data)
        except FramingError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self._lost.done():
            self._lost.set_result(None)

    async def ask(self, *commands: Sequence[bytes]) -> list[Reply]:
        """Return the server's replies.

        Raises:
            OSError: it does not answer any more.
        """
        answers: list[Reply] = []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell(reply: Reply) -> None:
            answers.append(reply)
            if len(answers) == len(commands) and not done.done():
                done.set_result(None)

        for _ in commands:
            self._pairing.expect(Silent(tell, whole=True))
        if self._transport is None or not commands:
            return answers
        self._transport.write(b"".join(encode(*command) for command in commands))
        async with asyncio.timeout(ANSWER_S):
            await asyncio.wait({done, self._lost}, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise ConnectionResetError("the server closed the connection")
        return answers

    def close(self) -> None:
        """End it. Twice equals once."""
        if self._transport is not None:
            self._transport.close()


async def open_control(server: Server, resource: str) -> Control:
    """Connect and sign in.

    Raises:
        StoreError: the server does not answer, or does not let us in.
    """
    control = Control()
    try:
        await server.connect(control)
        answers = await control.ask(*server.sign_in(), (b"PING",))
    except OSError as error:
        control.close()
        text = f"`{resource}` does not answer: {str(error) or 'it took too long'}"
        raise StoreError("store.unreachable", text) from error
    for answer in answers:
        if isinstance(answer, ErrorReply):
            control.close()
            text = answer.text.decode("utf-8", "backslashreplace")
            raise StoreError("store.denied", f"`{resource}` does not let us in: {text}")
    return control
