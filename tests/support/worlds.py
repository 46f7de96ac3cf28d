"""A world of fakes: time stands still, programs are functions, and the store is in memory.

Rules:
- Declarations are real files, read as always; everything behind a port is a shipped fake.
- Everything is well until a test says otherwise: `make_world` gives a team whose operation could
  be rehearsed, approved and run at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handrail.core import approving, deciding, recalling, rehearsing, running
from handrail.core.deciding import Decided
from handrail.core.declaring import load
from handrail.core.outcome import Outcome
from handrail.core.world import Declared, Kit, World
from handrail.estate.model import Resource
from handrail.guards import BUILT_IN
from handrail.plans.model import Approval
from handrail.ports import Change, CheckResult, Sealer, Store
from handrail.testing.checks import FakeChecks
from handrail.testing.clock import FakeClock, FakeIds
from handrail.testing.guards import FakeGuards
from handrail.testing.journal import MemoryJournal
from handrail.testing.keys import FakeKeys
from handrail.testing.locks import MemoryLocks
from handrail.testing.processes import Call, FakeProcesses
from handrail.testing.repository import FakeRepository
from handrail.testing.store import FakeStore, Shelf
from handrail.testing.talk import QuietTalk

ANA, BEN, CHI = "ana@example.com", "ben@example.com", "chi@example.com"
ADDRESS, ID = "fake:///pilot", "5d0c" * 8
ROWS = 20
TABLES = f"""
CREATE TABLE sessions (id INTEGER PRIMARY KEY, device INTEGER);
CREATE TABLE devices (id INTEGER PRIMARY KEY, registered INTEGER);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
INSERT INTO sessions SELECT i, i % 5 FROM n;
INSERT INTO devices VALUES (1, 1), (2, 1), (3, 1)
"""
HEALTH = {"http": "http://pilot-api.internal/health"}
WELL, ILL = CheckResult(healthy=True, seen="200"), CheckResult(healthy=False, seen="503")
ESTATE = f"""\
environments:
  pilot: {{}}
stores:
  pilot-db:
    kind: sqlite
    url: pilot.db
    environment: pilot
    durability: durable
    holds: [production-data]
    identity: fake:{ID}@{ADDRESS}
    backups: {{to: object/backups, keep: 2}}
objects:
  backups: {{path: backups}}
services:
  pilot-api:
    needs: [store/pilot-db]
    checks: ["{HEALTH["http"]}"]
"""
OPERATION = """\
operation: trim
run: ./scripts/trim.sh
on: store/pilot-db
undo: {undo}
watch: {{soak: 10m, every: 1m}}
"""
TRIM = "DELETE FROM sessions WHERE id > 5"


@dataclass
class FakeWorld:
    """A world of fakes, with what a test needs to change about it.

    Attributes:
        more: other stores than the pilot's, by name.
        kits: what is registered beside the core.
    """

    root: Path
    clock: FakeClock
    journal: MemoryJournal
    locks: MemoryLocks
    keys: FakeKeys
    processes: FakeProcesses
    checks: FakeChecks
    repository: FakeRepository
    shelf: Shelf
    store: FakeStore
    sealer: Sealer
    ids: FakeIds = field(default_factory=FakeIds)
    talk: QuietTalk = field(default_factory=QuietTalk)
    guards: FakeGuards = field(default_factory=FakeGuards)
    watched: list[tuple[Path, int]] = field(default_factory=list)
    more: dict[str, FakeStore] = field(default_factory=dict)
    kits: tuple[Kit, ...] = ()

    def world(self, person: str = ANA) -> World:
        """Return the ports, as a person has them."""
        return World(
            root=self.root,
            state=self.root / ".handrail",
            environment={},
            person=person,
            guards=BUILT_IN,
            clock=self.clock,
            ids=self.ids,
            journal=self.journal,
            locks=self.locks,
            repository=self.repository,
            keys=self.keys,
            processes=self.processes,
            checks=self.checks,
            sealer=self.sealer,
            open_store=self._open,
            open_guard=self.guards.open,
            watch_clone=self._watch,
            kits=self.kits,
        )

    @property
    def declared(self) -> Declared:
        """What is declared now."""
        return load(self.root, self.kits, BUILT_IN)

    def decide(self, operation: str = "trim", **options: Any) -> Decided:
        """Plan as Ana."""
        return deciding.decide(self.world(), self.declared, operation, **options)

    def rehearse(self, operation: str = "trim", **options: Any) -> Decided:
        """Rehearse as Ana."""
        decided = self.decide(operation, **options)
        return rehearsing.rehearse(self.world(), decided, self.talk)

    def approve(self, decided: Decided, person: str = BEN, **options: Any) -> Approval:
        """Approve as another person."""
        world, key = self.world(person), Path(person)
        return approving.approve(world, self.declared, decided.plan, key, **options)

    def make_ready(self, operation: str = "trim", **options: Any) -> Decided:
        """Rehearse and approve, and return the plan as it may run now."""
        decided = self.rehearse(operation, **options)
        if decided.plan.verdict == "require":
            self.approve(decided, typed=decided.plan.target.resource)
        return self.decide(operation, **options)

    def begin(self, decided: Decided | None = None) -> Outcome:
        """Run a plan; one made ready just now when none is given."""
        return running.begin(self.world(), decided or self.make_ready(), self.talk)

    def resume(self, number: int = 1, choice: str = "") -> Outcome:
        """Resume a run."""
        decided = recalling.recorded(self.world(), self.declared, number, None)
        return running.resume(self.world(), number, decided, self.talk, choice=choice)

    def undo(self, number: int = 1, **options: bool) -> Outcome:
        """Undo a run."""
        decided = recalling.recorded(self.world(), self.declared, number, None)
        return running.undo(self.world(), number, decided, self.talk, **options)

    def kinds(self, chain: str = "run-1") -> list[str]:
        """Return the kinds of a chain's records."""
        return [record.kind for record in self.journal.records(chain)]

    def count(self, table: str = "sessions") -> int:
        """Return how many rows a table has."""
        return int(self.store.ask(f"SELECT count(*) FROM {table}", 5.0))

    def program(self, sql: str, code: int = 0) -> Callable[[Call], int]:
        """Return a program that runs `sql` on the store that its environment points at."""

        def run(call: Call) -> int:
            self.shelf.at(call.command.environment["DATABASE_URL"]).execute(sql)
            return code

        return run

    def write(self, name: str, text: str) -> None:
        """Write a file of the repository, without committing it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.suffix == ".sh":
            path.chmod(0o755)

    def _open(self, resource: Resource) -> Store:
        return self.more.get(resource.name, self.store)

    @contextmanager
    def _watch(self, at: Path, deadline_s: int) -> Iterator[None]:
        self.watched.append((at, deadline_s))
        yield


class NoSealer:
    """`ports.Sealer` where nothing is to be encrypted."""

    def seal(self, directory: Path, sealed: Path, recipients: object) -> None:
        raise AssertionError("nothing is to be sealed here")

    def open(self, sealed: Path, directory: Path) -> None:
        raise AssertionError("nothing was sealed here")


def make_world(
    root: Path, *, undo: str = "restore", policy: str = "", sealer: Sealer | None = None
) -> FakeWorld:
    """Return a world below the new directory `root` in which everything is well."""
    root.mkdir()
    clock, shelf = FakeClock(), Shelf()
    store = FakeStore("store/pilot-db", ADDRESS, shelf)
    store.adopt(ID)
    store.execute(TABLES)
    people = {Path(person): (person,) for person in (ANA, BEN, CHI)}
    made = FakeWorld(
        root=root,
        clock=clock,
        journal=MemoryJournal(clock),
        locks=MemoryLocks(),
        keys=FakeKeys(people),
        processes=FakeProcesses({}),
        checks=FakeChecks(),
        repository=FakeRepository(root),
        shelf=shelf,
        store=store,
        sealer=sealer or NoSealer(),
    )
    made.processes.programs = {"trim.sh": made.program(TRIM), "undo.sh": made.program("")}
    made.checks.set(HEALTH, WELL)
    for name, text in {
        "estate/pilot.yaml": ESTATE,
        "operations/trim.yaml": OPERATION.format(undo=undo),
        "policy.yaml": policy or "approval: {max-age: 4h}\n",
        "allowed_signers": "",
        "scripts/trim.sh": "#!/bin/sh\n",
        "scripts/undo.sh": "#!/bin/sh\n",
    }.items():
        made.write(name, text)
    commit(made)
    return made


def commit(made: FakeWorld, number: int = 1) -> None:
    """Commit everything, as Chi."""
    change = Change(f"{number:040x}", CHI, (), "2026-01-01T00:00:00.000000Z")
    files = [path.relative_to(made.root).as_posix() for path in made.root.rglob("*")]
    made.repository.put(change, *files)
