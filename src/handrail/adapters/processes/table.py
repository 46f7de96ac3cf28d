"""The processes of this machine, as `/proc` shows them, and signals that cannot meet a stranger.

Rules:
- A zombie counts as ended.
- A signal goes to the process that was looked at, never to a later one with the same number.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One live process. `started_ticks` from boot tells two of the same number apart."""

    number: int
    parent: int
    session: int
    started_ticks: int
    name: str


def processes() -> dict[int, Process]:
    """Return every live process by number."""
    found = (_process(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    return {process.number: process for process in found if process is not None}


def environment(number: int) -> list[bytes]:
    """Return what a process was started with; empty where it has ended, or is another user's."""
    try:
        return (PROC / str(number) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def mark_of(number: int) -> str:
    """Return the `HANDRAIL_RUN` that a process was started with; empty without one."""
    name = b"HANDRAIL_RUN="
    found = [one for one in environment(number) if one.startswith(name)]
    return found[0].removeprefix(name).decode("ascii", "replace") if found else ""


def reap_orphans(spared: Collection[int] = ()) -> None:
    """Take in the dead that came to us from another session, so that no zombie of theirs stays.

    But for `spared`, whose end somebody waits for.
    """
    own, session = os.getpid(), os.getsid(0)
    for entry in (entry.name for entry in PROC.iterdir() if entry.name.isdigit()):
        fields = _fields(entry) if int(entry) not in spared else None
        if fields and fields[0] in "ZX" and int(fields[1]) == own and int(fields[3]) != session:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(int(entry), os.WNOHANG)


def _process(entry: str) -> Process | None:
    fields = _fields(entry)
    if fields is None or fields[0] in "ZX":
        return None
    return Process(int(entry), int(fields[1]), int(fields[3]), int(fields[19]), fields[-1])


def _fields(entry: str) -> list[str] | None:
    """Return the fields of `stat` from the state on, and the name after them; None when gone."""
    try:
        text = (PROC / entry / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name is in parentheses and may hold spaces and parentheses itself.
    before, _, after = text.rpartition(") ")
    return [*after.split(), before.partition(" (")[2]]


def below(table: dict[int, Process], roots: Collection[int]) -> list[Process]:
    """Return all processes of `table` that descend from `roots`, without these."""
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.number)
    found: dict[int, Process] = {}
    waiting = list(roots)
    while waiting:
        for number in children.get(waiting.pop(), ()):
            if number not in found and number not in roots:
                found[number] = table[number]
            waiting.append(number)
    return list(found.values())


def send(signal_number: int, targets: Iterable[Process]) -> None:
    """Send a signal to each of `targets` that is still there and that we may signal."""
    for target in targets:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            _send(signal_number, target)


def _send(signal_number: int, target: Process) -> None:
    try:
        handle = os.pidfd_open(target.number)
    except OSError as error:
        if isinstance(error, ProcessLookupError):
            raise
        os.kill(target.number, signal_number)  # older than Linux 5.3
        return
    try:
        now = _process(str(target.number))
        if now is not None and now.started_ticks == target.started_ticks:
            signal.pidfd_send_signal(handle, signal_number)
    finally:
        os.close(handle)
