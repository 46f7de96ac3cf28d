"""Git's own smart HTTP server (`git http-backend`) on 127.0.0.1, and ways in which it can be ill.

Each request goes to a CGI program of git's, as behind nginx or Apache; what is not git's is here:
a password, a redirect, an answer that is cut, drips or never comes.
"""

from __future__ import annotations

import base64
import contextlib
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.app_repositories import environment, git_program


class GitHttp(ThreadingHTTPServer):
    """A server of the repositories in a folder.

    Attributes:
        password: of `ana`, where one is asked for.
        answer: a status that every request is answered with, where it is set.
        location: where a redirect leads.
        cut_after: bytes of an answer to a POST after which the connection is closed.
        hangs: whether no request is answered until `let_go`.
        requests: paths that were asked for.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        """Listen at a free port."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.password = ""
        self.answer = 0
        self.location = ""
        self.cut_after = -1
        self.hangs = False
        self.let_go = threading.Event()
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that go away are a part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: GitHttp

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's
        pass

    def _serve(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        server.requests.append(self.path)
        if server.hangs:
            server.let_go.wait(30)
            return
        if server.answer:
            self.send_response(server.answer)
            if server.location:
                self.send_header("Location", server.location + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if server.password and not self._is_known():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._answer(self._backend(body))

    def _is_known(self) -> bool:
        expected = base64.b64encode(f"ana:{self.server.password}".encode()).decode()
        return self.headers.get("Authorization", "") == f"Basic {expected}"

    def _backend(self, body: bytes) -> bytes:
        parts = urlsplit(self.path)
        asked = {
            "GIT_PROJECT_ROOT": str(self.server.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(
            [git_program(), "http-backend"],
            env=environment(self.server.folder, **asked),
            input=body,
            capture_output=True,
            check=False,
        )
        return done.stdout

    def _answer(self, said: bytes) -> None:
        head, _, body = said.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if line)
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "POST" and self.server.cut_after >= 0:
            self.wfile.write(body[: self.server.cut_after])
            self.close_connection = True
            return
        self.wfile.write(body)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[GitHttp]:
    """Give a server of the repositories in `folder`."""
    git_program()
    server = GitHttp(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture
def git_http(tmp_path: Path) -> Iterator[GitHttp]:
    """A server of the repositories in `tmp_path`."""
    with serving(tmp_path) as server:
        yield server
