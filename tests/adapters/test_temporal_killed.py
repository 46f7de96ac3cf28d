"""Workers and servers that are killed at random moments, until every run has ended.

`HANDRAIL_TEMPORAL_KILLS` says how often; the seed and the count are printed.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from handrail.adapters.file_locks import FileLocks
from handrail.adapters.system import RandomIds, SystemClock
from handrail.adapters.temporal.engine import TemporalEngine
from handrail.ports import Engine
from support.engines import wait_until
from support.temporal_process import WorkerProcess
from support.temporal_server import TemporalServer, running_server
from support.walk_killing import Trial, journal_at

_KILLS = int(os.environ.get("HANDRAIL_TEMPORAL_KILLS", "4"))
_WALKS, _WORKERS = 3, 2
_HEARTBEAT_S = 1.0
_PATIENCE_S = 180.0


class Fleet:
    """A server and some workers, of which any may be killed."""

    def __init__(self, trial: Trial, server: TemporalServer) -> None:
        self._trial, self._server = trial, server
        self._workers = [self._start() for _ in range(_WORKERS)]

    def kill_one(self) -> None:
        """Kill the server or a worker, and start it again."""
        self._trial.kills += 1
        if self._trial.random.random() < 0.2:
            self._server.kill()
            self._server.start()
            return
        worker = self._workers.pop(self._trial.random.randrange(_WORKERS))
        worker.kill()
        self._workers.append(self._start())

    def end(self) -> None:
        """Kill all workers."""
        for worker in self._workers:
            worker.kill()

    def _start(self) -> WorkerProcess:
        seed = self._trial.random.getrandbits(32)
        where = self._server.where(_HEARTBEAT_S)
        return WorkerProcess(self._trial.address, self._trial.folder, where, seed=seed)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """No done step acts twice, no target has two unknown ones, and every run ends truthfully."""
    seed = int(os.environ.get("HANDRAIL_SEED", time.time_ns() % 2**32))
    print(f"temporal: seed {seed}")
    with ExitStack() as held:
        server = held.enter_context(running_server(tmp_path))
        address = str(tmp_path / "journal.db")
        trial = Trial(held.enter_context(journal_at(address)), address, tmp_path, seed)
        trial.engine = _engine(trial, server)
        held.callback(trial.engine.close)
        trial.submit(_WALKS)
        fleet = Fleet(trial, server)
        held.callback(fleet.end)
        _go_on(trial, fleet)
        trial.judge()
    print(f"temporal: {trial.kills} kills, {len(trial.walks)} runs, seed {seed}")


def _engine(trial: Trial, server: TemporalServer) -> Engine:
    locks = FileLocks(trial.folder / "locks")
    return TemporalEngine(trial.journal, SystemClock(), RandomIds(), locks, server.where(1.0))


def _go_on(trial: Trial, fleet: Fleet) -> None:
    """Kill, and answer, until there were enough kills and every run has ended."""
    never = threading.Event()
    while trial.kills < _KILLS:
        never.wait(trial.random.random() * 2)
        fleet.kill_one()
        if not trial.speak():
            trial.submit(_WALKS)
    until_s = time.monotonic() + _PATIENCE_S
    while trial.speak():
        assert time.monotonic() < until_s, [trial.engine.load(run) for run in trial.walks]
        never.wait(0.2)
    wait_until(lambda: not list(trial.engine.list()))
