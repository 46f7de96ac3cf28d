"""The launcher, seen from Handrail: started, asked, listened to, and gone in the end.

Rules:
- The launcher runs isolated (`python -I -S`) in a session of its own, with `HANDRAIL_RUN` as its
  only environment, so that it is found after a crash.
- Several scripts may run at once, each in a thread of its own: whose launcher is whose is known.
- Until `go` the script has not executed one instruction, and the death of Handrail keeps it so.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from handrail.adapters.processes.launcher import kernel
from handrail.errors import ScriptError

BEGIN = "import sys; sys.path.insert(0, sys.argv[1]); from launcher.main import main; main()"
PIPE_BYTES = 1024 * 1024
SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ
GOODBYE_S = 10.0


class Launched:
    """One launcher with its control line and the pipe of the script's output."""

    def __init__(self, token: str, *, inherits: bool = False) -> None:
        """Start the launcher.

        Args:
            token: by which it is found after a crash.
            inherits: the script's standard streams are this process's own; the pipe is empty.
        """
        self.token = token
        self.control, theirs = socket.socketpair()
        self.output, writer = os.pipe()
        os.set_blocking(self.output, False)
        _widen(self.output)
        self._received = b""
        try:
            with _LAUNCHERS.changing:  # who is seen in the process table is known here, too
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-I", "-S", "-c", BEGIN),
                        *(str(Path(__file__).parent), str(theirs.fileno())),
                    ],
                    stdin=None if inherits else subprocess.DEVNULL,
                    stdout=None if inherits else writer,
                    stderr=None if inherits else writer,
                    cwd="/",
                    env={"HANDRAIL_RUN": token},
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
                _LAUNCHERS.living.add(self._process.pid)
        except BaseException:
            self.control.close()
            os.close(self.output)
            raise
        finally:
            os.close(writer)
            theirs.close()

    @property
    def pid(self) -> int:
        """The launcher's own number."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether the launcher's process is no more, and its orphans are ours."""
        return self._process.poll() is not None

    def ask(self, request: dict[str, Any]) -> None:
        """Send one message. The launcher's death is seen when it is listened to."""
        with contextlib.suppress(OSError):
            self.control.sendall(json.dumps(request).encode() + b"\n")

    def prepare(self, request: dict[str, Any]) -> int:
        """Ask for a script that waits before its first instruction, and return its number.

        Raises:
            ScriptError: this machine cannot confine as asked, or the launcher did not start.
        """
        self.ask(request)
        answer = self.hear()
        if answer is not None and "pid" in answer:
            return int(answer["pid"])
        why = (answer or {}).get("unconfinable")
        if why is not None:
            raise ScriptError(
                "script.confine",
                f"the script cannot be confined: {why}",
                hint="check that the paths and sockets of the store exist on this machine",
            )
        said = (self.read_output() or b"").decode(errors="replace").strip().rpartition("\n")[2]
        raise ScriptError(
            "script.start",
            f"the launcher ended before the script began: {said or 'it said nothing'}",
            hint="check the memory and the number of processes that this user may have",
        )

    def hear(self) -> dict[str, Any] | None:
        """Wait for the next message; None when the launcher has gone."""
        while b"\n" not in self._received:
            try:
                piece = self.control.recv(64 * 1024)
            except OSError:
                return None
            if not piece:
                return None
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def read_output(self) -> bytes | None:
        """Return what was printed and not yet read; None when nothing waits, empty at the end."""
        try:
            return os.read(self.output, PIPE_BYTES)
        except BlockingIOError:
            return None

    def say_goodbye(self) -> dict[str, Any]:
        """Let the launcher end, and return what it saw; empty when it had no time to say."""
        self.ask({"end": True})
        self.control.settimeout(GOODBYE_S)
        seen = self.hear() or {}
        self.close()
        return seen

    def close(self) -> None:
        """End the launcher, and with it a script that has not begun. Twice equals once."""
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._process.kill()
        self._process.wait()
        with _LAUNCHERS.changing:
            _LAUNCHERS.living.discard(self._process.pid)

    def close_output(self) -> None:
        """Close the pipe; nothing is left that could write to it."""
        os.close(self.output)


def _widen(pipe: int) -> None:
    """Give the pipe room, so that a script that prints much waits less often."""
    with contextlib.suppress(OSError):  # a user may have only so many wide pipes
        fcntl.fcntl(pipe, SET_PIPE_SIZE, PIPE_BYTES)


class _Launchers:
    """The launchers of this process, and how many of its threads adopt orphans.

    The kernel knows one parent of orphans a process: what several threads need of it is counted.
    """

    def __init__(self) -> None:
        self.changing = threading.Lock()
        self.living: set[int] = set()
        self.adopting = 0
        self.was_adopting = False


_LAUNCHERS = _Launchers()


def launchers() -> frozenset[int]:
    """Return the launchers of this process that somebody attends."""
    with _LAUNCHERS.changing:
        return frozenset(_LAUNCHERS.living)


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Make this process the parent of orphans below it, and put back what it was before."""
    with _LAUNCHERS.changing:
        if not _LAUNCHERS.adopting:
            _LAUNCHERS.was_adopting = kernel.is_subreaper()
            kernel.set_subreaper(on=True)
        _LAUNCHERS.adopting += 1
    try:
        yield
    finally:
        with _LAUNCHERS.changing:
            _LAUNCHERS.adopting -= 1
            if not _LAUNCHERS.adopting:
                kernel.set_subreaper(on=_LAUNCHERS.was_adopting)
