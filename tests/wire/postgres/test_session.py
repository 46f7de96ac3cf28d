"""A session: clients of every habit get PostgreSQL's own answers, and none gets round the guard."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

import psycopg
import pytest

from handrail.plans.holding import Event, Limits
from handrail.wire.postgres import rules
from support.guarding import Database, budget, hold
from support.postgres_server import OWNER

COMMITTING = """
CREATE PROCEDURE in_steps() LANGUAGE plpgsql AS $$ BEGIN
    FOR i IN 1..5 LOOP DELETE FROM notes WHERE id = i; COMMIT; END LOOP; END $$
"""


def test_copy_both_ways_is_counted_and_unchanged(database: Database) -> None:
    """Rows go in by COPY and come out by COPY as they were, and those that went in are counted."""
    lines = b"".join(b"%d\tnote \xc3\xa4 %d\n" % (n, n) for n in range(1000, 4000))
    with database.guarded(hold(budget(insert_notes=3000))) as guarded:
        with guarded.connect() as client, client.cursor() as cursor:
            with cursor.copy("COPY notes FROM STDIN") as rows:
                rows.write(lines)
            with cursor.copy(
                "COPY (SELECT * FROM notes WHERE id >= 1000 ORDER BY id) TO STDOUT"
            ) as out:
                assert b"".join(bytes(piece) for piece in out) == lines
        report = guarded.settle()
    assert [(e.verb, e.name, e.rows) for e in report.effects] == [("insert", "notes", 3000)]


def test_a_copy_beyond_the_budget_leaves_nothing(database: Database) -> None:
    """Rows that were copied are not kept where they are too many."""
    with database.guarded(hold(budget(insert_notes=2))) as guarded, guarded.connect() as client:
        with pytest.raises(psycopg.Error, match="insert table notes 3 rows; budget 2"):
            with client.cursor() as cursor, cursor.copy("COPY notes FROM STDIN") as rows:
                rows.write(b"100\ta\n101\tb\n102\tc\n")
    assert database.counts()["notes"] == 50


def test_a_copy_that_fails_leaves_the_session_usable(database: Database) -> None:
    """After a COPY that the client gave up, or the server refused, the next statement works."""
    with database.guarded(hold(budget(insert_notes=10))) as guarded, guarded.connect() as client:
        with pytest.raises(psycopg.Error), client.cursor() as cursor:
            with cursor.copy("COPY notes FROM STDIN") as rows:
                rows.write(b"not a number\n" * 1000)
        with pytest.raises(ZeroDivisionError):
            give_up(client)
        assert client.execute("SELECT count(*) FROM notes").fetchone() == (50,)


def give_up(client: psycopg.Connection[tuple[object, ...]]) -> None:
    """Fail in the middle of a COPY."""
    with client.cursor() as cursor, cursor.copy("COPY notes FROM STDIN") as rows:
        rows.write(b"100\ta\n")
        raise ZeroDivisionError


def send_too_much(client: psycopg.Connection[tuple[object, ...]]) -> None:
    """Delete too much in a transaction of a pipeline's own."""
    with client.pipeline():
        client.execute("BEGIN")
        client.execute("DELETE FROM notes WHERE id > %s", [10])
        client.execute("COMMIT")
        client.execute("UPDATE devices SET seen = 4")


def test_a_commit_inside_a_message_is_gated(database: Database) -> None:
    """Of `DELETE; COMMIT; DELETE` in one message each part is held by itself."""
    script = "DELETE FROM notes WHERE id = 1; COMMIT; DELETE FROM notes WHERE id > 10; SELECT 1"
    with database.guarded(hold(budget(delete_notes=5))) as guarded, guarded.connect() as client:
        with pytest.raises(psycopg.Error, match="delete table notes 41 rows; budget 5"):
            client.execute(script)
    assert database.counts()["notes"] == 49


def test_a_pipeline_with_its_own_transaction_is_gated(database: Database) -> None:
    """BEGIN, statements and COMMIT before one Sync are held at that COMMIT."""
    with database.guarded(hold(budget(delete_notes=5, update_devices=1))) as guarded:
        with guarded.connect() as client, client.pipeline():
            client.execute("BEGIN")
            client.execute("DELETE FROM notes WHERE id = %s", [1])
            client.execute("COMMIT")
            seen = client.execute("UPDATE devices SET seen = 3 WHERE id = %s RETURNING seen", [1])
            assert seen.fetchall() == [(3,)]
        with guarded.connect() as client, pytest.raises(psycopg.Error, match="budget 5"):
            send_too_much(client)
    assert database.counts()["notes"] == 49
    assert database.ask("SELECT sum(seen) FROM devices") == 3


def test_letting_the_next_transaction_write_lets_nothing_through(database: Database) -> None:
    """A script that switches the session's reading off, by any way, is gated all the same."""
    database.direct(
        "CREATE FUNCTION tidy() RETURNS int LANGUAGE plpgsql AS"
        " $$ BEGIN DELETE FROM notes; RETURN 1; END $$"
    )
    ways = (
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SET default_transaction_read_only = off",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "DO $$ BEGIN PERFORM set_config('default_transaction_read_only', 'off', false); END $$",
        "DISCARD ALL",
        "RESET ALL",
        "ALTER ROLE CURRENT_USER SET default_transaction_read_only = off",
    )
    for way in ways:
        with database.guarded(hold(budget(delete_notes=1))) as guarded:
            with guarded.connect() as client:
                with contextlib.suppress(psycopg.Error):
                    client.execute(way.encode())
                with pytest.raises(psycopg.Error, match="handrail"):
                    client.execute("SELECT tidy()")
        assert database.counts()["notes"] == 50, way


def test_what_runs_in_no_transaction_is_done_only_as_rehearsed(database: Database) -> None:
    """VACUUM passes in a rehearsal and is reported; a run does it again, and nothing like it."""
    with database.guarded(Limits("measure")) as guarded:
        with guarded.connect() as client:
            client.execute("VACUUM notes")
        report = guarded.settle()
    assert report.unheld == report.trace
    with database.guarded(hold(budget(), trace=report.trace, unheld=report.unheld)) as guarded:
        with guarded.connect() as client:
            client.execute("VACUUM notes")
            with pytest.raises(psycopg.Error, match="takes effect at once and cannot be held"):
                client.execute("VACUUM FULL devices")


def test_a_procedure_that_commits_is_done_only_as_rehearsed(database: Database) -> None:
    """A procedure with COMMITs inside is told in the rehearsal, and refused where it was not."""
    database.direct(COMMITTING)
    with database.guarded(hold(budget(delete_notes=5))) as guarded, guarded.connect() as client:
        with pytest.raises(psycopg.Error, match="cannot be held"):
            client.execute("CALL in_steps()")
    assert database.counts()["notes"] == 50
    with database.guarded(Limits("measure")) as guarded:
        with guarded.connect() as client:
            client.execute("CALL in_steps()")
        report = guarded.settle()
    assert len(report.unheld) == 1
    assert database.counts()["notes"] == 45


def test_chained_transactions_are_each_counted_once(database: Database) -> None:
    """COMMIT AND CHAIN does not count the first transaction's rows again."""
    with database.guarded(hold(budget(delete_notes=6))) as guarded:
        with guarded.connect() as client:
            client.execute("BEGIN")
            client.execute("DELETE FROM notes WHERE id <= 3")
            client.execute("COMMIT AND CHAIN")
            client.execute("DELETE FROM notes WHERE id <= 6")
            client.execute("COMMIT")
        report = guarded.settle()
    assert report.stop is None
    assert [(e.verb, e.rows) for e in report.effects] == [("delete", 6)]


def test_a_failed_deferred_constraint_is_postgresqls_own_error(database: Database) -> None:
    """A constraint that fails at COMMIT fails with its own error, and nothing is kept."""
    database.direct(
        "ALTER TABLE readings ALTER CONSTRAINT readings_device_fkey DEFERRABLE INITIALLY DEFERRED"
    )
    with (
        database.guarded(hold(budget(update_readings=600))) as guarded,
        guarded.connect() as client,
    ):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            client.execute("UPDATE readings SET device = 99")
        client.execute("BEGIN")
        client.execute("UPDATE readings SET device = 98")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            client.execute("COMMIT")
        assert client.execute("SELECT count(*) FROM readings WHERE device > 90").fetchone() == (0,)


def test_a_running_statement_can_be_cancelled(database: Database) -> None:
    """A client's cancel request, with the key that the guard gave it, reaches the server."""
    with database.guarded(Limits("measure")) as guarded, guarded.connect() as client:
        client.execute("SET statement_timeout = '60s'")
        with psycopg.Cursor(client) as cursor:
            client.pgconn.send_query(b"SELECT pg_sleep(60)")
            client.cancel_safe(timeout=10)
            while client.pgconn.is_busy():
                client.pgconn.consume_input()
            result = client.pgconn.get_result()
            assert result is not None
            assert b"canceling statement" in result.error_message
            while client.pgconn.get_result() is not None:
                pass
            assert cursor.execute("SELECT 1").fetchone() == (1,)


def test_a_slow_reader_gets_every_row(database: Database) -> None:
    """A result far larger than any buffer arrives whole, and in order."""
    with database.guarded(Limits("measure")) as guarded, guarded.connect() as client:
        count = 0
        rows = client.execute("SELECT g, repeat('x', 1000) FROM generate_series(1, 30000) g")
        for number, text in rows:
            count += 1
            assert number == count
            assert len(str(text)) == 1000
    assert count == 30000


def test_only_the_secret_of_this_run_is_let_in(database: Database) -> None:
    """The store's own password opens nothing at the guard, and the attempt is an event."""
    with database.guarded(Limits("observe")) as guarded:
        place = guarded.guard.connection().parts
        real = database.store.connection().parts
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(
                host=place["host"],
                port=place["port"],
                user=real["user"],
                password=real["password"],
                dbname=real["database"],
            )
        report = guarded.settle()
    assert any(event.kind == "bypass" for event in report.events)


def test_the_rehearsals_other_statements_are_told_apart(database: Database) -> None:
    """The first statement that a rehearsal did not have is an event, and refused when asked."""
    with database.guarded(Limits("measure")) as guarded:
        with guarded.connect() as client:
            client.execute("SELECT count(*) FROM notes WHERE id > 5")
        trace = guarded.settle().trace
    with database.guarded(hold(budget(), trace=trace)) as guarded:
        with guarded.connect() as client:
            client.execute("SELECT count(*) FROM notes WHERE id > 7")
            client.execute("SELECT max(id) FROM devices")
        events = guarded.settle().events
    assert [event.kind for event in events] == ["diverged"]
    with database.guarded(hold(budget(), trace=trace, divergence="refuse")) as guarded:
        with guarded.connect() as client:
            client.execute("SELECT count(*) FROM notes WHERE id > 7")
            with pytest.raises(psycopg.Error, match="run what the rehearsal did not"):
                client.execute("SELECT max(id) FROM devices")


class Asked:
    """Somebody who hears events, and answers when a statement waits."""

    def __init__(self, *, answer: bool) -> None:
        self.heard: list[Event] = []
        self.statements: list[str] = []
        self._answer = answer

    def __call__(self, event: Event) -> None:
        self.heard.append(event)

    def ask(self, statement: str, why: str, is_over: Callable[[], bool]) -> bool:
        """Answer at once."""
        assert why == "not in the rehearsal"
        assert not is_over()
        self.statements.append(statement)
        return self._answer


@pytest.mark.parametrize("answer", [True, False])
def test_a_statement_waits_for_somebodys_word(database: Database, *, answer: bool) -> None:
    """What was not rehearsed begins when another person lets it, and is refused when not."""
    asked = Asked(answer=answer)
    limits = hold(budget(), trace=("SELECT $1",), divergence="hold")
    with database.guarded(limits, hear=asked) as guarded, guarded.connect() as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
        if answer:
            assert client.execute("SELECT count(*) FROM notes").fetchone() == (50,)
        else:
            with pytest.raises(psycopg.Error, match="run what the rehearsal did not"):
                client.execute("SELECT count(*) FROM notes")
    assert asked.statements == ["SELECT count(*) FROM notes"]


class Thinking(Asked):
    """Somebody who answers once the test says so."""

    def __init__(self) -> None:
        super().__init__(answer=True)
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    def ask(self, statement: str, why: str, is_over: Callable[[], bool]) -> bool:
        """Answer when told to."""
        self.is_asked.set()
        assert self.may_answer.wait(60)
        return super().ask(statement, why, is_over)


def test_nobody_begins_what_somebody_is_being_asked_about(database: Database) -> None:
    """The same statement on another connection waits for the same word, and asks nobody again."""
    asked, done = Thinking(), []
    limits = hold(budget(), trace=("SELECT $1",), divergence="hold")

    def count(client: psycopg.Connection[tuple[int]]) -> None:
        client.execute("SELECT count(*) FROM notes")
        done.append(asked.may_answer.is_set())

    with database.guarded(limits, hear=asked) as guarded:
        with guarded.connect() as first, guarded.connect() as second:
            threads = [threading.Thread(target=count, args=(one,)) for one in (first, second)]
            threads[0].start()
            assert asked.is_asked.wait(60)
            threads[1].start()
            # The second's statement has reached the guard once a third connection was served after.
            with guarded.connect() as third:
                third.execute("SELECT 1")
            assert not done
            asked.may_answer.set()
            for thread in threads:
                thread.join(60)
    assert done == [True, True]
    assert len(asked.statements) == 1


def test_a_limited_role_may_do_what_the_budget_says(database: Database) -> None:
    """The run's own role may do what the budget says, nothing else, and is gone afterwards."""
    database.server.execute(f"ALTER ROLE {OWNER} CREATEROLE")
    try:
        with database.guarded(hold(budget(delete_notes=5), role="limited")) as guarded:
            with guarded.connect() as client:
                client.execute("DELETE FROM notes WHERE id <= 5")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    client.execute("UPDATE devices SET seen = 1")
            assert guarded.settle().role == "limited"
    finally:  # the server is other tests' too
        database.server.execute(f"ALTER ROLE {OWNER} NOCREATEROLE")
    assert database.counts()["notes"] == 45
    assert (
        database.ask("SELECT count(*) FROM pg_roles WHERE rolname ~ '^handrail_' AND NOT rolsuper")
        == 0
    )


def test_a_defect_of_the_guard_ends_the_run(database: Database) -> None:
    """Where the guard itself fails, no client waits for ever, and nothing more is let through."""

    async def fail(*_given: object, **_named: object) -> None:
        raise RuntimeError("a defect")

    with database.guarded(hold(budget(delete_notes=50))) as guarded:
        other = guarded.connect()
        with pytest.MonkeyPatch.context() as patch, guarded.connect() as client:
            patch.setattr(rules.Rules, "admit", fail)
            with pytest.raises(psycopg.Error, match="defect"):
                client.execute("DELETE FROM notes WHERE id = 1")
        with pytest.raises(psycopg.Error, match="stopped"):
            other.execute("DELETE FROM notes WHERE id = 2")
        other.close()
        assert guarded.settle().stop is not None
    assert database.counts()["notes"] == 50


def test_a_statement_whose_client_is_gone_ends_with_the_guard(database: Database) -> None:
    """When nobody waits for a statement any more, the server stops it at the guard's end."""
    running = (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ '^SELECT pg_sl'"
    )
    with database.guarded(Limits("observe")) as guarded:
        client = guarded.connect()
        client.pgconn.send_query(b"SELECT pg_sleep(600)")
        assert any(database.ask(running) == 1 for _ in range(1000))
        with socket.socket(fileno=os.dup(client.fileno())) as connection:
            connection.shutdown(socket.SHUT_RDWR)
        guarded.settle()
        client.close()
    assert any(database.ask(running) == 0 for _ in range(1000))
