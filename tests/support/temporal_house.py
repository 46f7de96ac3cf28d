"""Engines on a Temporal server, with their workers, for the tests that every engine passes."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from handrail.adapters.file_locks import FileLocks
from handrail.adapters.system import RandomIds
from handrail.adapters.temporal.engine import TemporalEngine
from handrail.adapters.temporal.link import Where
from handrail.adapters.temporal.worker import TemporalWorker
from handrail.ports import Act, Engine, Journal
from support.engines import House


class WorkedEngine(TemporalEngine):
    """An engine that ends its worker when it is closed."""

    worker: TemporalWorker | None = None

    def close(self) -> None:
        """End both."""
        if self.worker is not None:
            self.worker.close()
        super().close()


class TemporalHouse(House):
    """A house whose engines are on a server; a worker is there as long as its engine is."""

    def __init__(self, journal: Journal, folder: Path, where: Where) -> None:
        super().__init__(journal, FileLocks(folder / "locks"))
        self.where = where
        self._making = threading.Lock()

    def make(self, acts: Mapping[str, Act] | None = None, **more: int) -> Engine:
        """Return a new engine; it brings a worker where there is none."""
        found = WorkedEngine(
            self.journal,
            self.clock,
            RandomIds(),
            self.locks,
            self.where,
            say=self.said.append,
        )
        with self._making:
            if not any(self._has_worker(engine) for engine in self.engines):
                found.worker = self.make_worker(acts, most_at_once=more.get("most_at_once", 64))
            self.engines.append(found)
        return found

    def make_worker(
        self,
        acts: Mapping[str, Act] | None = None,
        *,
        secrets: Collection[str] = (),
        most_at_once: int = 64,
    ) -> TemporalWorker:
        """Return a worker that works."""
        found = TemporalWorker(
            self.journal,
            self.clock,
            self.locks,
            acts or {"fake": self.act},
            self.where,
            say=self.said.append,
            secrets=secrets,
            most_at_once=most_at_once,
        )
        found.start()
        return found

    @staticmethod
    def _has_worker(engine: Engine) -> bool:
        worker = engine.worker if isinstance(engine, WorkedEngine) else None
        return worker is not None and not worker.wait(0)
