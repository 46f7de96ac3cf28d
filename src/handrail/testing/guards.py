"""A store guard that passes everything on, or says what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from handrail.plans.holding import Event, Limits, Report
from handrail.ports import Connection, Store


@dataclass
class FakeGuard:
    """`ports.StoreGuard` over a store: the script gets the store's own connection."""

    store: Store
    report: Report

    def connection(self) -> Connection:
        """Return the store's own connection."""
        return self.store.connection()

    def settle(self) -> Report:
        """Return what the test said."""
        return self.report


@dataclass
class FakeGuards:
    """`World.open_guard` for tests.

    Attributes:
        opened: the limits of each guard that was opened, in order.
        report: what a guard reports, by its mode; an empty report where nothing is said.
    """

    opened: list[Limits] = field(default_factory=list)
    report: dict[str, Report] = field(default_factory=dict)

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
        del before, folder
        self.opened.append(limits)
        report = self.report.get(limits.mode, Report(store.resource, "observed only"))
        for event in report.events:
            hear(event)
        yield FakeGuard(store, report)
