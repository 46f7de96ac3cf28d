"""What comes next: the deeds that a plan's guards ask for, in an order that works. Pure."""

from __future__ import annotations

from handrail.plans.model import Plan


def next_deeds(plan: Plan) -> list[str]:
    """Return what has to be done before the plan may run, in an order that works.

    A rehearsal comes first: it is what tells whether the rest is worth doing.
    """
    # A refused plan cannot be approved, and what mends it makes another plan.
    stops = [d for d in plan.decisions if d.binding and d.verdict == plan.verdict != "allow"]
    deeds = sorted(
        dict.fromkeys(d.remedy for d in stops if d.remedy),
        key=lambda deed: not deed.startswith("handrail rehearse"),
    )
    return deeds or [f"handrail run {plan.digest[:4]}-{plan.digest[4:8]}"]


def next_command(plan: Plan) -> str:
    """Return the command, or the deed, that comes next."""
    return next_deeds(plan)[0]
