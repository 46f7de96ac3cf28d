"""Recalling: a run, its plan and what it was made from, as the journal has them.

Rules:
- What was recorded counts, not what is declared by now.
- A run whose declaration is gone can still be resumed and undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from handrail.core import declaring, records
from handrail.core.deciding import Decided
from handrail.core.world import Declared, World
from handrail.errors import Place, UsageError
from handrail.estate.model import Resource
from handrail.operations.model import Operation, Selector, Undo, Watch
from handrail.plans.model import Plan


def recorded_plan(world: World, number: int) -> Plan:
    """Return the plan of a run, as it was recorded when the run was opened.

    Raises:
        UsageError: there is no such run.
    """
    for record in world.journal.records(records.run_chain(number)):
        if record.kind == "opened":
            return records.decode(records.body(record)["plan"], Plan)
    raise UsageError("plan.unknown", f"there is no run {number}", hint="handrail runs")


def recorded(world: World, declared: Declared, number: int, on: str | None) -> Decided:
    """Return the recorded plan of a run with the declarations that it came from.

    Raises:
        UsageError: there is no such run, or what it ran on is not declared any more.
    """
    plan = recorded_plan(world, number)
    request = plan.request
    operation = declared.operations.get(request.operation) or _recorded_operation(plan)
    try:
        found = declaring.find_target(declared.estate, operation, on or request.target)
    except UsageError as error:
        raise UsageError(
            error.code, error.message, hint=f"say where it is: --on {plan.target.kind} URL or file"
        ) from error
    # Its own name, wherever it is now: effects and budget are told by it.
    name = request.target.partition("/")[2]
    resource: Resource = found if found.parts else replace(found, name=name)
    return Decided(plan, operation, resource, declared)


def _recorded_operation(plan: Plan) -> Operation:
    """Return the operation of a plan whose declaration, or undeclared script, may be gone."""
    step = plan.steps[0]
    kind, _, name = plan.target.resource.partition("/")
    return Operation(
        name=plan.request.operation,
        argv=step.argv,
        on=Selector(kind, name),
        undo=Undo(step.undo, step.undo_argv, "declared so when it ran"),
        watch=Watch(soak_s=plan.soak_s),
        place=Place(plan.declared_at),
        timeout_s=step.timeout_s,
        function=step.function,
        declared=plan.declared_at != step.argv[0],
        runs_on=plan.runs_on,
    )


def story(world: World, number: int) -> tuple[tuple[str, str, Mapping[str, Any]], ...]:
    """Return a run's records as (time, kind, body), oldest first."""
    return tuple(
        (record.time, record.kind, records.body(record))
        for record in world.journal.records(records.run_chain(number))
    )
