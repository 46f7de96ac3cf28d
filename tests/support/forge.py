"""A small HTTP server on 127.0.0.1 that answers as a forge's API: what a test says, page by page.

The real forges are off this machine: this one speaks HTTP for real, and its answers have the
shapes that the forges document (`tests/data/forges`).
"""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

COMMIT, HEAD = "c" * 40, "d" * 40
_DATA = Path(__file__).parent.parent / "data/forges"


class Forge(ThreadingHTTPServer):
    """A forge.

    Attributes:
        answers: path to the list or object that is there.
        pages: items on a page.
        status: answered instead, where it is set, with `headers`.
        raw: sent as it is instead of an answer, where it is set.
        drips: whether an answer comes byte by byte, without end, until the server ends.
        seen: path and headers of each request.
    """

    daemon_threads = True

    def __init__(self, kind: str) -> None:
        """Listen at a free port, with the answers of `tests/data/forges/KIND.json`."""
        super().__init__(("127.0.0.1", 0), _Handler)
        text = (_DATA / f"{kind}.json").read_text()
        text = text.replace("{commit}", COMMIT).replace("{head}", HEAD)
        self.answers: dict[str, Any] = json.loads(text)
        self.pages = 100
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.raw: bytes | None = None
        self.drips = False
        self.over = threading.Event()
        self.seen: list[tuple[str, Mapping[str, str]]] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def at(self, end: str) -> Any:
        """Return the answer at the path that ends so, to be changed."""
        (path,) = [one for one in self.answers if one.endswith(end)]
        return self.answers[path]

    def again(self, end: str, **changes: Any) -> None:
        """Add one more of the first item of that list, with changes."""
        found = self.at(end)
        found.append({**copy.deepcopy(found[0]), **changes})

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that go away are a part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Forge

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's
        pass

    def do_GET(self) -> None:
        forge = self.server
        forge.seen.append((self.path, dict(self.headers.items())))
        if forge.drips:
            self._drip()
            return
        if forge.raw is not None:
            self.wfile.write(forge.raw)
            return
        if forge.status:
            self._send(forge.status, b"{}", forge.headers)
            return
        parts = urlsplit(self.path)
        if parts.path not in forge.answers:
            self._send(404, b'{"message": "Not Found"}', {})
            return
        found, more = self._page(forge.answers[parts.path], parse_qs(parts.query))
        self._send(200, json.dumps(found).encode(), more)

    def _page(self, found: Any, query: Mapping[str, list[str]]) -> tuple[Any, Mapping[str, str]]:
        if not isinstance(found, list):
            return found, {}
        forge = self.server
        number = int(query.get("page", ["1"])[0])
        start, end = (number - 1) * forge.pages, number * forge.pages
        path = urlsplit(self.path).path
        more = {"Link": f'<{forge.url}{path}?per_page=100&page={number + 1}>; rel="next"'}
        return found[start:end], more if end < len(found) else {}

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _drip(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(OSError):
            while not self.server.over.wait(0.02):
                self.wfile.write(b"X-More: x\r\n")


@contextlib.contextmanager
def forging(kind: str) -> Iterator[Forge]:
    """Give a forge."""
    server = Forge(kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
