"""`handrail worker`: a run over all targets goes on in another process, by a Temporal server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.fleets import NAME, NAMES, Fleet, make_fleet
from support.teams import SESSIONS
from support.temporal_server import TemporalServer, running_server

_PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalServer]:
    with running_server(tmp_path_factory.mktemp("temporal")) as found:
        yield found


@pytest.fixture
def fleet(server: TemporalServer, tmp_path: Path) -> Fleet:
    """A fleet that may run, whose runs go on by the server."""
    found = make_fleet(tmp_path / "team")
    found.digest = found.ready()
    found.team.environment["HANDRAIL_TEMPORAL"] = str(server.where())
    return found


@contextmanager
def working(fleet: Fleet) -> Iterator[subprocess.Popen[str]]:
    """Give a worker of the fleet that works."""
    argv = [sys.executable, "-m", "handrail", "worker", "--root", str(fleet.team.root)]
    environment = {**os.environ, **fleet.team.environment}
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "works for 127.0.0.1" in process.stderr.readline()
            yield process
        finally:
            process.kill()


def test_a_run_goes_on_in_a_worker(fleet: Fleet) -> None:
    """What is run here acts there, once a target; it is undone there, too; SIGTERM ends it well."""
    with working(fleet) as worker:
        done = fleet.call("run", NAME, "--on", "all")
        assert done.code == 0, done.out + done.err
        assert fleet.sessions() == dict.fromkeys(NAMES, 0)
        assert fleet.executions == len(NAMES)
        undone = fleet.call("undo", "1")
        assert undone.code == 0, undone.out + undone.err
        assert fleet.sessions() == dict.fromkeys(NAMES, SESSIONS)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(_PATIENCE_S) == 0
