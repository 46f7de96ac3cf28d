"""An operation runs only where it was declared for."""

from __future__ import annotations

from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "environment"


def judge(case: Case) -> Decision:
    """Refuse a target that the operation's `on` does not select."""
    target, on = case.plan.target, case.operation.on
    declared = str(case.operation.place)
    if not case.operation.declared:
        return Decision(name, "allow", "a script that nobody declared names no environment")
    if on.environment and on.environment != target.environment:
        belongs = target.environment or "no environment"
        return Decision(
            name,
            "refuse",
            f"the operation is for environment `{on.environment}`, {target.resource} belongs to "
            f"`{belongs}`",
            declared,
            "choose another target with --on",
        )
    if on.name and f"{on.kind}/{on.name}" != target.stores[0]:
        return Decision(name, "refuse", f"the operation is for {on.kind}/{on.name} alone", declared)
    return Decision(
        name,
        "allow",
        f"declared for environment `{target.environment}`"
        if target.environment
        else f"declared for {target.resource}",
        declared,
    )
