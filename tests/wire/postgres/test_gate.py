"""The gate of the PostgreSQL guard: nothing beyond the budget takes effect, whatever did it."""

from __future__ import annotations

from typing import Literal

import psycopg
import pytest

from handrail.plans.holding import Limits
from support.guarding import Database, budget, hold


def test_a_delete_within_its_budget_takes_effect(database: Database) -> None:
    """What the budget covers is done, and reported as done."""
    with database.guarded(hold(budget(delete_notes=10))) as guarded:
        with guarded.connect() as client:
            assert client.execute("DELETE FROM notes WHERE id <= 10").rowcount == 10
        report = guarded.settle()
    assert report.stop is None
    assert [(e.verb, e.name, e.rows) for e in report.effects] == [("delete", "notes", 10)]
    assert database.counts()["notes"] == 40


def test_one_row_too_many_takes_no_effect(database: Database) -> None:
    """A statement beyond the budget fails on the server, and leaves nothing behind."""
    with database.guarded(hold(budget(delete_notes=9))) as guarded:
        with guarded.connect() as client, pytest.raises(psycopg.Error) as caught:
            client.execute("DELETE FROM notes WHERE id <= 10")
        report = guarded.settle()
    assert caught.value.sqlstate == "HR000"
    assert "delete table notes 10 rows; budget 9" in str(caught.value)
    assert report.stop is not None
    assert report.stop.effect is not None
    assert report.stop.effect.rows == 10
    assert database.counts()["notes"] == 50


def test_rows_of_a_cascade_count(database: Database) -> None:
    """The tag says one row; the thirty that its cascade took are held all the same."""
    with (
        database.guarded(hold(budget(delete_devices=1))) as guarded,
        guarded.connect() as client,
        pytest.raises(psycopg.Error, match="delete table readings 30 rows, not in rehearsal"),
    ):
        client.execute("DELETE FROM devices WHERE id = 1")
    assert database.counts()["readings"] == 600


def test_rows_of_a_function_count(database: Database) -> None:
    """A SELECT that deletes by a function runs again as a write, and is held."""
    database.direct(
        "CREATE FUNCTION tidy() RETURNS int LANGUAGE plpgsql AS"
        " $$ BEGIN DELETE FROM notes; RETURN 1; END $$"
    )
    with (
        database.guarded(hold(budget(delete_notes=49))) as guarded,
        guarded.connect() as client,
        pytest.raises(psycopg.Error, match="delete table notes 50 rows; budget 49"),
    ):
        client.execute("SELECT tidy()")
    with database.guarded(hold(budget(delete_notes=50))) as guarded, guarded.connect() as client:
        assert client.execute("SELECT tidy()").fetchall() == [(1,)]
    assert database.counts()["notes"] == 0


def test_a_transaction_is_held_at_its_commit(database: Database) -> None:
    """Statements that are each inside the budget and together beyond it are refused at COMMIT."""
    with database.guarded(hold(budget(delete_notes=8))) as guarded:
        client = guarded.connect(autocommit=False)
        client.execute("DELETE FROM notes WHERE id <= 5")
        client.execute("DELETE FROM notes WHERE id BETWEEN 6 AND 10")
        with pytest.raises(psycopg.Error, match="delete table notes 10 rows; budget 8"):
            client.commit()
        client.close()
    assert database.counts()["notes"] == 50


def test_a_budget_is_shared_by_all_connections(database: Database) -> None:
    """Two connections cannot each use up the whole budget."""
    with database.guarded(hold(budget(delete_notes=10))) as guarded:
        with guarded.connect() as first, guarded.connect() as second:
            first.execute("DELETE FROM notes WHERE id <= 6")
            with pytest.raises(psycopg.Error, match="delete table notes 12 rows; budget 10"):
                second.execute("DELETE FROM notes WHERE id BETWEEN 7 AND 12")
        report = guarded.settle()
    assert report.stop is not None
    assert report.stop.kept == 1
    assert database.counts()["notes"] == 44


def test_after_a_refusal_the_rest_is_refused(database: Database) -> None:
    """A script that goes on after an error gets nowhere, on any connection."""
    with database.guarded(hold(budget(delete_notes=1, update_devices=20))) as guarded:
        done = guarded.psql("DELETE FROM notes;\nUPDATE devices SET seen = 1;\nSELECT 'went on'\n")
        with guarded.connect() as other, pytest.raises(psycopg.Error, match="stopped before"):
            other.execute("UPDATE devices SET seen = 1")
    assert "went on" not in done.stdout
    assert done.stderr.count("handrail: stopped before it took effect") == 3
    assert database.ask("SELECT sum(seen) FROM devices") == 0


def test_dropping_a_table_counts_its_rows(database: Database) -> None:
    """DROP and TRUNCATE have no row events: the rows that the table had are what counts."""
    with database.guarded(Limits("measure")) as guarded:
        done = guarded.psql("BEGIN; DROP TABLE notes; TRUNCATE devices CASCADE; COMMIT;")
        assert done.stderr.count("\n") == 1, "only the notice that TRUNCATE goes on to readings"
        report = guarded.settle()
    said = {(e.verb, e.name): e.rows for e in report.effects}
    assert said["drop", "notes"] == 50
    assert said["truncate", "devices"] == 20
    assert said["truncate", "readings"] == 600


def test_a_drop_that_was_not_rehearsed_is_held(database: Database) -> None:
    """A table dropped inside a function is seen before COMMIT."""
    database.direct(
        "CREATE FUNCTION reset() RETURNS void LANGUAGE plpgsql AS"
        " $$ BEGIN EXECUTE 'DROP TABLE ' || 'notes'; END $$"
    )
    with (
        database.guarded(hold(budget(delete_devices=20))) as guarded,
        guarded.connect() as client,
        pytest.raises(psycopg.Error, match="drop table notes 50 rows, not in rehearsal"),
    ):
        client.execute("SELECT reset()")
    assert database.counts()["notes"] == 50


def test_deferred_triggers_are_brought_forward(database: Database) -> None:
    """What a constraint trigger deletes at COMMIT is counted before it."""
    database.direct(
        "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN DELETE FROM readings WHERE device = NEW.id; RETURN NEW; END $$;"
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON devices DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION later()"
    )
    with (
        database.guarded(hold(budget(update_devices=2))) as guarded,
        guarded.connect() as client,
        pytest.raises(psycopg.Error, match="delete table readings 60 rows"),
    ):
        client.execute("UPDATE devices SET seen = 2 WHERE id <= 2")
    assert database.counts()["readings"] == 600


def test_an_aborted_attempt_is_not_counted_later(database: Database) -> None:
    """What a transaction rolled back counts neither against it nor against the next one."""
    with database.guarded(hold(budget(delete_notes=10))) as guarded, guarded.connect() as client:
        client.execute("BEGIN")
        client.execute("DELETE FROM notes")
        client.execute("ROLLBACK")
        with pytest.raises(psycopg.errors.DivisionByZero):
            client.execute("DELETE FROM notes WHERE id / (id - 20) > 100")
        client.execute("DELETE FROM notes WHERE id <= 10")
    assert database.counts()["notes"] == 40


def test_reading_only_lets_nothing_be_written(database: Database) -> None:
    """In read-only mode reading works, and every write is refused."""
    with database.guarded(Limits("read-only")) as guarded, guarded.connect() as client:
        assert client.execute("SELECT count(*) FROM notes").fetchone() == (50,)
        with pytest.raises(psycopg.Error):
            client.execute("BEGIN READ WRITE; DELETE FROM notes; COMMIT")
    assert database.counts()["notes"] == 50


def test_large_objects_are_counted_where_reading_may_write_them(database: Database) -> None:
    """Before version 16 a read-only transaction may write them: a function that does is gated."""
    database.direct(
        "CREATE FUNCTION make() RETURNS oid LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN lo_create(0); END $$"
    )
    modes: tuple[Literal["hold", "read-only"], ...] = ("hold", "read-only")
    for script in (
        ["SELECT make()"],
        ["BEGIN", "SELECT make()", "COMMIT"],
        ["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT make()", "COMMIT"],
        ["DECLARE c CURSOR WITH HOLD FOR SELECT make()"],
        ["SELECT 1; SELECT make()"],
    ):
        for mode in modes:
            with database.guarded(Limits(mode, budget())) as guarded, guarded.connect() as client:
                for statement in script[:-1]:
                    client.execute(statement.encode())
                with pytest.raises(psycopg.Error, match=r"handrail|read-only"):
                    client.execute(script[-1].encode())
            assert database.ask("SELECT count(*) FROM pg_largeobject_metadata") == 0, script


def test_a_cursor_that_commit_runs_to_its_end_may_only_read(database: Database) -> None:
    """COMMIT runs a cursor WITH HOLD to its end: one that would delete then fails there."""
    database.direct(
        "CREATE FUNCTION tidy(which int) RETURNS int LANGUAGE plpgsql VOLATILE AS"
        " $$ BEGIN DELETE FROM notes WHERE id = which; RETURN 1; END $$"
    )
    with database.guarded(hold(budget(delete_notes=1))) as guarded, guarded.connect() as client:
        client.execute("BEGIN")
        client.execute("DECLARE c CURSOR WITH HOLD FOR SELECT tidy(id) FROM notes")
        client.execute("FETCH 1 FROM c")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            client.execute("COMMIT")
        client.execute("BEGIN")
        client.execute("DECLARE c CURSOR WITH HOLD FOR SELECT id FROM notes ORDER BY 1")
        client.execute("COMMIT")
        assert client.execute("FETCH 2 FROM c").fetchall() == [(1,), (2,)]
    assert database.counts()["notes"] == 50


def test_the_gate_is_our_own_question(database: Database) -> None:
    """A script that puts a question of its own in the place of the gate's is not believed."""
    forged = "SELECT '''', ''on'', ''c'', '''', ''0'', ''0'', ''0''"
    swap = (
        "DO $$ BEGIN EXECUTE 'DEALLOCATE handrail_gate';"
        f" EXECUTE 'PREPARE handrail_gate AS {forged}'; DELETE FROM notes; END $$"
    )
    with database.guarded(hold(budget(delete_readings=1))) as guarded, guarded.connect() as client:
        client.execute("DELETE FROM readings WHERE id = 1")
        with pytest.raises(psycopg.Error, match="handrail"):
            client.execute(swap.encode())
    assert database.counts()["notes"] == 50


def test_a_failed_discard_leaves_the_gate(database: Database) -> None:
    """After a DISCARD or DEALLOCATE that failed, alone or among others, the gate still counts."""
    ways = ("DEALLOCATE nothing", "DEALLOCATE ALL; SELECT 1 / 0", "SELECT 1 / 0; DEALLOCATE ALL")
    for number, way in enumerate(ways):
        with database.guarded(hold(budget(delete_devices=1, delete_readings=30))) as guarded:
            with guarded.connect() as client:
                client.execute(f"DELETE FROM readings WHERE id = {number * 2 + 1}".encode())
                with pytest.raises(psycopg.Error):
                    client.execute(way.encode())
                client.execute(f"DELETE FROM readings WHERE id = {number * 2 + 2}".encode())
            report = guarded.settle()
        assert [(e.name, e.rows) for e in report.effects] == [("readings", 2)], way
    with database.guarded(Limits("measure")) as guarded, guarded.connect() as client:
        client.execute("BEGIN; DELETE FROM readings WHERE id > 10; COMMIT; SELECT 1")
        with pytest.raises(psycopg.Error, match="cannot run inside a transaction block"):
            client.execute("BEGIN; DISCARD ALL")
        client.execute("ROLLBACK")
        client.execute("PREPARE mine AS SELECT 1; DEALLOCATE mine")
        client.execute("PREPARE mine AS SELECT 1")
        client.execute("DEALLOCATE mine")
        client.execute("DELETE FROM devices WHERE id = 2")
        client.execute("DEALLOCATE ALL")
        client.execute("DELETE FROM devices WHERE id = 3")
        assert guarded.settle().stop is None


def test_what_fails_in_a_rehearsal_fails_in_the_run(database: Database) -> None:
    """VACUUM in a transaction is the server's error, not the end of the run."""
    script = "BEGIN;\nVACUUM notes;\nROLLBACK;\nSAVEPOINT here;\nDELETE FROM notes WHERE id = 1;\n"
    with database.guarded(Limits("measure")) as guarded:
        said = guarded.psql(script).stderr
        rehearsed = guarded.settle()
    assert rehearsed.unheld == ()
    assert "VACUUM cannot run inside a transaction block" in said
    assert "SAVEPOINT can only be used in transaction blocks" in said
    database.direct("INSERT INTO notes VALUES (1, 'again')")
    with database.guarded(hold(budget(delete_notes=1), trace=rehearsed.trace)) as guarded:
        assert guarded.psql(script).stderr == said
        assert guarded.settle().stop is None


def test_what_partitions_have_done_one_by_one_runs_as_rehearsed(database: Database) -> None:
    """REINDEX of a table with partitions, which no transaction may surround, is not made fail."""
    database.direct(
        "CREATE TABLE months (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE january PARTITION OF months FOR VALUES FROM (1) TO (32)"
    )
    for script in ("REINDEX TABLE months", "CLUSTER months USING months_pkey"):
        with database.guarded(Limits("measure")) as guarded:
            with guarded.connect() as client:
                client.execute(script.encode())
            report = guarded.settle()
        assert len(report.unheld) == 1
        with database.guarded(hold(budget())) as guarded, guarded.connect() as client:
            with pytest.raises(psycopg.Error, match="cannot be held"):
                client.execute(script.encode())


def test_a_function_that_hides_its_errors_does_what_it_would(database: Database) -> None:
    """A function that catches every error is not fooled by being tried as one that reads."""
    database.direct(
        "CREATE FUNCTION swallow() RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
        " DELETE FROM notes WHERE id = 1; RETURN 1; EXCEPTION WHEN OTHERS THEN RETURN 0; END $$"
    )
    with database.guarded(hold(budget(delete_notes=1))) as guarded, guarded.connect() as client:
        assert client.execute("SELECT swallow()").fetchall() == [(1,)]
    assert database.counts()["notes"] == 49
