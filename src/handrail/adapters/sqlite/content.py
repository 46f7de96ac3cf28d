"""Reads all rows: exact counts, and checksums that do not depend on their order.

Rules:
- A row's checksum is BLAKE2b-256 over its values in Python's `marshal` format 2, which writes each
  value with its type and length: 1, 1.0, '1', x'31' and NULL differ. A table's is their sum modulo
  2^256: order does not count, duplicates do (an exclusive or would cancel pairs).
  Source: Clarke et al., "Incremental Multiset Hash Functions", 2003 (MSet-Add-Hash).
- A row number counts only where it is a declared column: VACUUM gives out new ones. Full-text
  tables are the exception: their row number is what other tables refer to.
- Generated columns are not read: they follow from the others.
"""

from __future__ import annotations

import hashlib
import marshal
import sqlite3
from collections.abc import Iterable
from typing import Any

from handrail.adapters.sqlite.catalog import SEQUENCES, Catalog, Table, read_catalog
from handrail.adapters.sqlite.connecting import Snapshot, quoted
from handrail.plans.facts import Fingerprint

# Bytes of a row's checksum; the sum of a table is kept in as many.
_WIDTH_BYTES = 32
_FORMAT = 2


def fingerprint(connection: Snapshot) -> Fingerprint:
    """Return the checksums of everything that `connection` sees."""
    catalog = read_catalog(connection)
    found = [(name, _checksum(connection, table)) for name, table in catalog.tables.items()]
    if catalog.sequences:
        rows = sorted(catalog.sequences.items())
        found.append((SEQUENCES, _digits(_sum_of(rows))))
    return Fingerprint(tables=tuple(sorted(found)), schema=catalog.checksum)


def count(connection: sqlite3.Connection, table: Table, schema: str = "main") -> int:
    """Return the exact number of rows."""
    sql = f"SELECT count(*) FROM {scanned(table, schema)}"  # noqa: S608 - quoted
    return int(connection.execute(sql).fetchone()[0])


def scanned(table: Table, schema: str = "main", alias: str = "") -> str:
    """Return SQL (after FROM) that reads the table itself.

    An index that holds all that is asked for would be read in its place, and may need a collation
    or a function that only the application has.
    """
    name = f"{quoted(schema)}.{quoted(table.name)}{alias and f' AS {alias}'}"
    return name if table.module else f"{name} NOT INDEXED"


def count_all(connection: sqlite3.Connection, catalog: Catalog, schema: str = "main") -> int:
    """Return the rows of all tables together."""
    return sum(count(connection, table, schema) for table in catalog.tables.values())


def expressions(table: Table) -> list[str]:
    """Return the SQL names of what makes a row of `table` the row that it is."""
    names = [quoted(column.name) for column in table.stored]
    is_text_index = table.module.startswith("fts")
    return [table.row_number or "rowid", *names] if is_text_index else names


def _checksum(connection: sqlite3.Connection, table: Table) -> str:
    sql = f"SELECT {', '.join(expressions(table))} FROM {scanned(table)}"  # noqa: S608 - quoted
    try:
        return _digits(_sum_of(connection.execute(sql)))
    except sqlite3.OperationalError as error:
        if "decode" not in str(error).lower():
            raise
    # Text that is no UTF-8: read it all again the slow way, where every byte counts.
    connection.text_factory = _decode
    try:
        return _digits(_sum_of(connection.execute(sql)))
    finally:
        connection.text_factory = str


def _sum_of(rows: Iterable[tuple[Any, ...]]) -> int:
    """Return the sum of the rows' checksums; this loop is where the time goes."""
    total = 0
    write, digest, number = marshal.dumps, hashlib.blake2b, int.from_bytes
    for row in rows:
        total += number(digest(write(row, _FORMAT), digest_size=_WIDTH_BYTES).digest(), "little")
    return total % (1 << 8 * _WIDTH_BYTES)


def _digits(total: int) -> str:
    return f"{total:0{2 * _WIDTH_BYTES}x}"


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")
