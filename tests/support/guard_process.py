"""A guard in a process of its own, as in real life: it can be measured, and killed at any moment.

Rules:
- `running` starts this file as a program; what to guard goes to its stdin, so that no secret stands
  among the arguments.
- The program says where a client connects to, and waits. The end of its stdin settles it: it prints
  its report and ends. It ends, too, when whoever started it is gone.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

RESOURCE = "store/pilot-db"
END_S = 60

Row = tuple[str, str, str, int]


@dataclass
class GuardProcess:
    """A guard that runs.

    Attributes:
        pid: of the guard's process.
        environment: the variables of the store's own clients, leading to the guard.
        parts: the same by plain name: `url`, `host`, `port`, `user`, `password`, `database`.
        report: what it saw; empty before `settle`, and when it was killed.
    """

    pid: int
    environment: Mapping[str, str]
    parts: Mapping[str, str]
    _process: subprocess.Popen[str]
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where a client connects to."""
        return self.parts["url"]

    def settle(self) -> dict[str, Any]:
        """End the guard, and return its report as plain values. Twice equals once."""
        if not self.report:
            told, _ = self._process.communicate(timeout=END_S)
            if self._process.returncode != 0:
                raise RuntimeError(f"the guard ended with {self._process.returncode}")
            self.report = json.loads(told)
        return self.report

    def kill(self) -> None:
        """End the guard's process as a crash does."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextmanager
def running(
    kind: str,
    url: str,
    *,
    mode: str = "observe",
    allowed: Sequence[Row] = (),
) -> Iterator[GuardProcess]:
    """Run a guard while it is held.

    Args:
        kind: of the store: `postgres` or `redis`.
        url: the store's own address, with its secrets.
        mode: see `Limits`.
        allowed: the budget, as verb, kind, name and rows; only for the mode `hold`.
    """
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    given = {"kind": kind, "url": url, "mode": mode, "allowed": allowed}
    try:
        asked, said = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        asked.write(json.dumps(given) + "\n")
        asked.flush()
        line = said.readline()
        if not line:
            raise RuntimeError(f"the guard did not start: exit {process.wait()}")
        told = json.loads(line)
        guard = GuardProcess(process.pid, told["environment"], told["parts"], process)
        yield guard
        if process.returncode != -signal.SIGKILL:
            guard.settle()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def serve(asked: IO[str], said: IO[str]) -> None:
    """Guard what `asked` names until it ends, then write the report."""
    from handrail import wiring
    from handrail.plans.canonical import encode_plain
    from handrail.plans.holding import Limits
    from handrail.plans.model import Allowance, Budget

    given = json.loads(asked.readline())
    allowances = tuple(Allowance(RESOURCE, *row) for row in given["allowed"])
    budget = Budget(allowances, "declaration") if given["mode"] == "hold" else None
    store = _store(given["kind"], given["url"])
    with tempfile.TemporaryDirectory(prefix="handrail-guard-") as folder:
        before, private = Path(folder) / "before", Path(folder) / "guard"
        before.mkdir()
        private.mkdir()
        store.observe(before)
        limits = Limits(given["mode"], budget)
        with wiring.open_guard(store, limits, before, private, lambda _event: None) as guard:
            connection = guard.connection()
            told = {"environment": connection.environment, "parts": connection.parts}
            said.write(encode_plain(told) + "\n")
            said.flush()
            asked.read()
            said.write(encode_plain(guard.settle()) + "\n")
            said.flush()


def _store(kind: str, url: str) -> Any:
    if kind == "redis":
        from handrail.adapters.redis import RedisStore

        return RedisStore(RESOURCE, url)
    from handrail.adapters.postgres import PostgresStore

    return PostgresStore(RESOURCE, url)


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
