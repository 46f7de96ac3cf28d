"""A worker in a process of its own, that a test may stop, kill, or end.

Run as a program it is that worker: it is given one JSON object, says `up`, and works until its
standard input ends, or SIGTERM.

Rules:
- What steps did is a line in a file each: `begun`, `do` or `undo`, with the run, the step and the
  process. What the journal says is compared with that file.
- A step of the act `slow` goes on when a file says so.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a program it is not found through pytest's paths
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from handrail.adapters.file_locks import FileLocks
from handrail.adapters.system import SystemClock
from handrail.adapters.temporal.link import Where
from handrail.adapters.temporal.worker import TemporalWorker
from handrail.errors import EngineError
from handrail.plans.walk import step_id
from handrail.ports import ActCall, Acted, Journal
from support.engines import wait_until
from support.walk_killing import EffectAct, journal_at

_PATIENCE_S = 60.0


class SlowAct:
    """`ports.Act`: a step that waits for a file, and says in another one what it does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def do(self, call: ActCall) -> Acted:
        """Act once the file is there."""
        self._note("begun", call)
        while not (self._folder / "go").exists():
            if call.is_over():
                return Acted("failed", "asked to end")
            time.sleep(0.01)
        self._note("do", call)
        return Acted("done")

    def check(self, call: ActCall) -> Acted:
        """Say what the file says."""
        self._note("check", call)
        name = step_id(call.target, call.name)
        did = any(one[:3] == ("do", str(call.run), name) for one in deeds(self._folder))
        return Acted("done" if did else "never")

    def undo(self, call: ActCall) -> Acted:
        """Undo it."""
        self._note("undo", call)
        return Acted("done")

    def _note(self, what: str, call: ActCall) -> None:
        line = f"{what} {call.run} {step_id(call.target, call.name)} {os.getpid()}\n"
        with (self._folder / "deeds").open("a") as stream:
            stream.write(line)


def deeds(folder: Path) -> list[tuple[str, ...]]:
    """Return what slow steps did, in order: what, run, step, process."""
    path = folder / "deeds"
    return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


class WorkerProcess:
    """The process, seen from a test."""

    def __init__(
        self, journal: str, folder: Path, where: Where, *, seed: int = 0, most_at_once: int = 16
    ) -> None:
        told = {
            "journal": journal,
            "folder": str(folder),
            "address": where.address,
            "heartbeat_s": where.heartbeat_s,
            "seed": seed,
            "most_at_once": most_at_once,
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def wait_up(self) -> None:
        """Return once it works."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n"

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._close()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Let it end, and return its exit code."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        code = self._process.wait(_PATIENCE_S)
        self._close()
        return code

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self._process.wait()


@contextmanager
def worker_process(
    journal: str, folder: Path, where: Where, *, most_at_once: int = 16
) -> Iterator[WorkerProcess]:
    """Give a worker that works; killed at the end where it still is."""
    found = WorkerProcess(journal, folder, where, most_at_once=most_at_once)
    try:
        found.wait_up()
        yield found
    finally:
        found.kill()


def wait_for_deed(folder: Path, what: str, step: str, times: int = 1) -> None:
    """Return once slow steps did something so often."""
    wait_until(
        lambda: sum(one[0] == what and one[2] == step for one in deeds(folder)) >= times,
        lambda: str(deeds(folder)),
    )


def _work(told: dict[str, Any]) -> None:
    random.seed(told["seed"])
    with journal_at(told["journal"]) as journal:
        worker = _started(journal, told)
        signal.signal(signal.SIGTERM, lambda *_: worker.end())
        print("up", flush=True)
        threading.Thread(target=_end_with_input, args=(worker.end,), daemon=True).start()
        while not worker.wait(0.2):
            pass


def _started(journal: Journal, told: dict[str, Any]) -> TemporalWorker:
    """Return a worker that works, once the server lets it."""
    folder = Path(told["folder"])
    while True:
        worker = TemporalWorker(
            journal,
            SystemClock(),
            FileLocks(folder / "locks"),
            {"slow": SlowAct(folder), "fake": EffectAct(folder, told["seed"])},
            Where(told["address"], heartbeat_s=told["heartbeat_s"]),
            say=lambda text: print(text, file=sys.stderr, flush=True),
            most_at_once=told["most_at_once"],
        )
        try:
            worker.start()
        except EngineError:
            time.sleep(0.2)  # the server was killed just now, too
        else:
            return worker


def _end_with_input(end: Callable[[], None]) -> None:
    sys.stdin.read()
    end()


if __name__ == "__main__":
    _work(json.loads(sys.argv[1]))
