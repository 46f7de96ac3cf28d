"""`SqliteStore`: a database file as `handrail.ports.Store`.

Rules:
- The real path is taken once, when the store is made: a script that puts a symbolic link in the
  file's place does not lead a restore elsewhere.
- Everything is done by the library inside Python; no program is started.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from handrail.adapters.sqlite import asking, clones, copying, identity, restoring, times
from handrail.adapters.sqlite.changes import effects
from handrail.adapters.sqlite.connecting import DatabaseFile, reading
from handrail.adapters.sqlite.openers import openers
from handrail.plans.effect import Effect
from handrail.plans.facts import Backup, Fingerprint, Identity, Measure
from handrail.ports import Connection, Progress, Store

_BUSY_TIMEOUT_S = 10.0
_BEFORE = "before.sqlite"


def _now() -> datetime:
    return datetime.now(UTC)


class SqliteStore:
    """A database file. Every call opens it, and closes it again."""

    kind = "sqlite"

    def __init__(
        self,
        resource: str,
        path: Path,
        *,
        busy_timeout_s: float = _BUSY_TIMEOUT_S,
        now: Callable[[], datetime] = _now,
    ) -> None:
        """Keep where the database is; nothing is opened.

        Args:
            resource: the store that it is, `kind/name`.
            path: of the database file; links are resolved now.
            busy_timeout_s: how long to wait for a lock that another process holds.
            now: gives the time at which a backup is begun.
        """
        self.resource = resource
        self._file = DatabaseFile(resource, Path(os.path.realpath(path)), busy_timeout_s)
        self._now = now

    def identify(self) -> Identity:
        """Return the id that `adopt` wrote, `sqlite:unadopted` before, and the real path."""
        return identity.identify(self._file)

    def adopt(self, new_id: str) -> Identity:
        """Write `new_id` into the file where it has no id, and return who it is."""
        identity.adopt(self._file, new_id)
        return identity.identify(self._file)

    def measure(self) -> Measure:
        """Return exact rows and the span of times a table, and the bytes of file and log."""
        with reading(self._file) as connection:
            tables = times.measure(connection)
        sizes = (self._file.path, self._file.beside("-wal"))
        return Measure(tables, sum(path.stat().st_size for path in sizes if path.exists()))

    def fingerprint(self) -> Fingerprint:
        """Return checksums of all content; see `content` for what counts."""
        return copying.fingerprint_of(self._file)

    def others(self) -> tuple[str, ...]:
        """Return the other processes that have the file open: `python3 (pid 812)`."""
        return openers(self._file)

    def backup(self, backup_id: str, into: Path, progress: Progress) -> Backup:
        """Write a checked copy into `into`; progress is in pages."""
        return copying.make_backup(self._file, backup_id, into, self._now(), progress)

    def restore(self, backup: Backup, progress: Progress) -> tuple[str, ...]:
        """Put `backup` into the file that others have open; progress is in pages."""
        return restoring.restore(self._file, backup, progress)

    def can_restore(self) -> str:
        """Return why the file could not be written back; empty when it could."""
        file = self._file.path
        if os.access(file, os.W_OK) and os.access(file.parent, os.W_OK):
            return ""
        return f"{file.name} or its directory may not be written"

    def clone(self, backup: Backup, at: Path, marker: str, progress: Progress) -> Store:
        """Make a clone `at/<name of the file>`; progress is in bytes."""
        made = clones.clone(self._file, backup, at, marker, progress)
        return SqliteStore(
            self.resource, made.path, busy_timeout_s=made.busy_timeout_s, now=self._now
        )

    def discard(self, at: Path) -> None:
        """End the clone in `at`.

        Raises:
            StoreError: what is there is no clone; it was left alone.
        """
        clones.discard(self._file, at)

    def observe(self, into: Path) -> None:
        """Keep a whole copy of the present content in `into`."""
        with reading(self._file) as connection:
            copying.copy_database(self._file, connection, into / _BEFORE, lambda *_: None)

    def effects(self, before: Path) -> tuple[Effect, ...]:
        """Return what differs from the copy in `before`, worst first."""
        return effects(self._file, replace(self._file, path=before / _BEFORE))

    def connection(self) -> Connection:
        """Return the file as a URL and as a path."""
        path = str(self._file.path)
        escaped = path.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
        url = f"sqlite:///{escaped}"
        return Connection(
            environment={"DATABASE_URL": url, "SQLITE_DATABASE": path},
            parts={"url": url, "path": path, "database": path},
            paths=(self._file.path.parent,),
        )

    def ask(self, query: str, timeout_s: float) -> str:
        """Return the first value of the first row of `query`; empty for NULL and no row."""
        return asking.ask(self._file, query, timeout_s)
