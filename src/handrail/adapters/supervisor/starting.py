"""Starts a supervisord of one's own, for a demo or a test. A platform uses the one that is there.

Rules:
- It runs as whoever starts it, listens on a socket that only they may use, and is ended by `stop`.
- What it supervises ends with it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from handrail.adapters.supervisor.fragment import check_folder
from handrail.adapters.supervisor.link import Link
from handrail.errors import PlatformError

_PATIENCE_S = 30.0
_END_S = 20.0
_AGAIN_S = 0.05
_LONGEST_SOCKET = 100
_CONFIGURATION = """\
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
childlogdir={folder}

[unix_http_server]
file={folder}/supervisor.sock
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[include]
files={folder}/conf.d/*.conf
"""


@dataclass(frozen=True)
class Started:
    """A supervisord that was started here.

    Attributes:
        address: what a platform's `url` is.
        folder: what a platform's `folder` is.
    """

    address: str
    folder: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it with all that it supervises. Twice equals once."""
        self.process.terminate()
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(folder: Path) -> Started:
    """Start it on a folder, and return once it answers; what was placed there before runs again.

    Raises:
        PlatformError: it does not start, or the package is not installed.
    """
    check_folder(folder)
    if len(str(folder / "supervisor.sock")) > _LONGEST_SOCKET:
        raise PlatformError(
            "platform.failed", f"`{folder}` is too long a path for a socket", hint="a shorter one"
        )
    (folder / "conf.d").mkdir(parents=True, exist_ok=True)
    configuration = folder / "supervisord.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder))
    argv = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(configuration)]
    with (folder / "supervisord.out").open("ab") as said:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    made = Started(f"unix://{folder}/supervisor.sock", folder, process)
    try:
        _wait(made)
    except BaseException:
        made.stop()
        raise
    return made


def _wait(started: Started) -> None:
    link = Link(started.address)
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if link.call("getPID") == started.process.pid:
                return
        except PlatformError as error:
            if time.monotonic() > until_s or started.process.poll() is not None:
                raise _dead(started) from error
        time.sleep(_AGAIN_S)


def _dead(started: Started) -> PlatformError:
    said = (started.folder / "supervisord.out").read_text(errors="replace").strip()
    if "No module named" in said:
        return PlatformError(
            "platform.extra",
            "supervisord is not installed",
            hint="pip install 'handrail[deploys]'",
        )
    return PlatformError("platform.failed", f"supervisord did not start: {said[-500:]}")
