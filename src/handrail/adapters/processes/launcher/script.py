"""The last steps of a process before it becomes the script.

Rules:
- The script begins as from a login shell: default signals, no descriptor but 0, 1 and 2, a session
  of its own without a terminal, the environment of the request and nothing else.
- Whatever fails here is said at the gate, with the stage at which it failed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from .talking import Gate

NOT_STARTED = 127


def become(request: dict[str, Any], gate: Gate, lock_in: Callable[[], None]) -> NoReturn:
    """Turn this process into the script, once the gate opens."""
    stage = "prepare"
    try:
        os.setsid()
        gate.stand_before()
        lock_in()
        if not gate.wait():
            os._exit(NOT_STARTED)
        _restore_signals()
        stage = "folder"
        os.chdir(request["cwd"])
        stage = "program"
        os.execve(request["argv"][0], request["argv"], request["environment"])  # noqa: S606 - no shell
    except OSError as error:
        gate.fail(stage, error)
    finally:
        os._exit(NOT_STARTED)


def _restore_signals() -> None:
    """Undo what Python, and whoever started Handrail, made of the signals."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is not None:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
