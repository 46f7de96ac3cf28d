"""Holds a script to its budget on a database file: it works on a copy, which is written back.

Rules:
- In `hold`, `measure` and `read-only` the script has a copy, made by SQLite's online backup: what
  lies in a log or hot journal beside the file is in it. Nothing of it reaches the original before
  `settle`.
- What a script did is its copy against the same copy as it was made.
- The copy is written into the original page by page in one exclusive transaction. Readers see the
  old content or the new; other processes keep their connections; a kill at any moment leaves a
  journal that SQLite rolls back. A rename would do none of these: whoever has the old file open
  would go on writing there, and the log beside the name belongs to it.
- Whoever wrote to the original meanwhile is not overwritten: the run is refused. That is asked
  when the exclusive lock is held and nothing is written yet, of SQLite's own counters. A script
  that has the original's address of its own is found by the same.
- In `observe` the script works on the file itself.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from handrail.adapters.sqlite.catalog import has_wal_header
from handrail.adapters.sqlite.changes import effects
from handrail.adapters.sqlite.connecting import (
    COMPANIONS,
    DatabaseFile,
    answering,
    connect,
    reading,
    require,
)
from handrail.adapters.sqlite.copying import copy_database, copy_pages, require_space
from handrail.errors import StoreError, sanitise
from handrail.plans import budget as budgets
from handrail.plans.effect import Effect
from handrail.plans.holding import Event, Limits, Report, Stop
from handrail.plans.model import Breach
from handrail.ports import Connection, Store, StoreGuard

HOW = "copied and swapped in"
_OBSERVED = "observed only"
_REMEDY = "rehearse again, if that is what you meant"
_BUSY_TIMEOUT_S = 10.0
_BASE = "base.sqlite"
_STEP_BYTES = 1024 * 1024
_MOST_PAGES = 256
# Source: sqlite.org/fileformat2.html, 1.3: the file change counter.
_COUNTER_AT = 24
_COUNTER_BYTES = 4


_MOVED = Stop(
    "would overwrite what was written to the database during the run, by others or by the script "
    "itself past its copy",
    "",
    remedy="run it again when nobody writes there, with the address from the environment",
)


@contextmanager
def guarded(
    store: Store, limits: Limits, folder: Path, hear: Callable[[Event], None]
) -> Iterator[StoreGuard]:
    """Give what stands between a script and the database of `store`.

    Raises:
        StoreError: no copy can be made.
    """
    if limits.mode == "observe":
        store.observe(folder)
        yield _Watching(store, folder)
        return
    original = DatabaseFile(store.resource, Path(store.connection().parts["path"]), _BUSY_TIMEOUT_S)
    with _original(original, folder) as held:
        yield _Staging(original, limits, folder, held, hear)


@dataclass
class _Watching:
    """A guard that only looks on."""

    store: Store
    folder: Path
    report: Report | None = None

    def connection(self) -> Connection:
        """Return the database itself."""
        return self.store.connection()

    def halt(self, elsewhere: str) -> None:
        """Do nothing: a copy takes no effect before it is settled."""

    def settle(self) -> Report:
        """Return everything that has changed, by whomever."""
        if self.report is None:
            found = self.store.effects(self.folder)
            self.report = Report(self.store.resource, _OBSERVED, found, kept=1 if found else 0)
        return self.report


@dataclass(frozen=True)
class _Held:
    """The original while a script works on its copy: who can say whether others wrote to it.

    Attributes:
        file: the original.
        base: the copy as it was made.
        watcher: a connection that was there when the copy was made.
        version: what it then said of the writes of others.
        descriptor: the file, open until every connection of this process is closed: closing it
            would drop their locks. Source: sqlite.org/howtocorrupt.html, 2.2.
        counter: the file's change counter when the copy was made; empty where there is a log,
            in which it does not count, and a checkpoint changes it.
        inode: which file it was.
    """

    file: DatabaseFile
    base: DatabaseFile
    watcher: sqlite3.Connection
    version: int
    descriptor: int
    counter: bytes
    inode: tuple[int, int]

    def has_moved(self) -> bool:
        """Whether anybody but this process has written; asked while the write lock is held."""
        found = self.file.path.stat()
        if (found.st_dev, found.st_ino) != self.inode:
            return True
        if self.counter:
            # Without a log the write lock keeps every reader out: the file itself has to tell.
            return _counter(self.descriptor) != self.counter
        # A log that was begun anew looks like a write, too; with a log, reading can go on.
        return _version(self.watcher) != self.version and bool(effects(self.file, self.base))


@contextmanager
def _original(file: DatabaseFile, folder: Path) -> Iterator[_Held]:
    """Copy the original into `folder`, twice, and watch it."""
    with answering(file):
        require(file)
        descriptor = os.open(file.path, os.O_RDONLY)
        try:
            with closing(connect(file.path, "rw", file.busy_timeout_s)) as watcher:
                watcher.execute("PRAGMA query_only = 1")
                watcher.execute("BEGIN")
                watcher.execute("SELECT count(*) FROM sqlite_master").fetchone()
                version = _version(watcher)
                counter = b"" if _has_log(watcher) else _counter(descriptor)
                copy_database(file, watcher, folder / _BASE, _nothing)
                watcher.execute("COMMIT")
                _make_copy(file, folder)
                about = os.fstat(descriptor)
                base = replace(file, path=folder / _BASE)
                inode = (about.st_dev, about.st_ino)
                yield _Held(file, base, watcher, version, descriptor, counter, inode)
        finally:
            os.close(descriptor)


def _make_copy(file: DatabaseFile, folder: Path) -> None:
    """Put what the script gets into a directory of its own, with the mode of the original."""
    base = folder / _BASE
    require_space(file, folder, base.stat().st_size)
    (folder / "copy").mkdir(mode=0o700)
    made = folder / "copy" / file.path.name
    shutil.copyfile(base, made)
    made.chmod(file.path.stat().st_mode & 0o777)


@dataclass
class _Staging:
    """A guard that gives the script a copy."""

    original: DatabaseFile
    limits: Limits
    folder: Path
    held: _Held
    hear: Callable[[Event], None]
    events: list[Event] = field(default_factory=list)
    report: Report | None = None

    @property
    def copy(self) -> DatabaseFile:
        """What the script works on."""
        return replace(self.original, path=self.folder / "copy" / self.original.path.name)

    def connection(self) -> Connection:
        """Return the copy."""
        path = str(self.copy.path)
        escaped = path.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
        url = f"sqlite:///{escaped}"
        return Connection(
            environment={"DATABASE_URL": url, "SQLITE_DATABASE": path},
            parts={"url": url, "path": path, "database": path},
            paths=(self.copy.path.parent,),
        )

    def halt(self, elsewhere: str) -> None:
        """Do nothing: a copy takes no effect before it is settled."""

    def settle(self) -> Report:
        """Judge what the script did to the copy, and write it into the original."""
        if self.report is None:
            self.report = self._settle()
        return self.report

    def _settle(self) -> Report:
        resource = self.original.resource
        done = effects(self.copy, self.held.base)
        self._tell_files_beside()
        stop = self._judge(done)
        if stop is None:
            stop = self._write_back(done) if done else self._unless_moved()
        if stop is not None:
            self._tell("refused", stop.what)
            return Report(resource, HOW, stop=stop, events=tuple(self.events))
        return Report(resource, HOW, done, events=tuple(self.events), kept=1 if done else 0)

    def _judge(self, done: tuple[Effect, ...]) -> Stop | None:
        if self.limits.mode == "read-only" and done:
            return _stop(Breach(done[0], None))
        if self.limits.mode != "hold" or self.limits.budget is None:
            return None
        found = budgets.breaches(self.limits.budget, done)
        return _stop(found[0]) if found else None

    def _write_back(self, done: tuple[Effect, ...]) -> Stop | None:
        """Write the copy into the original; return why that was not done."""
        if any(effect.kind == "database" for effect in done):
            return Stop("would leave no database, or another one, in its place", "", done[0])
        try:
            with answering(self.original):
                write_back(self.original, self.copy, self.held.has_moved)
        except _MovedError:
            return _MOVED
        return None

    def _unless_moved(self) -> Stop | None:
        """Return that the original was written to, although nothing is to be written back.

        The script may have gone past its copy: its own address leads to the original.
        """
        with answering(self.original):
            return _MOVED if self.held.has_moved() else None

    def _tell_files_beside(self) -> None:
        own = {self.copy.path.name, *(self.copy.beside(suffix).name for suffix in COMPANIONS)}
        names = sorted({path.name for path in self.copy.path.parent.iterdir()} - own)
        if names:
            self._tell("unheld", f"written beside the copy, and lost with it: {names[0]}")

    def _tell(self, kind: str, text: str) -> None:
        event = Event(kind, sanitise(text))
        self.events.append(event)
        self.hear(event)


class _MovedError(Exception):
    """Others have written to the original."""


def write_back(original: DatabaseFile, copy: DatabaseFile, has_moved: Callable[[], bool]) -> None:
    """Make `original` hold what `copy` does, in one transaction, unless it has moved.

    Args:
        original: written to; others may have it open.
        copy: nobody writes it any more.
        has_moved: asked once, when the original's write lock is held and before
            anything can be committed.

    Raises:
        StoreError: somebody held the original's lock for too long, or the copy's pages have
            another size, which a transaction cannot change.
    """
    asked = False

    def check(done: int, _total: int | None) -> None:
        nonlocal asked
        if done and not asked:  # nothing is done yet while the lock is waited for
            asked = True
            if has_moved():
                raise _MovedError

    with reading(copy) as source:
        page_bytes, pages = (_number(source, name) for name in ("page_size", "page_count"))
        with closing(connect(original.path, "rw", original.busy_timeout_s)) as target:
            target.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if _number(target, "page_size") != page_bytes:
                raise StoreError(
                    "store.unsupported",
                    f"{original.resource}: the script gave the database pages of another size",
                    hint="do that by hand, while nobody uses the database",
                )
            _require_two_pages(original, pages)
            target.execute("PRAGMA busy_timeout = 0")
            # The last step commits: there have to be two, and the first has to fit into memory.
            step = max(1, min(_MOST_PAGES, _STEP_BYTES // page_bytes, pages - 1))
            copy_pages(original, source, target, check, step)
    _keep_journal_mode(original, copy)


def _require_two_pages(file: DatabaseFile, pages: int) -> None:
    if pages < 2:  # noqa: PLR2004  one for each of two steps
        raise StoreError(
            "store.unsupported",
            f"{file.resource}: the script left a database without a single table",
            hint="remove the file by hand, if that is what you meant",
        )


def _keep_journal_mode(original: DatabaseFile, copy: DatabaseFile) -> None:
    """Give the original the journal mode of the copy, where nobody else has it open."""
    wanted = "wal" if has_wal_header(copy.path) else "delete"
    with closing(connect(original.path, "rw", original.busy_timeout_s)) as target:
        if _has_log(target) != (wanted == "wal"):
            target.execute("PRAGMA busy_timeout = 0")
            try:
                target.execute(f"PRAGMA journal_mode = {wanted}")
            except sqlite3.OperationalError as error:
                raise StoreError(
                    "store.locked",
                    f"{original.resource}: everything is written, but for `journal_mode = "
                    f"{wanted}`: another process has the database open",
                    hint=f"sqlite3 {original.path} 'PRAGMA journal_mode = {wanted}', later",
                ) from error


def _version(connection: sqlite3.Connection) -> int:
    return _number(connection, "data_version")


def _number(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _has_log(connection: sqlite3.Connection) -> bool:
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"


def _counter(descriptor: int) -> bytes:
    return os.pread(descriptor, _COUNTER_BYTES, _COUNTER_AT)


def _stop(breach: Breach) -> Stop:
    return Stop(
        sanitise(f"would {budgets.sentence(breach)}"),
        "",
        breach.effect,
        breach.allowed,
        remedy=_REMEDY,
    )


def _nothing(done: int, total: int | None) -> None:
    """Take the progress of a copy that nobody waits for by name."""
