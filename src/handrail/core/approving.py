"""Approving: another person signs the digest of a plan as it is recorded.

Rules:
- What is shown is the recorded plan, and what is signed is its digest: nothing is looked up again.
- Never by the requester. At risk critical the approver types the target's name.
- An approval counts once, for a time, and is kept in the journal, outside the target.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from handrail.core import records
from handrail.core.observing import payload
from handrail.core.world import Declared, World
from handrail.errors import KeysError, RefusedError, UsageError
from handrail.plans.canonical import plain, time_text
from handrail.plans.model import Approval, Plan


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
    _refuse_unsuitable(plan)
    person = _person(world, declared, plan, key)
    named = names_target(plan)
    if named and typed not in {plan.target.resource, plan.target.resource.partition("/")[2]}:
        raise UsageError(
            "approval.name",
            f"`{typed}` is not the target's name",
            hint=f"type {plan.target.resource}, or give it: --name ...",
        )
    now = world.clock.now()
    groups = tuple(sorted(g for g, who in declared.policy.groups.items() if person in who))
    expires = now + timedelta(seconds=declared.policy.approval_age_s)
    unsigned = Approval(
        world.ids.new()[:12],
        plan.digest,
        person,
        groups,
        time_text(now),
        time_text(expires),
        named,
        because,
        signature="",
    )
    signature = world.keys.sign(payload(unsigned, plan.target.resource), key)
    approval = replace(unsigned, signature=signature)
    world.keys.verify(
        payload(approval, plan.target.resource), signature, world.allowed_signers, now, person
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


def _person(world: World, declared: Declared, plan: Plan, key: Path) -> str:
    """Return whose key it is, having refused the requester and whoever is not in the group."""
    people = world.keys.principals(key, world.allowed_signers)
    if not people:
        raise KeysError(
            "keys.not-allowed",
            f"the key {key.name} belongs to nobody in {world.allowed_signers.name}",
            hint="add its public line there, and commit that",
        )
    if plan.request.person in people:
        raise RefusedError(
            "keys.own-run",
            f"{plan.request.person} asked for this run: nobody approves their own",
            hint="ask somebody else in allowed_signers",
        )
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
