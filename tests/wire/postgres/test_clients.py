"""The script's side of a guard: who is let in, and what becomes of everybody else."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient

from handrail.wire.postgres import clients, frames, tls
from handrail.wire.postgres.clients import CancelAsked, Client, SentAway
from handrail.wire.postgres.pipe import LARGEST_BYTES, ClosedError, Pipe
from handrail.wire.postgres.upstream import ServerRefused
from support.opening import (
    Raw,
    Relay,
    SecureServer,
    prove,
    relay,
    run_secure_server,
    start,
    until_ready,
)
from support.postgres_server import server_binaries

TLS_ASKED = struct.pack("!II", 8, 80877103)
GSS_ASKED = struct.pack("!II", 8, 80877104)


@pytest.fixture(scope="module")
def server() -> Iterator[SecureServer]:
    """A server to pass clients on to."""
    yield from run_secure_server()


@pytest.fixture
def plain(server: SecureServer) -> Iterator[Relay]:
    """A relay without TLS."""
    with relay(server.url("scrammed")) as made:
        yield made


def refusal(raw: Raw) -> frames.Said:
    """Read the error that ends a connection."""
    kind, body = raw.message()
    assert kind == b"E", (kind, body)
    assert b"SFATAL\0VFATAL\0" in body
    assert raw.is_closed()
    return frames.said(body)


# --- real clients ------------------------------------------------------------------------------


def test_a_client_with_the_secret_is_let_in(plain: Relay) -> None:
    """psycopg gets in with the run's secret, and is the server's own role behind it."""
    with psycopg.connect(plain.conninfo(application_name="nightly")) as session:
        row = session.execute("SELECT current_user, current_setting('application_name')")
        assert row.fetchone() == ("scrammed", "nightly")
    client = plain.outcome()
    assert isinstance(client, Client)
    assert client.parameters["user"] == "ana"
    assert client.parameters["database"] == "postgres"
    assert not client.tls


def test_psql_is_let_in(plain: Relay) -> None:
    """psql gets in, asks for nothing that is not there, and leaves."""
    binaries = server_binaries()
    assert binaries is not None
    argv = [binaries.program("psql"), "-XAtq", plain.conninfo(), "-c", "SELECT 6 * 7"]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("42\n", "")


@pytest.mark.parametrize(
    ("user", "password"), [("ana", "guess"), ("ana", "p\N{SNOWMAN}"), ("bob", None), ("bob", "x")]
)
def test_a_wrong_user_and_a_wrong_password_look_alike(
    plain: Relay, user: str, password: str | None
) -> None:
    """Whoever has not both is refused in the same words, the right password of another included."""
    with pytest.raises(psycopg.OperationalError) as error:
        psycopg.connect(plain.conninfo(user=user, password=password))
    assert f'FATAL:  password authentication failed for user "{user}"' in str(error.value)
    assert plain.outcome() == SentAway("it did not know the secret of this run")


def test_the_servers_refusal_reaches_the_client(server: SecureServer) -> None:
    """What the server says against the guard's own role is said to the client as it was."""
    with (
        relay(server.url("scrammed", password="wrong")) as made,
        pytest.raises(psycopg.OperationalError, match='failed for user "scrammed"'),
    ):
        psycopg.connect(made.conninfo())
    assert isinstance(made.outcome(), ServerRefused)


def test_a_statement_is_cancelled_through_both_ends(plain: Relay) -> None:
    """A client's CancelRequest names its connection, and ends what that does."""
    with psycopg.connect(plain.conninfo(), autocommit=True) as session:
        assert isinstance(plain.outcome(), Client)
        seen: list[str | None] = []

        def heard(notice: psycopg.errors.Diagnostic) -> None:
            session.cancel_safe(timeout=10)
            seen.append(notice.message_primary)

        session.add_notice_handler(heard)
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("DO $$ BEGIN RAISE NOTICE 'running'; PERFORM pg_sleep(600); END $$")
        assert seen == ["running"]
        assert session.execute("SELECT 1").fetchone() == (1,)
        asked = plain.outcome()
        assert isinstance(asked, CancelAsked)
        assert asked.pid == session.info.backend_pid
        assert "key" not in repr(asked)


def test_tls_is_spoken_where_there_is_a_certificate(server: SecureServer, tmp_path: Path) -> None:
    """A client verifies the guard's own certificate and name, and is encrypted to it."""
    context, pem = tls.certificate()
    root = tmp_path / "guard.crt"
    root.write_text(pem)
    with relay(server.url("scrammed"), context) as made:
        full = {"sslmode": "verify-full", "sslrootcert": str(root)}
        for host in ("127.0.0.1", "localhost"):
            conninfo = made.conninfo(host=host, hostaddr="127.0.0.1", **full)
            with psycopg.connect(conninfo) as session:
                assert session.pgconn.ssl_in_use
                assert session.execute("SELECT 1").fetchone() == (1,)
            client = made.outcome()
            assert isinstance(client, Client)
            assert client.tls
        other = made.conninfo(host="db.example", hostaddr="127.0.0.1", **full)
        with pytest.raises(psycopg.OperationalError, match=r"db\.example"):
            psycopg.connect(other)
        with psycopg.connect(made.conninfo(sslmode="disable")) as session:
            assert not session.pgconn.ssl_in_use


def test_a_client_that_requires_tls_is_told_that_there_is_none(plain: Relay) -> None:
    """Without a certificate the answer to a request for TLS is no, and the client decides."""
    with pytest.raises(psycopg.OperationalError, match="server does not support SSL"):
        psycopg.connect(plain.conninfo(sslmode="require"))
    with psycopg.connect(plain.conninfo(sslmode="prefer")) as session:
        assert not session.pgconn.ssl_in_use


def test_a_client_that_requires_channel_binding_stays_away(server: SecureServer) -> None:
    """No binding is offered: a client that insists on it does not give its proof."""
    with (
        relay(server.url("scrammed"), tls.certificate()[0]) as made,
        pytest.raises(psycopg.OperationalError, match="channel binding"),
    ):
        psycopg.connect(made.conninfo(sslmode="require", channel_binding="require"))


def test_replication_is_refused(plain: Relay) -> None:
    """A walsender passes no COMMIT: it is refused before any proof."""
    with pytest.raises(psycopg.OperationalError, match="a guard passes no replication on"):
        psycopg.connect(plain.conninfo(replication="database"))
    assert plain.outcome() == SentAway("it asked for replication")
    with psycopg.connect(plain.conninfo(replication="false")) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_a_later_minor_version_goes_on_with_ours(plain: Relay) -> None:
    """A client that asks for 3.2 is told 3.0, and comes in."""
    if psycopg.pq.version() < 180000:
        pytest.skip("this libpq speaks 3.0 alone")
    with psycopg.connect(plain.conninfo(max_protocol_version="3.2")) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


# --- before the start --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before", [[], [GSS_ASKED], [TLS_ASKED], [GSS_ASKED, TLS_ASKED], [TLS_ASKED, GSS_ASKED]]
)
def test_requests_for_encryption_come_in_any_order(plain: Relay, before: list[bytes]) -> None:
    """GSS and TLS are each answered no, once, and the start follows."""
    with plain.raw() as raw:
        for request in before:
            raw.send(request)
            assert raw.read(1) == b"N"
        raw.send(start(user="ana", database="postgres"))
        prove(raw, plain.secret.password)
        assert until_ready(raw)[-1] == (b"Z", b"I")


@pytest.mark.parametrize("request_twice", [GSS_ASKED, TLS_ASKED])
def test_encryption_is_asked_for_once(plain: Relay, request_twice: bytes) -> None:
    """A client that goes on asking is sent away."""
    with plain.raw() as raw:
        raw.send(request_twice)
        assert raw.read(1) == b"N"
        raw.send(request_twice)
        assert refusal(raw).code == "08P01"


def test_nothing_counts_that_came_before_tls(server: SecureServer) -> None:
    """A start in plain text behind the request for TLS is refused, not read as if encrypted."""
    with relay(server.url("scrammed"), tls.certificate()[0]) as made, made.raw() as raw:
        raw.send(TLS_ASKED + start(user="ana", database="postgres"))
        assert "unencrypted data" in refusal(raw).message
        assert isinstance(made.outcome(), SentAway)


def test_plain_text_after_the_yes_to_tls_ends_it(server: SecureServer) -> None:
    """Where TLS was agreed on, nothing else is understood."""
    with relay(server.url("scrammed"), tls.certificate()[0]) as made, made.raw() as raw:
        raw.send(TLS_ASKED)
        assert raw.read(1) == b"S"
        raw.send(start(user="ana", database="postgres"))
        while raw.read(1):
            pass  # an alert of TLS, perhaps
        assert isinstance(made.outcome(), OSError)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (start(2 << 16, user="ana"), "0A000"),
        (start(4 << 16, user="ana"), "0A000"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "08P01"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "08P01"),
        (b"\0\0\0\7\0\3\0", "08P01"),
        ((10_001).to_bytes(4) + (3 << 16).to_bytes(4), "08P01"),
        (b"\xff\xff\xff\xff", "08P01"),
        (b"\0\0\0\x08\0\3\0\0", "08P01"),
        (b"\0\0\0\x0e\0\3\0\0user\0a", "08P01"),
        (b"\0\0\0\x16\0\3\0\0user\0ana\0\0more", "08P01"),
        (b"\0\0\0\x0f\0\3\0\0user\0\0x", "08P01"),
        (start(database="postgres"), "28000"),
        (b"\0\0\0\x0c\x04\xd2\x16\x2e\0\0\0\1", "08P01"),
        (b"\0\0\0\x09\x04\xd2\x16\x2fx", "08P01"),
    ],
    ids=["2.0", "4.0", "http", "client hello", "short", "large", "huge", "empty", "no end", "more",
         "odd", "no user", "cancel without a key", "long request"],
)  # fmt: skip
def test_what_is_no_start_is_refused(plain: Relay, data: bytes, code: str) -> None:
    """Another protocol, another version and malformed starts get an error, and the end."""
    with plain.raw() as raw:
        raw.send(data)
        assert refusal(raw).code == code
    assert isinstance(plain.outcome(), SentAway)


@pytest.mark.parametrize("length", [0, 1, 4, 7, 12])
def test_half_a_start_is_nobody(plain: Relay, length: int) -> None:
    """A client that hangs up before it has said what it wants is no attempt at anything."""
    with plain.raw() as raw:
        raw.send(start(user="ana")[:length])
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.is_closed()
    assert isinstance(plain.outcome(), ClosedError)


def test_unknown_options_of_the_protocol_are_named(plain: Relay) -> None:
    """A client learns the version that is spoken and which of its `_pq_.` options are not."""
    with plain.raw() as raw:
        more = {"_pq_.compression": "zstd", "user": "ana", "_pq_.x": "1", "database": "postgres"}
        raw.send(start((3 << 16) + 9999, **more))
        kind, body = raw.message()
        assert kind == b"v"
        assert body == (3 << 16).to_bytes(4) + (2).to_bytes(4) + b"_pq_.compression\0_pq_.x\0"
        prove(raw, plain.secret.password)
        until_ready(raw)
    client = plain.outcome()
    assert isinstance(client, Client)
    assert client.parameters == {"user": "ana", "database": "postgres"}


def test_bytes_that_are_no_text_stay_what_they_are(plain: Relay) -> None:
    """A setting in another encoding reaches the server byte by byte."""
    with plain.raw() as raw:
        name = b"caf\xe9".decode(errors="surrogateescape")
        raw.send(start(user="ana", database="postgres", application_name=name))
        prove(raw, plain.secret.password)
        said = until_ready(raw)
    # The server shows what is not ASCII as question marks, or escaped: one for each byte.
    assert any(body in {b"application_name\0caf?\0", b"application_name\0caf\\xe9\0"}
               for kind, body in said if kind == b"S")  # fmt: skip


def test_what_is_sent_early_is_not_lost(plain: Relay) -> None:
    """A query sent together with the proof is answered once both sides are open."""
    with plain.raw() as raw:
        raw.send(start(user="ana", database="postgres"))
        prove(raw, plain.secret.password, early=frames.query("SELECT 'early'"))
        until_ready(raw)
        answers = until_ready(raw)
    assert (b"D", b"\0\1\0\0\0\5early") in answers


# --- the proof ---------------------------------------------------------------------------------


def initial(message: bytes, mechanism: bytes = b"SCRAM-SHA-256") -> bytes:
    """Return a client's first message of SASL."""
    return frames.build(b"p", mechanism + b"\0" + len(message).to_bytes(4, signed=True) + message)


@pytest.mark.parametrize(
    "message",
    [
        initial(b"n,,n=,r=abc", b"SCRAM-SHA-1"),
        initial(b"n,,n=,r=abc", b"SCRAM-SHA-256-PLUS"),
        initial(b"p=tls-server-end-point,,n=,r=abc"),
        initial(b"n,a=bob,n=,r=abc"),
        initial(b"n,,r=abc"),
        initial(b"n,,n=,r="),
        initial(b"n,,n=,r=\x01"),
        initial(b"n,,m=must,n=,r=abc"),
        initial(b"\xff\xfe"),
        initial(b""),
        frames.build(b"p", b"SCRAM-SHA-256\0\xff\xff\xff\xff"),
        frames.build(b"p", b"SCRAM-SHA-256\0\0\0\0\x09n,,n=,r=abc"),
        frames.build(b"p", b"a plain password\0"),
        frames.build(b"p", b""),
        frames.query("DELETE FROM notes"),
        b"p" + (10_005).to_bytes(4),
        b"p\0\0\0\0",
    ],
)
def test_a_malformed_proof_is_refused(plain: Relay, message: bytes) -> None:
    """Whatever else comes in the place of SCRAM's first message gets an error, and the end."""
    with plain.raw() as raw:
        raw.send(start(user="ana", database="postgres"))
        raw.message()
        raw.send(message)
        assert refusal(raw).code == "08P01"
    assert isinstance(plain.outcome(), SentAway)


@pytest.mark.parametrize(
    "change",
    [
        lambda last: last.replace(b"r=", b"r=x"),
        lambda last: last.replace(b"c=biws", b"c=eSws"),
        lambda last: last[: last.index(b",p=")],
        lambda last: last[: last.index(b",p=")] + b",p=YWJj",
        lambda last: last[: last.index(b",p=")] + b",p=***",
        lambda last: last.replace(b",p=", b",x=1,p="),
    ],
    ids=["nonce", "binding", "no proof", "short proof", "no base64", "extension"],
)
def test_a_last_message_of_another_exchange_is_refused(plain: Relay, change: object) -> None:
    """The nonce, the binding and the proof are those of this exchange, or nobody comes in."""
    alter = cast("type[bytes]", change)
    with plain.raw() as raw:
        raw.send(start(user="ana", database="postgres"))
        raw.message()
        client = ScramClient(["SCRAM-SHA-256"], "ana", plain.secret.password)
        raw.send(initial(client.get_client_first().encode()))
        client.set_server_first(raw.message()[1][4:].decode())
        raw.send(frames.build(b"p", alter(client.get_client_final().encode())))
        assert refusal(raw).code == "08P01"


def test_a_proof_is_good_once(plain: Relay) -> None:
    """A proof that was heard on one connection does not open another."""
    client = ScramClient(["SCRAM-SHA-256"], "ana", plain.secret.password, c_nonce="abc")
    with plain.raw() as raw, plain.raw() as other:
        for one in (raw, other):
            one.send(start(user="ana", database="postgres"))
            one.message()
            one.send(initial(b"n,,n=ana,r=abc"))
        client.get_client_first()
        client.set_server_first(raw.message()[1][4:].decode())
        last = frames.build(b"p", client.get_client_final().encode())
        other.message()
        other.send(last)
        assert refusal(other).code == "08P01"
        raw.send(last)
        assert raw.message()[1][:4] == b"\0\0\0\x0c"


def test_no_secret_is_in_a_text() -> None:
    """What is shown of a secret has neither password nor keys in it."""
    secret = clients.Secret(frozenset({"ana"}), "tellnobody")
    assert "tellnobody" not in repr(secret)
    assert "key" not in repr(secret.verifier)


def test_a_password_that_clients_would_change_is_none() -> None:
    """A secret that is not ASCII is a mistake of ours: clients prepare such ones differently."""
    with pytest.raises(ValueError, match="ASCII"):
        clients.Secret(frozenset({"ana"}), "caf\N{LATIN SMALL LETTER E WITH ACUTE}")


# --- the pipe, and bytes at random -------------------------------------------------------------


class Recording(asyncio.Transport):
    """A transport that keeps what is written; its other end is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self._reads = True
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    def pause_reading(self) -> None:
        self._reads = False

    def resume_reading(self) -> None:
        self._reads = True

    def is_reading(self) -> bool:
        return self._reads


SECRET = clients.Secret(frozenset({"ana"}), "secret")


def greeted(pieces: list[bytes]) -> tuple[object, bytes]:
    """Return what becomes of a client that sends `pieces` and hangs up, and what it was told."""

    async def meet() -> tuple[object, bytes]:
        pipe, transport = Pipe(), Recording()
        pipe.connection_made(transport)
        task = asyncio.ensure_future(clients.greet(pipe, SECRET, None))
        for piece in pieces:
            await asyncio.sleep(0)
            pipe.data_received(piece)
        await asyncio.sleep(0)
        pipe.connection_lost(None)
        try:
            return await task, transport.written
        except ClosedError as error:
            return error, transport.written

    return asyncio.run(meet())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return `data` in pieces."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False) if b > a]


# No NUL, and no half of a surrogate pair: neither is text of the protocol.
TEXT = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
BEGINNINGS = st.sampled_from(
    [b"", TLS_ASKED, GSS_ASKED, start(user="ana"), start(user="ana") + initial(b"n,,n=,r=abc")]
)


@given(beginning=BEGINNINGS, noise=st.binary(max_size=200), places=st.lists(st.integers(0, 400)))
def test_no_bytes_break_the_greeting(beginning: bytes, noise: bytes, places: list[int]) -> None:
    """Whatever a client sends and however it is cut, it is refused or gone, and never let in."""
    outcome, told = greeted(cut(beginning + noise, places))
    assert isinstance(outcome, SentAway | CancelAsked | ClosedError)
    assert b"R\0\0\0\x08\0\0\0\0" not in told


@given(
    name=st.text(TEXT, min_size=1, max_size=20),
    value=st.text(TEXT, max_size=20),
    places=st.lists(st.integers(0, 200)),
)
def test_a_start_is_read_however_it_is_cut(name: str, value: str, places: list[int]) -> None:
    """The cuts of the network change nothing in what a start says."""
    data = start(3 << 16, **{"user": "ana", name: value})
    whole = greeted([data])
    assert greeted(cut(data, places))[0].__class__ is whole[0].__class__
    assert greeted(cut(data, places))[1] == whole[1]


def test_a_flood_is_not_kept() -> None:
    """A peer that sends more than is read is paused; what came is handed over whole."""

    async def flood() -> None:
        pipe, transport = Pipe(), Recording()
        pipe.connection_made(transport)
        sent = 0
        while transport.is_reading():
            pipe.data_received(bytes(4096))
            sent += 4096
        assert LARGEST_BYTES < sent <= LARGEST_BYTES + 2 * 4096
        assert await pipe.read(10) == bytes(10)
        assert len(pipe.leftover()) == sent - 10
        waiting = asyncio.ensure_future(pipe.read(1))
        await asyncio.sleep(0)
        assert transport.is_reading()
        pipe.data_received(b"x")
        assert await waiting == b"x"

    asyncio.run(flood())


def test_what_a_guard_says_has_no_holes() -> None:
    """A zero in a text does not end its field, and an empty field is left out."""
    frame = clients.error("FATAL", "HR000", "no\0more", hint="ask")
    assert frame[5:] == b"SFATAL\0VFATAL\0CHR000\0Mnomore\0Hask\0\0"
    assert int.from_bytes(frame[1:5]) == len(frame) - 1
