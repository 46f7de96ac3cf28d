"""The store's side of a guard: open a connection to the server as the store's own role.

Rules:
- What libpq would refuse is refused: TLS as `sslmode` says, nothing read that came before it, the
  server's own proof in SCRAM, channel binding and `require_auth` where they are asked for.
- What the server refuses keeps its words: the client gets them as they were.
- A server can make us work or wait only so much: iterations, sizes and times are bounded.
- Version 3.0 of the protocol is spoken.

Source: https://www.postgresql.org/docs/current/protocol-flow.html
"""

from __future__ import annotations

import asyncio
import hashlib
import pwd
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scramp import ScramClient, ScramException

from handrail.errors import StoreError
from handrail.wire.postgres import frames, tls
from handrail.wire.postgres.pipe import GarbledError, Pipe
from handrail.wire.postgres.server import Place, Server, is_direct, reached, read_server

__all__ = ["Place", "Server", "ServerRefused", "Upstream", "cancel", "connect", "read_server"]

CONNECT_S = 10
CANCEL_S = 5
MOST_ITERATIONS = 1_000_000
_TLS_ASKED, _CANCEL_ASKED, _VERSION = 80877103, 80877102, 3 << 16
_OK, _CLEARTEXT, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 10, 11, 12
_OTHERS = {2: "Kerberos", 6: "SCM credentials", 7: "GSSAPI", 8: "GSSAPI", 9: "SSPI"}
_PLAIN, _BOUND = "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"
# The server is starting up, or the role may not come in this way: another way may do.
_NOT_NOW, _NOT_THIS_WAY = "57P03", "28000"
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class ServerRefused(Exception):  # noqa: N818  the server's no, in its own words
    """The server refused a connection.

    Attributes:
        body: of its ErrorResponse, as it was.
        code: its SQLSTATE.
    """

    def __init__(self, body: bytes) -> None:
        try:
            found = frames.said(body)
        except frames.FrameError:
            raise GarbledError("the server sent a malformed error") from None
        super().__init__(found.message)
        self.body = body
        self.code = found.code


@dataclass(frozen=True)
class Upstream:
    """An open connection to the server, idle. Its transport's reading is paused.

    Attributes:
        transport: has a protocol that keeps nothing safe: set another, then resume reading.
        statuses: what the server has reported of its settings.
        pid: the server's process.
        key: what cancels it, with `pid`.
        leftover: what the server had sent beyond its being ready; belongs to the next protocol.
        notices: whole NoticeResponse frames that came while it was opened.
        place: the address that answered.
        encryption: how TLS was begun; None where it was not.
    """

    transport: asyncio.Transport
    statuses: dict[str, str]
    pid: int
    key: bytes = field(repr=False)
    leftover: bytes = b""
    notices: bytes = b""
    place: Place = field(default_factory=lambda: Place(""))
    encryption: Encryption | None = None


@dataclass(frozen=True)
class Encryption:
    """How TLS is begun: with whom, and whether at once."""

    context: ssl.SSLContext
    host: str
    is_direct: bool
    is_needed: bool


# --- opening -----------------------------------------------------------------------------------


async def connect(server: Server, parameters: Mapping[str, str]) -> Upstream:
    """Open a connection. `parameters` are the client's settings, without user and database.

    Raises:
        ServerRefused: the server said no.
        StoreError: its address or its way of authentication cannot be used.
        OSError: it does not answer, or not in time, or breaks off; TLS fails.
    """
    failure: OSError | ServerRefused = ConnectionError("the server has no address")
    for place in server.places:
        try:
            return await _open_somehow(place, server, parameters)
        except ServerRefused as refused:
            if refused.code != _NOT_NOW:
                raise
            failure = refused
        except OSError as error:
            failure = error
    raise failure


async def _open_somehow(place: Place, server: Server, parameters: Mapping[str, str]) -> Upstream:
    """Open a connection with TLS or without, in the order that `sslmode` says."""
    failures: list[OSError | ServerRefused] = []
    ways = _ways(place, server)
    for encryption in ways:
        try:
            return await _open_in_time(place, server, parameters, encryption)
        except ServerRefused as refused:
            if refused.code != _NOT_THIS_WAY:
                raise
            failures.append(refused)
        except (ssl.SSLError, ConnectionError) as error:
            failures.append(error)
    raise failures[0]


def _ways(place: Place, server: Server) -> tuple[Encryption | None, ...]:
    mode = server.sslmode
    if place.socket or mode == "disable":
        return (None,)
    home = Path("~/.postgresql").expanduser()
    is_needed = mode not in {"allow", "prefer"}
    given = {**server.given, "sslmode": mode}
    context = tls.context_for(given, home)
    encryption = Encryption(context, place.host or place.address, is_direct(server), is_needed)
    optional = {"allow": (None, encryption), "prefer": (encryption, None)}
    return optional.get(mode, (encryption,))


async def _open_in_time(
    place: Place, server: Server, parameters: Mapping[str, str], encryption: Encryption | None
) -> Upstream:
    given = server.given.get("connect_timeout", "")
    limit_s = int(given) if given.isdecimal() and int(given) > 0 else CONNECT_S
    try:
        async with asyncio.timeout(limit_s):
            return await _open(place, server, parameters, encryption)
    except TimeoutError:
        raise TimeoutError(f"{place} did not answer within {limit_s} s") from None


async def _open(
    place: Place, server: Server, parameters: Mapping[str, str], encryption: Encryption | None
) -> Upstream:
    pipe, found = await _reach(place)
    try:
        _check_peer(pipe, found, server)
        is_encrypted = encryption is not None and await _encrypt(pipe, encryption)
        pipe.transport.write(_start(server, parameters))
        await _authenticate(pipe, server)
        return await _settle(pipe, found, encryption if is_encrypted else None)
    except BaseException:
        pipe.transport.abort()
        raise


async def _reach(place: Place) -> tuple[Pipe, Place]:
    """Return a connection, and where it really leads: for CancelRequest, the same server."""
    loop = asyncio.get_running_loop()
    if place.socket:
        path = "\0" + place.socket[1:] if place.socket.startswith("@") else place.socket
        _, pipe = await loop.create_unix_connection(Pipe, path)
        return pipe, place
    transport, pipe = await loop.create_connection(Pipe, place.address or place.host, place.port)
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return pipe, reached(place, transport.get_extra_info("peername")[0])


def _check_peer(pipe: Pipe, place: Place, server: Server) -> None:
    """Refuse a socket that another user than `requirepeer` listens at."""
    wanted = server.given.get("requirepeer")
    if not wanted or not place.socket:
        return
    connection = pipe.transport.get_extra_info("socket")
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    if pwd.getpwuid(user).pw_name != wanted:
        raise _denied(f"another user than {wanted} listens at {place}")


async def _encrypt(pipe: Pipe, encryption: Encryption) -> bool:
    """Begin TLS; return False where the server has none and need not have."""
    if not encryption.is_direct:
        pipe.transport.write(struct.pack("!II", 8, _TLS_ASKED))
        answer = await pipe.read(1)
        if answer == b"N" and not encryption.is_needed:
            return False
        if answer == b"N":
            raise ConnectionError("the server does not support TLS, but TLS is required")
        # An error, too, came from nobody knows whom: its text is not shown.
        if answer != b"S" or pipe.leftover():
            raise GarbledError("the server answered the request for TLS with something else")
    transport = await asyncio.get_running_loop().start_tls(
        pipe.transport, pipe, encryption.context, server_hostname=encryption.host
    )
    if transport is None:
        raise ConnectionError("the connection was closed while TLS began")
    pipe.transport = transport
    chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
    if encryption.is_direct and chosen != tls.PROTOCOL:
        raise ConnectionError("the server did not choose PostgreSQL's protocol in TLS")
    return True


def _start(server: Server, parameters: Mapping[str, str]) -> bytes:
    """Return the StartupMessage: settings of the address, then the client's."""
    options = [server.given.get("options", ""), parameters.get("options", "")]
    wanted = {**parameters, "user": server.user, "database": server.database}
    if any(options):
        wanted["options"] = " ".join(dict.fromkeys(word for word in options if word))
    pairs = "".join(f"{name}\0{value}\0" for name, value in wanted.items())
    body = struct.pack("!I", _VERSION) + pairs.encode(errors="surrogateescape") + b"\0"
    return struct.pack("!I", len(body) + 4) + body


async def _settle(pipe: Pipe, place: Place, encryption: Encryption | None) -> Upstream:
    """Read what an authenticated server says of itself, until it is ready."""
    statuses: dict[str, str] = {}
    pid, key, notices = 0, b"", b""
    while True:
        kind, body = await _heard(pipe)
        if kind == ord("Z"):
            break
        if kind == ord("S"):
            name, value = _pair(body)
            statuses[name] = value
        elif kind == ord("K"):
            pid, key = int.from_bytes(body[:4]), body[4:]
        elif kind == ord("N"):
            notices += frames.build(b"N", body)
        elif kind != ord("v"):
            raise GarbledError("the server said something odd while it was opened")
    pipe.pause()
    left = pipe.leftover()
    return Upstream(pipe.transport, statuses, pid, key, left, notices, place, encryption)


async def _heard(pipe: Pipe) -> tuple[int, bytes]:
    """Return the server's next message.

    Raises:
        ServerRefused: it is an error.
    """
    kind, body = await pipe.read_message()
    if kind == ord("E"):
        raise ServerRefused(body)
    return kind, body


def _pair(body: bytes) -> tuple[str, str]:
    words = body.decode(errors="surrogateescape").split("\0")
    if len(words) != 3 or words[2]:  # noqa: PLR2004  name, value, and nothing after its end
        raise GarbledError("the server sent a malformed setting")
    return words[0], words[1]


# --- authentication ----------------------------------------------------------------------------


async def _authenticate(pipe: Pipe, server: Server) -> None:
    """Prove who we are in the way that the server asks for."""
    method, bound = "none", False
    while True:
        kind, body = await _heard(pipe)
        if kind in b"Nv":
            continue
        if kind != ord("R"):
            raise GarbledError("the server did not ask who we are")
        code, asked = int.from_bytes(body[:4]), body[4:]
        if code == _OK:
            break
        if method != "none":
            raise GarbledError("the server asked twice who we are")
        method = {_CLEARTEXT: "password", _MD5: "md5", _SASL: "scram-sha-256"}.get(code, "")
        _check_method(server, method, code)
        if code == _SASL:
            bound = await _prove(pipe, server, asked)
        else:
            if server.channel_binding == "require":
                raise _denied("channel binding is required, and the server does not ask for it")
            pipe.transport.write(_answer(server, code, asked))
    _check_method(server, method, _OK)
    if server.channel_binding == "require" and not bound:
        raise _denied("channel binding is required, and the server did without")


def _check_method(server: Server, method: str, code: int) -> None:
    """Refuse a way of authentication that the guard does not know, or that the address forbids."""
    if not method:
        raise StoreError(
            "store.unsupported",
            f"the server asks for {_OTHERS.get(code, 'a way of authentication of its own')},"
            " which the guard does not know",
            hint="let the role in by scram-sha-256, a client certificate or a socket (pg_hba.conf)",
        )
    names = {word.strip() for word in server.given.get("require_auth", "").split(",")} - {""}
    forbidden = {name[1:] for name in names if name.startswith("!")}
    allowed = names - {f"!{name}" for name in forbidden}
    if method in forbidden or (allowed and method not in allowed):
        raise _denied(f"the server asks for {method}, which require_auth does not allow")


def _answer(server: Server, code: int, asked: bytes) -> bytes:
    """Return a password, or what MD5 makes of it."""
    password = _password(server)
    if code == _CLEARTEXT:
        return frames.build(b"p", password + b"\0")
    inner = hashlib.md5(password + server.user.encode(), usedforsecurity=False).hexdigest()
    outer = hashlib.md5(inner.encode() + asked[:4], usedforsecurity=False).hexdigest()
    return frames.build(b"p", b"md5" + outer.encode() + b"\0")


def _password(server: Server) -> bytes:
    if not server.password:
        raise _denied("the server asks for a password, and the store's address has none")
    return server.password.encode()


async def _prove(pipe: Pipe, server: Server, asked: bytes) -> bool:
    """Prove the password by SCRAM, and let the server prove that it knows it too.

    Returns:
        Whether both proofs were bound to the TLS connection.
    """
    try:
        client = _scram_client(pipe, server, asked)
        name: str = client.mechanism_name
        first = client.get_client_first().encode()
        pipe.transport.write(
            frames.build(b"p", name.encode() + b"\0" + len(first).to_bytes(4) + first)
        )
        client.set_server_first(await _challenge(pipe, _SASL_CONTINUE))
        if int(client.iterations) > MOST_ITERATIONS:
            raise _denied(f"the server asks for more than {MOST_ITERATIONS:,} iterations of SCRAM")
        # In a thread: other connections do not wait for the iterations of this one.
        last = await asyncio.to_thread(client.get_client_final)
        pipe.transport.write(frames.build(b"p", last.encode()))
        client.set_server_final(await _challenge(pipe, _SASL_FINAL))
    except ScramException as error:
        raise _denied(f"the exchange of SCRAM with the server failed: {error}") from error
    return name == _BOUND


def _scram_client(pipe: Pipe, server: Server, asked: bytes) -> Any:
    """Return the exchange for what the server offers, bound to TLS where that can be."""
    offered = [word.decode(errors="replace") for word in asked.split(b"\0") if word]
    known = [name for name in offered if name in {_PLAIN, _BOUND}]
    encrypted = pipe.transport.get_extra_info("ssl_object")
    if not known:
        raise StoreError(
            "store.unsupported",
            f"the server asks for {', '.join(offered)}, which the guard does not know",
            hint="let the role in by scram-sha-256 (pg_hba.conf)",
        )
    if _BOUND in known and encrypted is None:
        raise GarbledError("the server offers channel binding without TLS")
    binding = None
    if encrypted is not None and server.channel_binding != "disable":
        binding = tls.end_point(encrypted.getpeercert(binary_form=True))
    if server.channel_binding == "require" and (binding is None or _BOUND not in known):
        raise _denied("channel binding is required, and the server does not offer it")
    if binding is None:
        return _prepared([_PLAIN], _password(server), None)
    return _prepared(known, _password(server), ("tls-server-end-point", binding))


def _prepared(names: list[str], password: bytes, binding: tuple[str, bytes] | None) -> Any:
    """Return scramp's client. PostgreSQL reads no user name in SCRAM."""
    try:
        return ScramClient(names, "-", password.decode(), channel_binding=binding)
    except ScramException:
        # A password that SASLprep forbids is taken as it is, by server and libpq alike.
        client = ScramClient(names, "-", "-", channel_binding=binding)
        client.password = password
        return client


async def _challenge(pipe: Pipe, wanted: int) -> str:
    kind, body = await _heard(pipe)
    if kind != ord("R") or int.from_bytes(body[:4]) != wanted or not body[4:].isascii():
        raise GarbledError("the server broke off the exchange of SCRAM")
    return body[4:].decode()


def _denied(what: str) -> StoreError:
    return StoreError("store.denied", what, hint="check the store's address, and pg_hba.conf")


# --- cancelling --------------------------------------------------------------------------------


async def cancel(upstream: Upstream) -> bool:
    """Ask the server to cancel what the connection does now; return whether it took the request.

    Returns when the server has closed the connection of the request, or after `CANCEL_S`.
    """
    if not upstream.key:
        return False
    request = struct.pack("!II", 12 + len(upstream.key), _CANCEL_ASKED)
    try:
        async with asyncio.timeout(CANCEL_S):
            return await _ask_to_cancel(upstream, request + upstream.pid.to_bytes(4) + upstream.key)
    except OSError:
        return False


async def _ask_to_cancel(upstream: Upstream, request: bytes) -> bool:
    pipe, _ = await _reach(upstream.place)
    try:
        if upstream.encryption is not None:
            await _encrypt(pipe, upstream.encryption)
        pipe.transport.write(request)
        return await pipe.ended()
    finally:
        pipe.transport.abort()
