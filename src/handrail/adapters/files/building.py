"""Makes a tree out of entries: a copy of another tree, or what a backup holds.

Rules:
- What a copy holds is what its entries say: the digest of each file is taken of what was written.
- Mode, owner, access lists, attributes and times are given last, when nothing is written any more.
- Names of the same file stay names of one file.
- A device is refused: its copy would be the same device, and no copy of anything.
- Nothing is followed, and no name that is there is written over.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from handrail.adapters.files import content
from handrail.adapters.files.tree import Entry, Found, attribute_names, shown
from handrail.errors import StoreError

# Writes a file's content into an open, empty file, and returns the digest of what it wrote.
Content = Callable[[int], str]
_OWN_DIRECTORY = 0o700
_OWN_FILE = 0o600
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@dataclass
class _Level:
    """A directory on its way: its descriptor and what it is to be."""

    path: bytes
    descriptor: int
    entry: Entry


@dataclass
class Builder:
    """Makes one tree at `root`, which is not there yet.

    Attributes:
        resource: for errors.
        root: where.
        lost: what could not be kept, for people.
        several: the files that were made and have more names.
    """

    resource: str
    root: Path
    lost: list[str] = field(default_factory=list)
    several: dict[bytes, Entry] = field(default_factory=dict)
    _levels: list[_Level] = field(default_factory=list)

    def build(self, entries: Iterable[tuple[Entry, Content]]) -> Iterator[Entry]:
        """Make everything that `entries` say, in their order; yield each as it was made.

        Raises:
            StoreError: one of them is a device.
            OSError: it could not be made; what was made is still there.
        """
        try:
            for entry, fill in entries:
                self._leave_until(entry.path)
                yield self._make(entry, fill)
            self._leave_until(None)
        finally:
            for level in self._levels:
                os.close(level.descriptor)
            self._levels.clear()

    def _make(self, entry: Entry, fill: Content) -> Entry:
        refuse_device(self.resource, entry)
        if not self._levels:
            self.root.mkdir(mode=_OWN_DIRECTORY)
            self._enter(entry, os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
            return entry
        return put(self, entry, fill, self._levels[-1].descriptor)

    def _enter(self, entry: Entry, descriptor: int) -> None:
        self._levels.append(_Level(entry.path, descriptor, entry))

    def enter(self, entry: Entry, parent: int, name: bytes) -> None:
        """Make a directory, and go into it."""
        os.mkdir(name, _OWN_DIRECTORY, dir_fd=parent)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        self._enter(entry, os.open(name, flags, dir_fd=parent))

    def _leave_until(self, path: bytes | None) -> None:
        """Finish the directories that `path` is not in; all of them for None."""
        while self._levels:
            level = self._levels[-1]
            inside = path is not None and (not level.path or path.startswith(level.path + b"/"))
            if inside:
                return
            give(level.descriptor, level.entry, self.lost)
            os.close(self._levels.pop().descriptor)


def refuse_device(resource: str, entry: Entry) -> None:
    """Check that an entry is none that cannot be copied.

    Raises:
        StoreError: it is a device.
    """
    if entry.kind == "device":
        raise StoreError(
            "store.unsupported",
            f"{resource}: `{shown(entry.path)}` is a device: its copy would be the same device",
            hint="keep devices outside of a tree that is declared as a store",
        )


def put(builder: Builder, entry: Entry, fill: Content, parent: int) -> Entry:
    """Make one entry in the open directory `parent`."""
    name = entry.path.rpartition(b"/")[2]
    if entry.kind == "directory":
        builder.enter(entry, parent, name)
        return entry
    if entry.twin is not None and _link(builder.root, entry.twin, name, parent):
        first = builder.several.get(entry.twin, entry)
        return replace(entry, size_bytes=first.size_bytes, digest=first.digest)
    made = entry if entry.twin is None else replace(entry, twin=None)
    if entry.kind == "file":
        descriptor = os.open(name, _NEW_FILE, _OWN_FILE, dir_fd=parent)
        try:
            made = replace(made, digest=fill(descriptor))
            give(descriptor, entry, builder.lost)
        finally:
            os.close(descriptor)
        if entry.names > 1:
            builder.several[entry.path] = made
        return made
    make_other(entry, name, parent, builder.lost)
    return made


def make_other(entry: Entry, name: bytes, parent: int, lost: list[str]) -> None:
    """Make a link, a FIFO or a socket; nobody listens on a socket that was made so."""
    if entry.kind == "link":
        os.symlink(bytes.fromhex(entry.digest), name, dir_fd=parent)
    elif entry.kind == "fifo":
        os.mkfifo(name, _OWN_FILE, dir_fd=parent)
    else:
        os.mknod(name, 0o140000 | _OWN_FILE, dir_fd=parent)
    about = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if (about.st_uid, about.st_gid) != (entry.user, entry.group):
        try:
            os.chown(name, entry.user, entry.group, dir_fd=parent, follow_symlinks=False)
        except PermissionError:
            lost.append(f"owner of `{shown(entry.path)}`")
    if entry.kind != "link":
        os.chmod(name, entry.mode, dir_fd=parent)
    times = (entry.time_ns, entry.time_ns)
    os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)


def give(descriptor: int, entry: Entry, lost: list[str]) -> None:
    """Give an open file or directory what `entry` says besides content; note what cannot be."""
    about = os.fstat(descriptor)
    if (about.st_uid, about.st_gid) != (entry.user, entry.group):
        try:
            os.fchown(descriptor, entry.user, entry.group)
        except PermissionError:
            lost.append(f"owner of `{shown(entry.path)}`")
    os.fchmod(descriptor, entry.mode)
    wanted = dict(entry.attributes)
    # A directory's default access list has put itself on what was made in it.
    for name in attribute_names(descriptor):
        if name not in wanted:
            os.removexattr(descriptor, name)
    for name, value in wanted.items():
        try:
            os.setxattr(descriptor, name, bytes.fromhex(value))
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EACCES, errno.ENOTSUP}:
                raise
            lost.append(f"{name} of `{shown(entry.path)}`")
    os.utime(descriptor, ns=(entry.time_ns, entry.time_ns))


def _link(root: Path, twin: bytes, name: bytes, parent: int) -> bool:
    """Make `name` another name of the file at `twin`; False when that is not there."""
    try:
        os.link(
            os.path.join(os.fsencode(root), twin),  # noqa: PTH118  bytes
            name,
            dst_dir_fd=parent,
            follow_symlinks=False,
        )
    except FileNotFoundError:
        return False
    return True


def of_walk(found: Iterable[Found]) -> Iterator[tuple[Entry, Content]]:
    """Yield what a walk finds, with how its content is copied."""
    for one in found:
        yield one.entry, _copier(one)


def _copier(found: Found) -> Content:
    def fill(target: int) -> str:
        if found.descriptor is None:
            return ""
        return content.copy(found.descriptor, target, found.entry.size_bytes)

    return fill
