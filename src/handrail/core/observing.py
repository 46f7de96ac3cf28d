"""Observing: everything that one plan needs to know of the world, read once.

Rules:
- A fact that cannot be read is a fact too (`unreadable`), and refuses later; nothing is guessed.
- Reading changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from handrail.core import nodes, records, signing, standing, together
from handrail.core.world import World
from handrail.errors import HandrailError
from handrail.estate.model import Resource
from handrail.operations.model import Operation
from handrail.plans import material as materials
from handrail.plans.canonical import plain, time_text
from handrail.plans.model import Approval, Facts, LastChange, Material, Plan, Request
from handrail.plans.planning import rehearsal_key, steps_of

T = TypeVar("T")


@dataclass
class _Reader:
    """Reads facts one after the other and keeps what could not be read."""

    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def read(self, name: str, how: Callable[[], T]) -> T | None:
        try:
            return how()
        except HandrailError as error:
            self.unreadable.append((name, error.message))
            return None


def observe(
    world: World, operation: Operation, resource: Resource, request: Request
) -> tuple[Facts, Material]:
    """Return the facts for a plan, and what would run.

    Approvals are not among them: they are over a digest that does not exist yet.

    Raises:
        DeclarationError: what would run cannot be read.
    """
    material = materials.read(world.root, operation)
    paths = materials.paths(operation, material)
    reader = _Reader()
    store = reader.read("store", lambda: together.opened(world, resource))
    identity = reader.read("identity", store.identify) if store else None
    answers = store if identity else None
    rehearsal = None
    if identity is not None:
        steps = steps_of(operation, resource.ref, request.parameters)
        key = rehearsal_key(steps, material, request.parameters, identity, operation.runs_on)
        rehearsal = records.rehearsal(world.journal, key)
    return Facts(
        now=time_text(world.clock.now()),
        identity=identity,
        measure=reader.read("measure", answers.measure) if answers else None,
        others=(reader.read("connections", answers.others) or ()) if answers else (),
        cannot_restore=(reader.read("restore", answers.can_restore) or "") if answers else "",
        # What is not rehearsed is not run behind a guard that knows its budget: nobody asks yet.
        avoidable=nodes.unconfined(world, operation) if rehearsal else "",
        holder=next(filter(None, map(world.locks.holder, together.refs(resource))), ""),
        unfinished=records.unfinished(world.journal, *together.refs(resource)),
        commit=reader.read("commit", lambda: world.repository.commit(paths) or "") or "",
        uncommitted=reader.read("changes", lambda: world.repository.uncommitted(paths)) or (),
        change=reader.read("last change", lambda: _change(world, operation.argv[0])),
        rehearsal=rehearsal,
        proof=records.proof(world.journal, resource.ref),
        unreadable=tuple(reader.unreadable),
    ), material


def _change(world: World, script: str) -> LastChange | None:
    found = world.repository.last_change(script)
    if found is None:
        return None
    return LastChange(found.commit, found.author, found.reviewers, found.when)


def payload(approval: Approval, target: str) -> bytes:
    """Return the bytes that an approval signs: the digest, and all that bounds the approval."""
    # Only one that stands has bounds: what an approval that counts once signs is as it always was.
    bounds = {"bounds": plain(approval.bounds)} if approval.bounds else {}
    return signing.payload(
        {
            "digest": approval.digest,
            "id": approval.id,
            "person": approval.person,
            "made_at": approval.made_at,
            "expires_at": approval.expires_at,
            "target": target if approval.named_target else "",
            "because": approval.because,
            **bounds,
        }
    )


def valid_approvals(world: World, plan: Plan, now: str) -> tuple[Approval, ...]:
    """Return the approvals of `plan` that count now, those that stand among them."""
    once = [a for a in records.approvals(world.journal, plan.digest) if a.bounds is None]
    approvals = [*once, *standing.covering(world, plan)]
    return verified(world, approvals, plan.request.target, now, plan.request.person)


def still_valid(world: World, plan: Plan, now: str) -> tuple[Approval, ...]:
    """Return those of a plan's own approvals that count still, used or not, and what stands now.

    A run that goes on has used them: that it has is no reason to doubt them.
    """
    chain = f"approvals-{plan.digest}"
    withdrawn = {one["id"] for one in records.told_of(world.journal, chain, "withdrawn")}
    once = [a for a in plan.facts.approvals if a.bounds is None and a.id not in withdrawn]
    approvals = [*once, *standing.covering(world, plan)]
    return verified(world, approvals, plan.request.target, now, plan.request.person)


def verified(
    world: World, approvals: Iterable[Approval], target: str, now: str, requester: str = ""
) -> tuple[Approval, ...]:
    """Return those of `approvals` that are not expired and whose signatures verify now.

    None that a key of the requester's made, and one for each key: who is not told apart by keys is
    one person, under whatever names.
    """
    found: list[Approval] = []
    for approval in approvals:
        signed = payload(approval, target)

        def is_of(person: str, one: Approval = approval, text: bytes = signed) -> bool:
            return signing.is_signed(world, text, one.signature, person, now)

        others = [requester, *(one.person for one in found)]
        if (
            approval.made_at <= now < approval.expires_at
            and is_of(approval.person)
            and not any(other and other != approval.person and is_of(other) for other in others)
            and approval.person != requester
        ):
            found.append(approval)
    return tuple(found)
