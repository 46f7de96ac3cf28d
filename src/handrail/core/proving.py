"""Proving: a backup counts once it was restored as a clone, and its content compared.

Rules:
- The clone is proven to be another store than the target before anything is done with it: its
  identity has a marker that only this call knows, its endpoint differs, the target has no marker.
- Whether the content came back equal is on record either way, before anybody is told.
"""

from __future__ import annotations

from pathlib import Path

from handrail.core import together
from handrail.core.world import Talk, World
from handrail.errors import RefusedError, StoreError
from handrail.estate.model import Resource
from handrail.plans.amounts import duration
from handrail.plans.canonical import plain, time_text
from handrail.plans.facts import Backup
from handrail.plans.model import Proof
from handrail.ports import Store


def clone(world: World, target: Store, backup: Backup, at: Path, talk: Talk) -> Store:
    """Return a clone of `target`, proven to be another store.

    Raises:
        RefusedError: it could be the target itself.
        StoreError: it could not be made.
    """
    marker = world.ids.new()
    made = target.clone(backup, at, marker, talk.progress)
    _prove_distinct(target, made, marker)
    return made


def _prove_distinct(target: Store, made: Store, marker: str) -> None:
    """Prove that what was made is not the target.

    Raises:
        RefusedError: it could be.
    """
    pairs = zip(together.parts_of(target), together.parts_of(made), strict=True)
    for real, copy in ((one.identify(), other.identify()) for one, other in pairs):
        if copy.marker != marker or real.marker or real.endpoint == copy.endpoint:
            raise RefusedError(
                "clone.not-distinct", f"{copy.endpoint} cannot be told from {real.endpoint}"
            )


def prove(
    world: World,
    talk: Talk,
    resource: Resource,
    target: Store,
    made: Store,
    backup: Backup,
    backup_s: float,
    restore_s: float,
) -> Proof:
    """Record that a backup was restored as the clone `made`, and whether its content is equal.

    Raises:
        StoreError: it is not.
    """
    expected = backup.fingerprint or target.fingerprint()
    different = expected.differences(made.fingerprint())
    proof = Proof(
        backup.id,
        backup.made_at,
        time_text(world.clock.now()),
        backup.size_bytes,
        backup_s,
        restore_s,
        equal=not different,
    )
    body = plain(proof)
    world.journal.append(f"proofs-{resource.ref}", "proven", body if isinstance(body, dict) else {})
    if different:
        talk.end("restore", "not equal: " + ", ".join(different[:5]), ok=False)
        raise StoreError(
            "backup.not-restorable",
            f"the backup of {resource.ref} restores to other content: " + ", ".join(different[:5]),
            hint="nothing was changed; look at these, then try again",
        )
    talk.end(
        "restore",
        f"{duration(restore_s)}, fingerprint equal: backup proven; "
        f"losing {resource.name} now costs about {duration(restore_s)}",
    )
    return proof
