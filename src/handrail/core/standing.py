"""Standing approvals: one signature for every run inside signed bounds, until the first breach.

Rules:
- What goes beyond the bounds is not covered, and once it was rehearsed or asked to run, the
  approval has ended for good: going back inside does not revive it.
- A run that did not end well, or did more than its budget, ends it too.
- One that was seen to end (expired, withdrawn, breached) stays so, whatever the clock says, and
  whoever writes its record again.
- Plans of another target, endpoint or parameter are not its business, and do not end it.
"""

from __future__ import annotations

from dataclasses import dataclass

from handrail.core import records
from handrail.core.world import World
from handrail.errors import RefusedError, UsageError
from handrail.plans.amounts import duration
from handrail.plans.bounds import bounds_of, breach, is_for, subject
from handrail.plans.canonical import time_text
from handrail.plans.model import RISKS, Approval, Bounds, Plan
from handrail.plans.policy import Policy

PREFIX = "standing-"
_DAY_S = 86400
# Ends of a run after which the same may run again without another look.
_WELL = frozenset({"confirmed", "refused", "stopped", "interrupted"})


@dataclass(frozen=True)
class Living:
    """An approval that stands.

    Attributes:
        uses: the chains of the runs that it covered, in order.
    """

    approval: Approval
    uses: tuple[str, ...]


def chain_of(bounds: Bounds) -> str:
    """Return the chain that approvals with such bounds are kept in."""
    return PREFIX + subject(bounds.operation, bounds.target, bounds.parameters)


def refuse_unsuitable(policy: Policy, plan: Plan, standing_s: int) -> None:
    """Raise where an approval of `plan` may not stand for so long, or at all.

    Raises:
        UsageError: the policy does not want it, or nobody has measured what the plan does.
    """
    bounds_of(plan)
    if RISKS.index(plan.risk) > RISKS.index(policy.standing_risk):
        raise UsageError(
            "approval.standing",
            f"at risk {plan.risk} every run is approved by itself; up to {policy.standing_risk} "
            "an approval may stand",
            hint="`approval: {standing: {risk: ...}}` in policy.yaml says up to where",
        )
    if standing_s > policy.standing_age_s:
        raise UsageError(
            "approval.standing",
            f"an approval may stand for {_said(policy.standing_age_s)} at most",
            hint="`approval: {standing: {max-age: ...}}` in policy.yaml says how long",
        )


def _said(seconds: int) -> str:
    return f"{seconds // _DAY_S} d" if seconds % _DAY_S == 0 else duration(seconds)


def covering(world: World, plan: Plan) -> tuple[Approval, ...]:
    """Return the approvals that stand for `plan`, having recorded those that are expired.

    Signatures are not checked here.
    """
    chain = PREFIX + subject(plan.request.operation, plan.target.resource, plan.request.parameters)
    found = records.living(world.journal, chain)
    now = _latest(world) if found else ""
    for approval in found:
        if approval.expires_at <= now:
            world.journal.append(chain, "ended", {"id": approval.id, "why": "expired"})
    return tuple(
        approval
        for approval in found
        if approval.expires_at > now
        and approval.bounds is not None
        and is_for(approval.bounds, plan)
        and not breach(approval.bounds, plan)
    )


def settle(world: World, plan: Plan, *, runs: bool) -> tuple[Approval, ...]:
    """End what stands for such plans as `plan`, and does not cover it; return what was ended.

    Args:
        world: the ports.
        plan: rehearsed just now, or about to run.
        runs: whether it is about to run: then a rehearsal that counts no more is a breach, too.
    """
    chain = PREFIX + subject(plan.request.operation, plan.target.resource, plan.request.parameters)
    ended = []
    for approval in records.living(world.journal, chain):
        if approval.bounds is None or not is_for(approval.bounds, plan):
            continue
        why = breach(approval.bounds, plan) or (_stale(plan) if runs else "")
        if why:
            world.journal.append(chain, "ended", {"id": approval.id, "why": why})
            ended.append(approval)
    return tuple(ended)


def _stale(plan: Plan) -> str:
    """Return why the plan's rehearsal counts no more; empty while it does, or nobody can tell."""
    if plan.facts.unreadable:
        return ""
    words = (d for d in plan.decisions if d.guard == "rehearsed" and d.verdict == "refuse")
    return next((decision.because for decision in words), "")


def end_after(world: World, plan: Plan, run: int, outcome: str) -> None:
    """End what stood for a run that did not end well. Twice equals once."""
    if outcome in _WELL:
        return
    for approval in plan.facts.approvals:
        if approval.bounds is None:
            continue
        chain = chain_of(approval.bounds)
        if any(approval.id == one.id for one in records.living(world.journal, chain)):
            why = f"run {run} ended {outcome}"
            world.journal.append(chain, "ended", {"id": approval.id, "why": why})


def use(world: World, approval: Approval, run: str) -> None:
    """Record that `run` is covered by `approval`.

    Raises:
        RefusedError: it was withdrawn, or has ended, in the moment before.
    """
    if approval.bounds is None:
        raise AssertionError("one that counts once is used up by `approving.use`")
    chain = chain_of(approval.bounds)
    world.journal.append(chain, "used", {"id": approval.id, "run": run})
    # After the record, so that of a withdrawal and a run one sees the other.
    if all(one.id != approval.id for one in records.living(world.journal, chain)):
        raise RefusedError(
            "plan.stale",
            f"the standing approval of {approval.person} has ended",
            hint=f"handrail approve {records.short(approval.digest)}",
        )


def living(world: World) -> tuple[Living, ...]:
    """Return what stands now, oldest first; signatures are not checked here."""
    found, now = [], _latest(world)
    for chain in world.journal.chains(PREFIX):
        uses = records.told_of(world.journal, chain, "used")
        for approval in records.living(world.journal, chain):
            if approval.made_at <= now < approval.expires_at:
                runs = tuple(str(one["run"]) for one in uses if one["id"] == approval.id)
                found.append(Living(approval, runs))
    return tuple(sorted(found, key=lambda one: one.approval.made_at))


def _latest(world: World) -> str:
    """Return the time: never earlier than what the journal has seen, if the clock was set back."""
    seen = world.journal.last("anchors")
    now = time_text(world.clock.now())
    return max(now, seen.time) if seen else now
