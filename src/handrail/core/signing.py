"""Signing: whose a key is, a signature that is checked before it is kept, and one from before.

Rules:
- A key that is several people's is each one's: what the requester's key signed is the requester's.
- Nothing is kept that does not verify at the moment at which it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from handrail.core.world import World
from handrail.errors import KeysError, RefusedError
from handrail.plans.canonical import encode


def payload(said: Mapping[str, object]) -> bytes:
    """Return the bytes that are signed: canonical JSON of format 1, and one line end."""
    return (encode({"format": 1, **said}) + "\n").encode()


def people_of(world: World, key: Path) -> tuple[str, ...]:
    """Return whose `key` is, one name at least.

    Raises:
        KeysError: it cannot be read, or belongs to nobody in `allowed_signers`.
    """
    people = world.keys.principals(key, world.allowed_signers)
    if not people:
        raise KeysError(
            "keys.not-allowed",
            f"the key {key.name} belongs to nobody in {world.allowed_signers.name}",
            hint="add its public line there, and commit that",
        )
    return people


def is_signed(world: World, signed: bytes, signature: str, person: str, at: str) -> bool:
    """Whether `signature` over `signed` is one of `person`, valid at `at`, by the keys of today."""
    try:
        world.keys.verify(
            signed, signature, world.allowed_signers, datetime.fromisoformat(at), person
        )
    except KeysError:
        return False
    return True


def insist(world: World, signed: bytes, signature: str, person: str) -> None:
    """Raise unless `signature` is one of `person`, valid now.

    Raises:
        KeysError: it is not.
    """
    world.keys.verify(signed, signature, world.allowed_signers, world.clock.now(), person)


def refuse_same(
    world: World, signed: bytes, signature: str, person: str, others: Iterable[str], doing: str
) -> None:
    """Raise where what `person` signed is signed by one of `others`, under whatever name.

    Raises:
        RefusedError: it is.
    """
    at = world.clock.now().isoformat()
    for other in others:
        if other.casefold() == person.casefold() or (
            other and is_signed(world, signed, signature, other, at)
        ):
            raise RefusedError(
                "keys.own-run",
                f"{other} asked for this run: {doing}",
                hint="ask somebody else in allowed_signers",
            )
