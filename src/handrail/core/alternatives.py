"""The safe alternative of what a contraindication refuses: the same operation, as it is harmless.

Rules:
- It is planned and judged like everything else, and never run by itself.
- It differs from what was asked for in the parameters that the contraindications name alone.
"""

from __future__ import annotations

from handrail.core import deciding, lessons
from handrail.core.deciding import Decided
from handrail.core.world import Declared, World
from handrail.guards import contraindication
from handrail.operations.model import Operation
from handrail.plans.judging import Case

# Each names its own parameters: what is harmless for one may be refused by the next.
_TRIES = 4


def alternative(world: World, declared: Declared, decided: Decided) -> Decided | None:
    """Plan what the contraindications that refuse `decided` say is harmless, and judge it.

    Returns:
        None where none refuses, or one of those that do names no alternative.

    Raises:
        HandrailError: the alternative cannot be planned.
    """
    found = decided
    for _ in range(_TRIES):
        if not lessons.is_refused(found.plan):
            break
        parameters = _harmless(found)
        if parameters is None:
            return None
        found = _again(world, declared, found, parameters)
    if found is decided or lessons.is_refused(found.plan):
        return None
    lessons.note(world, _case(decided), "heeded")
    return found


def _harmless(decided: Decided) -> dict[str, str] | None:
    """Return the parameters under which what speaks against it is silent; None where none are."""
    given = dict(decided.plan.request.parameters)
    known = {parameter.name for parameter in decided.operation.parameters}
    for _, found in contraindication.speaking(_case(decided)):
        if not found.unless or not set(found.unless) <= known:
            return None
        given |= found.unless
    return given


def _again(
    world: World, declared: Declared, decided: Decided, parameters: dict[str, str]
) -> Decided:
    request = decided.plan.request
    return deciding.decide(
        world,
        declared,
        request.operation,
        on=request.target,
        parameters=_beside_defaults(decided.operation, parameters),
        because=request.because,
    )


def _beside_defaults(operation: Operation, parameters: dict[str, str]) -> dict[str, str]:
    """Return what has to be said: a default is not."""
    usual = {parameter.name: parameter.default for parameter in operation.parameters}
    return {name: value for name, value in parameters.items() if value != usual.get(name)}


def _case(decided: Decided) -> Case:
    declared = decided.declared
    return Case(decided.plan, decided.operation, declared.estate, declared.policy)
