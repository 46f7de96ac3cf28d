"""SQLite's adapter keeps the contract of every store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from handrail.adapters.sqlite import SqliteStore
from handrail.ports import Store
from support.sqlite_files import execute, make_store
from support.store_contract import StoreContract


class TestSqliteContract(StoreContract):
    """The contract, in rollback-journal mode."""

    def make_store(self, at: Path) -> Store:
        return make_store(at / "app.db")

    def execute(self, store: Store, sql: str) -> None:
        execute(Path(store.connection().parts["path"]), sql)

    def missing_store(self, at: Path) -> Store:
        return SqliteStore("store/app-db", at / "missing.db")

    def audit_deletes_sql(self) -> str:
        return """
            CREATE TABLE audit (reading INTEGER);
            CREATE TRIGGER keep AFTER DELETE ON readings
            BEGIN INSERT INTO audit VALUES (old.id); END;
        """


class TestSqliteWalContract(TestSqliteContract):
    """The contract, with a write-ahead log."""

    def make_store(self, at: Path) -> Store:
        with closing(sqlite3.connect(at / "app.db")) as connection:
            connection.execute("PRAGMA journal_mode = wal")
        return super().make_store(at)
