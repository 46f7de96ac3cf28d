"""A repository with scripts, a node that they run on, and what came of it."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handrail.adapters.ssh import SshProcesses
from handrail.ports import Command, Finished
from support.sshd import Sshd, wait_until

TIMEOUT_S = 30.0


@dataclass
class Scene:
    """One script after the other.

    Attributes:
        pids: what was told of their starts.
        shown: pieces of output, as they came.
    """

    root: Path
    sshd: Sshd
    processes: SshProcesses
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    pids: list[int] = field(default_factory=list)
    shown: list[bytes] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """Where output is kept."""
        return self.root.parent / "output.log"

    @property
    def kept(self) -> str:
        """What was kept of it."""
        return self.output.read_text(errors="replace")

    @property
    def told(self) -> Path:
        """A file that a script writes lines to, for the test."""
        return self.root.parent / "told"

    @property
    def gate(self) -> Path:
        """A file that a script waits for."""
        return self.root.parent / "gate"

    def write(self, name: str, body: str, shebang: str = "#!/bin/sh\n") -> None:
        """Write an executable file of the repository."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{shebang}{body}\n")
        path.chmod(0o755)

    def command(self, body: str = "", **settings: Any) -> Command:
        """Return how to run a script of that body; `settings` replace what is usual."""
        if body:
            self.write("scripts/step.sh", body)
        files = tuple(
            (path.relative_to(self.root).as_posix(), _digest(path))
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        )
        environment = {"HANDRAIL_RUN": self.mark, **settings.pop("environment", {})}
        usual: dict[str, Any] = {
            "argv": (str(self.root / "scripts/step.sh"),),
            "cwd": self.root,
            "environment": environment,
            "timeout_s": TIMEOUT_S,
            "output": self.output,
            "reserve_bytes": 1024,
            "files": files,
        }
        return Command(**(usual | settings))

    def run(self, body: str = "", **settings: Any) -> Finished:
        """Run a script to its end."""
        command = self.command(body, **settings)
        return self.processes.run(command, self.pids.append, self.shown.append)

    @contextmanager
    def running(self, body: str, **settings: Any) -> Iterator[list[Any]]:
        """Run a script meanwhile; what it ended with, or raised, is in the list afterwards."""
        command = self.command(body, **settings)
        ended: list[Any] = []

        def run() -> None:
            try:
                ended.append(self.processes.run(command, self.pids.append, self.shown.append))
            except Exception as error:  # noqa: BLE001  a test looks at it
                ended.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield ended
        finally:
            thread.join(TIMEOUT_S + 20)
        assert ended, "it runs still"

    def wait_told(self, lines: int = 1) -> list[str]:
        """Wait until the script has told so many lines; return them."""
        wait_until(lambda: len(self._lines()) >= lines, "the script told nothing")
        return self._lines()

    def _lines(self) -> list[str]:
        return self.told.read_text().splitlines() if self.told.exists() else []

    @property
    def waiting(self) -> str:
        """Shell words that tell `here`, and wait for the gate."""
        return f"echo here >>{self.told}; while [ ! -e {self.gate} ]; do sleep 0.05; done"

    def open_gate(self) -> None:
        """Let the script go on."""
        self.gate.touch()


def make_scene(sshd: Sshd, folder: Path, **changes: Any) -> Scene:
    """Return a scene in an empty folder; `changes` are of the node."""
    root = folder / "repository"
    root.mkdir()
    return Scene(root, sshd, sshd.processes(**changes))


def _digest(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return digest + ("+x" if path.stat().st_mode & 0o100 else "")
