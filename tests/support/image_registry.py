"""A real image registry for tests: the distribution project's own, on a folder, on loopback.

Rules:
- Its program comes from `scripts/servers registry`; where it is not, tests are skipped with a line
  that says so, and with `HANDRAIL_REQUIRE=all` they fail; not with `HANDRAIL_WITHOUT=registry`.
- It lets in anybody, who has a password, or who has a token of the giver of tokens beside it.
- Images are pushed as `docker push` does: blobs, then manifests.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

Auth = Literal["nobody", "password", "token"]
USER, PASSWORD = "pusher", "open-sesame"
_HASHED = "$2b$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO"  # of PASSWORD
_SCRIPT = Path(__file__).parents[2] / "scripts" / "servers"
_PATIENCE_S = 60.0
_SERVICE, _ISSUER = "test-registry", "test-giver"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"


@cache
def program() -> Path | None:
    """Return the server's program; None where it was not built."""
    told = subprocess.run(
        [_SCRIPT, "--find", "registry"], check=False, capture_output=True, text=True
    )
    return Path(told.stdout.strip()) if told.returncode == 0 else None


@dataclass
class Pushed:
    """An image that was pushed: its digest, and its manifest's."""

    digest: str
    manifest: bytes


@dataclass
class ImageRegistry:
    """A running registry.

    Attributes:
        host: `127.0.0.1:PORT`.
        asked_tokens: the query of each request to its giver of tokens, in order.
        realms: host and port of that giver, where there is one.
    """

    host: str
    auth: Auth
    asked_tokens: list[Mapping[str, list[str]]] = field(default_factory=list)
    realms: list[str] = field(default_factory=list)
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=_PATIENCE_S))
    giver: Giver | None = None

    def push(self, path: str, tag: str, created: str = "", content: str = "") -> Pushed:
        """Push an image of one empty layer; `created` goes into its configuration."""
        config: dict[str, object] = {"architecture": "amd64", "os": "linux", "x": content}
        if created:
            config["created"] = created
        described = self._blob(path, json.dumps(config).encode(), _CONFIG)
        layer = self._blob(path, b"layer", "application/vnd.oci.image.layer.v1.tar")
        return self.put(
            path,
            tag,
            MANIFEST,
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [layer]},
        )

    def push_index(self, path: str, tag: str, inner: Mapping[str, Pushed]) -> Pushed:
        """Push an index of images, by `os/architecture`."""
        listed = []
        for platform, image in inner.items():
            system, _, architecture = platform.partition("/")
            listed.append(
                {
                    "mediaType": MANIFEST,
                    "digest": image.digest,
                    "size": len(image.manifest),
                    "platform": {"os": system, "architecture": architecture},
                }
            )
        body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
        return self.put(path, tag, INDEX, body)

    def put(self, path: str, reference: str, kind: str, body: object) -> Pushed:
        """Put a manifest under a tag."""
        content = json.dumps(body).encode()
        answer = self._ask(
            "PUT", f"/v2/{path}/manifests/{reference}", path, content, {"Content-Type": kind}
        )
        assert answer.status_code == 201, answer.text
        return Pushed(_digest(content), content)

    def delete(self, path: str, digest: str) -> None:
        """Delete a manifest, with all its tags."""
        answer = self._ask("DELETE", f"/v2/{path}/manifests/{digest}", path, b"", {})
        assert answer.status_code == 202, answer.text

    def _blob(self, path: str, content: bytes, kind: str) -> Mapping[str, object]:
        begun = self._ask("POST", f"/v2/{path}/blobs/uploads/", path, b"", {})
        assert begun.status_code == 202, begun.text
        where = begun.headers["Location"]
        joint = "&" if "?" in where else "?"
        headers = {"Content-Type": "application/octet-stream"}
        done = self._ask("PUT", f"{where}{joint}digest={_digest(content)}", path, content, headers)
        assert done.status_code == 201, done.text
        return {"mediaType": kind, "digest": _digest(content), "size": len(content)}

    def _ask(
        self, method: str, where: str, path: str, content: bytes, headers: Mapping[str, str]
    ) -> httpx.Response:
        url = where if where.startswith("http") else f"http://{self.host}{where}"
        return self.client.request(
            method, url, content=content, headers={**headers, **self._in(path)}
        )

    def _in(self, path: str) -> Mapping[str, str]:
        if self.auth == "password":
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        if self.giver is not None:
            token = self.giver.token(f"repository:{path}:pull,push,delete")
            return {"Authorization": f"Bearer {token}"}
        return {}


class Giver:
    """Gives out tokens as Docker Hub does: to anybody to pull `open/...`, to USER to pull all."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = _certificate(self._key)

    def token(self, scope: str, lasts_s: int = 300) -> str:
        """Return a token for one scope."""
        kind, name, actions = scope.split(":")
        now = int(time.time())
        head = {
            "alg": "ES256",
            "typ": "JWT",
            "x5c": [base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()],
        }
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        body = {"iss": _ISSUER, "sub": USER, "aud": _SERVICE, "iat": now, "nbf": now - 5}
        body = {**body, "exp": now + lasts_s, "jti": os.urandom(8).hex(), "access": access}
        signed = f"{_encoded(head)}.{_encoded(body)}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def answer(self, query: Mapping[str, list[str]], authorization: str) -> tuple[int, object]:
        """Return status and body for one request."""
        (scope,) = query["scope"]
        known = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
        if authorization and authorization != known:
            return 401, {"errors": [{"code": "UNAUTHORIZED"}]}
        name = scope.split(":")[1]
        if not authorization and not name.startswith("open/"):
            return 200, {"token": self.token(f"repository:{name}:none")}
        return 200, {"token": self.token(scope), "expires_in": 300}


def _encoded(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _ISSUER)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


@contextmanager
def running_registry(folder: Path, auth: Auth = "nobody") -> Iterator[ImageRegistry]:
    """Give a running registry; skip where there is none."""
    if program() is None:
        why = "no registry of images: scripts/servers registry"
        without = os.environ.get("HANDRAIL_WITHOUT", "").split(",")
        if os.environ.get("HANDRAIL_REQUIRE") == "all" and "registry" not in without:
            pytest.fail(why)
        pytest.skip(why)
    port = _free_port()
    made = ImageRegistry(f"127.0.0.1:{port}", auth)
    with made.client, _giving(made) as realm:
        process = _start(folder, made, realm)
        try:
            yield made
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)


@contextmanager
def _giving(made: ImageRegistry) -> Iterator[str]:
    """Run the giver of tokens, where one is needed; give its address."""
    if made.auth != "token":
        yield ""
        return
    giver = made.giver = Giver()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            made.asked_tokens.append(query)
            status, body = giver.answer(query, self.headers.get("Authorization", ""))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as it is called
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    made.realms.append(f"127.0.0.1:{server.server_port}")
    try:
        yield f"http://{made.realms[0]}/token"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _start(folder: Path, made: ImageRegistry, realm: str) -> subprocess.Popen[bytes]:
    (folder / "users").write_text(f"{USER}:{_HASHED}\n")
    auth: dict[str, object] = {}
    if made.auth == "password":
        auth = {"htpasswd": {"realm": "test", "path": str(folder / "users")}}
    if made.giver is not None:
        roots = folder / "giver.pem"
        roots.write_bytes(made.giver.certificate.public_bytes(Encoding.PEM))
        token = {"realm": realm, "service": _SERVICE, "issuer": _ISSUER}
        auth = {"token": {**token, "rootcertbundle": str(roots)}}
    settings = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "images")},
            "delete": {"enabled": True},
        },
        "http": {"addr": made.host, "secret": "of this test"},
        **({"auth": auth} if auth else {}),
    }
    at = folder / "registry.yml"
    at.write_text(json.dumps(settings))  # JSON is YAML
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with (folder / "registry.log").open("ab") as log:
        process = subprocess.Popen(
            [str(program()), "serve", str(at)], stdout=log, stderr=log, env=environment
        )
    until_s = time.monotonic() + _PATIENCE_S
    while not _answers(made):
        if process.poll() is not None or time.monotonic() > until_s:
            told = (folder / "registry.log").read_text()
            raise AssertionError(f"the registry did not start: {told[-2000:]}")
        time.sleep(0.05)
    return process


def _answers(made: ImageRegistry) -> bool:
    try:
        return made.client.get(f"http://{made.host}/v2/").status_code in {200, 401}
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])
