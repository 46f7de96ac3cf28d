"""Counts how the rows of one table differ from an earlier copy of it, in SQL.

Rules:
- Rows are told apart by primary key. Where there is none, or where it may hold NULL and does, a
  row is what is in it: then there are no updates, only rows that went and rows that came.
- Values are compared as they are stored: by bytes whatever the column's collation, and with their
  type, so that 1 is not 1.0 where a column keeps both.
- The copy is attached as `was`; the present database is `main`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from handrail.adapters.sqlite.catalog import Table
from handrail.adapters.sqlite.connecting import quoted
from handrail.adapters.sqlite.content import count, expressions, scanned

WAS, NOW = "was", "main"
# Column of the copy, column of the present table.
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RowChanges:
    """Rows that went, changed and came, and those that are in both states."""

    deleted: int
    updated: int
    inserted: int
    kept: int

    @property
    def is_nothing(self) -> bool:
        """Whether the rows are the same."""
        return not (self.deleted or self.updated or self.inserted)


def row_changes(
    connection: sqlite3.Connection, before: Table, after: Table, pairs: Pairs
) -> RowChanges:
    """Return how `after` differs from `before` in the columns of `pairs`."""
    rows_before, rows_after = count(connection, before, WAS), count(connection, after, NOW)
    if not (rows_before and rows_after and pairs):
        return RowChanges(rows_before, 0, rows_after, 0)
    keys = _shared_key(connection, before, after, pairs)
    if keys:
        matched, updated = _by_key(connection, before, after, keys, pairs)
        return RowChanges(rows_before - matched, updated, rows_after - matched, matched)
    deleted, inserted = _by_content(connection, before, after, pairs)
    return RowChanges(deleted, 0, inserted, rows_before - deleted)


def _shared_key(connection: sqlite3.Connection, before: Table, after: Table, pairs: Pairs) -> Pairs:
    """Return the columns that tell rows apart in both states; none where nothing surely does."""
    names = dict(pairs)
    keys = tuple((c.name, names.get(c.name, "")) for c in before.key)
    if [new for _, new in keys] != [column.name for column in after.key]:
        return ()
    if before.module or any(_affinity(before, a) != _affinity(after, b) for a, b in keys):
        return ()
    is_sure = not (
        _has_null(connection, WAS, before.name, [old for old, _ in keys])
        or _has_null(connection, NOW, after.name, [new for _, new in keys])
    )
    return keys if is_sure and _collates(connection, before, keys) else ()


def _has_null(connection: sqlite3.Connection, schema: str, table: str, columns: list[str]) -> bool:
    """Whether a key holds NULL, as SQLite allows; NULL is equal to no other, so it is no key."""
    if not columns:
        return False
    is_null = _any([f"{quoted(column)} IS NULL" for column in columns])
    sql = f"SELECT 1 FROM {_source(schema, table)} NOT INDEXED WHERE {is_null} LIMIT 1"  # noqa: S608
    return connection.execute(sql).fetchone() is not None


def _collates(connection: sqlite3.Connection, table: Table, keys: Pairs) -> bool:
    """Whether this library can compare the key: a collation may be the application's own."""
    source = _source(WAS, table.name)
    same = " AND ".join(f"a.{quoted(old)} = b.{quoted(old)}" for old, _ in keys)
    if not same:
        return False
    try:
        connection.execute(f"SELECT 1 FROM {source} a JOIN {source} b ON {same} LIMIT 1")  # noqa: S608
    except sqlite3.OperationalError as error:
        if "collation" not in str(error):
            raise
        return False
    return True


def _by_key(
    connection: sqlite3.Connection, before: Table, after: Table, keys: Pairs, pairs: Pairs
) -> tuple[int, int]:
    """Return how many keys are in both states, and how many of those rows differ."""
    # Where the declarations differ, so may the collations: only by bytes is each key surely one.
    collation = "" if before.body == after.body else " COLLATE BINARY"
    same = " AND ".join(f"a.{quoted(old)} = b.{quoted(new)}{collation}" for old, new in keys)
    # LIMIT -1 keeps the two queries apart: joined, 1,000 columns are too many to add up over.
    row = connection.execute(
        "SELECT count(*), total(differs) FROM ("  # noqa: S608 - quoted
        f"SELECT {_differ(before, after, pairs)} AS differs FROM {_source(WAS, before.name)} a"
        f" JOIN {_source(NOW, after.name)} b ON {same} LIMIT -1)"
    ).fetchone()
    return int(row[0]), int(row[1])


def _by_content(
    connection: sqlite3.Connection, before: Table, after: Table, pairs: Pairs
) -> tuple[int, int]:
    """Return how many rows went and came, each row as often as it is there.

    Rows that are still at their row number cancel out first, by two quick scans; only the rest
    has to be sorted.
    """
    flipped = tuple((new, old) for old, new in pairs)
    old = _rest(WAS, before, NOW, after, pairs)
    new = _rest(NOW, after, WAS, before, flipped)
    groups = ", ".join(f"c{number}" for number in range(len(_values(before, after, pairs))))
    row = connection.execute(
        "SELECT total(max(n, 0)), total(max(-n, 0)) FROM (SELECT sum(w) AS n"  # noqa: S608 - quoted
        f" FROM (SELECT 1 AS w, {old} UNION ALL SELECT -1, {new} LIMIT -1) GROUP BY {groups})"
    ).fetchone()
    return int(row[0]), int(row[1])


def _rest(schema: str, table: Table, other_schema: str, other: Table, pairs: Pairs) -> str:
    """Return SQL (after SELECT) for the rows of `table` that `other` has not at their number."""
    values = _values(table, other, pairs)
    wanted = ", ".join(
        f"{value} COLLATE BINARY AS c{number}" for number, value in enumerate(values)
    )
    text = f"{wanted} FROM {scanned(table, schema, 'a')}"
    mine, theirs = table.row_number, other.row_number
    if table.module or other.module or not (mine and theirs):
        return text
    same = f"b.{theirs} = a.{mine} AND NOT {_differ(table, other, pairs)}"
    there = f"SELECT 1 FROM {scanned(other, other_schema, 'b')} WHERE {same}"  # noqa: S608
    return f"{text} WHERE NOT EXISTS ({there})"


def _values(table: Table, other: Table, pairs: Pairs) -> list[str]:
    """Return SQL for the paired values of a row `a`, and for what else makes it the row it is."""
    columns = [f"a.{quoted(mine)}" for mine, _ in pairs]
    extra = [f"a.{value}" for value in expressions(table)[: -len(table.stored)]]
    # One term for all types: none of their names begins another, so together they are plain.
    loose = [f"typeof(a.{quoted(p[0])})" for p in pairs if _is_loose(table, other, p)]
    return [*columns, *extra, *([_tree(loose, "||")] if loose else [])]


def _differ(before: Table, after: Table, pairs: Pairs) -> str:
    terms = []
    for old, new in pairs:
        a, b = f"a.{quoted(old)}", f"b.{quoted(new)}"
        terms.append(f"{a} IS NOT {b} COLLATE BINARY")
        if _is_loose(before, after, (old, new)):
            terms.append(f"typeof({a}) <> typeof({b})")
    return _any(terms)


def _is_loose(before: Table, after: Table, pair: tuple[str, str]) -> bool:
    """Whether equal values of a column pair may be of two types, as 1 and 1.0 are.

    Where both columns have one of the other affinities, SQLite stores equal numbers alike.
    """
    old, new = _affinity(before, pair[0]), _affinity(after, pair[1])
    return old != new or old == "BLOB" or bool(before.module)


def _affinity(table: Table, name: str) -> str:
    return next(column.affinity for column in table.stored if column.name == name)


def _any(terms: list[str]) -> str:
    """Return SQL for "one of `terms`"."""
    return _tree(terms, "OR")


def _tree(terms: list[str], operator: str) -> str:
    """Return `terms` joined as a balanced tree: SQLite refuses chains of 1,000."""
    if len(terms) == 1:
        return f"({terms[0]})"
    half = len(terms) // 2
    return f"({_tree(terms[:half], operator)} {operator} {_tree(terms[half:], operator)})"


def _source(schema: str, table: str) -> str:
    return f"{quoted(schema)}.{quoted(table)}"
