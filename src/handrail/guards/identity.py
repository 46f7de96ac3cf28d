"""The target proves who it is: the server that answers is the one that was adopted."""

from __future__ import annotations

from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "identity"


def judge(case: Case) -> Decision:
    """Refuse a target that does not answer, is a clone, or is not the one that was adopted."""
    target, found = case.plan.target, case.plan.facts.identity
    proving = (target.platform,) if target.platform else target.stores
    adopt = " and ".join(f"handrail adopt {ref}" for ref in proving)
    if found is None:
        return Decision(
            name,
            "refuse",
            f"{proving[0]} does not say who it is",
            target.declared_at,
            "make it reachable, then plan again",
        )
    if found.marker:
        return Decision(
            name,
            "refuse",
            f"{found.endpoint} is a clone that a rehearsal made",
            target.declared_at,
            "point the store's url at the real server",
        )
    if not case.operation.declared:
        return Decision(name, "allow", f"{found}; nothing is declared to compare it with")
    if not target.declared_identity:
        return Decision(
            name,
            "refuse",
            f"{proving[0]} was never adopted; it says {found}",
            target.declared_at,
            adopt,
        )
    if str(found) != target.declared_identity:
        return Decision(
            name,
            "refuse",
            f"it says {found}, but {target.declared_identity} was adopted",
            target.declared_at,
            f"find out why; if it moved on purpose: {adopt}",
        )
    return Decision(
        name, "allow", f"the one that was adopted, {found.endpoint}", target.declared_at
    )
