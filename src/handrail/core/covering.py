"""Covering: one approval over a fan-out counts for each of its children, in one walk.

Rules:
- A plan that a walk of its own runs covers itself: what it took lasts as long as that walk.
- What was signed is the fan-out's digest. It counts for a plan that the recorded fan-out of that
  digest holds, and for no other.
- An approval is used by one walk, however many children that runs, and however often one goes
  again. It has to count when the walk takes it, with its first child; waves and soaks may take
  longer than it lasts. Withdrawn, or of a person removed since, it counts for no further child.
- What stands for every plan such as a child's counts as it does without a fan-out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache

from handrail.core import approving, observing, records, standing
from handrail.core.world import World
from handrail.plans.canonical import time_text
from handrail.plans.fan_out import FanOut, is_sound
from handrail.plans.model import Approval, Plan

# What a walk has taken lasts as long as the walk.
_LASTING = "9999-12-31T23:59:59.999999Z"


@dataclass(frozen=True)
class Cover:
    """The fan-out (or plan) whose approvals count, and its walk; 0 before there is one."""

    digest: str
    walk: int = 0

    @property
    def chain(self) -> str:
        """What its approvals are used by."""
        return records.walk_chain(self.walk) if self.walk else ""


def approvals(world: World, cover: Cover, plan: Plan, now: str) -> tuple[Approval, ...]:
    """Return the approvals that count for `plan`, a child, as if they were over it."""
    standing_ones = observing.verified(
        world, standing.covering(world, plan), plan.request.target, now, plan.request.person
    )
    fresh, taken = _given(world, cover)
    held = _held(world, cover.digest) if fresh or taken else _NOTHING_HELD
    if plan.digest not in held.children:
        return standing_ones
    target, me = held.target, plan.request.person
    valid = list(observing.verified(world, fresh, target, now, me))
    for one, since in taken:
        still = observing.verified(world, (one,), target, since, me)
        valid += [replace(found, expires_at=_LASTING) for found in still]
    return (*(replace(one, digest=plan.digest) for one in valid), *standing_ones)


@dataclass(frozen=True)
class _Held:
    """What the recorded fan-out of a digest holds: plans by their digests, and its own name."""

    children: frozenset[str]
    target: str


_NOTHING_HELD = _Held(frozenset(), "")


def _held(world: World, digest: str) -> _Held:
    """Return what the fan-out of that digest holds; nothing, where the record is not that one."""
    last = world.journal.last(records.plan_chain(digest))
    if last is not None and last.kind == records.PLANNED:
        return _Held(frozenset({digest}), str(records.body(last)["request"]["target"]))
    if last is None or last.kind != records.FANNED:
        return _NOTHING_HELD
    return _read(last.body, digest)


@lru_cache(maxsize=8)
def _read(text: str, digest: str) -> _Held:
    """Read one record, once for all of its children."""
    fan_out = records.decode(json.loads(text), FanOut)
    if not is_sound(fan_out) or fan_out.digest != digest:
        return _NOTHING_HELD
    children = frozenset(child.digest for child in fan_out.children)
    return _Held(children, fan_out.plan.request.target)


def claim(world: World, cover: Cover) -> None:
    """Mark the fan-out's approvals as used by its walk. Twice equals once.

    The caller sees to it that one thread of the walk does so at a time.
    """
    chain = f"approvals-{cover.digest}"
    approving.lapse(world, cover.digest, time_text(world.clock.now()))
    for approval in records.approvals(world.journal, cover.digest):
        first = world.journal.single_use(f"approval {approval.id}")
        used = {"id": approval.id, "run": cover.chain if first else "another"}
        world.journal.append(chain, "used", used)


def use(world: World, plan: Plan, run: str) -> tuple[str, ...]:
    """Return the ids of a child's approvals; those that stand are counted as used by `run`."""
    own = tuple(one for one in plan.facts.approvals if one.bounds is not None)
    approving.use(world, replace(plan, facts=replace(plan.facts, approvals=own)), run)
    return tuple(one.id for one in plan.facts.approvals)


def _given(
    world: World, cover: Cover
) -> tuple[tuple[Approval, ...], tuple[tuple[Approval, str], ...]]:
    """Return the approvals that nobody has used, and those that this walk has, each since when."""
    fresh: dict[str, Approval] = {}
    taken: dict[str, tuple[Approval, str]] = {}
    over: set[str] = set()  # an approval's record, written again, gives nothing back
    for record in world.journal.records(f"approvals-{cover.digest}"):
        said = records.body(record)
        if record.kind == "approved":
            approval = records.decode(said, Approval)
            if approval.bounds is None and approval.id not in over:
                fresh[approval.id] = approval
            continue
        over.add(said["id"])
        used = fresh.pop(said["id"], None)
        if record.kind == "used" and used and cover.walk and said["run"] == cover.chain:
            taken[used.id] = (used, record.time)
        elif record.kind != "expired":
            taken.pop(said["id"], None)
    return tuple(fresh.values()), tuple(taken.values())
