"""Read what a database holds: exact rows, age, size, and checksums that no order changes.

Rules:
- Every table is read in one snapshot, by itself (`ONLY`): a partitioned table's rows are counted at
  its leaves, once. Foreign tables are not read: they are somebody else's.
- A checksum is the number of rows and two independent sums of 64-bit hashes of each row's text.
- Row security is off: a role that may not see every row gets an error, never a smaller number.
- Materialized views are left out of checksums: they are derived, and restoring refreshes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from handrail.adapters.postgres.catalog import checksum, read_database
from handrail.adapters.postgres.connecting import Session, one, rows
from handrail.plans.facts import Fingerprint, Measure, TableMeasure

LARGE_OBJECTS = "(large objects)"
SECOND_SEED = 7046029254386353131


@dataclass(frozen=True)
class Table:
    """A table that holds rows itself. `name` is for people; `schema` and `relation` for SQL."""

    oid: str
    schema: str
    relation: str
    name: str
    times: tuple[str, ...] = ()

    @property
    def identifier(self) -> sql.Identifier:
        """The qualified, quoted name."""
        return sql.Identifier(self.schema, self.relation)


def tables(session: Session, *, derived: bool = False) -> tuple[Table, ...]:
    """Return the tables of users' schemas by name.

    With `derived`, materialized views as well, and without looking for columns of times.
    """
    found = rows(
        session,
        """
        SELECT c.oid::text, n.nspname, c.relname,
            CASE WHEN n.nspname = 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END
                || quote_ident(c.relname),
            (SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}')
                FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                WHERE %s AND a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND coalesce(nullif(t.typbasetype, 0), t.oid)
                    IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype))
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = ANY (%s) AND c.relispopulated AND c.relpersistence <> 't'
            AND n.nspname NOT IN ('pg_catalog', 'information_schema')
            AND n.nspname !~ '^pg_(toast|temp)' ORDER BY 4
        """,
        not derived,
        ["r", "m"] if derived else ["r"],
    )
    return tuple(Table(row[0], row[1], row[2], row[3], tuple(row[4])) for row in found)


def measure(session: Session) -> Measure:
    """Return exact rows and the span of times of each table, and the database's size."""
    measured = tuple(_measure_table(session, table) for table in tables(session))
    size = one(session, "SELECT pg_database_size(current_database())")
    return Measure(measured, int(size))


def _measure_table(session: Session, table: Table) -> TableMeasure:
    wanted: list[sql.Composable] = [sql.SQL("count(*)")]
    for column in table.times:
        name = sql.SQL("x.{}").format(sql.Identifier(column))
        finite = sql.SQL(" FILTER (WHERE isfinite({}))").format(name)
        wanted += [sql.SQL("{}({})").format(sql.SQL(f), name) + finite for f in ("min", "max")]
    wanted[1:] = [one_value + sql.SQL("::text") for one_value in wanted[1:]]
    query = sql.SQL("SELECT {} FROM ONLY {} x").format(sql.SQL(", ").join(wanted), table.identifier)
    row = session.execute(query).fetchone() or (0,)
    oldest = [t for t in map(_iso, row[1::2]) if t]
    newest = [t for t in map(_iso, row[2::2]) if t]
    return TableMeasure(table.name, row[0], min(oldest, default=None), max(newest, default=None))


def _iso(text: str | None) -> str | None:
    """Return PostgreSQL's ISO text as ISO 8601 in UTC; None before year 1 and after 9999."""
    if text is None or text.endswith(" BC") or text[4] != "-":
        return None
    day, _, time = text.partition(" ")
    return f"{day}T{(time or '00:00:00').removesuffix('+00')}Z"


def count(session: Session, table: Table) -> int:
    """Return the exact number of rows of one table."""
    query = sql.SQL("SELECT count(*) FROM ONLY {}").format(table.identifier)
    row = session.execute(query).fetchone()
    return int(row[0]) if row else 0


def fingerprint(session: Session) -> Fingerprint:
    """Return checksums of every table and sequence, of large objects, and of the schema."""
    found = [(table.name, _checksum_table(session, table)) for table in tables(session)]
    found += [(name, f"{value}/{called}") for name, value, called in sequences(session).values()]
    large = _checksum_large_objects(session)
    found += [(LARGE_OBJECTS, large)] if large else []
    return Fingerprint(tuple(sorted(found)), checksum(read_database(session)))


def _checksum_table(session: Session, table: Table) -> str:
    # OFFSET 0 keeps the planner from making each row's text twice.
    query = sql.SQL(
        "SELECT count(*), coalesce(sum(hashtextextended(t, 0)), 0),"
        " coalesce(sum(hashtextextended(t, {})), 0) FROM"
        ' (SELECT (x.*)::text COLLATE "C" AS t FROM ONLY {} x OFFSET 0) s'
    ).format(sql.Literal(SECOND_SEED), table.identifier)
    rows_, first, second = session.execute(query).fetchone() or (0, 0, 0)
    return _written(rows_, first, second)


def _written(rows_: int, first: object, second: object) -> str:
    parts = (int(str(first)) % 2**64, int(str(second)) % 2**64)
    return f"{rows_}:{parts[0]:016x}{parts[1]:016x}"


def sequences(session: Session) -> dict[str, tuple[str, int, bool]]:
    """Return name, last value and whether it was given out, by object id."""
    found = rows(
        session,
        """
        SELECT c.oid::text, n.nspname, c.relname,
            CASE WHEN n.nspname = 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END
                || quote_ident(c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'S' AND c.relpersistence <> 't' ORDER BY 4
        """,
    )
    if not found:
        return {}
    # One query for all: a database has as many sequences as tables.
    one_of = sql.SQL("SELECT {}, last_value, is_called FROM {}")
    asked = [one_of.format(sql.Literal(oid), sql.Identifier(*at)) for oid, *at, _ in found]
    values = session.execute(sql.SQL(" UNION ALL ").join(asked)).fetchall()
    names = {oid: name for oid, _, _, name in found}
    return {oid: (names[oid], value, called) for oid, value, called in values}


def _checksum_large_objects(session: Session) -> str:
    """Return a checksum of all large objects; empty when there are none."""
    if not one(session, "SELECT EXISTS (SELECT FROM pg_largeobject_metadata)"):
        return ""
    if one(session, "SELECT has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')"):
        source = (
            "SELECT l.loid || ' ' || l.pageno || ' ' || encode(l.data, 'hex') FROM"
            " pg_largeobject l UNION ALL SELECT m.oid::text FROM pg_largeobject_metadata m"
        )
    else:
        source = "SELECT m.oid || ' ' || md5(lo_get(m.oid)) FROM pg_largeobject_metadata m"
    query = (
        "SELECT count(*), sum(hashtextextended(t, 0)), sum(hashtextextended(t, %s))"  # noqa: S608 - of constants
        f' FROM (SELECT x COLLATE "C" FROM ({source}) y (x)) s (t)'
    )
    return _written(*(session.execute(query.encode(), [SECOND_SEED]).fetchone() or (0, 0, 0)))
