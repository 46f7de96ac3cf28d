"""What a guard holds a run to, and what it reports: values shared by every kind of store.

Rules:
- `hold` lets nothing take effect that the budget does not cover; `measure` holds everything back in
  the same way and then lets it pass, so that rehearsal and run count alike.
- A report says what was held before it took effect, and what could only be undone.
- No value here holds a secret: statements are kept as templates, their literals blanked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from handrail.plans.effect import Effect
from handrail.plans.model import Allowance, Budget

Mode = Literal["observe", "measure", "hold", "read-only"]


@dataclass(frozen=True)
class Limits:
    """What a guard holds a run to.

    Attributes:
        mode: `observe` passes everything on and reports; `measure` is for a rehearsal: everything
            is gated, counted and allowed; `hold` refuses what the budget does not cover;
            `read-only` refuses every write.
        budget: the most that the run may do, over all stores; None unless the mode is `hold`.
        trace: templates of the statements that the rehearsal ran; empty where there was none.
        unheld: of these, the templates that took effect as they ran, and may again.
        divergence: what happens to the first statement that the rehearsal did not have.
        hold_s: longest time that a statement waits for somebody while its session holds locks.
        role: `own`: the guard connects as the store's own role, and the gate alone holds;
            `limited`: as a role made for this run, with what the budget needs and nothing else.
    """

    mode: Mode = "observe"
    budget: Budget | None = None
    trace: tuple[str, ...] = ()
    unheld: tuple[str, ...] = ()
    divergence: Literal["report", "hold", "refuse"] = "report"
    hold_s: int = 30
    role: Literal["own", "limited"] = "own"


@dataclass(frozen=True)
class Event:
    """Something that a person should know of a guarded run.

    Attributes:
        kind: `bypass` (an attempt to get round the guard), `diverged` (a statement that the
            rehearsal did not have), `held`, `refused`, `unheld` (it took effect as it ran),
            `others` (somebody else wrote to what the script had a copy of), `kept` (where what was
            there before lies now).
        text: one sentence, without secrets.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Stop:
    """Why a guard stopped the run.

    Attributes:
        what: one sentence: `would delete 217 rows of table sessions; budget 214, tolerance 2`.
        statement: template of the statement at which it was stopped.
        effect: what would have been done in all; None where it is not about an amount.
        allowed: what the budget allowed of it; None when nothing was.
        kept: transactions of this run that had taken effect before.
        remedy: what to do instead, usually a command.
        elsewhere: the other store of the run at which it was stopped; empty when it was this one.
    """

    what: str
    statement: str
    effect: Effect | None = None
    allowed: Allowance | None = None
    kept: int = 0
    remedy: str = ""
    elsewhere: str = ""


@dataclass(frozen=True)
class Report:
    """What one guard saw, and what it did about it.

    Attributes:
        resource: the store, `kind/name`.
        how: how its effects were held: `before COMMIT`, `before each command`, `copied and
            swapped in`, `copied and left`, `observed only`.
        effects: what took effect, as the guard counted it; worst first.
        stop: why the run was stopped; None when it was not.
        events: in the order of their happening; the first thousand.
        trace: templates of the statements, each once, in the order of their first appearance.
        unheld: of these, what took effect as it ran, and can only be undone.
        kept: transactions (commands, swaps) that took effect.
        role: `own` or `limited`, as in `Limits`.
        avoidable: how the script could have gone round the guard; empty when it could not.
        parts: the report of each store, where the script had several; else empty.
    """

    resource: str
    how: str
    effects: tuple[Effect, ...] = ()
    stop: Stop | None = None
    events: tuple[Event, ...] = ()
    trace: tuple[str, ...] = ()
    unheld: tuple[str, ...] = ()
    kept: int = 0
    role: str = "own"
    avoidable: str = ""
    parts: tuple[Report, ...] = ()
