"""Redis stores in tests: their backups, their clones, and what a script did to one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import redis

from handrail.adapters.redis import RedisStore
from handrail.plans.effect import Effect
from handrail.plans.facts import Backup
from handrail.ports import Store

RESOURCE = "store/cache"
MARKER = "5d0c5d0c5d0c5d0c5d0c5d0c5d0c5d0c"
Said = dict[tuple[str, str, str], tuple[int | None, int | None]]


def quiet(done: int, total: int | None) -> None:
    """Take progress and say nothing."""


def said(effects: Iterable[Effect]) -> Said:
    """Return (rows, net) by verb, kind and name."""
    return {(e.verb, e.kind, e.name): (e.rows, e.net) for e in effects}


def client_of(store: Store) -> Any:
    """Return a new client that reaches `store` as a script does."""
    return redis.Redis.from_url(store.connection().parts["url"])


class Made:
    """Backups and clones of a store, all below one folder."""

    def __init__(self, store: RedisStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self._numbers = itertools.count()
        self._clones: list[Path] = []

    def directory(self, name: str) -> Path:
        """Return a new empty directory."""
        path = self.folder / f"{name}-{next(self._numbers)}"
        path.mkdir()
        return path

    def backup(self, store: Store | None = None) -> Backup:
        """Return a backup of the store, or of another one."""
        return (store or self.store).backup("b1", self.directory("backup"), quiet)

    def clone(self, backup: Backup | None = None) -> Store:
        """Return a clone of the store as it is now."""
        at = self.directory("clone")
        self._clones.append(at)
        return self.store.clone(backup or self.backup(), at, MARKER, quiet)

    @property
    def at(self) -> Path:
        """Where the last clone is."""
        return self._clones[-1]

    def close(self) -> None:
        """End the clones."""
        for at in self._clones:
            self.store.discard(at)


class Scene:
    """A clone that a script is let loose on."""

    def __init__(self, made: Made) -> None:
        self._made = made
        self._open: list[Any] = []

    def begin(self) -> tuple[Store, Any, Path]:
        """Return an observed clone, a script's client of it, and where it was observed."""
        clone = self._made.clone()
        before = self._made.directory("before")
        clone.observe(before)
        client = client_of(clone)
        self._open.append(client)
        return clone, client, before

    def effects(self, script: Callable[[Any], object]) -> Said:
        """Return what `script`, given a client, did on a clone of the store as it is now."""
        clone, client, before = self.begin()
        script(client)
        return said(clone.effects(before))

    def close(self) -> None:
        """Close the clients."""
        for client in self._open:
            client.close()
