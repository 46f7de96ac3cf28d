"""The state of a database as `observe` writes it and `effects` reads it again.

Rules:
- Counters are PostgreSQL's cumulative ones a table: they see triggers, cascades and functions, and
  count what was rolled back as well.
- `newer` counts rows that were written since a transaction id: what no counter saw shows there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from psycopg import sql

from handrail.adapters.postgres.catalog import Item, read_database
from handrail.adapters.postgres.connecting import Session, one, rows
from handrail.adapters.postgres.content import Table, sequences, tables
from handrail.errors import StoreError
from handrail.plans import decoding

FILE = "postgres.json"


@dataclass(frozen=True)
class Counters:
    """Row events that the server has counted."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def since(self, before: Counters) -> Counters:
        """Return what came after `before`."""
        return Counters(
            self.inserted - before.inserted,
            self.updated - before.updated,
            self.deleted - before.deleted,
        )

    def plus(self, more: Counters) -> Counters:
        """Return these and `more`."""
        return Counters(
            self.inserted + more.inserted,
            self.updated + more.updated,
            self.deleted + more.deleted,
        )

    @property
    def any(self) -> bool:
        """Whether there was an event, or the counters went backwards."""
        return self != Counters()


@dataclass(frozen=True)
class TableState:
    """A table; `rows` is None where it was not counted, `newer` 0 where it was not asked for."""

    name: str
    schema: str
    relation: str
    logged: bool
    file: int
    counters: Counters
    rows: int | None = None
    newer: int = 0


@dataclass(frozen=True)
class State:
    """One database at one time.

    Attributes:
        database: its name.
        items: what the catalogs have.
        tables: by object id, materialized views as well.
        catalogs: counters of the system's own tables.
        sequences: name, last value, whether it was given out; by object id.
        transaction: the next transaction id.
        reset: when its counters were last reset.
        rollbacks: transactions that were rolled back.
    """

    database: str
    items: tuple[Item, ...]
    tables: dict[str, TableState]
    catalogs: dict[str, Counters]
    sequences: dict[str, tuple[str, int, bool]]
    transaction: str
    reset: str
    rollbacks: int


@dataclass(frozen=True)
class Observation:
    """All that `observe` keeps.

    Attributes:
        main: the database itself.
        others: the other databases of a clone.
        cluster: roles, settings, databases, slots.
        salt: of the digests in `cluster`.
        slot: the clone's decoding slot; empty where there is none.
        copy: the clone's files as they were; empty where there are none.
    """

    main: State
    others: tuple[State, ...]
    cluster: tuple[Item, ...]
    salt: str
    slot: str = ""
    copy: str = ""
    format: int = 1


def write(observation: Observation, into: Path) -> None:
    """Write an observation, readable by its owner alone."""
    path = into / FILE
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(observation))


def read(folder: Path) -> Observation:
    """Return what `observe` wrote.

    Raises:
        StoreError: it is not there, or cannot be read.
    """
    try:
        return decoding.decode_json((folder / FILE).read_bytes(), Observation)
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(
            "store.failed",
            f"what was observed before cannot be read: {error}",
            hint="observe anew, and run the script again",
        ) from error


Counted = Literal["all", "unlogged", "none"]


def read_state(session: Session, *, counted: Counted, since: str = "", locks: bool = True) -> State:
    """Return the state now.

    Args:
        session: in one snapshot, or in one where what others commit meanwhile is no matter.
        counted: which tables' rows. An unlogged one is empty in every copy of files: it is counted
            while it is there, or never.
        since: also count rows newer than that transaction.
        locks: False leaves out all that cannot be read without a lock on a user's relation.
    """
    held = rows(
        session,
        """
        SELECT c.oid::text, c.relfilenode::bigint, c.relpersistence <> 'u',
            pg_stat_get_tuples_inserted(c.oid), pg_stat_get_tuples_updated(c.oid),
            pg_stat_get_tuples_deleted(c.oid)
        FROM pg_class c WHERE c.relkind IN ('r', 'm')
        """,
    )
    files = {oid: (file, logged, Counters(*events)) for oid, file, logged, *events in held}
    found: dict[str, TableState] = {}
    for table in tables(session, derived=True):
        if table.oid not in files:
            continue  # made meanwhile, by somebody else
        file, logged, counters = files[table.oid]
        wanted = counted == "all" or (counted == "unlogged" and not logged)
        count, newer = _count(session, table, since) if wanted else (None, 0)
        found[table.oid] = TableState(
            table.name, table.schema, table.relation, logged, file, counters, count, newer
        )
    reset, rollbacks = session.execute(
        "SELECT coalesce(stats_reset::text, ''), xact_rollback FROM pg_stat_database"
        " WHERE datname = current_database()"
    ).fetchone() or ("", 0)
    return State(
        database=str(one(session, "SELECT current_database()")),
        items=read_database(session, locks=locks),
        tables=found,
        catalogs=_catalogs(session),
        sequences=sequences(session) if locks else {},
        transaction=str(one(session, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text")),
        reset=reset,
        rollbacks=rollbacks,
    )


def _count(session: Session, table: Table, since: str) -> tuple[int, int]:
    newer: sql.Composable = sql.SQL("0")
    if since:
        # A row's xmin has 32 bits of the 64: ages compare right across the wrap.
        bound = sql.Literal(str(int(since) % 2**32))
        newer = sql.SQL("count(*) FILTER (WHERE age(x.xmin) <= age({}::xid))").format(bound)
    query = sql.SQL("SELECT count(*), {} FROM ONLY {} x").format(newer, table.identifier)
    row = session.execute(query).fetchone() or (0, 0)
    return int(row[0]), int(row[1])


def _catalogs(session: Session) -> dict[str, Counters]:
    found = rows(
        session,
        "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_sys_tables"
        " WHERE schemaname = 'pg_catalog'",
    )
    return {name: Counters(*events) for name, *events in found}
