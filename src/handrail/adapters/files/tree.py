"""Walks a directory tree, and reads what is in it.

Rules:
- Entries come in one order, by path segment, byte by byte: two walks can be compared as they come,
  whatever their length. Memory holds one directory's names, and the files with several names.
- Nothing is followed: a link is its own target text, and every directory is opened from its parent.
- Only regular files are opened: a FIFO, a socket or a device never makes it wait.
- What is mounted inside belongs to another file system, and is refused: no copy could hold it.
- What vanishes while it is read is not there. What may not be read is an error, never skipped.
- A name is bytes; it is shown as text only in words for people.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from handrail.adapters.files.content import digest_of
from handrail.errors import StoreError, sanitise

# What Handrail writes on a tree's root to know it again.
IDENTITY_ATTRIBUTE = "user.handrail"
_KEPT_ATTRIBUTES = ("user.", "system.posix_acl_", "security.capability")
_MOUNTS = Path("/proc/self/mountinfo")
# Longer than any clock's tick that a file system takes its times from.
_TICK_NS = 100_000_000
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE})
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
OPEN_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a tree, and what it stands for.

    Attributes:
        path: below the root, with `/`; empty for the root itself.
        kind: `file`, `directory`, `link`, `fifo`, `socket` or `device`.
        mode: permission bits.
        user: number of the owner.
        group: number of the group.
        size_bytes: of a file.
        digest: of a file's content; of a link its target, as hexadecimal; empty when not read.
        attributes: extended attributes that are kept, access lists among them; values hexadecimal.
        time_ns: last modification.
        twin: the first path that is the same file by another name (a hard link); None for itself.
        seen: device, inode, and the time of its last change: equal for a file that nobody touched,
            but for what is written through memory.
        names: how many names the file has, also outside of the tree.
        allocated_bytes: on disk.
    """

    path: bytes
    kind: str
    mode: int
    user: int
    group: int
    size_bytes: int = 0
    digest: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    time_ns: int = 0
    twin: bytes | None = None
    seen: tuple[int, int, int] = (0, 0, 0)
    names: int = 1
    allocated_bytes: int = 0

    @property
    def content(self) -> tuple[object, ...]:
        """What a reader of it gets."""
        return (self.kind, self.size_bytes, self.digest)

    @property
    def manner(self) -> tuple[object, ...]:
        """Who may do what with it."""
        return (self.mode, self.user, self.group, self.attributes)

    @property
    def state(self) -> tuple[object, ...]:
        """Everything that counts; of a directory not its time, which follows from its entries."""
        time_ns = 0 if self.kind == "directory" else self.time_ns
        return (*self.content, *self.manner, time_ns)


@dataclass(frozen=True, slots=True)
class Found:
    """An entry on a walk, with an open descriptor of a file or directory until the next one."""

    entry: Entry
    descriptor: int | None = None


def order(path: bytes) -> list[bytes]:
    """Return by what paths are sorted: a directory, all below it, then its next sibling."""
    return path.split(b"/")


def shown(path: bytes) -> str:
    """Return a path for people: `.` for the root, control characters and bad bytes visible."""
    return sanitise(os.fsdecode(path)) or "."


@contextmanager
def answering(resource: str, root: Path) -> Iterator[None]:
    """Translate what the system raises inside the `with` into `StoreError`."""
    try:
        yield
    except OSError as error:
        raise _of_system(error, resource, root) from error


def walk(resource: str, root: Path, *, reading: bool = True) -> Iterator[Found]:
    """Yield everything in the tree at `root`, the root first.

    Args:
        resource: for errors.
        root: a directory, not a link to one.
        reading: open the files, and read extended attributes.

    Raises:
        StoreError: the root is missing or no directory, something is mounted inside, or something
            may not be read.
    """
    with answering(resource, root):
        refuse_mounts(resource, root)
        top = os.open(root, OPEN_DIRECTORY)
        try:
            about = os.fstat(top)
            found = _entry(b"", about)
            yield Found(replace(found, attributes=_attributes(top)) if reading else found, top)
        except BaseException:
            os.close(top)
            raise
        yield from _Walk(resource, about.st_dev, reading=reading).below(top)


def scan(resource: str, root: Path) -> Iterator[Entry]:
    """Yield every entry of a tree with the digest of its content; none when it is missing."""
    try:
        for found in walk(resource, root):
            yield digested(found)
    except StoreError as error:
        if error.code != "store.missing":
            raise


def digested(found: Found) -> Entry:
    """Return the entry with the digest of its content, read now."""
    if found.entry.kind != "file" or found.descriptor is None:
        return found.entry
    return replace(found.entry, digest=digest_of(found.descriptor, found.entry.size_bytes))


def scan_again(
    resource: str, root: Path, known: Iterable[Entry], before_ns: int, in_use: Container[bytes]
) -> Iterator[Entry]:
    """Yield every entry of a tree that was scanned before; none when it is missing.

    A file that has not changed since by inode, size and times has the digest that it had, unless
    somebody has it open, or it had changed so shortly before that one tick of the clock may hold
    two writes.

    Args:
        resource: for errors.
        root: of the tree.
        known: what the earlier scan found, in order.
        before_ns: by the system's clock, when that scan began.
        in_use: paths that somebody has open, or mapped: what is written through memory changes no
            time at once.
    """
    rest = iter(known)
    before = next(rest, None)
    try:
        for found in walk(resource, root):
            entry = found.entry
            while before and order(before.path) < order(entry.path):
                before = next(rest, None)
            same = before is not None and before.path == entry.path and _untouched(before, entry)
            if (
                before
                and same
                and before.seen[2] < before_ns - _TICK_NS
                and entry.path not in in_use
            ):
                yield replace(entry, digest=before.digest)
            else:
                yield digested(found)
    except StoreError as error:
        if error.code != "store.missing":
            raise


def _untouched(before: Entry, now: Entry) -> bool:
    return (before.kind, before.size_bytes, before.time_ns, before.seen) == (
        now.kind,
        now.size_bytes,
        now.time_ns,
        now.seen,
    )


def look(root: Path, path: bytes) -> Entry | None:
    """Return the entry at `path` with its digest; None when nothing is there."""
    with reached(root, path) as parent:
        found = None
        if parent is not None:
            found = _open(path, path.rpartition(b"/")[2] or b".", parent, reading=True)
        if found is None:
            return None
        try:
            return digested(found)
        finally:
            if found.descriptor is not None:
                os.close(found.descriptor)


@contextmanager
def reached(root: Path, path: bytes) -> Iterator[int | None]:
    """Give the open directory that `path` lies in; None when that is gone, or behind a link."""
    descriptor: int | None = None
    try:
        descriptor = os.open(root, OPEN_DIRECTORY)
        for part in order(path)[:-1]:
            above = descriptor
            try:
                descriptor = os.open(part, OPEN_DIRECTORY, dir_fd=above)
            finally:
                os.close(above)
    except OSError as error:
        if error.errno not in _VANISHED:
            raise
        descriptor = None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


class _Walk:
    """One walk: what has been met so far."""

    def __init__(self, resource: str, device: int, *, reading: bool) -> None:
        self._resource = resource
        self._device = device
        self._reading = reading
        self._several: dict[tuple[int, int], bytes] = {}

    def below(self, top: int) -> Iterator[Found]:
        """Yield everything below the open directory `top`, and close it."""
        stack = [(top, b"", names_in(top))]
        try:
            while stack:
                parent, prefix, names = stack[-1]
                name = next(names, None)
                if name is None:
                    os.close(stack.pop()[0])
                    continue
                found = _open(prefix + name, name, parent, reading=self._reading)
                if found is None:
                    continue
                if found.entry.kind == "directory" and found.descriptor is not None:
                    stack.append(
                        (found.descriptor, prefix + name + b"/", names_in(found.descriptor))
                    )
                    yield self._known(found)
                    continue
                try:
                    yield self._known(found)
                finally:
                    if found.descriptor is not None:
                        os.close(found.descriptor)
        finally:
            for descriptor, _, _ in stack:
                os.close(descriptor)

    def _known(self, found: Found) -> Found:
        """Return `found` with its twin, after a look at where it lies."""
        entry = found.entry
        if entry.seen[0] != self._device:
            raise mounted(self._resource, entry.path)
        if entry.names == 1 or entry.kind == "directory":
            return found
        first = self._several.setdefault(entry.seen[:2], entry.path)
        return found if first == entry.path else replace(found, entry=replace(entry, twin=first))


def names_in(directory: int) -> Iterator[bytes]:
    """Give the names in an open directory, in order."""
    return iter(sorted(os.fsencode(name) for name in os.listdir(directory)))


def _open(path: bytes, name: bytes, parent: int, *, reading: bool) -> Found | None:
    """Return what `name` in `parent` is, opened where it has content; None when it is gone."""
    try:
        about = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(about.st_mode):
            target = os.readlink(name, dir_fd=parent)
            return Found(replace(_entry(path, about), digest=target.hex()))
        if stat.S_ISDIR(about.st_mode):
            descriptor = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
        elif stat.S_ISREG(about.st_mode) and reading:
            descriptor = os.open(name, OPEN_FILE, dir_fd=parent)
        else:
            return Found(_entry(path, about))
    except OSError as error:
        if error.errno in _VANISHED:
            return None
        raise OSError(error.errno, error.strerror, shown(path)) from error
    return _opened(path, descriptor, reading=reading)


def _opened(path: bytes, descriptor: int, *, reading: bool) -> Found | None:
    """Return what was opened; it may be another than what was looked at."""
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):
        os.close(descriptor)
        return None
    entry = _entry(path, about)
    return Found(
        replace(entry, attributes=_attributes(descriptor)) if reading else entry, descriptor
    )


def _entry(path: bytes, about: os.stat_result) -> Entry:
    kind = _KINDS.get(stat.S_IFMT(about.st_mode), "device")
    return Entry(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(about.st_mode) if kind != "link" else 0,
        user=about.st_uid,
        group=about.st_gid,
        size_bytes=about.st_size if kind == "file" else 0,
        digest=str(about.st_rdev) if kind == "device" else "",
        time_ns=about.st_mtime_ns,
        seen=(about.st_dev, about.st_ino, about.st_ctime_ns),
        names=about.st_nlink,
        allocated_bytes=about.st_blocks * 512,
    )


def _attributes(descriptor: int) -> tuple[tuple[str, str], ...]:
    found = []
    for name in attribute_names(descriptor):
        with suppress(OSError):  # removed meanwhile
            found.append((name, os.getxattr(descriptor, name).hex()))
    return tuple(found)


def attribute_names(descriptor: int) -> list[str]:
    """Return the extended attributes that are kept with an open file, in order."""
    try:
        names = os.listxattr(descriptor)
    except OSError:  # this file system has none
        return []
    return sorted(
        name for name in names if name.startswith(_KEPT_ATTRIBUTES) and name != IDENTITY_ATTRIBUTE
    )


def refuse_mounts(resource: str, root: Path) -> None:
    """Check that nothing is mounted inside the tree.

    Raises:
        StoreError: something is; a bind mount has the device number of the tree, so only the
            system's table of mounts tells.
    """
    for point in mount_points():
        if point != root and point.is_relative_to(root):
            raise mounted(resource, os.fsencode(point.relative_to(root)))


def mount_points() -> tuple[Path, ...]:
    """Return where file systems are mounted, as this process sees it; empty without `/proc`."""
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return ()
    points = (line.split(b" ")[4].decode("unicode_escape").encode("latin-1") for line in lines)
    return tuple(Path(os.fsdecode(point)) for point in points)


def mounted(resource: str, path: bytes) -> StoreError:
    """Return the error of a mount at `path`."""
    return StoreError(
        "store.unsupported",
        f"{resource}: `{shown(path)}` is another file system, mounted inside of the tree",
        hint="unmount it, or declare it as a store of its own and this one without it",
    )


def _of_system(error: OSError, resource: str, root: Path) -> StoreError:
    name = sanitise(os.fsdecode(error.filename)) if error.filename else sanitise(str(root))
    where = f"{resource}: `{name}`"
    is_root = error.filename is None or os.fspath(error.filename) == os.fspath(root)
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP} and is_root:
        missing = error.errno == errno.ENOENT
        return StoreError(
            "store.missing" if missing else "store.not-a-store",
            f"{where} {'does not exist' if missing else 'is not a directory'}",
            hint="check the path; Handrail never makes an empty tree in its place",
        )
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreError(
            "store.disk-full", f"{where}: no space is left on the disk", hint="free space: df -h"
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return StoreError(
            "store.denied",
            f"{where} is not accessible to this user ({error.strerror})",
            hint="run as the user that the tree belongs to",
        )
    if error.errno == errno.EMFILE:
        return StoreError(
            "store.unsupported",
            f"{where}: the tree is too deep",
            hint="ulimit -n: one descriptor a level is needed",
        )
    return StoreError("store.failed", f"{where}: {error.strerror}", hint="look at the path")
