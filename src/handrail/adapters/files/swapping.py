"""Puts one tree in another's place, at once, and finds what a killed process left of that.

Rules:
- A stage is a private directory beside the tree, `.NAME.handrail-XXXXXXXX`, on its file system: the
  new tree is made in it under the tree's own name.
- The swap is one system call that exchanges both names (`renameat2`, RENAME_EXCHANGE): there is no
  moment at which there is no tree. Where a file system cannot do that, two renames with a note
  beside them that the next look at the tree acts on.
- After the swap the stage holds the tree as it was. It is kept until the next swap has worked.
- A stage is held by a lock that dies with its process: what nobody holds is a leftover.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from handrail.adapters.files.durable import flush, flush_all, remove
from handrail.adapters.files.tree import mount_points
from handrail.errors import StoreError

_EXCHANGE = 2
_HERE = -100
_CANNOT = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
# Beside the new tree: which it is, from right before the swap on.
_SWAPPING = "swapping"
# The same after it: the stage holds the tree as it was.
_KEPT = "kept"
# Where there is no exchange: the old tree between the two renames.
_FORMER = "former"


@dataclass
class Stage:
    """A place beside a tree for what will take its place."""

    root: Path
    folder: Path
    is_swapped: bool = False
    lock: int = field(default=-1, repr=False)

    @property
    def tree(self) -> Path:
        """The new tree; after the swap, the tree as it was."""
        return self.folder / self.root.name

    def swap(self) -> None:
        """Put the new tree in the place of the old one, durably; it is this stage's then."""
        flush_all(self.folder)
        note = self.folder / _SWAPPING
        note.write_text(f"{_inode(self.tree)}\n")
        flush(note)
        flush(self.folder)
        if not os.path.lexists(self.root):
            self.tree.rename(self.root)
        elif not _exchange(self.tree, self.root):
            former = self.folder / _FORMER
            self.root.rename(former)
            self.tree.rename(self.root)
            former.rename(self.tree)
        self.is_swapped = True
        flush(self.folder)
        flush(self.root.parent)
        note.rename(self.folder / _KEPT)
        flush(self.folder)


@contextmanager
def staged(resource: str, root: Path) -> Iterator[Stage]:
    """Give a stage for the tree at `root`; what is in it goes, unless it was swapped.

    Raises:
        StoreError: a tree cannot be put here.
    """
    why = refusal(root)
    if why:
        raise StoreError(
            "store.unsupported",
            f"{resource}: {why}",
            hint="declare a directory inside of it as the store, or give the right to its parent",
        )
    recover(root)
    stage = _make(root)
    try:
        yield stage
    finally:
        try:
            if not stage.is_swapped:
                remove(stage.folder)
        finally:
            os.close(stage.lock)


def refusal(root: Path) -> str:
    """Return why no other tree can be put in the place of `root`; empty when nothing is known."""
    if root in mount_points():
        return f"`{root}` is a mount point, and no rename can take its place"
    if not os.access(root.parent, os.W_OK | os.X_OK):
        return f"`{root.parent}` may not be written by this user"
    if root.is_dir() and not os.access(root, os.W_OK | os.X_OK):
        return f"`{root}` may not be written by this user, and so not be moved"
    return ""


def recover(root: Path) -> None:
    """Finish or take back what killed processes left beside `root`. Twice equals once."""
    for folder in _stages(root):
        with _held(folder) as lock:
            if lock is not None:
                _recover(root, Stage(root, folder, lock=lock))


def forget(root: Path, but: Path | None = None) -> None:
    """Remove every kept tree of `root`, the one in the stage `but` excepted."""
    for folder in _stages(root):
        with _held(folder) as lock:
            if lock is not None and folder != but:
                remove(folder)


def kept(root: Path) -> tuple[Path, ...]:
    """Return where trees are that were at `root` before a swap."""
    return tuple(folder / root.name for folder in _stages(root) if (folder / _KEPT).exists())


def _recover(root: Path, stage: Stage) -> None:
    former, note = stage.folder / _FORMER, stage.folder / _SWAPPING
    if (stage.folder / _KEPT).exists():
        return
    if os.path.lexists(former):
        if not os.path.lexists(root):
            former.rename(root)
            flush(root.parent)
        elif not os.path.lexists(stage.tree):
            former.rename(stage.tree)
    with suppress(FileNotFoundError):
        if note.read_text().strip() == _inode(root) and stage.tree.is_dir():
            note.rename(stage.folder / _KEPT)
            flush(stage.folder)
            return
    remove(stage.folder)


def _make(root: Path) -> Stage:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(root), dir=root.parent))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Somebody who recovers may have taken it for a leftover before it was held.
        if folder.is_dir() and _same(folder, lock):
            return Stage(root, folder, lock=lock)
        os.close(lock)


def _same(folder: Path, lock: int) -> bool:
    found, held = folder.stat(), os.fstat(lock)
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)


@contextmanager
def _held(folder: Path) -> Iterator[int | None]:
    """Give the lock of a stage that nobody holds; None where somebody does, or it is gone."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield lock
    finally:
        os.close(lock)


def _stages(root: Path) -> list[Path]:
    try:
        beside = sorted(root.parent.iterdir())
    except OSError:
        return []
    return [path for path in beside if path.name.startswith(_prefix(root)) and path.is_dir()]


def _prefix(root: Path) -> str:
    return f".{root.name}.handrail-"


def _inode(path: Path) -> str:
    found = path.lstat()
    return f"{found.st_dev}:{found.st_ino}"


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where this file system cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))
