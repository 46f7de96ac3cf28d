"""A store in memory: what a test writes into it with SQL, a stage backs up, clones and undoes.

Rules:
- It keeps the promises of `ports.Store` that a test of the core leans on, with SQLite in memory
  as its engine. Nothing is a server, a process or a database file; backups and observations are
  files, because stages move, seal and lose files.
- A `Shelf` knows every store and clone by its address: so a fake program finds the one that its
  environment points at, and only that.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from handrail.errors import StoreError
from handrail.plans.canonical import sha256
from handrail.plans.effect import Effect, worst_first
from handrail.plans.facts import Backup, Fingerprint, Identity, Measure, TableMeasure
from handrail.ports import Connection, Progress, Store

FORM = "fake"
_CONTENT = "content"
_CLONE = "clone.json"
_TIMES = ("DATE", "TIMESTAMP")
_MADE_AT = "2026-01-01T00:00:00.000000Z"
_STEP = 10_000


@dataclass
class Shelf:
    """Every fake store of one test, clones among them, by address."""

    stores: dict[str, FakeStore] = field(default_factory=dict)

    def at(self, address: str) -> FakeStore:
        """Return the store at an address, as a program that got it in its environment would.

        Raises:
            StoreError: there is none (any more).
        """
        if address not in self.stores:
            raise StoreError("store.missing", f"nothing is at {address}", hint="look at its url")
        return self.stores[address]


class FakeStore:
    """`ports.Store` that is gone with the test.

    Attributes:
        down: what is wrong with it; every method raises while it is not empty.
        connected: what `others` returns.
        unrestorable: why `restore` cannot work here; it fails with that.
        damages: whether a backup made now cannot be cloned or restored.
    """

    kind = "sqlite"  # so that an estate can declare it

    def __init__(self, resource: str, address: str, shelf: Shelf, *, marker: str = "") -> None:
        """Begin empty, and stand on `shelf` at `address`."""
        self.resource = resource
        self.down = ""
        self.connected: tuple[str, ...] = ()
        self.unrestorable = ""
        self.damages = False
        self._address = address
        self._shelf = shelf
        self._marker = marker
        self._id = ""
        self._content = _empty()
        shelf.stores[address] = self

    def execute(self, sql: str) -> None:
        """Run the statements of `sql` and commit, as the store's own users would."""
        with self._opened() as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.executescript(f"BEGIN; {sql}; COMMIT;")
            self._content = connection.serialize()

    def identify(self) -> Identity:
        """Return who it is; see `ports.Store`."""
        self._refuse_down()
        return Identity(f"fake:{self._id}", self._address, "fake 1", self._marker)

    def adopt(self, new_id: str) -> Identity:
        """Take `new_id` where it has none."""
        self._id = self._id or new_id
        return self.identify()

    def measure(self) -> Measure:
        """Return rows and times a table; see `ports.Store`."""
        with self._opened() as connection:
            tables = tuple(_measure(connection, name) for name in _tables(connection))
        return Measure(tables, len(self._content))

    def fingerprint(self) -> Fingerprint:
        """Return checksums; see `ports.Store`."""
        with self._opened() as connection:
            return _fingerprint(connection)

    def others(self) -> tuple[str, ...]:
        """Return `connected`."""
        self._refuse_down()
        return self.connected

    def backup(self, backup_id: str, into: Path, progress: Progress) -> Backup:
        """Write the content into a file; see `ports.Store`."""
        identity, found = self.identify(), self.fingerprint()
        path = into / _CONTENT
        path.write_bytes(b"" if self.damages else self._content)
        progress(len(self._content), len(self._content))
        return Backup(
            backup_id, str(path.absolute()), FORM, len(self._content), _MADE_AT, identity, found
        )

    def can_restore(self) -> str:
        """Return `unrestorable`."""
        self._refuse_down()
        return self.unrestorable

    def restore(self, backup: Backup, progress: Progress) -> tuple[str, ...]:
        """Take the content of `backup`; see `ports.Store`."""
        if self.unrestorable:
            raise StoreError("store.unsupported", self.unrestorable)
        content = self._read(backup)
        self._content = content
        progress(len(content), len(content))
        return ()

    def clone(self, backup: Backup, at: Path, marker: str, progress: Progress) -> Store:
        """Make a store of its own at an address of its own; see `ports.Store`."""
        content = self._read(backup)
        at.chmod(0o700)
        made = FakeStore(self.resource, f"fake://{at}", self._shelf, marker=marker)
        (at / _CLONE).write_text(json.dumps({"marker": marker}))
        made._id, made._content = self._id, content
        progress(len(content), len(content))
        return made

    def discard(self, at: Path) -> None:
        """End the clone in `at`; see `ports.Store`."""
        if not at.exists():
            return
        inside = {path.name for path in at.iterdir()}
        if inside - {_CLONE}:
            raise StoreError("store.not-a-store", f"{at} is no clone", hint="look into it")
        self._shelf.stores.pop(f"fake://{at}", None)
        (at / _CLONE).unlink(missing_ok=True)
        at.rmdir()

    def observe(self, into: Path) -> None:
        """Keep the present content in a file; see `ports.Store`."""
        self._refuse_down()
        (into / _CONTENT).write_bytes(self._content)

    def effects(self, before: Path) -> tuple[Effect, ...]:
        """Return what differs since `observe(before)`; see `ports.Store`."""
        with self._opened() as now, _memory((before / _CONTENT).read_bytes()) as was:
            return worst_first(_effects(self.resource, was, now))

    def connection(self) -> Connection:
        """Return its address; see `ports.Store`."""
        parts = {"url": self._address, "path": self._address, "database": self._address}
        return Connection({"DATABASE_URL": self._address}, parts, paths=(Path("/fake"),))

    def ask(self, query: str, timeout_s: float) -> str:
        """Return the first value of a query; see `ports.Store`."""
        until = time.monotonic() + timeout_s
        with self._opened() as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.set_progress_handler(lambda: time.monotonic() > until, _STEP)
            try:
                found = connection.execute(query)
                row = found.fetchone()
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise StoreError("store.failed", f"the query failed: {error}") from error
            if found.description is None:
                raise StoreError("store.failed", "that is no query")
        return "" if row is None or row[0] is None else str(row[0])

    def _read(self, backup: Backup) -> bytes:
        self._refuse_down()
        try:
            content = Path(backup.path).read_bytes()
        except OSError as error:
            raise StoreError("backup.damaged", f"{backup.path} cannot be read") from error
        if len(content) != backup.size_bytes:
            raise StoreError("backup.damaged", f"{backup.path} is not as it was written")
        return content

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        self._refuse_down()
        with _memory(self._content) as connection:
            yield connection

    def _refuse_down(self) -> None:
        if self._shelf.stores.get(self._address) is not self:
            raise StoreError("store.missing", f"nothing is at {self._address}", hint="look there")
        if self.down:
            raise StoreError("store.unreachable", self.down, hint="start it")


def _empty() -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA user_version = 1")  # without a page there is nothing to keep
        return connection.serialize()


@contextmanager
def _memory(content: bytes) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content)
        yield connection


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return sorted(name for (name,) in connection.execute(query))


def _columns(connection: sqlite3.Connection, table: str) -> list[tuple[str, str, int]]:
    found = connection.execute(f'PRAGMA table_info("{table}")')
    return [(name, kind.upper(), key) for _, name, kind, _, _, key in found]


def _rows(connection: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    return connection.execute(f'SELECT * FROM "{table}"').fetchall()  # noqa: S608  its own name


def _measure(connection: sqlite3.Connection, table: str) -> TableMeasure:
    times: list[str] = []
    for name, kind, _ in _columns(connection, table):
        if kind in _TIMES:
            query = f'SELECT "{name}" FROM "{table}" WHERE "{name}" IS NOT NULL'  # noqa: S608  its own names
            times += [str(value).replace(" ", "T") for (value,) in connection.execute(query)]
    oldest, newest = min(times, default=None), max(times, default=None)
    return TableMeasure(table, len(_rows(connection, table)), oldest, newest)


def _fingerprint(connection: sqlite3.Connection) -> Fingerprint:
    tables = tuple(
        (name, sha256("\n".join(sorted(map(repr, _rows(connection, name))))))
        for name in _tables(connection)
    )
    query = "SELECT type || name || coalesce(sql, '') FROM sqlite_master"
    return Fingerprint(tables, sha256("\n".join(sorted(t for (t,) in connection.execute(query)))))


def _effects(resource: str, was: sqlite3.Connection, now: sqlite3.Connection) -> Iterator[Effect]:
    before, after = _tables(was), _tables(now)
    for name in sorted({*before, *after}):
        if name not in after:
            yield Effect(resource, "drop", "table", name, len(_rows(was, name)))
        elif name not in before:
            yield Effect(resource, "create", "table", name)
        else:
            yield from _table_effects(resource, name, was, now)
    old, new = _indexes(was), _indexes(now)
    yield from (Effect(resource, "drop", "index", name) for name in sorted(old - new))
    yield from (Effect(resource, "create", "index", name) for name in sorted(new - old))


def _indexes(connection: sqlite3.Connection) -> set[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    return {name for (name,) in connection.execute(query)}


def _table_effects(
    resource: str, table: str, was: sqlite3.Connection, now: sqlite3.Connection
) -> Iterator[Effect]:
    old, new = ([name for name, _, _ in _columns(c, table)] for c in (was, now))
    for verb, names in (("drop", set(old) - set(new)), ("create", set(new) - set(old))):
        yield from (Effect(resource, verb, "column", f"{table}.{n}") for n in sorted(names))
    if old != new:
        return
    keys = [i for i, (_, _, key) in enumerate(_columns(now, table)) if key]
    before, after = _rows(was, table), _rows(now, table)
    gone, come, changed = _by_key(before, after, keys) if keys else _by_content(before, after)
    for verb, rows in (("delete", gone), ("insert", come), ("update", changed)):
        if rows:
            yield Effect(resource, verb, "table", table, rows)


Rows = list[tuple[object, ...]]


def _by_key(before: Rows, after: Rows, keys: list[int]) -> tuple[int, int, int]:
    old, new = ({tuple(row[i] for i in keys): row for row in rows} for rows in (before, after))
    both = old.keys() & new.keys()
    return len(old) - len(both), len(new) - len(both), sum(old[k] != new[k] for k in both)


def _by_content(before: Rows, after: Rows) -> tuple[int, int, int]:
    old, new = Counter(map(repr, before)), Counter(map(repr, after))
    return (old - new).total(), (new - old).total(), 0
