"""Measures a database: rows a table, and how old the oldest row says that it is.

Rules:
- A time column is one whose declared type says so (DATE, DATETIME, TIMESTAMP), a text column whose
  name says so or whose values look like ISO dates, and a number column whose name says so: those
  are seconds since 1970, or milli- or microseconds where only these make sense.
- A value that is no time, and a year that stands for "never" (before 1901, after 2199), is skipped.
- Times without a zone are taken as UTC.
"""

from __future__ import annotations

import re
import sqlite3

from handrail.adapters.sqlite.catalog import Column, Table, read_catalog
from handrail.adapters.sqlite.connecting import Snapshot, quoted
from handrail.adapters.sqlite.content import count, scanned
from handrail.plans.facts import TableMeasure

_TIME_NAMES = frozenset(
    {"created", "date", "datetime", "modified", "time", "timestamp", "ts", "updated", "when"}
)
_NAME_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_ISO = re.compile(r"\d{4}-[01]\d-[0-3]\d(?:[T ]|$)")
_ISO_GLOB = "[0-9][0-9][0-9][0-9]-[0-1][0-9]-[0-3][0-9]*"
_EARLIEST, _LATEST = "1901-01-01", "2200-01-01"
_SAMPLE_ROWS = 50
_SAMPLE_SHARE = 0.8
# Columns of one query; a table may have 2,000, and a query only so many terms.
_COLUMNS_A_QUERY = 50


def measure(connection: Snapshot) -> tuple[TableMeasure, ...]:
    """Return each table's rows and span of times, by name."""
    tables = read_catalog(connection).tables.values()
    return tuple(_measure(connection, table) for table in sorted(tables, key=lambda t: t.name))


def _measure(connection: sqlite3.Connection, table: Table) -> TableMeasure:
    rows = count(connection, table)
    columns = _time_columns(connection, table) if rows else []
    found: list[str] = []
    for start in range(0, len(columns), _COLUMNS_A_QUERY):
        found += _extremes(connection, table, columns[start : start + _COLUMNS_A_QUERY])
    oldest, newest = min(found, default=None), max(found, default=None)
    return TableMeasure(table.name, rows, _iso(oldest), _iso(newest))


def _extremes(connection: sqlite3.Connection, table: Table, columns: list[str]) -> list[str]:
    """Return the least and greatest time of each column, as SQLite writes it in UTC."""
    wanted = []
    for column in columns:
        time = _as_time(quoted(column))
        is_time = f"FILTER (WHERE {time} BETWEEN '{_EARLIEST}' AND '{_LATEST}')"
        wanted += [f"min({time}) {is_time}", f"max({time}) {is_time}"]
    sql = f"SELECT {', '.join(wanted)} FROM {scanned(table)}"  # noqa: S608 - quoted
    return [value for value in connection.execute(sql).fetchone() if value is not None]


def _as_time(column: str) -> str:
    """Return SQL for the time that a value means; NULL where it means none.

    `datetime` alone would take '2459000' for a Julian day and 'now' for now.
    """
    return (
        f"CASE WHEN typeof({column}) = 'text' THEN"
        f" CASE WHEN {column} GLOB '{_ISO_GLOB}' THEN datetime({column}) END"
        f" WHEN {column} BETWEEN 1e8 AND 5e9 THEN datetime({column}, 'unixepoch')"
        f" WHEN {column} BETWEEN 1e11 AND 5e12 THEN datetime({column} / 1e3, 'unixepoch')"
        f" WHEN {column} BETWEEN 1e14 AND 5e15 THEN datetime({column} / 1e6, 'unixepoch') END"
    )


def _time_columns(connection: sqlite3.Connection, table: Table) -> list[str]:
    unsure, found = [], []
    for column in table.stored:
        if _says_time(column):
            found.append(column.name)
        elif column.affinity in {"TEXT", "BLOB", "NUMERIC"}:
            unsure.append(column.name)
    return found + _look_like_times(connection, table, unsure)


def _says_time(column: Column) -> bool:
    if re.search(r"DATE|TIMESTAMP", column.type.upper()):
        return True
    parts = [part.lower() for part in _NAME_PARTS.findall(column.name)]
    return bool(_TIME_NAMES & set(parts)) or (len(parts) > 1 and parts[-1] == "at")


def _look_like_times(connection: sqlite3.Connection, table: Table, columns: list[str]) -> list[str]:
    if not columns:
        return []
    wanted = ", ".join(f"CAST({quoted(column)} AS BLOB)" for column in columns)
    sql = f"SELECT {wanted} FROM {scanned(table)} LIMIT {_SAMPLE_ROWS}"  # noqa: S608 - quoted
    samples = zip(*connection.execute(sql).fetchall(), strict=True)
    return [column for column, values in zip(columns, samples, strict=True) if _mostly_iso(values)]


def _mostly_iso(values: tuple[bytes | None, ...]) -> bool:
    texts = [value[:32].decode("latin-1") for value in values if value is not None]
    return bool(texts) and sum(map(bool, map(_ISO.match, texts))) >= _SAMPLE_SHARE * len(texts)


def _iso(time: str | None) -> str | None:
    return None if time is None else f"{time.replace(' ', 'T')}+00:00"
