"""The store's side of a guard: how it gets in to a server, and when it does not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import pwd
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from handrail.errors import StoreError
from handrail.wire.postgres import frames, tls, upstream
from handrail.wire.postgres.pipe import ClosedError, GarbledError, Pipe
from handrail.wire.postgres.upstream import ServerRefused, Upstream, read_server
from support.opening import KEY_PASSWORD, ODD_PASSWORD, SecureServer, run_secure_server

T = TypeVar("T")


@pytest.fixture(scope="module")
def server() -> Iterator[SecureServer]:
    """A server with TLS, and a role for each way of authentication."""
    yield from run_secure_server()


async def asked(opened: Upstream, query: str) -> list[tuple[str | None, ...]]:
    """Return the rows of a query on a connection that has just been opened."""
    pipe = Pipe()
    pipe.transport = opened.transport
    opened.transport.set_protocol(pipe)
    opened.transport.resume_reading()
    opened.transport.write(frames.query(query))
    rows = []
    while True:
        kind, body = await pipe.read_message()
        assert kind != ord("E"), frames.said(body)
        if kind == ord("D"):
            rows.append(frames.columns(body))
        if kind == ord("Z"):
            return rows


async def close(opened: Upstream) -> None:
    """End a connection, and wait until it has ended."""
    pipe = Pipe()
    pipe.transport = opened.transport
    opened.transport.set_protocol(pipe)
    opened.transport.resume_reading()
    opened.transport.write(frames.TERMINATE)
    await pipe.ended()


def told(url: str, query: str = "SELECT current_user", **settings: str) -> str | None:
    """Return the first value of a query, asked over a connection opened by `connect`."""

    async def ask() -> str | None:
        opened = await upstream.connect(read_server(url), settings)
        rows = await asked(opened, query)
        await close(opened)
        return rows[0][0]

    return uvloop.run(ask())


def opened(url: str) -> None:
    """Open a connection, and end it."""
    told(url)


ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


# --- ways of authentication --------------------------------------------------------------------


@pytest.mark.parametrize("role", ["trusting", "clear", "hashed", "scrammed"])
def test_each_way_of_authentication_lets_in(server: SecureServer, role: str) -> None:
    """Trust, a plain password, MD5 and SCRAM-SHA-256 each open a connection as their role."""
    assert told(server.url(role)) == role


@pytest.mark.parametrize("role", ["clear", "hashed", "scrammed"])
def test_a_wrong_password_keeps_the_servers_words(server: SecureServer, role: str) -> None:
    """A refusal has the server's own ErrorResponse, code and text."""
    with pytest.raises(
        ServerRefused, match=f'password authentication failed for user "{role}"'
    ) as no:
        opened(server.url(role, password="wrong"))
    assert no.value.code == "28P01"
    assert b"C28P01\0" in no.value.body
    assert no.value.body.endswith(b"\0\0")


def test_an_address_without_a_password_says_so(server: SecureServer) -> None:
    """Where the server asks for a password and there is none, that is the error."""
    with pytest.raises(StoreError, match="the store's address has none"):
        opened(server.url("scrammed", password=""))


def test_a_password_that_saslprep_forbids_is_taken_as_it_is(server: SecureServer) -> None:
    """A password with a character that SCRAM would forbid works, as with libpq."""
    assert told(server.url("odd", password=ODD_PASSWORD)) == "odd"


def test_a_database_that_does_not_exist_is_the_servers_to_refuse(server: SecureServer) -> None:
    """What comes after authentication is refused in the server's words too."""
    url = server.url("scrammed").replace("/postgres?", "/nothing?")
    with pytest.raises(ServerRefused) as no:
        opened(url)
    assert no.value.code == "3D000"


@pytest.mark.parametrize(
    ("role", "wanted", "goes"),
    [
        ("scrammed", "scram-sha-256", True),
        ("scrammed", "!scram-sha-256", False),
        ("hashed", "scram-sha-256,md5", True),
        ("hashed", "scram-sha-256", False),
        ("clear", "!password", False),
        ("trusting", "none", True),
        ("trusting", "!none", False),
        ("trusting", "scram-sha-256", False),
    ],
)
def test_require_auth_is_kept(server: SecureServer, role: str, wanted: str, goes: bool) -> None:
    """A way of authentication that the address forbids is refused before a password is sent."""
    url = server.url(role, require_auth=wanted)
    if goes:
        assert told(url) == role
    else:
        with pytest.raises(StoreError, match="require_auth does not allow"):
            opened(url)


# --- TLS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "mode", "encrypted"),
    [
        ("scrammed", "disable", "f"),
        ("scrammed", "allow", "f"),
        ("scrammed", "prefer", "t"),
        ("scrammed", "require", "t"),
        ("only_tls", "allow", "t"),
        ("only_tls", "require", "t"),
        ("only_plain", "prefer", "f"),
        ("only_plain", "allow", "f"),
    ],
)
def test_sslmode_chooses_as_libpq_does(
    server: SecureServer, role: str, mode: str, encrypted: str
) -> None:
    """Whether a connection is encrypted follows from `sslmode` and what the server lets in."""
    assert told(server.url(role, sslmode=mode), ENCRYPTED) == encrypted


@pytest.mark.parametrize(("role", "mode"), [("only_tls", "disable"), ("only_plain", "require")])
def test_sslmode_never_does_what_it_rules_out(server: SecureServer, role: str, mode: str) -> None:
    """A role that may only come the other way is refused, in the server's words."""
    with pytest.raises(ServerRefused, match="rejects connection") as no:
        opened(server.url(role, sslmode=mode))
    assert no.value.code == "28000"


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_a_known_certificate_is_accepted(server: SecureServer, mode: str) -> None:
    """With the right root certificate every mode opens."""
    url = server.url("scrammed", sslmode=mode, sslrootcert=server.file("root.crt"))
    assert told(url, ENCRYPTED) == "t"


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_a_strangers_certificate_is_refused(server: SecureServer, mode: str) -> None:
    """With another root certificate none does, `require` included."""
    url = server.url("scrammed", sslmode=mode, sslrootcert=server.file("stranger.crt"))
    with pytest.raises(ssl.SSLCertVerificationError):
        opened(url)


def test_verify_full_compares_the_name(server: SecureServer) -> None:
    """A certificate for another name passes `verify-ca`, and not `verify-full`."""
    there = {"host": "db.example", "sslrootcert": server.file("root.crt")}
    assert told(server.url("scrammed", sslmode="verify-ca", **there), ENCRYPTED) == "t"
    with pytest.raises(ssl.SSLCertVerificationError, match=r"db\.example"):
        opened(server.url("scrammed", sslmode="verify-full", **there))


def test_a_missing_root_certificate_refuses(server: SecureServer) -> None:
    """`verify-ca` without anything to verify with is an error of the address."""
    url = server.url("scrammed", sslmode="verify-ca", sslrootcert=server.file("none.crt"))
    with pytest.raises(StoreError, match="does not exist"):
        opened(url)


def test_a_revoked_certificate_is_refused(server: SecureServer) -> None:
    """A list of revoked certificates counts."""
    given = {"sslmode": "verify-ca", "sslrootcert": server.file("root.crt")}
    assert told(server.url("scrammed", sslcrl=server.file("nobody.crl"), **given)) == "scrammed"
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        opened(server.url("scrammed", sslcrl=server.file("server.crl"), **given))


def test_a_client_certificate_lets_in(server: SecureServer) -> None:
    """A role that comes by certificate alone does, its key protected by a password."""
    given = {"sslcert": server.file("certified.crt"), "sslkey": server.file("certified.key")}
    url = server.url("certified", sslmode="require", password="", sslpassword=KEY_PASSWORD, **given)
    assert told(url) == "certified"
    with pytest.raises(ServerRefused, match="valid client certificate"):
        opened(server.url("certified", sslmode="require", password=""))


def test_a_key_without_its_password_asks_nobody(server: SecureServer) -> None:
    """A protected key whose password is not given is an error, not a question at the terminal."""
    given = {"sslcert": server.file("certified.crt"), "sslkey": server.file("certified.key")}
    with pytest.raises(StoreError, match="settings for TLS"):
        opened(server.url("certified", sslmode="require", **given))


def test_direct_negotiation_begins_with_tls(server: SecureServer) -> None:
    """`sslnegotiation=direct` needs no question first, where the server knows it."""
    url = server.url("scrammed", sslmode="require", sslnegotiation="direct")
    if server.major >= 17:
        assert told(url, ENCRYPTED) == "t"
    else:
        with pytest.raises(OSError):  # noqa: PT011  whatever an older server makes of it
            opened(url)


# --- channel binding ---------------------------------------------------------------------------


@pytest.mark.parametrize("binding", ["disable", "prefer", "require"])
def test_channel_binding_works_over_tls(server: SecureServer, binding: str) -> None:
    """SCRAM is bound to a certificate signed with SHA-384, or not, as the address says."""
    url = server.url("scrammed", sslmode="require", channel_binding=binding)
    assert told(url, ENCRYPTED) == "t"


@pytest.mark.parametrize(
    ("role", "mode"),
    [("scrammed", "disable"), ("hashed", "require"), ("clear", "require"), ("trusting", "require")],
)
def test_required_channel_binding_refuses_what_has_none(
    server: SecureServer, role: str, mode: str
) -> None:
    """Without TLS, or where the server asks for less than SCRAM, nobody gets in."""
    with pytest.raises(StoreError, match="channel binding is required"):
        opened(server.url(role, sslmode=mode, channel_binding="require"))


# --- addresses ---------------------------------------------------------------------------------


def test_a_unix_socket_is_reached(server: SecureServer) -> None:
    """A directory as the host means its socket; `sslmode` says nothing there."""
    url = server.url("scrammed", host=str(server.sockets), sslmode="verify-full")
    assert told(url, "SELECT inet_server_addr() IS NULL") == "t"


def test_requirepeer_names_who_listens(server: SecureServer) -> None:
    """A socket of another user than the address names is refused."""
    user = pwd.getpwuid(os.stat(server.sockets / f".s.PGSQL.{server.port}").st_uid).pw_name  # noqa: PTH116
    there = str(server.sockets)
    assert told(server.url("scrammed", host=there, requirepeer=user)) == "scrammed"
    with pytest.raises(StoreError, match="another user than daemon"):
        opened(server.url("scrammed", host=there, requirepeer="daemon"))


def test_ipv6_is_reached(server: SecureServer) -> None:
    """An address of IPv6 is one like any other."""
    try:
        socket.create_connection(("::1", server.port), timeout=5).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    url = server.url("scrammed", host="::1", hostaddr="::1")
    assert told(url, "SELECT host(inet_server_addr())") == "::1"


def test_the_next_host_is_tried(server: SecureServer) -> None:
    """Of several hosts the first that answers is taken."""
    url = (
        f"postgresql://trusting@/postgres?host=/nowhere,127.0.0.1&port={server.port}"
        "&sslmode=disable"
    )
    assert told(url) == "trusting"


def test_a_host_that_is_none_is_an_error_of_the_system(server: SecureServer) -> None:
    """A name that nobody knows, and a port where nobody listens, are told apart from refusals."""
    with pytest.raises(OSError):  # noqa: PT011  the resolver's words
        opened("postgresql://ana@handrail.invalid/postgres?sslmode=disable")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            opened(f"postgresql://ana@127.0.0.1:{port}/postgres")


def test_a_server_that_says_nothing_is_given_up() -> None:
    """A server that accepts and stays silent costs the time of `connect_timeout`, no more."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TimeoutError, match=f"127.0.0.1:{port} did not answer within 1 s"):
            opened(f"postgresql://ana@127.0.0.1:{port}/postgres?connect_timeout=1")


def test_no_secret_is_in_the_text_of_a_server() -> None:
    """What is shown of an address has no password in it."""
    server = read_server("postgresql://ana:secret1@h/d?sslpassword=secret2&options=-crole%3Dx")
    assert "secret" not in repr(server)
    assert (server.user, server.database, str(server.places[0])) == ("ana", "d", "h:5432")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ana:secret@h:port/d",
        "postgresql://h/d?password=secret",
        "dbname=d user=ana password=secret",
        "host=a,b,c port=1,2 user=ana password=secret",
        "host=h user=ana password=secret sslmode=never",
        "host=h user=ana password=secret sslmode=prefer sslnegotiation=direct",
        "host=h user=ana password=secret gssencmode=require",
        "host=h user=ana password=secret nonsense=1",
        "host=h user=ana password=secret connect_timeout",
    ],
)
def test_an_address_that_cannot_be_used_says_so(url: str) -> None:
    """What is misspelt or impossible is refused before anything is opened, without the password."""
    with pytest.raises(StoreError) as error:
        read_server(url)
    assert error.value.code == "store.url"
    assert "secret" not in str(error.value)


# --- what is open ------------------------------------------------------------------------------


def test_settings_begin_with_the_connection(server: SecureServer) -> None:
    """The client's settings, and the options of both, are the session's own from its start."""
    url = server.url("scrammed", options="-c work_mem=1234kB -c statement_timeout=77")
    query = (
        "SELECT current_setting('work_mem') || ' ' || current_setting('statement_timeout')"
        " || ' ' || current_setting('application_name')"
    )
    found = told(
        url,
        query,
        options="-c statement_timeout=88",
        application_name="caf\N{LATIN SMALL LETTER E WITH ACUTE}",
    )
    assert found is not None
    assert found.startswith("1234kB 88ms caf")


def test_what_is_opened_says_who_it_is(server: SecureServer) -> None:
    """Settings, process and key are those of the server's own."""

    async def look() -> None:
        made = await upstream.connect(
            read_server(server.url("scrammed")), {"TimeZone": "Asia/Tokyo"}
        )
        assert made.statuses["TimeZone"] == "Asia/Tokyo"
        assert made.statuses["session_authorization"] == "scrammed"
        assert len(made.key) == 4
        assert await asked(made, "SELECT pg_backend_pid()") == [(str(made.pid),)]
        assert "key" not in repr(made)
        await close(made)

    uvloop.run(look())


@pytest.mark.parametrize("mode", ["disable", "require"])
def test_a_connection_is_cancelled(server: SecureServer, mode: str) -> None:
    """`cancel` ends what the connection does, over TLS where that is what it had."""

    async def cancelled() -> str:
        server_ = read_server(server.url("scrammed", sslmode=mode))
        made = await upstream.connect(server_, {})
        pipe = Pipe()
        pipe.transport = made.transport
        made.transport.set_protocol(pipe)
        made.transport.resume_reading()
        # A notice is sent at once: when it is here, the query runs.
        running = "DO $$ BEGIN RAISE NOTICE 'running'; END $$; SELECT pg_sleep(600)"
        made.transport.write(frames.query(running))
        while (await pipe.read_message())[0] != ord("N"):
            pass
        while True:
            assert await upstream.cancel(made)
            async with asyncio.timeout(10):
                kind, body = await pipe.read_message()
            if kind == ord("E"):
                break
        await close(made)
        return frames.said(body).code

    assert uvloop.run(cancelled()) == "57014"


def test_cancelling_where_nobody_answers_is_no_error() -> None:
    """A request that nobody takes says so, and raises nothing."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = upstream.Place("127.0.0.1", unused.getsockname()[1])

        async def ask() -> bool:
            return await upstream.cancel(Upstream(asyncio.Transport(), {}, 1, b"1234", place=place))

        assert not uvloop.run(ask())


# --- servers that mean no good -----------------------------------------------------------------

Play = Callable[[Pipe], Awaitable[None]]


def meeting(play: Play, **more: str) -> None:
    """Connect to a server that does what `play` says."""
    more = {"sslmode": "disable", "connect_timeout": "10", **more}

    async def meet() -> None:
        tasks: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()

        async def perform(pipe: Pipe) -> None:
            try:
                await play(pipe)
            except ClosedError:
                return

        def arrived(pipe: Pipe) -> None:
            tasks.append(loop.create_task(perform(pipe)))

        listener = await loop.create_server(lambda: Pipe(arrived), "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        rest = "&".join(f"{name}={value}" for name, value in more.items())
        url = f"postgresql://ana:secret@127.0.0.1:{port}/d?{rest}"
        try:
            await upstream.connect(read_server(url), {})
        finally:
            listener.close()
            await asyncio.gather(*tasks)

    uvloop.run(meet())


def ask(code: int, data: bytes = b"") -> bytes:
    """Return an authentication request."""
    return frames.build(b"R", code.to_bytes(4) + data)


async def started(pipe: Pipe) -> None:
    """Read a StartupMessage."""
    await pipe.read(int.from_bytes(await pipe.read(4)) - 4)


async def offered(pipe: Pipe, names: bytes = b"SCRAM-SHA-256\0\0") -> str:
    """Offer SCRAM, and return the client's nonce."""
    await started(pipe)
    pipe.transport.write(ask(10, names))
    _, body = await pipe.read_message()
    found = re.search(rb"r=([^,]+)$", body)
    assert found is not None
    return found[1].decode()


SALT = base64.b64encode(b"0123456789abcdef").decode()


def continuing(nonce: str, iterations: int) -> Play:
    """Return a server that answers the first message so; `{}` is the client's nonce."""

    async def play(pipe: Pipe) -> None:
        said = nonce.format(await offered(pipe))
        pipe.transport.write(ask(11, f"r={said},s={SALT},i={iterations}".encode()))
        await pipe.ended()

    return play


@pytest.mark.parametrize("iterations", [1_000_001, 10_000_000, 10**12])
def test_a_bomb_of_iterations_is_not_worked_off(iterations: int) -> None:
    """A server that asks for more work than is sane gets none."""
    with pytest.raises(StoreError, match=r"iterations of SCRAM|must not be >"):
        meeting(continuing("{}more", iterations))


@pytest.mark.parametrize("nonce", ["{}", "other", "x{}"])
def test_a_wrong_nonce_is_refused(nonce: str) -> None:
    """An answer that does not go on from our nonce is nobody's."""
    with pytest.raises(StoreError, match="nonce"):
        meeting(continuing(nonce, 4096))


def final(proof: Callable[[str], bytes]) -> Play:
    """Return a server that goes through SCRAM, and sends `proof` of the exchange at its end."""

    async def play(pipe: Pipe) -> None:
        nonce = await offered(pipe)
        first = f"n=-,r={nonce}"
        answer = f"r={nonce}more,s={SALT},i=4096"
        pipe.transport.write(ask(11, answer.encode()))
        _, body = await pipe.read_message()
        without = body.decode().rpartition(",p=")[0]
        pipe.transport.write(proof(f"{first},{answer},{without}"))
        await pipe.ended()

    return play


def signature(said: str, password: str) -> bytes:
    """Return the message by which a server proves the password."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(SALT), 4096)
    key = hmac.digest(salted, b"Server Key", "sha256")
    return ask(12, b"v=" + base64.b64encode(hmac.digest(key, said.encode(), "sha256")))


def test_a_server_that_does_not_know_the_password_is_refused() -> None:
    """A server has to prove the password too; these means of proof do work when it is right."""
    with pytest.raises(StoreError, match="server signature doesn't match"):
        meeting(final(lambda said: signature(said, "guess")))
    with pytest.raises(ServerRefused, match="reached"):
        meeting(
            final(
                lambda said: (
                    signature(said, "secret") + ask(0) + frames.build(b"E", b"Mreached\0\0")
                )
            )
        )


def test_a_server_that_skips_its_proof_is_refused() -> None:
    """`AuthenticationOk` instead of the server's proof is not enough."""
    with pytest.raises(GarbledError):
        meeting(final(lambda _: ask(0)))


def test_the_password_is_not_given_after_scram() -> None:
    """A server that has seen SCRAM's proof cannot ask for the plain password then."""
    with pytest.raises(GarbledError, match="twice"):
        meeting(final(lambda said: signature(said, "secret") + ask(3)))


def saying(data: bytes) -> Play:
    """Return a server that answers the start so."""

    async def play(pipe: Pipe) -> None:
        await started(pipe)
        pipe.transport.write(data)
        await pipe.ended()

    return play


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (ask(7), "GSSAPI"),
        (ask(9), "SSPI"),
        (ask(10, b"OAUTHBEARER\0\0"), "OAUTHBEARER"),
        (ask(77), "of its own"),
    ],
)
def test_another_way_of_authentication_is_named(data: bytes, name: str) -> None:
    """What the guard does not know is said, with what to do instead."""
    with pytest.raises(StoreError, match=name) as error:
        meeting(saying(data))
    assert error.value.code == "store.unsupported"
    assert "scram-sha-256" in error.value.hint


@pytest.mark.parametrize(
    "data",
    [
        ask(10, b"SCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0\0"),
        b"R" + (64 * 1024 + 5).to_bytes(4),
        b"R\0\0\0\0",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frames.build(b"Z", b"I"),
        ask(0) + frames.build(b"T"),
        ask(0) + frames.build(b"S", b"only a name\0"),
        frames.build(b"E", b"Cno end"),
    ],
    ids=["plus without TLS", "large", "small", "http", "ready", "odd", "setting", "error"],
)
def test_what_is_not_the_protocol_is_refused(data: bytes) -> None:
    """A message that is too large, malformed or out of place breaks the connection off."""
    with pytest.raises(GarbledError):
        meeting(saying(data))


def test_a_server_that_hangs_up_is_an_error() -> None:
    """The end in the midst of a message is an error at once, not a wait."""

    async def play(pipe: Pipe) -> None:
        await started(pipe)
        pipe.transport.write(b"R\0\0")
        pipe.transport.close()

    with pytest.raises(ClosedError):
        meeting(play)


def answering(data: bytes) -> Play:
    """Return a server that answers the request for TLS so."""

    async def play(pipe: Pipe) -> None:
        await pipe.read(8)
        pipe.transport.write(data)
        await pipe.ended()

    return play


@pytest.mark.parametrize(
    "data", [b"S" + ask(0), b"E" + b"Sdo as I say\0", b"?"], ids=["injected", "error", "else"]
)
def test_nothing_counts_that_came_before_tls(data: bytes) -> None:
    """Bytes in plain text behind the server's yes are refused, and so is any other answer."""
    with pytest.raises(GarbledError, match="request for TLS"):
        meeting(answering(data), sslmode="require")


def test_a_no_to_tls_ends_what_requires_it() -> None:
    """Where TLS is required, a server without it is an error."""
    with pytest.raises(ConnectionError, match="TLS is required"):
        meeting(answering(b"N"), sslmode="require")


def test_odd_certificates_have_no_binding() -> None:
    """What is no certificate gives nothing to bind to, and no error."""
    assert tls.end_point(b"nonsense") is None


def test_nothing_that_arrives_early_is_lost(tmp_path: Path) -> None:
    """Bytes beyond a server's being ready, and its notices, are handed over."""
    notice = frames.build(b"N", b"SWARNING\0Mmind\0\0")
    early = frames.build(b"A", b"\0\0\0\1channel\0payload\0")
    path = tmp_path / ".s.PGSQL.5432"

    async def play(pipe: Pipe) -> None:
        await started(pipe)
        pipe.transport.write(
            frames.build(b"v", bytes(8))
            + notice
            + ask(0)
            + notice
            + frames.build(b"Z", b"I")
            + early
        )

    async def meet() -> Upstream:
        loop = asyncio.get_running_loop()
        tasks: list[Coroutine[Any, Any, None]] = []
        listener = await loop.create_unix_server(
            lambda: Pipe(lambda pipe: tasks.append(loop.create_task(play(pipe)))),  # type: ignore[arg-type]  # a task is awaited like it
            str(path),
        )
        made = await upstream.connect(read_server(f"postgresql://ana@/d?host={tmp_path}"), {})
        made.transport.abort()
        listener.close()
        await asyncio.gather(*tasks)
        return made

    made = uvloop.run(meet())
    assert made.leftover == early
    assert made.notices == notice
    assert made.pid == 0
