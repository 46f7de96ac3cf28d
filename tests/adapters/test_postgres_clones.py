"""A clone is as the original was, shares nothing with it, and goes whole, killed or not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from handrail.adapters.postgres import PostgresStore, scratch
from handrail.errors import StoreError
from handrail.ports import Store
from support.postgres_server import OWNER, PASSWORD, Scene, Server, said, tools
from support.store_contract import MARKER, TABLES, quiet

pytestmark = pytest.mark.postgres


@pytest.fixture
def database(postgres_server: Server) -> Iterator[str]:
    """A database with three tables."""
    name = postgres_server.make_database()
    with psycopg.connect(postgres_server.url(name)) as session:
        session.execute(TABLES.encode())
    yield name
    postgres_server.drop_database(name)


def make_clone(store: Store, folder: Path) -> Store:
    """Return a clone of the store as it is now."""
    (folder / "backup").mkdir()
    backup = store.backup("b1", folder / "backup", quiet)
    return store.clone(backup, folder / "at", MARKER, quiet)


@pytest.fixture(params=["pg_dump", "pg_basebackup"])
def form(request: pytest.FixtureRequest) -> str:
    """Both forms of a backup."""
    return str(request.param)


def store_of(server: Server, database: str, form: str) -> PostgresStore:
    """Return a store whose backups have that form."""
    physical = form == "pg_basebackup"
    return server.store(database, superuser=physical, physical=physical)


@pytest.fixture(autouse=True)
def any_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small database be copied as well, though others are as large."""
    monkeypatch.setattr("handrail.adapters.postgres.backups.PHYSICAL_SHARE", 0.0)


def test_both_forms(postgres_server: Server, database: str, form: str, tmp_path: Path) -> None:
    """Either form gives the same content, exact effects, and an undo that leaves nothing."""
    store = store_of(postgres_server, database, form)
    before = store.fingerprint()
    (tmp_path / "backup").mkdir()
    backup = store.backup("b1", tmp_path / "backup", quiet)
    assert (backup.form, backup.fingerprint) == (form, before)
    clone = store.clone(backup, tmp_path / "at", MARKER, quiet)
    try:
        who = clone.identify()
        assert who.marker == MARKER
        assert who.endpoint != store.identify().endpoint
        assert clone.fingerprint().differences(before) == ()
        found = Scene(clone, tmp_path).effects(
            "DELETE FROM readings WHERE id < 4; DROP TABLE loose"
        )
        assert said(found)[("delete", "table", "readings")] == 3
        assert said(found)[("drop", "table", "loose")] == 5
        assert clone.restore(backup, quiet) == ()
        assert clone.fingerprint().differences(before) == ()
    finally:
        store.discard(tmp_path / "at")
    assert store.fingerprint() == before


def test_physical_restore(postgres_server: Server, database: str, tmp_path: Path) -> None:
    """A physical copy restores one database of a server that lives on."""
    store = store_of(postgres_server, database, "pg_basebackup")
    (tmp_path / "backup").mkdir()
    before = store.fingerprint()
    backup = store.backup("b1", tmp_path / "backup", quiet)
    with psycopg.connect(postgres_server.url(database)) as session:
        session.execute("DROP TABLE readings")
    assert store.restore(backup, quiet) == ()
    assert store.fingerprint().differences(before) == ()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backup"]


def test_role_of_the_script(
    postgres_server: Server, database: str, form: str, tmp_path: Path
) -> None:
    """The script runs as the original's role with its rights and settings, by another password."""
    postgres_server.execute(
        f"CREATE SCHEMA other AUTHORIZATION {OWNER}; CREATE TABLE other.hire (i int);"
        f"ALTER TABLE other.hire OWNER TO {OWNER}; INSERT INTO other.hire VALUES (1);"
        f'ALTER ROLE {OWNER} IN DATABASE {database} SET search_path = other, "$user", public',
        database,
    )
    if form == "pg_basebackup":
        postgres_server.execute(f"ALTER ROLE {OWNER} REPLICATION")
    physical = form == "pg_basebackup"
    store = postgres_server.store(database, physical=physical)
    clone = make_clone(store, tmp_path)
    try:
        parts = clone.connection().parts
        assert parts["user"] == OWNER
        assert parts["password"] != PASSWORD
        assert clone.identify().id.endswith(f"/{database}")
        scene = Scene(clone, tmp_path)
        assert said(scene.effects("DELETE FROM hire")) == {("delete", "table", "other.hire"): 1}
        refused = scene.psql("CREATE ROLE more")
        assert "permission denied" in refused.stderr
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(parts["url"].replace(parts["password"], "guess"))
    finally:
        store.discard(tmp_path / "at")
        postgres_server.execute(f"ALTER ROLE {OWNER} NOREPLICATION")


def test_clone_is_a_cage(postgres_server: Server, database: str, tmp_path: Path) -> None:
    """Roles, settings, databases and grants changed on the clone are the clone's alone."""
    store = postgres_server.store(database, superuser=True)
    watched = tmp_path / "watched"
    watched.mkdir()
    store.observe(watched)
    clone = make_clone(store, tmp_path)
    try:
        Scene(clone, tmp_path).prepare(f"""
            ALTER ROLE {OWNER} SUPERUSER PASSWORD 'x'; DROP OWNED BY {OWNER} CASCADE;
            ALTER SYSTEM SET work_mem = '77MB'; CREATE DATABASE more;
            SELECT pg_create_physical_replication_slot('mine');""")
    finally:
        store.discard(tmp_path / "at")
    assert store.effects(watched) == ()


def test_statistics(postgres_server: Server, database: str, tmp_path: Path) -> None:
    """The clone's tables are analysed: a script that reads estimates finds the original's."""
    store = postgres_server.store(database)
    clone = make_clone(store, tmp_path)
    try:
        question = "SELECT reltuples FROM pg_class WHERE oid = 'public.readings'::regclass"
        assert clone.ask(question, 10.0) == "12"
    finally:
        store.discard(tmp_path / "at")


def test_other_databases_can_be_dropped(
    postgres_server: Server, database: str, tmp_path: Path
) -> None:
    """A script that drops another database of the server is seen to, also from a dump."""
    other = postgres_server.make_database()
    store = postgres_server.store(database)
    clone = make_clone(store, tmp_path)
    try:
        found = Scene(clone, tmp_path).effects(f"DROP DATABASE IF EXISTS {other}")
        assert ("drop", "database", other) in said(found)
    finally:
        store.discard(tmp_path / "at")
        postgres_server.drop_database(other)


CHILD = """
import sys
from pathlib import Path
from handrail.adapters.postgres import PostgresStore
from handrail.adapters.postgres.notes import FILE
from handrail.plans.facts import Backup, Identity
folder = Path(sys.argv[2])
store = PostgresStore("store/x", sys.argv[1])
backup = Backup("b1", str(folder / "backup"), "pg_dump", 1, "", Identity("a", "b"))
print("begun", flush=True)
store.clone(backup, folder / "at", "m", lambda done, total: None)
print("done", flush=True)
input()
"""


@pytest.mark.parametrize("after_s", [0.02, 0.3, 0.8, None])
def test_killed_maker(
    postgres_server: Server, database: str, tmp_path: Path, after_s: float | None
) -> None:
    """A clone whose maker was killed, at any moment, is removed by another process."""
    store = postgres_server.store(database)
    (tmp_path / "backup").mkdir()
    store.backup("b1", tmp_path / "backup", quiet)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, postgres_server.url(database), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **tools()},
    )
    assert child.stdout
    assert child.stdin
    assert child.stdout.readline() == "begun\n"
    if after_s is None:
        assert child.stdout.readline() == "done\n"
    else:
        time.sleep(after_s)  # a real process at work: any moment will do
    child.send_signal(signal.SIGKILL)
    child.communicate()
    at = tmp_path / "at"
    run = _run_of(at)
    store.discard(at)
    assert not at.exists()
    assert run is None or not run.exists()
    assert not list(scratch.inside(at, *([run] if run else [])))
    store.discard(at)


def _run_of(at: Path) -> Path | None:
    if not (at / scratch.RECORD).exists():
        return None
    found = re.search(r'"run": "([^"]+)"', (at / scratch.RECORD).read_text())
    return Path(found[1]) if found else None


def test_record_cannot_point_elsewhere(postgres_server: Server, tmp_path: Path) -> None:
    """A record that names a directory that is not a clone's removes nothing there."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis").write_text("years")
    at = tmp_path / "at"
    at.mkdir()
    (at / scratch.RECORD).write_text(f'{{"format": 1, "run": "{victim}", "home": "{victim}"}}')
    postgres_server.store("postgres").discard(at)
    assert (victim / "thesis").read_text() == "years"
    assert not at.exists()


def test_missing_extension(postgres_server: Server, database: str, tmp_path: Path) -> None:
    """An extension that is not on this machine is named."""
    store = postgres_server.store(database)
    (tmp_path / "backup").mkdir()
    backup = store.backup("b1", tmp_path / "backup", quiet)
    notes = tmp_path / "backup" / "notes.json"
    notes.write_text(notes.read_text().replace('"extensions":[', '"extensions":["postgis",'))
    with pytest.raises(StoreError) as raised:
        store.clone(backup, tmp_path / "at", MARKER, quiet)
    store.discard(tmp_path / "at")
    assert "postgis" in str(raised.value)


def test_backup_that_fails_leaves_nothing(
    postgres_server: Server, database: str, tmp_path: Path
) -> None:
    """A table that the role may not read fails the backup, names the right, and leaves no file."""
    postgres_server.execute("CREATE TABLE secret (i int)", database)
    (tmp_path / "backup").mkdir()
    with pytest.raises(StoreError) as raised:
        postgres_server.store(database).backup("b1", tmp_path / "backup", quiet)
    assert raised.value.code == "store.denied"
    assert list((tmp_path / "backup").iterdir()) == []


def test_restore_of_a_dropped_database(
    postgres_server: Server, database: str, tmp_path: Path
) -> None:
    """A database that was dropped entirely comes back, with its settings, owner and grants."""
    postgres_server.execute(f"ALTER DATABASE {database} SET work_mem = '5MB'")
    postgres_server.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")
    store = postgres_server.store(database)
    before = store.fingerprint()
    (tmp_path / "backup").mkdir()
    backup = store.backup("b1", tmp_path / "backup", quiet)
    postgres_server.execute(f"DROP DATABASE {database}")
    assert store.restore(backup, quiet) == ()
    assert store.fingerprint().differences(before) == ()
    assert store.ask("SHOW work_mem", 10.0) == "5MB"


def test_restore_keeps_what_was_there(
    postgres_server: Server, database: str, tmp_path: Path
) -> None:
    """What a restore replaced is kept beside it, and everybody connected is sent away."""
    store = postgres_server.store(database)
    (tmp_path / "backup").mkdir()
    backup = store.backup("b1", tmp_path / "backup", quiet)
    with psycopg.connect(postgres_server.url(database), autocommit=True) as session:
        session.execute("DELETE FROM loose")
        store.restore(backup, quiet)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    query = f"SELECT datname FROM pg_database WHERE datname ~ '^{database}_before_'"
    kept = store.ask(query, 10.0)
    assert postgres_server.store(kept).ask("SELECT count(*) FROM loose", 10.0) == "0"
    assert store.ask("SELECT count(*) FROM loose", 10.0) == "5"


def test_restore_says_what_it_left(postgres_server: Server, database: str, tmp_path: Path) -> None:
    """Roles and databases are not put back, and are named."""
    store = postgres_server.store(database)
    (tmp_path / "backup").mkdir()
    backup = store.backup("b1", tmp_path / "backup", quiet)
    postgres_server.execute("CREATE ROLE bert")
    try:
        assert store.restore(backup, quiet) == ("role bert: created",)
    finally:
        postgres_server.execute("DROP ROLE bert")


def test_restore_without_the_right(postgres_server: Server, database: str, tmp_path: Path) -> None:
    """A role that may not make databases is told which right it needs."""
    store = postgres_server.store(database)
    (tmp_path / "backup").mkdir()
    backup = store.backup("b1", tmp_path / "backup", quiet)
    postgres_server.execute(f"ALTER ROLE {OWNER} NOCREATEDB")
    try:
        with pytest.raises(StoreError) as raised:
            store.restore(backup, quiet)
    finally:
        postgres_server.execute(f"ALTER ROLE {OWNER} CREATEDB")
    assert "CREATEDB" in raised.value.hint
