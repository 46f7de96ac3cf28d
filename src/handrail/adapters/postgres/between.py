"""What changed in one database between its state before and now: rows, sequences, the rest.

Rules:
- Decoded events are exact; counters are at most that, when transactions were rolled back meanwhile.
- A table whose file is another one was truncated or written anew; which of them its rows tell.
- A difference in content that no event explains is `unknown`, with the rows that differ.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from handrail.adapters.postgres import before as copying
from handrail.adapters.postgres import decoding, shapes
from handrail.adapters.postgres import state as keeping
from handrail.adapters.postgres.before import Before, Net
from handrail.adapters.postgres.cloning import Clone
from handrail.adapters.postgres.connecting import Address, reading
from handrail.adapters.postgres.decoding import Events
from handrail.adapters.postgres.diffing import differences
from handrail.adapters.postgres.state import Counters, Observation, TableState
from handrail.plans.effect import CEILING, Effect


class Then:
    """The state before, asked for what it did not write down: starts its copy when needed."""

    def __init__(
        self, observed: Observation, clone: Clone | None, stack: ExitStack, present: str = ""
    ) -> None:
        self._observed = observed
        self._present = present or observed.main.database
        self._clone = clone
        self._stack = stack
        self._started: Before | None = None

    @property
    def copy(self) -> Before | None:
        """The clone as it was, answering; None where no copy was made."""
        if self._started is None and self._clone and self._observed.copy:
            opened = copying.started(
                self._clone, self._observed.copy, self._observed.main, self._present
            )
            self._started = self._stack.enter_context(opened)
        return self._started

    def rows(self, oid: str) -> int | None:
        """Return the rows that a table had; None for what holds none, or was not counted."""
        table = self._observed.main.tables.get(oid)
        if table is None or table.rows is not None:
            return table.rows if table else None
        return self.copy.count(table) if self.copy else None


@dataclass(frozen=True)
class _Table:
    """One table that is there before and after, and what was done to it."""

    oid: str
    kind: str
    before: TableState
    after: TableState
    events: Events
    reshaped: bool

    @property
    def is_logged(self) -> bool:
        return self.before.logged and self.after.logged

    @property
    def new_file(self) -> bool:
        return self.before.file != self.after.file


class Between:
    """One database before and now."""

    def __init__(self, address: Address, observed: Observation, then: Then, resource: str) -> None:
        self._resource = resource
        self._then = then
        self._before = observed.main
        self._recorded = bool(observed.slot)
        decoded = decoding.events(address, observed.slot) if observed.slot else None
        self._decoded = decoded
        counted = decoded is None and not (observed.slot and observed.copy)
        with reading(address, timeout_s=0) as session:
            self._after = keeping.read_state(
                session,
                counted="all" if counted else "unlogged",
                since=self._before.transaction,
            )
        self._copied = bool(observed.copy)
        self._counted = counted and any(t.rows is not None for t in self._before.tables.values())

    def effects(self) -> list[Effect]:
        """Return all that changed, in no order."""
        found = differences(self._resource, self._before.items, self._after.items, self._then.rows)
        found += self._row_effects()
        found += shapes.of_sequences(self._resource, self._before, self._after)
        if self._before.reset == self._after.reset:
            found += shapes.of_catalogs(self._resource, self._catalogs())
        if self._recorded and self._decoded is None:
            detail = "the record of row events was removed while the script ran"
            name = self._before.database
            found.append(Effect(self._resource, "unknown", "database", name, detail=detail))
        return found

    def _catalogs(self) -> dict[str, Counters]:
        """Return what was written to each of the system's own tables, by anybody."""
        before = self._before.catalogs
        return {n: c.since(before.get(n, Counters())) for n, c in self._after.catalogs.items()}

    # --- rows ----------------------------------------------------------------------------------

    def _row_effects(self) -> list[Effect]:
        found: list[Effect] = []
        events = self._events()
        kinds = {i.key: i.kind for s in (self._before, self._after) for i in s.items}
        for oid, table in self._before.tables.items():
            if oid in self._after.tables:
                happened = events.pop(oid, Events())
                reshaped = shapes.is_reshaped(self._before, self._after, oid)
                after = self._after.tables[oid]
                kind = kinds.get(oid, "table")
                one_table = _Table(oid, kind, table, after, happened, reshaped)
                found += self._of_table(one_table)
        for key, happened in events.items():
            name = self._name(key)
            found += self._plain(kinds.get(key, "table"), name, happened, None)
        return found

    def _name(self, key: str) -> str:
        """Return how effects call a table: its name before, else now, else at the time."""
        for tables in (self._before.tables, self._after.tables):
            if key in tables:
                return tables[key].name
        return key

    def _events(self) -> dict[str, Events]:
        """Return what was done to each table, by object id; by name where it is no more."""
        counted = self._counters()
        if self._decoded is None:
            return counted
        ids = {t.name: oid for s in (self._after, self._before) for oid, t in s.tables.items()}
        found: dict[str, Events] = {}
        for name, happened in self._decoded.items():
            if name in ids or not self._is_partitioned(name):
                key = ids.get(name, name)
                found[key] = _sum(found.get(key, Events()), happened)
        unlogged = {oid: events for oid, events in counted.items() if not self._is_logged(oid)}
        return found | unlogged

    def _is_partitioned(self, name: str) -> bool:
        items = (*self._before.items, *self._after.items)
        return any(i.name == name and i.attributes.get("partitioned") for i in items)

    def _is_logged(self, oid: str) -> bool:
        states = [s.tables[oid] for s in (self._before, self._after) if oid in s.tables]
        return all(state.logged for state in states)

    def _counters(self) -> dict[str, Events]:
        found: dict[str, Events] = {}
        for oid, table in self._after.tables.items():
            then = self._before.tables.get(oid)
            delta = table.counters.since(then.counters if then else Counters())
            if delta.any:
                found[oid] = Events(delta.inserted, delta.updated, delta.deleted)
        return found

    def _of_table(self, table: _Table) -> list[Effect]:
        happened = table.events
        if not (table.new_file or happened != Events() or self._must_look()):
            return self._unseen(table)
        unseen = self._unseen(table)
        if unseen:
            return unseen
        net = self._net(table)
        found: list[Effect] = []
        truncated = happened.truncated > 0
        if table.new_file and table.kind != "table":
            # Some servers count the rows of the new file as inserted.
            return [self._new_file(table, emptied=False)]
        if table.new_file and not truncated:
            found.append(self._of_new_file(table, net))
            truncated = found[0].verb == "truncate"
        elif truncated:
            rows = self._then.rows(table.oid)
            found.append(self._effect("truncate", table, rows=rows))
        if found and net and found[0].verb in {"truncate", "rewrite"}:
            return [
                *_with_net(found, net),
                *self._plain(table.kind, table.before.name, happened, None),
            ]
        if net and not truncated:
            found += self._unexplained(table, net)
        return found + self._plain(table.kind, table.before.name, happened, net)

    def _must_look(self) -> bool:
        """Whether every table has to be compared: the record of events is gone."""
        return self._recorded and self._decoded is None

    def _net(self, table: _Table) -> Net | None:
        if not self._copied or table.kind != "table" or not table.is_logged:
            return None
        copy = self._then.copy
        return _attributed(copy.compare(table.before, table.after), table.events) if copy else None

    def _effect(
        self, verb: str, table: _Table, *, rows: int | None = None, detail: str = ""
    ) -> Effect:
        return Effect(self._resource, verb, table.kind, table.before.name, rows=rows, detail=detail)

    def _of_new_file(self, table: _Table, net: Net | None) -> Effect:
        """Say why a table has another file, where no TRUNCATE was seen."""
        had = self._then.rows(table.oid)
        expected = (had or 0) + table.events.inserted - table.events.deleted
        fewer = table.after.rows is not None and table.after.rows < expected
        lost = net is not None and net.deleted > 0
        counted = self._decoded is None or not table.is_logged
        emptied = fewer and table.after.rows == 0
        if not table.reshaped:
            emptied = fewer or lost or had == 0
        return self._new_file(table, emptied=counted and emptied)

    def _new_file(self, table: _Table, *, emptied: bool) -> Effect:
        rows = self._then.rows(table.oid)
        name = table.before.name
        return shapes.of_new_file(
            self._resource, table.kind, name, rows, reshaped=table.reshaped, emptied=emptied
        )

    def _unexplained(self, table: _Table, net: Net) -> list[Effect]:
        """Return the rows that differ though no event says why."""
        happened = table.events
        strange = max(net.deleted - happened.deleted, 0) + max(net.updated - happened.updated, 0)
        strange += max(net.inserted - happened.inserted, 0)
        if table.reshaped or not strange:
            return []
        return [self._effect("unknown", table, rows=strange, detail="changed without a row event")]

    def _unseen(self, table: _Table) -> list[Effect]:
        """Return the rows that were written although no counter says so."""
        if self._decoded is not None or not self._counted:
            return []
        had, has = table.before.rows or 0, table.after.rows or 0
        happened = table.events
        backwards = min(happened.inserted, happened.updated, happened.deleted) < 0
        reset = self._before.reset != self._after.reset
        strange = max(table.after.newer - happened.inserted - happened.updated, 0)
        if not table.new_file:
            strange = max(strange, had - happened.deleted - has, has - had - happened.inserted)
        if backwards or reset:
            strange = max(table.after.newer, abs(had - has))
            if table.new_file:
                strange = max(strange, had)
        elif table.new_file:
            return []
        if strange <= 0:
            return []
        detail = "changed, and the server did not count it"
        return [self._effect("unknown", table, rows=strange, detail=detail)]

    def _plain(self, kind: str, name: str, happened: Events, net: Net | None) -> list[Effect]:
        amounts = (
            ("delete", happened.deleted, net.deleted if net else None),
            ("update", happened.updated, net.updated if net else None),
            ("insert", happened.inserted, net.inserted if net else None),
        )
        detail = self._rolled_back()
        return [
            Effect(self._resource, verb, kind, name, rows=rows, net=differ, detail=detail)
            for verb, rows, differ in amounts
            if rows > 0
        ]

    def _rolled_back(self) -> str:
        if self._decoded is not None or self._after.rollbacks <= self._before.rollbacks:
            return ""
        number = self._after.rollbacks - self._before.rollbacks
        return f"{CEILING}: {number} transactions were rolled back meanwhile"


def _sum(first: Events, second: Events) -> Events:
    return Events(
        first.inserted + second.inserted,
        first.updated + second.updated,
        first.deleted + second.deleted,
        first.truncated + second.truncated,
    )


def _attributed(net: Net, happened: Events) -> Net:
    """Return the rows that differ, told apart as the events were.

    A key that was updated looks like a row deleted and one inserted; a row deleted and inserted
    again under its key looks updated.
    """
    deleted, updated, inserted = net.deleted, net.updated, net.inserted
    moved = max(min(deleted, inserted, happened.updated - updated), 0)
    deleted, updated, inserted = deleted - moved, updated + moved, inserted - moved
    split = max(min(updated - happened.updated, happened.deleted, happened.inserted), 0)
    return Net(deleted + split, updated - split, inserted + split)


def _with_net(found: list[Effect], net: Net) -> list[Effect]:
    first = found[0]
    differ = net.deleted + net.updated
    whole = Effect(
        first.resource, first.verb, first.kind, first.name, first.rows, differ, first.detail
    )
    return [whole, *found[1:]]
