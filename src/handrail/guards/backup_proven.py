"""A backup counts only once it has been restored, with equal content, and not too long ago."""

from __future__ import annotations

from datetime import datetime, timedelta

from handrail.plans.amounts import duration
from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "backup-proven"
_DAY_S = 86400
_DEFAULT_S = 7 * _DAY_S
_SKEW = timedelta(minutes=-5)


def judge(case: Case) -> Decision:
    """Refuse a durable target without a recent proof; a rehearsal makes one."""
    target, proof = case.plan.target, case.plan.facts.proof
    if target.durability == "lossy":
        return Decision(name, "allow", "declared lossy: nobody would miss it", target.declared_at)
    remedy = f"handrail rehearse {case.plan.request.asked}"
    if proof is None:
        return Decision(
            name,
            "refuse",
            f"no backup of {target.resource} has ever been restored",
            target.declared_at,
            remedy,
        )
    if not proof.equal:
        return Decision(
            name,
            "refuse",
            "the last backup did not restore to equal content",
            target.declared_at,
            remedy,
        )
    resource = case.estate.resources.get(target.stores[0])
    rule = resource.store.backups if resource and resource.store else None
    reason = _too_old(proof.proven_at, case.plan.facts.now, rule.prove_s if rule else _DEFAULT_S)
    if reason:
        return Decision(name, "refuse", reason, target.declared_at, remedy)
    return Decision(
        name,
        "allow",
        f"backup {proof.backup} was restored on {proof.proven_at[:10]} in "
        f"{duration(proof.restore_s)}",
        target.declared_at,
    )


def _too_old(proven_at: str, now: str, limit_s: int) -> str:
    """Return why a proof of that time does not count now; empty when it does."""
    age = datetime.fromisoformat(now) - datetime.fromisoformat(proven_at)
    if age < _SKEW:
        return f"the last proof is dated {proven_at[:16]}, which is still to come"
    if age <= timedelta(seconds=limit_s):
        return ""
    days = limit_s // _DAY_S
    said = f"{days} days" if days > 1 else f"{limit_s / 3600:.0f} h"
    return f"the last proof is of {proven_at[:16]}, older than {said}"
