"""The launcher's beginning: take one request, run the script, tell how it ended.

Rules:
- Asked on the control line: `{argv, cwd, environment, confine}`; then one `{go}`; then one `{end}`.
- Told there: `{pid}`, then `{failure}` or `{status}` (as wait(2) has it), and in the end
  `{reached, read, traced}`. Instead of `{pid}`: `{unconfinable}`.
- It outlives the script, so that everything that the script leaves behind is below it.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from . import kernel
from .confining import confined
from .script import become
from .talking import Control, Gate


def main() -> None:
    """Serve the control line whose descriptor is the last argument, and end."""
    kernel.name_process("handrail-start")
    connection = socket.socket(fileno=int(sys.argv[-1]))
    connection.set_inheritable(False)  # it was handed over; it must not be handed on
    control = Control(connection)
    request = control.receive()
    if request is not None and request["confine"] is None:
        _plain(control, request)
    elif request is not None:
        try:
            confined(control, request)
        except OSError as error:
            control.send(unconfinable=f"{error.filename}: {error.strerror}")
    os._exit(0)  # threads that still carry bytes must not hold it


def _plain(control: Control, request: dict[str, Any]) -> None:
    kernel.set_subreaper(on=True)
    gate = Gate()
    script = os.fork()
    if script == 0:
        become(request, gate, lambda: None)
    gate.hold_key()
    control.send(pid=script)
    if control.receive() is None:
        return
    gate.open()
    if failure := gate.failure():
        control.send(failure=failure)
        return
    control.send(status=_wait_for(script))
    control.receive()
    control.send(reached=[], read=[], traced="")


def _wait_for(script: int) -> int:
    """Wait for the script, taking in every orphan on the way; return its status."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == script:
            return status
