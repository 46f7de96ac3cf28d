"""Holding: a statement waits, before it begins, until another person lets it go on or refuses it.

Rules:
- Never by the requester: a release is signed as an approval is, over this very statement.
- A statement that waits is nothing that was done: when nobody answers, it is refused.
- What no living run waits for any more is not shown, and cannot be released.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from handrail.core import records
from handrail.core.world import World
from handrail.errors import KeysError, RefusedError, UsageError
from handrail.plans.canonical import encode, encode_plain, plain, time_text

_LOOK_S = 0.2


@dataclass(frozen=True)
class Held:
    """A statement that waits.

    Attributes:
        id: how people call it.
        chain: of the run in the journal.
        resource: the run's target.
        statement: its template.
        why: it waits.
        person: who runs it, and may not release it.
        held_at: since when.
    """

    id: str
    chain: str
    resource: str
    statement: str
    why: str
    person: str
    held_at: str


@dataclass(frozen=True)
class Release:
    """Another person's word, signed."""

    id: str
    person: str
    made_at: str
    allow: bool
    because: str
    signature: str


def wait(
    world: World,
    chain: str,
    resource: str,
    statement: str,
    why: str,
    is_over: Callable[[], bool],
) -> bool:
    """Let a statement wait until somebody answers; return whether it may begin.

    Args:
        world: the ports.
        chain: of the run.
        resource: its target.
        statement: its template.
        why: it waits.
        is_over: whether there is no more time: then it may not.
    """
    name, now = world.ids.new()[:8], time_text(world.clock.now())
    held = Held(name, chain, resource, statement, why, world.person, now)
    world.journal.append(_chain(held.id), "held", _body(held))
    path = _folder(world) / f"{held.id}.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(encode_plain(held), encoding="utf-8")
    answer = None
    try:
        while answer is None and not is_over():
            answer = _answer(world, held)
            if answer is None:
                world.clock.sleep(_LOOK_S)
    finally:
        path.unlink(missing_ok=True)
        world.journal.append(_chain(held.id), "answered", {"allow": bool(answer)})
        world.journal.close(_chain(held.id))
    return bool(answer)


def standing(world: World) -> tuple[Held, ...]:
    """Return what waits now, the oldest first."""
    found = []
    for path in _folder(world).glob("*.json"):
        try:
            held = records.decode(json.loads(path.read_text(encoding="utf-8")), Held)
        except (OSError, ValueError):
            continue  # answered, or being written, meanwhile
        if world.locks.holder(held.resource) is not None:
            found.append(held)
    return tuple(sorted(found, key=lambda held: held.held_at))


def release(world: World, name: str, key: Path, *, allow: bool, because: str = "") -> Release:
    """Let a statement that waits go on, or refuse it.

    Args:
        world: the ports.
        name: the beginning of its id.
        key: private SSH key, or the public one of a key that an agent holds.
        allow: whether it may begin.
        because: why, for those who read it later.

    Raises:
        UsageError: nothing of that name waits.
        RefusedError: by the person who runs it.
        KeysError: the key cannot be used, or belongs to nobody who is allowed.
    """
    held = find(world, name)
    person = _person(world, held, key)
    unsigned = Release(held.id, person, time_text(world.clock.now()), allow, because, "")
    signature = world.keys.sign(payload(held, unsigned), key)
    return _record(world, held, replace(unsigned, signature=signature))


def prepare(world: World, name: str, *, allow: bool, because: str = "") -> Release:
    """Return the release of `world.person` without its signature, for a key that lies elsewhere.

    Raises:
        UsageError, RefusedError: as `release`.
    """
    held = find(world, name)
    if _is_own(held, (world.person,)):
        raise _own(held)
    return Release(held.id, world.person, time_text(world.clock.now()), allow, because, "")


def accept(world: World, release: Release) -> Release:
    """Record a release of `world.person` that `prepare` gave, and that was signed elsewhere.

    Raises:
        UsageError, RefusedError: as `release`, or it is another person's.
        KeysError: the signature is not the person's, or is of a key of whoever runs it.
    """
    held = find(world, release.id)
    if _is_own(held, (world.person,)) or release.person != world.person or release.id != held.id:
        raise _own(held)
    with suppress(KeysError):
        world.keys.verify(
            payload(held, release),
            release.signature,
            world.allowed_signers,
            world.clock.now(),
            held.person,
        )
        raise _own(held)
    return _record(world, held, release)


def _record(world: World, held: Held, signed: Release) -> Release:
    world.keys.verify(
        payload(held, signed),
        signed.signature,
        world.allowed_signers,
        world.clock.now(),
        signed.person,
    )
    world.journal.append(_chain(held.id), "released", _body(signed))
    return signed


def find(world: World, name: str) -> Held:
    """Return the one statement that waits and whose id begins with `name`.

    Raises:
        UsageError: there is none, or more than one.
    """
    found = [held for held in standing(world) if held.id.startswith(name.lower())]
    if len(found) == 1:
        return found[0]
    waiting = ", ".join(held.id for held in found or standing(world)) or "nothing"
    said = "several statements wait" if found else "no statement waits"
    hint = f"waiting now: {waiting}"
    raise UsageError("hold.unknown", f"{said} whose id begins with `{name}`", hint=hint)


def _person(world: World, held: Held, key: Path) -> str:
    people = world.keys.principals(key, world.allowed_signers)
    if not people:
        raise KeysError(
            "keys.not-allowed",
            f"the key {key.name} belongs to nobody in {world.allowed_signers.name}",
            hint="add its public line there, and commit that",
        )
    if _is_own(held, people):
        raise _own(held)
    return people[0]


def _is_own(held: Held, people: tuple[str, ...]) -> bool:
    """Whether one of `people` may be who runs it: nobody knows, where it has no name."""
    return not held.person or held.person.casefold() in {person.casefold() for person in people}


def _own(held: Held) -> RefusedError:
    return RefusedError(
        "keys.own-run",
        f"{held.person or 'nobody known'} runs this: nobody releases their own",
        hint="ask somebody else in allowed_signers",
    )


def _answer(world: World, held: Held) -> bool | None:
    """Return the newest answer that verifies; None while there is none."""
    answer = None
    for record in world.journal.records(_chain(held.id)):
        if record.kind != "released":
            continue
        found = records.decode(records.body(record), Release)
        if found.id == held.id and found.person != held.person and _verifies(world, held, found):
            answer = found.allow
    return answer


def _verifies(world: World, held: Held, found: Release) -> bool:
    at = datetime.fromisoformat(found.made_at)
    try:
        world.keys.verify(
            payload(held, found), found.signature, world.allowed_signers, at, found.person
        )
    except KeysError:
        return False
    return True


def payload(held: Held, release: Release) -> bytes:
    """Return the bytes that a release signs: the statement as it waits, and what is said of it."""
    said = {"person": release.person, "made_at": release.made_at, "allow": release.allow}
    return (
        encode({"format": 1, "held": plain(held), **said, "because": release.because}) + "\n"
    ).encode()


def _chain(name: str) -> str:
    return f"hold-{name}"


def _folder(world: World) -> Path:
    return world.state / "holds"


def _body(value: object) -> dict[str, object]:
    body = plain(value)
    if not isinstance(body, dict):
        raise TypeError("a record is a mapping")
    return body
