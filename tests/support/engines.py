"""Engines for the tests that every engine passes: each kind with its journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from handrail.adapters.embedded import EmbeddedEngine
from handrail.adapters.file_locks import FileLocks
from handrail.adapters.system import RandomIds, SystemClock
from handrail.plans.walk import Mark, Signal
from handrail.plans.walk_records import read_mark, walk_chain
from handrail.ports import Act, Clock, Engine, Journal, Locks
from handrail.testing.acts import FakeAct
from support.walk_games import DIGEST

_PATIENCE_S = 30.0


@dataclass
class House:
    """What an engine stands on, and the engines that were made.

    Attributes:
        journal: where everything stands.
        act: what every step is done by.
        said: what the engines told people.
    """

    journal: Journal
    locks: Locks
    clock: Clock = field(default_factory=SystemClock)
    act: FakeAct = field(default_factory=FakeAct)
    said: list[str] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)

    def make(self, acts: Mapping[str, Act] | None = None, **more: int) -> Engine:
        """Return a new engine, as another process would have."""
        found = EmbeddedEngine(
            self.journal,
            self.clock,
            RandomIds(),
            self.locks,
            acts or {"fake": self.act},
            say=self.said.append,
            **more,
        )
        self.engines.append(found)
        return found

    def close(self) -> None:
        """End every engine."""
        for engine in self.engines:
            engine.close()

    def marks(self, run: int) -> list[Mark]:
        """Return what the journal has of a run."""
        records = self.journal.records(walk_chain(run))
        return [read_mark(one.kind, one.time, one.body) for one in records]

    def kinds(self, run: int) -> list[str]:
        """Return the kinds of a run's marks, each with its step: `begun store/0/s0`."""
        return [f"{mark.kind} {mark.step}".strip() for mark in self.marks(run)]

    def wait_for(self, run: int, mark: str) -> None:
        """Return once the journal has a mark of a run."""
        wait_until(lambda: mark in self.kinds(run), lambda: str(self.kinds(run)))


def wait_until(holds: Callable[[], bool], told: Callable[[], str] = lambda: "") -> None:
    """Return once `holds`; raise after a while."""
    until_s = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > until_s:
            raise AssertionError(f"it never came; {told()}")
        time.sleep(0.005)


def word(name: str, number: int = 1, *, digest: str = DIGEST, **body: object) -> Signal:
    """Return a word of ben's."""
    return Signal(f"{name}-{number}", name, "ben", digest, body)


def file_house(journal: Journal, folder: Path) -> House:
    """Return a house with locks in files, as on one machine."""
    return House(journal, FileLocks(folder / "locks"))
