"""A clone as it was before the script: a copy of its files, started only when something changed.

Rules:
- The copy is outside the clone's server: the script can neither see it nor drop it.
- Its server listens on a private socket alone, and runs only while effects are read.
- Rows are compared by hashes of key and content, in SQL: both servers write and read one file each,
  and no row passes through this process. Without a key equal rows are counted.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from handrail.adapters.postgres import scratch
from handrail.adapters.postgres.cloning import Clone, copy_tree
from handrail.adapters.postgres.connecting import Session, administering, one, reading, rows
from handrail.adapters.postgres.state import TableState

FOLDER = "before"
EXCHANGE = "handrail-rows"
SPARE = 1.2


@dataclass(frozen=True)
class Net:
    """Rows that differ between before and after."""

    deleted: int
    updated: int
    inserted: int


def take(clone: Clone) -> str:
    """Copy the clone's files as they are now; return where, empty where the disk is too small.

    An earlier copy is removed.
    """
    place = clone.cluster.place
    folder = place.home / FOLDER
    drop(clone)
    needed = _tree_size(clone.cluster.data) * SPARE
    if shutil.disk_usage(place.home).free < needed:
        return ""
    scratch.own_folder(place, folder)
    with administering(clone.cluster.address()) as session:
        session.execute("SELECT pg_catalog.pg_backup_start('handrail', true)")
        copy_tree(clone.cluster.data, place, folder, without="pg_wal")
        label = one(session, "SELECT labelfile FROM pg_catalog.pg_backup_stop(false)")
    # What the copy needs to become consistent was written while it was made.
    scratch.own_folder(place, folder / "pg_wal")
    copy_tree(clone.cluster.data / "pg_wal", place, folder / "pg_wal")
    (folder / "backup_label").write_text(str(label))
    for name in ("postmaster.pid", "postmaster.opts"):
        (folder / name).unlink(missing_ok=True)
    for slot in (folder / "pg_replslot").iterdir():
        shutil.rmtree(slot)
    scratch.hand_over(place, folder)
    return str(folder)


def _tree_size(folder: Path) -> int:
    return sum(
        path.lstat().st_size for path in folder.rglob("*") if path.is_file() and path.exists()
    )


def drop(clone: Clone) -> None:
    """Remove the copy of an earlier observation."""
    folder = clone.cluster.place.home / FOLDER
    if folder.is_dir():
        scratch.stop(folder)
        shutil.rmtree(folder)


class Before:
    """The clone before the script, answering."""

    def __init__(self, clone: Clone, folder: Path, port: int, database: str) -> None:
        cluster = clone.cluster
        self._now = cluster.address(database)
        self._then = scratch.Cluster(
            cluster.place,
            folder,
            cluster.binaries,
            cluster.superuser,
            cluster.password,
            port,
            by_network=False,
        ).address(database)
        self._user = cluster.place.user
        self._files = {"now": cluster.data / EXCHANGE, "then": folder / EXCHANGE}

    def count(self, table: TableState) -> int:
        """Return the rows that a table had."""
        with reading(self._then, timeout_s=0) as session:
            query = sql.SQL("SELECT count(*) FROM ONLY {}")
            row = session.execute(query.format(_name(table))).fetchone()
            return int(row[0]) if row else 0

    def compare(self, before: TableState, after: TableState) -> Net:
        """Return the rows of one table that differ, renamed or not."""
        with administering(self._then) as then, administering(self._now) as now:
            for session in (then, now):
                session.execute("SET search_path = ''")
                session.execute(
                    "SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres';"
                    "SET timezone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex'"
                )
            columns = [c for c in _columns(then, before) if c in _columns(now, after)]
            key = _key(then, before)
            key = key if set(key) <= set(columns) else []
            self._write(now, after, columns, key)
            self._read(then)
            query = _KEYED if key else _KEYLESS
            hashed = _hashed(before, columns, key)
            row = then.execute(sql.SQL(query).format(hashed)).fetchone() or (0, 0, 0)
        return Net(int(row[0]), int(row[1]), int(row[2]))

    def _write(
        self, session: Session, table: TableState, columns: list[str], key: list[str]
    ) -> None:
        query = sql.SQL("COPY ({}) TO {} (FORMAT binary)")
        target = sql.Literal(str(self._files["now"]))
        session.execute(query.format(_hashed(table, columns, key), target))

    def _read(self, session: Session) -> None:
        source, target = self._files["now"], self._files["then"]
        try:
            os.replace(source, target)  # noqa: PTH105 - both are Path already
            session.execute("CREATE TEMP TABLE now (k bigint, r bigint)")
            query = sql.SQL("COPY now FROM {} (FORMAT binary)")
            session.execute(query.format(sql.Literal(str(target))))
        finally:
            target.unlink(missing_ok=True)


def _name(table: TableState) -> sql.Identifier:
    return sql.Identifier(table.schema, table.relation)


def _hashed(table: TableState, columns: list[str], key: list[str]) -> sql.Composed:
    query = sql.SQL(
        'SELECT hashtextextended({} COLLATE pg_catalog."C", 0) AS k,'
        ' hashtextextended({} COLLATE pg_catalog."C", 0) AS r FROM ONLY {} x'
    )
    return query.format(_row(key or columns), _row(columns), _name(table))


def _row(columns: list[str]) -> sql.Composed:
    names = sql.SQL(", ").join(sql.SQL("x.") + sql.Identifier(column) for column in columns)
    return sql.SQL("ROW({})::text").format(names)


def _columns(session: Session, table: TableState) -> list[str]:
    found = rows(
        session,
        "SELECT attname FROM pg_attribute WHERE attrelid = pg_catalog.to_regclass(%s)"
        ' AND attnum > 0 AND NOT attisdropped ORDER BY attname COLLATE pg_catalog."C"',
        _name(table).as_string(session),
    )
    return [name for (name,) in found]


def _key(session: Session, table: TableState) -> list[str]:
    """Return the columns of the primary key, or of a unique index that has no nulls."""
    found = rows(
        session,
        "SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_index i"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
        " WHERE i.indrelid = pg_catalog.to_regclass(%s) AND i.indisunique AND i.indisvalid"
        " AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indimmediate"
        " GROUP BY i.indexrelid, i.indisprimary HAVING bool_and(a.attnotnull)"
        " ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1",
        _name(table).as_string(session),
    )
    return list(found[0][0]) if found else []


_KEYED = """
SELECT count(*) FILTER (WHERE n.k IS NULL),
    count(*) FILTER (WHERE t.k IS NOT NULL AND n.k IS NOT NULL AND t.r <> n.r),
    count(*) FILTER (WHERE t.k IS NULL)
FROM ({}) t FULL JOIN pg_temp.now n ON n.k = t.k"""
_KEYLESS = """
SELECT coalesce(sum(greatest(had - has, 0)), 0), 0, coalesce(sum(greatest(has - had, 0)), 0)
FROM (SELECT coalesce(a.amount, 0) AS had, coalesce(b.amount, 0) AS has
    FROM (SELECT r, count(*) AS amount FROM ({}) t GROUP BY r) a
    FULL JOIN (SELECT r, count(*) AS amount FROM pg_temp.now GROUP BY r) b ON a.r = b.r) c"""


@contextmanager
def started(clone: Clone, copy: str, database: str) -> Iterator[Before]:
    """Start the copy's server for the time of a `with`."""
    folder = Path(copy)
    cluster = clone.cluster
    settings = {"handrail.clone": secrets.token_hex(16), "autovacuum": "off"}
    port = scratch.start(cluster.place, folder, cluster.binaries, settings, by_network=False)
    try:
        yield Before(clone, folder, port, database)
    finally:
        scratch.stop(folder)
