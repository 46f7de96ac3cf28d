"""What cannot be undone needs a stated reason, and an approver who saw that it cannot."""

from __future__ import annotations

from handrail.plans.judging import Case
from handrail.plans.model import Decision

name = "irreversible"


def judge(case: Case) -> Decision | None:
    """Refuse without `--because` what cannot be put back; say so where it can."""
    plan = case.plan
    declared = str(case.operation.place)
    rehearsal = plan.facts.rehearsal
    if plan.steps[0].undo == "restore" and plan.facts.cannot_restore:
        return Decision(
            name,
            "refuse",
            f"its undo cannot work here: {plan.facts.cannot_restore}",
            declared,
            "give the role that right, or declare an undo script",
        )
    if any(step.undo == "irreversible" for step in plan.steps):
        said = plan.undo_said or f"it cannot be undone: {case.operation.undo.reason}"
    elif rehearsal is not None and (rehearsal.residue or not rehearsal.undone):
        left = ", ".join(rehearsal.residue[:3]) or "everything: the undo failed"
        said = f"its undo leaves different: {left}"
    else:
        return Decision(
            name, "allow", plan.undo_said or f"undone by {plan.steps[0].undo}", declared
        )
    if not plan.request.because:
        return Decision(name, "refuse", said, declared, "say why it must be: --because '...'")
    return Decision(name, "allow", f"{said}; because: {plan.request.because}", declared)
