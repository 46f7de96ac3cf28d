"""The PostgreSQL guard: a listener on this machine that holds a script to its budget.

Rules:
- The script gets an address of this machine and a secret that is valid here, for this run.
- One connection to the server for each of the script's; the guard's ends when the script's does.
- When the guard's process ends, however it ends, the server rolls back what was open.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.plans.holding import Event, Limits
from handrail.ports import Store, StoreGuard
from handrail.wire.ledger import Ledger

if TYPE_CHECKING:
    from handrail.wire.postgres.rules import Look


@contextmanager
def guarded(
    store: Store,
    limits: Limits,
    folder: Path,
    hear: Callable[[Event], None],
    look: Look | None = None,
) -> Iterator[StoreGuard]:
    """Stand between a script and a PostgreSQL database.

    Args:
        store: the target, or a clone of it: its `connection` has the real credentials.
        limits: what the script is held to.
        folder: an empty private folder.
        hear: told each event, from the guard's own thread; one that can be asked (`ports.Asks`)
            lets statements wait for somebody's word.
        look: reads, inside an open transaction, all that is not rows and that was done so far;
            without it, a transaction that declares anything anew is refused.

    Raises:
        StoreError: the server does not answer.
    """
    from handrail.wire.postgres.listening import PostgresGuard  # noqa: PLC0415  start-up time

    del folder
    with _role(store, limits) as role:
        guard = PostgresGuard(store, Ledger(store.resource, limits, hear), look, hear, role)
        try:
            yield guard
        finally:
            guard.close()


@contextmanager
def _role(store: Store, limits: Limits) -> Iterator[tuple[str, str] | None]:
    """Give the role that the guard connects as; None for the store's own."""
    if limits.role != "limited" or limits.budget is None:
        yield None
        return
    from handrail.wire.postgres import roles  # noqa: PLC0415  start-up time

    token = secrets.token_hex(16)
    url = store.connection().parts["url"]
    with roles.limited(url, limits.budget, store.resource, token) as role:
        yield role
