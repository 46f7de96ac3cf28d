"""A server that tests share, and a database of each test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.guarding import Database
from support.postgres_server import Server, run_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A real PostgreSQL server of this test process alone."""
    yield from run_server()


@pytest.fixture
def database(postgres_server: Server, tmp_path: Path) -> Iterator[Database]:
    """A database with devices, their readings, and notes."""
    made = Database(postgres_server, tmp_path)
    yield made
    made.drop()
