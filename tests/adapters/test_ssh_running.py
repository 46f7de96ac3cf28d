"""A script on a node: taken there, run there, told of, collected, and nothing of it left."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from handrail.adapters.ssh import SshProcesses
from handrail.ports import Command, Finished
from support.sshd import Sshd, run_sshd

TIMEOUT_S = 30.0
MARK = "5d0c" * 4


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    yield from run_sshd()


@dataclass
class Scene:
    """A repository with a script in it, a node, and what came of it."""

    root: Path
    sshd: Sshd
    processes: SshProcesses
    pids: list[int] = field(default_factory=list)
    shown: list[bytes] = field(default_factory=list)

    @property
    def output(self) -> Path:
        return self.root.parent / "output.log"

    def write(self, name: str, body: str, shebang: str = "#!/bin/sh\n") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{shebang}{body}\n")
        path.chmod(0o755)

    def command(self, body: str = "", **settings: Any) -> Command:
        if body:
            self.write("scripts/step.sh", body)
        files = tuple(
            (path.relative_to(self.root).as_posix(), _digest(path))
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        )
        given = {"HANDRAIL_RUN": MARK, **settings.pop("environment", {})}
        usual: dict[str, Any] = {
            "argv": (str(self.root / "scripts/step.sh"),),
            "cwd": self.root,
            "environment": given,
            "timeout_s": TIMEOUT_S,
            "output": self.output,
            "reserve_bytes": 1024,
            "files": files,
        }
        return Command(**(usual | settings))

    def run(self, body: str = "", **settings: Any) -> Finished:
        command = self.command(body, **settings)
        return self.processes.run(command, self.pids.append, self.shown.append)

    @property
    def kept(self) -> str:
        return self.output.read_text(errors="replace")


def _digest(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return digest + ("+x" if path.stat().st_mode & 0o100 else "")


@pytest.fixture
def scene(sshd: Sshd, tmp_path: Path) -> Iterator[Scene]:
    root = tmp_path / "repository"
    root.mkdir()
    found = Scene(root, sshd, sshd.processes())
    yield found
    found.processes.forget((MARK,))


def test_runs(scene: Scene) -> None:
    """A script runs on the node; its output and exit code come back, its start is told first."""
    finished = scene.run("echo hello; echo oops >&2; exit 3")
    assert (finished.exit_code, finished.ended) == (3, "exited")
    assert scene.kept == "hello\noops\n"
    assert b"".join(scene.shown) == b"hello\noops\n"
    assert finished.output_bytes == 11
    assert len(scene.pids) == 1
    assert stat.S_IMODE(scene.output.stat().st_mode) == 0o600
