"""PostgreSQL keeps the contract of a store, measured on a shared server and on a clone."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from handrail.adapters.postgres import PostgresStore
from handrail.plans.facts import Backup
from handrail.ports import Store
from support.postgres_server import OWNER, RESOURCE, Server
from support.store_contract import MARKER, StoreContract, quiet

AUDIT = """
CREATE TABLE audit (reading integer);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO audit VALUES (OLD.id); RETURN OLD; END $$;
CREATE TRIGGER note AFTER DELETE ON readings FOR EACH ROW EXECUTE FUNCTION note();
"""


@pytest.mark.postgres
class TestPostgresShared(StoreContract):
    """On a server that others use as well: effects are read from its counters."""

    server: Server

    @pytest.fixture(autouse=True)
    def _server(self, postgres_server: Server) -> None:
        self.server = postgres_server

    def make_store(self, at: Path) -> Store:
        return self.server.store(self.server.make_database())

    def execute(self, store: Store, sql: str) -> None:
        with psycopg.connect(store.connection().parts["url"]) as session:
            session.execute(sql.encode())

    def missing_store(self, at: Path) -> Store:
        return PostgresStore(RESOURCE, self.server.url("nowhere"))

    def audit_deletes_sql(self) -> str:
        return AUDIT

    def done_with(self, store: Store) -> None:
        self.server.drop_database(store.connection().parts["database"])


@pytest.mark.postgres
class TestPostgresClone(TestPostgresShared):
    """On a clone: effects are exact."""

    clones: dict[int, Path]

    @pytest.fixture(autouse=True)
    def _clones(self) -> None:
        self.clones = {}

    def make_observed(self, store: Store, at: Path) -> Store:
        folder = at / "backup"
        folder.mkdir()
        backup: Backup = store.backup("b0", folder, quiet)
        clone = store.clone(backup, at / "clone", MARKER, quiet)
        self.clones[id(clone)] = at / "clone"
        return clone

    def done_with(self, store: Store) -> None:
        if id(store) in self.clones:
            store.discard(self.clones.pop(id(store)))
        else:
            super().done_with(store)


def test_owner_is_nobody_special() -> None:
    """The tests' role is an ordinary one: what it can do, a team's role can."""
    assert OWNER == "ana"
