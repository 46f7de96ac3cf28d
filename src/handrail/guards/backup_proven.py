"""A backup counts only once it has been restored, with equal content, and not too long ago."""

from __future__ import annotations

from datetime import datetime, timedelta

from handrail.plans.amounts import duration
from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "backup-proven"
_DEFAULT_S = 7 * 86400


def judge(case: Case) -> Decision:
    """Refuse a durable target without a recent proof; a rehearsal makes one."""
    target, proof = case.plan.target, case.plan.facts.proof
    if target.durability == "lossy":
        return Decision(name, "allow", "declared lossy: nobody would miss it", target.declared_at)
    remedy = f"handrail rehearse {case.plan.request.operation}"
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
    resource = case.estate.resources.get(target.resource)
    rule = resource.store.backups if resource and resource.store else None
    limit = timedelta(seconds=rule.prove_s if rule else _DEFAULT_S)
    age = _age(proof.proven_at, case.plan.facts.now)
    if age > limit or age < timedelta(minutes=-5):
        return Decision(
            name,
            "refuse",
            f"the last proof is of {proof.proven_at[:16]}, older than {limit.days} days",
            target.declared_at,
            remedy,
        )
    return Decision(
        name,
        "allow",
        f"backup {proof.backup} was restored on {proof.proven_at[:10]} in "
        f"{duration(proof.restore_s)}",
        target.declared_at,
    )


def _age(then: str, now: str) -> timedelta:
    return datetime.fromisoformat(now) - datetime.fromisoformat(then)
