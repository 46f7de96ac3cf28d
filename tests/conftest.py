"""Servers that tests share: one a test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.postgres_server import Server, run_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A real PostgreSQL server of this test process alone."""
    yield from run_server()
