"""Approving: another person signs the digest of a plan as it is recorded.

Rules:
- What is shown is the recorded plan, and what is signed is its digest: nothing is looked up again.
- Never by the requester. At risk critical the approver types the target's name.
- An approval counts once, for a time, and is kept in the journal, outside the target. One that
  stands (`standing.py`) counts for every plan inside its bounds.
- Each is a record of its own: of several people who approve at once, each counts.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from handrail.core import breaking, records, signing, standing
from handrail.core.observing import payload, valid_approvals
from handrail.core.world import Declared, World
from handrail.errors import KeysError, RefusedError, UsageError
from handrail.plans import quorum
from handrail.plans.bounds import bounds_of
from handrail.plans.canonical import plain, time_text
from handrail.plans.model import Approval, Plan
from handrail.plans.policy import Policy

_ID = re.compile("[0-9a-f]{12}")
# Between what is to be signed and its signature: for whoever looks for the key's passphrase.
_SIGNING_S = 900


def needed(plan: Plan) -> bool:
    """Whether anything of `plan` waits for an approval."""
    waiting = {d.guard for d in plan.decisions if d.verdict == "require" and d.binding}
    return bool(waiting & {"second-person", "typed-name", "avoidable"})


def names_target(plan: Plan) -> bool:
    """Whether the approver has to type the target's name."""
    return any(d.guard == "typed-name" and d.binding for d in plan.decisions)


def approve(
    world: World,
    declared: Declared,
    plan: Plan,
    key: Path,
    *,
    because: str = "",
    typed: str = "",
    standing_s: int = 0,
) -> Approval:
    """Sign `plan` with `key` and record the approval.

    Args:
        world: the ports.
        declared: for the policy: who may approve, and for how long it counts.
        plan: as recorded.
        key: private SSH key, or the public one of a key that an agent holds.
        because: why, for those who read it later.
        typed: the target's name as the approver typed it; needed at risk critical.
        standing_s: how long it stands for every plan such as this one; 0 for one run.

    Raises:
        RefusedError: the plan is refused, or the approver may not approve it.
        UsageError: there is nothing to approve, or the name is not the target's.
        KeysError: the key cannot be used, or belongs to nobody who is allowed.
    """
    people = signing.people_of(world, key)
    unsigned = _unsigned(world, declared, plan, people, because, typed, standing_s)
    signature = world.keys.sign(payload(unsigned, plan.target.resource), key)
    return _record(world, plan, replace(unsigned, signature=signature))


def prepare(
    world: World,
    declared: Declared,
    plan: Plan,
    *,
    because: str = "",
    typed: str = "",
    standing_s: int = 0,
) -> Approval:
    """Return the approval of `world.person` without its signature, for a key that lies elsewhere.

    Raises:
        RefusedError, UsageError: as `approve`.
    """
    return _unsigned(world, declared, plan, (world.person,), because, typed, standing_s)


def accept(world: World, declared: Declared, plan: Plan, approval: Approval) -> Approval:
    """Record an approval of `world.person` that `prepare` gave, and that was signed elsewhere.

    Nothing of it is believed: it must be what would be prepared at that moment, a moment ago.

    Raises:
        RefusedError, UsageError: as `approve`, or it is not what was prepared, or not of now.
        KeysError: the signature is not the person's, or is the requester's own.
    """
    typed = plan.target.resource if approval.named_target else ""
    now = world.clock.now()
    made = _moment(approval.made_at)
    lasts = _moment(approval.expires_at) - made
    stands_s = int(lasts.total_seconds()) if approval.bounds else 0
    anew = _unsigned(world, declared, plan, (world.person,), approval.because, typed, stands_s)
    known = {records.body(r).get("id") for r in world.journal.records(_chain(approval))}
    expected = replace(
        anew,
        id=approval.id,
        made_at=approval.made_at,
        expires_at=time_text(made + timedelta(seconds=stands_s or declared.policy.approval_age_s)),
        signature=approval.signature,
    )
    is_fresh = made <= now < made + timedelta(seconds=_SIGNING_S)
    is_new = bool(_ID.fullmatch(approval.id)) and approval.id not in known
    if approval != expected or not is_fresh or not is_new:
        raise RefusedError(
            "plan.stale",
            "this approval is not what was to be signed, or not of the last minutes",
            hint=f"handrail approve {plan.digest[:4]}-{plan.digest[4:8]}",
        )
    _refuse_requesters_key(world, plan, approval)
    return _record(world, plan, approval)


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else datetime.fromtimestamp(0, UTC)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def _refuse_requesters_key(world: World, plan: Plan, approval: Approval) -> None:
    """Refuse a signature that the requester's own key made, whatever else the key is called."""
    signed = payload(approval, plan.target.resource)
    try:
        world.keys.verify(
            signed,
            approval.signature,
            world.allowed_signers,
            world.clock.now(),
            plan.request.person,
        )
    except KeysError:
        return
    raise _own_run(plan)


def _unsigned(
    world: World,
    declared: Declared,
    plan: Plan,
    people: tuple[str, ...],
    because: str,
    typed: str,
    standing_s: int,
) -> Approval:
    _refuse_unsuitable(plan, stands=bool(standing_s))
    if standing_s:
        standing.refuse_unsuitable(declared.policy, plan, standing_s)
    person = _person(declared, plan, people)
    named = names_target(plan)
    if named and typed not in {plan.target.resource, plan.target.resource.partition("/")[2]}:
        raise UsageError(
            "approval.name",
            f"`{typed}` is not the target's name",
            hint=f"type {plan.target.resource}, or give it: --name ...",
        )
    now = world.clock.now()
    return Approval(
        world.ids.new()[:12],
        plan.digest,
        person,
        tuple(sorted(g for g, who in declared.policy.groups.items() if person in who)),
        time_text(now),
        time_text(now + timedelta(seconds=standing_s or declared.policy.approval_age_s)),
        named,
        because,
        signature="",
        bounds=bounds_of(plan) if standing_s else None,
    )


def _record(world: World, plan: Plan, approval: Approval) -> Approval:
    signed = payload(approval, plan.target.resource)
    world.keys.verify(
        signed, approval.signature, world.allowed_signers, world.clock.now(), approval.person
    )
    body = plain(approval)
    world.journal.append(_chain(approval), "approved", body if isinstance(body, dict) else {})
    return approval


def _chain(approval: Approval) -> str:
    """Return the chain that an approval is kept in."""
    bounds = approval.bounds
    return standing.chain_of(bounds) if bounds else f"approvals-{approval.digest}"


def use(world: World, plan: Plan, run: str) -> tuple[str, ...]:
    """Mark every approval of `plan` as used by `run`, and return their ids.

    In one order for everybody: of two runs one gets them all. What stands is counted, not used up.

    Raises:
        RefusedError: another run was first, or the approver has withdrawn it.
    """
    if plan.facts.glass is not None:
        breaking.use(world, plan.facts.glass, run)
    for approval in sorted(plan.facts.approvals, key=lambda one: (bool(one.bounds), one.id)):
        if approval.bounds is not None:
            standing.use(world, approval, run)
            continue
        first = world.journal.single_use(f"approval {approval.id}")
        # Also when it is not: a crash between these two left an approval that every plan counts
        # and no run can use.
        world.journal.append(
            f"approvals-{plan.digest}",
            "used",
            {"id": approval.id, "run": run if first else "another"},
        )
        if not first:
            raise RefusedError(
                "plan.stale",
                f"the approval of {approval.person} was used already, or withdrawn",
                hint=f"handrail approve {plan.digest[:4]}-{plan.digest[4:8]}",
            )
    return tuple(approval.id for approval in plan.facts.approvals)


def tally(world: World, policy: Policy, plan: Plan, now: str) -> tuple[int, int, tuple[str, ...]]:
    """Return how many people have still to approve `plan`, of how many, and who of a group may."""
    counted = valid_approvals(world, plan, now)
    plan = replace(plan, facts=replace(plan.facts, approvals=counted, now=now))
    lacking, wanted = quorum.lacking(plan, policy), quorum.wanted(policy, plan.risk)
    return lacking, wanted, quorum.candidates(plan, policy)


def lapse(world: World, digest: str, now: str) -> None:
    """Record the approvals of `digest` that are expired: a clock set back revives none of them."""
    for approval in records.approvals(world.journal, digest):
        if approval.expires_at <= now:
            world.journal.append(f"approvals-{digest}", "expired", {"id": approval.id})


def _refuse_unsuitable(plan: Plan, *, stands: bool) -> None:
    refusals = [d for d in plan.decisions if d.verdict == "refuse" and d.binding]
    if refusals:
        first = refusals[0]
        raise RefusedError(
            "plan.refused",
            f"this plan is refused: {first.guard}: {first.because}",
            hint=first.remedy,
        )
    asks = any(d.guard == "second-person" and d.binding for d in plan.decisions)
    # One that stands is for the runs to come, also where this one is approved already.
    if not (needed(plan) or (stands and asks)):
        raise UsageError(
            "approval.unneeded",
            f"nothing of this plan (risk {plan.risk}) waits for an approval",
            hint=f"handrail run {plan.request.operation}",
        )


def _person(declared: Declared, plan: Plan, people: tuple[str, ...]) -> str:
    """Return who of `people` approves, having refused the requester and who is not in the group."""
    if plan.request.person in people:
        raise _own_run(plan)
    group = declared.policy.approvers.get(plan.risk, "")
    members = declared.policy.groups.get(group, ())
    allowed = [person for person in people if not group or person in members]
    if not allowed:
        raise RefusedError(
            "keys.not-allowed",
            f"{people[0]} is not in `{group}`, which approves risk {plan.risk}",
            hint=f"ask one of {', '.join(members)}",
        )
    return allowed[0]


def _own_run(plan: Plan) -> RefusedError:
    return RefusedError(
        "keys.own-run",
        f"{plan.request.person} asked for this run: nobody approves their own",
        hint="ask somebody else in allowed_signers",
    )
