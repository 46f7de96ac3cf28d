"""What a script did: the difference between two observations, as effects.

Rules:
- Rows are row events. On a clone they are decoded from its log, exact; on a shared server they are
  the counters' difference: all that anybody did meanwhile, what was rolled back included.
- Rows of a dropped, replaced or truncated table are those that it had before.
- `net` is counted on a clone alone: on a shared server others write as well.
- What changed and was not seen (counters reset or off, the clone's slot removed) is `unknown`.
- The script's connections are waited for: a server counts what a connection did when it ends.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from handrail.adapters.postgres import before as copying
from handrail.adapters.postgres import decoding
from handrail.adapters.postgres import state as keeping
from handrail.adapters.postgres.between import Between, Then
from handrail.adapters.postgres.catalog import Item, read_cluster
from handrail.adapters.postgres.cloning import Clone
from handrail.adapters.postgres.connecting import (
    APPLICATION,
    SCRIPT_APPLICATION,
    Address,
    Session,
    administering,
    administrative,
    reading,
    rows,
)
from handrail.adapters.postgres.diffing import differences
from handrail.adapters.postgres.state import Observation, State
from handrail.plans.effect import Effect, worst_first

WAIT_S = 10.0


def observe(address: Address, clone: Clone | None, into: Path) -> None:
    """Write what `effects` needs to know of the state now into the empty `into`."""
    salt = secrets.token_hex(8)
    slot = copy = ""
    if clone:
        decoding.end_all(clone.cluster.address())
        copy = copying.take(clone)
        slot = decoding.begin(address)
    with reading(address, timeout_s=0) as session:
        main = keeping.read_state(session, counted="unlogged" if copy and slot else "all")
        cluster = read_cluster(session, salt)
    others = tuple(_other_states(address)) if clone else ()
    keeping.write(Observation(main, others, cluster, salt, slot, copy), into)


def _other_states(address: Address) -> Iterator[State]:
    """Yield the state of each other database that can be entered."""
    with reading(address) as session:
        names = rows(
            session,
            "SELECT datname FROM pg_database WHERE datallowconn AND datname <> %s ORDER BY 1",
            address.database,
        )
    for (name,) in names:
        with reading(address.on(name), timeout_s=0) as session:
            yield keeping.read_state(session, counted="unlogged")


def effects(
    address: Address, clone: Clone | None, before: Path, resource: str
) -> tuple[Effect, ...]:
    """Return what has changed since `observe`, worst first; empty when nothing has."""
    observed = keeping.read(before)
    admin = administrative(address)
    found = _wait_for_script(admin, resource, owned=clone is not None)
    with reading(admin) as session:
        cluster = read_cluster(session, observed.salt)
    found += differences(resource, observed.cluster, cluster, lambda _: None)
    name = _present_name(observed, cluster)
    with ExitStack() as stack:
        then = Then(observed, clone, stack, name or "")
        if name is None:
            found += _of_lost_database(observed, then, resource)
        else:
            found += Between(address.on(name), observed, then, resource).effects()
    found += _in_others(address, observed, cluster, resource) if clone else []
    return worst_first(found)


def _wait_for_script(admin: Address, resource: str, *, owned: bool) -> list[Effect]:
    """Wait until the script's connections are gone; in a clone, which is ours, end them at last."""
    deadline = time.monotonic() + WAIT_S
    with administering(admin) as session:
        while names := _script_connections(session, owned=owned):
            if time.monotonic() > deadline and not owned:
                detail = "still open: what it has not committed is not counted"
                name = ", ".join(sorted(set(names)))
                return [Effect(resource, "unknown", "connection", name, detail=detail)]
            if time.monotonic() > deadline:
                session.execute(_END)
            time.sleep(0.02)
    return []


# A walsender has a slot of the script's own; it is a client too.
_OPEN = """
FROM pg_catalog.pg_stat_activity WHERE pid <> pg_catalog.pg_backend_pid()
    AND backend_type IN ('client backend', 'walsender')"""
_END = f"SELECT pg_catalog.pg_terminate_backend(pid) {_OPEN} AND application_name <> 'handrail'"


def _script_connections(session: Session, *, owned: bool) -> list[str]:
    found = rows(session, f"SELECT application_name {_OPEN}")
    ours = {APPLICATION}
    names = [str(name) for (name,) in found]
    return [n for n in names if (n not in ours if owned else n == SCRIPT_APPLICATION)]


def _present_name(observed: Observation, cluster: tuple[Item, ...]) -> str | None:
    """Return what the observed database is called now; None when it is gone."""
    keys = {
        item.key
        for item in observed.cluster
        if item.kind == "database" and item.attributes["_name"] == observed.main.database
    }
    for item in cluster:
        if item.kind == "database" and item.key in keys:
            return str(item.attributes["_name"])
    return None


def _of_lost_database(observed: Observation, then: Then, resource: str) -> list[Effect]:
    return [
        Effect(resource, "drop", "table", table.name, then.rows(oid), detail="with its database")
        for oid, table in observed.main.tables.items()
    ]


def _in_others(
    address: Address, observed: Observation, cluster: tuple[Item, ...], resource: str
) -> list[Effect]:
    """Return what changed in the clone's other databases, by their counters."""
    present = {i.attributes["_name"] for i in cluster if i.kind == "database"}
    found: list[Effect] = []
    with ExitStack() as stack:
        for other in observed.others:
            if other.database in present:
                alone = Observation(other, (), (), "")
                then = Then(alone, None, stack)
                between = Between(address.on(other.database), alone, then, resource)
                found += [replace(e, name=f"{other.database}: {e.name}") for e in between.effects()]
    return found
