"""A clone as it was before the script: a copy of its files, started only when something changed.

Rules:
- The copy is outside the clone's server: the script can neither see it nor drop it.
- Its server listens on a private socket alone, and runs only while effects are read.
- Rows are compared in SQL: the clone writes a file, the copy's server reads it, and no row passes
  through this process. With a key only rows written since are looked at; without one, hashes of
  all rows are, and equal ones are counted.
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
from handrail.adapters.postgres.state import State, TableState

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
        first = one(
            session,
            "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_backup_start('handrail', true))",
        )
        copy_tree(clone.cluster.data, place, folder, without="pg_wal")
        label = one(session, "SELECT labelfile FROM pg_catalog.pg_backup_stop(false)")
    # What the copy needs to become consistent was written while it was made.
    scratch.own_folder(place, folder / "pg_wal")
    for path in (clone.cluster.data / "pg_wal").iterdir():
        if path.is_file() and path.name >= str(first):
            shutil.copy2(path, folder / "pg_wal" / path.name)
    (folder / "backup_label").write_text(str(label))
    for name in ("postmaster.pid", "postmaster.opts"):
        (folder / name).unlink(missing_ok=True)
    for slot in (folder / "pg_replslot").iterdir():
        shutil.rmtree(slot)
    scratch.hand_over(place, folder)
    return str(folder)


def _tree_size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def drop(clone: Clone) -> None:
    """Remove the copy of an earlier observation."""
    folder = clone.cluster.place.home / FOLDER
    if folder.is_dir():
        scratch.stop(folder)
        shutil.rmtree(folder)


class Before:
    """The clone before the script, answering."""

    def __init__(self, clone: Clone, folder: Path, port: int, state: State, present: str) -> None:
        cluster = clone.cluster
        database = state.database
        # A row's xmin has 32 bits of the 64.
        self._since = str(int(state.transaction) % 2**32)
        self._now = cluster.address(present)
        self._then = scratch.Cluster(
            cluster.place,
            folder,
            cluster.binaries,
            cluster.superuser,
            cluster.password,
            port,
            by_network=False,
        ).address(database)
        self._files = {"now": cluster.data / EXCHANGE, "then": folder / EXCHANGE}

    def count(self, table: TableState) -> int:
        """Return the rows that a table had."""
        with reading(self._then, timeout_s=0) as session:
            return _number(session, table)

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
            if key and key == _key(now, after):
                return self._compare_keyed(then, now, (before, after), columns, key)
            self._hand_over(now, _hashed(after, columns), then, sql.SQL("r bigint"))
            query = sql.SQL(_KEYLESS).format(_hashed(before, columns))
            row = then.execute(query).fetchone() or (0, 0)
        return Net(int(row[0]), 0, int(row[1]))

    def _compare_keyed(
        self,
        then: Session,
        now: Session,
        tables: tuple[TableState, TableState],
        columns: list[str],
        key: list[str],
    ) -> Net:
        """Compare by the rows written since: each of the others is as it was.

        Of the rows before, those that are not there untouched and not under the key of a new row
        are deleted.
        """
        before, after = tables
        keys = sql.SQL(", ").join(sql.SQL("x.") + sql.Identifier(name) for name in key)
        names = [sql.Identifier(f"k{number}") for number in range(len(key))]
        newer = sql.SQL("age(x.xmin) <= age({}::xid)").format(sql.Literal(self._since))
        written = sql.SQL("SELECT {}, {} FROM ONLY {} x WHERE {}").format(
            keys, _hash(columns), _name(after), newer
        )
        shape = sql.SQL("SELECT {}, 0::bigint FROM ONLY {} x WHERE false").format(
            keys, _name(before)
        )
        new = self._hand_over(now, written, then, shape, [*names, sql.Identifier("r")])
        pairs = zip(map(sql.Identifier, key), names, strict=True)
        same = sql.SQL(" AND ").join(sql.SQL("x.{} = n.{}").format(*pair) for pair in pairs)
        row = then.execute(sql.SQL(_KEYED).format(_hash(columns), _name(before), same)).fetchone()
        matched, updated = row or (0, 0)
        untouched = _number(now, after) - new
        return Net(_number(then, before) - untouched - matched, updated, new - matched)

    def _hand_over(
        self,
        now: Session,
        written: sql.Composed,
        then: Session,
        shape: sql.Composable,
        names: list[sql.Identifier] | None = None,
    ) -> int:
        """Take what the clone answers to `written` into the table `now` of the copy."""
        source, target = self._files["now"], self._files["then"]
        try:
            copy_out = sql.SQL("COPY ({}) TO {} (FORMAT binary)")
            number = now.execute(copy_out.format(written, sql.Literal(str(source)))).rowcount
            os.replace(source, target)  # noqa: PTH105 - both are Path already
            then.execute(
                sql.SQL("CREATE TEMP TABLE now ({}) AS {}").format(sql.SQL(", ").join(names), shape)
                if names
                else sql.SQL("CREATE TEMP TABLE now ({})").format(shape)
            )
            copy_in = sql.SQL("COPY now FROM {} (FORMAT binary)")
            then.execute(copy_in.format(sql.Literal(str(target))))
            then.execute("ANALYZE pg_temp.now")
        finally:
            target.unlink(missing_ok=True)
            source.unlink(missing_ok=True)
        return number


def _number(session: Session, table: TableState) -> int:
    row = session.execute(sql.SQL("SELECT count(*) FROM ONLY {}").format(_name(table))).fetchone()
    return int(row[0]) if row else 0


def _name(table: TableState) -> sql.Identifier:
    return sql.Identifier(table.schema, table.relation)


def _hashed(table: TableState, columns: list[str]) -> sql.Composed:
    return sql.SQL("SELECT {} AS r FROM ONLY {} x").format(_hash(columns), _name(table))


def _hash(columns: list[str]) -> sql.Composed:
    text = sql.SQL('hashtextextended({} COLLATE pg_catalog."C", 0)')
    return text.format(_row(columns))


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
    """Return the columns of the primary key, or of a unique index that has no nulls.

    None where a type is not the system's: its equality may be anybody's.
    """
    found = rows(
        session,
        "SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_index i"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
        " WHERE i.indrelid = pg_catalog.to_regclass(%s) AND i.indisunique AND i.indisvalid"
        " AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indimmediate"
        " GROUP BY i.indexrelid, i.indisprimary"
        " HAVING bool_and(a.attnotnull AND a.atttypid < 16384)"
        " ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1",
        _name(table).as_string(session),
    )
    return list(found[0][0]) if found else []


_KEYED = """
SELECT count(*), count(*) FILTER (WHERE {} <> n.r) FROM pg_temp.now n JOIN ONLY {} x ON {}"""
_KEYLESS = """
SELECT coalesce(sum(greatest(had - has, 0)), 0), coalesce(sum(greatest(has - had, 0)), 0)
FROM (SELECT coalesce(a.amount, 0) AS had, coalesce(b.amount, 0) AS has
    FROM (SELECT r, count(*) AS amount FROM ({}) t GROUP BY r) a
    FULL JOIN (SELECT r, count(*) AS amount FROM pg_temp.now GROUP BY r) b ON a.r = b.r) c"""


@contextmanager
def started(clone: Clone, copy: str, state: State, present: str) -> Iterator[Before]:
    """Start the copy's server for the time of a `with`; `present` is the database's name now."""
    folder = Path(copy)
    cluster = clone.cluster
    settings = {"handrail.clone": secrets.token_hex(16), "autovacuum": "off"}
    port = scratch.start(cluster.place, folder, cluster.binaries, settings, by_network=False)
    try:
        yield Before(clone, folder, port, state, present)
    finally:
        scratch.stop(folder)
