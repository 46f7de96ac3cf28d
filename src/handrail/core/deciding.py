"""Deciding: from a request to a judged plan, written to the journal.

Rules:
- One way: observe, draft, approvals over that digest, judge, record.
- The plan that a later stage gets is the value made here.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

from handrail.core import (
    approving,
    breaking,
    covering,
    declaring,
    drafting,
    lessons,
    observing,
    records,
)
from handrail.core.covering import Cover
from handrail.core.world import Declared, World
from handrail.errors import RefusedError, WaitingError
from handrail.estate.model import Resource
from handrail.operations.loading import values
from handrail.operations.model import Operation
from handrail.plans import material as materials
from handrail.plans.canonical import plain, time_text
from handrail.plans.judging import Case, judge
from handrail.plans.model import Plan, Request
from handrail.plans.planning import draft


@dataclass(frozen=True)
class Decided:
    """A judged plan with the declarations that it came from.

    Attributes:
        cover: for a child of a fan-out: whose approvals count in the place of its own.
    """

    plan: Plan
    operation: Operation
    resource: Resource
    declared: Declared
    cover: Cover | None = None


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
    given = parameters or {}
    request = Request(
        operation=operation.name,
        target=resource.ref,
        parameters=values(operation, given),
        person=world.person,
        because=because,
        words=_words(name, on, given),
    )
    return again(world, declared, operation, resource, request)


def _words(name: str, on: str | None, parameters: Mapping[str, str]) -> str:
    """Return how to ask for the same on a command line; a password in an address is left out."""
    target = ["--on", declaring.without_password(on)] if on else []
    pairs = [word for key, value in parameters.items() for word in ("-p", f"{key}={value}")]
    return shlex.join([name, *target, *pairs])


def again(
    world: World,
    declared: Declared,
    operation: Operation,
    resource: Resource,
    request: Request,
    cover: Cover | None = None,
) -> Decided:
    """Plan and judge the same request on the world as it is now."""
    policy = declared.policy
    if operation.act:
        own_run = cover.walk if cover else 0
        plan = drafting.draft(world, declared, operation, resource, request, own_run=own_run)
        facts = plan.facts
    else:
        facts, material = observing.observe(world, operation, resource, request)
        plan = draft(request, operation, resource, declared.estate, policy, material, facts)
    approving.lapse(world, plan.digest, facts.now)
    approvals = (
        observing.valid_approvals(world, plan, facts.now)
        if cover is None
        else covering.approvals(world, cover, plan, facts.now)
    )
    taught = lessons.of_operation(world, declared.estate, operation.name)
    plan = replace(plan, facts=replace(facts, approvals=approvals, taught=taught))
    plan = judge(Case(plan, operation, declared.estate, policy), world.guards)
    world.journal.append(records.plan_chain(plan.digest), "planned", _body(plan))
    lessons.note_refused(world, Case(plan, operation, declared.estate, policy))
    return Decided(plan, operation, resource, declared, cover)


def still(world: World, decided: Decided) -> Plan:
    """Return a plan made a while ago as it is judged now, on the facts that it was made with.

    Facts of the moment are read anew: the time, and whether its approvals verify. The caller holds
    the target.

    Raises:
        RefusedError: what would run, or what is declared of it, has changed since.
    """
    was, declared = decided.plan, decided.declared
    material = materials.read(world.root, decided.operation)
    now = time_text(world.clock.now())
    approvals = (
        observing.still_valid(world, was, now)
        if decided.cover is None
        else covering.approvals(world, decided.cover, was, now)
    )
    glass = was.facts.glass if breaking.is_told(world, was.facts.glass) else None
    facts = replace(was.facts, now=now, holder="", unfinished=(), approvals=approvals, glass=glass)
    plan = draft(
        was.request,
        decided.operation,
        decided.resource,
        declared.estate,
        declared.policy,
        material,
        facts,
    )
    if plan.digest != was.digest:
        script = was.steps[0].argv[0]
        what = script if material.digest != was.material.digest else f"what is declared of {script}"
        raise RefusedError(
            "plan.stale",
            f"{what} has changed since",
            hint=f"handrail plan {was.request.operation}     shows the new one",
        )
    return judge(Case(plan, decided.operation, declared.estate, declared.policy), world.guards)


def for_person(request: Request, person: str, because: str) -> Request:
    """Return the same request as `person` makes it now."""
    return replace(request, person=person, because=because or request.because)


def _body(plan: Plan) -> dict[str, object]:
    body = plain(plan)
    if not isinstance(body, dict):
        raise TypeError("a plan is a mapping")
    return body


def insist(plan: Plan) -> None:
    """Raise unless every guard that binds allows the plan.

    Raises:
        RefusedError: one refuses.
        WaitingError: one requires that somebody acts first.
    """
    if plan.verdict == "allow":
        return
    first = next(d for d in plan.decisions if d.verdict == plan.verdict and d.binding)
    said = f"{first.guard}: {first.because}"
    if plan.verdict == "refuse":
        raise RefusedError("plan.refused", said, hint=first.remedy)
    raise WaitingError("plan.waiting", said, hint=first.remedy)
