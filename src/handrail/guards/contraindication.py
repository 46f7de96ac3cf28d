"""Some operations are poison for one resource although they are right elsewhere.

Judged for the target and for everything that depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator

from handrail.estate.model import Contraindication
from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "contraindication"


def judge(case: Case) -> Decision:
    """Refuse an operation that an incident taught not to use here."""
    for ref, found in _applicable(case):
        if not found.unless:
            remedy = f"read {found.because}"
        else:
            said = " ".join(f"-p {key}={value}" for key, value in found.unless.items())
            remedy = f"harmless with {said}"
        return Decision(
            name, "refuse", f"it harms {ref}: {found.because}", str(found.place), remedy
        )
    return Decision(name, "allow", "no incident speaks against it")


def _applicable(case: Case) -> Iterator[tuple[str, Contraindication]]:
    plan = case.plan
    today = plan.facts.now[:10]
    for ref in (plan.target.resource, *(c.resource for c in plan.consequences)):
        resource = case.estate.resources.get(ref)
        for found in resource.contraindications if resource else ():
            expired = bool(found.expires) and found.expires < today
            given = plan.request.parameters
            harmless = bool(found.unless) and all(
                given.get(key) == value for key, value in found.unless.items()
            )
            if found.operation == plan.request.operation and not expired and not harmless:
                yield ref, found
