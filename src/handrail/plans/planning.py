"""Planning: from what is declared and what was observed to a plan. Pure.

Rules:
- Same inputs, same digest: no clock, file, network, environment or randomness is read here.
- The digest covers what an approver signs: effects, target identity and endpoint, script bytes,
  parameters, budget, undo, watch and the commit. Not rendered text, not row counts of the moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from handrail.estate.graph import Dependant, dependants
from handrail.estate.model import Check, Environment, Estate, Resource
from handrail.operations.model import Operation
from handrail.plans import budget as budgets
from handrail.plans import risk as risks
from handrail.plans.canonical import encode, plain, sha256
from handrail.plans.effect import Effect, worst_first
from handrail.plans.facts import Identity
from handrail.plans.model import (
    Budget,
    Consequence,
    Facts,
    Material,
    Plan,
    Request,
    Step,
    Target,
)
from handrail.plans.policy import Policy

FORMAT = 1
_YEAR_DAYS = 365
_GONE = frozenset({"unknown", "drop", "replace", "truncate"})


def target_of(resource: Resource, estate: Estate, policy: Policy, facts: Facts) -> Target:
    """Return the frozen target that a plan carries."""
    environment = estate.environments.get(resource.environment)
    store = resource.store
    return Target(
        resource=resource.ref,
        kind=store.kind if store else resource.kind,
        environment=resource.environment,
        production=environment.production if environment else False,
        durability=store.durability if store else "durable",
        holds=store.holds if store else (),
        declared_identity=store.identity if store else "",
        declared_at=str(resource.place),
        seems_real=_seems_real(environment, policy, facts),
        parts=tuple(part.ref for part in resource.parts),
    )


def _seems_real(environment: Environment | None, policy: Policy, facts: Facts) -> str:
    """Return why the content looks like real data, whatever was declared; empty when it does not.

    It does when it has more rows than the environment's ceiling, or rows older than it allows.
    """
    measure = facts.measure
    place = f"environment `{environment.name}`" if environment else "a store that is not declared"
    if measure is None:
        return ""
    ceiling = environment.max_rows if environment else None
    if ceiling is not None and measure.rows > ceiling:
        return f"{measure.rows:,} rows; {place} may hold {ceiling:,}"
    limit_s = environment.max_age_s if environment else None
    limit = timedelta(seconds=policy.data_age_s if limit_s is None else limit_s)
    if measure.oldest is None:
        return ""
    age = moment(facts.now) - moment(measure.oldest)
    return f"rows are {_age(age)} old; {place} may hold {_age(limit)}" if age > limit else ""


def moment(text: str) -> datetime:
    """Return an ISO 8601 time as an aware one; without a zone it is taken as UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _age(age: timedelta) -> str:
    years = age.days // _YEAR_DAYS
    return f"{years} years" if years > 1 else f"{age.days} days"


def steps_of(operation: Operation, target: str, parameters: Mapping[str, str]) -> tuple[Step, ...]:
    """Return the steps: one script on one target."""
    return (
        Step(
            id=f"{target}/run",
            target=target,
            argv=_filled(operation.argv, parameters),
            function=operation.function,
            undo=operation.undo.kind,
            undo_argv=_filled(operation.undo.argv, parameters),
            timeout_s=operation.timeout_s,
        ),
    )


def rehearsal_key(
    steps: tuple[Step, ...],
    material: Material,
    parameters: Mapping[str, str],
    identity: Identity,
    runs_on: str = "",
) -> str:
    """Return what a rehearsal is of: it counts for every plan with the same key."""
    return sha256(
        encode(
            {
                **({"runs_on": runs_on} if runs_on else {}),
                "material": material.digest,
                "steps": plain(steps),
                "parameters": dict(parameters),
                "identity": identity.id,
                "endpoint": identity.endpoint,
            }
        )
    )


def draft(
    request: Request,
    operation: Operation,
    resource: Resource,
    estate: Estate,
    policy: Policy,
    material: Material,
    facts: Facts,
) -> Plan:
    """Return the plan, not yet judged."""
    target = target_of(resource, estate, policy, facts)
    steps = steps_of(operation, target.resource, request.parameters)
    # What is declared without a store is of the first one.
    first = resource.parts[0].ref if resource.parts else resource.ref
    effects, source, budget = _effects(operation, first, policy, facts)
    undo_budget = _undo_budget(steps, policy, facts)
    risk, because = risks.derive(target, steps, effects, facts.rehearsal)
    touched = _dependants(estate, resource)
    checks = _watched(operation, resource, estate, touched)
    watched = tuple([f"{ref}: {check}" for ref, check in checks])
    covered = {"lines": watched, "whole": _whole(checks), "every_s": operation.watch.every_s}
    if operation.runs_on:
        covered["runs_on"] = _node(operation, estate)
    digest = _digest(
        request, operation, steps, material, effects, (budget, undo_budget), covered, facts
    )
    declared = sha256(encode(_declared(operation, steps, covered)))
    key = (
        ""
        if facts.identity is None
        else rehearsal_key(steps, material, request.parameters, facts.identity, operation.runs_on)
    )
    return Plan(
        format=FORMAT,
        digest=digest,
        key=key,
        request=request,
        summary=operation.summary,
        declared_at=str(operation.place),
        target=target,
        material=material,
        steps=steps,
        effects=effects,
        effects_from=source,
        budget=budget,
        consequences=consequences(touched, effects),
        risk=risk,
        risk_because=because,
        decisions=(),
        facts=facts,
        watched=watched,
        soak_s=operation.watch.soak_s,
        undo_budget=undo_budget,
        declared=declared,
        runs_on=operation.runs_on,
    )


def consequences(
    touched: Iterable[Dependant], effects: Sequence[Effect] | None
) -> tuple[Consequence, ...]:
    """Return what `effects` on a resource mean for `touched`, its dependants, worst first.

    Where something is gone as a whole (a table, a database; None, unknown, counts so), a hard need
    stops and a soft one degrades; where rows are gone or changed in shape, each is affected. Empty
    when nothing that was there is gone.
    """
    gone = effects is None or any(e.verb in _GONE and e.rows != 0 for e in effects)
    less = effects is not None and any(e.is_destructive or e.verb == "alter" for e in effects)
    if not gone and not less:
        return ()
    hard, soft = ("stops", "degraded") if gone else ("affected", "affected")
    return tuple(
        Consequence(ref, hard if is_hard else soft, path, hard=is_hard)
        for ref, path, is_hard in touched
    )


def _effects(
    operation: Operation, resource: str, policy: Policy, facts: Facts
) -> tuple[tuple[Effect, ...] | None, str, Budget | None]:
    rehearsal = facts.rehearsal
    if rehearsal is not None:
        effects = worst_first(rehearsal.effects)
        complete = not rehearsal.unheld
        counted = budgets.counted_alike(effects, rehearsal.counted, is_complete=complete)
        return effects, "rehearsal", _budget(counted, policy)
    if operation.effects:
        declared = tuple(
            Effect(resource, d.verb, d.kind, d.name, d.rows) for d in operation.effects
        )
        return (
            worst_first(declared),
            "declaration",
            budgets.from_declaration(resource, operation.effects),
        )
    return None, "nothing", None


def _undo_budget(steps: tuple[Step, ...], policy: Policy, facts: Facts) -> Budget | None:
    """Return what an undo script may do; None where none was rehearsed."""
    rehearsal = facts.rehearsal
    if rehearsal is None or not rehearsal.undone or steps[0].undo != "script":
        return None
    complete = not rehearsal.undo_unheld
    counted = budgets.counted_alike(
        rehearsal.undo_effects, rehearsal.undo_counted, is_complete=complete
    )
    return _budget(counted, policy)


def _budget(effects: Iterable[Effect], policy: Policy) -> Budget:
    return budgets.from_effects(
        worst_first(effects), relative=policy.tolerance, absolute=policy.tolerance_rows
    )


def watched_checks(
    operation: Operation, resource: Resource, estate: Estate
) -> tuple[tuple[str, Check], ...]:
    """Return the checks of the operation, of the target and of every dependant, each once.

    Each with the resource that it is of.
    """
    return _watched(operation, resource, estate, _dependants(estate, resource))


def _dependants(estate: Estate, resource: Resource) -> tuple[Dependant, ...]:
    """Return what depends on a resource, or on any of the stores that it is made of."""
    if not resource.parts:
        return dependants(estate, resource.ref)
    own = {part.ref for part in resource.parts}
    found: dict[str, Dependant] = {}
    for part in resource.parts:
        for one in dependants(estate, part.ref):
            if one.ref not in own and (one.ref not in found or one.hard):
                found[one.ref] = one
    return tuple(sorted(found.values(), key=lambda one: not one.hard))


def _watched(
    operation: Operation, resource: Resource, estate: Estate, touched: Iterable[Dependant]
) -> tuple[tuple[str, Check], ...]:
    own = dict.fromkeys((*operation.watch.checks, *resource.checks))
    found = [(resource.ref, check) for check in own]
    refs = dict.fromkeys((*operation.watch.services, *(dependant.ref for dependant in touched)))
    refs.pop(resource.ref, None)
    for ref in refs:
        if ref in estate.resources:
            checks = estate.resources[ref].checks
            found += [(ref, c) for c in (dict.fromkeys(checks) if len(checks) > 1 else checks)]
    return tuple(found)


def _digest(
    request: Request,
    operation: Operation,
    steps: tuple[Step, ...],
    material: Material,
    effects: tuple[Effect, ...] | None,
    budgeted: tuple[Budget | None, Budget | None],
    watched: Mapping[str, object],
    facts: Facts,
) -> str:
    identity = facts.identity
    budget, undo_budget = budgeted
    return sha256(
        encode(
            {
                # Only an undo script has one: a digest from before there were any stays as it was.
                **({"undo_budget": plain(undo_budget)} if undo_budget else {}),
                "format": FORMAT,
                "operation": operation.name,
                "parameters": dict(request.parameters),
                "target": request.target,
                "identity": identity.id if identity else "",
                "endpoint": identity.endpoint if identity else "",
                **_declared(operation, steps, watched),
                "material": material.digest,
                "effects": plain(effects),
                "budget": plain(budget),
                "commit": facts.commit,
            }
        )
    )


def _declared(
    operation: Operation, steps: tuple[Step, ...], watched: Mapping[str, object]
) -> dict[str, object]:
    """Return what is declared of an operation and is not its script, for a digest."""
    return {
        **({"questions": plain(operation.questions)} if operation.questions else {}),
        "steps": plain(steps),
        "environment": dict(operation.environment),
        "inherit": list(operation.inherit),
        "watched": watched,
        "soak_s": operation.watch.soak_s,
    }


def _node(operation: Operation, estate: Estate) -> list[object]:
    """Return where scripts run, and how that node is told from another: for the digest."""
    node = estate.resources.get(operation.runs_on)
    settings = node.settings if node else {}
    how = [settings.get(key) for key in ("address", "user", "port", "host_keys", "work")]
    return [operation.runs_on, *how]


def _whole(checks: Iterable[tuple[str, Check]]) -> list[object]:
    """Return all of those checks whose one line does not say all: for the digest."""
    return [
        [ref, check.kind, *check.value, check.expect, check.store]
        for ref, check in checks
        if check.expect or check.store or len(check.value) > 1
    ]


def _filled(argv: tuple[str, ...], parameters: Mapping[str, str]) -> tuple[str, ...]:
    """Put parameters into arguments; a word stays one word, and the program itself is fixed."""
    filled = list(argv[:1])
    for word in argv[1:]:
        for name, value in parameters.items():
            word = word.replace("{" + name + "}", value)  # noqa: PLW2901  a fold over parameters
        filled.append(word)
    return tuple(filled)
