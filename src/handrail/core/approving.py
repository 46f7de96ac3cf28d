"""Approving: another person signs the digest of a plan as it is recorded.

Rules:
- What is shown is the recorded plan, and what is signed is its digest: nothing is looked up again.
- Never by the requester. At risk critical the approver types the target's name.
- An approval counts once, for a time, and is kept in the journal, outside the target.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from handrail.core import records
from handrail.core.observing import payload
from handrail.core.world import Declared, World
from handrail.errors import KeysError, RefusedError, UsageError
from handrail.plans.canonical import plain, time_text
from handrail.plans.model import Approval, Plan

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
    world: World, declared: Declared, plan: Plan, key: Path, *, because: str = "", typed: str = ""
) -> Approval:
    """Sign `plan` with `key` and record the approval.

    Args:
        world: the ports.
        declared: for the policy: who may approve, and for how long it counts.
        plan: as recorded.
        key: private SSH key, or the public one of a key that an agent holds.
        because: why, for those who read it later.
        typed: the target's name as the approver typed it; needed at risk critical.

    Raises:
        RefusedError: the plan is refused, or the approver may not approve it.
        UsageError: there is nothing to approve, or the name is not the target's.
        KeysError: the key cannot be used, or belongs to nobody who is allowed.
    """
    people = world.keys.principals(key, world.allowed_signers)
    if not people:
        raise KeysError(
            "keys.not-allowed",
            f"the key {key.name} belongs to nobody in {world.allowed_signers.name}",
            hint="add its public line there, and commit that",
        )
    unsigned = _unsigned(world, declared, plan, people, because, typed)
    signature = world.keys.sign(payload(unsigned, plan.target.resource), key)
    return _record(world, plan, replace(unsigned, signature=signature))


def prepare(
    world: World, declared: Declared, plan: Plan, *, because: str = "", typed: str = ""
) -> Approval:
    """Return the approval of `world.person` without its signature, for a key that lies elsewhere.

    Raises:
        RefusedError, UsageError: as `approve`.
    """
    return _unsigned(world, declared, plan, (world.person,), because, typed)


def accept(world: World, declared: Declared, plan: Plan, approval: Approval) -> Approval:
    """Record an approval of `world.person` that `prepare` gave, and that was signed elsewhere.

    Nothing of it is believed: it must be what would be prepared at that moment, a moment ago.

    Raises:
        RefusedError, UsageError: as `approve`, or it is not what was prepared, or not of now.
        KeysError: the signature is not the person's, or is the requester's own.
    """
    typed = plan.target.resource if approval.named_target else ""
    now = world.clock.now()
    anew = _unsigned(world, declared, plan, (world.person,), approval.because, typed)
    known = {records.body(r).get("id") for r in world.journal.records(f"approvals-{plan.digest}")}
    made = _moment(approval.made_at)
    expected = replace(
        anew,
        id=approval.id,
        made_at=approval.made_at,
        expires_at=time_text(made + timedelta(seconds=declared.policy.approval_age_s)),
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
    world: World, declared: Declared, plan: Plan, people: tuple[str, ...], because: str, typed: str
) -> Approval:
    _refuse_unsuitable(plan)
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
        time_text(now + timedelta(seconds=declared.policy.approval_age_s)),
        named,
        because,
        signature="",
    )


def _record(world: World, plan: Plan, approval: Approval) -> Approval:
    signed = payload(approval, plan.target.resource)
    world.keys.verify(
        signed, approval.signature, world.allowed_signers, world.clock.now(), approval.person
    )
    body = plain(approval)
    world.journal.append(
        f"approvals-{plan.digest}", "approved", body if isinstance(body, dict) else {}
    )
    return approval


def use(world: World, plan: Plan, run: str) -> tuple[str, ...]:
    """Mark every approval of `plan` as used by `run`, and return their ids.

    Raises:
        RefusedError: another run was first.
    """
    for approval in plan.facts.approvals:
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
                f"the approval of {approval.person} was used already",
                hint=f"handrail approve {plan.digest[:4]}-{plan.digest[4:8]}",
            )
    return tuple(approval.id for approval in plan.facts.approvals)


def lapse(world: World, digest: str, now: str) -> None:
    """Record the approvals of `digest` that are expired: a clock set back revives none of them."""
    for approval in records.approvals(world.journal, digest):
        if approval.expires_at <= now:
            world.journal.append(f"approvals-{digest}", "expired", {"id": approval.id})


def _refuse_unsuitable(plan: Plan) -> None:
    refusals = [d for d in plan.decisions if d.verdict == "refuse" and d.binding]
    if refusals:
        first = refusals[0]
        raise RefusedError(
            "plan.refused",
            f"this plan is refused: {first.guard}: {first.because}",
            hint=first.remedy,
        )
    if not needed(plan):
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
