"""A real supervisord for tests: the wheel's, on a folder that is removed afterwards.

Rules:
- It is in the development extra: where it is not installed, tests fail.
- Its folder's path is short, because a socket's has to be.
"""

from __future__ import annotations

import random
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from handrail.adapters.probes import Probes
from handrail.adapters.supervisor.platform import SupervisorPlatform
from handrail.adapters.supervisor.starting import Started, start
from handrail.adapters.system import SystemClock
from handrail.kits.deploys.model import File

SERVER = """\
import http.server, os, socketserver, sys

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if os.environ.get("ILL") else 200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())

socketserver.TCPServer.allow_reuse_address = True
with socketserver.TCPServer(("127.0.0.1", int(os.environ["PORT"])), Answers) as server:
    server.serve_forever()
"""
FILES: Mapping[str, File] = {"app.py": File(SERVER.encode())}


@contextmanager
def running_supervisor() -> Iterator[Started]:
    """Give a running supervisord."""
    folder = Path(tempfile.mkdtemp(prefix="hrs-"))
    try:
        started = start(folder)
        try:
            yield started
        finally:
            started.stop()
    finally:
        shutil.rmtree(folder)


def platform_of(started: Started) -> SupervisorPlatform:
    """Return the platform of a running supervisord."""
    return SupervisorPlatform(started.address, started.folder, SystemClock(), Probes())


def free_ports(count: int = 4) -> int:
    """Return a port that is free now, with the next ones after it; below those given out."""
    for _ in range(100):
        first = random.randrange(20000, 32000 - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
