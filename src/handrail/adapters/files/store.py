"""`FilesStore`: a directory tree as `handrail.ports.Store`.

Rules:
- The real path is taken once, when the store is made: a script that puts a symbolic link in the
  tree's place does not lead a restore elsewhere.
- Everything is done by system calls; no program is started. It needs Linux.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from handrail.adapters.files import (
    asking,
    backups,
    clones,
    identity,
    manifest,
    measuring,
    restoring,
    swapping,
)
from handrail.adapters.files.changes import effects
from handrail.adapters.files.openers import openers
from handrail.adapters.files.tree import answering, digested, scan, walk
from handrail.errors import StoreError
from handrail.plans.effect import Effect
from handrail.plans.facts import Backup, Fingerprint, Identity, Measure
from handrail.ports import Connection, Progress, Store

_BEFORE = "before.manifest"


def _now() -> datetime:
    return datetime.now(UTC)


class FilesStore:
    """A directory and all that is in it."""

    kind = "files"

    def __init__(self, resource: str, path: Path, *, now: Callable[[], datetime] = _now) -> None:
        """Keep where the tree is; nothing is opened.

        Args:
            resource: the store that it is, `kind/name`.
            path: of the directory; links are resolved now.
            now: gives the time at which a backup is begun.
        """
        self.resource = resource
        self._root = Path(os.path.realpath(path))
        self._now = now

    def identify(self) -> Identity:
        """Return the id that `adopt` wrote, `files:unadopted` before, and the real path."""
        with answering(self.resource, self._root):
            self._require()
            return identity.identify(self._root)

    def adopt(self, new_id: str) -> Identity:
        """Write `new_id` on the tree where it has no id, and return who it is."""
        with answering(self.resource, self._root):
            self._require()
            identity.adopt(self._root, new_id)
            return identity.identify(self._root)

    def measure(self) -> Measure:
        """Return how many files a pattern of paths, the span of their times, and all bytes."""
        found = walk(self.resource, self._root, reading=False)
        return measuring.measure(one.entry for one in found)

    def fingerprint(self) -> Fingerprint:
        """Return checksums of all content; see `measuring` for what counts."""
        return measuring.fingerprint(map(digested, walk(self.resource, self._root)))

    def others(self) -> tuple[str, ...]:
        """Return the other processes that use the tree: `python3 (pid 812)`."""
        return openers(self._root)

    def backup(self, backup_id: str, into: Path, progress: Progress) -> Backup:
        """Write everything into `into`; progress is in bytes."""
        root = self._root
        return backups.make(self.resource, root, backup_id, into, self._now(), progress)

    def restore(self, backup: Backup, progress: Progress) -> tuple[str, ...]:
        """Put `backup` in the tree's place; progress is in bytes."""
        return restoring.restore(self.resource, self._root, backup, progress)

    def can_restore(self) -> str:
        """Return why nothing could take the tree's place; empty when something could."""
        return swapping.refusal(self._root)

    def clone(self, backup: Backup, at: Path, marker: str, progress: Progress) -> Store:
        """Make a clone `at/<name of the tree>`; progress is in bytes."""
        made = clones.clone(self.resource, self._root, backup, at, marker, progress)
        return FilesStore(self.resource, made, now=self._now)

    def discard(self, at: Path) -> None:
        """End the clone in `at`.

        Raises:
            StoreError: what is there is no clone; it was left alone.
        """
        clones.discard(self.resource, at)

    def observe(self, into: Path) -> None:
        """Keep a manifest with the digests of all content in `into`."""
        with answering(self.resource, self._root):
            found = walk(self.resource, self._root)
            manifest.write(into / _BEFORE, map(digested, found))

    def effects(self, before: Path) -> tuple[Effect, ...]:
        """Return what differs from the manifest in `before`, worst first.

        A tree that is gone is the deletion of everything in it.
        """
        with answering(self.resource, self._root):
            now = scan(self.resource, self._root)
            return effects(self.resource, manifest.read(before / _BEFORE), now)

    def connection(self) -> Connection:
        """Return the path."""
        path = str(self._root)
        return Connection(
            environment={"HANDRAIL_FILES": path}, parts={"path": path}, paths=(self._root,)
        )

    def ask(self, query: str, timeout_s: float) -> str:
        """Answer `count GLOB` or `exists PATH`."""
        return asking.ask(self.resource, self._root, query, timeout_s)

    def _require(self) -> None:
        """Check that a directory is there; what a killed swap left is put right first.

        Raises:
            StoreError: it is something else.
            OSError: nothing is there.
        """
        if not os.path.lexists(self._root):
            swapping.recover(self._root)
        if not self._root.is_dir() and os.path.lexists(self._root):
            raise StoreError(
                "store.not-a-store",
                f"{self.resource}: `{self._root}` is not a directory",
                hint="give the path of the directory itself",
            )
