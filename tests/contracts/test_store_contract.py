"""The fake store keeps the contract of every store."""

from __future__ import annotations

from pathlib import Path

from handrail.ports import Store
from handrail.testing.store import FakeStore, Shelf
from support.store_contract import StoreContract


class TestFakeStoreContract(StoreContract):
    """The contract, in memory."""

    def make_store(self, at: Path) -> Store:
        store = FakeStore("store/app-db", f"fake://{at}", Shelf())
        store.adopt("5d0c" * 8)
        return store

    def execute(self, store: Store, sql: str) -> None:
        assert isinstance(store, FakeStore)
        store.execute(sql)

    def missing_store(self, at: Path) -> Store:
        shelf = Shelf()
        store = FakeStore("store/app-db", f"fake://{at}", shelf)
        shelf.stores.clear()
        return store

    def audit_deletes_sql(self) -> str:
        return """
            CREATE TABLE audit (reading INTEGER);
            CREATE TRIGGER keep AFTER DELETE ON readings
            BEGIN INSERT INTO audit VALUES (old.id); END
        """
