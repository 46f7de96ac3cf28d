"""Real data is real data, whatever the server is called: declared, or inferred from what is there.

Inferred: rows older than the environment allows (30 days where it does not say), or more rows than
its declared ceiling.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "production-data"
_YEAR_DAYS = 365


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
    found = _inferred(case)
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
            name,
            "refuse",
            found,
            "default policy",
            f"declare it: handrail init --from {target.resource.partition('/')[2]}",
        )
    return Decision(
        name,
        "refuse",
        found,
        str(environment.place) if environment else target.declared_at,
        f"declare what it is: `holds: [production-data]` in {target.declared_at}, then it is "
        "guarded as production",
    )


def _inferred(case: Case) -> str:
    """Return why the store looks like real data; empty when it does not."""
    measure, target = case.plan.facts.measure, case.plan.target
    environment = case.estate.environments.get(target.environment)
    place = f"environment `{target.environment}`" if environment else "a store that is not declared"
    if measure is None:
        return ""
    ceiling = environment.max_rows if environment else None
    if ceiling is not None and measure.rows > ceiling:
        return f"{measure.rows:,} rows; {place} may hold {ceiling:,}"
    limit_s = environment.max_age_s if environment else None
    limit = timedelta(seconds=case.policy.data_age_s if limit_s is None else limit_s)
    if measure.oldest is None:
        return ""
    age = _moment(case.plan.facts.now) - _moment(measure.oldest)
    if age > limit:
        return f"rows are {_age(age)} old; {place} may hold {_age(limit)}"
    return ""


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = datetime.fromisoformat(f"{moment.isoformat()}+00:00")
    return moment


def _age(age: timedelta) -> str:
    years = age.days // _YEAR_DAYS
    return f"{years} years" if years > 1 else f"{age.days} days"
