"""What the journal holds of one run so far, and the next line of it.

Rules:
- What was written is remembered: nothing is read twice.
- An earlier undo says nothing about a later one.
- Records may be written from several threads: a guard's events come from its own.
"""

from __future__ import annotations

from threading import RLock
from typing import Any

from handrail.core import records
from handrail.core.world import World
from handrail.plans.canonical import plain
from handrail.plans.facts import Backup
from handrail.plans.holding import Report


class RunRecords:
    """The records of one run: the newest body of each kind, and the kind that came last."""

    def __init__(self, world: World, number: int) -> None:
        self.chain = records.run_chain(number)
        self.last = ""
        self._journal = world.journal
        self._bodies: dict[str, dict[str, Any]] = {}
        self._lock = RLock()
        for record in world.journal.records(self.chain):
            self._remember(record.kind, records.body(record))

    def __contains__(self, kind: str) -> bool:
        return kind in self._bodies

    def body(self, kind: str) -> dict[str, Any]:
        """Return the newest body of a kind; empty when there is none."""
        return self._bodies.get(kind, {})

    def note(self, kind: str, **values: object) -> None:
        """Write one record."""
        body = {name: plain(value) for name, value in values.items()}
        with self._lock:
            self._journal.append(self.chain, kind, body)
            self._remember(kind, body)

    def _remember(self, kind: str, body: dict[str, Any]) -> None:
        if kind == "undo-asked":
            for earlier in ("verdict", "undo-begun", "undo-done"):
                self._bodies.pop(earlier, None)
        self._bodies[kind] = body
        self.last = kind

    @property
    def outcome(self) -> str:
        """How it ended; empty while it has not, and again while it is being undone."""
        return str(self._bodies["ended"]["outcome"]) if self.last == "ended" else ""

    @property
    def backup(self) -> Backup | None:
        """The backup made before the script; None where there is none."""
        found = self.body("backup-done")
        return records.decode(found["backup"], Backup) if found else None

    @property
    def report(self) -> Report | None:
        """What the guard said of the script; None where it never ran, or nobody knows."""
        found = self.body("step-done").get("report")
        return records.decode(found, Report) if found else None

    @property
    def is_undone(self) -> bool:
        """Whether an undo has worked."""
        return bool(self.body("undo-done").get("worked"))
