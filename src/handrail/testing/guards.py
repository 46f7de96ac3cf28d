"""A store guard that passes everything on, or says what a test tells it to.

Rules:
- With `copies` the script gets a copy of the store, and `settle` puts it in the store's place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from handrail.errors import StoreError
from handrail.plans.facts import Backup
from handrail.plans.holding import Event, Limits, Report
from handrail.ports import Connection, Store


@dataclass
class FakeGuard:
    """`ports.StoreGuard` over a store: the script gets the store's own connection, or a copy's."""

    store: Store
    report: Report
    copy: Store | None = None
    folder: Path = Path()
    unsettled: str = ""
    halted: str = ""

    def connection(self) -> Connection:
        """Return how the script reaches the store, or its copy."""
        return (self.copy or self.store).connection()

    def halt(self, elsewhere: str) -> None:
        """Note where the run was stopped."""
        self.halted = elsewhere

    def settle(self) -> Report:
        """Put the copy in the store's place, and return what the test said."""
        if self.unsettled:
            raise StoreError("store.failed", self.unsettled)
        if self.copy is not None and self.report.stop is None:
            changed = _backup(self.copy, self.folder / "changed")
            self.store.restore(changed, lambda _done, _total: None)
        return self.report


@dataclass
class FakeGuards:
    """`World.open_guard` for tests.

    Attributes:
        opened: the limits of each guard that was opened, in order.
        report: what a guard reports, by its mode, or by mode and role (`measure limited`); an empty
            report where nothing is said.
        copies: the modes in which a script gets a copy.
        refused: why no guard can be had; empty when one can.
        unsettled: why nothing can be settled; empty when it can.
        hear: who listens to the guard that was opened last.
    """

    opened: list[Limits] = field(default_factory=list)
    report: dict[str, Report] = field(default_factory=dict)
    copies: frozenset[str] = frozenset()
    refused: str = ""
    unsettled: str = ""
    hear: Callable[[Event], None] = lambda _: None

    @contextmanager
    def open(
        self,
        store: Store,
        limits: Limits,
        before: Path,
        folder: Path,
        hear: Callable[[Event], None],
    ) -> Iterator[FakeGuard]:
        """Give a guard of `store`."""
        del before
        if self.refused:
            raise StoreError("store.denied", self.refused)
        self.opened.append(limits)
        self.hear = hear
        otherwise = self.report.get(limits.mode, Report(store.resource, "observed only"))
        report = self.report.get(f"{limits.mode} {limits.role}", otherwise)
        for event in report.events:
            hear(event)
        if limits.mode not in self.copies:
            yield FakeGuard(store, report, unsettled=self.unsettled)
            return
        at = folder / "copy"
        at.mkdir()
        copy = store.clone(_backup(store, folder / "original"), at, "", lambda _done, _total: None)
        try:
            yield FakeGuard(store, report, copy, folder, self.unsettled)
        finally:
            store.discard(at)


def _backup(store: Store, into: Path) -> Backup:
    into.mkdir()
    return store.backup("copy", into, lambda _done, _total: None)
