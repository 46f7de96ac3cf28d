"""How a run ends, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from handrail.plans.effect import Effect
from handrail.plans.holding import Report
from handrail.plans.model import Breach

# Outcomes of a run, with the exit code of the command that saw it end.
OUTCOMES = {
    "confirmed": 0,
    "undone": 1,  # failed or ill, and put back
    "failed": 1,  # failed, and the undo failed too or there is none
    "over-budget": 5,  # was stopped before it did more than rehearsed, or did, and was put back
    "stopped": 130,  # by Ctrl-C; nothing was put back
    "interrupted": 130,  # by Ctrl-C, and put back
    "refused": 3,  # something moved between plan and run; nothing was done
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: its number.
        outcome: a key of `OUTCOMES`.
        why: one sentence for people.
        effects: as measured; None when the script never ran.
        breaches: what went beyond the budget.
        residue: what the undo left different.
        report: what the guard said of the script; None where it never ran, or nobody knows.
    """

    run: int
    outcome: str
    why: str
    effects: tuple[Effect, ...] | None = None
    breaches: tuple[Breach, ...] = ()
    residue: tuple[str, ...] = ()
    report: Report | None = None

    @property
    def exit_code(self) -> int:
        """What the command exits with."""
        return OUTCOMES[self.outcome]
