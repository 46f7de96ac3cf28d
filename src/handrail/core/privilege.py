"""Privilege: the script once more, as a role that may do what the budget needs and nothing else.

Rules:
- Another role can make it another script: only where both did the same is the limited one used.
- It is tried where every effect is one of rows; what changes shapes needs an owner.
- That it could not be tried, or did otherwise, is said; the gate holds the script all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from handrail.core import together
from handrail.core.clone_runs import Rehearsing, effects_of, ending, run_script
from handrail.errors import ScriptError, StoreError
from handrail.plans import budget as budgets
from handrail.plans.effect import ROW_VERBS, Effect
from handrail.plans.facts import Backup, Fingerprint
from handrail.plans.holding import Limits
from handrail.plans.model import Budget, Rehearsal
from handrail.ports import Store

KINDS = frozenset({"postgres", "redis"})
# Drawing a number from a sequence comes with inserting, and needs no owner.
_ROWS = ROW_VERBS | budgets.COUNTED | {"advance"}


def limit(
    rehearsal: Rehearsing,
    target: Store,
    clone: Store,
    backup: Backup,
    before: Fingerprint,
    measured: Rehearsal,
) -> Rehearsal:
    """Return what was measured with the role that the run will have, and why.

    Args:
        rehearsal: on its way; its script has run, and its undo.
        target: of the rehearsal.
        clone: where it ran.
        backup: that the clone was made of.
        before: the clone's content before the script ran first.
        measured: as the store's own role.
    """
    why = _hindrance(clone, measured) or _put_back(rehearsal, clone, backup, before, measured)
    if not why:
        why = _rehearse(rehearsal, target, clone, measured)
    role = "own" if why else "limited"
    rehearsal.note("privilege", role=role, because=why)
    said = "held by privilege and gate" if not why else f"held by the gate alone: {why}"
    rehearsal.talk.end("role", said, ok=not why)
    return replace(measured, role=role, role_because=why)


def _hindrance(clone: Store, measured: Rehearsal) -> str:
    """Return why a limited role cannot be tried; empty when it can."""
    for part in together.parts_of(clone):
        if part.kind not in KINDS:
            return f"a store of kind {part.kind} has no roles"
    if measured.ended != "exited" or measured.exit_code != 0:
        return "it failed in rehearsal"
    others = [effect for effect in measured.effects if effect.verb not in _ROWS]
    if others:
        return f"{others[0].verb} {others[0].kind} {others[0].name} needs an owner"
    return ""


def _put_back(
    rehearsal: Rehearsing,
    clone: Store,
    backup: Backup,
    before: Fingerprint,
    measured: Rehearsal,
) -> str:
    """Make the clone what it was; return why that cannot be."""
    try:
        if not measured.undone or measured.residue:
            clone.restore(backup, rehearsal.talk.progress)
        different = before.differences(clone.fingerprint())
    except StoreError as error:
        return f"the clone could not be put back: {error.message}"
    return f"the clone could not be put back: {different[0]} differs" if different else ""


def _rehearse(rehearsal: Rehearsing, target: Store, clone: Store, measured: Rehearsal) -> str:
    """Run the script as a limited role; return what was different."""
    observed = rehearsal.folder / "before-limited"
    observed.mkdir(mode=0o700)
    rehearsal.talk.begin("role", "the same as a limited role")
    limits = Limits("measure", _budget(measured), role="limited")
    try:
        clone.observe(observed)
        finished, report = run_script(rehearsal, target, clone, observed, limits)
    except (StoreError, ScriptError) as error:
        return error.message
    effects = effects_of(clone, observed)
    rehearsal.note("ran-limited", finished=finished, effects=effects, report=report)
    if report.role != "limited":
        return "the guard has no limited role here"
    if (finished.ended, finished.exit_code) != (measured.ended, measured.exit_code):
        return f"as a limited role it ended with {ending(finished)}"
    return _difference(measured.effects, effects)


def _budget(measured: Rehearsal) -> Budget:
    complete = not measured.unheld
    effects = budgets.counted_alike(measured.effects, measured.counted, is_complete=complete)
    return budgets.from_effects(effects, relative=0.0, absolute=0)


def _difference(own: Iterable[Effect], limited: Iterable[Effect]) -> str:
    """Return the first thing that a limited role did otherwise."""
    mine = {effect.key: effect.rows for effect in own}
    its = {effect.key: effect.rows for effect in limited}
    for key in sorted({*mine, *its}):
        if key not in mine or key not in its or mine[key] != its[key]:
            _, verb, kind, name = key
            was, now = (found.get(key, 0) or 0 for found in (mine, its))
            return f"as a limited role it would {verb} {kind} {name} {now:,} rows, not {was:,}"
    return ""
