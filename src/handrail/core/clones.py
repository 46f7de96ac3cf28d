"""Clones: where they live, who watches them, and that none outlives its rehearsal.

Rules:
- A clone lives in a private directory where the policy says, held by a lock of its own.
- The journal says where, before there is anything: no clone exists that nobody can find.
- What the rehearsal kept beside it (observations, an opened backup) goes with it.
- It is destroyed on leaving, by an independent process when this one dies or at its deadline, and
  by whoever comes next when even that one died (`sweep`). Each way is journalled.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from handrail.core import records, scripts, together
from handrail.core.world import World
from handrail.errors import Place, StoreError
from handrail.estate.model import Address, Resource, StoreSettings
from handrail.plans.policy import Policy
from handrail.ports import Store


@contextmanager
def held(world: World, name: str, target: Store, policy: Policy) -> Iterator[Path]:
    """Give an empty directory for a clone of `target`; nothing of it is left on leaving."""
    place = world.root / policy.clones if policy.clones else world.state / "clones"
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    at = place / f"{target.kind}-{name}"
    with world.locks.hold(f"clone/{at.name}", f"rehearsal {name}"):
        world.journal.append(f"clone-{at.name}", "made", {"at": str(at), "of": target.resource})
        with world.watch_clone(at, policy.clone_age_s):
            at.mkdir(mode=0o700)
            try:
                yield at
            finally:
                _destroy(world, at, target, "the rehearsal ended")


def sweep(world: World, why: str = "its rehearsal was cut off") -> tuple[str, ...]:
    """Destroy every clone that no living rehearsal holds, and return their names."""
    gone = leftover(world)
    for at in gone:
        _destroy(world, at, _of_kind(world, at), why)
    return tuple(at.name for at in gone)


def destroy(world: World, name: str, why: str) -> None:
    """Destroy the clone of that name, and journal it. Twice equals once."""
    at = _standing(world, f"clone-{name}")
    if at is not None:
        _destroy(world, at, _of_kind(world, at), why)


def clear(world: World, rehearsal: str) -> None:
    """Remove what a rehearsal worked with, its output excepted: it may hold the target's data."""
    scripts.clear(world, f"rehearsal-{rehearsal}")
    for path in (world.state / "rehearsals" / rehearsal).glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def leftover(world: World) -> tuple[Path, ...]:
    """Return the clones that nobody holds, without touching them."""
    standing = (_standing(world, chain) for chain in world.journal.open_chains("clone-"))
    return tuple(at for at in standing if at and world.locks.holder(f"clone/{at.name}") is None)


def _standing(world: World, chain: str) -> Path | None:
    """Return where a clone is that the journal says was made and not destroyed."""
    last = world.journal.last(chain)
    return Path(records.body(last)["at"]) if last and last.kind == "made" else None


def _destroy(world: World, at: Path, store: Store, why: str) -> None:
    rehearsal = at.name.partition("-")[2]
    world.processes.end_leftovers(scripts.mark_of(world, f"rehearsal-{rehearsal}"))
    existed = at.exists()
    _discard(at, store)
    clear(world, rehearsal)
    if existed or _standing(world, f"clone-{at.name}"):
        world.journal.append(f"clone-{at.name}", "destroyed", {"why": why})
        world.journal.close(f"clone-{at.name}")


def _discard(at: Path, store: Store) -> None:
    try:
        store.discard(at)
    except StoreError as error:
        if error.code != "store.not-a-store":
            raise
        # A restore that ran past the clone's deadline made it anew, without what marks a clone.
        # Its name and place are from the journal: whatever is there, the rehearsal left it.
        shutil.rmtree(at)


def _of_kind(world: World, at: Path) -> Store:
    """Return a store of the clone's kind: `discard` needs no target."""
    kind = at.name.partition("-")[0]
    return together.of_kind(world, at, _one_of) if kind == together.KIND else _one_of(world, kind)


def _one_of(world: World, kind: str) -> Store:
    address = Address(value="postgresql:///postgres" if kind == "postgres" else "/nonexistent")
    settings = StoreSettings(kind, address, "lossy", (), "", None)
    return world.open_store(Resource("store", "clone", Place("clone"), store=settings))
