"""Some operations are poison for one resource although they are right elsewhere.

Judged for the target and for everything that depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator

from handrail.estate.graph import dependants
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
    """Yield what speaks against the plan, for whatever it does: no effect makes it harmless."""
    harmful = [
        (resource.ref, found)
        for resource in case.estate.harmed
        for found in resource.contraindications
        if _speaks(found, case)
    ]
    if harmful:
        target = case.plan.target
        near = {*target.stores, *target.touches}
        for ref in tuple(near):
            near |= {dependant.ref for dependant in dependants(case.estate, ref)}
        yield from (pair for pair in harmful if pair[0] in near)


def _speaks(found: Contraindication, case: Case) -> bool:
    plan = case.plan
    given = plan.request.parameters
    harmless = bool(found.unless) and all(given.get(k) == v for k, v in found.unless.items())
    expired = bool(found.expires) and found.expires < plan.facts.now[:10]
    return found.operation == plan.request.operation and not expired and not harmless
