"""Says how the columns of one table differ between a copy and the present.

Rules:
- Columns are known by name. One of another name, at the same place, declared the same and holding
  the same, was renamed; a column that holds anything else is another column, and the old one is
  dropped.
- A dropped column's rows are those that had a value in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from handrail.adapters.sqlite.catalog import Column, Table
from handrail.adapters.sqlite.connecting import quoted
from handrail.adapters.sqlite.content import scanned
from handrail.adapters.sqlite.rows import WAS, Pairs, row_changes


@dataclass(frozen=True)
class ColumnChange:
    """What happened to one column; `name` is `table.column`."""

    verb: str
    name: str
    rows: int | None = None
    detail: str = ""


def common_columns(
    connection: sqlite3.Connection, before: Table, after: Table
) -> tuple[Pairs, Mapping[str, str]]:
    """Return the columns whose values can be compared, and old to new name of the renamed ones."""
    there = {column.name for column in after.stored}
    pairs = tuple((c.name, c.name) for c in before.stored if c.name in there)
    renames = _perhaps_renamed(before, after)
    if not renames:
        return pairs, {}
    with_renames = (*pairs, *renames.items())
    if not row_changes(connection, before, after, with_renames).is_nothing:
        return pairs, {}
    return with_renames, renames


def column_changes(
    connection: sqlite3.Connection, before: Table, after: Table, renames: Mapping[str, str]
) -> Iterator[ColumnChange]:
    """Yield the columns that were renamed, dropped, altered and created."""
    now = {column.name: column for column in after.columns}
    for column in before.columns:
        name = f"{before.name}.{column.name}"
        if column.name in renames:
            yield ColumnChange("rename", name, detail=f"to {renames[column.name]}")
        elif column.name not in now:
            yield ColumnChange("drop", name, _values(connection, before, column))
        elif now[column.name] != column:
            yield ColumnChange("alter", name, detail=_difference(column, now[column.name]))
    known = {column.name for column in before.columns} | set(renames.values())
    for column in after.columns:
        if column.name not in known:
            yield ColumnChange("create", f"{after.name}.{column.name}", detail=column.type)


def _perhaps_renamed(before: Table, after: Table) -> dict[str, str]:
    if len(before.columns) != len(after.columns):
        return {}
    old_names = {column.name for column in before.columns}
    new_names = {column.name for column in after.columns}
    return {
        old.name: new.name
        for old, new in zip(before.columns, after.columns, strict=True)
        if old.name not in new_names
        and new.name not in old_names
        and replace(old, name=new.name) == new
        and not old.is_generated
    }


def _values(connection: sqlite3.Connection, table: Table, column: Column) -> int | None:
    if column.is_generated:
        return None
    sql = f"SELECT count({quoted(column.name)}) FROM {scanned(table, WAS)}"  # noqa: S608
    return int(connection.execute(sql).fetchone()[0])


def _difference(before: Column, after: Column) -> str:
    """Return what differs in the declaration: `now INTEGER NOT NULL, was TEXT`."""
    return f"now {_declaration(after)}, was {_declaration(before)}"


def _declaration(column: Column) -> str:
    parts = [column.type or "any type"]
    parts += ["NOT NULL"] if column.not_null else []
    parts += [f"DEFAULT {column.default}"] if column.default is not None else []
    parts += [f"PRIMARY KEY {column.key}"] if column.key else []
    parts += ["GENERATED"] if column.is_generated else []
    return " ".join(parts)
