"""Budgets: from measured effects to the most that a run may do, and what went beyond.

Rules:
- What was not rehearsed may not be done: an effect without an allowance is a breach.
- Growth between rehearsal and run is allowed for rows alone, by the policy's tolerance.
- An effect of verb `unknown` is always a breach: nobody can say how much of it is enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from handrail.operations.model import DeclaredEffect
from handrail.plans.effect import Effect, worst_first
from handrail.plans.model import Allowance, Breach, Budget

# Verbs whose rows a guard counts as they are written.
COUNTED = frozenset({"delete", "update", "insert", "expire"})


def from_effects(effects: Iterable[Effect], *, relative: float, absolute: int) -> Budget:
    """Return the budget that a rehearsal's effects make.

    Args:
        effects: as measured.
        relative: tolerance as a fraction of the rows.
        absolute: tolerance in rows; the larger of both counts. Nothing is added to nothing.
    """
    return Budget(
        tuple(
            Allowance(
                e.resource,
                e.verb,
                e.kind,
                e.name,
                e.rows,
                max(math.ceil(e.rows * relative), absolute) if e.rows else 0,
            )
            for e in effects
            if e.verb != "unknown"
        ),
        "rehearsal",
    )


def counted_alike(
    measured: Iterable[Effect], counted: Iterable[Effect], *, is_complete: bool
) -> tuple[Effect, ...]:
    """Return the effects of a rehearsal with rows as the guard of the run will count them.

    Args:
        measured: what the store shows afterwards.
        counted: what the guard counted; it may count what the store does not show (a row deleted
            and put back), and the other way round (a row that a dropped table took along).
        is_complete: whether nothing passed the guard uncounted; else the larger number counts.
    """
    rows = {effect.key: effect for effect in counted if effect.verb in COUNTED}
    found = []
    for effect in measured:
        mine = rows.pop(effect.key, effect)
        most = mine if is_complete else max(effect, mine, key=lambda one: one.rows or 0)
        found.append(replace(effect, rows=most.rows))
    return (*found, *rows.values())


def own(measured: Iterable[Effect], counted: Iterable[Effect]) -> tuple[Effect, ...]:
    """Return what a run did: rows as its guard counted them, everything else as the store shows.

    A store counts everybody's rows; a guard counts those of its own script.
    """
    shapes = [effect for effect in measured if effect.verb not in COUNTED]
    return worst_first((*shapes, *(effect for effect in counted if effect.verb in COUNTED)))


def from_declaration(resource: str, declared: Iterable[DeclaredEffect]) -> Budget:
    """Return the budget that an operation declares; without rows, any number of them."""
    return Budget(
        tuple(Allowance(resource, d.verb, d.kind, d.name, d.rows) for d in declared),
        "declaration",
    )


def breaches(budget: Budget, effects: Iterable[Effect]) -> tuple[Breach, ...]:
    """Return the effects that the budget does not cover; empty when all are inside."""
    allowed = {(a.resource, a.verb, a.kind, a.name): a for a in budget.allowances}
    found = []
    for effect in effects:
        if effect.rows == 0 and effect.verb != "unknown":
            continue
        allowance = allowed.get(effect.key)
        if allowance is None or not _covers(allowance, effect):
            found.append(Breach(effect, allowance))
    return tuple(found)


def sentence(breach: Breach) -> str:
    """Return a breach in words: `delete table sessions 217 rows; budget 214, tolerance 2`."""
    effect, allowed = breach.effect, breach.allowed
    amount = "" if effect.rows is None else f" {effect.rows:,} rows"
    if allowed is None:
        return f"{effect.verb} {effect.kind} {effect.name}{amount}, not in rehearsal at all"
    return (
        f"{effect.verb} {effect.kind} {effect.name}{amount}; budget {allowed.rows:,}, "
        f"tolerance {allowed.tolerance:,}"
    )


def _covers(allowance: Allowance, effect: Effect) -> bool:
    if effect.rows is None or allowance.rows is None:
        return True
    return effect.rows <= allowance.rows + allowance.tolerance
