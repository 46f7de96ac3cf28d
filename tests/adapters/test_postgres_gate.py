"""What a run did besides rows is read inside its open transaction, in the rehearsal's words."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psycopg
import pytest

from handrail.adapters.postgres import PostgresStore
from handrail.adapters.postgres.gate import Looker, looker
from handrail.plans.budget import COUNTED
from handrail.plans.effect import Effect
from handrail.plans.model import Allowance, Budget
from handrail.wire.postgres.roles import limited
from support.postgres_server import RESOURCE, Scene, Server, has_decoding, said
from support.store_contract import MARKER, quiet

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(not has_decoding(), reason="no test_decoding here to compare with"),
]

BASE = """
CREATE TABLE city (id integer PRIMARY KEY, name text NOT NULL);
INSERT INTO city SELECT i, 'city ' || i FROM generate_series(1, 100) i;
CREATE TABLE street (id integer PRIMARY KEY, city integer REFERENCES city ON DELETE RESTRICT);
INSERT INTO street SELECT i, i % 100 + 1 FROM generate_series(1, 400) i;
CREATE TABLE loose (word text DEFAULT 'new', amount integer DEFAULT 1);
INSERT INTO loose SELECT 'same' FROM generate_series(1, 30);
CREATE UNLOGGED TABLE scratch (id integer); INSERT INTO scratch VALUES (1), (2);
CREATE TABLE log (day integer, word text) PARTITION BY LIST (day);
CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1);
CREATE TABLE log_2 PARTITION OF log FOR VALUES IN (2);
INSERT INTO log SELECT 1 + i % 2, 'x' FROM generate_series(1, 10) i;
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE people (id serial PRIMARY KEY, mood mood);
INSERT INTO people (mood) SELECT 'glad' FROM generate_series(1, 5);
CREATE FUNCTION twice(i integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * i';
CREATE TABLE place (id integer, name text); INSERT INTO place VALUES (1, 'x');
CREATE VIEW cities AS SELECT name FROM place;
CREATE MATERIALIZED VIEW summary AS SELECT count(*) AS n FROM place;
SELECT lo_from_bytea(4711, 'one'), lo_from_bytea(4712, 'two');
"""
SCRIPTS = {
    "drop table": "DROP TABLE street",
    "drop cascade": "DROP TABLE city CASCADE",
    "rename and an empty twin": "ALTER TABLE loose RENAME TO old; CREATE TABLE loose (word text)",
    "copy and swap": "CREATE TABLE fresh AS SELECT * FROM loose LIMIT 3; DROP TABLE loose;"
    "ALTER TABLE fresh RENAME TO loose",
    "alter type": "ALTER TABLE city ALTER name TYPE varchar(3) USING left(name, 3)",
    "rewrite and truncate": "ALTER TABLE loose ALTER amount TYPE bigint; TRUNCATE loose;"
    "INSERT INTO loose SELECT 'x' FROM generate_series(1, 4)",
    "drop column": "ALTER TABLE city DROP COLUMN name",
    "add column": "ALTER TABLE loose ADD made timestamptz DEFAULT clock_timestamp()",
    "truncate": "TRUNCATE loose",
    "truncate and fill": "TRUNCATE loose; INSERT INTO loose SELECT 'x' FROM generate_series(1, 50)",
    "truncate by a function": "DO $$ BEGIN TRUNCATE loose; INSERT INTO loose VALUES ('x'); END $$",
    "truncate cascade": "TRUNCATE city CASCADE",
    "truncate unlogged": "TRUNCATE scratch",
    "truncate restart": "TRUNCATE people RESTART IDENTITY",
    "cluster": "CLUSTER city USING city_pkey",
    "delete and cluster": "DELETE FROM street; DELETE FROM city WHERE id > 50;"
    "INSERT INTO city VALUES (0, 'x'); CLUSTER city USING city_pkey",
    "set logged": "ALTER TABLE scratch SET LOGGED",
    "drop function in DO": "DO $$ BEGIN DROP FUNCTION twice(integer); END $$",
    "enum rename": "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
    "grants": "GRANT SELECT ON city TO PUBLIC; REVOKE INSERT ON loose FROM CURRENT_USER",
    "roles": "CREATE ROLE passing; ALTER ROLE visitor PASSWORD 'other' NOINHERIT;"
    "GRANT visitor TO passing; ALTER ROLE visitor SET search_path = elsewhere",
    "password alone": "ALTER ROLE visitor PASSWORD 'another'",
    "detach": "ALTER TABLE log DETACH PARTITION log_2",
    "refresh": "REFRESH MATERIALIZED VIEW summary",
    "large objects": "SELECT lo_unlink(4711), lo_put(4712, 0, 'three'), lo_from_bytea(0, 'four')",
    "comment": "COMMENT ON TABLE city IS 'all of them'; COMMENT ON COLUMN city.name IS 'its name'",
    "owner": "ALTER TABLE city OWNER TO visitor",
    "database": "ALTER DATABASE CURRENT_CATALOG SET work_mem = '8MB'",
    "schema": "CREATE SCHEMA more; CREATE TABLE more.t (id integer);"
    "ALTER TABLE loose SET SCHEMA more",
    "another role's name": "SET ROLE visitor; CREATE TEMP TABLE mine (id integer); RESET ROLE;"
    "DROP VIEW cities",
    "view": "CREATE OR REPLACE VIEW cities AS SELECT name FROM place WHERE id > 3",
    "trigger": "ALTER TABLE city DISABLE TRIGGER ALL; CREATE INDEX by_name ON city (name)",
    "policy": "ALTER TABLE loose ENABLE ROW LEVEL SECURITY;"
    "CREATE POLICY p ON loose USING (word = 'same')",
    "sequence back": "SELECT setval('people_id_seq', 2)",
    "made and removed": "CREATE TABLE passing (id integer); DROP TABLE passing",
    "rows alone": "DELETE FROM street WHERE id < 10; UPDATE city SET name = 'x'",
    "extensions' objects": "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);"
    "CREATE CAST (mood AS integer) WITH INOUT",
}


@pytest.fixture(scope="module")
def clone(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The clone of an empty database, whose script role is a superuser."""
    folder = tmp_path_factory.mktemp("clone")
    database = postgres_server.make_database()
    store = postgres_server.store(database, superuser=True)
    (folder / "backup").mkdir()
    backup = store.backup("b1", folder / "backup", quiet)
    made = store.clone(backup, folder / "at", MARKER, quiet)
    scene = Scene(made, folder)
    scene.prepare("CREATE ROLE visitor LOGIN PASSWORD 'one'")
    yield scene
    store.discard(folder / "at")
    postgres_server.drop_database(database)


@pytest.fixture
def scene(clone: Scene) -> Iterator[Scene]:
    """The clone with tables of many kinds, which go again."""
    clone.prepare("CREATE SCHEMA IF NOT EXISTS public;" + BASE)
    yield clone
    clone.prepare(
        """
        SET client_min_messages = error; DROP SCHEMA public CASCADE;
        DROP SCHEMA IF EXISTS more CASCADE; DROP ROLE IF EXISTS passing;
        SELECT lo_unlink(oid) FROM pg_largeobject_metadata;
        ALTER ROLE visitor INHERIT; ALTER ROLE visitor RESET search_path;
        ALTER DATABASE CURRENT_CATALOG RESET work_mem;""".replace("CURRENT_CATALOG", _name(clone))
    )


def _name(scene: Scene) -> str:
    return scene.store.connection().parts["database"]


class Run:
    """A run on the clone that is held at each COMMIT, and what looks into it."""

    def __init__(self, scene: Scene, folder: Path, *, outside: bool = False) -> None:
        self.url = scene.store.connection().parts["url"]
        self.look: Looker = looker(RESOURCE, _observed(self.url, folder), self.url * outside)

    def commit(self, session: psycopg.Connection, script: str) -> tuple[Effect, ...]:
        """Run a script in a transaction, look into it, and let it take effect."""
        session.execute(script.encode())
        session.execute("SAVEPOINT look")
        found = self.look.look(session)
        session.execute("ROLLBACK TO look")
        session.commit()
        return found


_numbers = itertools.count()


def _observed(url: str, folder: Path) -> Path:
    """Observe as on a server that others use: rows are counted, nothing is recorded."""
    before = folder / f"shared-{next(_numbers)}"
    before.mkdir()
    PostgresStore(RESOURCE, url).observe(before)
    return before


@pytest.fixture
def session(scene: Scene) -> Iterator[psycopg.Connection]:
    """A connection of the script's, in a transaction."""
    url = scene.store.connection().parts["url"]
    with psycopg.connect(url, prepare_threshold=None) as opened:
        yield opened


def shapes(effects: Iterable[Effect]) -> dict[tuple[str, str, str], int | None]:
    """Return what is not rows of tables, nor a sequence going on."""
    kinds = {"table", "materialized view"}
    rows = {(verb, kind) for verb in COUNTED for kind in kinds}
    kept = [e for e in effects if (e.verb, e.kind) not in rows and e.verb != "advance"]
    return said(kept)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_equal(scene: Scene, session: psycopg.Connection, tmp_path: Path, script: str) -> None:
    """Read before COMMIT, inside: what the rehearsal says that was measured after it, outside."""
    run = Run(scene, tmp_path)
    exact = tmp_path / "exact"
    exact.mkdir()
    scene.store.observe(exact)
    inside = run.commit(session, script.replace("CURRENT_CATALOG", _name(scene)))
    session.close()
    after = scene.store.effects(exact)
    assert shapes(inside) == shapes(after)
    is_nothing = script in {SCRIPTS["made and removed"], SCRIPTS["rows alone"]}
    assert bool(shapes(after)) is not is_nothing


def test_several_transactions(scene: Scene, session: psycopg.Connection, tmp_path: Path) -> None:
    """A look tells of the whole run; what an earlier transaction did stays what it was."""
    run = Run(scene, tmp_path, outside=True)
    run.commit(session, "TRUNCATE loose; COMMENT ON TABLE city IS 'one'")
    session.execute("INSERT INTO loose SELECT 'x' FROM generate_series(1, 3000)")
    session.commit()
    run.commit(session, "CREATE TABLE passing (id integer)")
    found = run.commit(session, "DROP TABLE passing; COMMENT ON TABLE city IS 'two'")
    assert said(found) == {
        ("truncate", "table", "loose"): 30,
        ("create", "comment", "comments"): 1,
        ("alter", "comment", "comments"): 1,
    }


def test_others(scene: Scene, session: psycopg.Connection, tmp_path: Path) -> None:
    """What others commit meanwhile is not the run's, unless the run touched it as well."""
    run = Run(scene, tmp_path, outside=True)
    scene.prepare("""
        TRUNCATE loose, scratch; ALTER TABLE people ADD COLUMN more text; DROP TABLE street;
        CREATE TABLE theirs (id integer); CREATE TABLE shared (id integer);
        CREATE TABLE lost (id integer); CREATE TABLE checked (id integer);
        REFRESH MATERIALIZED VIEW summary;""")
    found = run.commit(
        session,
        """TRUNCATE loose; DROP TABLE shared; CREATE TABLE shared (id integer); DROP VIEW cities;
        DROP TABLE lost; ALTER TABLE checked ADD CONSTRAINT less CHECK (id < 3);""",
    )
    assert said(found) == {
        ("truncate", "table", "loose"): 30,
        ("create", "table", "shared"): None,
        ("replace", "table", "shared"): None,
        ("drop", "table", "lost"): None,
        ("create", "constraint", "checked.less"): None,
        ("drop", "view", "cities"): None,
    }


def test_shadowed(scene: Scene, session: psycopg.Connection, tmp_path: Path) -> None:
    """Temporary tables with the system's names, a `search_path` and a role hide nothing."""
    run = Run(scene, tmp_path)
    found = run.commit(
        session,
        """DROP TABLE street; CREATE TEMP TABLE pg_class AS TABLE pg_catalog.pg_class;
        CREATE TEMP TABLE pg_namespace (LIKE pg_catalog.pg_namespace);
        CREATE FUNCTION public.quote_ident(name) RETURNS text LANGUAGE sql AS 'SELECT ''x''';
        ALTER ROLE visitor PASSWORD 'third';
        SET search_path = pg_temp, public, pg_catalog; SET ROLE visitor""",
    )
    assert set(said(found)) == {
        ("drop", "table", "street"),
        ("create", "function", "quote_ident(name)"),
        ("alter", "role", "visitor"),
    }


def test_without_observing(scene: Scene, session: psycopg.Connection, tmp_path: Path) -> None:
    """Where nothing was observed, the state at the beginning is compared with; rows are unknown."""
    look = looker(RESOURCE, tmp_path, scene.store.connection().parts["url"])
    session.execute("TRUNCATE loose; DROP TABLE street")
    assert said(look.look(session)) == {
        ("drop", "table", "street"): None,
        ("truncate", "table", "loose"): None,
    }


def test_not_delayed(scene: Scene, session: psycopg.Connection, tmp_path: Path) -> None:
    """What the run itself has locked delays no look, whoever asks."""
    run = Run(scene, tmp_path, outside=True)
    began = time.monotonic()
    found = run.commit(session, "CREATE OR REPLACE VIEW cities AS SELECT name FROM place LIMIT 1")
    assert time.monotonic() - began < 2
    assert set(said(found)) == {("alter", "view", "cities")}


def test_limited_role(scene: Scene, tmp_path: Path) -> None:
    """A role that was made for the run sees less; it and its rights are no effects of the run."""
    run = Run(scene, tmp_path, outside=True)
    allowed = Budget((Allowance(RESOURCE, "truncate", "table", "loose", 30, 0),), "rehearsal")
    given = scene.store.connection().parts
    with limited(run.url, allowed, RESOURCE, "0123456789abcdef") as (user, password):
        at = f"host={given['host']} port={given['port']} dbname={given['database']}"
        login = f"{at} user={user} password={password}"
        with psycopg.connect(login, prepare_threshold=None) as session:
            assert run.commit(session, "DO $$ BEGIN END $$") == ()
            found = run.commit(session, "TRUNCATE loose")
    assert said(found) == {("truncate", "table", "loose"): 30}


def test_questions_of_a_look(scene: Scene, session: psycopg.Connection, tmp_path: Path) -> None:
    """A look at two hundred tables more asks no more questions: their number is not felt."""
    run = Run(scene, tmp_path, outside=True)
    few = _questions(run, session, tmp_path / "few.trace")
    made = "CREATE TABLE more.t%s (id serial PRIMARY KEY, a text, b integer CHECK (b > 0), c date);"
    scene.prepare("CREATE SCHEMA more;" + "".join(made % i for i in range(200)))
    run = Run(scene, tmp_path, outside=True)
    assert _questions(run, session, tmp_path / "many.trace") == few > 0


def _questions(run: Run, session: psycopg.Connection, traced: Path) -> int:
    """Return how often a look asks the server something from inside a transaction."""
    session.execute("ALTER TABLE loose ADD COLUMN another text")
    with traced.open("w") as file:
        session.pgconn.trace(file.fileno())
        try:
            assert said(run.look.look(session)) == {("create", "column", "loose.another"): None}
        finally:
            session.pgconn.untrace()
    session.rollback()
    lines = traced.read_text().splitlines()
    return sum("\tF\t" in line and line.split("\t")[3] in {"Parse", "Query"} for line in lines)


def test_called_with_a_conninfo(scene: Scene, tmp_path: Path) -> None:
    """Given a way into a session, a look needs no more than that."""
    run = Run(scene, tmp_path)
    scene.prepare("DROP TABLE street")
    assert said(run.look(run.url)) == {("drop", "table", "street"): 400}
