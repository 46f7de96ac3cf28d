"""Kill `handrail` at the N-th write of its journal, or while its script runs: a process that forks.

Run as a program. It reads one JSON object a line (`argv`, `environment`, `cwd`, `at`, `when`),
forks, runs that command line in the child on the real wiring, and answers with one JSON object:
how the child ended, and how many writes it made.

Rules:
- SIGKILL, by the child itself, right before (`when: before`) or right after (`after`) the write
  is durable; with `when: output`, when the script has printed something.
- A fork, not a new interpreter: the matrix has many cases, and a start costs more than a case.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Killer:
    """The forking process, seen from a test."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *argv: str, environment: Mapping[str, str], cwd: Path, at: int, when: str
    ) -> dict[str, Any]:
        """Run a command line and kill it there; return `signal`, `code`, `writes`, `err`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        asked = {"argv": argv, "environment": dict(environment), "cwd": str(cwd)}
        stdin.write(json.dumps(asked | {"at": at, "when": when}) + "\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        return answer

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)


def serve() -> None:
    """Answer until there is nothing more to read."""
    import handrail.adapters.processes
    import handrail.adapters.sqlite
    import handrail.adapters.ssh_keys
    import handrail.core.rehearsing
    import handrail.core.running  # noqa: F401  all imported once, before the forks

    for line in sys.stdin:
        asked = json.loads(line)
        counted, told = os.pipe()
        number = os.fork()
        if number == 0:
            os.close(counted)
            _child(asked, told)
        os.close(told)
        _, status = os.waitpid(number, 0)
        with os.fdopen(counted, "rb") as stream:
            said = stream.read()
        answer = {
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1,
            "writes": said.count(b"\0"),
            "err": said.replace(b"\0", b"").decode(errors="replace"),
        }
        print(json.dumps(answer), flush=True)


def _child(asked: dict[str, Any], told: int) -> None:
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.set_inheritable(told, False)  # what outlives the child must not hold it
    sys.stderr = os.fdopen(os.dup(told), "w", buffering=1)
    _install(asked["at"], asked["when"], told)
    from handrail.cli.main import main

    code = 70
    with contextlib.suppress(BaseException):
        code = main(asked["argv"])
    os._exit(code)


def _install(at: int, when: str, told: int) -> None:
    """Make the real journal, and the real terminal, end this process where that is asked."""
    from handrail.adapters import sqlite_journal
    from handrail.cli import live

    counting = itertools.count(1)  # several threads write: each has its own number

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def do(self: object, *given: Any) -> Any:
            number = next(counting)
            if number == at and when == "before":
                die()
            result = write(self, *given)
            os.write(told, b"\0")
            if number == at and when == "after":
                die()
            return result

        return do

    for name in ("append", "write", "close", "open_run", "single_use"):
        whole = getattr(sqlite_journal.SqliteJournal, name)
        setattr(sqlite_journal.SqliteJournal, name, dying(whole))
    if when == "output":
        live.Terminal.output = lambda self, piece: die()  # type: ignore[method-assign]  # the same


if __name__ == "__main__":
    serve()
