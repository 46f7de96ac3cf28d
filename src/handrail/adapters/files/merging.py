"""Brings what others changed in a tree into the copy that a script has worked on.

Rules:
- Four states of each path count: as copied, as the script left it, as others had it at the last
  look, and as they have it now. What only others touched is taken over; what both touched, and
  ended alike, is theirs and ours; anything else is a conflict, and named.
- Also in conflict: what one side made, or changed, in a directory that the other side removed.
- A conflict is found before anything is taken over.
- What others have open and the script left alone can be taken over as it is, by another name of the
  same node: who listens on a socket goes on listening, who appends to a file goes on appending.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from handrail.adapters.files import content
from handrail.adapters.files.building import give, make_other
from handrail.adapters.files.durable import remove_at
from handrail.adapters.files.manifest import joined
from handrail.adapters.files.tree import OPEN_DIRECTORY, OPEN_FILE, Entry, reached, shown

Manifest = Callable[[], Iterable[Entry]]
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_FRESH = b"taken-over"
_NODES = frozenset({"socket", "fifo"})


@dataclass(frozen=True)
class Difference:
    """One path that others have changed since the last look."""

    path: bytes
    theirs: Entry | None


@dataclass
class Differences:
    """What others changed since the last look, and where that meets what the script did.

    Attributes:
        apart: what the script did not touch, in the order of a walk.
        conflicts: what both touched.
    """

    apart: list[Difference] = field(default_factory=list)
    conflicts: list[bytes] = field(default_factory=list)


def compare(base: Manifest, script: Manifest, last: Manifest, now: Manifest) -> Differences:
    """Return what differs between `last` and `now`, and where the script was too.

    Each is a manifest, in order: of the copy when it was made, of the copy as the script left it,
    of the original at the last look, and of the original now.
    """
    found = Differences()
    gone_here, gone_there = _Gone(), _Gone()
    for path, (was, ours, before, theirs) in joined(base(), script(), last(), now()):
        gone_here.see(path, was, ours)
        gone_there.see(path, was, theirs)
        is_ours = _state(was) != _state(ours)
        is_theirs = _state(was) != _state(theirs)
        is_lost = (is_ours and ours is not None and gone_there.has(path)) or (
            is_theirs and theirs is not None and gone_here.has(path)
        )
        if is_lost or (is_ours and is_theirs and _state(ours) != _state(theirs)):
            found.conflicts.append(path)
        elif not is_ours and _state(before) != _state(theirs):
            found.apart.append(Difference(path, theirs))
    return found


class _Gone:
    """Which directory one side has removed, while paths come in order."""

    def __init__(self) -> None:
        self._top: bytes | None = None

    def see(self, path: bytes, was: Entry | None, entry: Entry | None) -> None:
        """Take the next path: what it was, and what it is on this side."""
        if self._top is not None and _is_below(path, self._top):
            return
        is_gone = _is_directory(was) and not _is_directory(entry)
        self._top = path if is_gone else None

    def has(self, path: bytes) -> bool:
        """Whether `path` lies in a directory that this side has removed."""
        return self._top is not None and path != self._top and _is_below(path, self._top)


def _is_directory(entry: Entry | None) -> bool:
    return entry is not None and entry.kind == "directory"


def _is_below(path: bytes, top: bytes) -> bool:
    return not top or path == top or path.startswith(top + b"/")


def _state(entry: Entry | None) -> tuple[object, ...] | None:
    return None if entry is None else entry.state


@dataclass
class Taking:
    """Takes what others changed over from one tree into another.

    Attributes:
        source: where they changed it.
        target: the tree that is to have it.
        folder: on the same file system, for what is not yet whole.
        lost: what could not be kept, for people.
    """

    source: Path
    target: Path
    folder: Path
    lost: list[str] = field(default_factory=list)
    _several: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def take(self, differences: Iterable[Difference]) -> None:
        """Make the target have what each difference says. Twice equals once."""
        gone = []
        for one in differences:
            if one.theirs is None:
                gone.append(one.path)
            elif not one.path:
                self._give(self.target, one.theirs)
            else:
                self._put(one.path, one.theirs)
        # From the depths up: what is removed is empty then.
        for path in reversed(gone):
            self._remove(path)

    def _put(self, path: bytes, entry: Entry) -> None:
        name = path.rpartition(b"/")[2]
        with reached(self.target, path) as parent, reached(self.source, path) as origin:
            if parent is None or origin is None:
                return  # gone by now, which the next look finds
            kind = _kind(name, parent)
            if entry.kind == "directory":
                if kind != "directory":
                    remove_at(name, parent)
                    os.mkdir(name, 0o700, dir_fd=parent)
                self._give(name, entry, parent)
                return
            if kind == "directory":
                remove_at(name, parent)
            self._write(path, entry, parent, origin)

    def _write(self, path: bytes, entry: Entry, parent: int, origin: int) -> None:
        """Put a new node under the name at once: it is the old one, or whole."""
        name = path.rpartition(b"/")[2]
        fresh = self.folder / os.fsdecode(_FRESH)
        fresh.unlink(missing_ok=True)
        first = self._several.get(entry.seen[:2])
        if first is not None:
            os.link(self.target / os.fsdecode(first), fresh, follow_symlinks=False)
        elif entry.kind == "file":
            if not self._copy(name, entry, origin, fresh):
                return
        elif entry.kind not in _NODES or not _linked(name, origin, fresh):
            with _opened(self.folder) as folder:
                make_other(entry, _FRESH, folder, self.lost)
        os.replace(fresh, name, dst_dir_fd=parent)
        if entry.names > 1 and first is None:
            self._several[entry.seen[:2]] = path

    def _copy(self, name: bytes, entry: Entry, origin: int, fresh: Path) -> bool:
        """Copy a file; False where it is gone by now, which the next look finds."""
        try:
            source = os.open(name, OPEN_FILE, dir_fd=origin)
        except OSError:
            return False
        try:
            target = os.open(fresh, _NEW_FILE, 0o600)
            try:
                content.copy(source, target, os.fstat(source).st_size)
                give(target, entry, self.lost)
            finally:
                os.close(target)
        finally:
            os.close(source)
        return True

    def _remove(self, path: bytes) -> None:
        name = path.rpartition(b"/")[2]
        with reached(self.target, path) as parent, reached(self.source, path) as origin:
            is_back = origin is not None and _kind(name, origin)
            if parent is not None and not is_back:
                remove_at(name, parent)

    def _give(self, at: Path | bytes, entry: Entry, parent: int | None = None) -> None:
        descriptor = os.open(at, OPEN_DIRECTORY, dir_fd=parent)
        try:
            give(descriptor, entry, self.lost)
        finally:
            os.close(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, OPEN_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _kind(name: bytes, parent: int) -> str:
    """Return `directory`, `other`, or nothing where nothing is."""
    try:
        about = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return ""
    return "directory" if stat.S_ISDIR(about.st_mode) else "other"


def share(source: Path, target: Path, folder: Path, entries: Iterable[Entry]) -> tuple[bytes, ...]:
    """Make entries of `target` the very nodes of `source`; return which could not be.

    For sockets, FIFOs, and files that somebody has open: who uses one goes on using it.
    """
    left = []
    fresh = folder / os.fsdecode(_FRESH)
    for entry in entries:
        name = entry.path.rpartition(b"/")[2]
        fresh.unlink(missing_ok=True)
        with reached(source, entry.path) as origin, reached(target, entry.path) as parent:
            if origin is not None and parent is not None and _linked(name, origin, fresh):
                os.replace(fresh, name, dst_dir_fd=parent)
            else:
                left.append(entry.path)
    return tuple(left)


def _linked(name: bytes, origin: int, fresh: Path) -> bool:
    """Make `fresh` another name of a node; False where the system does not allow that."""
    try:
        os.link(name, fresh, src_dir_fd=origin, follow_symlinks=False)
    except OSError:
        return False
    return True


def named(paths: Iterable[bytes]) -> str:
    """Return the first few paths for people, and how many more there are."""
    found = list(paths)
    more = f" and {len(found) - 3:,} more" if found[3:] else ""
    return ", ".join(f"`{shown(path)}`" for path in found[:3]) + more
