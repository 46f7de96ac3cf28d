"""The protocol byte by byte: no order of messages gets round the guard, hangs it, or mixes up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from handrail.wire.postgres import frames
from handrail.wire.postgres.frames import FLUSH, SYNC, TERMINATE
from support.guarding import Database, Guarded, budget, hold
from support.postgres_server import OWNER, Server
from support.raw_postgres import (
    COPY_DONE,
    Client,
    Heard,
    bind,
    call,
    cancel,
    close,
    copied,
    describe,
    execute,
    extended,
    parse,
    query,
)

REFUSED = "HR000"
TLS_ASKED = (8).to_bytes(4) + (80877103).to_bytes(4)
GSS_ASKED = (8).to_bytes(4) + (80877104).to_bytes(4)
TIDY = (
    "CREATE FUNCTION tidy() RETURNS int LANGUAGE plpgsql AS"
    " $$ BEGIN DELETE FROM notes; RETURN 1; END $$"
)


@contextlib.contextmanager
def held(database: Database, **rows: int) -> Iterator[tuple[Guarded, Client]]:
    """Give a guard that allows so many rows, and a client; nothing of notes may be gone after."""
    with database.guarded(hold(budget(**rows))) as guarded:
        with Client(guarded.url) as client:
            yield guarded, client
        guarded.settle()


def usable(client: Client) -> None:
    """Check that the next question has its own answer."""
    heard = client.query("SELECT 4711")
    assert heard.rows == [("4711",)], heard


# --- frames --------------------------------------------------------------------------------------


def test_what_stands_behind_a_nul_is_never_run(database: Database) -> None:
    """A query with a NUL inside is refused by the server as one message, and does nothing."""
    with held(database) as (_, client):
        heard = client.query(b"SELECT 1\0; DELETE FROM notes")
        assert heard.errors
        assert heard.rows == []
    assert database.counts()["notes"] == 50


@pytest.mark.parametrize(
    "head",
    [b"Q\x7f\xff\xff\xff", b"Q\xff\xff\xff\xff", b"Q\0\0\0\0", b"P\x10\0\0\0", b"!\0\0\0\x04"],
    ids=["two gigabytes", "minus one", "too short", "large parse", "no letter"],
)
def test_an_impossible_frame_ends_the_connection(database: Database, head: bytes) -> None:
    """A length that cannot be, or is too much, is answered by the end, and is an event."""
    with database.guarded(hold(budget())) as guarded:
        with Client(guarded.url) as client:
            client.send(head)
            heard = client.answer()
        report = guarded.settle()
    assert heard.closed
    assert [event.kind for event in report.events] == ["bypass"]


def test_a_frame_may_come_byte_by_byte(database: Database) -> None:
    """Each byte in a packet of its own is the same as all in one."""
    with held(database, delete_notes=1) as (_, client):
        for byte in extended("DELETE FROM notes WHERE id = 1") + query("SELECT 1"):
            client.send(bytes([byte]))
        assert client.answer().tags == ["DELETE 1"]
        assert client.answer().rows == [("1",)]
    assert database.counts()["notes"] == 49


@pytest.mark.parametrize("length", [1, 4, 5, 12, 22])
def test_half_a_frame_does_nothing(database: Database, length: int) -> None:
    """A client that goes in the middle of a message has not sent it; what came before counts."""
    with database.guarded(hold(budget(delete_notes=1))) as guarded:
        client = Client(guarded.url)
        client.send(query("DELETE FROM notes WHERE id = 1") + query("DELETE FROM notes")[:length])
        client.hang_up()
        report = guarded.settle()
    assert report.stop is None
    assert database.counts()["notes"] == 49


def test_nothing_after_terminate_is_run(database: Database) -> None:
    """Messages behind Terminate are not looked at."""
    with held(database, delete_notes=50) as (_, client):
        client.send(TERMINATE, query("DELETE FROM notes"))
        heard = client.answer()
    assert heard == Heard((), closed=True)
    assert database.counts()["notes"] == 50


def test_the_answers_of_a_long_packet_stay_apart(database: Database) -> None:
    """A hundred messages of every sort in one packet are answered in their order."""
    with held(database, update_devices=100) as (_, client):
        for number in range(20):
            client.send(
                query(f"SELECT {number}"),
                extended(f"UPDATE devices SET seen = {number} WHERE id = 1 RETURNING seen"),
                query(f"SELECT 'again {number}'; SELECT seen FROM devices WHERE id = 1"),
                parse("SELEC") + SYNC,
                parse(f"SELECT -{number}, $1::text", "p")
                + bind("p", values=["x"])
                + execute()
                + close("S", "p")
                + SYNC,
            )
        for number in range(20):
            assert client.answer().rows == [(str(number),)]
            assert client.answer().rows == [(str(number),)]
            assert client.answer().rows == [(f"again {number}",), (str(number),)]
            assert client.answer().codes == ["42601"]
            assert client.answer().rows == [(str(-number), "x")]
        usable(client)


# --- the extended protocol -----------------------------------------------------------------------


def test_a_query_in_the_middle_of_a_group_is_gated(database: Database) -> None:
    """Of a DELETE without Sync and a simple COMMIT behind it, nothing takes effect."""
    with held(database) as (_, client):
        heard = client.ask(parse("DELETE FROM notes"), bind(), execute(), query("COMMIT"))
        assert REFUSED in heard.codes, heard
    assert database.counts()["notes"] == 50


def test_a_query_that_writes_in_the_middle_of_a_group_is_gated(database: Database) -> None:
    """Nor where the query itself writes, or begins a transaction."""
    for last in ("DELETE FROM notes WHERE id = 1", "BEGIN", "SELECT 1", "ROLLBACK"):
        with held(database) as (_, client):
            client.send(parse("DELETE FROM notes"), bind(), execute(), query(last))
            client.answer()
            client.ask(query("COMMIT"))
        assert database.counts()["notes"] == 50, last


def test_the_last_bind_of_a_portal_counts(database: Database) -> None:
    """A portal that is bound twice runs what it was bound to last, and that is what is judged."""
    with held(database) as (_, client):
        heard = client.ask(
            parse("SELECT 1", "innocent"),
            parse("DELETE FROM notes", "guilty"),
            bind("innocent"),
            bind("guilty"),
            execute(),
            SYNC,
        )
        assert heard.codes == [REFUSED]
    with held(database) as (_, client):
        client.ask(parse("SELECT 1", "innocent"), parse("DELETE FROM notes", "guilty"), SYNC)
        client.ask(query("BEGIN"))
        client.ask(bind("guilty", "portal"), SYNC)
        client.ask(bind("innocent", "portal"), SYNC)  # refused: it is there already
        heard = client.ask(execute("portal"), SYNC)
        client.ask(query("COMMIT"))
    assert database.counts()["notes"] == 50


def test_a_portal_of_an_earlier_group_is_gated(database: Database) -> None:
    """Bound in one group and executed in another, inside the client's transaction."""
    with held(database) as (_, client):
        client.ask(query("BEGIN"))
        client.ask(parse("DELETE FROM notes", "p"), bind("p", "later"), SYNC)
        client.ask(parse("SELECT 1", "p2"), bind("p2", "other"), SYNC)
        assert client.ask(execute("later"), SYNC).tags == ["DELETE 50"]
        assert client.ask(query("COMMIT")).codes == [REFUSED]
    assert database.counts()["notes"] == 50


def test_a_name_that_is_taken_stays_what_it_was(database: Database) -> None:
    """Parse of a name that exists is refused by the server; what runs is the first, and gated."""
    with held(database) as (_, client):
        client.ask(parse("DELETE FROM notes", "p"), SYNC)
        assert client.ask(parse("SELECT 1", "p"), SYNC).codes == ["42P05"]
        assert client.ask(bind("p"), execute(), SYNC).codes == [REFUSED]
    assert database.counts()["notes"] == 50


@pytest.mark.parametrize(
    "away",
    [
        query("DEALLOCATE p"),
        extended("DEALLOCATE p"),
        query("DEALLOCATE ALL"),
        query("DISCARD ALL"),
        close("S", "p") + SYNC,
        query("DO $$ BEGIN EXECUTE 'DEALLOCATE p'; END $$"),
    ],
    ids=["query", "extended", "all", "discard", "close", "hidden"],
)
def test_a_name_that_is_used_again_is_what_it_is_now(database: Database, away: bytes) -> None:
    """After DEALLOCATE, however it is said, the same name may be another statement: it is gated."""
    database.direct(TIDY)
    for now in ("SELECT tidy()", "DELETE FROM notes"):
        with held(database) as (_, client):
            client.ask(parse("SELECT 1", "p"), SYNC)
            client.ask(bind("p"), describe(), execute(), SYNC)
            client.ask(away)
            client.send(query("PREPARE p AS " + now))
            client.answer()
            heard = client.ask(bind("p"), describe(), execute(), SYNC)
            assert heard.codes == [REFUSED], heard
        assert database.counts()["notes"] == 50


def test_a_suspended_portal_is_gated(database: Database) -> None:
    """A writing statement that is fetched in parts has done all it does with the first of them."""
    with held(database) as (_, client):
        client.ask(query("BEGIN"))
        group = parse("DELETE FROM notes RETURNING id"), bind("", "p"), execute("p", 2), SYNC
        assert client.ask(*group).letters == "12DDsZ"
        assert len(client.ask(execute("p", 3), SYNC).rows) == 3
        assert client.ask(query("COMMIT")).codes == [REFUSED]
    with held(database) as (_, client):
        heard = client.ask(*group)
        assert heard.codes == [REFUSED]
        assert client.ask(execute("p", 3), SYNC).codes == [REFUSED]
    with held(database) as (_, client):
        client.send(parse("DELETE FROM notes RETURNING id"), bind(), execute("", 2), FLUSH)
        assert len(client.answer("s").rows) == 2
        client.send(execute("", 2), FLUSH)
        assert len(client.answer("s").rows) == 2
        assert client.ask(SYNC).codes == [REFUSED]
    assert database.counts()["notes"] == 50


def test_a_reading_portal_goes_on_where_it_stopped(database: Database) -> None:
    """A portal that reads is suspended and continued as without a guard."""
    with held(database) as (_, client):
        client.send(parse("SELECT generate_series(1, 5)"), bind(), execute("", 2), FLUSH)
        assert client.answer("s").rows == [("1",), ("2",)]
        client.send(execute("", 2), FLUSH)
        assert client.answer("s").rows == [("3",), ("4",)]
        heard = client.ask(execute("", 2), SYNC)
        assert heard.rows == [("5",)]
        assert heard.letters == "DCZ"
        usable(client)


def test_a_setting_and_a_write_in_one_packet_are_gated(database: Database) -> None:
    """Who switches writing on and writes by a function, without waiting between, writes nothing."""
    database.direct(TIDY)
    for switch in SWITCHES:
        for first, then in _pairs(switch):
            with held(database) as (_, client):
                client.send(first)
                heard = client.ask(then) if then else client.answer()
                while not heard.codes:
                    heard = client.answer()
                assert heard.codes == [REFUSED], (switch, first)
            assert database.counts()["notes"] == 50, (switch, first)


SWITCHES = (
    "SELECT set_config('default_transaction_read_only', 'off', false)",
    "SET default_transaction_read_only = off",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "RESET ALL",
    "SELECT 1",
)


def _pairs(first: str) -> tuple[tuple[bytes, bytes], ...]:
    """Return a statement and a writing function, in one packet, in every way."""
    shown = parse(first) + bind() + execute() + FLUSH
    return (
        (query(first), query("SELECT tidy()")),
        (extended(first), extended("SELECT tidy()")),
        (parse(first) + bind() + execute(), extended("SELECT tidy()")),
        (shown, query("SELECT tidy()")),
        (shown, extended("SELECT tidy()")),
        (query(f"{first}; SELECT tidy()"), b""),
        (parse("SELECT tidy()") + bind() + execute() + FLUSH, SYNC),
    )


def test_a_writing_function_behind_another_statement_runs(database: Database) -> None:
    """Within its budget it does what it does without a guard, in every one of these ways."""
    database.direct(TIDY)
    for first, then in _pairs("SET work_mem = '1MB'") + _pairs("SELECT 1"):
        with held(database, delete_notes=50) as (_, client):
            client.send(first, then, query("SELECT 'end'"))
            heard = client.answer()
            while heard.rows != [("end",)]:
                assert not heard.errors, (first, heard)
                heard = client.answer()
        assert database.counts()["notes"] == 0, first
        database.direct("INSERT INTO notes SELECT g, 'note ' || g FROM generate_series(1, 50) g")


# --- transactions --------------------------------------------------------------------------------


def test_who_hangs_up_after_commit_is_gated(database: Database) -> None:
    """Nobody waits for the answer: COMMIT is held all the same, and one within its budget done."""
    for script, left in (("DELETE FROM notes WHERE id = 1", 49), ("DELETE FROM notes", 49)):
        with database.guarded(hold(budget(delete_notes=1))) as guarded:
            client = Client(guarded.url)
            client.send(query("BEGIN"), query(script), query("COMMIT"))
            client.hang_up()
            guarded.settle()
        assert database.counts()["notes"] == left


def test_a_second_commit_commits_nothing(database: Database) -> None:
    """COMMIT twice in one packet is one transaction and a warning."""
    with held(database, delete_notes=1) as (_, client):
        client.send(query("BEGIN"), query("DELETE FROM notes WHERE id = 1"))
        client.send(query("COMMIT"), query("COMMIT"))
        assert [client.answer().letters for _ in range(4)] == ["CZ", "CZ", "CZ", "NCZ"]
        usable(client)
    with held(database) as (_, client):
        client.send(query("BEGIN; DELETE FROM notes; COMMIT; COMMIT"), query("COMMIT"))
        assert client.answer().codes == [REFUSED]
    assert database.counts()["notes"] == 49


def test_two_phases_are_refused(database: Database) -> None:
    """Nothing is prepared for later, and what others prepared stays as it is."""
    with held(database) as (_, client):
        client.send(query("BEGIN"), query("DELETE FROM notes"), query("PREPARE TRANSACTION 'mine'"))
        assert [client.answer().codes for _ in range(3)] == [[], [], [REFUSED]]
    database.direct("BEGIN; DELETE FROM readings; PREPARE TRANSACTION 'theirs'")
    try:
        for ending in ("COMMIT PREPARED 'theirs'", "ROLLBACK PREPARED 'theirs'"):
            with held(database) as (_, client):
                assert client.query(ending).codes == [REFUSED]
            assert database.ask("SELECT count(*) FROM pg_prepared_xacts") == 1
    finally:
        database.direct("ROLLBACK PREPARED 'theirs'")
    assert database.counts() == {"devices": 20, "notes": 50, "readings": 600}


# --- copy ----------------------------------------------------------------------------------------


def test_copied_rows_without_a_copy_are_dropped(database: Database) -> None:
    """CopyData, CopyDone and CopyFail where nothing is copied are passed over, as by the server."""
    with held(database) as (_, client):
        client.send(copied("1\tx\n"), COPY_DONE, frames.build(b"f", b"no\0"))
        usable(client)
        client.send(query("SELECT 1"), copied("1\tx\n"), COPY_DONE, query("SELECT 2"))
        assert [client.answer().rows for _ in range(2)] == [[("1",)], [("2",)]]


def test_the_end_of_a_copy_twice_is_once(database: Database) -> None:
    """A second CopyDone, or rows behind the first, mean nothing."""
    with held(database, insert_notes=2) as (_, client):
        client.send(query("COPY notes FROM STDIN"))
        client.answer("G")
        client.send(copied("900\tx\n"), COPY_DONE, COPY_DONE, copied("901\ty\n"), COPY_DONE)
        assert client.answer().tags == ["COPY 1"]
        usable(client)
    assert database.counts()["notes"] == 51


def test_a_copy_in_one_packet_is_gated(database: Database) -> None:
    """COPY, its rows and its end, without waiting for the server, by either protocol."""
    rows = copied("900\tx\n901\ty\n") + COPY_DONE
    for start, end in (
        (query("COPY notes FROM STDIN"), b""),
        (parse("COPY notes FROM STDIN") + bind() + execute(), SYNC),
        (parse("COPY notes FROM STDIN") + bind() + execute() + SYNC, SYNC),
    ):
        with held(database, insert_notes=1) as (_, client):
            heard = client.ask(start, rows, end)
            assert REFUSED in heard.codes, heard
        assert database.counts()["notes"] == 50


SMUGGLED = COPY_DONE + query("COMMIT; BEGIN; DELETE FROM notes; COMMIT")


@pytest.mark.parametrize("early", [5, 6, 20])
def test_no_message_hides_in_copied_rows(database: Database, early: int) -> None:
    """A row that is cut where copying begins stays a row: nothing in it is read as messages."""
    row = frames.build(b"d", b"900\tx\n".ljust(20, b"y") + SMUGGLED)
    with held(database, insert_notes=5) as (_, client):
        client.send(query("COPY notes FROM STDIN") + row[:early])
        client.answer("G")
        client.send(row[early:])
        client.send(COPY_DONE)
        assert client.answer().codes == ["22021"]
        usable(client)
    assert database.counts()["notes"] == 50


@pytest.mark.parametrize("cut", [5, 6, 25, 60])
def test_no_message_hides_behind_a_copy_that_failed(database: Database, cut: int) -> None:
    """Nor in a row that is only half sent when the server has had enough of the rows."""
    row = frames.build(b"d", b"z" * 20 + SMUGGLED * 3)
    with held(database, insert_notes=5) as (_, client):
        client.send(query("COPY notes FROM STDIN"))
        client.answer("G")
        client.send(copied("not a number\tx\n") * 2000 + row[:cut])
        assert client.answer().codes == ["22P02"]
        client.send(row[cut:])
        usable(client)
        assert client.query("DELETE FROM notes").codes == [REFUSED]
    assert database.counts()["notes"] == 50


def test_a_copy_that_fails_leaves_the_answers_in_order(database: Database) -> None:
    """CopyFail, and Sync or Query while rows are copied, end the COPY with the server's error."""
    with held(database) as (_, client):
        client.send(query("COPY notes FROM STDIN"))
        client.answer("G")
        heard = client.ask(copied("900\tx\n"), frames.build(b"f", b"enough\0"))
        assert heard.codes == ["57014"]
        usable(client)
        client.send(query("COPY notes FROM STDIN"))
        client.answer("G")
        # Sync and Flush are passed over by the server while it copies.
        heard = client.ask(copied("900\tx\n"), SYNC, FLUSH, frames.build(b"f", b"enough\0"))
        assert heard.codes == ["57014"]
        usable(client)
    assert database.counts()["notes"] == 50


def test_a_query_in_the_middle_of_a_copy_ends_it(database: Database) -> None:
    """What is no row ends a COPY with an error, as by the server; nothing hangs."""
    with held(database, insert_notes=5) as (_, client):
        client.send(query("COPY notes FROM STDIN"))
        client.answer("G")
        client.send(copied("900\tx\n"), query("SELECT 1"))
        heard = client.answer()
        assert heard.closed or heard.errors, heard
    assert database.counts()["notes"] == 50


# --- beside SQL ----------------------------------------------------------------------------------


def test_functions_outside_sql_are_those_of_large_objects(database: Database) -> None:
    """lo_create outside SQL is gated, reading passes, every other function is refused."""
    number = database.ask("SELECT lo_from_bytea(0, 'abc')")
    assert isinstance(number, int)
    with held(database) as (_, client):
        client.ask(query("BEGIN"))
        opened = client.ask(call(952, number.to_bytes(4), (0x40000).to_bytes(4)))
        assert opened.letters == "VZ"
        handle = opened.frames[0][1][4:]
        assert client.ask(call(954, handle, (3).to_bytes(4))).frames[0][1][4:] == b"abc"
        assert client.ask(query("COMMIT")).tags == ["COMMIT"]
        heard = client.ask(call(964, number.to_bytes(4)))
        assert heard.codes == [REFUSED], heard
    for function, arguments in ((2096, [(1).to_bytes(4)]), (2078, [b"track_counts", b"off"])):
        with held(database) as (_, client):
            assert client.ask(call(function, *arguments)).codes == [REFUSED]
    assert database.ask("SELECT count(*) FROM pg_largeobject_metadata") == 1


@pytest.mark.parametrize(
    "settings",
    [{"replication": "true"}, {"replication": "database"}, {"options": "-c track_counts=off"}],
    ids=["replication", "database", "counts"],
)
def test_some_starts_are_refused(database: Database, settings: dict[str, str]) -> None:
    """Replication, and what only a superuser may switch off, begin no session."""
    with database.guarded(hold(budget())) as guarded:
        with Client(guarded.url, opens=False) as client:
            heard = client.open(settings)
    assert heard.closed
    assert heard.errors


def test_a_cancel_needs_the_right_key(database: Database) -> None:
    """A request to cancel with a wrong key, or another's number, is no answer and no harm."""
    with held(database) as (guarded, client):
        for pid, key in ((client.pid, b"\0\0\0\0"), (client.pid + 1, client.key), (0, b"x")):
            with Client(guarded.url, opens=False) as other:
                other.send(cancel(pid, key))
                assert other.answer() == Heard((), closed=True)
        usable(client)


def test_encryption_is_asked_for_once(database: Database) -> None:
    """The guard's own address is not encrypted: it says so, once, and goes on in plain text."""
    with database.guarded(hold(budget())) as guarded:
        with Client(guarded.url, opens=False) as client:
            for asked in (GSS_ASKED, TLS_ASKED):
                client.send(asked)
                assert client.raw.read(1) == b"N"
            assert not client.open({}).errors
            usable(client)
        with Client(guarded.url, opens=False) as client:
            client.send(TLS_ASKED + TLS_ASKED)
            assert client.raw.read(1) == b"N"
            assert client.answer().closed


# --- encodings and strings -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "character"), [("SJIS", b"\x95\x5c"), ("BIG5", b"\xa7\x5c"), ("GBK", b"\x81\x5c")]
)
def test_a_backslash_that_is_half_a_character_hides_nothing(
    database: Database, encoding: str, character: bytes
) -> None:
    """Where a character ends in the byte of a backslash, a string ends where the server says."""
    trick = b"SELECT E'" + character + b"'; DELETE FROM notes; COMMIT; --'"
    for send in (query, extended):
        with database.guarded(hold(budget())) as guarded:
            with Client(guarded.url, settings={"client_encoding": encoding}) as client:
                assert client.ask(send(b"SELECT '" + character + b"'")).rows
                assert client.ask(send(trick)).errors
            with Client(guarded.url) as client:
                client.send(query(f"SET client_encoding = '{encoding}'"), send(trick))
                client.answer()
                assert client.answer().errors
            with Client(guarded.url) as client:
                text = f"SET client_encoding = '{encoding}'; ".encode() + trick
                assert client.ask(query(text)).errors
    assert database.counts()["notes"] == 50


def test_a_backslash_counts_as_the_session_reads_it(database: Database) -> None:
    """Where standard_conforming_strings is off, a COMMIT that an escape shows is seen."""
    trick = "DELETE FROM notes; SELECT '\\''; COMMIT; SELECT '\\'"
    for first in (
        {"options": "-c standard_conforming_strings=off"},
        {"Standard_Conforming_Strings": "off"},
    ):
        with database.guarded(hold(budget())) as guarded:
            with Client(guarded.url, settings=first) as client:
                assert client.query(trick).errors
    with database.guarded(hold(budget())) as guarded, Client(guarded.url) as client:
        client.send(query("SET standard_conforming_strings = off"), query(trick))
        client.answer()
        assert client.answer().errors
    assert database.counts()["notes"] == 50


# --- being somebody else -------------------------------------------------------------------------


def test_no_role_is_taken_on_without_its_right(database: Database) -> None:
    """SET SESSION AUTHORIZATION is refused; SET ROLE is the server's to allow, and is gated."""
    with held(database) as (_, client):
        assert client.query("SET ROLE NONE").tags == ["SET"]
        assert client.query(f"SET ROLE {OWNER}").tags == ["SET"]
        assert client.query("DELETE FROM notes").codes == [REFUSED]
    with held(database) as (_, client):
        assert client.query("SET SESSION AUTHORIZATION postgres").codes == [REFUSED]
    assert database.counts()["notes"] == 50


SUPERUSER_TRICKS = {
    "authorization": [f"SET SESSION AUTHORIZATION {OWNER}", "DELETE FROM notes"],
    "role": [f"SET ROLE {OWNER}", "DELETE FROM notes"],
    "replication role": ["SET session_replication_role = replica", "DELETE FROM devices"],
    "counts": ["SET track_counts = off", "DELETE FROM notes"],
    "counts in a block": [
        "DO $$ BEGIN EXECUTE 'SET track_' || 'counts = off'; END $$",
        "DELETE FROM notes",
    ],
    "counts and rows in a block": [
        "DO $$ BEGIN EXECUTE 'SET track_' || 'counts = off'; DELETE FROM notes; END $$"
    ],
    "counts for one transaction": [
        "BEGIN",
        "DO $$ BEGIN EXECUTE 'SET LOCAL track_' || 'counts = off'; END $$",
        "DELETE FROM notes",
        "COMMIT",
    ],
    "system": ["ALTER SYSTEM SET work_mem = '64kB'"],
    "library": ["LOAD 'auto_explain'"],
    "program": ["COPY notes TO PROGRAM 'cat > /dev/null'"],
    "catalog": ["DELETE FROM pg_class WHERE relname = 'notes'"],
    "catalog update": ["UPDATE pg_class SET relname = 'gone' WHERE relname = 'notes'"],
}
QUIET = (
    "CREATE FUNCTION quiet() RETURNS int LANGUAGE plpgsql SET track_counts = off AS"
    " $$ BEGIN DELETE FROM notes; RETURN 1; END $$"
)


def settings_of(server: Server) -> list[tuple[object, ...]]:
    """Return the settings in the server's files."""
    with psycopg.connect(server.superuser_url("postgres")) as session:
        return session.execute("SELECT name, setting FROM pg_file_settings").fetchall()


@pytest.mark.parametrize("name", SUPERUSER_TRICKS)
def test_a_superuser_is_held_too(database: Database, name: str) -> None:
    """A store whose role is the superuser is held by the same gate."""
    server = database.server
    store = server.store(database.name, superuser=True)
    with database.guarded(hold(budget()), store) as guarded:
        with Client(guarded.url) as client:
            codes = [code for sql in SUPERUSER_TRICKS[name] for code in client.query(sql).codes]
        guarded.settle()
    assert REFUSED in codes, codes
    assert database.counts() == {"devices": 20, "notes": 50, "readings": 600}
    assert "64kB" not in str(settings_of(server))


QUIETLY = (
    "DO $$ BEGIN EXECUTE 'SET track_' || 'counts = off'; DELETE FROM notes;"
    " EXECUTE 'SET track_' || 'counts = on'; END $$",
    "SELECT quiet()",
)


@pytest.mark.parametrize("trick", QUIETLY, ids=["block", "function"])
def test_who_switches_counting_off_and_on_is_held_by_a_limited_role(
    database: Database, trick: str
) -> None:
    """A superuser can hide rows from the counters; the role of the run's own cannot."""
    database.server.execute(QUIET, database.name)
    store = database.server.store(database.name, superuser=True)
    limits = hold(budget(delete_notes=1), role="limited")
    with database.guarded(limits, store) as guarded, Client(guarded.url) as client:
        assert client.query(trick).codes == ["42501"]
    assert database.counts()["notes"] == 50
