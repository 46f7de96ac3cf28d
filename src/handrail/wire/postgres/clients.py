"""The script's side of a guard: greet a client until it has proven the secret of this run.

Rules:
- What came in plain text before TLS began is refused, not read as if it had come by TLS.
- Version 3.0 of the protocol is spoken; what asks for a later 3.x is told so and goes on.
- Replication is refused: what it reads and does passes no COMMIT.
- A wrong user and a wrong password look alike, and take as long.
- `AuthenticationOk` is not said here: the server's side may still refuse.

Source: https://www.postgresql.org/docs/current/protocol-flow.html
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

from handrail.wire.postgres import frames, scram
from handrail.wire.postgres.pipe import ClosedError, GarbledError, Pipe
from handrail.wire.postgres.upstream import ServerRefused

LARGEST_START_BYTES = 10_000
_TLS_ASKED, _GSS_ASKED, _CANCEL_ASKED = 80877103, 80877104, 80877102
_SHORTEST, _PID_BYTES, _LONGEST_KEY = 8, 4, 256
_HANDSHAKE_S = 20
_MAJOR = 3
_PASSWORD = ord("p")
_SASL, _SASL_CONTINUE, _SASL_FINAL = 10, 11, 12
_NO = frozenset({"false", "off", "no", "0", "f", "n"})
_PROTOCOL_VIOLATION, _NOT_SUPPORTED = "08P01", "0A000"
_NO_SUCH_USER, _WRONG_PASSWORD = "28000", "28P01"


@dataclass(frozen=True)
class Secret:
    """What a client has to prove, valid for one run at its guard alone."""

    users: frozenset[str]
    password: str = field(repr=False)
    verifier: scram.Verifier = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the verifier, once."""
        object.__setattr__(self, "verifier", scram.make_verifier(self.password))


@dataclass(frozen=True)
class Client:
    """A client that has proven the secret; it waits for `ok()`, its reading is paused.

    Attributes:
        pipe: the connection, with its transport; bytes that came early are in its `leftover()`.
        parameters: what it began with: `user`, `database`, settings; bytes that are not UTF-8 as
            surrogates.
        tls: whether the connection is encrypted.
    """

    pipe: Pipe
    parameters: dict[str, str]
    tls: bool


@dataclass(frozen=True)
class CancelAsked:
    """A connection that only asks to cancel what another one does; the caller closes it."""

    pid: int
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class SentAway:
    """A client that was refused, told so, and closed.

    Attributes:
        why: one phrase for an event, such as `it did not know the secret of this run`.
    """

    why: str


class _RefusedError(Exception):
    """A client is to be sent away with an ErrorResponse."""

    def __init__(self, code: str, message: str, why: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.why = why


async def greet(
    pipe: Pipe, secret: Secret, context: ssl.SSLContext | None
) -> Client | CancelAsked | SentAway:
    """Return what a new connection is. How long it may take is the caller's.

    Raises:
        ClosedError: it was closed before it had said what it wants.
    """
    try:
        started = await _start(pipe, context)
        if isinstance(started, Client):
            await _prove(started, secret)
            pipe.pause()
    except _RefusedError as refused:
        return _send_away(pipe, refused)
    except GarbledError as garbled:
        return _send_away(pipe, _garbled(str(garbled)))
    return started


def _send_away(pipe: Pipe, refused: _RefusedError) -> SentAway:
    pipe.transport.write(error("FATAL", refused.code, refused.message))
    pipe.transport.close()
    return SentAway(refused.why)


def _garbled(message: str) -> _RefusedError:
    return _RefusedError(_PROTOCOL_VIOLATION, message, "it did not speak PostgreSQL's protocol")


# --- the start ---------------------------------------------------------------------------------


async def _start(pipe: Pipe, context: ssl.SSLContext | None) -> Client | CancelAsked:
    """Answer what comes before the start, and return the start."""
    asked: set[int] = set()
    while True:
        code, body = await _read_start(pipe)
        if code not in {_TLS_ASKED, _GSS_ASKED}:
            break
        if code in asked or body:
            raise _garbled("encryption was asked for twice, or oddly")
        asked.add(code)
        if code == _TLS_ASKED and context is not None:
            await _encrypt(pipe, context)
            asked.add(_GSS_ASKED)
        else:
            pipe.transport.write(b"N")
    if code == _CANCEL_ASKED:
        if not _PID_BYTES < len(body) <= _PID_BYTES + _LONGEST_KEY:
            raise _garbled("a malformed request to cancel")
        return CancelAsked(int.from_bytes(body[:_PID_BYTES]), body[_PID_BYTES:])
    tls = pipe.transport.get_extra_info("ssl_object") is not None
    return Client(pipe, _begin(pipe, code, body), tls)


async def _read_start(pipe: Pipe) -> tuple[int, bytes]:
    size = int.from_bytes(await pipe.read(4))
    if not _SHORTEST <= size <= LARGEST_START_BYTES:
        raise _garbled("invalid length of startup packet")
    body = await pipe.read(size - 4)
    return int.from_bytes(body[:4]), body[4:]


async def _encrypt(pipe: Pipe, context: ssl.SSLContext) -> None:
    """Let the client begin TLS. Nothing that came before it counts."""
    if pipe.leftover():
        raise _garbled("received unencrypted data after SSL request")
    pipe.transport.write(b"S")
    transport = await asyncio.get_running_loop().start_tls(
        pipe.transport, pipe, context, server_side=True, ssl_handshake_timeout=_HANDSHAKE_S
    )
    if transport is None:
        raise ClosedError("the connection was closed")
    pipe.transport = transport


def _begin(pipe: Pipe, code: int, body: bytes) -> dict[str, str]:
    """Return what a start says; tell the client which of it we do not speak."""
    major, minor = divmod(code, 1 << 16)
    if major != _MAJOR:
        message = f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0"
        raise _RefusedError(_NOT_SUPPORTED, message, "it did not speak PostgreSQL's protocol 3")
    given = _pairs(body)
    unknown = [name for name in given if name.startswith("_pq_.")]
    if minor or unknown:
        pipe.transport.write(_negotiate(unknown))
    if given.get("replication", "off").lower() not in _NO:
        message = "handrail: a guard passes no replication on"
        raise _RefusedError(_NOT_SUPPORTED, message, "it asked for replication")
    return {n: v for n, v in given.items() if n not in unknown and n != "replication"}


def _pairs(body: bytes) -> dict[str, str]:
    """Return names and values of a start; of a name that comes twice, the last."""
    *words, end, last = body.split(b"\0") if body else (b"", b"?")
    if last or end or len(words) % 2 or b"" in words[::2]:
        raise _garbled("invalid startup packet layout: expected terminator as last byte")
    texts = [word.decode(errors="surrogateescape") for word in words]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _negotiate(unknown: list[str]) -> bytes:
    """Return NegotiateProtocolVersion: 3.0, and none of these.

    PostgreSQL sends the whole version where its manual says the minor one; libpq insists on it.
    """
    names = b"".join(name.encode(errors="surrogateescape") + b"\0" for name in unknown)
    return frames.build(b"v", (_MAJOR << 16).to_bytes(4) + len(unknown).to_bytes(4) + names)


# --- the proof ---------------------------------------------------------------------------------


async def _prove(client: Client, secret: Secret) -> None:
    """Let a client prove the secret.

    Raises:
        _RefusedError: it did not.
    """
    user = client.parameters.get("user", "")
    if not user:
        message = "no PostgreSQL user name specified in startup packet"
        raise _RefusedError(_NO_SUCH_USER, message, "it named no user")
    exchange = scram.Exchange(secret.verifier)
    transport = client.pipe.transport
    transport.write(_ask(_SASL, scram.MECHANISM.encode() + b"\0\0"))
    try:
        transport.write(_ask(_SASL_CONTINUE, exchange.begin(_first(await _answer(client.pipe)))))
        proof = exchange.end(await _answer(client.pipe))
    except scram.ScramError as malformed:
        raise _garbled(f"malformed SCRAM message: {malformed}") from None
    if proof is None or user not in secret.users:
        message = f'password authentication failed for user "{user}"'
        raise _RefusedError(_WRONG_PASSWORD, message, "it did not know the secret of this run")
    transport.write(_ask(_SASL_FINAL, proof))


async def _answer(pipe: Pipe) -> bytes:
    kind, body = await pipe.read_message(LARGEST_START_BYTES)
    if kind != _PASSWORD:
        raise _garbled("expected SASL response")
    return body


def _first(body: bytes) -> bytes:
    """Return the SCRAM message in a client's first answer."""
    mechanism, at = frames.text(body) if b"\0" in body else (body, 0)
    size = int.from_bytes(body[at : at + 4], signed=True)
    if mechanism != scram.MECHANISM.encode() or size != len(body) - at - 4:
        raise _garbled("client selected an invalid SASL authentication mechanism")
    return body[at + 4 :]


def _ask(code: int, data: bytes) -> bytes:
    return frames.build(b"R", code.to_bytes(4) + data)


# --- what a guard says -------------------------------------------------------------------------


def error(severity: str, code: str, message: str, detail: str = "", hint: str = "") -> bytes:
    """Return an ErrorResponse."""
    fields = {"S": severity, "V": severity, "C": code, "M": message, "D": detail, "H": hint}
    said = "".join(f"{kind}{_one_text(text)}\0" for kind, text in fields.items() if text)
    return frames.build(b"E", said.encode(errors="surrogateescape") + b"\0")


def frame_of(refused: ServerRefused) -> bytes:
    """Return the server's own ErrorResponse, as it was."""
    return frames.build(b"E", refused.body)


def ok() -> bytes:
    """Return AuthenticationOk."""
    return _ask(0, b"")


def status(name: str, value: str) -> bytes:
    """Return a ParameterStatus."""
    pair = name.encode(errors="surrogateescape"), value.encode(errors="surrogateescape")
    return frames.build(b"S", b"\0".join((*pair, b"")))


def key_data(pid: int, key: bytes) -> bytes:
    """Return a BackendKeyData."""
    return frames.build(b"K", pid.to_bytes(4) + key)


def ready(state: int) -> bytes:
    """Return a ReadyForQuery: `I` idle, `T` in a transaction, `E` in a failed one, as numbers."""
    return frames.build(b"Z", bytes([state]))


def _one_text(text: str) -> str:
    return text.replace("\0", "")
