"""A real Redis server, and guards before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from handrail.plans.holding import Limits
from support.redis_guarding import Guarded, guarding
from support.redis_server import RedisServer, run_server

OpenGuard = Callable[..., AbstractContextManager[Guarded]]


@pytest.fixture(scope="session")
def redis_process() -> Iterator[RedisServer]:
    """A server of this test process alone."""
    yield from run_server()


@pytest.fixture
def redis_server(redis_process: RedisServer) -> RedisServer:
    """The same, empty."""
    redis_process.clear()
    return redis_process


@pytest.fixture
def guard(redis_server: RedisServer, tmp_path: Path) -> OpenGuard:
    """Opens a guard before the server: `with guard("measure") as run: ...`."""

    @contextmanager
    def open_guard(mode: str = "measure", **more: object) -> Iterator[Guarded]:
        with guarding(redis_server, Limits(mode=mode, **more), tmp_path) as run:  # type: ignore[arg-type]
            yield run

    return open_guard
