"""What a script did on a server that others use is read from its counters, and fails closed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from handrail.plans.effect import Effect
from support.postgres_server import Scene, Server, nets, said

pytestmark = pytest.mark.postgres

BASE = """
CREATE TABLE city (id integer PRIMARY KEY, name text);
INSERT INTO city SELECT i, 'city ' || i FROM generate_series(1, 100) i;
CREATE TABLE loose (word text);
INSERT INTO loose SELECT 'same' FROM generate_series(1, 30);
"""


@pytest.fixture
def scene(postgres_server: Server, tmp_path: Path) -> Iterator[Scene]:
    """A database with two tables, and a script's role that is a superuser."""
    database = postgres_server.make_database()
    made = Scene(postgres_server.store(database, superuser=True), tmp_path)
    made.prepare(BASE)
    yield made
    postgres_server.drop_database(database)


def of_tables(effects: tuple[Effect, ...]) -> dict[tuple[str, str], int | None]:
    """Return rows of tables by verb and name."""
    return {
        (verb, name): rows for (verb, kind, name), rows in said(effects).items() if kind == "table"
    }


def test_net_is_not_claimed(scene: Scene) -> None:
    """Rows are counted, and what differs is left open: others may have written too."""
    found = scene.effects("DELETE FROM loose; INSERT INTO loose VALUES ('a')")
    assert of_tables(found) == {("delete", "loose"): 30, ("insert", "loose"): 1}
    assert set(nets(found).values()) == {None}


def test_rollback_is_admitted(scene: Scene) -> None:
    """Where transactions were rolled back the numbers are said to be at most that."""
    found = scene.effects("BEGIN; DELETE FROM loose; ROLLBACK; DELETE FROM city WHERE id = 1")
    assert of_tables(found)[("delete", "city")] == 1
    assert all("at most: 1 transactions" in effect.detail for effect in found)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("TRUNCATE loose", {("truncate", "loose"): 30}),
        (
            "TRUNCATE loose; INSERT INTO loose SELECT 'n' FROM generate_series(1, 30)",
            {("truncate", "loose"): 30, ("insert", "loose"): 30},
        ),
        ("DROP TABLE loose", {("drop", "loose"): 30}),
        (
            "CREATE TABLE n AS TABLE loose; DROP TABLE loose; ALTER TABLE n RENAME TO loose",
            {("replace", "loose"): 30, ("insert", "loose"): 30},
        ),
        ("VACUUM FULL city", {("alter", "city"): None}),
    ],
)
def test_without_row_events(
    scene: Scene, script: str, expected: dict[tuple[str, str], int | None]
) -> None:
    """Rows lost without a row event are those that the table had before."""
    assert of_tables(scene.effects(script)) == expected


def test_rewritten(scene: Scene) -> None:
    """A column of another type is a rewrite of every row."""
    found = scene.effects("ALTER TABLE city ALTER name TYPE integer USING length(name)")
    assert of_tables(found) == {("rewrite", "city"): 100}


@pytest.mark.parametrize(
    "script",
    [
        "SET track_counts = off; DELETE FROM loose",
        "SET track_counts = off; UPDATE loose SET word = 'x'",
        "SET track_counts = off; INSERT INTO loose SELECT 'n' FROM generate_series(1, 30)",
        "DELETE FROM loose; SELECT pg_stat_force_next_flush(); SELECT pg_stat_reset()",
        "UPDATE loose SET word = 'x'; SELECT pg_stat_force_next_flush(); SELECT pg_stat_reset()",
    ],
)
def test_counters_deceived(scene: Scene, script: str) -> None:
    """Where counters were off or reset, what changed is unknown, with the rows that it touched."""
    found = scene.effects(script)
    assert ("unknown", "loose") in of_tables(found)
    assert of_tables(found)[("unknown", "loose")] == 30


def test_others_are_counted(scene: Scene) -> None:
    """What another session writes meanwhile is counted too: nobody can tell it apart."""
    with psycopg.connect(scene.store.connection().parts["url"], autocommit=True) as other:
        before = Path(scene._folder) / "shared"
        before.mkdir()
        scene.store.observe(before)
        scene.prepare("DELETE FROM loose WHERE ctid = '(0,1)'")
        other.execute("DELETE FROM loose WHERE ctid = '(0,2)'")
        other.execute("SELECT pg_stat_force_next_flush()")
        other.execute("SELECT 1")
        assert of_tables(scene.store.effects(before)) == {("delete", "loose"): 2}


def test_script_that_stays(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection of the script that does not end makes the outcome unknown."""
    monkeypatch.setattr("handrail.adapters.postgres.effects.WAIT_S", 0.1)
    url = scene.store.connection().parts["url"]
    with psycopg.connect(url, application_name="handrail-script"):
        found = scene.effects("SELECT 1")
    assert [(e.verb, e.kind) for e in found] == [("unknown", "connection")]


def test_cluster(scene: Scene, postgres_server: Server) -> None:
    """Databases and roles that came and went anywhere on the server are effects."""
    found = scene.effects("CREATE DATABASE surprise; CREATE ROLE bert")
    assert ("create", "database", "surprise") in said(found)
    assert ("create", "role", "bert") in said(found)
    found = scene.effects("DROP DATABASE surprise; DROP ROLE bert")
    assert ("drop", "database", "surprise") in said(found)
    assert ("drop", "role", "bert") in said(found)


def test_own_database_dropped(scene: Scene) -> None:
    """A script that drops the database it was meant for has dropped all its tables."""
    name = scene.store.connection().parts["database"]
    before = Path(scene._folder) / "dropped"
    before.mkdir()
    scene.store.observe(before)
    scene_of_server = scene.psql(f"DROP DATABASE {name}", PGDATABASE="postgres")
    assert scene_of_server.returncode == 0
    found = scene.store.effects(before)
    assert said(found)[("drop", "table", "city")] == 100
    assert ("drop", "database", name) in said(found)
