# ruff: noqa: S608 - every part of these queries is a constant of this file
"""Which tables are plain: what the command tag of a simple statement says there is all that it did.

Rules:
- A plain table has nothing that acts when its rows change: no trigger (a foreign key is one), no
  rule, no row security, no partition, no child or parent, no generated column.
- Everything that is computed for a row of it is the system's own and cannot write: types, defaults,
  checks, indexes. A function of the system that runs any query (`query_to_xml`) is not.
- Where somebody's operator or cast could stand for one of the system's, no table is plain.
- A name without a schema counts only where one relation alone has it, whatever the `search_path`.
- Before version 16 a read-only transaction may write large objects. Where somebody's function could
  do so, what only reads is not held by being read only (`reads_hold`). Nor where a function catches
  errors: it would do something else where it may not write, and nobody would see it.
- It is true of the moment of its reading: read again after every declaration.

Source: src/backend/libpq/be-fsstubs.c (PreventCommandIfReadOnly, since PostgreSQL 16)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from handrail.errors import StoreError

# What an expression may call besides what is immutable: none of them runs a query.
HARMLESS = (
    "clock_timestamp",
    "current_database",
    "current_schema",
    "current_user",
    "date",
    "gen_random_uuid",
    "nextval",
    "now",
    "pg_backend_pid",
    "random",
    "session_user",
    "statement_timestamp",
    "timeofday",
    "timestamp",
    "timestamptz",
    "timezone",
    "to_char",
    "transaction_timestamp",
)
# The operators that a plain statement may have.
OPERATORS = "= <> < > <= >= + - * / % ^ || ~ !~ ~* !~* ~~ !~~ ~~* !~~* @> <@ && -> ->>"
CONNECT_TIMEOUT_S = 10
LOOK_MS = 30_000


@dataclass(frozen=True)
class Plain:
    """The plain tables of a database.

    Attributes:
        tables: schema and name, to the name as effects spell it.
        alone: of these, by name alone, where no other relation of any schema has that name.
        reads_hold: whether nothing that a read-only transaction does takes effect, and what would
            write fails in it.
    """

    tables: Mapping[tuple[str, str], str]
    alone: Mapping[str, str]
    reads_hold: bool

    def name(self, table: tuple[str, str]) -> str | None:
        """Return how effects spell a table as a statement names it; None where it is not plain."""
        schema, relation = table
        return self.tables.get(table) if schema else self.alone.get(relation)


def read(url: str) -> Plain:
    """Return the plain tables of the database at `url`; none where anything there is doubtful.

    Raises:
        StoreError: the server does not answer.
    """
    found = _ask(url, _PLAIN, [OPERATORS.split(" "), list(HARMLESS)])
    reads_hold = _ask(url, _READS_HOLD, []) == [(True,)]
    tables = {(schema, relation): spelled for schema, relation, spelled, _ in found}
    alone = {relation: spelled for _, relation, spelled, is_alone in found if is_alone}
    return Plain(tables, alone, reads_hold)


def names(url: str) -> Mapping[int, str]:
    """Return how effects spell every relation of the database, by object id.

    Raises:
        StoreError: the server does not answer.
    """
    return {int(oid): name for oid, name in _ask(url, _NAMES, [])}


def _ask(url: str, query: str, values: list[object]) -> list[tuple[Any, ...]]:
    try:
        with (
            psycopg.connect(
                url, connect_timeout=CONNECT_TIMEOUT_S, application_name="handrail", autocommit=True
            ) as session,
            session.transaction(),
        ):
            session.execute(_SETTINGS)
            return session.execute(query.encode(), values or None).fetchall()
    except psycopg.Error as error:
        raise StoreError(
            "store.unreachable",
            f"which tables are plain cannot be read: {error.diag.message_primary or type(error)}",
            hint="check that the server runs, and that this role may connect",
        ) from None


_SETTINGS = f"""
SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL lock_timeout = '1s';
SET LOCAL statement_timeout = {LOOK_MS}; SET LOCAL jit = off; SET TRANSACTION READ ONLY"""
_SPELLED = """CASE WHEN n.nspname = 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END
    || quote_ident(c.relname)"""
_NAMES = f"""
SELECT c.oid::text, {_SPELLED} FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"""
# Objects of users and extensions have ids from 16384 on. What depends on none of them, nor calls
# anything that runs a query, can only do what the system does.
_PLAIN = f"""
WITH strange_operator AS (
    -- One that the system's types alone choose, or that a bare literal could.
    SELECT FROM pg_operator o WHERE o.oid >= 16384 AND o.oprname = ANY (%s) AND (
        (o.oprleft < 16384 AND o.oprright < 16384) OR EXISTS (
            SELECT FROM unnest(ARRAY[o.oprleft, o.oprright]) t (id)
            WHERE t.id BETWEEN 1 AND 16383 AND NOT EXISTS (
                SELECT FROM pg_operator b WHERE b.oid < 16384 AND b.oprname = o.oprname
                    AND b.oprleft = t.id AND b.oprright = t.id)))
), strange_cast AS (
    SELECT FROM pg_cast k WHERE k.oid >= 16384 AND k.castsource < 16384
        AND (k.casttarget < 16384 OR k.castcontext = 'i')
), strange_function AS (
    SELECT FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.oid < 16384 AND l.lanname NOT IN ('internal', 'c', 'sql')
        AND p.prorettype <> 'event_trigger'::regtype
), expression AS (
    SELECT d.adrelid AS relation, d.adbin::text AS tree FROM pg_attrdef d
    UNION ALL
    SELECT k.conrelid, k.conbin::text FROM pg_constraint k WHERE k.conbin IS NOT NULL
    UNION ALL
    SELECT i.indrelid, t.tree FROM pg_index i,
        unnest(ARRAY[i.indexprs::text, i.indpred::text]) t (tree) WHERE t.tree IS NOT NULL
), call AS (
    SELECT e.relation, m[1] AS sort, m[2]::oid AS id
    FROM expression e, regexp_matches(e.tree, ':(funcid|opno) (\\d+)', 'g') m
), calling AS (
    SELECT k.relation FROM call k
    LEFT JOIN pg_operator o ON k.sort = 'opno' AND o.oid = k.id
    LEFT JOIN pg_proc p ON p.oid = CASE k.sort WHEN 'opno' THEN o.oprcode::oid ELSE k.id END
    WHERE p.oid IS NULL OR p.oid >= 16384
        OR (p.provolatile <> 'i' AND k.sort = 'funcid' AND p.proname <> ALL (%s))
), part AS (
    SELECT 'pg_class'::regclass AS catalog, c.oid AS id, c.oid AS relation FROM pg_class c
    UNION ALL SELECT 'pg_attrdef'::regclass, d.oid, d.adrelid FROM pg_attrdef d
    UNION ALL SELECT 'pg_constraint'::regclass, k.oid, k.conrelid FROM pg_constraint k
    UNION ALL SELECT 'pg_class'::regclass, i.indexrelid, i.indrelid FROM pg_index i
), depending AS (
    SELECT part.relation FROM part
    JOIN pg_depend d ON d.classid = part.catalog AND d.objid = part.id
    WHERE d.refobjid >= 16384 AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass,
        'pg_type'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass, 'pg_am'::regclass,
        'pg_cast'::regclass, 'pg_collation'::regclass)
)
SELECT n.nspname, c.relname, {_SPELLED},
    NOT EXISTS (SELECT FROM pg_class x WHERE x.relname = c.relname AND x.oid <> c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND c.relkind = 'r' AND c.relpersistence <> 't' AND NOT c.relispartition
    AND NOT c.relrowsecurity AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND n.nspname !~ '^pg_'
    AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid)
    AND NOT EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid)
    AND NOT EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
    AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
        AND (a.attgenerated <> '' OR a.atttypid >= 16384))
    AND c.oid NOT IN (SELECT relation FROM calling)
    AND c.oid NOT IN (SELECT relation FROM depending)
    AND NOT EXISTS (SELECT FROM strange_operator) AND NOT EXISTS (SELECT FROM strange_cast)
    AND NOT EXISTS (SELECT FROM strange_function)"""

# A function that names them, whose text is not known, or that puts its text together as it runs;
# and whatever else calls one of the system's own where something is only read.
_READS_HOLD = """
WITH writing AS (
    SELECT oid FROM pg_proc WHERE oid < 16384
        AND proname ~ '^(lo_(creat|put|unlink|from_bytea|truncate|open|import)|lowrite)'
), tree AS (
    SELECT p.prosqlbody::text AS said FROM pg_proc p WHERE p.prosqlbody IS NOT NULL
    UNION ALL SELECT p.proargdefaults::text FROM pg_proc p WHERE p.oid >= 16384
    UNION ALL SELECT r.ev_action::text FROM pg_rewrite r WHERE r.oid >= 16384
    UNION ALL SELECT p.polqual::text FROM pg_policy p
    UNION ALL SELECT k.conbin::text FROM pg_constraint k WHERE k.contypid <> 0
    UNION ALL SELECT t.typdefaultbin::text FROM pg_type t WHERE t.oid >= 16384
), called AS (
    SELECT m[1]::oid AS id
        FROM tree, regexp_matches(tree.said, ':(?:funcid|opfuncid) (\\d+)', 'g') m
    UNION ALL SELECT o.oprcode::oid FROM pg_operator o WHERE o.oid >= 16384
    UNION ALL SELECT k.castfunc FROM pg_cast k WHERE k.oid >= 16384
    UNION ALL SELECT unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn]::oid[])
        FROM pg_aggregate a WHERE a.aggfnoid >= 16384
)
SELECT NOT EXISTS (
    -- It catches the error by which it would be run again as one that writes.
    SELECT FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.oid >= 16384 AND l.lanname = 'plpgsql' AND p.prosrc ~* '\\mexception\\s+when\\M'
        AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
) AND (current_setting('server_version_num')::int >= 160000 OR NOT (
    EXISTS (SELECT FROM called WHERE id IN (SELECT oid FROM writing))
    OR EXISTS (
        SELECT FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
        WHERE p.oid >= 16384
            AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
            AND (p.prosrc ~* 'lo_|lowrite'
                OR (l.lanname = 'plpgsql' AND p.prosrc ~* '\\mexecute\\M')
                OR (l.lanname NOT IN ('sql', 'plpgsql') AND NOT EXISTS (
                    SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
                        AND d.objid = p.oid AND d.deptype = 'e'))))))"""
