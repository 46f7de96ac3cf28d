"""A registry on loopback that answers as it is told: as real ones on bad days, and hostile ones.

Rules:
- It answers for each path in order, and with the last answer for ever; 404 where nothing is said.
- What came is kept, for the test to look at.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from handrail.adapters.registry.manifests import MANIFESTS


@dataclass
class Said:
    """One answer.

    Attributes:
        drip_s: seconds between its bytes; 0 for at once.
        cut: whether the connection ends after the headers.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    drip_s: float = 0.0
    cut: bool = False


@dataclass
class Came:
    """One request, as it came."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def authorization(self) -> str:
        """Who it said it was."""
        return self.headers.get("Authorization", "")


@dataclass
class OddRegistry:
    """The registry; `host` is `127.0.0.1:PORT`."""

    host: str
    came: list[Came] = field(default_factory=list)
    answers: dict[str, list[Said]] = field(default_factory=dict)
    is_over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, path: str, *answers: Said) -> None:
        """Answer so at a path, its query included where there is one."""
        self.answers[path] = list(answers)

    def json(self, path: str, body: object, status: int = 200, **headers: str) -> str:
        """Answer with JSON at a path; return the digest of what is sent."""
        content = json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.say(path, Said(status, content, {"Content-Type": MANIFESTS[0], **named}))
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def next(self, path: str) -> Said:
        """Return what is to be said now."""
        with self._lock:
            known = self.answers.get(path) or self.answers.get(path.partition("?")[0])
            if not known:
                return Said(404)
            return known.pop(0) if len(known) > 1 else known[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    made: OddRegistry

    def do_GET(self) -> None:
        self.made.came.append(Came(self.command, self.path, dict(self.headers)))
        said = self.made.next(self.path)
        self.send_response(said.status)
        for name, value in said.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(said.body)))
        self.end_headers()
        if said.cut:
            self.close_connection = True
        elif self.command == "GET":
            self._send(said)

    do_HEAD = do_GET  # noqa: N815  as http.server wants it

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as it is called
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            return  # who asked had enough

    def _send(self, said: Said) -> None:
        if not said.drip_s:
            self.wfile.write(said.body)
            return
        for byte in said.body:
            if self.made.is_over.wait(said.drip_s):
                return
            self.wfile.write(bytes([byte]))


@contextmanager
def odd_registry() -> Iterator[OddRegistry]:
    """Give one that runs."""

    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Handler.made = OddRegistry(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield made
    finally:
        made.is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()
