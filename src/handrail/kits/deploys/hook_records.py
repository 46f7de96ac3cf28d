"""What the journal has of web hooks: each delivery that is to deploy something, in a chain.

hook-<app>/<delivery>   `taken`, `tried` each time that it is planned, `postponed`; then one of
                        `waiting`, `refused`, `begun`, `superseded`; what waits goes on; `ended`
                        behind `begun`. Open until it is over.
hooked-<app>/<hash>     `is`: the delivery that has this id, these bytes, or this commit of a forge

Rules:
- A delivery and all that it is known by are written at once: of two copies, one is taken.
- The first word that it came to is what every later copy of it is answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from handrail.core import records
from handrail.core.world import World
from handrail.errors import FencedError, RefusedError
from handrail.kits.deploys.hook_bodies import Push
from handrail.kits.deploys.hook_signing import Signed
from handrail.plans.canonical import encode, sha256
from handrail.ports import Entry, Record

_CHAIN, _POINTER = "hook-", "hooked-"
OVER = frozenset({"refused", "superseded", "ended"})
_CAME_TO = frozenset({"waiting", "refused", "begun", "superseded"})


@dataclass(frozen=True)
class Delivery:
    """One push to deploy.

    Attributes:
        id: its own, in this journal.
        by: whose form it had.
        taken_at: ISO 8601 UTC.
        state: kind of its newest record.
        body: of that record.
        at: when it was written, ISO 8601 UTC.
        first: kind and body of the first word that it came to; empty while there is none.
        run: that it began; 0 for none.
        attempts: how often it was tried, since it last waited for somebody else to be done.
    """

    app: str
    id: str
    by: str
    branch: str
    commit: str
    taken_at: str
    images: Mapping[str, str] = field(default_factory=dict)
    state: str = "taken"
    body: Mapping[str, Any] = field(default_factory=dict)
    at: str = ""
    first: tuple[str, Mapping[str, Any]] = ("", {})
    run: int = 0
    attempts: int = 0

    @property
    def chain(self) -> str:
        """The chain of its records."""
        return f"{_CHAIN}{self.app}/{self.id}"

    @property
    def is_over(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state in OVER


def take(world: World, app: str, signed: Signed, push: Push, content: bytes) -> tuple[str, bool]:
    """Record a delivery, and return its id, and whether it is new.

    Raises:
        RefusedError: its id was used for another body.
        JournalError: it could not be recorded.
    """
    digest = sha256(content)
    name = push.id or signed.id or digest
    known_by: list[tuple[str, ...]] = [("id", signed.by, name)]
    if signed.by != "own":
        # Nothing in them tells when they were made: neither bytes nor commit count twice.
        known_by += [("bytes", digest), ("commit", push.branch, push.commit)]
    pointers = [f"{_POINTER}{app}/{_hash(one)}" for one in known_by]
    found = _known(world, app, pointers, digest)
    if found:
        return found, False
    own = _hash((app, *known_by[0]))
    body = {
        "by": signed.by,
        "branch": push.branch,
        "commit": push.commit,
        "images": dict(push.images),
        "content": digest,
    }
    entries = [Entry(f"{_CHAIN}{app}/{own}", "taken", body, "new")]
    same = {"delivery": own, "content": digest}
    entries += [Entry(pointer, "is", same, "new") for pointer in pointers]
    try:
        world.journal.write(entries)
    except FencedError:
        # Its copy came in this moment.
        return _known(world, app, pointers, digest) or own, False
    for pointer in pointers:
        world.journal.close(pointer)
    return own, True


def _known(world: World, app: str, pointers: list[str], digest: str) -> str:
    for number, pointer in enumerate(pointers):
        last = world.journal.last(pointer)
        if last is None:
            continue
        body = records.body(last)
        if number == 0 and body["content"] != digest:
            raise RefusedError(
                "api.repeated", f"this delivery for {app} came before, with another body"
            )
        return str(body["delivery"])
    return ""


def find(world: World, app: str, name: str) -> Delivery | None:
    """Return a delivery as it stands; None where there is none."""
    found: Delivery | None = None
    for record in world.journal.records(f"{_CHAIN}{app}/{name}"):
        body = records.body(record)
        if record.kind == "taken":
            said = {key: body[key] for key in ("by", "branch", "commit", "images")}
            found = Delivery(app, name, taken_at=record.time, at=record.time, **said)
        elif found is not None:
            found = _after(found, record)
    return found


def _after(was: Delivery, record: Record) -> Delivery:
    kind, body = record.kind, records.body(record)
    is_new = kind in _CAME_TO and not was.first[0]
    attempts = was.attempts + 1 if kind == "tried" else was.attempts
    return replace(
        was,
        state=kind,
        body=body,
        at=record.time,
        first=(kind, body) if is_new else was.first,
        run=int(body.get("run", was.run)),
        attempts=0 if body.get("held") else attempts,
    )


def open_ones(world: World, app: str = "") -> Iterator[Delivery]:
    """Yield the deliveries that are not over, of one app or of all, the oldest first."""
    prefix = f"{_CHAIN}{app}/" if app else _CHAIN
    for chain in world.journal.open_chains(prefix):
        of, _, name = chain.removeprefix(_CHAIN).rpartition("/")
        found = find(world, of, name)
        if found is not None:
            yield found


def note(world: World, one: Delivery, kind: str, **body: object) -> Delivery:
    """Record what became of a delivery, and return it so."""
    record = world.journal.append(one.chain, kind, body)
    if kind in OVER:
        world.journal.close(one.chain)
    return _after(one, record)


def _hash(what: tuple[str, ...]) -> str:
    return sha256(encode(list(what)))[:32]
