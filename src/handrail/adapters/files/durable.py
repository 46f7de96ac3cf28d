"""Makes what was written survive a power cut, and removes trees whole.

Rules:
- A whole tree is flushed by one call to its file system: a call a file costs a disk's seek each.
- Nothing is followed on removal, and what a script made unreadable is removed all the same.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from handrail.adapters.files.tree import OPEN_DIRECTORY, mount_points, names_in


def flush(path: Path) -> None:
    """Make a file's content, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(directory: Path) -> None:
    """Make everything survive that was written to the file system of `directory`.

    Raises:
        OSError: the disk has failed.
    """
    descriptor = os.open(directory, OPEN_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))
    finally:
        os.close(descriptor)
    flush(directory)


def remove(directory: Path) -> None:
    """Remove a directory with all that is in it; nothing where nothing is.

    Raises:
        OSError: something could not be removed, or is mounted inside.
    """
    if not os.path.lexists(directory):
        return
    within = [point for point in mount_points() if point.is_relative_to(directory)]
    if within:
        raise OSError(16, "something is mounted inside", str(within[0]))
    parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_at(os.fsencode(directory.name), parent)
    finally:
        os.close(parent)


def remove_at(name: bytes, parent: int) -> None:
    """Remove `name` in the open directory `parent`, whatever it is; nothing where nothing is."""
    if not _unlinked(name, parent):
        _remove(name, parent)


def empty(directory: Path) -> None:
    """Remove all that is in a directory."""
    for path in directory.iterdir():
        remove(path)


def _remove(name: bytes, parent: int) -> None:
    """Remove the directory `name` of the open directory `parent`, its depths first."""
    here = _enter(name, parent)
    stack = [(name, parent, here, names_in(here))]
    try:
        while stack:
            one, above, here, names = stack[-1]
            below = next((n for n in names if not _unlinked(n, here)), None)
            if below is None:
                os.close(stack.pop()[2])
                os.rmdir(one, dir_fd=above)
            else:
                deeper = _enter(below, here)
                stack.append((below, here, deeper, names_in(deeper)))
    finally:
        for level in stack:
            os.close(level[2])


def _enter(name: bytes, parent: int) -> int:
    mode = stat.S_IMODE(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    if mode & 0o700 != 0o700:  # noqa: PLR2004  all rights of the owner
        os.chmod(name, mode | 0o700, dir_fd=parent)
    return os.open(name, OPEN_DIRECTORY, dir_fd=parent)


def _unlinked(name: bytes, parent: int) -> bool:
    """Remove `name` unless it is a directory; return whether it is gone."""
    with suppress(FileNotFoundError):  # others remove too
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return False
        os.unlink(name, dir_fd=parent)
    return True


def free_bytes(directory: Path) -> int:
    """Return how much may still be written to the file system of `directory`."""
    return shutil.disk_usage(directory).free
