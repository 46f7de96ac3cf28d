"""Real data is real data, whatever the server is called: declared, or inferred from what is there.

Inferred: rows older than the environment allows (30 days where it does not say), or more rows than
its declared ceiling.
"""

from __future__ import annotations

from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "production-data"


def judge(case: Case) -> Decision:
    """Refuse a store that holds real data and does not say so."""
    target, measure = case.plan.target, case.plan.facts.measure
    environment = case.estate.environments.get(target.environment)
    if target.production or "production-data" in target.holds:
        said = "production" if target.production else "holding production data"
        return Decision(name, "allow", f"declared as {said}, and guarded so", target.declared_at)
    if measure is None:
        return Decision(
            name, "refuse", f"what {target.resource} holds could not be read", target.declared_at
        )
    found = target.seems_real
    if not found:
        return Decision(
            name, "allow", f"{measure.rows:,} rows, none of them old", target.declared_at
        )
    if target.durability == "lossy":
        return Decision(
            name, "allow", f"{found}; declared lossy: nobody would miss it", target.declared_at
        )
    if not case.operation.declared:
        return Decision(
            name, "refuse", found, "default policy", "declare the database: handrail init --from"
        )
    return Decision(
        name,
        "refuse",
        found,
        str(environment.place) if environment else target.declared_at,
        f"say what it holds: `holds: [production-data]` at {target.declared_at}",
    )
