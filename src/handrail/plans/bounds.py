"""Bounds: what an approval that stands for more than one run is for, and within what. Pure.

Rules:
- They are signed as they were when it was given, and never widened: a rehearsal that shows less
  narrows nothing, one that shows more goes beyond.
- A plan of something else (another target, endpoint, parameter) is not covered, and says nothing
  of the approval. A plan of the same that goes beyond is a breach, which ends it.
- What cannot be compared is beyond.
"""

from __future__ import annotations

from handrail.errors import UsageError
from handrail.plans.canonical import encode, plain, sha256
from handrail.plans.model import RISKS, Allowance, Bounds, Budget, Plan, Rehearsal

_KEY_CHARACTERS = 16


def bounds_of(plan: Plan) -> Bounds:
    """Return the bounds of an approval that is given for `plan` and such as it.

    Raises:
        UsageError: nobody has measured what it does.
    """
    rehearsal, identity = plan.facts.rehearsal, plan.facts.identity
    if rehearsal is None or identity is None or plan.budget is None or not plan.declared:
        raise UsageError(
            "approval.standing",
            "only what was rehearsed can be approved for more than one run",
            hint=f"handrail rehearse {plan.request.asked}",
        )
    return Bounds(
        operation=plan.request.operation,
        target=plan.target.resource,
        parameters=dict(plan.request.parameters),
        identity=identity.id,
        endpoint=identity.endpoint,
        material=plan.material.digest,
        declared=plan.declared,
        undo=plan.steps[0].undo,
        risk=plan.risk,
        budget=plan.budget,
        undo_budget=plan.undo_budget,
        how=rehearsal.how,
        unheld=rehearsal.unheld,
    )


def subject(operation: str, target: str, parameters: object) -> str:
    """Return what approvals of one operation on one target, with these parameters, are kept by."""
    text = encode({"operation": operation, "target": target, "parameters": plain(parameters)})
    return sha256(text)[:_KEY_CHARACTERS]


def is_for(bounds: Bounds, plan: Plan) -> bool:
    """Whether `plan` is of what the bounds are for, inside of them or not."""
    identity = plan.facts.identity
    return identity is not None and (
        bounds.operation,
        bounds.target,
        dict(bounds.parameters),
        bounds.identity,
        bounds.endpoint,
    ) == (
        plan.request.operation,
        plan.target.resource,
        dict(plan.request.parameters),
        identity.id,
        identity.endpoint,
    )


def breach(bounds: Bounds, plan: Plan) -> str:
    """Return how a plan of what the bounds are for goes beyond them; empty when it does not."""
    rehearsal = plan.facts.rehearsal
    if plan.material.digest != bounds.material:
        return "its script has changed"
    if plan.declared != bounds.declared:
        return "what is declared of it has changed"
    if rehearsal is None or plan.budget is None:
        return "it is not rehearsed"
    return (
        _more(bounds.budget, plan.budget)
        or _more(bounds.undo_budget, plan.undo_budget)
        or _otherwise(bounds, plan.risk, rehearsal)
    )


def _otherwise(bounds: Bounds, risk: str, rehearsal: Rehearsal) -> str:
    """Return what besides its budget is worse than what was approved."""
    if RISKS.index(risk) > RISKS.index(bounds.risk):
        return f"its risk is {risk}, and {bounds.risk} was approved"
    if rehearsal.how != bounds.how or not set(rehearsal.unheld) <= set(bounds.unheld):
        return f"it is held otherwise: {rehearsal.how or 'not at all'}"
    return ""


def _more(approved: Budget | None, asked: Budget | None) -> str:
    """Return what `asked` allows beyond `approved`; empty when it is nothing."""
    if asked is None:
        return ""
    known = {_key(one): one for one in approved.allowances} if approved else {}
    for one in asked.allowances:
        most = known.get(_key(one))
        if most is None:
            return f"it would {one.verb} {one.kind} {one.name}, which was not approved"
        if _total(one) != _total(most) and not _is_less(one, most):
            return (
                f"it would {one.verb} {_said(one)} of {one.kind} {one.name}, "
                f"and {_said(most)} were approved"
            )
    return ""


def _key(allowance: Allowance) -> tuple[str, str, str, str]:
    return (allowance.resource, allowance.verb, allowance.kind, allowance.name)


def _total(allowance: Allowance) -> int | None:
    return None if allowance.rows is None else allowance.rows + allowance.tolerance


def _is_less(one: Allowance, most: Allowance) -> bool:
    mine, limit = _total(one), _total(most)
    return limit is None or (mine is not None and mine < limit)


def _said(allowance: Allowance) -> str:
    total = _total(allowance)
    return "any number of rows" if total is None else f"{total:,} rows"
