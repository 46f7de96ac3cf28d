"""Finds the processes that have a database open, through `/proc`.

Rules:
- Files are known by device and inode, so that other names and hard links of them count; a file
  that was removed is known by the name that it had.
- What this user may not look at, and a machine without `/proc`, tells of nobody.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from handrail.adapters.sqlite.connecting import COMPANIONS, DatabaseFile

_PROCESSES = Path("/proc")


def openers(file: DatabaseFile) -> tuple[str, ...]:
    """Return the other processes that have `file` open: `python3 (pid 812)`, by their number."""
    paths = [file.path, *(file.beside(suffix) for suffix in COMPANIONS)]
    wanted = {found for path in paths if (found := _inode(path)) is not None}
    removed = f"{os.path.realpath(file.path)} (deleted)"
    return tuple(
        f"{_name(process)} (pid {process.name})"
        for process in _others()
        if any(
            _inode(descriptor) in wanted or _target(descriptor) == removed
            for descriptor in _entries(process / "fd")
        )
    )


def _others() -> list[Path]:
    mine = str(os.getpid())
    numbered = [p for p in _entries(_PROCESSES) if p.name.isdecimal() and p.name != mine]
    return sorted(numbered, key=lambda process: int(process.name))


def _entries(directory: Path) -> Iterator[Path]:
    try:
        yield from directory.iterdir()
    except OSError:
        return


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip() or "?"
    except OSError:
        return "?"
