"""Planning an operation of a kit: from what the kit drafted and what was observed to a plan. Pure.

Rules:
- One form of plan for everything: the same guards, approvals and records as for a script.
- The digest covers all that the kit drafted but what is shown beside it.
- What depends on the target, or on what is touched besides, is a consequence, and is watched.
"""

from __future__ import annotations

from handrail.estate.graph import Dependant, dependants
from handrail.estate.model import Check, Estate, Resource
from handrail.operations.model import Operation
from handrail.plans.canonical import encode, plain, sha256
from handrail.plans.drafted import Draft
from handrail.plans.effect import worst_first
from handrail.plans.model import (
    KIT,
    RISKS,
    Consequence,
    Facts,
    Material,
    Plan,
    Request,
    Step,
    Target,
)
from handrail.plans.planning import FORMAT

IRREVERSIBLE = "irreversible"
UNDO = "act"
_ORDER = ("stops", "degraded", "affected")
_HIGH = RISKS.index("high")


def plan_of(
    request: Request,
    operation: Operation,
    resource: Resource,
    estate: Estate,
    draft: Draft,
    facts: Facts,
) -> Plan:
    """Return the plan, not yet judged."""
    touched = _dependants(estate, resource.ref, draft.touches)
    checks = watched(operation, resource, estate, draft.touches)
    risk, because = _risk(draft)
    undo = IRREVERSIBLE if draft.irreversible else UNDO
    words = [f"{name}={value}" for name, value in sorted(request.parameters.items()) if value]
    step = Step(
        id=f"{resource.ref}/{operation.name}",
        target=resource.ref,
        argv=(operation.name, *words),
        function="",
        undo=undo,
        undo_argv=(),
        timeout_s=operation.timeout_s,
    )
    soak_s = operation.watch.soak_s if draft.soak_s is None else draft.soak_s
    declared = {
        "soak_s": soak_s,
        "every_s": operation.watch.every_s,
        "watched": [[ref, *_whole(check)] for ref, check in checks],
    }
    identity = draft.identity
    digest = sha256(
        encode(
            {
                "format": FORMAT,
                "operation": operation.name,
                "act": operation.act,
                "parameters": dict(request.parameters),
                "target": request.target,
                "identity": identity.id if identity else "",
                "endpoint": identity.endpoint if identity else "",
                "declared": declared,
                "summary": draft.summary,
                "body": plain(draft.body),
                "effects": plain(worst_first(draft.effects)),
                "touches": list(draft.touches),
                "undo": [draft.undo, draft.irreversible],
                "timeout_s": operation.timeout_s,
                "commit": facts.commit,
            }
        )
    )
    return Plan(
        format=FORMAT,
        digest=digest,
        key="",
        request=request,
        summary=draft.summary,
        declared_at=str(operation.place),
        target=_target(resource, estate, draft),
        material=Material(sha256(encode(plain(draft.body))), ()),
        steps=(step,),
        effects=worst_first(draft.effects),
        effects_from=KIT,
        budget=None,
        consequences=_consequences(draft, touched),
        risk=risk,
        risk_because=because,
        decisions=(),
        facts=facts,
        watched=tuple(f"{ref}: {check}" for ref, check in checks),
        soak_s=soak_s,
        declared=sha256(encode(declared)),
        body=draft.body,
        undo_said=draft.undo or f"it cannot be undone: {draft.irreversible}",
        sections=draft.sections,
        said=draft.said,
    )


def watched(
    operation: Operation, resource: Resource, estate: Estate, touches: tuple[str, ...]
) -> tuple[tuple[str, Check], ...]:
    """Return the checks of the operation, the target, what is touched, and of all dependants.

    Each once, with the resource that it is of.
    """
    refs = [*touches, *operation.watch.services]
    refs += [one.ref for one in _dependants(estate, resource.ref, touches)]
    own = [(resource.ref, check) for check in (*operation.watch.checks, *resource.checks)]
    others = [
        (ref, check)
        for ref in dict.fromkeys(refs)
        if ref != resource.ref and ref in estate.resources
        for check in estate.resources[ref].checks
    ]
    return tuple(dict.fromkeys((*own, *others)))


def _target(resource: Resource, estate: Estate, draft: Draft) -> Target:
    environment = estate.environments.get(resource.environment)
    return Target(
        resource=resource.ref,
        kind=resource.kind,
        environment=resource.environment,
        production=environment.production if environment else False,
        durability="",
        holds=(),
        declared_identity=draft.declared_identity,
        declared_at=str(resource.place),
        touches=draft.touches,
        platform=draft.platform,
    )


def _dependants(estate: Estate, ref: str, touches: tuple[str, ...]) -> tuple[Dependant, ...]:
    """Return what depends on the target or on what is touched, each once, hard needs first."""
    own = {ref, *touches}
    found: dict[str, Dependant] = {}
    for one in (one for start in (ref, *touches) for one in dependants(estate, start)):
        if one.ref not in own and (one.ref not in found or (one.hard and not found[one.ref].hard)):
            found[one.ref] = one
    return tuple(sorted(found.values(), key=lambda one: (not one.hard, one.ref)))


def _consequences(draft: Draft, touched: tuple[Dependant, ...]) -> tuple[Consequence, ...]:
    """Return what it means for others: as the kit knows it, else that they are affected."""
    if not draft.effects:
        return ()
    found = {one.resource: one for one in draft.consequences}
    for one in touched:
        found.setdefault(one.ref, Consequence(one.ref, "affected", one.path, hard=one.hard))
    return tuple(sorted(found.values(), key=lambda c: (_ORDER.index(c.outcome), not c.hard)))


def _risk(draft: Draft) -> tuple[str, str]:
    """Return the kit's risk; one level worse, and high at least, where it cannot be undone."""
    if not draft.irreversible or not draft.effects:
        return draft.risk, draft.risk_because
    worse = RISKS[min(max(RISKS.index(draft.risk) + 1, _HIGH), len(RISKS) - 1)]
    return worse, f"{draft.risk_because}; it cannot be undone"


def _whole(check: Check) -> list[str]:
    return [check.kind, *check.value, check.expect, check.store]
