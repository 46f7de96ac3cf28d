"""Locks in memory, for what runs in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from handrail.errors import RefusedError


class MemoryLocks:
    """`ports.Locks` that are gone with the test."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}

    @contextmanager
    def hold(self, resource: str, who: str) -> Iterator[None]:
        """Hold `resource` for the time of a `with`; see `ports.Locks`."""
        if resource in self._holders:
            raise RefusedError(
                "run.locked", f"`{resource}` is held by {self._holders[resource]}", hint="wait"
            )
        self._holders[resource] = who
        try:
            yield
        finally:
            del self._holders[resource]

    def holder(self, resource: str) -> str | None:
        """Return who holds `resource` now."""
        return self._holders.get(resource)
