"""Finds the processes that use a tree, through `/proc`.

Rules:
- Open files, mapped files, and the working and root directories count, by the path that the system
  has for them: after a swap that is the path that the old tree has then.
- What this user may not look at, and a machine without `/proc`, tells of nobody.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PROCESSES = Path("/proc")


def openers(root: Path) -> tuple[str, ...]:
    """Return the other processes that use the tree at `root`: `python3 (pid 812)`."""
    return tuple(dict.fromkeys(who for who, _ in uses(root)))


def uses(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each use of the tree by another process: who, and the path below the root."""
    inside = os.fsencode(root) + b"/"
    for process in _others():
        for path in _used(process):
            if (path + b"/").startswith(inside):
                yield f"{_name(process)} (pid {process.name})", path[len(inside) :]


def _used(process: Path) -> Iterator[bytes]:
    """Yield the paths that a process has open, mapped, or works in."""
    for link in (process / "cwd", process / "root", *_entries(process / "fd")):
        try:
            yield os.fsencode(link.readlink())
        except OSError:
            continue
    try:
        lines = (process / "maps").read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6:  # noqa: PLR2004  proc_pid_maps(5): the path is the sixth
            yield fields[5]


def _others() -> list[Path]:
    mine = str(os.getpid())
    numbered = [p for p in _entries(_PROCESSES) if p.name.isdecimal() and p.name != mine]
    return sorted(numbered, key=lambda process: int(process.name))


def _entries(directory: Path) -> Iterator[Path]:
    try:
        yield from directory.iterdir()
    except OSError:
        return


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip() or "?"
    except OSError:
        return "?"
