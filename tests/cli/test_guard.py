"""`handrail guard`: any command, on real databases, with no estate."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.postgres_server import Server, server_binaries

ROWS = 20
DELETE = "DELETE FROM sessions WHERE id <= 15"
SQLITE = """\
import os, sqlite3, sys
connection = sqlite3.connect(os.environ["SQLITE_DATABASE"], isolation_level=None)
connection.execute(sys.argv[1])
print("worked")
"""


@dataclass(frozen=True)
class Answer:
    """What a command line answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Place:
    """A directory that never saw an estate, and a database."""

    folder: Path
    options: tuple[str, ...]
    command: tuple[str, ...]
    environment: dict[str, str]

    def guard(self, sql: str, *options: str, **environment: str) -> Answer:
        """Run a command that executes `sql` behind a guard."""
        words = ("guard", *self.options, *options, "--", *self.command, sql)
        done = subprocess.run(
            [sys.executable, "-m", "handrail", *words],
            cwd=self.folder,
            env={**os.environ, **self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def lite(tmp_path: Path) -> Place:
    """A SQLite database, and a script that finds it by its variable."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE sessions (id INTEGER PRIMARY KEY)")
        connection.executemany(
            "INSERT INTO sessions VALUES (?)", [(n,) for n in range(1, ROWS + 1)]
        )
    (tmp_path / "change.py").write_text(SQLITE)
    command = (sys.executable, str(tmp_path / "change.py"))
    return Place(tmp_path, ("--sqlite", str(path)), command, {})


def rows(place: Place) -> int:
    """Return how many sessions a SQLite database has."""
    with closing(sqlite3.connect(place.folder / "app.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM sessions").fetchone()[0])


def test_observed(lite: Place) -> None:
    """Its output stays its own; the report comes after it, on stderr."""
    answer = lite.guard(DELETE)
    assert (answer.code, answer.out) == (0, "worked\n")
    assert "delete  table sessions  15 rows" in answer.err
    assert "observed only: nothing was held" in answer.err
    assert rows(lite) == 5


def test_budget_of_what_was_seen(lite: Place) -> None:
    """What one run was seen to do is what the next may do, and not a row more."""
    assert lite.guard(DELETE, "--write-budget", "b.yaml").code == 0
    assert "rows: 15" in (lite.folder / "b.yaml").read_text()
    with closing(sqlite3.connect(lite.folder / "app.db", isolation_level=None)) as connection:
        connection.executemany("INSERT INTO sessions VALUES (?)", [(n,) for n in range(1, 16)])
    stopped = lite.guard("DELETE FROM sessions", "--budget", "b.yaml")
    assert stopped.code == 5, stopped.err
    assert "would have deleted more than its budget allows" in stopped.err
    assert "20 deleted so far; budget 15, tolerance 0" in stopped.err
    assert rows(lite) == ROWS
    assert lite.guard(DELETE, "--budget", "b.yaml").code == 0
    assert rows(lite) == 5


def test_json(lite: Place) -> None:
    """With --json the report is the one object on stdout, whatever the command prints."""
    answer = lite.guard(DELETE, "--json")
    assert answer.json["format"] == 1
    assert [(e["verb"], e["rows"]) for e in answer.json["effects"]] == [("delete", 15)]
    assert answer.json["reports"][0]["how"] == "observed only"
    assert answer.json["command"]["exit_code"] == 0
    assert "worked" in answer.err


def test_read_only(lite: Place) -> None:
    """Under --read-only nothing is written."""
    assert lite.guard(DELETE, "--read-only").code == 5
    assert rows(lite) == ROWS
    assert lite.guard("SELECT 1", "--read-only").code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", "none.yaml"), "none.yaml"),
        (("--budget", "bad.yaml"), "bad.yaml:2"),
        (("--store", "nothing"), "no store `nothing`"),
    ],
)
def test_wrong(lite: Place, options: tuple[str, ...], said: str) -> None:
    """A wrong call is told with its place, and nothing is run."""
    (lite.folder / "bad.yaml").write_text("format: 1\nallow: [{verb: shred, kind: a, name: b}]\n")
    answer = lite.guard(DELETE, *options)
    assert (answer.code, said in answer.err) == (2, True), answer.err
    assert rows(lite) == ROWS


@pytest.fixture
def psql(postgres_server: Server, tmp_path: Path) -> Place:
    """A PostgreSQL database whose deletes cascade, and psql."""
    database = postgres_server.make_database()
    binaries = server_binaries()
    assert binaries is not None
    with psycopg.connect(postgres_server.url(database), autocommit=True) as session:
        session.execute("CREATE TABLE sessions (id int PRIMARY KEY)")
        session.execute(
            "CREATE TABLE seen (id serial PRIMARY KEY,"
            " session int REFERENCES sessions ON DELETE CASCADE)"
        )
        session.execute(f"INSERT INTO sessions SELECT generate_series(1, {ROWS})")
        session.execute(
            "INSERT INTO seen (session) SELECT id % 20 + 1 FROM generate_series(1, 60) id"
        )
    tool = str(binaries.program("psql"))
    options = ("--postgres", postgres_server.url(database))
    return Place(tmp_path, options, (tool, "-X", "-v", "ON_ERROR_STOP=1", "-c"), {})


def count(place: Place, table: str = "sessions") -> int:
    """Return how many rows a table of the PostgreSQL database has."""
    with psycopg.connect(place.options[1]) as session:
        row = session.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.postgres
def test_postgres(psql: Place) -> None:
    """A budget counts what cascades, and stops the transaction before its COMMIT."""
    seen = psql.guard("DELETE FROM sessions WHERE id <= 2", "--write-budget", "b.yaml")
    assert (seen.code, seen.out) == (0, "DELETE 2\n"), seen.err
    assert "delete  table seen      6 rows" in seen.err
    stopped = psql.guard("DELETE FROM sessions WHERE id <= 6", "--budget", "b.yaml")
    assert stopped.code == 5, stopped.err
    assert "stopped before COMMIT" in stopped.err
    assert (count(psql), count(psql, "seen")) == (ROWS - 2, 54)
    allowed = psql.guard("DELETE FROM sessions WHERE id <= 4", "--budget", "b.yaml")
    assert (allowed.code, count(psql)) == (0, ROWS - 4), allowed.err


@pytest.mark.postgres
def test_postgres_environment(psql: Place) -> None:
    """What points at the database points at its guard, whatever the environment said before."""
    url = psql.options[1]
    found = psql.guard(
        "SELECT 'as ' || current_setting('application_name')",
        PGHOST="192.0.2.1",
        PILOT_DB_URL=url,
    )
    assert found.code == 0, found.err
    assert "as " in found.out
