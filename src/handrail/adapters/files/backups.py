"""Writes a tree into a backup, and reads it back.

Rules:
- A backup is `manifest` (everything about each path), `content/` (the bytes, readable by the
  present user alone) and `packed` (which blocks of a file with holes are there). Owners, modes,
  links, FIFOs and the names of one file are in the manifest: an archive of the backup loses none.
- The digest in the manifest is of what was written; it is taken again whenever it is read.
- A file that others write meanwhile is in it as it was read: a directory has no moment.
- On an error nothing is left in the directory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TextIO

from handrail.adapters.files import content, manifest, measuring
from handrail.adapters.files.building import Builder, Content, refuse_device
from handrail.adapters.files.durable import empty, flush_all, free_bytes
from handrail.adapters.files.identity import identify
from handrail.adapters.files.tree import OPEN_FILE, Entry, Found, answering, shown, walk
from handrail.errors import StoreError
from handrail.plans.facts import Backup, Fingerprint
from handrail.ports import Progress

FORM = "files"
_MANIFEST = "manifest"
_CONTENT = "content"
_PACKED = "packed"
# A file with holes of more than this is packed.
_HOLES_BYTES = 1024 * 1024
_RESERVE_BYTES = 16 * 1024 * 1024


def make(
    resource: str, root: Path, backup_id: str, into: Path, made_at: datetime, progress: Progress
) -> Backup:
    """Write a backup of the tree at `root` into the empty directory `into`, durable on return."""
    require_apart(resource, root, into)
    try:
        with answering(resource, root):
            who = identify(root)
            require_space(resource, root, into)
            _write(resource, root, into, progress)
            flush_all(into)
            found = measuring.fingerprint(manifest.read(into / _MANIFEST))
            size_bytes = sum(one.entry.size_bytes for one in walk(resource, into, reading=False))
    except BaseException:
        empty(into)
        raise
    return Backup(
        backup_id, str(into.absolute()), FORM, size_bytes, made_at.isoformat(), who, found
    )


def require_apart(resource: str, root: Path, other: Path) -> None:
    """Check that neither of two directories lies in the other: a copy must not hold itself.

    Raises:
        StoreError: one does.
    """
    real = Path(os.path.realpath(other))
    if real.is_relative_to(root) or root.is_relative_to(real):
        raise StoreError(
            "clone.not-distinct",
            f"{resource}: `{real}` and the tree `{root}` lie one in the other",
            hint="keep Handrail's own directory outside of the tree: HANDRAIL_STATE",
        )


def require_space(resource: str, root: Path, into: Path) -> None:
    """Check that a copy of `root` fits where `into` is.

    Raises:
        StoreError: it does not.
    """
    needed = sum(
        found.entry.allocated_bytes
        for found in walk(resource, root, reading=False)
        if found.entry.twin is None
    )
    free = free_bytes(into)
    if free < needed + _RESERVE_BYTES:
        raise StoreError(
            "store.disk-full",
            f"{resource}: a copy needs {needed:,} bytes in `{into}`, and {free:,} are free",
            hint="free space there, or give another directory",
        )


def entries(resource: str, backup: Backup) -> Iterator[tuple[Entry, Content]]:
    """Yield what a backup holds, with how each file's content is written.

    Raises:
        StoreError: it is not there, or of another form; or, as it is read, not as it was written.
    """
    at = Path(backup.path)
    if backup.form != FORM:
        raise StoreError(
            "store.unsupported",
            f"{resource}: backup {backup.id} has the form `{backup.form}`, not `{FORM}`",
            hint="open or decrypt it first, or choose a backup of this store",
        )
    if not (at / _MANIFEST).is_file():
        raise _damaged(resource, backup, f"`{at / _MANIFEST}` is missing")
    try:
        packed = dict(_packed(at))
        for entry in manifest.read(at / _MANIFEST):
            yield entry, _reader(resource, backup, entry, packed.get(entry.path))
    except ValueError as error:
        raise _damaged(resource, backup, "its manifest cannot be read") from error


def prove(resource: str, backup: Backup, found: Fingerprint) -> None:
    """Check that what was made of a backup is what the backup was when it was made.

    Raises:
        StoreError: it is not.
    """
    if backup.fingerprint is not None and found != backup.fingerprint:
        different = ", ".join(found.differences(backup.fingerprint)[:5])
        raise _damaged(resource, backup, different)


def _write(resource: str, root: Path, into: Path, progress: Progress) -> None:
    with (into / _MANIFEST).open("w", encoding="ascii") as stream:
        writing = _Writing(resource, stream, progress)
        builder = Builder(resource, into / _CONTENT)
        for made in builder.build(writing.content(walk(resource, root))):
            writing.note(made.digest)
    with (into / _PACKED).open("w", encoding="ascii") as stream:
        for path, numbers in writing.packed:
            stream.write(json.dumps([os.fsdecode(path), numbers]) + "\n")


class _Writing:
    """A backup on its way: what is walked, and the manifest of what was kept of it."""

    def __init__(self, resource: str, stream: TextIO, progress: Progress) -> None:
        self.packed: list[tuple[bytes, tuple[int, ...]]] = []
        self._resource = resource
        self._stream = stream
        self._progress = progress
        self._entry: Entry | None = None
        self._several: dict[bytes, Entry] = {}
        self._done_bytes = 0

    def content(self, found: Iterable[Found]) -> Iterator[tuple[Entry, Content]]:
        """Yield what has bytes as it is to be kept, and note all the rest."""
        for one in found:
            entry = one.entry
            refuse_device(self._resource, entry)
            if entry.kind == "directory" or (entry.kind == "file" and entry.twin is None):
                self._entry = entry
                yield _private(entry), self._copier(one)
            elif entry.twin is not None and entry.twin in self._several:
                first = self._several[entry.twin]
                self._line(replace(entry, size_bytes=first.size_bytes, digest=first.digest))
            else:
                self._line(entry)

    def note(self, digest: str) -> None:
        """Note what was kept last."""
        if self._entry is None:  # pragma: no cover  it was yielded before
            raise AssertionError("nothing was kept")
        entry = replace(self._entry, digest=digest)
        if entry.kind == "file" and entry.names > 1:
            self._several[entry.path] = entry
        self._line(entry)
        self._done_bytes += entry.size_bytes
        self._progress(self._done_bytes, None)

    def _line(self, entry: Entry) -> None:
        self._stream.write(manifest.line(entry))

    def _copier(self, found: Found) -> Content:
        def fill(target: int) -> str:
            source, size_bytes = found.descriptor, found.entry.size_bytes
            if source is None:  # pragma: no cover  a file on a reading walk is open
                raise AssertionError("not open")
            if found.entry.allocated_bytes + _HOLES_BYTES > size_bytes:
                return content.copy(source, target, size_bytes)
            digest, numbers = content.pack(source, target, size_bytes)
            self.packed.append((found.entry.path, numbers))
            return digest

        return fill


def _private(entry: Entry) -> Entry:
    """Return an entry as it is kept: readable by the present user alone, without attributes."""
    mode = 0o700 if entry.kind == "directory" else 0o600
    return replace(entry, mode=mode, user=os.geteuid(), group=os.getegid(), attributes=())


def _packed(at: Path) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    with (at / _PACKED).open(encoding="ascii") as stream:
        for text in stream:
            path, numbers = json.loads(text)
            yield os.fsencode(path), tuple(numbers)


def _reader(resource: str, backup: Backup, entry: Entry, packed: tuple[int, ...] | None) -> Content:
    def fill(target: int) -> str:
        try:
            source = os.open(_content_of(backup, entry.path), OPEN_FILE)
        except OSError as error:
            raise _damaged(resource, backup, f"`{shown(entry.path)}` cannot be read") from error
        try:
            if packed is None:
                digest = content.copy(source, target, entry.size_bytes)
            else:
                found = content.unpacked(source, packed, entry.size_bytes)
                digest = content.write(found, target, entry.size_bytes)
        finally:
            os.close(source)
        if digest != entry.digest:
            raise _damaged(resource, backup, f"`{shown(entry.path)}` has other content")
        return digest

    return fill


def _content_of(backup: Backup, path: bytes) -> bytes:
    return os.path.join(os.fsencode(backup.path), _CONTENT.encode(), path)  # noqa: PTH118  bytes


def _damaged(resource: str, backup: Backup, problem: str) -> StoreError:
    return StoreError(
        "backup.damaged",
        f"{resource}: backup {backup.id} is not as it was written: {problem}",
        hint="restore another backup; nothing has been changed",
    )
