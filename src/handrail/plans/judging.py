"""Judging: every guard's decision over a plan, in the guards' order. Pure.

Rules:
- Every guard speaks on every plan; the policy says at which risk its word can stop one.
- A guard that raises refuses: what cannot be judged is not allowed.
- A fact that could not be read refuses on its own.
- Of what a kit does, guards over scripts and stores say nothing; the kit has its own word.
- Broken glass passes guards that wait for people or a date, and no other; they say so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from handrail.estate.model import Estate
from handrail.operations.model import Operation
from handrail.plans.model import Decision, Plan
from handrail.plans.policy import PASSABLE, Policy

_OF_SCRIPTS = frozenset({"production-data", "backup-proven", "rehearsed"})


@dataclass(frozen=True)
class Case:
    """What a guard judges: the plan, and the declarations that it came from."""

    plan: Plan
    operation: Operation
    estate: Estate
    policy: Policy


class Guard(Protocol):
    """A named rule."""

    @property
    def name(self) -> str:
        """Its name, as the policy and the screen call it."""

    def judge(self, case: Case) -> Decision | None:
        """Return its decision; None when it has nothing to say about such a plan."""


def judge(case: Case, guards: Iterable[Guard]) -> Plan:
    """Return the plan with every decision: refusals first, then requirements, then the rest."""
    words = [decision for guard in guards if (decision := _judge_one(case, guard)) is not None]
    decisions = [_passed(case, decision) for decision in words]
    decisions += case.plan.said
    decisions += [
        Decision(f"fact {name}", "refuse", why, remedy="make it readable, then plan again")
        for name, why in case.plan.facts.unreadable
    ]
    return replace(case.plan, decisions=tuple(sorted(decisions, key=_weight)))


def _judge_one(case: Case, guard: Guard) -> Decision | None:
    if case.plan.is_of_kit and _is_of_scripts(guard.name, case.plan):
        return None
    try:
        decision = guard.judge(case)
    except Exception as error:  # noqa: BLE001  a kit's guard may fail in any way; it then refuses
        decision = Decision(guard.name, "refuse", f"the guard itself failed: {error!r}")
    if decision is None:
        return None
    return replace(
        decision,
        binding=case.policy.binds(guard.name, case.plan.risk),
        declared=decision.declared or case.policy.declared(guard.name),
    )


def _is_of_scripts(name: str, plan: Plan) -> bool:
    """Whether a guard is about scripts and stores; a review is about what somebody wrote."""
    return name in _OF_SCRIPTS or (name == "review" and plan.facts.change is None)


def _passed(case: Case, decision: Decision) -> Decision:
    """Return a decision as it is with the glass broken for this plan: passed, and saying so."""
    glass, plan = case.plan.facts.glass, case.plan
    if (
        glass is None
        or decision.verdict == "allow"
        or glass.digest != plan.digest
        or glass.person != plan.request.person
        or not is_passable(decision, case.policy)
        or decision.guard not in glass.passes
    ):
        return decision
    said = f'glass broken by {glass.person}, "{glass.because}"; else: {decision.because}'
    return replace(decision, verdict="allow", because=said, remedy="")


def is_passable(decision: Decision, policy: Policy) -> bool:
    """Whether breaking the glass passes such a decision: one that waits for people or a date."""
    is_about_people = decision.guard != "avoidable" or decision.verdict == "require"
    return decision.guard in PASSABLE and decision.guard in policy.glass.passes and is_about_people


def _weight(decision: Decision) -> tuple[int, int]:
    order = {"refuse": 0, "require": 1, "allow": 2}
    return (0 if decision.binding else 1, order[decision.verdict])
