"""Says what differs between a kept copy and the present database, as effects.

Rules:
- A dropped table is one effect with its rows; its rows, indexes and triggers are not told again.
- A table that is there under another name, with equal shape and rows, was renamed.
- A table of the same name, of other columns and with none of its rows, was replaced.
- A file that is gone, or is no database any more, is the drop of everything that was in it.
- SQLite cannot count how often a row was touched: `rows` is what differs afterwards, `net` None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from handrail.adapters.sqlite.catalog import IDENTITY_TABLE, Catalog, Table, read_catalog
from handrail.adapters.sqlite.columns import column_changes, common_columns
from handrail.adapters.sqlite.connecting import (
    DatabaseFile,
    Snapshot,
    is_no_database,
    reading,
)
from handrail.adapters.sqlite.content import count, count_all
from handrail.adapters.sqlite.rows import WAS, RowChanges, row_changes
from handrail.errors import StoreError
from handrail.plans.effect import Effect, worst_first

# Codes of errors that say that no database is there any more.
_GONE = frozenset({"store.missing", "store.not-a-store"})


@dataclass(frozen=True)
class _Comparison:
    """Two states of one database, side by side."""

    resource: str
    connection: Snapshot
    before: Catalog
    after: Catalog

    def effect(
        self, verb: str, kind: str, name: str, *, rows: int | None = None, detail: str = ""
    ) -> Effect:
        return Effect(self.resource, verb, kind, name, rows, None, detail)


def effects(file: DatabaseFile, copy: DatabaseFile) -> tuple[Effect, ...]:
    """Return what has changed in `file` since `copy` was kept, worst first."""
    # First, and apart: what cannot be read of the copy is no effect.
    with reading(copy, is_frozen=True) as connection:
        rows_before = count_all(connection, read_catalog(connection))
    try:
        with reading(file) as connection:
            return worst_first(_compare(file, copy, connection))
    except StoreError as error:
        if error.code not in _GONE and not is_no_database(error.__cause__):
            raise
        lost = Effect(
            file.resource, "drop", "database", file.path.name, rows_before, None, error.message
        )
        return (lost,)


def _compare(file: DatabaseFile, copy: DatabaseFile, connection: Snapshot) -> list[Effect]:
    after = read_catalog(connection)
    with reading(copy, is_frozen=True) as kept:
        before = read_catalog(kept)
        if before.settings["encoding"] != after.settings["encoding"]:
            # SQLite does not attach one to the other; and no statement changes it, so it is
            # another file.
            detail = f"now encoded as {after.settings['encoding']}"
            rows = count_all(kept, before)
            return [
                Effect(file.resource, "replace", "database", file.path.name, rows, None, detail)
            ]
    connection.execute("COMMIT")
    connection.attach(copy.path, WAS)
    connection.execute("BEGIN")
    both = _Comparison(
        file.resource, connection, read_catalog(connection, WAS), read_catalog(connection)
    )
    return list(_all(both))


def _all(both: _Comparison) -> Iterator[Effect]:
    renamed = _renamed(both)
    yield from _tables(both, renamed)
    yield from _pieces(both, renamed)
    yield from _sequences(both, renamed)
    yield from _settings(both)
    yield from _identity(both)


def _tables(both: _Comparison, renamed: Mapping[str, str]) -> Iterator[Effect]:
    before, after = both.before.tables, both.after.tables
    for name, table in before.items():
        if name in renamed:
            yield both.effect("rename", "table", name, detail=f"to {renamed[name]}")
        elif name in after:
            yield from _table(both, table, after[name])
        else:
            yield both.effect("drop", "table", name, rows=count(both.connection, table, WAS))
    for name in after.keys() - before.keys() - set(renamed.values()):
        yield both.effect("create", "table", name, rows=count(both.connection, after[name]))


def _renamed(both: _Comparison) -> dict[str, str]:
    """Return old name to new name of the tables that only changed their name."""
    before, after = both.before.tables, both.after.tables
    created = sorted(after.keys() - before.keys())
    found: dict[str, str] = {}
    for name in sorted(before.keys() - after.keys()):
        for candidate in created:
            is_free = candidate not in found.values()
            if is_free and _is_same(both.connection, before[name], after[candidate]):
                found[name] = candidate
                break
    return found


def _is_same(connection: Snapshot, before: Table, after: Table) -> bool:
    if (before.columns, before.module) != (after.columns, after.module):
        return False
    pairs = tuple((column.name, column.name) for column in before.stored)
    is_empty = count(connection, before, WAS) == 0
    # Two empty tables of the same columns say little; there the whole declaration has to agree.
    if is_empty and before.body != after.body:
        return False
    return row_changes(connection, before, after, pairs).is_nothing


def _table(both: _Comparison, before: Table, after: Table) -> Iterator[Effect]:
    pairs, renames = common_columns(both.connection, before, after)
    changes = row_changes(both.connection, before, after, pairs)
    rows_before = changes.deleted + changes.kept
    if before.columns != after.columns and rows_before and not changes.kept:
        detail = "now " + ", ".join(column.name for column in after.columns)
        yield both.effect("replace", "table", before.name, rows=rows_before, detail=detail)
        changes = RowChanges(0, 0, changes.inserted, 0)
    else:
        for change in column_changes(both.connection, before, after, renames):
            yield both.effect(
                change.verb, "column", change.name, rows=change.rows, detail=change.detail
            )
        if before.columns == after.columns and before.body != after.body:
            yield both.effect("alter", "table", before.name, detail="constraints or options")
    for verb, rows in (
        ("delete", changes.deleted),
        ("update", changes.updated),
        ("insert", changes.inserted),
    ):
        if rows:
            yield both.effect(verb, "table", before.name, rows=rows)


def _pieces(both: _Comparison, renamed: Mapping[str, str]) -> Iterator[Effect]:
    before, after = both.before.pieces, both.after.pieces
    moved = both.before.tables.keys() - both.after.tables.keys()
    made = both.after.tables.keys() - both.before.tables.keys()
    for key, piece in before.items():
        now = after.get(key)
        if now is None and (piece.table not in moved or piece.table in renamed):
            yield both.effect("drop", *key)
        elif now is not None and piece != now and piece.table not in renamed:
            yield both.effect("alter", *key)
    for key in after.keys() - before.keys():
        if key[0] != "index" or after[key].table not in made - set(renamed.values()):
            yield both.effect("create", *key)


def _sequences(both: _Comparison, renamed: Mapping[str, str]) -> Iterator[Effect]:
    before, after = both.before.sequences, both.after.sequences
    tables = both.before.tables.keys() & both.after.tables.keys()
    for old, new in [*((name, name) for name in tables), *renamed.items()]:
        was, now = before.get(old, 0), after.get(new, 0)
        if was != now:
            verb = "advance" if now > was else "alter"
            yield both.effect(verb, "sequence", new, detail=f"now {now:,}, was {was:,}")


def _settings(both: _Comparison) -> Iterator[Effect]:
    for name, was in both.before.settings.items():
        now = both.after.settings[name]
        if was != now:
            yield both.effect("alter", "setting", name, detail=f"now {now}, was {was}")


def _identity(both: _Comparison) -> Iterator[Effect]:
    was, now = both.before.identity, both.after.identity
    if not was or was == now:
        return
    if not now:
        yield both.effect("drop", "table", IDENTITY_TABLE, rows=1)
    else:
        yield both.effect("update", "table", IDENTITY_TABLE, rows=1, detail=f"now {now}")
