"""PostgreSQL keeps the contract of a store, measured on a shared server and on a clone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from handrail.adapters.postgres import PostgresStore
from handrail.ports import Store
from support.postgres_server import OWNER, RESOURCE, Server
from support.store_contract import MARKER, TABLES, StoreContract, quiet

AUDIT = """
CREATE TABLE audit (reading integer);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO audit VALUES (OLD.id); RETURN OLD; END $$;
CREATE TRIGGER note AFTER DELETE ON readings FOR EACH ROW EXECUTE FUNCTION note();
"""


IS_THERE = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"


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
        # Under the name that a script has: its backend's end is waited for, and its counters told.
        connection = store.connection()
        name = connection.environment["PGAPPNAME"]
        with psycopg.connect(connection.parts["url"], application_name=name) as session:
            session.execute(sql.encode())
            backend = session.info.backend_pid
        # What it did is counted when its backend ends, which is after it is told to: what prepares
        # a store must not be counted after the store was observed.
        with psycopg.connect(connection.parts["url"], autocommit=True) as session:
            while session.execute(IS_THERE, [backend]).fetchone():
                pass

    def missing_store(self, at: Path) -> Store:
        return PostgresStore(RESOURCE, self.server.url("nowhere"))

    def audit_deletes_sql(self) -> str:
        return AUDIT

    def done_with(self, store: Store) -> None:
        self.server.drop_database(store.connection().parts["database"])


@pytest.fixture(scope="module")
def clone(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One clone for all: each is a cluster, and takes a second to make."""
    folder = tmp_path_factory.mktemp("contract")
    database = postgres_server.make_database()
    store = postgres_server.store(database)
    (folder / "backup").mkdir()
    backup = store.backup("b0", folder / "backup", quiet)
    yield store.clone(backup, folder / "clone", MARKER, quiet)
    store.discard(folder / "clone")
    postgres_server.drop_database(database)


@pytest.mark.postgres
class TestPostgresClone(TestPostgresShared):
    """On a clone, which is measured exactly. Only what is observed: the rest is not the clone's."""

    @pytest.fixture
    def observed(self, clone: Store) -> Iterator[Store]:
        """The clone with the contract's three tables, in a schema that goes again."""
        self.execute(clone, TABLES)
        yield clone
        self.execute(clone, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def test_owner_is_nobody_special() -> None:
    """The tests' role is an ordinary one: what it can do, a team's role can."""
    assert OWNER == "ana"
