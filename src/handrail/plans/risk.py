"""Risk: how bad it would be, from effects, target and reversibility.

Rules:
- What nobody knows is as bad as it can be for that target. A script that failed in rehearsal may
  have failed before what it does when it does not: what it would do, nobody knows.
- What cannot be put back is one level worse, and high at least.
- The level comes with the one reason that set it.
"""

from __future__ import annotations

from handrail.plans.effect import Effect
from handrail.plans.model import RISKS, Rehearsal, Step, Target

_GONE = frozenset({"unknown", "drop", "replace", "truncate"})
_CHANGED = frozenset({"delete", "update", "rewrite", "alter", "rename"})
_RIGHTS = frozenset({"role", "setting", "grant", "database"})

_HIGH = RISKS.index("high")


def derive(
    target: Target,
    steps: tuple[Step, ...],
    effects: tuple[Effect, ...] | None,
    rehearsal: Rehearsal | None,
) -> tuple[str, str]:
    """Return the risk, one of `RISKS`, and its reason."""
    level, reason = _from_effects(target, effects)
    if rehearsal and (rehearsal.ended != "exited" or rehearsal.exit_code != 0):
        unknown, _ = _from_effects(target, None)
        level, reason = (
            max(level, unknown),
            "it failed in rehearsal; nobody knows what else it does",
        )
    stuck = _stuck(steps, rehearsal)
    if not stuck:
        return RISKS[level], reason
    # What changed nothing that can be seen may still have sent a mail.
    worse = min(max(level + 1, _HIGH), len(RISKS) - 1)
    return RISKS[worse], f"{reason}; {stuck}" if worse == level else f"{stuck}; {reason}"


def _from_effects(target: Target, effects: tuple[Effect, ...] | None) -> tuple[int, str]:
    if effects is None:
        level = 3 if target.durability == "durable" else 2
        return level, f"nobody knows what it does to {target.durability} {target.resource}"
    if not effects:
        return 0, "it changed nothing"
    levels = [(_of_effect(target, effect), effect) for effect in effects]
    level, worst = max(levels, key=lambda pair: pair[0])
    amount = "" if worst.rows is None else f" of {worst.rows:,} rows"
    data = "real data" if target.is_real else f"{target.durability} data"
    return level, f"{worst.verb} {worst.kind} {worst.name}{amount}, {data}"


def _of_effect(target: Target, effect: Effect) -> int:
    durable = target.durability == "durable"
    if effect.verb == "unknown":
        return 3 if durable else 2
    if effect.kind in _RIGHTS or effect.verb in {"grant", "revoke"}:
        return 3 if effect.verb in _GONE and durable else 2
    if effect.verb in _GONE and effect.rows != 0 and effect.kind in {"table", "column"}:
        return 3 if durable and target.is_real else 2 if durable else 1
    if effect.verb in _GONE or effect.verb in _CHANGED:
        return 2 if durable else 1
    return 1


def _stuck(steps: tuple[Step, ...], rehearsal: Rehearsal | None) -> str:
    if any(step.undo == "irreversible" for step in steps):
        return "it cannot be undone"
    if rehearsal and not rehearsal.undone:
        return "its undo failed in rehearsal"
    if rehearsal and rehearsal.residue:
        return "its undo leaves " + ", ".join(rehearsal.residue[:3]) + " different"
    return ""
