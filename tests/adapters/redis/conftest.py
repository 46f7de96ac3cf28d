"""A real Redis server, and stores on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from handrail.adapters.redis import RedisStore
from support.redis_server import RedisServer, run_server
from support.redis_stores import RESOURCE, Made, Scene


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server a test process; it begins to send its content at once."""
    for server in run_server():
        with closing(server.client()) as client:
            client.config_set("repl-diskless-sync", "yes")
            client.config_set("repl-diskless-sync-delay", "0")
        yield server


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    """A client of the empty server, named as Handrail's own: nobody else is there."""
    redis_server.clear()
    with closing(redis_server.client()) as made:
        made.client_setname("handrail")
        yield made
    redis_server.clear()


@pytest.fixture
def store(redis_server: RedisServer, client: Any) -> RedisStore:
    """The server as a store, without content."""
    return RedisStore(RESOURCE, redis_server.url)


@pytest.fixture
def made(store: RedisStore, tmp_path: Path) -> Iterator[Made]:
    """Makes backups and clones of the store, and ends them."""
    with closing(Made(store, tmp_path)) as made:
        yield made


@pytest.fixture
def scene(made: Made, client: Any) -> Iterator[Scene]:
    """Makes a clone of what the store holds by then, and lets a script loose on it."""
    with closing(Scene(made)) as scene:
        yield scene
