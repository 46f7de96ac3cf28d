"""Both ends of a guarded connection by themselves: a server with TLS, and a relay of nothing else.

Rules:
- The server's `pg_hba.conf` lets each role in by one way of authentication, named as the role.
- The relay greets as a guard does and passes the rest on unread.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import queue
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from psycopg import sql
from scramp import ScramClient

from handrail.adapters.postgres import scratch
from handrail.wire.postgres import clients, frames, upstream
from handrail.wire.postgres.pipe import Pipe
from handrail.wire.serving import Loop
from support.postgres_server import server_binaries

PASSWORD = "p%w d:/@?#'"
# Forbidden by SASLprep: server and libpq take it as it is.
ODD_PASSWORD = "pass\N{SNOWMAN}\U0001f680word"
KEY_PASSWORD = "of the key"
ROLES = ("trusting", "clear", "hashed", "scrammed", "only_tls", "only_plain", "certified", "odd")
HBA = """
local all trusting trust
local all all scram-sha-256
host all trusting all trust
host all clear all password
host all hashed all md5
hostssl all only_tls all scram-sha-256
hostnossl all only_plain all scram-sha-256
hostssl all certified all cert
host all only_tls,only_plain,certified all reject
host all all all scram-sha-256
"""


# --- certificates ------------------------------------------------------------------------------


class Authority:
    """Who signs certificates in tests."""

    def __init__(self, folder: Path, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.folder = folder
        self.path = folder / f"{name}.crt"
        made = self._built(self.name, self.key.public_key())
        signed = made.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        self.path.write_bytes(signed.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def _built(self, subject: x509.Name, key: Any) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=2))
        )

    def sign(
        self, name: str, *, password: str = "", hosts: tuple[str, ...] = ()
    ) -> x509.Certificate:
        """Write `name.crt` and `name.key`; by SHA-384, so that a fixed SHA-256 would not do."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._built(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key()
        )
        if hosts:
            found = [
                x509.IPAddress(ipaddress.ip_address(host))
                if host[0].isdigit()
                else x509.DNSName(host)
                for host in hosts
            ]
            made = made.add_extension(x509.SubjectAlternativeName(found), critical=False)
        signed = made.sign(self.key, hashes.SHA384())
        how = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        secret = self.folder / f"{name}.key"
        secret.touch(mode=0o600)
        secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
        (self.folder / f"{name}.crt").write_bytes(signed.public_bytes(Encoding.PEM))
        return signed

    def revoke(self, name: str, *revoked: x509.Certificate) -> Path:
        """Write a list of revoked certificates, and return where it is."""
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(now - dt.timedelta(days=1))
            .next_update(now + dt.timedelta(days=1))
        )
        for one in revoked:
            made = made.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(one.serial_number)
                .revocation_date(now - dt.timedelta(hours=1))
                .build()
            )
        path = self.folder / name
        path.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return path


# --- a server ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SecureServer:
    """A running server with TLS, and the files of those who trust it."""

    port: int
    major: int
    sockets: Path
    certificates: Path
    superuser: str

    def url(
        self, user: str, *, host: str = "localhost", password: str = PASSWORD, **more: str
    ) -> str:
        """Return an address; over 127.0.0.1 unless `hostaddr` or a socket says otherwise."""
        given = {"sslmode": "disable", **more}
        if not host.startswith("/"):
            given.setdefault("hostaddr", "127.0.0.1")
        rest = "".join(f"&{name}={quote(value, safe='')}" for name, value in given.items())
        word = f":{quote(password, safe='')}" if password else ""
        place = f"host={quote(host, safe='')}&port={self.port}"
        return f"postgresql://{user}{word}@/postgres?{place}{rest}"

    def file(self, name: str) -> str:
        """Return the path of a certificate, key or list."""
        return str(self.certificates / name)


def run_secure_server() -> Iterator[SecureServer]:
    """Give the server, and remove it with all its files afterwards."""
    binaries = server_binaries()
    if binaries is None:
        said = "no PostgreSQL programs here that the server's user may run"
        if os.environ.get("HANDRAIL_REQUIRE") == "all":
            pytest.fail(said)
        pytest.skip(said)
    argv = [binaries.program("pg_config"), "--configure"]
    if "ssl" not in subprocess.run(argv, capture_output=True, text=True, check=True).stdout:
        pytest.skip(f"this PostgreSQL {binaries.version} was built without TLS")
    at = Path(tempfile.mkdtemp(prefix="hrt-"))
    folder = Path(tempfile.mkdtemp(prefix="hrt-"))
    try:
        place = scratch.prepare(at)
        superuser, password = scratch.create(place, binaries)
        _write_certificates(folder)
        for name in ("root.crt", "server.crt", "server.key"):
            shutil.copy2(folder / name, place.data / name)
        (place.data / "pg_hba.conf").write_text(f"local all {superuser} scram-sha-256\n" + HBA)
        scratch.hand_over(place, place.data)
        settings = {
            "ssl": "on",
            "ssl_cert_file": "server.crt",
            "ssl_key_file": "server.key",
            "ssl_ca_file": "root.crt",
            "shared_buffers": "16MB",
            "listen_addresses": "127.0.0.1,::1",
        }
        port = scratch.start(place, place.data, binaries, settings)
        server = SecureServer(port, binaries.major, place.run, folder, superuser)
        url = server.url(superuser, host=str(place.run), password=password)
        with psycopg.connect(url, autocommit=True) as session:
            _make_roles(session)
        yield server
    finally:
        scratch.discard(at)
        shutil.rmtree(at, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _write_certificates(folder: Path) -> None:
    root = Authority(folder, "root")
    Authority(folder, "stranger")
    server = root.sign("server", hosts=("localhost", "127.0.0.1"))
    root.sign("certified", password=KEY_PASSWORD)
    root.revoke("nobody.crl")
    root.revoke("server.crl", server)


def _make_roles(session: psycopg.Connection[Any]) -> None:
    for role in ROLES:
        how = "md5" if role == "hashed" else "scram-sha-256"
        session.execute(sql.SQL("SET password_encryption = {}").format(how))
        session.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                sql.Identifier(role), sql.Literal(ODD_PASSWORD if role == "odd" else PASSWORD)
            )
        )


# --- a relay -----------------------------------------------------------------------------------


class _Passing(asyncio.Protocol):
    """Passes all that comes to the other side."""

    def __init__(self, other: asyncio.Transport) -> None:
        self._other = other

    def data_received(self, data: bytes) -> None:
        self._other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._other.close()


Outcome = clients.Client | clients.CancelAsked | clients.SentAway | Exception


class Relay:
    """Greets clients as a guard does, and passes them on to a server.

    Attributes:
        outcomes: what each connection was, in the order in which that was known.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        self.secret = clients.Secret(frozenset({"ana"}), secrets.token_hex(8))
        self.outcomes: queue.Queue[Outcome] = queue.Queue()
        self._server = upstream.read_server(url)
        self._context = context
        self._open: list[upstream.Upstream] = []
        self._pipes: list[Pipe] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.loop = Loop("handrail-test-relay")
        self._listener, self.port = self.loop.run(self._listen())

    async def _listen(self) -> tuple[asyncio.Server, int]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Pipe(self._arrived), "127.0.0.1", 0)
        return server, int(server.sockets[0].getsockname()[1])

    def _arrived(self, pipe: Pipe) -> None:
        self._pipes.append(pipe)
        task = asyncio.get_running_loop().create_task(self._serve(pipe))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, pipe: Pipe) -> None:
        try:
            greeted = await clients.greet(pipe, self.secret, self._context)
            if isinstance(greeted, clients.Client):
                await self._join(greeted)
            elif isinstance(greeted, clients.CancelAsked):
                for one in self._open:
                    if one.pid == greeted.pid and one.key == greeted.key:
                        await upstream.cancel(one)
                pipe.transport.close()
            self.outcomes.put(greeted)
        except upstream.ServerRefused as refused:
            pipe.transport.write(clients.frame_of(refused))
            pipe.transport.close()
            self.outcomes.put(refused)
        except Exception as error:  # noqa: BLE001  the test looks at it
            pipe.transport.close()
            self.outcomes.put(error)

    async def _join(self, client: clients.Client) -> None:
        given = {k: v for k, v in client.parameters.items() if k not in {"user", "database"}}
        opened = await upstream.connect(self._server, given)
        self._open.append(opened)
        left = client.pipe.leftover()
        client.pipe.transport.set_protocol(_Passing(opened.transport))
        opened.transport.set_protocol(_Passing(client.pipe.transport))
        hello = clients.ok() + b"".join(clients.status(n, v) for n, v in opened.statuses.items())
        hello += clients.key_data(opened.pid, opened.key) + clients.ready(ord("I"))
        client.pipe.transport.write(hello + opened.leftover)
        opened.transport.write(left)
        opened.transport.resume_reading()
        client.pipe.transport.resume_reading()

    def conninfo(self, *, user: str = "ana", password: str | None = None, **more: str) -> str:
        """Return how a client comes in."""
        given = {"host": "127.0.0.1", "dbname": "postgres", "sslmode": "disable", **more}
        given |= {"port": str(self.port), "user": user, "connect_timeout": "10"}
        word = self.secret.password if password is None else password
        return psycopg.conninfo.make_conninfo("", password=word, **given)

    def outcome(self) -> Outcome:
        """Return what the next connection was."""
        return self.outcomes.get(timeout=10)

    def raw(self) -> Raw:
        """Return a connection by bytes."""
        return Raw(socket.create_connection(("127.0.0.1", self.port), timeout=10))

    async def _end(self) -> None:
        self._listener.close()
        for made in self._open:
            made.transport.abort()
        for pipe in self._pipes:
            pipe.transport.abort()

    def close(self) -> None:
        """End it with all its connections."""
        self.loop.run(self._end())
        self.loop.stop()


@contextmanager
def relay(url: str, context: ssl.SSLContext | None = None) -> Iterator[Relay]:
    """Give a relay to the server at `url`."""
    made = Relay(url, context)
    try:
        yield made
    finally:
        made.close()


class Raw:
    """A client that sends what a test says."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def read(self, count: int) -> bytes:
        """Return exactly so many bytes; fewer only at the end."""
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                break
            data += piece
        return data

    def message(self) -> tuple[bytes, bytes]:
        """Return the next message's letter and body."""
        head = self.read(5)
        return head[:1], self.read(int.from_bytes(head[1:5]) - 4) if head else b""

    def is_closed(self) -> bool:
        """Wait for the other side's end; False when it says something instead."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def start(version: int = 3 << 16, **parameters: str) -> bytes:
    """Return a StartupMessage."""
    pairs = "".join(f"{name}\0{value}\0" for name, value in parameters.items())
    body = version.to_bytes(4) + pairs.encode(errors="surrogateescape") + b"\0"
    return (len(body) + 4).to_bytes(4) + body


def prove(raw: Raw, password: str, early: bytes = b"") -> None:
    """Go through SCRAM as a client does; `early` is sent together with the last message."""
    kind, body = raw.message()
    assert (kind, body) == (b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0")
    client = ScramClient(["SCRAM-SHA-256"], "anybody", password)
    first = client.get_client_first().encode()
    raw.send(frames.build(b"p", b"SCRAM-SHA-256\0" + len(first).to_bytes(4) + first))
    kind, body = raw.message()
    assert (kind, body[:4]) == (b"R", b"\0\0\0\x0b")
    client.set_server_first(body[4:].decode())
    raw.send(frames.build(b"p", client.get_client_final().encode()) + early)
    kind, body = raw.message()
    assert (kind, body[:4]) == (b"R", b"\0\0\0\x0c"), body
    client.set_server_final(body[4:].decode())


def until_ready(raw: Raw) -> list[tuple[bytes, bytes]]:
    """Return the messages up to ReadyForQuery."""
    found: list[tuple[bytes, bytes]] = []
    while not found or found[-1][0] != b"Z":
        found.append(raw.message())
        assert found[-1][0], "closed"
    return found
