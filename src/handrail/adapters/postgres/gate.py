"""Say from inside an open transaction what the run did besides rows, in the rehearsal's words.

Rules:
- The session is the script's own: what it has not committed is seen, and what others have not is
  not. Nothing is written in it, no row of a table is counted, and every lock is a reader's.
- A temporary table, a role or a `search_path` of the script's changes nothing of what is read.
- It is compared with the state before the run: what was made and removed again is nothing. What
  others committed since is left out where it is seen as theirs: a reading from outside has it, no
  earlier look of this run has, and the open transaction did not touch it. Where that cannot be
  read (definitions and defaults cannot, without locks), it is counted as the run's.
- What was done to an object that others made since is said as well.
- A table in a new file has lost its rows unless rows older than the transaction are found in it.
- Sequences that only went on are left out: others take numbers all the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import psycopg
from psycopg import sql

from handrail.adapters.postgres import shapes
from handrail.adapters.postgres import state as keeping
from handrail.adapters.postgres.catalog import Item, may_read_passwords, read_cluster
from handrail.adapters.postgres.catalog_queries import LOCKING
from handrail.adapters.postgres.connecting import (
    STABLE_SETTINGS,
    Address,
    Session,
    limits,
    one,
    read_address,
    reading,
    rows,
    settle,
    translated,
)
from handrail.adapters.postgres.diffing import differences
from handrail.adapters.postgres.state import Counters, Observation, State, TableState
from handrail.errors import StoreError
from handrail.plans.effect import Effect, worst_first

LOOK_S = 30
INSIDE_LOCK_S = 2
OUTSIDE_LOCK_S = 0.5
FIRST_PAGES = "(64,0)"
SETTINGS = {
    **STABLE_SETTINGS,
    # Named last, `pg_temp` is searched last: a temporary `pg_class` is not taken for the system's.
    "search_path": "pg_catalog, pg_temp",
    "role": "none",
    "jit": "off",
}
OWN_ROLE = re.compile(r"handrail_[0-9a-f]{16,}")


@dataclass(frozen=True)
class _Now:
    """What was read at one time."""

    state: State
    cluster: tuple[Item, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        return (*self.state.items, *self.cluster)


def looker(resource: str, before: Path, url: str = "") -> Looker:
    """Return what looks into open transactions of one run.

    Args:
        resource: the store, as effects name it.
        before: the folder of `observe`; where nothing was observed, the state is read now.
        url: the store's address from outside; without it nobody's changes are told apart.

    Raises:
        StoreError: nothing was observed, and the state cannot be read.
    """
    outside = read_address(url) if url else None
    if (before / keeping.FILE).exists() or outside is None:
        return Looker(resource, keeping.read(before), outside)
    with reading(outside, LOOK_S) as session:
        state = keeping.read_state(session, counted="none")
        return Looker(resource, Observation(state, (), read_cluster(session, ""), ""), outside)


class Looker:
    """Looks into the open transactions of one run; from any thread.

    Call it with a conninfo that leads into an open transaction. What it sets there ends with its
    own savepoint.
    """

    def __init__(self, resource: str, observed: Observation, outside: Address | None) -> None:
        self._resource = resource
        self._observed = observed
        self._outside = outside
        self._lock = Lock()
        self._told: set[Effect] = set()
        self._made: set[tuple[str, str]] = set()
        self._files: dict[tuple[str, int], Effect] = {}
        self._emptied: set[str] = set()
        self._written: dict[tuple[int, str], dict[str, Counters]] = {}

    def __call__(self, conninfo: str) -> tuple[Effect, ...]:
        """Return all that is not rows and that the run did so far, worst first.

        Raises:
            StoreError: it cannot be read.
        """
        address = read_address(conninfo)
        with (
            translated(address),
            _entered(conninfo) as session,
            session.transaction(force_rollback=True),
        ):
            return self.look(session)

    def look(self, session: Session) -> tuple[Effect, ...]:
        """Return the same, given a session that is inside the transaction."""
        settle(session, {**SETTINGS, **limits(LOOK_S, INSIDE_LOCK_S)})
        now = self._read(session, _role(session))
        found = self._shapes(now)
        files = self._new_files(session, now.state)
        found += files.values()
        found += self._catalogs(session, now)
        if self._outside is not None:
            found = self._own(session, self._outside, now, found, files)
        self._told.update(found)
        return worst_first(found)

    # --- readings ------------------------------------------------------------------------------

    def _read(self, session: Session, role: str, *, locks: bool = True) -> _Now:
        """Return what there is; without what a role of the run's own left there."""
        state = keeping.read_state(session, counted="none", locks=locks)
        now = _Now(state, read_cluster(session, self._observed.salt))
        return _without(now, role) if OWN_ROLE.fullmatch(role) else now

    def _before(self, now: _Now) -> _Now:
        """Return the state before, without what could not be read of the state now."""
        cluster = self._observed.cluster
        if not any("password" in item.attributes for item in now.cluster):
            cluster = tuple(_without_password(item) for item in cluster)
        if not any(item.key.startswith("system.") for item in now.cluster):
            cluster = tuple(item for item in cluster if not item.key.startswith("system."))
        return _Now(self._observed.main, cluster)

    # --- what was done -------------------------------------------------------------------------

    def _shapes(self, now: _Now) -> list[Effect]:
        before = self._before(now)
        found = differences(self._resource, before.items, now.items, self._rows)
        sequences = shapes.of_sequences(self._resource, before.state, now.state)
        return found + [effect for effect in sequences if effect.verb != "advance"]

    def _rows(self, oid: str) -> int | None:
        table = self._observed.main.tables.get(oid)
        return table.rows if table else None

    def _new_files(self, session: Session, state: State) -> dict[str, Effect]:
        """Return why tables have other files than before, by object id."""
        found = {}
        kinds = {item.key: item.kind for item in self._observed.main.items}
        for oid, old in self._observed.main.tables.items():
            new = state.tables.get(oid)
            if new is None or new.file == old.file:
                continue
            # Once judged, a file stays what it is: later transactions fill it with rows.
            if (oid, new.file) not in self._files:
                kind = kinds.get(oid, "table")
                self._files[oid, new.file] = self._new_file(session, state, oid, kind)
            found[oid] = self._files[oid, new.file]
        return found

    def _new_file(self, session: Session, state: State, oid: str, kind: str) -> Effect:
        reshaped = shapes.is_reshaped(self._observed.main, state, oid)
        if kind == "table" and oid not in self._emptied:
            made_anew = reshaped or _is_stored_otherwise(self._observed.main, state, oid)
            if _is_emptied(session, oid, state.tables[oid], made_anew=made_anew):
                self._emptied.add(oid)
        return shapes.of_new_file(
            self._resource,
            kind,
            self._observed.main.tables[oid].name,
            self._rows(oid),
            reshaped=reshaped,
            emptied=oid in self._emptied,
        )

    def _catalogs(self, session: Session, now: _Now) -> list[Effect]:
        """Return what only the counters of the system's own tables show, over all transactions."""
        # Counters are per flush: the next transaction has to begin at zero.
        session.execute("SELECT pg_stat_force_next_flush()")
        transaction = one(session, "SELECT pg_current_xact_id_if_assigned()::text") or ""
        written = {name: Counters(*events) for name, *events in rows(session, _WRITTEN)}
        total: dict[str, Counters] = {}
        with self._lock:
            self._written[session.info.backend_pid, str(transaction)] = written
            for one_transaction in self._written.values():
                for name, counters in one_transaction.items():
                    total[name] = total.get(name, Counters()).plus(counters)
        found = list(shapes.of_catalogs(self._resource, total))
        if total.get("pg_authid", Counters()).updated and not may_read_passwords(session):
            found += self._unread_passwords(now, total["pg_authid"].updated)
        return found

    def _unread_passwords(self, now: _Now, written: int) -> list[Effect]:
        seen = differences(self._resource, self._before(now).cluster, now.cluster, self._rows)
        if written <= sum(e.kind == "role" for e in seen):
            return []
        detail = "a password may be another: this role cannot see it"
        return [Effect(self._resource, "unknown", "role", "passwords", detail=detail)]

    # --- what others did -----------------------------------------------------------------------

    def _own(
        self,
        session: Session,
        outside: Address,
        now: _Now,
        found: list[Effect],
        files: dict[str, Effect],
    ) -> list[Effect]:
        """Return the effects without those of others, and with what was done to what others made.

        What others commit while this reads is not among either: it is in both readings, or the
        second look inside shows it.
        """
        try:
            # Not to wait for what the open transaction, which waits for this, has locked.
            with reading(outside, LOOK_S, SETTINGS, OUTSIDE_LOCK_S) as session_outside:
                committed = self._read(session_outside, _role(session), locks=False)
        except StoreError:
            return found
        theirs = self._of_others(committed, now, files)
        touched = self._of_strangers(committed, now)
        if touched:
            touched &= self._of_strangers(committed, self._read(session, _role(session)))
        self._made |= _ids(now.items) - _ids(committed.items)
        return [e for e in found if e not in theirs or e in self._told] + list(touched)

    def _of_others(self, committed: _Now, now: _Now, files: dict[str, Effect]) -> set[Effect]:
        """Return the effects that others committed, and the open transaction has not touched."""
        changed = differences(self._resource, committed.items, _readable(now), self._rows)
        touched = {(effect.kind, effect.name) for effect in changed}
        before = _readable(self._before(now))
        theirs = set(differences(self._resource, before, committed.items, self._rows))
        theirs = {e for e in theirs if (e.kind, e.name) not in touched}
        held = committed.state.tables
        moved = {oid for oid, table in now.state.tables.items() if oid in held}
        moved = {oid for oid in moved if held[oid].file == now.state.tables[oid].file}
        return theirs | {effect for oid, effect in files.items() if oid in moved}

    def _of_strangers(self, committed: _Now, now: _Now) -> set[Effect]:
        """Return what was done to objects that others made since the state before."""
        known = _ids(self._observed.main.items) | _ids(self._observed.cluster) | self._made
        strange = [item for item in committed.items if (item.kind, item.key) not in known]
        keys = {item.key for item in strange}
        names = {(item.kind, item.name) for item in strange}
        names |= {(item.kind, item.name) for item in now.items if item.parent in keys}
        changed = differences(self._resource, committed.items, _readable(now), self._rows)
        return {effect for effect in changed if (effect.kind, effect.name) in names}


def _ids(items: Iterable[Item]) -> set[tuple[str, str]]:
    return {(item.kind, item.key) for item in items}


def _readable(now: _Now) -> tuple[Item, ...]:
    """Return what is read without locks."""
    return tuple(_with(item, **dict.fromkeys(LOCKING & set(item.attributes))) for item in now.items)


def _with(item: Item, **attributes: object) -> Item:
    return replace(item, attributes={**item.attributes, **attributes}) if attributes else item


@contextmanager
def _entered(conninfo: str) -> Iterator[Session]:
    # Only closed: on leaving a `with` of its own, it would commit the transaction that it is in.
    with closing(psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)) as session:
        yield session


def _role(session: Session) -> str:
    return str(one(session, "SELECT session_user"))


# --- what a run's own role leaves in the catalogs ----------------------------------------------


def _without(now: _Now, role: str) -> _Now:
    """Return a reading without a role that was made for this run, and what was granted to it."""
    state = replace(now.state, items=tuple(_ungranted(now.state.items, role)))
    kept = (item for item in now.cluster if not _is_of(item, role))
    return _Now(state, tuple(_ungranted(kept, role)))


def _is_of(item: Item, role: str) -> bool:
    named = item.kind == "role" and item.name == role
    return named or (item.kind == "setting" and item.name.startswith(f"role {role}"))


def _ungranted(items: Iterable[Item], role: str) -> Iterator[Item]:
    for item in items:
        grants = item.attributes.get("grants")
        if grants and any(grant.startswith(f"{role}: ") for grant in grants):
            kept = [grant for grant in grants if not grant.startswith(f"{role}: ")]
            # A column without any grant of its own has none, not an empty list of them.
            value = kept or (None if item.kind == "column" else [])
            yield _with(item, grants=value)
        else:
            yield item


def _without_password(item: Item) -> Item:
    if "password" not in item.attributes:
        return item
    kept = {name: value for name, value in item.attributes.items() if name != "password"}
    return replace(item, attributes=kept)


# --- new files ---------------------------------------------------------------------------------


def _is_stored_otherwise(before: State, after: State, oid: str) -> bool:
    """Whether a table is logged or not as it was not, or has another access method."""
    return _storage(before, oid) != _storage(after, oid)


def _storage(state: State, oid: str) -> list[object]:
    tables = (item for item in state.items if item.kind == "table" and item.key == oid)
    return [
        item.attributes.get(name) for item in tables for name in ("persistence", "access method")
    ]


def _is_emptied(session: Session, oid: str, table: TableState, *, made_anew: bool) -> bool:
    """Whether the rows that a table had are not in its new file.

    Args:
        session: in the transaction that made the file.
        oid: of the table.
        table: as it is now.
        made_anew: whether something was done that writes every row anew as this transaction's; else
            rows that were only moved to the file keep their age.
    """
    empty, readable, inserted = rows(session, _FILE, int(oid))[0]
    if empty or not readable:
        return True
    query = sql.SQL(_FIRST_ROWS).format(sql.Identifier(table.schema, table.relation))
    found = session.execute(query, [FIRST_PAGES]).fetchone()
    total, older = found or (0, 0)
    if older:
        return False
    return not made_anew or total <= inserted


_FILE = """
SELECT pg_relation_size(c.oid) = 0,
    has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid),
    pg_stat_get_xact_tuples_inserted(c.oid)
FROM pg_class c WHERE c.oid = %s"""
_FIRST_ROWS = """
SELECT count(*), count(*) FILTER (WHERE age(x.xmin) >
    age(coalesce(pg_current_xact_id_if_assigned()::xid, x.xmin)))
FROM ONLY {} x WHERE x.ctid < %s::tid"""
_WRITTEN = """
SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_sys_tables
WHERE schemaname = 'pg_catalog' AND n_tup_ins + n_tup_upd + n_tup_del > 0"""
