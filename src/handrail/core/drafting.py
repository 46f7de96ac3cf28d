"""Drafting: an operation of a kit, planned on the world as it is.

Rules:
- A kit that cannot even say what it would do gives an error, and no plan.
- What is declared counts as committed or not, like everything that a plan is made of.
"""

from __future__ import annotations

from handrail.core import kit_act, records
from handrail.core.world import Declared, World
from handrail.errors import HandrailError
from handrail.estate.model import Resource
from handrail.operations.model import Operation
from handrail.plans import drafting
from handrail.plans.canonical import time_text
from handrail.plans.model import Facts, Plan, Request

DECLARED = ("allowed_signers", "estate", "policy.yaml")


def draft(
    world: World,
    declared: Declared,
    operation: Operation,
    resource: Resource,
    request: Request,
    *,
    own_run: int = 0,
) -> Plan:
    """Return the plan of an operation of a kit, not yet judged.

    Args:
        world: the ports.
        declared: the team's declarations.
        operation: one with an `act`.
        resource: its target.
        request: what was asked for.
        own_run: a run that goes on: that it is not over is no reason against it.

    Raises:
        HandrailError: the kit cannot say what it would do.
    """
    drafted = kit_act.act_of(world, operation.act).draft(resource, request, declared)
    commit, uncommitted, unreadable = _commit(world)
    unfinished = records.unfinished(world.journal, resource.ref)
    facts = Facts(
        now=time_text(world.clock.now()),
        identity=drafted.identity,
        holder=world.locks.holder(resource.ref) or "",
        unfinished=tuple(number for number in unfinished if number != own_run),
        commit=commit,
        uncommitted=uncommitted,
        change=drafted.change,
        unreadable=(*drafted.unreadable, *unreadable),
    )
    return drafting.plan_of(request, operation, resource, declared.estate, drafted, facts)


def _commit(world: World) -> tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the commit of what is declared, what differs from it, and what cannot be read."""
    try:
        commit = world.repository.commit(DECLARED) or ""
        return commit, world.repository.uncommitted(DECLARED), ()
    except HandrailError as error:
        return "", (), (("commit", error.message),)
