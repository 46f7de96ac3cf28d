"""Journals for tests: where one may be kept in PostgreSQL, and one with chains to damage."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from handrail.ports import Journal, Record
from support.postgres_server import Server

_EMPTY = "DROP SCHEMA IF EXISTS handrail CASCADE"


@pytest.fixture(scope="session")
def journal_database(postgres_server: Server) -> str:
    """Return the address of a database that belongs to a role without rights of the cluster."""
    return postgres_server.url(postgres_server.make_database())


@pytest.fixture
def journal_url(journal_database: str) -> Iterator[str]:
    """Give the address of a database without a journal in it."""
    yield journal_database
    with psycopg.connect(journal_database, autocommit=True) as session:
        session.execute(_EMPTY)


def fill(journal: Journal, *, close: bool = True) -> None:
    """Write three chains of one to four records, the second reopened; close them with `close`."""
    for number, length in enumerate((4, 2, 1), start=1):
        chain = f"run-{number}"
        for step in range(length):
            journal.append(chain, "done", {"step": step})
        if close:
            journal.close(chain)
    journal.append("run-2", "undone", {})
    if close:
        journal.close("run-2")


def read(journal: Journal) -> tuple[list[Record], list[Record]]:
    """Return all records but the anchors, and the anchors."""
    records = [record for chain in journal.chains() for record in journal.records(chain)]
    return records, list(journal.anchors())
