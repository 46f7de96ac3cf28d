"""A table that is said to be plain does exactly what the command tag of a statement says."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handrail.errors import StoreError
from handrail.wire.postgres import tables
from support.postgres_server import Server

pytestmark = pytest.mark.postgres

BASE = """
CREATE TABLE trail (id bigserial PRIMARY KEY, word text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO trail (word) VALUES ('t'); RETURN coalesce(NEW, OLD); END $$;
CREATE FUNCTION said(word text) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.trail (word) VALUES ($1); RETURN $1; END $$;
CREATE FUNCTION sneaky(i integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM public.said('i'); RETURN i; END $$;
CREATE FUNCTION sneaky_order(a integer, b integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM public.said('o'); RETURN a - b; END $$;
CREATE DOMAIN checked AS integer CHECK (sneaky(VALUE) > -1 OR VALUE IS NULL);
CREATE OPERATOR CLASS sneaky_ops FOR TYPE integer USING btree AS OPERATOR 1 <, OPERATOR 2 <=,
    OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 sneaky_order(integer, integer);
CREATE TABLE parent (id integer PRIMARY KEY);
INSERT INTO parent SELECT generate_series(1, 20);
CREATE OPERATOR ==== (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4eq);
"""
# What is done to `thing (id integer, word text)`, and whether the table is plain after it.
HARMLESS = {
    "nothing": "",
    "a key": "ALTER TABLE thing ADD UNIQUE (id, word)",
    "a default": "ALTER TABLE thing ALTER word SET DEFAULT 'x' || now()",
    "a serial": "ALTER TABLE thing ADD number serial",
    "an identity": "ALTER TABLE thing ADD number integer GENERATED ALWAYS AS IDENTITY",
    "a check": "ALTER TABLE thing ADD CHECK (id < 100000 AND length(word) < 1000)",
    "an index": "CREATE INDEX ON thing (lower(word)) WHERE id > 3",
    "unlogged": "ALTER TABLE thing SET UNLOGGED",
    "a builtin generator": "ALTER TABLE thing ADD made uuid DEFAULT gen_random_uuid()",
}
HARMFUL = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON thing"
    " FOR EACH ROW EXECUTE FUNCTION note()",
    "a disabled trigger": "CREATE TRIGGER t AFTER INSERT ON thing FOR EACH ROW"
    " EXECUTE FUNCTION note(); ALTER TABLE thing DISABLE TRIGGER t",
    "a foreign key": "ALTER TABLE thing ADD FOREIGN KEY (id) REFERENCES parent NOT VALID",
    "a table that cascades": "ALTER TABLE thing ADD PRIMARY KEY (id);"
    "CREATE TABLE child (id integer REFERENCES thing ON DELETE CASCADE ON UPDATE CASCADE);"
    "INSERT INTO child SELECT id FROM thing",
    "a rule": "CREATE RULE r AS ON DELETE TO thing DO ALSO INSERT INTO trail (word) VALUES ('r')",
    "row security": "ALTER TABLE thing ENABLE ROW LEVEL SECURITY",
    "a child": "CREATE TABLE child () INHERITS (thing); INSERT INTO child SELECT * FROM thing",
    "a parent": "CREATE TABLE base (id integer); ALTER TABLE thing INHERIT base",
    "a writing default": "ALTER TABLE thing ALTER word SET DEFAULT said('d')",
    "a query in a default": "ALTER TABLE thing ALTER word SET DEFAULT"
    " query_to_xml('SELECT said(''q'')', true, true, '')::text",
    "a writing check": "ALTER TABLE thing ADD CHECK (sneaky(id) > 0)",
    "a domain": "ALTER TABLE thing ADD more checked",
    "a writing index": "CREATE INDEX ON thing (sneaky(id))",
    "a writing predicate": "CREATE INDEX ON thing (id) WHERE sneaky(id) > 3",
    "a writing order": "CREATE INDEX ON thing (id sneaky_ops)",
    "an exclusion": "ALTER TABLE thing ADD EXCLUDE (id WITH =) WHERE (sneaky(id) > 10)",
    "generated": "ALTER TABLE thing ADD made integer GENERATED ALWAYS AS (id + 1) STORED",
    "an operator": "ALTER TABLE thing ADD CHECK (id ==== id)",
}
EVERYWHERE = {
    "an operator of the system's types": "CREATE OPERATOR = (LEFTARG = integer, RIGHTARG = text,"
    " FUNCTION = mixed)",
    "an operator that a literal chooses": "CREATE OPERATOR = (LEFTARG = json, RIGHTARG = mood,"
    " FUNCTION = of_mood)",
    "a cast": "CREATE CAST (integer AS point) WITH FUNCTION to_point(integer) AS ASSIGNMENT",
    "an implicit cast": "CREATE CAST (text AS mood) WITH FUNCTION to_mood(text) AS IMPLICIT",
}
STATEMENTS = (
    "INSERT INTO thing (id, word) SELECT i, 'new' FROM generate_series(200, 210) i",
    "INSERT INTO thing (id) VALUES (300), (301)",
    "UPDATE thing SET word = word || 'x' WHERE id < 9",
    "UPDATE thing SET id = id + 1000 WHERE id = 10",
    "DELETE FROM thing WHERE id BETWEEN 3 AND 7",
    "DELETE FROM thing",
)


@pytest.fixture(scope="module")
def url(postgres_server: Server) -> Iterator[str]:
    """A database with things that write when they are called."""
    name = postgres_server.make_database()
    postgres_server.execute(BASE, name)
    yield postgres_server.superuser_url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def session(url: str) -> Iterator[psycopg.Connection]:
    """A connection, and a table `thing` with twenty rows; what is made there goes again."""
    with psycopg.connect(url, autocommit=True) as opened:
        make(opened, "")
        yield opened
        opened.execute("DROP SCHEMA IF EXISTS test, other CASCADE; RESET search_path")


def make(session: psycopg.Connection, script: str) -> None:
    """Make the table `thing` anew, and do something to it."""
    session.execute("""
        DROP SCHEMA IF EXISTS test CASCADE; CREATE SCHEMA test;
        SET search_path = test, public; SET client_min_messages = error;
        CREATE TABLE thing (id integer, word text);
        INSERT INTO thing SELECT i, 'word' FROM generate_series(1, 20) i""")
    if script:
        session.execute(script.encode())


def changed(session: psycopg.Connection, statement: str) -> tuple[int, int]:
    """Return what a statement's tag says, and the rows changed anywhere; take them back."""
    with session.transaction(force_rollback=True):
        before = _written(session)
        tag = session.execute(statement.encode()).rowcount
        return tag, _written(session) - before


def _written(session: psycopg.Connection) -> int:
    row = session.execute("""
        SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_xact_user_tables
        """).fetchone()
    return int(row[0]) if row else 0


@pytest.mark.parametrize("script", HARMLESS.values(), ids=HARMLESS.keys())
def test_harmless(url: str, session: psycopg.Connection, script: str) -> None:
    """What is the system's own leaves a table plain, and its tags exact."""
    make(session, script)
    found = tables.read(url)
    assert found.name(("test", "thing")) == found.name(("", "thing")) == "test.thing"
    for statement in STATEMENTS:
        tag, rows = changed(session, statement)
        assert tag == rows, statement


@pytest.mark.parametrize("script", HARMFUL.values(), ids=HARMFUL.keys())
def test_harmful(url: str, session: psycopg.Connection, script: str) -> None:
    """What may act when a row changes makes a table not plain, and no other table."""
    make(session, script)
    found = tables.read(url)
    assert found.name(("test", "thing")) is None
    assert found.name(("", "thing")) is None
    assert found.name(("public", "trail")) == "trail"


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(chosen=st.lists(st.sampled_from([*HARMLESS.values(), *HARMFUL.values()]), max_size=3))
def test_exact(url: str, session: psycopg.Connection, chosen: list[str]) -> None:
    """Whatever a table has: when it is said to be plain, a tag is all that was done anywhere."""
    make(session, "")
    for script in chosen:
        try:
            session.execute(script.encode())
        except psycopg.Error:
            continue  # twice the same, or not on such a table
    plain = tables.read(url).name(("test", "thing")) is not None
    assert plain or set(chosen) & set(HARMFUL.values())
    if plain:
        for statement in STATEMENTS:
            tag, rows = changed(session, statement)
            assert tag == rows, (chosen, statement)


@pytest.mark.parametrize("script", EVERYWHERE.values(), ids=EVERYWHERE.keys())
def test_everywhere(url: str, session: psycopg.Connection, script: str) -> None:
    """Where somebody's operator or cast may stand for the system's, no table is plain."""
    make(
        session,
        """CREATE TYPE mood AS ENUM ('glad', 'sad');
        CREATE FUNCTION mixed(integer, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE FUNCTION of_mood(json, mood) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE FUNCTION to_mood(text) RETURNS mood LANGUAGE sql AS $$SELECT 'sad'::mood$$;
        CREATE FUNCTION to_point(integer) RETURNS point LANGUAGE sql AS 'SELECT point(1, 2)'""",
    )
    assert tables.read(url).name(("test", "thing")) == "test.thing"
    session.execute(script.encode())
    assert not tables.read(url).tables


def test_operators_of_others_types(url: str, session: psycopg.Connection) -> None:
    """An operator for somebody's own types, as extensions have, changes nothing for others."""
    make(
        session,
        """CREATE TYPE mood AS ENUM ('glad', 'sad');
        CREATE FUNCTION same(mood, mood) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE FUNCTION same(mood, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE OPERATOR = (LEFTARG = mood, RIGHTARG = mood, FUNCTION = same);
        CREATE OPERATOR = (LEFTARG = mood, RIGHTARG = text, FUNCTION = same)""",
    )
    assert tables.read(url).name(("test", "thing")) == "test.thing"


def test_name_alone(url: str, session: psycopg.Connection) -> None:
    """A name without a schema is plain only where no other relation has it."""
    session.execute("CREATE SCHEMA other; CREATE VIEW other.thing AS SELECT 1")
    found = tables.read(url)
    assert found.name(("test", "thing")) == "test.thing"
    assert found.name(("", "thing")) is None
    session.execute("DROP SCHEMA other CASCADE; CREATE TEMP TABLE thing (id integer)")
    assert tables.read(url).name(("", "thing")) is None
    session.execute("DROP TABLE pg_temp.thing")
    assert tables.read(url).name(("", "thing")) == "test.thing"


def test_names(url: str, session: psycopg.Connection) -> None:
    """Every relation is spelled as effects spell it, quoted where it must be."""
    session.execute('CREATE TABLE "Odd one" (id integer); CREATE TABLE public."b.c" (id integer)')
    found = set(tables.names(url).values())
    session.execute('DROP TABLE public."b.c"')
    assert {'test."Odd one"', '"b.c"', "trail", "test.thing"} <= found


def test_unreachable() -> None:
    """A server that does not answer is an error of the store."""
    with pytest.raises(StoreError):
        tables.read("postgresql://nobody@127.0.0.1:9/none")
