"""A real Temporal server for tests: Temporal's own development server, on a file that it keeps.

Rules:
- Its program comes from `scripts/servers temporal`; where it is not, tests are skipped with a line
  that says so, and with `HANDRAIL_REQUIRE=all` they fail; not with `HANDRAIL_WITHOUT=temporal`.
- Only 127.0.0.1 is used, and it is ended by its own process id.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from handrail.adapters.temporal.link import Where

_SCRIPT = Path(__file__).parents[2] / "scripts" / "servers"
_PATIENCE_S = 60.0


@cache
def program() -> Path | None:
    """Return the server's program; None where it was not built."""
    told = subprocess.run(
        [_SCRIPT, "--find", "temporal"], check=False, capture_output=True, text=True
    )
    return Path(told.stdout.strip()) if told.returncode == 0 else None


class TemporalServer:
    """A server that can be killed, and started again on its file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._metrics = _free_ports()
        self._process: subprocess.Popen[bytes] | None = None

    def where(self, heartbeat_s: float = 2.0) -> Where:
        """Return its default namespace."""
        return Where(f"127.0.0.1:{self._port}", heartbeat_s=heartbeat_s)

    def start(self) -> None:
        """Start it, and return once it answers."""
        found = program()
        if found is None:
            raise AssertionError("there is no server's program")
        argv = [str(found), "server", "start-dev", "--headless", "--ip", "127.0.0.1"]
        argv += ["--port", str(self._port), "--metrics-port", str(self._metrics)]
        argv += ["--db-filename", str(self._folder / "temporal.db"), "--log-level", "error"]
        with (self._folder / "temporal.log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        until_s = time.monotonic() + _PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until_s:
                told = (self._folder / "temporal.log").read_text()
                raise AssertionError(f"the Temporal server did not start: {told[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        argv = [str(program()), "operator", "namespace", "describe", "default"]
        argv += ["--address", f"127.0.0.1:{self._port}"]
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def _free_ports() -> tuple[int, int]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        return one.getsockname()[1], other.getsockname()[1]


@contextmanager
def running_server(folder: Path) -> Iterator[TemporalServer]:
    """Give a running server; skip where there is none."""
    if program() is None:
        why = "no Temporal server: scripts/servers temporal"
        without = os.environ.get("HANDRAIL_WITHOUT", "").split(",")
        if os.environ.get("HANDRAIL_REQUIRE") == "all" and "temporal" not in without:
            pytest.fail(why)
        pytest.skip(why)
    server = TemporalServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
