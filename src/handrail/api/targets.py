"""Which resources a request is about: what its rule is asked for.

Rules:
- Only what is declared is planned through a server: a path, or the address of a store, in a request
  would let anybody with a token reach what the server reaches.
- Told from the record, for what is recorded: a run stays its team's when its store is renamed.
"""

from __future__ import annotations

from handrail.api.route import Asked, On
from handrail.core import declaring, recalling, records, walks
from handrail.core.world import Declared
from handrail.errors import UsageError
from handrail.estate.shapes import nearest
from handrail.operations.targets import fitting
from handrail.plans import fan_out as fan_outs
from handrail.plans.model import Plan
from handrail.plans.roles import may

ALL = "all"


def on_of(declared: Declared, ref: str) -> On:
    """Return a target as resources with their environments: several, where it is made of them."""
    kind, _, names = ref.partition("/")
    refs = [ref] if ref in declared.estate.resources else [f"{kind}/{n}" for n in names.split("+")]
    found = [(one, declared.estate.resources.get(one)) for one in refs]
    return tuple((one, resource.environment if resource else "") for one, resource in found)


def on_plan(asked: Asked) -> On:
    """Return what the plan in the address is about: of a fan-out each of its targets."""
    return _on_recorded(asked, plan_of(asked))


def _on_recorded(asked: Asked, plan: Plan) -> On:
    declared = asked.declared
    if plan.target.kind != fan_outs.KIND:
        return on_of(declared, plan.target.resource)
    found = records.fan_out(asked.world.journal, plan.digest)
    targets = [child.target for child in found.children] if found else [plan.target.resource]
    return tuple(one for target in targets for one in on_of(declared, target))


def plan_of(asked: Asked) -> Plan:
    """Return the plan in the address.

    Raises:
        UsageError: there is none, or more than one.
    """
    return records.find_plan(asked.world.journal, asked.path["digest"])


def on_run(asked: Asked) -> On:
    """Return what the run in the address is about: of a walk each of its targets."""
    if records.is_walk(asked.world.journal, asked.number):
        targets = walks.targets(asked.world, asked.number)
        return tuple(one for target in targets for one in on_of(asked.declared, target))
    plan = recalling.recorded_plan(asked.world, asked.number)
    return on_of(asked.declared, plan.target.resource)


def on_request(asked: Asked) -> On:
    """Return what a new plan would be about: an operation's target, or an earlier plan's.

    Raises:
        UsageError: operation or target is not declared.
    """
    name, declared = asked.body.operation, asked.declared
    if name not in declared.operations and records.DIGEST.fullmatch(name):
        plan = records.find_plan(asked.world.journal, name)
        if plan.request.operation not in declared.operations:
            raise _undeclared(plan.request.operation, declared)
        if asked.body.on not in {None, plan.target.resource}:
            raise UsageError("operations.target", f"the plan {name} is for {plan.target.resource}")
        return _on_recorded(asked, plan)
    operation = declared.operations.get(name)
    if operation is None:
        raise _undeclared(name, declared)
    if asked.body.kit not in {"", operation.kit}:
        raise UsageError(
            "operations.target",
            f"`{name}` is an operation of the team's own there, not the kit's",
            at=operation.place,
            hint=f"handrail run {name}",
        )
    on = asked.body.on
    if on == ALL or (on is None and operation.waves is not None):
        first = operation.on.kinds[0]
        left_out = {one if "/" in one else f"{first}/{one}" for one in asked.body.without}
        fit = [one.ref for one in fitting(operation, declared.estate)]
        chosen = [ref for ref in fit if ref not in left_out]
        return tuple(one for ref in chosen for one in on_of(declared, ref))
    stores = declared.estate.stores
    if not operation.act and on is not None and on not in stores and f"store/{on}" not in stores:
        raise UsageError(
            "estate.unknown-store",
            f"no store `{on[:80]}` is declared",
            hint=nearest(on, [resource.name for resource in stores.values()])
            or "through a server only what is declared can be reached",
        )
    found = declaring.find_target(declared.estate, operation, on)
    return on_of(declared, found.ref)


def _undeclared(name: str, declared: Declared) -> UsageError:
    return UsageError(
        "operations.unknown",
        f"no operation `{name[:80]}` is declared",
        hint=nearest(name, tuple(declared.operations))
        or "through a server only what is declared can be run",
    )


def are_many(asked: Asked) -> bool:
    """Whether a new plan would be over every target of its operation."""
    operation = asked.declared.operations.get(asked.body.operation)
    return asked.body.on == ALL or (
        asked.body.on is None and operation is not None and operation.waves is not None
    )


def sees(asked: Asked, ref: str) -> bool:
    """Whether whoever asks may look at a resource."""
    return sees_all(asked, on_of(asked.declared, ref))


def sees_plan(asked: Asked, plan: Plan) -> bool:
    """Whether whoever asks may look at a plan."""
    return sees_all(asked, _on_recorded(asked, plan))


def sees_all(asked: Asked, on: On) -> bool:
    """Whether whoever asks may look at all of some resources."""
    policy = asked.declared.policy
    return may(asked.token.holder, "viewer", policy.roles, policy.groups, on)
