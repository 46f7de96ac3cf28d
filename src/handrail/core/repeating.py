"""Deciding what is asked for by an operation's name, or by the digest of an earlier plan."""

from __future__ import annotations

from handrail.core import deciding, declaring, records
from handrail.core.deciding import Decided
from handrail.core.world import Declared, World
from handrail.errors import RefusedError


def decide(
    world: World,
    declared: Declared,
    name: str,
    *,
    on: str | None = None,
    parameters: dict[str, str] | None = None,
    because: str = "",
) -> Decided:
    """Plan what `name` says, and judge it: an operation, a script's path, or a plan's digest.

    Raises:
        RefusedError: the request of that digest gives another plan now.
        UsageError, DeclarationError, JournalError: as `deciding.decide`.
    """
    if name in declared.operations or not records.DIGEST.fullmatch(name):
        return deciding.decide(
            world, declared, name, on=on, parameters=parameters or {}, because=because
        )
    return again(world, declared, name, on, because)


def again(world: World, declared: Declared, digest: str, on: str | None, because: str) -> Decided:
    """Make the plan of `digest` anew, as the present person, and insist that it is the same."""
    plan = records.find_plan(world.journal, digest)
    request = plan.request
    known = request.operation in declared.operations
    operation = declaring.find_operation(
        declared,
        # Told from the repository's root, wherever this is called.
        request.operation if known else str(world.root / plan.steps[0].argv[0]),
        world.root,
        request.target,
    )
    resource = declaring.find_target(declared.estate, operation, on or request.target)
    request = deciding.for_person(request, world.person, because)
    decided = deciding.again(world, declared, operation, resource, request)
    if decided.plan.digest != plan.digest:
        raise RefusedError(
            "plan.stale",
            f"{digest} is stale: the same request gives another plan now",
            hint=f"handrail plan {request.operation}     shows the new one",
        )
    return decided
