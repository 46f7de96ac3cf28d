"""The command line against a server: where a token goes, and what is said when nobody answers."""

from __future__ import annotations

import datetime as dt
import http.server
import ipaddress
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from handrail.cli.client import Server
from handrail.errors import HandrailError
from support.served import Served, serving
from support.teams import ANA, make_team


def refusal(environment: Mapping[str, str]) -> str:
    """Return the code with which an address, or what is beside it, is refused."""
    with pytest.raises(HandrailError) as error:
        Server(environment).ask("GET", "/v1/whoami")
    return error.value.code


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://handrail.example:8321", "remote.insecure"),
        ("http://10.0.0.1", "remote.insecure"),
        ("http://127.0.0.1.example", "remote.insecure"),
        ("http://localhost.example", "remote.insecure"),
        ("ftp://127.0.0.1", "usage"),
        ("127.0.0.1:8321", "usage"),
        ("https://", "usage"),
        ("http://127.0.0.1:99999", "usage"),
    ],
)
def test_address(url: str, code: str) -> None:
    """A token goes to no other machine unencrypted, and nowhere without an address."""
    assert refusal({"HANDRAIL_URL": url, "HANDRAIL_TOKEN": "t"}) == code


@pytest.mark.parametrize("token", ["", "two words", "a\nb", "ü"])
def test_token(token: str) -> None:
    """Without a token, or with what cannot be one, nothing is asked."""
    found = refusal({"HANDRAIL_URL": "http://127.0.0.1:1", "HANDRAIL_TOKEN": token})
    assert found == "auth.missing"


def test_file_of_a_token(tmp_path: Path, served: Served) -> None:
    """A token is read from a file that nobody else can read, and from no other."""
    path = tmp_path / "token"
    path.write_text(served.token(ANA, "viewer") + "\n")
    environment = {"HANDRAIL_URL": served.url, "HANDRAIL_TOKEN_FILE": str(path)}
    path.chmod(0o644)
    assert refusal(environment) == "remote.insecure"
    path.chmod(0o600)
    assert Server(environment).ask("GET", "/v1/whoami")["person"] == ANA
    assert refusal(environment | {"HANDRAIL_TOKEN_FILE": str(tmp_path / "no")}) == "usage"


class Strange(http.server.BaseHTTPRequestHandler):
    """Answers what a Handrail server does not."""

    def do_GET(self) -> None:
        """Redirect, or answer a page."""
        self.server.seen.append(self.path)  # type: ignore[attr-defined]  # of this test
        if self.path.endswith("whoami"):
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/taken")  # type: ignore[attr-defined]  # an HTTP server's
        else:
            self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def strange() -> Iterator[http.server.HTTPServer]:
    """A server that is none of ours."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Strange)
    server.seen = []  # type: ignore[attr-defined]  # of this test
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_server_of_another_kind(strange: http.server.HTTPServer) -> None:
    """A page, or a redirect, is said to be no answer; the redirect is not followed."""
    url = f"http://127.0.0.1:{strange.server_port}"
    environment = {"HANDRAIL_URL": url, "HANDRAIL_TOKEN": "t"}
    assert refusal(environment) == "remote.answer"
    with pytest.raises(HandrailError) as error:
        Server(environment).ask("GET", "/v1/status")
    assert error.value.code == "remote.answer"
    assert strange.seen == ["/v1/whoami", "/v1/status"]  # type: ignore[attr-defined]  # of this test


def test_nobody_there(tmp_path: Path) -> None:
    """A server that does not answer is an error of exit code 1, and says that what runs goes on."""
    told = subprocess.run(
        [sys.executable, "-m", "handrail", "runs"],
        env={"HANDRAIL_URL": f"unix:{tmp_path}/none", "HANDRAIL_TOKEN": "t", "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.returncode, told.stdout) == (1, "")
    assert "error[remote.unreachable]" in told.stderr
    assert "what was begun there goes on" in told.stderr


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for this machine that nobody knows, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "handrail test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "server.pem", folder / "server.key"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, private


def test_encrypted(tmp_path: Path) -> None:
    """Over TLS a token goes to a server whose authority is known, and to no other."""
    certificate, key = make_certificate(tmp_path)
    team = make_team(tmp_path / "team")
    with serving(team, "--certificate", str(certificate), "--key", str(key)) as served:
        assert served.url.startswith("https://")
        environment = {
            "HANDRAIL_URL": served.url,
            "HANDRAIL_TOKEN": served.token(ANA, "viewer"),
            "HANDRAIL_CA": str(certificate),
        }
        assert Server(environment).ask("GET", "/v1/whoami")["person"] == ANA
        assert refusal({**environment, "HANDRAIL_CA": ""}) == "remote.insecure"
        assert refusal({**environment, "HANDRAIL_CA": str(tmp_path / "no")}) == "remote.insecure"
        by_name = environment | {"HANDRAIL_URL": served.url.replace("127.0.0.1", "localhost")}
        assert refusal(by_name) == "remote.insecure"
