"""Deciding: from a request to a judged plan, written to the journal.

Rules:
- One way: observe, draft, approvals over that digest, judge, record.
- The plan that a later stage gets is the value made here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from handrail.core import declaring, observing, records
from handrail.core.world import Declared, World
from handrail.estate.model import Resource
from handrail.operations.loading import values
from handrail.operations.model import Operation
from handrail.plans.canonical import plain
from handrail.plans.judging import Case, judge
from handrail.plans.model import Plan, Request
from handrail.plans.planning import draft


@dataclass(frozen=True)
class Decided:
    """A judged plan with the declarations that it came from."""

    plan: Plan
    operation: Operation
    resource: Resource
    declared: Declared


def decide(
    world: World,
    declared: Declared,
    name: str,
    *,
    on: str | None = None,
    parameters: dict[str, str] | None = None,
    because: str = "",
) -> Decided:
    """Plan an operation and judge it. Changes nothing but Handrail's own record.

    Args:
        world: the ports.
        declared: the team's declarations.
        name: of an operation, or the path of a script.
        on: which target, where the operation leaves a choice.
        parameters: as given; the rest have their defaults.
        because: why, for those who read it later.

    Raises:
        UsageError: no such operation, target or parameter.
        DeclarationError: what would run cannot be read.
        JournalError: the plan could not be recorded.
    """
    operation = declaring.find_operation(declared, name, world.root, "")
    resource = declaring.find_target(declared.estate, operation, on)
    request = Request(
        operation.name, resource.ref, values(operation, parameters or {}), world.person, because
    )
    return again(world, declared, operation, resource, request)


def again(
    world: World, declared: Declared, operation: Operation, resource: Resource, request: Request
) -> Decided:
    """Plan and judge the same request on the world as it is now."""
    facts, material = observing.observe(world, operation, resource, request)
    policy = declared.policy
    plan = draft(request, operation, resource, declared.estate, policy, material, facts)
    approvals = observing.valid_approvals(world, plan.digest, request.target, facts.now)
    plan = replace(plan, facts=replace(facts, approvals=approvals))
    plan = judge(Case(plan, operation, declared.estate, policy), world.guards)
    world.journal.append(records.plan_chain(plan.digest), "planned", _body(plan))
    return Decided(plan, operation, resource, declared)


def for_person(request: Request, person: str, because: str) -> Request:
    """Return the same request as `person` makes it now."""
    return replace(request, person=person, because=because or request.because)


def _body(plan: Plan) -> dict[str, object]:
    body = plain(plan)
    if not isinstance(body, dict):
        raise TypeError("a plan is a mapping")
    return body
