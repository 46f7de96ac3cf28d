"""Several stores that one script changes: guarded together, told apart.

Rules:
- One budget holds all of them; each guard is held to its own part of it.
- The first store's connection is the script's; another's variables are added where they are free.
- What was copied is swapped in last, and not at all when any part was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from handrail.core.world import World
from handrail.plans.effect import worst_first
from handrail.plans.holding import Event, Limits, Report
from handrail.ports import Connection, Store, StoreGuard


def joined(connections: Sequence[Connection]) -> Connection:
    """Return one connection to several stores; the first one's parts and variables win."""
    environment: dict[str, str] = {}
    for connection in reversed(connections):
        environment.update(connection.environment)
    return Connection(
        environment,
        connections[0].parts,
        tuple(dict.fromkeys(socket for one in connections for socket in one.sockets)),
        tuple(dict.fromkeys(path for one in connections for path in one.paths)),
        tuple(dict.fromkeys(secret for one in connections for secret in one.secrets)),
    )


@dataclass(frozen=True)
class Part:
    """One store and its guard."""

    store: Store
    guard: StoreGuard

    @property
    def is_copy(self) -> bool:
        """Whether the script works on a copy, of which nothing takes effect before the swap."""
        own = self.store.connection().parts.get("path")
        return bool(own) and self.guard.connection().parts.get("path") != own


@contextmanager
def guarded(
    world: World,
    stores: Sequence[Store],
    limits: Limits,
    befores: Sequence[Path],
    folder: Path,
    hear: Callable[[Event], None],
) -> Iterator[tuple[Part, ...]]:
    """Stand between a script and several stores while it is held.

    Raises:
        StoreError: one of them does not answer, or has no guard.
    """
    with ExitStack() as held:
        parts = []
        for number, (store, before) in enumerate(zip(stores, befores, strict=True)):
            private = folder / str(number)
            private.mkdir(mode=0o700)
            guard = world.open_guard(store, limits, before, private, hear)
            parts.append(Part(store, held.enter_context(guard)))
        yield tuple(parts)


def settle(parts: Sequence[Part], *, keep_copies: bool) -> tuple[Report, ...]:
    """Settle every part, servers first; return their reports in the order of the parts.

    Args:
        parts: of one script, which has ended.
        keep_copies: whether what was copied may be swapped in, so far as nothing was stopped.

    Raises:
        StoreError: one of them could not be settled.
    """
    reports: dict[int, Report] = {}
    stopped = False
    for number, part in sorted(enumerate(parts), key=lambda pair: (pair[1].is_copy, pair[0])):
        if part.is_copy and (stopped or not keep_copies):
            reports[number] = Report(part.store.resource, "copied and swapped in")
            continue
        reports[number] = part.guard.settle()
        stopped = stopped or reports[number].stop is not None
    return tuple(reports[number] for number in sorted(reports))


def one_report(resource: str, reports: Sequence[Report]) -> Report:
    """Return the reports of a run's stores as one, which says of each how it was held."""
    if len(reports) == 1:
        return reports[0]
    limited = all(report.role == "limited" for report in reports)
    return Report(
        resource,
        "; ".join(f"{report.resource}: {report.how}" for report in reports),
        worst_first(effect for report in reports for effect in report.effects),
        next((report.stop for report in reports if report.stop), None),
        tuple(event for report in reports for event in report.events),
        tuple(dict.fromkeys(one for report in reports for one in report.trace)),
        tuple(dict.fromkeys(one for report in reports for one in report.unheld)),
        sum(report.kept for report in reports),
        "limited" if limited else "own",
        "; ".join(dict.fromkeys(report.avoidable for report in reports if report.avoidable)),
    )
