"""Clones: where they live, who watches them, and that none outlives its rehearsal.

Rules:
- A clone lives in a private directory below the state directory, held by a lock of its own.
- It is destroyed on leaving, by an independent process when this one dies or at its deadline, and
  by whoever comes next when even that one died (`sweep`). Each way is journalled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from handrail.core.world import World
from handrail.errors import HandrailError, Place
from handrail.estate.model import Address, Resource, StoreSettings
from handrail.ports import Store


@contextmanager
def held(world: World, name: str, target: Store, deadline_s: int) -> Iterator[Path]:
    """Give an empty directory for a clone of `target`; nothing of it is left on leaving."""
    place = world.state / "clones"
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    at = place / f"{target.kind}-{name}"
    with world.locks.hold(f"clone/{at.name}", f"rehearsal {name}"):
        world.journal.append(f"clone-{at.name}", "made", {"at": str(at), "of": target.resource})
        with world.watch_clone(at, deadline_s):
            at.mkdir(mode=0o700)
            try:
                yield at
            finally:
                _destroy(world, at, target, "the rehearsal ended")


def sweep(world: World, why: str = "its rehearsal was cut off") -> tuple[str, ...]:
    """Destroy every clone that no living rehearsal holds, and return their names."""
    place = world.state / "clones"
    gone = []
    for at in sorted(place.iterdir()) if place.is_dir() else ():
        if world.locks.holder(f"clone/{at.name}") is None:
            _destroy(world, at, _of_kind(world, at), why)
            gone.append(at.name)
    return tuple(gone)


def destroy(world: World, at: Path, why: str) -> None:
    """Destroy the clone in `at`, and journal it. Twice equals once."""
    if at.exists():
        _destroy(world, at, _of_kind(world, at), why)


def _destroy(world: World, at: Path, store: Store, why: str) -> None:
    world.processes.end_leftovers(f"rehearsal-{at.name.partition('-')[2]}")
    existed = at.exists()
    store.discard(at)
    if existed:
        world.journal.append(f"clone-{at.name}", "destroyed", {"why": why})
        world.journal.close(f"clone-{at.name}")


def _of_kind(world: World, at: Path) -> Store:
    """Return a store of the clone's kind: `discard` needs no target."""
    kind = at.name.partition("-")[0]
    address = Address(value="postgresql:///postgres" if kind == "postgres" else "/nonexistent")
    settings = StoreSettings(kind, address, "lossy", (), "", None)
    return world.open_store(Resource("store", "clone", Place("clone"), store=settings))


def leftover(world: World) -> tuple[str, ...]:
    """Return the names of clones that nobody holds, without touching them."""
    place = world.state / "clones"
    if not place.is_dir():
        return ()
    try:
        return tuple(
            at.name
            for at in sorted(place.iterdir())
            if world.locks.holder(f"clone/{at.name}") is None
        )
    except HandrailError:
        return ()
