"""The calendar: times in which nothing of a risk or above may run."""

from __future__ import annotations

from datetime import datetime

from handrail.plans.judging import Case
from handrail.plans.model import RISKS, Decision

name = "freeze"


def judge(case: Case) -> Decision:
    """Refuse inside a freeze that covers this risk."""
    moment = datetime.fromisoformat(case.plan.facts.now)
    risk = RISKS.index(case.plan.risk)
    for freeze in case.policy.freezes:
        if risk >= RISKS.index(freeze.risk) and freeze.covers(moment):
            until = freeze.end or "the end of the day"
            why = freeze.because or f"nothing of risk {freeze.risk} or above now"
            return Decision(
                name,
                "refuse",
                why,
                freeze.place,
                f"wait until {until} {freeze.zone}" + (f" on {freeze.last}" if freeze.last else ""),
            )
    return Decision(name, "allow", "no freeze covers now")
