"""What every `Store` adapter proves: the sentences of `handrail.ports.Store` as tests.

Use: subclass `StoreContract` as `TestSomething` and give the abstract methods. Rules:
- The SQL here is what SQLite and PostgreSQL both take; what they spell differently is a hook.
- Amounts are compared as rows that differ afterwards (`net` where counted, else `rows`): how often
  a row was touched in between is each adapter's own test.
- A store may say more than is asked for here about objects that it alone has (sequences, owners);
  about the tables named here it says exactly what is expected.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from handrail.errors import StoreError
from handrail.plans.effect import Effect, worst_first
from handrail.plans.facts import Backup
from handrail.ports import Store

TABLES = """
CREATE TABLE devices (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE readings (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    value TEXT,
    taken_at TIMESTAMP
);
CREATE TABLE loose (word TEXT, amount INTEGER);
INSERT INTO devices VALUES (1, 'pump'), (2, 'valve'), (3, 'naïve "fan"');
INSERT INTO readings VALUES
    (1, 1, 'a', '2019-03-02 10:00:00'), (2, 1, 'b', '2020-01-01 00:00:00'),
    (3, 1, NULL, '2020-01-02 00:00:00'), (4, 1, 'd', '2020-01-03 00:00:00'),
    (5, 2, 'e', '2020-01-04 00:00:00'), (6, 2, 'f', '2020-01-05 00:00:00'),
    (7, 2, 'g', '2020-01-06 00:00:00'), (8, 2, 'h', NULL),
    (9, 3, 'i', '2020-01-08 00:00:00'), (10, 3, 'j', '2020-01-09 00:00:00'),
    (11, 3, 'k', '2020-01-10 00:00:00'), (12, 3, 'l', '2024-06-30 23:59:59');
INSERT INTO loose VALUES ('same', 1), ('same', 1), ('same', 1), ('other', 2), (NULL, NULL);
"""
MIXED = """
DELETE FROM readings WHERE id = 1;
UPDATE readings SET value = 'q' WHERE id = 2;
INSERT INTO readings VALUES (99, 1, NULL, NULL);
"""
WORST_LAST = """
CREATE TABLE extra (a INTEGER);
INSERT INTO loose VALUES ('w', 1);
UPDATE devices SET name = 'x' WHERE id = 1;
DELETE FROM loose WHERE word = 'other';
DROP TABLE readings;
"""
MARKER = "5d0c5d0c5d0c5d0c5d0c5d0c5d0c5d0c"

# (verb, kind, name) to the rows that differ; 0 for what holds no rows.
Amounts = dict[tuple[str, str, str], int]


def quiet(done: int, total: int | None) -> None:
    """Take progress and say nothing."""


def amounts(effects: Iterable[Effect]) -> Amounts:
    """Return the rows that differ for each thing done; nothing for what cancelled itself out."""
    found = {(e.verb, e.kind, e.name): e for e in effects}
    differ = {key: e.rows if e.net is None else e.net for key, e in found.items()}
    return {key: rows or 0 for key, rows in differ.items() if rows != 0}


class StoreContract(ABC):
    """The tests. A subclass says how its stores are made and written to."""

    @abstractmethod
    def make_store(self, at: Path) -> Store:
        """Return a new, empty, adopted store; `at` is an empty directory of its own."""

    @abstractmethod
    def execute(self, store: Store, sql: str) -> None:
        """Run the statements of `sql` on `store` and commit; foreign keys are enforced."""

    @abstractmethod
    def missing_store(self, at: Path) -> Store:
        """Return a store that is properly addressed, but does not exist."""

    @abstractmethod
    def audit_deletes_sql(self) -> str:
        """Return SQL that makes every row deleted from `readings` a row of `audit (reading)`."""

    def name(self, table: str) -> str:
        """Return how effects and measures name `table`; override where they qualify it."""
        return table

    def make_observed(self, store: Store, at: Path) -> Store:
        """Return the store that effects are measured on: override where only a clone can."""
        return store

    def done_with(self, store: Store) -> None:  # noqa: B027 - files need nothing: pytest removes them
        """Remove what `make_store` or `make_observed` made; override where files are not all."""

    # --- the material --------------------------------------------------------------------------

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        """A store with three tables."""
        store = self.make_store(self.directory(tmp_path, "store"))
        self.execute(store, TABLES)
        yield store
        self.done_with(store)

    @pytest.fixture
    def observed(self, store: Store, tmp_path: Path) -> Iterator[Store]:
        """The same content, on the store that effects are measured on."""
        observed = self.make_observed(store, self.directory(tmp_path, "observed"))
        yield observed
        if observed is not store:
            self.done_with(observed)

    @staticmethod
    def directory(tmp_path: Path, name: str) -> Path:
        """Return a new empty directory."""
        path = tmp_path / name
        path.mkdir()
        return path

    def back_up(self, store: Store, tmp_path: Path, backup_id: str = "b1") -> Backup:
        """Return a backup of `store`."""
        return store.backup(backup_id, self.directory(tmp_path, f"backup-{backup_id}"), quiet)

    def effects_of(self, store: Store, tmp_path: Path, sql: str) -> tuple[Effect, ...]:
        """Return what `store` says has changed after `sql`."""
        before = self.directory(tmp_path, "before")
        store.observe(before)
        self.execute(store, sql)
        return store.effects(before)

    def of_tables(self, effects: Iterable[Effect], *tables: str) -> Amounts:
        """Return the amounts of those effects that are on `tables`."""
        names = {self.name(table) for table in tables}
        found = amounts(effects)
        return {key: rows for key, rows in found.items() if key[1] == "table" and key[2] in names}

    # --- identity ------------------------------------------------------------------------------

    def test_identity_is_kept(self, store: Store) -> None:
        """Adopting a store twice gives the identity that it already has, and no marker."""
        first = store.identify()
        assert store.adopt("0" * 32) == first
        assert store.identify() == first
        assert first.id
        assert first.endpoint
        assert first.version
        assert first.marker == ""

    def test_missing(self, tmp_path: Path) -> None:
        """A store that is not there is an error with a hint, never an empty store."""
        store = self.missing_store(self.directory(tmp_path, "nothing"))
        for _ in range(2):
            with pytest.raises(StoreError) as raised:
                store.identify()
            assert raised.value.hint

    def test_nobody_else(self, store: Store) -> None:
        """A store that nobody uses has no others."""
        assert store.others() == ()

    # --- looking -------------------------------------------------------------------------------

    def test_measure(self, store: Store) -> None:
        """Measuring gives exact rows a table, the span of its times, and a size."""
        measure = store.measure()
        found = {table.name: table for table in measure.tables}
        rows = {name: table.rows for name, table in found.items()}
        assert rows == {self.name("devices"): 3, self.name("readings"): 12, self.name("loose"): 5}
        readings = found[self.name("readings")]
        assert str(readings.oldest).startswith("2019-03-02T10:00:00")
        assert str(readings.newest).startswith("2024-06-30T23:59:59")
        assert found[self.name("devices")].oldest is None
        assert str(measure.oldest).startswith("2019-03-02T10:00:00")
        assert measure.size_bytes > 0

    def test_fingerprint_ignores_order(self, store: Store) -> None:
        """A row deleted and inserted again leaves the fingerprint as it was."""
        before = store.fingerprint()
        self.execute(
            store,
            "DELETE FROM readings WHERE id = 2;"
            "INSERT INTO readings VALUES (2, 1, 'b', '2020-01-01 00:00:00');"
            "DELETE FROM loose WHERE word = 'same';"
            "INSERT INTO loose VALUES ('same', 1), ('same', 1), ('same', 1);",
        )
        assert store.fingerprint().differences(before) == ()

    @pytest.mark.parametrize(
        ("sql", "where"),
        [
            ("UPDATE devices SET name = 'pumP' WHERE id = 1", "devices"),
            ("UPDATE readings SET value = '' WHERE value IS NULL", "readings"),
            ("INSERT INTO loose VALUES ('same', 1), ('same', 1)", "loose"),
            ("UPDATE loose SET word = NULL WHERE word = 'other'", "loose"),
            ("UPDATE readings SET value = 'xa' WHERE id = 1", "readings"),
            ("UPDATE readings SET id = id + 100", "readings"),
        ],
    )
    def test_fingerprint_sees_content(self, store: Store, sql: str, where: str) -> None:
        """A changed value, a NULL made empty, or two more of the same row change that table's."""
        before = store.fingerprint()
        self.execute(store, sql)
        assert store.fingerprint().differences(before) == (f"table {self.name(where)}",)

    def test_fingerprint_sees_shape(self, store: Store) -> None:
        """An index more changes the schema's checksum and no table's."""
        before = store.fingerprint()
        self.execute(store, "CREATE INDEX by_value ON readings (value)")
        assert store.fingerprint().differences(before) == ("schema",)

    def test_ask(self, store: Store) -> None:
        """Asking gives the first value of the first row as text, empty where there is none."""
        assert store.ask("SELECT count(*), 7 FROM readings", 20.0) == "12"
        assert store.ask("SELECT name FROM devices WHERE id = 99", 20.0) == ""
        assert store.ask("SELECT NULL", 20.0) == ""

    @pytest.mark.parametrize(
        "query",
        [
            "DELETE FROM loose",
            "DELETE FROM loose RETURNING amount",
            "SELECT 1; DELETE FROM loose",
            "COMMIT; DELETE FROM loose",
            "CREATE TABLE more (a INTEGER)",
            "SELECT nothing FROM nowhere",
            "not a query",
            "",
        ],
    )
    def test_ask_cannot_write(self, store: Store, query: str) -> None:
        """What is not one reading query is refused, and nothing is written."""
        before = store.fingerprint()
        with pytest.raises(StoreError):
            store.ask(query, 20.0)
        assert store.fingerprint() == before

    def test_ask_ends(self, store: Store) -> None:
        """A query that never ends is ended at its time limit."""
        endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i > 0) "
        with pytest.raises(StoreError):
            store.ask(endless + "SELECT count(*) FROM n WHERE i < 0", 0.2)

    def test_connection(self, store: Store) -> None:
        """A script gets the address, as an environment variable and as parts."""
        connection = store.connection()
        assert connection.environment["DATABASE_URL"] == connection.parts["url"]
        assert connection.parts["database"]
        assert connection.sockets or connection.paths

    # --- backup, clone, restore ----------------------------------------------------------------

    def test_backup(self, store: Store, tmp_path: Path) -> None:
        """A backup says what it holds, and making one leaves the store as it was."""
        before = store.fingerprint()
        backup = self.back_up(store, tmp_path)
        assert backup.id == "b1"
        assert Path(backup.path).is_absolute()
        assert Path(backup.path).is_relative_to(tmp_path / "backup-b1")
        assert backup.size_bytes > 0
        assert backup.identity == store.identify()
        assert backup.fingerprint in {None, before}
        assert store.fingerprint() == before

    def test_clone(self, store: Store, tmp_path: Path) -> None:
        """A clone holds the backup's content, is provably another store, and ends whole.

        One test for all of it: a clone is the dearest thing that a store makes.
        """
        before, original = store.fingerprint(), store.identify()
        backup = self.back_up(store, tmp_path)
        self.execute(store, "DELETE FROM loose")
        at = self.directory(tmp_path, "clone")
        clone = store.clone(backup, at, MARKER, quiet)
        who = clone.identify()
        assert clone.fingerprint().differences(before) == ()
        assert clone.resource == store.resource
        assert who.marker == MARKER
        assert who.endpoint != original.endpoint
        assert store.identify() == original
        assert clone.connection().parts["url"] != store.connection().parts["url"]
        assert at.stat().st_mode & 0o077 == 0
        self.execute(clone, "DELETE FROM readings")
        assert store.ask("SELECT count(*) FROM readings", 20.0) == "12"
        store.discard(at)
        assert not at.exists()
        store.discard(at)
        with pytest.raises(StoreError):
            clone.identify()
        assert store.ask("SELECT count(*) FROM readings", 20.0) == "12"

    def test_discard_nothing(self, store: Store, tmp_path: Path) -> None:
        """A clone that was never begun is discarded like any other."""
        store.discard(tmp_path / "never")
        empty = self.directory(tmp_path, "empty")
        store.discard(empty)
        assert not empty.exists()

    def test_discard_refuses(self, store: Store, tmp_path: Path) -> None:
        """A directory that is no clone is not removed."""
        somebody = self.directory(tmp_path, "somebody")
        (somebody / "thesis.txt").write_text("years of work")
        with pytest.raises(StoreError):
            store.discard(somebody)
        assert (somebody / "thesis.txt").read_text() == "years of work"

    def test_restore(self, store: Store, tmp_path: Path) -> None:
        """Restoring puts rows, tables and shape back, and twice equals once."""
        before = store.fingerprint()
        backup = self.back_up(store, tmp_path)
        self.execute(
            store,
            "DELETE FROM loose; UPDATE devices SET name = 'x'; DROP TABLE readings;"
            "ALTER TABLE devices ADD COLUMN colour TEXT; CREATE TABLE extra (a INTEGER);"
            "INSERT INTO extra VALUES (1);",
        )
        for _ in range(2):
            assert store.restore(backup, quiet) == ()
            assert store.fingerprint().differences(before) == ()
        assert store.identify() == backup.identity

    def test_restore_of_a_damaged_backup(self, store: Store, tmp_path: Path) -> None:
        """A backup whose files are gone is an error, and the store stays as it was."""
        backup = self.back_up(store, tmp_path)
        Path(backup.path).rename(tmp_path / "elsewhere")
        self.execute(store, "DELETE FROM loose")
        before = store.fingerprint()
        with pytest.raises(StoreError):
            store.restore(backup, quiet)
        assert store.fingerprint() == before

    # --- effects -------------------------------------------------------------------------------

    def test_no_effects(self, observed: Store, tmp_path: Path) -> None:
        """Nothing done, nothing said: also not about having looked."""
        fingerprint = observed.fingerprint()
        before = self.directory(tmp_path, "before")
        observed.observe(before)
        observed.measure()
        assert observed.effects(before) == ()
        assert observed.effects(before) == ()
        assert observed.fingerprint() == fingerprint

    @pytest.mark.parametrize(
        ("sql", "expected"),
        [
            ("DELETE FROM readings WHERE id <= 5", {("delete", "readings"): 5}),
            ("DELETE FROM readings", {("delete", "readings"): 12}),
            (
                "DELETE FROM devices WHERE id = 2",
                {("delete", "devices"): 1, ("delete", "readings"): 4},
            ),
            ("UPDATE readings SET value = 'z' WHERE device = 3", {("update", "readings"): 4}),
            ("INSERT INTO devices VALUES (4, 'd'), (5, 'e')", {("insert", "devices"): 2}),
            ("INSERT INTO loose VALUES ('same', 1), ('new', 9)", {("insert", "loose"): 2}),
            ("DELETE FROM loose WHERE word = 'same'", {("delete", "loose"): 3}),
            (
                MIXED,
                {("delete", "readings"): 1, ("update", "readings"): 1, ("insert", "readings"): 1},
            ),
        ],
    )
    def test_row_effects(
        self, observed: Store, tmp_path: Path, sql: str, expected: dict[tuple[str, str], int]
    ) -> None:
        """Rows deleted, updated and inserted are counted exactly, those of cascades too."""
        effects = self.effects_of(observed, tmp_path, sql)
        found = self.of_tables(effects, "devices", "readings", "loose")
        assert found == {(verb, "table", self.name(t)): n for (verb, t), n in expected.items()}
        assert {effect.resource for effect in effects} == {observed.resource}

    def test_effects_of_triggers(self, observed: Store, tmp_path: Path) -> None:
        """What a trigger does is counted, though no statement says it."""
        self.execute(observed, self.audit_deletes_sql())
        effects = self.effects_of(observed, tmp_path, "DELETE FROM devices WHERE id = 1")
        assert self.of_tables(effects, "audit", "readings") == {
            ("insert", "table", self.name("audit")): 4,
            ("delete", "table", self.name("readings")): 4,
        }

    def test_drop_table(self, observed: Store, tmp_path: Path) -> None:
        """A dropped table is one effect with the rows that were in it."""
        effects = self.effects_of(observed, tmp_path, "DROP TABLE readings")
        dropped = self.of_tables(effects, "devices", "readings", "loose")
        assert dropped == {("drop", "table", self.name("readings")): 12}
        assert effects[0].verb == "drop"

    def test_create_table(self, observed: Store, tmp_path: Path) -> None:
        """A created table is an effect that destroys nothing."""
        sql = "CREATE TABLE extra (a INTEGER); INSERT INTO extra VALUES (1), (2)"
        effects = self.effects_of(observed, tmp_path, sql)
        assert ("create", "table", self.name("extra")) in {e.key[1:] for e in effects}
        assert not [effect for effect in effects if effect.is_destructive]

    def test_columns(self, observed: Store, tmp_path: Path) -> None:
        """A column that came and one that went are named."""
        sql = "ALTER TABLE loose ADD COLUMN unit TEXT; ALTER TABLE readings DROP COLUMN value"
        found = {e.key[1:] for e in self.effects_of(observed, tmp_path, sql)}
        assert ("create", "column", f"{self.name('loose')}.unit") in found
        assert ("drop", "column", f"{self.name('readings')}.value") in found

    def test_indexes(self, observed: Store, tmp_path: Path) -> None:
        """An index made is an effect, and so is the same index dropped."""
        effects = self.effects_of(observed, tmp_path, "CREATE INDEX by_value ON readings (value)")
        assert [(e.verb, e.kind) for e in effects] == [("create", "index")]
        again = self.directory(tmp_path, "again")
        observed.observe(again)
        self.execute(observed, "DROP INDEX by_value")
        assert [(e.verb, e.kind) for e in observed.effects(again)] == [("drop", "index")]

    def test_worst_first(self, observed: Store, tmp_path: Path) -> None:
        """Effects come worst first."""
        effects = self.effects_of(observed, tmp_path, WORST_LAST)
        assert effects == worst_first(effects)
        assert len(effects) >= 5
