"""Who a tree says it is.

Rules:
- A tree has no identity of its own. `adopt` writes one on its root as the extended attribute
  `user.handrail`, and where the file system has none into the file `.NAME.handrail` beside it:
  never among the tree's own files, which the application counts, serves or deletes.
- The endpoint is the real path: a swap gives the root another inode, and it stays the same tree.
- A clone is known by the file `.handrail-clone` in the directory that it lies in.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from handrail.adapters.files.durable import flush
from handrail.adapters.files.tree import IDENTITY_ATTRIBUTE
from handrail.plans.facts import Identity

UNADOPTED = "unadopted"
CLONE_FILE = ".handrail-clone"
_NO_ATTRIBUTES = frozenset({errno.ENOTSUP, errno.ENOSYS})
_NO_ID = frozenset({errno.ENODATA, *_NO_ATTRIBUTES})


def identify(root: Path) -> Identity:
    """Return who the tree at `root` says it is.

    Raises:
        OSError: there is no directory.
    """
    return Identity(
        f"files:{_read(root) or UNADOPTED}",
        str(root),
        "directory tree",
        read_marker(root.parent),
    )


def adopt(root: Path, new_id: str) -> None:
    """Write `new_id` on a tree that has none."""
    if not _read(root):
        give(root, new_id)


def give(root: Path, who: str) -> None:
    """Make the tree at `root` the one called `who`; nothing where that says that it has no name."""
    if who.removeprefix("files:") in {"", UNADOPTED}:
        return
    try:
        os.setxattr(root, IDENTITY_ATTRIBUTE, who.removeprefix("files:").encode())
    except OSError as error:
        if error.errno not in _NO_ATTRIBUTES:
            raise
        beside = _beside(root)
        beside.write_text(who.removeprefix("files:") + "\n")
        flush(beside)
    flush(root.parent)


def read_marker(directory: Path) -> str:
    """Return the marker of the clone in `directory`; empty when no clone is there."""
    try:
        return (directory / CLONE_FILE).read_text().strip()
    except OSError:
        return ""


def _read(root: Path) -> str:
    try:
        return os.getxattr(root, IDENTITY_ATTRIBUTE).decode(errors="replace").strip()
    except OSError as error:
        if error.errno not in _NO_ID:
            raise
    try:
        return _beside(root).read_text().strip()
    except FileNotFoundError:
        return ""


def _beside(root: Path) -> Path:
    return root.with_name(f".{root.name}.handrail")
