"""The journal in PostgreSQL: made once, append only, never forked, clear when it cannot be used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from handrail.adapters.postgres_journal import schema
from handrail.adapters.postgres_journal.journal import PostgresJournal
from handrail.adapters.postgres_journal.link import Link
from handrail.core.journal import verify_export
from handrail.errors import JournalError, UsageError
from handrail.ports import Entry
from handrail.testing.clock import FakeClock
from support.journals import fill, journal_database, journal_url
from support.postgres_server import PASSWORD, Server

__all__ = ["journal_database", "journal_url"]

PRELUDE = """
import sys
from handrail.adapters.postgres_journal.journal import PostgresJournal
from handrail.adapters.postgres_journal.link import Link
from handrail.adapters.system import SystemClock
from handrail.ports import Entry
from handrail.errors import FencedError
journal = PostgresJournal(Link(sys.argv[1]), SystemClock())
"""
APPENDS = PRELUDE + (
    "for n in range(60): journal.append('run-1', 'done', {'by': sys.argv[2], 'n': n})"
)
CLOSES = PRELUDE + (
    "for n in range(60): journal.append('run-1', 'done', {'by': sys.argv[2]}); "
    "journal.close('run-1')"
)
RUNS = PRELUDE + "print(*(journal.open_run() for _ in range(40)))"
USES = PRELUDE + "print(*(n for n in range(40) if journal.single_use(f'approval {n}')))"
# Many walks: each chain is taken by the one process that is let through.
TAKES = (
    PRELUDE
    + """
for n in range(40):
    try:
        journal.write([Entry(f'walk-{n}', 'taken', {'by': sys.argv[2]}, 'new')])
    except FencedError:
        continue
    print(n)
"""
)
ENDLESS = (
    PRELUDE
    + """
for n in range(10**6):
    journal.write([Entry('run-1', 'done', {'n': n}), Entry('run-2', 'done', {'n': n})])
    print(n, flush=True)
"""
)


@pytest.fixture
def journal(journal_url: str) -> Iterator[PostgresJournal]:
    journal = PostgresJournal(Link(journal_url, patience_s=2), FakeClock())
    yield journal
    journal.shut()


@pytest.fixture
def session(journal_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(journal_url, autocommit=True) as session:
        yield session


def _start(script: str, url: str, *more: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", script, url, *more]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def _finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    answers = [process.communicate(timeout=50)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return answers


def _all(journal_url: str, scripts: list[str]) -> list[str]:
    return _finish([_start(script, journal_url, str(n)) for n, script in enumerate(scripts)])


def test_reading_makes_no_schema(
    journal: PostgresJournal, session: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """Asking a database without a journal leaves it as it is; so does closing a chain."""
    journal.close("run-1")
    assert journal.last("run-1") is None
    assert journal.open_chains("") == ()
    assert verify_export(journal.export()) == ()
    assert not schema.is_made(session)


def test_processes_never_fork_a_chain(journal: PostgresJournal, journal_url: str) -> None:
    """Processes that make the schema and write one chain at once, and close it, write one chain."""
    _all(journal_url, [APPENDS, APPENDS, CLOSES])
    records = list(journal.records("run-1"))
    assert [record.sequence for record in records] == list(range(1, 181))
    assert verify_export(journal.export()) == ()


def test_processes_never_get_one_run_number(journal_url: str) -> None:
    """Run numbers that processes ask for at once are all different."""
    answers = _all(journal_url, [RUNS, RUNS])
    numbers = [int(n) for answer in answers for n in answer.split()]
    assert len(set(numbers)) == 80


def test_processes_never_use_one_approval(journal_url: str) -> None:
    """Of two processes that use a key at once, exactly one is allowed to."""
    answers = _all(journal_url, [USES, USES])
    assert sorted(int(n) for answer in answers for n in answer.split()) == list(range(40))


def test_processes_never_take_one_walk(journal: PostgresJournal, journal_url: str) -> None:
    """Of processes that open one chain behind a fence at once, exactly one is let through."""
    answers = _all(journal_url, [TAKES, TAKES, TAKES])
    assert sorted(int(n) for answer in answers for n in answer.split()) == list(range(40))
    assert len(journal.open_chains("walk-")) == 40
    assert verify_export(journal.export()) == ()


def test_what_was_returned_survives_kill_9(journal: PostgresJournal, journal_url: str) -> None:
    """Every write that returned is there after a kill, whole, and the chains verify."""
    process = _start(ENDLESS, journal_url)
    assert process.stdout is not None
    last = [process.stdout.readline() for _ in range(25)][-1]
    process.kill()
    process.communicate(timeout=20)
    # Its server process may still be writing: what it takes part in is whole all the same.
    journal.write([Entry("run-1", "resumed", {}), Entry("run-2", "resumed", {})])
    lengths = [len(list(journal.records(chain))) for chain in ("run-1", "run-2")]
    assert lengths[0] == lengths[1] > int(last) + 1
    assert verify_export(journal.export()) == ()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE handrail.records SET body = '{}'",
        "DELETE FROM handrail.records",
        "TRUNCATE handrail.records",
        "UPDATE handrail.runs SET number = 7",
        "DELETE FROM handrail.runs",
        "DELETE FROM handrail.chains",
        "TRUNCATE handrail.chains",
        "UPDATE handrail.chains SET is_open = false",
        "INSERT INTO handrail.chains VALUES ('run-2', 2, true)",
        "INSERT INTO handrail.records VALUES ('run-1', 3, 't', 'k', '{}', 'p', 'h')",
        "INSERT INTO handrail.records VALUES ('run-1', 2, 't', 'k', '{}', 'p', 'h')",
        "INSERT INTO handrail.records VALUES ('run-9', 1, 't', 'k', '{}', 'p', 'h')",
        "INSERT INTO handrail.records VALUES ('anchors', 2, 't', 'k', '{}', 'p', 'h')",
        "INSERT INTO handrail.records SELECT chain, 1, time, kind, body, previous, hash"
        " FROM handrail.records",
    ],
)
def test_accidents_are_refused(
    journal: PostgresJournal, session: psycopg.Connection[tuple[Any, ...]], statement: str
) -> None:
    """SQL by hand changes and removes nothing, and adds nothing that does not follow."""
    journal.open_run()
    journal.append("run-1", "begun", {})
    before = list(journal.export())
    with pytest.raises(psycopg.errors.IntegrityError):
        session.execute(statement.encode())
    assert list(journal.export()) == before
    assert journal.open_chains("") == ("run-1",)


def test_a_closed_chain_refuses_a_record(
    journal: PostgresJournal, session: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """The database itself refuses a record that follows the end of a closed chain."""
    last = journal.append("run-1", "done", {})
    journal.close("run-1")
    row = ("run-1", 2, last.time, "done", "{}", last.hash, "h")
    with pytest.raises(psycopg.errors.IntegrityError, match="open in the anchors"):
        session.execute("INSERT INTO handrail.records VALUES (%s, %s, %s, %s, %s, %s, %s)", row)


def test_a_close_waits_for_whoever_is_writing(
    journal: PostgresJournal, session: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """A chain is not closed while a record behind its last one is on its way."""
    last = journal.append("run-1", "done", {})
    row = ("run-1", 2, last.time, "done", "{}", last.hash, "h")
    with session.transaction(force_rollback=True):
        session.execute("INSERT INTO handrail.records VALUES (%s, %s, %s, %s, %s, %s, %s)", row)
        with pytest.raises(JournalError) as caught:
            journal.close("run-1")
    assert caught.value.code == "journal.unwritable"
    journal.close("run-1")
    assert verify_export(journal.export()) == ()


def test_tampering_is_named(
    journal: PostgresJournal, journal_url: str, postgres_server: Server
) -> None:
    """A record that a superuser changed behind the triggers is named with its chain and number."""
    fill(journal)
    database = conninfo_to_dict(journal_url)["dbname"]
    with psycopg.connect(postgres_server.superuser_url(str(database))) as superuser:
        superuser.execute("SET session_replication_role = replica")
        superuser.execute(
            "UPDATE handrail.records SET body = '{}' WHERE chain = 'run-1' AND sequence = 3"
        )
    (problem,) = verify_export(journal.export())
    assert (problem.chain, problem.sequence, problem.fault) == ("run-1", 3, "changed")


def test_a_newer_format_is_refused(
    journal: PostgresJournal, session: psycopg.Connection[tuple[Any, ...]], journal_url: str
) -> None:
    """A journal of a newer Handrail is neither read nor written."""
    journal.append("run-1", "begun", {})
    session.execute("INSERT INTO handrail.versions VALUES (99, 'then')")
    with closing(_Shut(PostgresJournal(Link(journal_url), FakeClock()))) as newer:
        for call in (lambda: newer.it.append("run-1", "x", {}), lambda: list(newer.it.export())):
            with pytest.raises(JournalError) as caught:
                call()
            assert caught.value.code == "journal.format"


class _Shut:
    """Shuts a journal where `close` is asked for."""

    def __init__(self, journal: PostgresJournal) -> None:
        self.it = journal

    def close(self) -> None:
        self.it.shut()


def test_an_older_format_is_copied_and_brought_up(
    journal: PostgresJournal, session: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """A later format is applied to what is there, and every table as it was is kept beside it."""
    fill(journal)
    before = list(journal.export())
    later = (*schema.FORMATS, "ALTER TABLE handrail.runs ADD COLUMN later text")
    for _ in range(2):
        schema.ensure(session, "then", later)
    assert list(journal.export()) == before
    for table in schema.TABLES:
        kept, now = (
            sql.SQL("SELECT count(*) FROM {}.{}").format(sql.Identifier(s), sql.Identifier(table))
            for s in ("handrail_backup_1", "handrail")
        )
        more = 1 if table == "versions" else 0
        assert session.execute(now).fetchone() == (_one(session, kept) + more,)
    session.execute("DROP SCHEMA handrail_backup_1 CASCADE")


def _one(session: psycopg.Connection[tuple[Any, ...]], query: sql.Composed) -> int:
    row = session.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_a_step_up_that_fails_leaves_the_old_format(
    journal: PostgresJournal, session: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """Where a later format cannot be applied, neither it nor its copy is there; work goes on."""
    journal.append("run-1", "begun", {})
    with pytest.raises(psycopg.errors.UndefinedTable):
        schema.ensure(session, "then", (*schema.FORMATS, "ALTER TABLE nowhere ADD COLUMN a text"))
    found = session.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'handrail%'")
    assert found.fetchall() == [("handrail",)]
    assert journal.append("run-1", "done", {}).sequence == 2


def test_a_role_without_rights_is_told_which(
    journal_database: str, postgres_server: Server
) -> None:
    """A role that may make no schema gets an error that says so, and nothing is made."""
    given = conninfo_to_dict(journal_database)
    postgres_server.execute("CREATE ROLE chi LOGIN PASSWORD 'chichichi'")
    try:
        url = postgres_server.url(str(given["dbname"]), user="chi", password="chichichi")
        with closing(_Shut(PostgresJournal(Link(url), FakeClock()))) as poor:
            with pytest.raises(JournalError, match="permission denied") as caught:
                poor.it.append("run-1", "begun", {})
            assert caught.value.code == "journal.unwritable"
            assert "GRANT" in caught.value.hint
    finally:
        postgres_server.execute("DROP ROLE chi")


def test_another_encoding_is_refused(postgres_server: Server) -> None:
    """A database that cannot hold every character is no place for a journal."""
    postgres_server.execute(
        "CREATE DATABASE latin OWNER ana ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    )
    try:
        with (
            closing(
                _Shut(PostgresJournal(Link(postgres_server.url("latin")), FakeClock()))
            ) as latin,
            pytest.raises(JournalError, match="LATIN1"),
        ):
            latin.it.append("run-1", "begun", {})
    finally:
        postgres_server.drop_database("latin")


@pytest.mark.parametrize("url", ["", "x", "/var/lib/journal.db", "host=db", "postgres://u:pw@[x/y"])
def test_an_address_that_cannot_be_read_is_not_repeated(url: str) -> None:
    """What is no address of PostgreSQL is refused, in words that do not hold it."""
    with pytest.raises(UsageError) as caught:
        Link(url)
    assert "pw" not in f"{caught.value} {caught.value.hint}"


def test_a_wrong_password_is_told_at_once(journal_database: str) -> None:
    """Refused credentials are no reason to wait, and are not shown."""
    url = make_conninfo(journal_database, password="hunter2hunter2")
    url = "postgresql://?" + "&".join(
        f"{key}={value}" for key, value in conninfo_to_dict(url).items() if key != "hostaddr"
    )
    journal = PostgresJournal(Link(url, patience_s=1000), FakeClock())
    with pytest.raises(JournalError, match="password authentication failed") as caught:
        journal.append("run-1", "begun", {})
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    assert PASSWORD not in str(caught.value)


def test_commits_are_durable_whatever_the_role_says(
    journal: PostgresJournal, session: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """A role whose commits do not wait for the disk waits all the same in the journal."""
    session.execute("ALTER ROLE ana SET synchronous_commit = off")
    try:
        with closing(journal._link.connect()) as ours:
            assert ours.execute("SHOW synchronous_commit").fetchone() == ("on",)
    finally:
        session.execute("ALTER ROLE ana RESET synchronous_commit")


def test_open_chains_are_found_without_reading_all(
    journal: PostgresJournal, session: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """Which chains are open is one scan of an index that holds no closed one."""
    journal.append("walk-1", "opened", {})
    session.execute("SET enable_seqscan = off")
    plan = session.execute(
        "EXPLAIN SELECT chain FROM handrail.chains"
        " WHERE is_open AND chain >= 'walk-' AND chain < 'walk.' ORDER BY opened"
    ).fetchall()
    assert any("open_chains" in line for (line,) in plan)
