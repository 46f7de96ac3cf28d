"""Which tests of a contract concern which kind of store."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out of the clone's contract what has nothing to do with a clone."""
    items[:] = [
        item
        for item in items
        if "TestPostgresClone" not in item.nodeid or "observed" in getattr(item, "fixturenames", ())
    ]
