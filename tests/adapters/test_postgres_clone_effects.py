"""What a script did to a clone is said exactly, also where PostgreSQL makes that hard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from handrail.plans.effect import Effect
from support.postgres_server import Scene, Server, has_decoding, nets, said
from support.store_contract import MARKER, quiet

pytestmark = pytest.mark.postgres

BASE = """
CREATE TABLE city (id integer PRIMARY KEY, name text);
INSERT INTO city SELECT i, 'city ' || i FROM generate_series(1, 100) i;
CREATE TABLE street (id integer PRIMARY KEY, city integer REFERENCES city ON DELETE RESTRICT);
INSERT INTO street SELECT i, i % 100 + 1 FROM generate_series(1, 400) i;
CREATE TABLE loose (word text);
INSERT INTO loose SELECT 'same' FROM generate_series(1, 30);
"""
exact = pytest.mark.skipif(
    not has_decoding(), reason="no test_decoding here: counters hold what was rolled back"
)


@pytest.fixture(scope="module")
def clone(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The clone of an empty database, whose script role is a superuser."""
    folder = tmp_path_factory.mktemp("clone")
    database = postgres_server.make_database()
    store = postgres_server.store(database, superuser=True)
    (folder / "backup").mkdir()
    backup = store.backup("b1", folder / "backup", quiet)
    made = store.clone(backup, folder / "at", MARKER, quiet)
    yield Scene(made, folder)
    store.discard(folder / "at")
    postgres_server.drop_database(database)


@pytest.fixture
def scene(clone: Scene) -> Iterator[Scene]:
    """The clone with three tables, in a schema that goes again."""
    clone.prepare("CREATE SCHEMA IF NOT EXISTS public;" + BASE)
    yield clone
    clone.prepare("SET client_min_messages = error; DROP SCHEMA public CASCADE;")


def only(effects: tuple[Effect, ...], kind: str) -> dict[tuple[str, str], int | None]:
    """Return rows by verb and name of one kind."""
    return {(verb, name): rows for (verb, k, name), rows in said(effects).items() if k == kind}


def test_deferred_trigger(scene: Scene) -> None:
    """What a deferred trigger does inside COMMIT is counted."""
    scene.prepare("""
        CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN DELETE FROM street WHERE city = NEW.id; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON city DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION late();""")
    found = scene.effects("UPDATE city SET name = 'x' WHERE id <= 5")
    assert said(found) == {("delete", "table", "street"): 20, ("update", "table", "city"): 5}


def test_cursor_with_hold(scene: Scene) -> None:
    """A WITH HOLD cursor that runs to its end inside COMMIT is counted to its end."""
    scene.prepare("""
        CREATE FUNCTION eat(i integer) RETURNS integer LANGUAGE plpgsql AS
            $$ BEGIN DELETE FROM street WHERE id = i; RETURN i; END $$;""")
    found = scene.effects("""
        BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT eat(i) FROM generate_series(1, 400) i;
        FETCH 1 FROM c; COMMIT;""")
    assert said(found) == {("delete", "table", "street"): 400}
    assert nets(found) == {("delete", "table", "street"): 400}


def test_asynchronous_commit(scene: Scene) -> None:
    """A commit that was not flushed yet when the script ended is counted."""
    found = scene.effects("SET synchronous_commit = off; DELETE FROM loose;")
    assert said(found) == {("delete", "table", "loose"): 30}


@exact
def test_rolled_back(scene: Scene) -> None:
    """What was rolled back, by ROLLBACK, savepoint or exception, is not counted."""
    found = scene.effects("""
        BEGIN; DELETE FROM street; ROLLBACK;
        BEGIN; SAVEPOINT s; DELETE FROM street; ROLLBACK TO s; DELETE FROM street WHERE id = 1;
        COMMIT;
        DO $$ BEGIN DELETE FROM street; RAISE 'no'; EXCEPTION WHEN OTHERS THEN NULL; END $$;""")
    assert said(found) == {("delete", "table", "street"): 1}


def test_keyless_table(scene: Scene) -> None:
    """A table without a key has its rows counted, equal ones as well."""
    found = scene.effects("""
        DELETE FROM loose WHERE ctid IN (SELECT ctid FROM loose LIMIT 4);
        UPDATE loose SET word = 'other' WHERE ctid IN (SELECT ctid FROM loose LIMIT 3);
        INSERT INTO loose VALUES ('new'), ('same');""")
    expected = {("delete", "table", "loose"): 4, ("update", "table", "loose"): 3}
    assert said(found) == expected | {("insert", "table", "loose"): 2}
    assert nets(found)[("update", "table", "loose")] == 3


def test_gross_and_net(scene: Scene) -> None:
    """Rows are events and net is what differs: a change and its way back is many and none."""
    found = scene.effects("""
        UPDATE city SET name = name || '!'; UPDATE city SET name = rtrim(name, '!');
        UPDATE street SET id = id + 1000; DELETE FROM loose; INSERT INTO loose
            SELECT 'same' FROM generate_series(1, 30);""")
    assert said(found) == {
        ("update", "table", "city"): 200,
        ("update", "table", "street"): 400,
        ("delete", "table", "loose"): 30,
        ("insert", "table", "loose"): 30,
    }
    assert nets(found) == {
        ("update", "table", "city"): 0,
        ("update", "table", "street"): 400,
        ("delete", "table", "loose"): 0,
        ("insert", "table", "loose"): 0,
    }


def test_truncate_cascade(scene: Scene) -> None:
    """TRUNCATE CASCADE takes the rows of tables it does not name, ON DELETE RESTRICT or not."""
    found = scene.effects("SET client_min_messages = error; TRUNCATE city CASCADE;")
    assert said(found) == {("truncate", "table", "street"): 400, ("truncate", "table", "city"): 100}
    assert nets(found)[("truncate", "table", "street")] == 400


def test_truncate_and_fill(scene: Scene) -> None:
    """A table that was truncated and filled again is said to have lost what it had."""
    found = scene.effects(
        "TRUNCATE loose; INSERT INTO loose SELECT 'n' FROM generate_series(1, 30)"
    )
    assert only(found, "table") == {("truncate", "loose"): 30, ("insert", "loose"): 30}


def test_replica_role(scene: Scene) -> None:
    """Triggers and event triggers that are silenced hide nothing."""
    found = scene.effects(
        "DELETE FROM city WHERE id = 1; DROP TABLE street",
        PGOPTIONS="-c session_replication_role=replica",
    )
    assert only(found, "table") == {("drop", "street"): 400, ("delete", "city"): 1}


def test_column_rewritten(scene: Scene) -> None:
    """A column whose values were made anew is a rewrite of all rows."""
    found = scene.effects("ALTER TABLE city ALTER name TYPE integer USING length(name)")
    assert said(found)[("rewrite", "table", "city")] == 100
    assert nets(found)[("rewrite", "table", "city")] == 100
    column = next(e for e in found if e.kind == "column")
    assert (column.verb, column.detail) == ("alter", "now integer, was text")


def test_column_dropped(scene: Scene) -> None:
    """A dropped column takes a value from every row."""
    found = scene.effects("ALTER TABLE city DROP COLUMN name")
    assert said(found) == {("drop", "column", "city.name"): 100}


def test_written_anew(scene: Scene) -> None:
    """VACUUM FULL and CLUSTER lose nothing, and are not said to."""
    found = scene.effects("VACUUM FULL city; CLUSTER street USING street_pkey;")
    assert not [effect for effect in found if effect.is_destructive]
    assert ("alter", "table", "city") in said(found)


def test_swapped(scene: Scene) -> None:
    """A table that was copied and swapped is replaced, with the rows that were in it."""
    found = scene.effects("""
        CREATE TABLE fresh AS SELECT * FROM loose LIMIT 7;
        DROP TABLE loose; ALTER TABLE fresh RENAME TO loose;""")
    assert only(found, "table")[("replace", "loose")] == 30
    assert ("drop", "loose") not in only(found, "table")


def test_renamed(scene: Scene) -> None:
    """A renamed table is followed: its rows are one table's, and its columns stay silent."""
    found = scene.effects("""
        DELETE FROM street WHERE id = 1; ALTER TABLE street RENAME TO road;
        DELETE FROM road WHERE id = 2; CREATE TABLE street (other text);""")
    rows = only(found, "table")
    assert rows == {("delete", "street"): 2, ("rename", "street"): None, ("create", "street"): None}
    assert not only(found, "column")


def test_dropped_and_made_again(scene: Scene) -> None:
    """A table dropped and made again by the same statement is replaced, not kept."""
    found = scene.effects("DROP TABLE loose; CREATE TABLE loose (word text)")
    assert said(found) == {("replace", "table", "loose"): 30}


def test_unlogged(scene: Scene) -> None:
    """A table that the log leaves out is counted all the same."""
    scene.prepare("CREATE UNLOGGED TABLE notes AS SELECT i FROM generate_series(1, 50) i")
    found = scene.effects("DELETE FROM notes WHERE i <= 20")
    assert said(found) == {("delete", "table", "notes"): 20}
    assert said(scene.effects("TRUNCATE notes")) == {("truncate", "table", "notes"): 30}


def test_partitions(scene: Scene) -> None:
    """A row that moves between partitions, and a partition that is detached, are said."""
    scene.prepare("""
        CREATE TABLE log (i integer) PARTITION BY RANGE (i);
        CREATE TABLE log_low PARTITION OF log FOR VALUES FROM (0) TO (100);
        CREATE TABLE log_high PARTITION OF log FOR VALUES FROM (100) TO (200);
        INSERT INTO log SELECT generate_series(1, 60);""")
    found = scene.effects("UPDATE log SET i = i + 100 WHERE i <= 10")
    assert said(found) == {("delete", "table", "log_low"): 10, ("insert", "table", "log_high"): 10}
    found = scene.effects("ALTER TABLE log DETACH PARTITION log_low")
    assert only(found, "partition") == {("drop", "log_low"): 50}


def test_large_objects(scene: Scene) -> None:
    """Large objects that were made and removed are counted, though no table says so."""
    scene.prepare("SELECT lo_from_bytea(9000 + i, 'x') FROM generate_series(1, 5) i")
    found = scene.effects("SELECT lo_unlink(9000 + i) FROM generate_series(1, 5) i")
    assert only(found, "large object") == {("drop", "large objects"): 5}


def test_enum_label(scene: Scene) -> None:
    """A renamed value of an enum changes its type, without one row written."""
    scene.prepare("CREATE TYPE colour AS ENUM ('red', 'blue')")
    found = scene.effects("ALTER TYPE colour RENAME VALUE 'red' TO 'rouge'")
    assert said(found) == {("alter", "type", "colour"): None}


def test_function_dropped_in_do(scene: Scene) -> None:
    """A function dropped inside DO is seen, though no user's table is locked for it."""
    scene.prepare("CREATE FUNCTION one() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    found = scene.effects("DO $$ BEGIN EXECUTE 'DROP FUNCTION one()'; END $$")
    assert said(found) == {("drop", "function", "one()"): None}


def test_refreshed(scene: Scene) -> None:
    """A refreshed materialized view is said to be another, and to have lost nothing."""
    scene.prepare("CREATE MATERIALIZED VIEW many AS SELECT * FROM loose")
    found = scene.effects("REFRESH MATERIALIZED VIEW many")
    assert said(found) == {("alter", "materialized view", "many"): None}


def test_what_survives_rollback(scene: Scene) -> None:
    """A sequence that was set, and the ruin of a failed index, survive ROLLBACK and are said."""
    scene.prepare("CREATE SEQUENCE number; SELECT setval('number', 500);")
    found = scene.effects("BEGIN; SELECT setval('number', 7); ROLLBACK; SELECT 1;")
    assert [(e.verb, e.name, e.detail) for e in found] == [
        ("alter", "number", "set back from 500 to 7")
    ]
    failing = "CREATE UNIQUE INDEX CONCURRENTLY twice ON loose (word)"
    found = scene.effects(failing, ends=False)
    assert [(e.verb, e.name, e.detail) for e in found] == [("create", "twice", "not valid")]


def test_sequence_advanced(scene: Scene) -> None:
    """A sequence that gave out numbers has advanced."""
    scene.prepare("CREATE SEQUENCE number")
    found = scene.effects("SELECT nextval('number') FROM generate_series(1, 3)")
    assert [(e.verb, e.kind, e.detail) for e in found] == [("advance", "sequence", "from 1 to 3")]


def test_washed_settings(scene: Scene) -> None:
    """RESET ALL, DISCARD ALL and counters turned off hide no row."""
    found = scene.effects("""
        SET track_counts = off; RESET ALL; DISCARD ALL; SET track_counts = off;
        DELETE FROM loose; UPDATE city SET name = 'x' WHERE id < 4;""")
    rows = [(e.verb in {"delete", "unknown"}, e.name, e.rows) for e in found]
    assert (True, "loose", 30) in rows
    assert ("city", 3) in [(e.name, e.rows) for e in found]


def test_stamp_of_minor_release(scene: Scene) -> None:
    """The stamp that a minor release leaves in column options is no change of a column."""
    found = scene.effects("""
        SET allow_system_table_mods = on;
        UPDATE pg_attribute SET attoptions = '{pg_attver=3}' WHERE attrelid = 'city'::regclass;""")
    assert found == ()


@exact
def test_slot_dropped(scene: Scene) -> None:
    """A script that removes the record of its events is said to have done the unknown."""
    found = scene.effects("""
        DELETE FROM loose; SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots;""")
    assert found[0].verb == "unknown"
    assert [e for e in found if e.name == "loose" and e.rows == 30]


def test_roles_and_settings(scene: Scene) -> None:
    """Roles, memberships, passwords and settings are effects; their values are not shown."""
    found = scene.effects("""
        CREATE ROLE bert; GRANT pg_read_all_data TO bert; ALTER ROLE bert SET work_mem = '77MB';
        ALTER SYSTEM SET deadlock_timeout = '77s';""")
    changes = said(found)
    assert ("create", "role", "bert") in changes
    assert ("create", "setting", "role bert: work_mem") in changes
    assert ("create", "setting", "system: deadlock_timeout") in changes
    assert "77" not in str(found)
    found = scene.effects("""
        ALTER ROLE bert PASSWORD 'geheim'; REVOKE pg_read_all_data FROM bert;
        ALTER SYSTEM RESET deadlock_timeout;""")
    assert [(e.verb, e.kind) for e in found] == [("drop", "setting"), ("alter", "role")]
    assert "geheim" not in str(found)
    found = scene.effects("DROP ROLE bert")
    assert ("drop", "role", "bert") in said(found)


def test_grants(scene: Scene) -> None:
    """A right taken and a right given are told apart."""
    scene.prepare("GRANT SELECT ON city TO PUBLIC")
    found = scene.effects("REVOKE SELECT ON city FROM PUBLIC; GRANT DELETE ON loose TO PUBLIC")
    assert [(e.verb, e.name, e.detail) for e in found] == [
        ("revoke", "city", "PUBLIC: SELECT"),
        ("grant", "loose", "PUBLIC: DELETE"),
    ]


def test_hostile_names(scene: Scene) -> None:
    """Names with quotes, newlines, colons and percent signs are spelled and counted right."""
    scene.prepare("""
        CREATE SCHEMA "a.b";
        CREATE TABLE "a.b"."x"": INSERT: y, %s" ("k""%s" int PRIMARY KEY, "x" int);
        INSERT INTO "a.b"."x"": INSERT: y, %s" SELECT i, i FROM generate_series(1, 9) i;
        CREATE TABLE "line
end" (i int); INSERT INTO "line
end" VALUES (1);""")
    found = scene.effects("""
        DELETE FROM "a.b"."x"": INSERT: y, %s" WHERE x < 4; TRUNCATE "line
end", loose;""")
    assert said(found) == {
        ("delete", "table", '"a.b"."x"": INSERT: y, %s"'): 3,
        ("truncate", "table", '"line\nend"'): 1,
        ("truncate", "table", "loose"): 30,
    }
    assert nets(found)[("delete", "table", '"a.b"."x"": INSERT: y, %s"')] == 3
    scene.prepare('SET client_min_messages = error; DROP SCHEMA "a.b" CASCADE')


def test_search_path_trap(scene: Scene) -> None:
    """An operator and a function with a system's name, made by somebody, do not run as us."""
    scene.prepare("""
        CREATE TABLE trapped (i int);
        CREATE FUNCTION count() RETURNS bigint LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO trapped VALUES (1); RETURN 1; END $$;
        CREATE FUNCTION trap(name, name) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO trapped VALUES (1); RETURN true; END $$;
        CREATE OPERATOR = (LEFTARG = name, RIGHTARG = name, FUNCTION = trap);
        DO $$ BEGIN EXECUTE format('ALTER ROLE %I SET search_path = public, pg_catalog',
            current_user); END $$;""")
    scene.store.measure()
    scene.store.fingerprint()
    assert scene.effects("DELETE FROM loose")
    assert scene.store.ask("SELECT pg_catalog.count(*) FROM public.trapped", 10.0) == "0"
    scene.prepare("""
        DO $$ BEGIN EXECUTE pg_catalog.format('ALTER ROLE %I RESET search_path',
            current_user); END $$;""")


def test_other_database(scene: Scene) -> None:
    """What a script does in another database of the clone's server is said with its name."""
    found = scene.effects("""
        \\connect template1
        CREATE TABLE surprise AS SELECT generate_series(1, 3);
        DROP DATABASE postgres;""")
    changes = said(found)
    assert ("create", "table", "template1: surprise") in changes
    assert ("drop", "database", "postgres") in changes
    scene.prepare("\\connect template1\nDROP TABLE surprise; CREATE DATABASE postgres;")


def test_database_dropped(scene: Scene) -> None:
    """A script that drops the database has dropped every table in it, with all rows."""
    name = scene.store.connection().parts["database"]
    found = scene.effects(f"\\connect postgres\nDROP DATABASE {name}")
    changes = said(found)
    assert ("drop", "database", name) in changes
    assert changes[("drop", "table", "street")] == 400
    scene.prepare_elsewhere(f"CREATE DATABASE {name}")


def test_script_cannot_see_the_copy(scene: Scene) -> None:
    """The clone lists no database and no table that the original does not have."""
    before = scene.store.ask("SELECT string_agg(datname, ' ' ORDER BY 1) FROM pg_database", 10.0)
    scene.effects("SELECT 1")
    after = scene.store.ask("SELECT string_agg(datname, ' ' ORDER BY 1) FROM pg_database", 10.0)
    assert after == before


def test_commits_as_it_goes(scene: Scene) -> None:
    """A procedure that commits in between and then fails has done what it committed."""
    scene.prepare("""
        CREATE PROCEDURE purge() LANGUAGE plpgsql AS $$ BEGIN
            DELETE FROM loose; COMMIT; UPDATE city SET name = 'x' WHERE id < 6; COMMIT;
            DELETE FROM street; RAISE 'too late'; END $$;""")
    found = scene.effects("CALL purge()", ends=False)
    assert only(found, "table") == {("delete", "loose"): 30, ("update", "city"): 5}


def test_said_and_done(scene: Scene) -> None:
    """What a script's end says is not what it did: all well and nothing, failed and everything."""
    failing = """\\set ON_ERROR_STOP off
        BEGIN; DELETE FROM street; SELECT 1 / 0; DELETE FROM loose; COMMIT;
        DROP TABLE nothing; TRUNCATE city;
        \\echo Database reset complete."""
    assert scene.effects(failing, ends=True) == ()
    found = scene.effects("DROP TABLE street; DELETE FROM loose; SELECT 1 / 0", ends=False)
    assert said(found) == {("drop", "table", "street"): 400, ("delete", "table", "loose"): 30}


@exact
def test_keys_renumbered(scene: Scene) -> None:
    """Keys that are given anew are as many events as rows, though as many rows are there."""
    scene.prepare("CREATE TABLE seat (id integer PRIMARY KEY); INSERT INTO seat VALUES (1), (2)")
    found = scene.effects("""
        UPDATE seat SET id = id + 10; UPDATE seat SET id = id - 10;
        UPDATE street SET id = id + 1000;""")
    assert only(found, "table") == {("update", "seat"): 4, ("update", "street"): 400}
    assert nets(found)[("update", "table", "seat")] == 0
    assert nets(found)[("update", "table", "street")] == 400


@exact
def test_truncated_and_taken_back(scene: Scene) -> None:
    """A TRUNCATE and a DROP that were taken back to a savepoint lost nothing."""
    found = scene.effects("""
        BEGIN; SAVEPOINT a; TRUNCATE loose; DROP TABLE street; ROLLBACK TO a;
        DELETE FROM loose WHERE ctid = '(0,1)'; COMMIT;""")
    assert said(found) == {("delete", "table", "loose"): 1}


def test_rows_of_a_drop(scene: Scene) -> None:
    """Rows that a script put into a table before it dropped it were never anybody's."""
    found = scene.effects("""
        INSERT INTO loose SELECT 'more' FROM generate_series(1, 500); DROP TABLE loose;
        CREATE TABLE made (id integer); INSERT INTO made VALUES (1); TRUNCATE made;""")
    assert said(found)[("drop", "table", "loose")] == 30
    assert ("truncate", "table", "made") not in said(found)


@exact
def test_upserts(scene: Scene) -> None:
    """MERGE, ON CONFLICT and COPY FREEZE are counted by what they did."""
    scene.prepare(
        "CREATE TABLE seat (id integer PRIMARY KEY, name text);"
        "INSERT INTO seat SELECT generate_series(1, 10)"
    )
    found = scene.effects("""
        MERGE INTO seat USING (VALUES (1), (2), (500)) v (id) ON seat.id = v.id
            WHEN MATCHED AND v.id = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET name = 'm'
            WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'new');
        INSERT INTO seat VALUES (3, 'x'), (501, 'y') ON CONFLICT (id) DO UPDATE SET name = 'c';
        BEGIN;
        TRUNCATE loose;
        COPY loose FROM stdin WITH (FREEZE);
a
b
\\.
        COMMIT;""")
    assert said(found) == {
        ("truncate", "table", "loose"): 30,
        ("delete", "table", "seat"): 1,
        ("update", "table", "seat"): 2,
        ("insert", "table", "seat"): 2,
        ("insert", "table", "loose"): 2,
    }


def test_slots_and_event_triggers(scene: Scene) -> None:
    """A slot that was made, and an event trigger that was silenced or dropped, are said."""
    scene.prepare("""
        CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
        CREATE EVENT TRIGGER watching ON sql_drop EXECUTE FUNCTION watch();
        CREATE EVENT TRIGGER seeing ON ddl_command_end EXECUTE FUNCTION watch();""")
    found = scene.effects("""
        DROP EVENT TRIGGER watching; ALTER EVENT TRIGGER seeing DISABLE;
        SELECT pg_create_physical_replication_slot('theirs');""")
    assert said(found) == {
        ("drop", "event trigger", "watching"): None,
        ("alter", "event trigger", "seeing"): None,
        ("create", "replication slot", "theirs"): None,
    }
    dropped = scene.effects("SELECT pg_drop_replication_slot('theirs')")
    assert said(dropped) == {("drop", "replication slot", "theirs"): None}


def test_another_way_in(scene: Scene) -> None:
    """What a script does by another connection, or by a link to its own server, is the same."""
    known = "SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'"
    if scene.store.ask(known, 10.0) == "0":
        pytest.skip("no extension dblink here")
    scene.prepare("CREATE EXTENSION dblink")
    given = scene.store.connection().parts
    link = " ".join(f"{k}={given[k]}" for k in ("host", "port", "user", "password"))
    found = scene.effects(f"""
        SELECT dblink_exec('{link} dbname={given["database"]}', 'DELETE FROM loose');
        \\connect
        DELETE FROM street WHERE id < 4;""")
    assert only(found, "table") == {("delete", "loose"): 30, ("delete", "street"): 3}


def test_schema_and_owner(scene: Scene) -> None:
    """A schema dropped with all in it, and a table given to another owner, are said."""
    scene.prepare("""
        CREATE ROLE carla; CREATE SCHEMA deep;
        CREATE TABLE deep.loose AS SELECT generate_series(1, 7) AS id;""")
    found = scene.effects("ALTER TABLE city OWNER TO carla; DROP SCHEMA deep CASCADE")
    assert said(found) == {
        ("drop", "table", "deep.loose"): 7,
        ("drop", "schema", "deep"): None,
        ("alter", "table", "city"): None,
    }
    scene.prepare("DROP OWNED BY carla CASCADE; DROP ROLE carla")


def test_same_name_elsewhere(scene: Scene) -> None:
    """A table of the same name in another schema is another table."""
    scene.prepare("CREATE SCHEMA deep; CREATE TABLE deep.loose AS SELECT generate_series(1, 7)")
    found = scene.effects(
        "SET search_path = deep, public; DELETE FROM loose; TRUNCATE city CASCADE"
    )
    assert only(found, "table") == {
        ("delete", "deep.loose"): 7,
        ("truncate", "city"): 100,
        ("truncate", "street"): 400,
    }
    scene.prepare("SET client_min_messages = error; DROP SCHEMA deep CASCADE")


def test_prepared_transaction(scene: Scene) -> None:
    """What was prepared and not committed is said by its name; committed, by what it did."""
    found = scene.effects("BEGIN; DELETE FROM loose; PREPARE TRANSACTION 'later'")
    assert said(found) == {("create", "prepared transaction", "later"): None}
    found = scene.effects("COMMIT PREPARED 'later'")
    assert said(found) == {
        ("drop", "prepared transaction", "later"): None,
        ("delete", "table", "loose"): 30,
    }
