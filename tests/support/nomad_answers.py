"""A server that answers what a cluster should not, or what it says when it is ill."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answers:
    """What is answered, and what was asked.

    Attributes:
        status: of every answer.
        body: of every answer.
        headers: of every answer, besides its length.
        asked: `METHOD path?query`, in order.
        tokens: what came as the token, in order.
        drops: so many connections are closed after the question, without an answer.
    """

    status: int = 200
    body: bytes = b"null"
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    drops: int = 0
    url: str = ""


@contextmanager
def answering() -> Iterator[Answers]:
    """Give such a server, on 127.0.0.1."""
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answers.asked.append(f"{self.command} {self.path}")
            answers.tokens.append(self.headers.get("X-Nomad-Token"))
            if answers.drops:
                answers.drops -= 1
                self.close_connection = True
                return
            self.send_response(answers.status)
            for name, value in answers.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answers.body)))
            self.end_headers()
            try:
                self.wfile.write(answers.body)
            except OSError:
                self.close_connection = True  # whoever asked has read enough

        do_POST = do_GET  # noqa: N815  the library's name

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    answers.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
