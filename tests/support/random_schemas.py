"""Random databases and scripts for the guard's law: drawn from strategies, so that they shrink.

Rules:
- A schema is always valid; a script need not be: what fails in it is part of what is tested.
- Both are deterministic: no clock, no chance, nothing that hangs on a database's name.
- A statement is a template, filled with two tables and two small numbers: what shrinks is short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

# The same name in two schemas, names that need quotes, and one that is a word of the grammar.
NAMES = ("parent", '"Quoted Name"', "other.parent", '"Odd ""Schema"".x"."select"')
SCHEMAS = """SET check_function_bodies = off;
CREATE SCHEMA other;
CREATE SCHEMA "Odd ""Schema"".x";
CREATE SEQUENCE steps;
"""
KINDS = ("table", "unlogged", "list", "hash", "inherited")
ACTIONS = ("CASCADE", "SET NULL", "SET DEFAULT", "NO ACTION")


@dataclass(frozen=True)
class Table:
    """A table: how it is stored, what its key is, and to what it refers."""

    name: str
    kind: str
    rows: int
    has_key: bool
    is_generated: bool
    refers: str = ""
    action: str = "CASCADE"
    is_deferred: bool = False

    @property
    def can_be_referred_to(self) -> bool:
        """Whether a foreign key may point here."""
        return self.has_key and self.kind in {"table", "inherited"}


@dataclass(frozen=True)
class Case:
    """A database to be made, and a script for psql to be run on it.

    Attributes:
        schema: statements that make the database.
        script: what psql reads.
        takes_back: whether a part of a transaction may be taken back while the rest is kept.
    """

    schema: str
    script: str
    takes_back: bool


# --- schemas -----------------------------------------------------------------------------------


def create(table: Table) -> str:
    """Return the statements that make and fill a table."""
    columns = ["id int", "a int DEFAULT 0", "b text"]
    if table.is_generated:
        columns.append("g int GENERATED ALWAYS AS (id * 2) STORED")
    if table.refers:
        wait = " DEFERRABLE INITIALLY DEFERRED" if table.is_deferred else ""
        refers = f"REFERENCES {table.refers} ON DELETE {table.action} ON UPDATE CASCADE{wait}"
        columns.append(f"up int DEFAULT NULL {refers}")
    if table.has_key:
        columns.append(f"PRIMARY KEY (id{', a' if table.kind in {'list', 'hash'} else ''})")
    by = {"list": " PARTITION BY LIST (a)", "hash": " PARTITION BY HASH (a)"}.get(table.kind, "")
    unlogged = "UNLOGGED " if table.kind == "unlogged" else ""
    made = f"CREATE {unlogged}TABLE {table.name} ({', '.join(columns)}){by};\n"
    return made + _parts(table) + _fill(table)


def _parts(table: Table) -> str:
    name = f"part_{NAMES.index(table.name)}"
    if table.kind == "list":
        return (
            f"CREATE TABLE {name}_low PARTITION OF {table.name} FOR VALUES IN (0, 1);\n"
            f"CREATE TABLE {name}_rest PARTITION OF {table.name} DEFAULT;\n"
        )
    if table.kind == "hash":
        of = f"PARTITION OF {table.name} FOR VALUES WITH (MODULUS 2, REMAINDER"
        return "".join(f"CREATE TABLE {name}_{n} {of} {n});\n" for n in (0, 1))
    if table.kind == "inherited":
        return (
            f"CREATE TABLE {name} (more int) INHERITS ({table.name});\n"
            f"INSERT INTO {name} (id, a, b) SELECT g, g, 'child' FROM generate_series(50, 53) g;\n"
        )
    return ""


def _fill(table: Table) -> str:
    up = ", up" if table.refers else ""
    value = f", (SELECT min(id) FROM ONLY {table.refers} WHERE id >= g % 4)" if up else ""
    return (
        f"INSERT INTO {table.name} (id, a, b{up}) SELECT g, g % 4, 'row ' || g{value}"
        f" FROM generate_series(1, {table.rows}) g;\n"
    )


@st.composite
def tables(draw: st.DrawFn) -> tuple[Table, ...]:
    """Draw two to four tables, each of which may refer to one before it."""
    found: list[Table] = []
    for name in NAMES[: draw(st.integers(2, 4))]:
        kind = draw(st.sampled_from(KINDS))
        targets = [t.name for t in found if t.can_be_referred_to]
        found.append(
            Table(
                name,
                kind,
                rows=draw(st.integers(3, 12)),
                has_key=draw(st.booleans()) or not found,
                is_generated=draw(st.booleans()),
                refers=draw(st.sampled_from(["", *targets])),
                action=draw(st.sampled_from(ACTIONS)),
                is_deferred=draw(st.booleans()),
            )
        )
    return tuple(found)


_CAUGHT = "division_by_zero THEN NULL"
# What a trigger does to another table; `this` is the id of the row that it acts for.
_DONE = (
    "DELETE FROM {u} WHERE id = this;",
    "UPDATE {u} SET b = b || '!' WHERE a = this % 4;",
    "INSERT INTO {u} (id, a, b) VALUES (nextval('steps') + 5000, 1, 'by trigger');",
    "BEGIN DELETE FROM {u} WHERE id = this; PERFORM 1 / (this - 2);"
    f" EXCEPTION WHEN {_CAUGHT}; END;",
    "RETURN NULL;",
)
_TRIGGER = """CREATE FUNCTION act_{n}() RETURNS trigger LANGUAGE plpgsql AS $act$
DECLARE this int := 1;
BEGIN
    IF TG_LEVEL = 'ROW' AND TG_OP = 'DELETE' THEN this := OLD.id;
    ELSIF TG_LEVEL = 'ROW' THEN this := NEW.id; END IF;
    IF pg_trigger_depth() < 3 THEN {done} END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END $act$;
{create};
"""
_EVENTS = ("DELETE", "UPDATE", "INSERT", "DELETE OR UPDATE OR INSERT")
_WHEN = (
    "CREATE TRIGGER act_{n} AFTER {event} ON {t} FOR EACH ROW EXECUTE FUNCTION act_{n}()",
    "CREATE TRIGGER act_{n} BEFORE {event} ON {t} FOR EACH ROW EXECUTE FUNCTION act_{n}()",
    "CREATE TRIGGER act_{n} AFTER {event} ON {t} FOR EACH STATEMENT EXECUTE FUNCTION act_{n}()",
    "CREATE CONSTRAINT TRIGGER act_{n} AFTER {event} ON {t} DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION act_{n}()",
)
_RULES = (
    "CREATE RULE also_{n} AS ON DELETE TO {t} DO ALSO DELETE FROM {u} WHERE id = OLD.id;\n",
    "CREATE RULE also_{n} AS ON UPDATE TO {t} DO ALSO UPDATE {u} SET b = '!' WHERE id = NEW.id;\n",
    "CREATE RULE also_{n} AS ON INSERT TO {t} DO ALSO DELETE FROM {u} WHERE id = NEW.a;\n",
    "CREATE RULE also_{n} AS ON DELETE TO {t} DO INSTEAD UPDATE {u} SET b = '-' WHERE a = 1;\n",
    "CREATE RULE also_{n} AS ON INSERT TO {t} DO INSTEAD NOTHING;\n",
)
# What every schema has: functions that hide what they do, views, and a materialized view.
_BESIDE = """
CREATE FUNCTION purge(k int) RETURNS int LANGUAGE plpgsql AS $f$
    BEGIN DELETE FROM {t} WHERE id <= k; RETURN k; END $f$;
CREATE FUNCTION mark(k int) RETURNS bigint LANGUAGE sql AS
    $f$ UPDATE {u} SET b = 'marked' WHERE id = k; SELECT nextval('steps') $f$;
CREATE PROCEDURE work(k int) LANGUAGE plpgsql AS $f$
    BEGIN UPDATE {t} SET b = 'worked' WHERE id <= k; DELETE FROM {u} WHERE id = k; END $f$;
CREATE PROCEDURE in_steps(k int) LANGUAGE plpgsql AS $f$
    BEGIN DELETE FROM {t} WHERE id = k; COMMIT; DELETE FROM {u} WHERE id = k; END $f$;
CREATE VIEW seen AS SELECT id, a, b FROM {u};
CREATE VIEW written AS SELECT id, a, b FROM {t};
CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $f$
    BEGIN DELETE FROM {t} WHERE id = OLD.id; UPDATE {u} SET b = 'instead' WHERE id = OLD.id;
    RETURN OLD; END $f$;
CREATE TRIGGER instead INSTEAD OF UPDATE OR DELETE ON written
    FOR EACH ROW EXECUTE FUNCTION instead();
CREATE MATERIALIZED VIEW held AS SELECT a, count(*) AS n FROM {t} GROUP BY a;
"""
# What lets the guard try nothing as reading alone: not every schema has it.
_HIDING = """
CREATE FUNCTION bold(k int) RETURNS int LANGUAGE plpgsql AS $f$
    BEGIN
        BEGIN DELETE FROM {t} WHERE id > k; PERFORM 1 / (k % 2);
        EXCEPTION WHEN division_by_zero THEN UPDATE {u} SET a = 1 WHERE id = k; END;
        RETURN k;
    END $f$;
CREATE FUNCTION swallow(k int) RETURNS int LANGUAGE plpgsql AS $f$
    BEGIN DELETE FROM {u} WHERE id = k; RETURN 1; EXCEPTION WHEN OTHERS THEN RETURN 0; END $f$;
CREATE FUNCTION raze() RETURNS void LANGUAGE plpgsql AS
    $f$ BEGIN EXECUTE 'TRUNCATE ' || $t${u}$t$ || ' CASCADE'; END $f$;
"""


@st.composite
def schemas(draw: st.DrawFn) -> tuple[tuple[Table, ...], str]:
    """Draw tables, and the statements that make them and what acts on them."""
    found = draw(tables())
    some = st.sampled_from([table.name for table in found])
    text = SCHEMAS + "".join(create(table) for table in found)
    for n in range(draw(st.integers(0, 3))):
        when = draw(st.sampled_from(_WHEN)).format(
            n=n, t=draw(some), event=draw(st.sampled_from(_EVENTS))
        )
        text += _TRIGGER.format(
            n=n, done=draw(st.sampled_from(_DONE)).format(u=draw(some)), create=when
        )
    for n in range(draw(st.integers(0, 2))):
        ruled, other = draw(st.permutations([table.name for table in found]))[:2]
        text += draw(st.sampled_from(_RULES)).format(n=n, t=ruled, u=other)
    beside = _BESIDE + draw(st.sampled_from(("", _HIDING)))
    return found, text + beside.format(t=found[0].name, u=draw(some))


# --- scripts -----------------------------------------------------------------------------------

ROWS = (
    "DELETE FROM {t} WHERE id = {n}",
    "UPDATE {t} SET b = b || '.' WHERE id <= {n}",
    "INSERT INTO {t} (id, a, b) VALUES ({n} + 300, {k}, 'one'), ({n} + 301, {k}, 'two')",
    "INSERT INTO {t} (id, a, b) SELECT g, g % 4, 'new' FROM"
    " generate_series({n} * 10 + 100, {n} * 10 + 100 + {k}) g",
    "INSERT INTO {t} (id, a, b) VALUES ({n}, {k}, 'again') ON CONFLICT (id)"
    " DO UPDATE SET b = 'met'",
    "INSERT INTO {t} (id, a, b) SELECT id, a, b FROM {u} ORDER BY id ON CONFLICT DO NOTHING",
    "DELETE FROM {t} WHERE id > {n}",
    "DELETE FROM {t} WHERE {n} / (id - {k}) > 1",
    "DELETE FROM ONLY {t} WHERE a = {k}",
    "DELETE FROM {t} WHERE id <= {n} RETURNING *",
    "DELETE FROM {t} x USING {u} u WHERE u.id = x.id AND u.a = {k}",
    "UPDATE {t} SET a = (a + {k}) % 5",
    "UPDATE {t} SET id = id + 1000 WHERE id = {n}",
    "UPDATE {t} x SET b = u.b FROM {u} u WHERE u.id = x.id AND x.id > {n}",
    "WITH gone AS (DELETE FROM {t} WHERE a = {k} RETURNING id, a, b)"
    " INSERT INTO {u} (id, a, b) SELECT id + 2000, a, b FROM gone",
    "WITH gone AS (DELETE FROM {t} WHERE a = {k} RETURNING id) SELECT count(*) FROM gone",
    "MERGE INTO {t} x USING {u} u ON x.id = u.id WHEN MATCHED AND u.a = {k} THEN DELETE"
    " WHEN MATCHED THEN UPDATE SET b = 'merged'"
    " WHEN NOT MATCHED THEN INSERT (id, a, b) VALUES (u.id, u.a, u.b)",
    "SELECT purge({n})",
    "SELECT mark({n})",
    "SELECT count(mark(id)) FROM {t} WHERE id <= {k}",
    "SELECT swallow({n})",
    "VALUES (purge({k}))",
    "DO $$ BEGIN DELETE FROM {t} WHERE id = {n}; UPDATE {u} SET a = {k} WHERE id = {n}; END $$",
    "CALL work({n})",
    "DELETE FROM seen WHERE id = {n}",
    "UPDATE written SET b = 'seen' WHERE id <= {n}",
    "DELETE FROM written WHERE a = {k}",
    "COPY (DELETE FROM {t} WHERE a = {k} RETURNING id) TO STDOUT",
    "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) DELETE FROM {t} WHERE a = {k}",
    "SELECT id FROM {t} WHERE id = {n} FOR UPDATE",
    "PREPARE q(int) AS DELETE FROM {t} WHERE id <= $1",
    "EXECUTE q({n})",
    "DECLARE c CURSOR FOR SELECT * FROM {t} WHERE id <= {n} FOR UPDATE",
    "FETCH 1 FROM c",
    "DELETE FROM {t} WHERE CURRENT OF c",
)
BESIDE = (
    "SELECT count(*) FROM {t}",
    "SELECT 1 / 0",
    "INSERT INTO {t} (id, nothing) VALUES (1, 1)",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "SET search_path = other, public",
    "SET default_transaction_read_only = off",
    "RESET ALL",
    "LOCK TABLE {t}",
    "SELECT nextval('steps')",
    "SELECT setval('steps', {n} + 1)",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "CREATE TEMP TABLE IF NOT EXISTS own AS SELECT * FROM {t}",
    "DELETE FROM own",
    "ANALYZE {t}",
)
SHAPES = (
    "TRUNCATE {t}",
    "TRUNCATE {t} CASCADE",
    "TRUNCATE {t}, {u} RESTART IDENTITY CASCADE",
    "SELECT raze()",
    "CREATE TABLE made AS SELECT id, a, b FROM {t}",
    "INSERT INTO made SELECT * FROM made",
    "DELETE FROM made WHERE id = {n}",
    "DROP TABLE made",
    "DROP TABLE {t}",
    "DROP TABLE {t} CASCADE",
    "ALTER TABLE {t} ADD COLUMN extra_{k} int DEFAULT {n}",
    "ALTER TABLE {t} ADD COLUMN extra_{k} bigint DEFAULT nextval('steps')",
    "ALTER TABLE {t} ALTER COLUMN b TYPE varchar(40)",
    "ALTER TABLE {t} DROP COLUMN b CASCADE",
    "ALTER TABLE {t} RENAME TO renamed",
    "DELETE FROM renamed WHERE id > {n}",
    "ALTER TABLE {t} DISABLE TRIGGER USER",
    "CREATE RULE more_{k} AS ON DELETE TO {t} DO ALSO DELETE FROM {u} WHERE id = OLD.id",
    "CREATE INDEX ON {t} (a)",
    "REINDEX TABLE {t}",
    "CLUSTER {t} USING parent_pkey",
    "REFRESH MATERIALIZED VIEW held",
    "COMMENT ON TABLE {t} IS 'number {n}'",
    "GRANT SELECT ON {t} TO PUBLIC",
    "CREATE OR REPLACE FUNCTION purge(k int) RETURNS int LANGUAGE sql AS"
    " $$ DELETE FROM {u} WHERE id > k RETURNING id $$",
    "SELECT lo_create({n} + 1)",
    "SELECT lo_unlink({n} + 1)",
)
PARTLY = (
    "SELECT bold({n})",
    "DO $$ BEGIN DELETE FROM {t} WHERE id = {n}; RAISE EXCEPTION 'no';"
    " EXCEPTION WHEN OTHERS THEN DELETE FROM {u} WHERE id = {k}; END $$",
)
# What takes effect as it runs: the guard reports it, and holds nothing of it.
UNHELD = ("VACUUM {t}", "CALL in_steps({n})", "CREATE INDEX CONCURRENTLY ON {t} (a)")
_COPIED = "COPY {t} (id, a, b) FROM STDIN;\n{n}\t1\tcopied\n40{n}\t{k}\tcopied\n\\.\n"


def _one(found: Sequence[Table], templates: Sequence[str]) -> st.SearchStrategy[str]:
    some = st.sampled_from([table.name for table in found])
    return st.builds(
        lambda template, t, u, n, k: template.format(t=t, u=u, n=n, k=k),
        st.sampled_from(templates),
        some,
        some,
        st.integers(0, 12),
        st.integers(1, 4),
    )


def _several(statement: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(statement, min_size=1, max_size=4)


@st.composite
def _saved(draw: st.DrawFn, statement: st.SearchStrategy[str]) -> list[str]:
    """Draw statements with a savepoint among them, which may be gone back to."""
    end = draw(st.sampled_from(("ROLLBACK TO here", "RELEASE here", "SELECT 1")))
    return [*draw(_several(statement)), "SAVEPOINT here", *draw(_several(statement)), end]


_BEGINS = (*["BEGIN"] * 6, "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN READ ONLY")
# An empty one leaves the transaction to what follows, or to nobody.
_ENDS = (*["COMMIT"] * 6, "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "")


@st.composite
def _blocks(
    draw: st.DrawFn, found: Sequence[Table], statement: st.SearchStrategy[str], takes_back: bool
) -> str:
    """Draw what stands in a script by itself: a statement, a message of several, a transaction."""
    forms = ("alone", "message", "transaction", "copy", "middle", "saved")
    form = draw(st.sampled_from(forms if takes_back else forms[:-1]))
    if form == "alone":
        return f"{draw(statement)};\n"
    if form == "copy":
        return draw(_one(found, [_COPIED]))
    if form == "message":
        return " \\; ".join(draw(_several(statement))) + ";\n"
    if form == "middle":
        ends = st.sampled_from(("COMMIT", "ROLLBACK", "BEGIN"))
        first, end, second = draw(_several(statement)), draw(ends), draw(_several(statement))
        return " \\; ".join([*first, end, *second]) + ";\n"
    inner = draw(_saved(statement) if form == "saved" else _several(statement))
    begin, end = draw(st.sampled_from(_BEGINS)), draw(st.sampled_from(_ENDS))
    return ";\n".join([begin, *inner, end]) + ";\n"


@st.composite
def cases(draw: st.DrawFn, *, unheld: bool = True, takes_back: bool = True) -> Case:
    """Draw a database and a script."""
    found, schema = draw(schemas())
    kinds = [ROWS, ROWS, ROWS, ROWS, SHAPES, BESIDE, *([PARTLY] if takes_back else [])]
    statement = st.sampled_from(kinds).flatmap(lambda templates: _one(found, templates))
    parts = draw(st.lists(_blocks(found, statement, takes_back), min_size=1, max_size=5))
    if unheld and draw(st.integers(0, 7)) == 7:
        parts.append(draw(_one(found, [f"{one};\n" for one in UNHELD])))
    goes_on = takes_back and draw(st.booleans())
    script = ("\\set ON_ERROR_ROLLBACK on\n" if goes_on else "") + "".join(parts)
    return Case(schema, script, takes_back and _takes_back(schema, script))


def _takes_back(schema: str, script: str) -> bool:
    words = ("SAVEPOINT", "ON_ERROR_ROLLBACK", "EXCEPTION", "bold(", "swallow(")
    return _CAUGHT in schema or any(word in script for word in words)
