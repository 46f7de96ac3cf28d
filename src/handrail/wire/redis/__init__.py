"""The Redis guard: a listener on this machine that holds a script to its budget.

Rules:
- The script gets an address of this machine and a secret that is valid here, for this run.
- One connection to the server for each of the script's; the guard's ends when the script's does.
- Redis takes nothing back: what the budget does not cover is never sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from handrail.plans.holding import Event, Limits
from handrail.ports import Store, StoreGuard
from handrail.wire.ledger import Ledger


@contextmanager
def guarded(
    store: Store, limits: Limits, folder: Path, hear: Callable[[Event], None]
) -> Iterator[StoreGuard]:
    """Stand between a script and a Redis server.

    Args:
        store: the target, or a clone of it: its `connection` has the real credentials.
        limits: what the script is held to.
        folder: an empty private folder.
        hear: told each event, from the guard's own thread; one that can be asked (`ports.Asks`)
            lets commands wait for somebody's word.

    Raises:
        StoreError: the server does not answer, or the guard may not see its commands.
    """
    from handrail.wire.redis.guard import RedisGuard  # noqa: PLC0415  start-up time

    guard = RedisGuard(store, Ledger(store.resource, limits, hear), folder, hear)
    try:
        yield guard
    finally:
        guard.close()
