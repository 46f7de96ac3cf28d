"""Servers that take notices on loopback: a web hook that behaves as told, a mail server, and TLS.

Rules:
- What came is kept, for the test to look at; what is answered is set before.
- Each ends with its `with`; nothing waits but for a condition.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


@dataclass
class Sent:
    """One request, as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Hook:
    """A web hook.

    Attributes:
        url: where it is.
        sent: what came, in order.
        answers: what is answered, in order: a status, or a function that does it all; 200 when
            they are used up.
        headers: that go with each answer.
    """

    url: str
    sent: list[Sent] = field(default_factory=list)
    answers: list[int | Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def run_hook(tls: ssl.SSLContext | None = None) -> Iterator[Hook]:
    """Run a web hook at a free port of 127.0.0.1."""
    hook = Hook("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.sent.append(Sent(self.path, dict(self.headers), body))
            answer = hook.answers.pop(0) if hook.answers else 200
            if callable(answer):
                answer(self)
                return
            self.send_response(answer)
            for name, value in hook.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hung up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "https" if tls is not None else "http"
    hook.url = f"{scheme}://127.0.0.1:{server.server_port}/hook?key=s3cret-in-the-address"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Mails:
    """A mail server.

    Attributes:
        port: of 127.0.0.1.
        came: envelopes, in order.
        users: who may log in, to their passwords.
        refuse: the answer to each mail; empty to take it.
    """

    port: int = 0
    came: list[Envelope] = field(default_factory=list)
    users: dict[str, str] = field(default_factory=dict)
    refuse: str = ""
    logged_in: list[str] = field(default_factory=list)

    async def handle_DATA(  # noqa: N802  the library's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Keep a mail, or refuse it."""
        if self.refuse:
            return self.refuse
        self.came.append(envelope)
        return "250 kept"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        """Let in who is known."""
        assert isinstance(data, LoginPassword)
        user, password = data.login.decode(), data.password.decode()
        if self.users.get(user) != password:
            return AuthResult(success=False, handled=False)
        self.logged_in.append(user)
        return AuthResult(success=True)


class _FreePort(Controller):
    """Listens at whatever port is free."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]  # the library's


@contextmanager
def run_mails(
    tls: ssl.SSLContext | None = None, *, is_tls_first: bool = False, users: Mapping[str, str] = {}
) -> Iterator[Mails]:
    """Run a mail server: with STARTTLS and log-in where there is `tls`, or TLS from the start."""
    mails = Mails(users=dict(users))
    options: dict[str, Any] = {"hostname": "127.0.0.1", "port": 0, "server_hostname": "127.0.0.1"}
    if tls is not None:
        options |= {"ssl_context": tls} if is_tls_first else {"tls_context": tls}
        options |= {"require_starttls": not is_tls_first}
    if users:
        options |= {
            "authenticator": mails.authenticate,
            "auth_required": True,
            "auth_require_tls": not is_tls_first,
        }
    controller = _FreePort(mails, **options)
    controller.start()
    mails.port = controller.port
    try:
        yield mails
    finally:
        controller.stop()


def make_certificate(at: Path, *, lasts: timedelta = timedelta(days=1)) -> Path:
    """Write a certificate for 127.0.0.1, signed by itself, with its key, and return its path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + lasts)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    at.write_bytes(made.public_bytes(Encoding.PEM) + own)
    return at


def serving(certificate: Path) -> ssl.SSLContext:
    """Return what a server shows `certificate` by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
