"""Why a run that has ended cannot, or need not, be undone.

Rules:
- What others wrote since is not lost silently: such an undo needs a word for it.
- What does not answer, or lost its identity, may be so because of this very run: that is no reason.
"""

from __future__ import annotations

from pathlib import Path

from handrail.core import backups, undoing
from handrail.core.deciding import Decided
from handrail.core.run_records import RunRecords
from handrail.core.world import World
from handrail.errors import RefusedError, StoreError, UsageError
from handrail.plans.amounts import duration
from handrail.ports import Store


def refuse_undo(
    world: World,
    number: int,
    decided: Decided,
    told: RunRecords,
    store: Store,
    after: Path,
    *,
    lose_newer: bool,
) -> None:
    """Raise when a run cannot, or need not, be undone.

    Args:
        world: the ports.
        number: of the run.
        decided: its recorded plan.
        told: its records.
        store: the target.
        after: what was observed when its script had ended.
        lose_newer: go back although others wrote since.

    Raises:
        UsageError: it did nothing, has not ended, or was undone already.
        RefusedError: it is irreversible, its backup is gone, another store answers, or others
            wrote since.
    """
    _refuse_unneeded(number, told)
    _refuse_impossible(number, decided, told)
    refuse_other_target(number, decided, store)
    with backups.taken_out(world, after):
        changed = undoing.newer(store, after)
    if changed and not lose_newer:
        some = "; ".join(f"{e.verb} {e.kind} {e.name}" for e in changed[:3])
        raise RefusedError(
            "store.moved",
            f"since run {number} ended, others changed: {some}",
            hint=f"handrail undo {number} --lose-newer   goes back all the same; what is "
            "there now is kept beside it",
        )


def _refuse_unneeded(number: int, told: RunRecords) -> None:
    if "step-begun" not in told:
        raise UsageError("run.nothing", f"run {number} did nothing")
    if not told.outcome:
        raise UsageError(
            "run.unfinished",
            f"run {number} has not ended",
            hint=f"handrail resume {number} --undo",
        )
    if told.is_undone:
        raise UsageError("run.nothing", f"run {number} was undone already")


def _refuse_impossible(number: int, decided: Decided, told: RunRecords) -> None:
    plan = decided.plan
    if plan.steps[0].undo == "irreversible":
        raise RefusedError(
            "run.irreversible",
            f"run {number} cannot be undone: {decided.operation.undo.reason}",
            hint=f"the backup made before it: handrail runs show {number}",
        )
    backup = told.backup
    if plan.steps[0].undo == "restore" and (backup is None or not Path(backup.path).exists()):
        raise RefusedError(
            "backup.damaged",
            f"the backup that run {number} made is not there any more",
            hint=f"it is kept for {duration(decided.declared.policy.undo_age_s)}; "
            "look for another copy of it",
        )


def refuse_other_target(number: int, decided: Decided, store: Store) -> None:
    """Raise when another store answers in the target's place.

    Raises:
        RefusedError: one does.
    """
    planned = decided.plan.facts.identity
    try:
        found = store.identify()
    except StoreError:
        return
    known = found.id if not found.id.endswith(":unadopted") else planned and planned.id
    if planned is None or (known, found.endpoint, found.marker) != (
        planned.id,
        planned.endpoint,
        planned.marker,
    ):
        raise RefusedError(
            "store.identity",
            f"{found} answers, and run {number} was on {planned}",
            hint="point the store's url, or --on, at the store that it ran on",
        )
