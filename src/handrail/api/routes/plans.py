"""Plans: made, looked at, and approved by a key that never comes here."""

from __future__ import annotations

from dataclasses import replace

from handrail.api.route import Answer, Asked, Route
from handrail.api.shapes import (
    Approved,
    Because,
    Judged,
    Newest,
    PlanLine,
    PlanLines,
    Prepared,
    Signed,
    WantedPlan,
)
from handrail.api.targets import are_many, on_plan, on_request, plan_of, sees_plan
from handrail.core import alternatives, approving, fanning, records, repeating
from handrail.core.deciding import Decided
from handrail.core.observing import payload
from handrail.errors import UsageError
from handrail.plans.deeds import next_command
from handrail.plans.fan_out import KIND, FanOut
from handrail.plans.model import Plan


def judged(plan: Plan, fan_out: FanOut | None = None) -> Judged:
    """Return a plan as it is answered."""
    many = replace(fan_out, plan=fan_out.plan.shown) if fan_out else None
    return Judged(1, plan.verdict, next_command(plan), plan.shown, many)


def make(asked: Asked) -> Answer:
    """Plan and judge."""
    wanted: WantedPlan = asked.body
    if are_many(asked):
        made = fanning.plan(
            asked.world,
            asked.declared,
            wanted.operation,
            parameters=wanted.parameters,
            because=wanted.because,
            without=wanted.without,
        ).fan_out
        return _made(judged(made.plan, made))
    decided = repeating.decide(
        asked.world,
        asked.declared,
        wanted.operation,
        on=wanted.on,
        parameters=wanted.parameters,
        because=wanted.because,
    )
    return _made(judged(_safe(asked, decided).plan if wanted.alternative else decided.plan))


def _safe(asked: Asked, decided: Decided) -> Decided:
    """Return what is planned in the place of what a contraindication refuses.

    Raises:
        UsageError: none refuses it, or it names nothing else.
    """
    found = alternatives.alternative(asked.world, asked.declared, decided)
    if found is None:
        request = decided.plan.request
        raise UsageError(
            "usage",
            f"no contraindication of {request.operation} on {request.target} names an alternative",
            hint=f"handrail plan {request.asked}",
        )
    return found


def _made(found: Judged) -> Answer:
    return Answer(found, 201, {"Location": f"/v1/plans/{found.plan.digest}"})


def listed(asked: Asked) -> Answer:
    """Answer the newest plans that the person may see."""
    seen = [plan for plan in records.plans(asked.world.journal) if sees_plan(asked, plan)]
    newest = sorted(seen, key=lambda plan: plan.facts.now, reverse=True)[: asked.query.limit]
    return Answer(PlanLines(tuple(_line(plan) for plan in newest)))


def _line(plan: Plan) -> PlanLine:
    request = plan.request
    return PlanLine(
        plan.digest,
        request.operation,
        request.target,
        request.person,
        plan.risk,
        plan.verdict,
        plan.facts.now,
    )


def show(asked: Asked) -> Answer:
    """Answer a plan as it is recorded."""
    plan = plan_of(asked)
    is_many = plan.target.kind == KIND
    fan_out = records.fan_out(asked.world.journal, plan.digest) if is_many else None
    return Answer(judged(plan, fan_out), headers={"ETag": f'"{plan.digest}"'})


def prepare(asked: Asked) -> Answer:
    """Answer what the person has to sign."""
    plan, said = plan_of(asked), asked.body
    unsigned = approving.prepare(
        asked.world,
        asked.declared,
        plan,
        because=said.because,
        typed=said.name,
        standing_s=said.standing_s,
    )
    signed = payload(unsigned, plan.target.resource)
    return Answer(Prepared(unsigned, signed.decode()))


def approve(asked: Asked) -> Answer:
    """Record an approval that was signed elsewhere."""
    plan = plan_of(asked)
    approval = approving.accept(asked.world, asked.declared, plan, asked.body.approval)
    asked.server.metrics.approvals.inc()
    policy = asked.declared.policy
    lacking, wanted, may = approving.tally(asked.world, policy, plan, approval.made_at)
    return Answer(Approved(approval, lacking, wanted, may), 201)


ROUTES = (
    Route(
        "POST",
        "/v1/plans",
        "Say what an operation would do, and what every guard says. Changes nothing.",
        "operator",
        make,
        on=on_request,
        body=WantedPlan,
        answer=Judged,
        status=201,
    ),
    Route(
        "GET",
        "/v1/plans",
        "List plans, the newest first.",
        "viewer",
        listed,
        query=Newest,
        answer=PlanLines,
    ),
    Route(
        "GET",
        "/v1/plans/{digest}",
        "Show a plan as it is recorded; the beginning of its digest is enough.",
        "viewer",
        show,
        on=on_plan,
        answer=Judged,
    ),
    Route(
        "POST",
        "/v1/plans/{digest}/approval-drafts",
        "Say what an approver has to sign, with their own SSH key, on their own machine.",
        "approver",
        prepare,
        on=on_plan,
        body=Because,
        answer=Prepared,
    ),
    Route(
        "POST",
        "/v1/plans/{digest}/approvals",
        "Record a signed approval, having verified it. Nobody approves their own run.",
        "approver",
        approve,
        on=on_plan,
        body=Signed,
        answer=Approved,
        status=201,
    ),
)
