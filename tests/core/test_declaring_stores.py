"""Writing declarations: a store's own facts, and who it is, in files that read back the same."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from handrail import wiring
from handrail.core import starting
from handrail.core.adopting import adopt, scalar, with_identity
from handrail.core.world import World
from handrail.errors import UsageError
from handrail.estate.model import Resource
from support.builders import make_store
from support.declarations import problems, read, write

OLD = "CREATE TABLE readings (id INTEGER PRIMARY KEY, at TEXT); INSERT INTO readings VALUES "
SCRIPT = "#!/bin/sh\n"


def make_database(path: Path, *statements: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    for statement in statements:
        database.executescript(statement)
    database.close()
    return path


def make_world(root: Path) -> World:
    return wiring.world(root, root / ".handrail", {"HANDRAIL_PERSON": "ana@example.org"})


def declare(root: Path, database: Path, environment: str, script: str) -> starting.Written:
    world = make_world(root)
    return starting.declare(world, read(root).estate, str(database), environment, script)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def test_a_database_is_declared_by_its_own_facts(root: Path) -> None:
    """Kind, address below the repository, identity and content: what is written can be planned."""
    database = make_database(root / "data/pilot.db", OLD + "(1, '2019-03-02 10:00:00')")
    write(root, {"scripts/reset pilot.sh": SCRIPT})
    script = str(root / "scripts/reset pilot.sh")
    written = declare(root, database, "pilot", script)
    assert problems(root) == ()
    declared = read(root)
    store = declared.estate.stores["store/pilot"].store
    assert store is not None
    assert (store.kind, store.url.value) == ("sqlite", "data/pilot.db")
    assert store.identity.endswith(f"@{database}")
    assert store.holds == ("production-data",)
    assert declared.operations["reset-pilot"].argv == ("./scripts/reset pilot.sh",)
    assert written.next == "handrail rehearse reset-pilot"


def test_young_rows_are_not_declared_as_real(root: Path) -> None:
    """Only rows that are older than 30 days say so by themselves."""
    database = make_database(root / "new.db", "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    declare(root, database, "pilot", "")
    store = read(root).estate.stores["store/new"].store
    assert store is not None
    assert store.holds == ()


def test_a_table_cannot_declare_anything(root: Path) -> None:
    """A name with line ends in a database is a comment, whatever it says."""
    name = "x\nservices:\n  evil: {}\n# "
    database = make_database(root / "a.db", f'CREATE TABLE "{name}" (id INTEGER PRIMARY KEY)')
    declare(root, database, "pilot", "")
    assert list(read(root).estate.resources) == ["store/a", "object/backups"]


@pytest.mark.parametrize("name", ["a b.db", "a # b.db", "a: b.db", 'a"b.db', "é.db", "_.db", "yes"])
def test_a_path_of_any_letters_reads_back_the_same(root: Path, name: str) -> None:
    """Quotes, comments and colons in a path stay part of the path and of the identity."""
    database = make_database(root / "data" / name, "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    declare(root, database, "pilot", "")
    (resource,) = read(root).estate.stores.values()
    assert resource.store is not None
    assert resource.store.url.value == f"data/{name}"
    assert resource.store.identity.endswith(f"@{database}")


def test_an_environment_must_have_a_name(root: Path) -> None:
    """What is given on the command line becomes no line of its own in a file."""
    database = make_database(root / "a.db", "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    with pytest.raises(UsageError) as caught:
        declare(root, database, "pilot:\n  x", "")
    assert caught.value.code == "estate.bad-name"
    assert not (root / "estate").exists()


def test_a_script_outside_is_not_declared(root: Path) -> None:
    """It would be no part of a commit; nothing is written then."""
    database = make_database(root / "a.db", "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    with pytest.raises(UsageError) as caught:
        declare(root, database, "pilot", "/bin/sh")
    assert caught.value.code == "operations.script-missing"
    assert not (root / "estate").exists()


BLOCK = """\
# the pilot's stores
stores:
  first:
    kind: sqlite
    url: a.db
  pilot-db:                # the one
    # where it is
    kind: sqlite
    url: data/pilot.db     # relative
    contraindications:
      - operation: x
        because: y
  last:
    kind: sqlite
    url: b.db
"""


def test_an_identity_is_put_into_its_store_alone() -> None:
    """One line comes, and everything else stays: comments, order and the neighbours."""
    changed = with_identity(BLOCK, make_store(), "sqlite:1@/a")
    lines = changed.splitlines()
    lines.remove("    identity: sqlite:1@/a")
    assert "\n".join(lines) + "\n" == BLOCK
    assert "pilot-db:" in changed[: changed.index("identity")]
    assert "last:" in changed[changed.index("identity") :]


def test_an_identity_is_replaced_where_it_stands() -> None:
    """Twice equals once, and a newer one takes the place of the older, comment included."""
    once = with_identity(BLOCK, make_store(), "sqlite:1@/a")
    assert with_identity(once, make_store(), "sqlite:1@/a") == once
    kept = once.replace("sqlite:1@/a", "'sqlite:1@/a'  # on Monday")
    assert with_identity(kept, make_store(), "sqlite:2@/b") == once.replace(
        "sqlite:1@/a", "sqlite:2@/b  # on Monday"
    )


def test_line_ends_stay_as_they_are() -> None:
    """A file that was written on another system keeps its line ends, all of one kind."""
    changed = with_identity(BLOCK.replace("\n", "\r\n"), make_store(), "sqlite:1@/a")
    assert changed.count("\n") == changed.count("\r\n") == BLOCK.count("\n") + 1


@pytest.mark.parametrize(
    "text",
    [
        "stores:\n  pilot-db: {kind: sqlite, url: a.db}\n",
        "stores: {pilot-db: {kind: sqlite, url: a.db}}\n",
        "stores:\n  pilot-db:\n    {kind: sqlite, url: a.db}\n",
        "stores:\n  another:\n    kind: sqlite\n",
    ],
)
def test_keys_in_one_line_are_not_torn_apart(text: str) -> None:
    """Nothing is written into a file that could not be read afterwards."""
    with pytest.raises(UsageError) as caught:
        with_identity(text, make_store(), "sqlite:1@/a")
    assert "a line each" in caught.value.message


def adopted(root: Path) -> Resource:
    return read(root).estate.stores["store/pilot-db"]


def test_adopting_twice_is_adopting_once(root: Path) -> None:
    """The file has the identity that the store says, with its mode; again changes no byte."""
    make_database(root / "data/pilot.db", "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    file = write(root, {"estate/a.yaml": BLOCK}) / "estate/a.yaml"
    file.chmod(0o640)
    identity = adopt(make_world(root), adopted(root))
    once = file.read_bytes()
    store = adopted(root).store
    assert store is not None
    assert store.identity == str(identity)
    assert file.stat().st_mode & 0o777 == 0o640
    assert adopt(make_world(root), adopted(root)) == identity
    assert file.read_bytes() == once
    assert [path.name for path in file.parent.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize("text", ["a", "/srv/a.db", "sqlite:5d0c@/srv/a b.db", "#", "a: b", "null"])
def test_a_scalar_reads_back_the_same(root: Path, text: str) -> None:
    """Whatever is written as one is read as it."""
    store = replace(make_store(), name="pilot-db")
    changed = with_identity(BLOCK, store, text)
    assert f"identity: {scalar(text)}\n" in changed
    found = adopted(write(root, {"estate/a.yaml": changed})).store
    assert found is not None
    assert found.identity == text
