"""Scripts for the tests of processes: written, run, and what came of them."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from handrail.adapters.processes import LocalProcesses
from handrail.ports import Command, Confine, Finished

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
DEADLINE_S = 20.0


@dataclass
class Workshop:
    """A folder with scripts in it, and a runner of them with little patience."""

    folder: Path
    processes: LocalProcesses = field(
        default_factory=lambda: LocalProcesses(grace_s=0.4, linger_s=0.5)
    )
    pids: list[int] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """Where output is kept."""
        return self.folder / "output.log"

    def script(self, body: str, name: str = "script.sh", shebang: str = "#!/bin/bash") -> Path:
        """Write an executable script."""
        path = self.folder / name
        path.write_text(f"{shebang}\n{body}\n")
        path.chmod(0o755)
        return path

    def command(self, program: Path, **settings: Any) -> Command:
        """Return a command for it; `settings` replace what is usual."""
        environment = {"PATH": PATH, "HANDRAIL_RUN": "test", **settings.pop("environment", {})}
        usual: dict[str, Any] = {
            "argv": (str(program),),
            "cwd": self.folder,
            "environment": environment,
            "timeout_s": DEADLINE_S,
            "output": self.output,
            "reserve_bytes": 1024,
        }
        return Command(**(usual | settings))

    def run(self, body: str, **settings: Any) -> tuple[Finished, str]:
        """Run a script of that body; return its end and its kept output."""
        command = self.command(self.script(body), **settings)
        finished = self.processes.run(command, self.pids.append, lambda _: None)
        return finished, self.output.read_text(errors="replace")

    def confined(
        self, body: str, watched: Path | None = None, **reach: Any
    ) -> tuple[Finished, str]:
        """Run it confined; never unconfined: these scripts are hostile."""
        require_confinement(self.processes)
        return self.run(body, confine=Confine(**reach), watched=watched)


def require_confinement(processes: LocalProcesses) -> None:
    """Skip where this machine cannot confine."""
    if reason := processes.can_confine():
        skip(f"scripts cannot be confined here: {reason}")


def skip(reason: str) -> NoReturn:
    """Skip, saying why; fail where everything is required."""
    if os.environ.get("HANDRAIL_REQUIRE") == "all":
        pytest.fail(f"required, but {reason}")
    pytest.skip(reason)


def is_alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def wait_for(path: Path) -> str:
    """Wait until a running script has written a line to `path`; return it."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text().strip()
        time.sleep(0.01)
    raise AssertionError(f"{path} was not written")


def after_line(path: Path, act: Any) -> threading.Thread:
    """Call `act` in a thread when a running script has written a line to `path`."""

    def wait_and_act() -> None:
        wait_for(path)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread
