"""A guarded PostgreSQL database for tests: real clients on one side, a real server on the other."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from handrail.adapters.postgres import gate
from handrail.plans.budget import from_effects
from handrail.plans.effect import Effect
from handrail.plans.holding import Event, Limits, Report
from handrail.plans.model import Allowance, Budget
from handrail.ports import Store, StoreGuard
from handrail.wire import postgres
from support.postgres_server import RESOURCE, Server, server_binaries

TABLES = """
CREATE TABLE devices (id int PRIMARY KEY, name text, seen int DEFAULT 0);
CREATE TABLE readings (id int PRIMARY KEY, device int REFERENCES devices ON DELETE CASCADE);
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO devices SELECT g, 'device ' || g FROM generate_series(1, 20) g;
INSERT INTO readings SELECT g, 1 + g % 20 FROM generate_series(1, 600) g;
INSERT INTO notes SELECT g, 'note ' || g FROM generate_series(1, 50) g;
"""


def budget(**rows: int) -> Budget:
    """Return a budget: `budget(delete_devices=3)`; a table's name after the verb."""
    return Budget(
        tuple(
            Allowance(RESOURCE, name.partition("_")[0], "table", name.partition("_")[2], count)
            for name, count in rows.items()
        ),
        "declaration",
    )


def hold(given: Budget, **more: object) -> Limits:
    """Return limits that hold a run to a budget."""
    return Limits("hold", given, **more)  # type: ignore[arg-type]  # as the test says


def exactly(effects: tuple[Effect, ...]) -> Budget:
    """Return the budget of these effects, without any tolerance."""
    return from_effects(effects, relative=0, absolute=0)


@dataclass
class Guarded:
    """A guard that is open, and what was heard of it."""

    guard: StoreGuard
    store: Store
    events: list[Event] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where a client connects to."""
        return self.guard.connection().parts["url"]

    def connect(self, **options: object) -> psycopg.Connection[tuple[object, ...]]:
        """Return a client's connection through the guard; autocommit unless told otherwise."""
        options.setdefault("autocommit", True)
        return psycopg.connect(self.url, **options)  # type: ignore[arg-type]

    def psql(self, script: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a script by psql, which goes on after errors unless told otherwise."""
        environment = {**self.guard.connection().environment, "PATH": "/usr/bin:/bin", **more}
        binaries = server_binaries()
        assert binaries is not None
        argv = [binaries.program("psql"), "-X", "-q", "-A", "-t", *words, "-f", "-"]
        return subprocess.run(
            argv, env=environment, input=script, capture_output=True, text=True, check=False
        )

    def settle(self) -> Report:
        """End the guard, and return its report."""
        return self.guard.settle()


class Database:
    """A database of a test's own."""

    def __init__(self, server: Server, folder: Path, tables: str = TABLES) -> None:
        self.server = server
        self.name = server.make_database()
        self.store = server.store(self.name)
        self._folder = folder
        self._observed = 0
        self.direct(tables)

    def direct(self, script: str) -> None:
        """Run statements past the guard, as the owner."""
        with psycopg.connect(self.server.url(self.name), autocommit=True) as session:
            session.execute(script.encode())

    def ask(self, query: str) -> object:
        """Return the first value of a query, asked past the guard."""
        with psycopg.connect(self.server.url(self.name), autocommit=True) as session:
            row = session.execute(query.encode()).fetchone()
            return row[0] if row else None

    def counts(self) -> Mapping[str, int]:
        """Return the rows of each table of the schema `public`."""
        with psycopg.connect(self.server.url(self.name), autocommit=True) as session:
            names = session.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                " AND relkind IN ('r', 'm') ORDER BY 1"
            ).fetchall()
            return {
                str(name): int(
                    (
                        session.execute(f'SELECT count(*) FROM ONLY "{name}"'.encode()).fetchone()
                        or [0]
                    )[0]
                )
                for (name,) in names
            }

    @contextmanager
    def guarded(
        self,
        limits: Limits,
        store: Store | None = None,
        hear: Callable[[Event], None] | None = None,
    ) -> Iterator[Guarded]:
        """Give a guard of this database."""
        self._observed += 1
        before = self._folder / f"before-{self._observed}"
        before.mkdir()
        target = store or self.store
        target.observe(before)
        folder = self._folder / f"guard-{self._observed}"
        folder.mkdir()
        events: list[Event] = []
        look = gate.looker(target.resource, before, target.connection().parts["url"])
        with postgres.guarded(target, limits, folder, hear or events.append, look) as guard:
            yield Guarded(guard, target, events)

    def drop(self) -> None:
        """Remove it."""
        self.server.drop_database(self.name)
