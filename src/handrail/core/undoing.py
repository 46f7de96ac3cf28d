"""Undoing: the target goes back to what it was before a run.

Rules:
- An undo is itself an act: journalled before and after, and what it leaves different is said.
- What others wrote since the run ended is not lost silently: such an undo needs a word for it.
- Undo twice equals once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from handrail.core import backups, scripts
from handrail.core.world import Talk, World
from handrail.errors import HandrailError, RefusedError, StoreError
from handrail.operations.model import Operation
from handrail.plans.amounts import duration
from handrail.plans.effect import Effect
from handrail.plans.facts import Backup, Fingerprint
from handrail.plans.model import Plan
from handrail.ports import Store


@dataclass(frozen=True)
class Undone:
    """How an undo ended: whether it worked, and what it leaves different, as nouns."""

    worked: bool
    seconds: float
    residue: tuple[str, ...]


def undo(
    world: World,
    plan: Plan,
    operation: Operation,
    store: Store,
    backup: Backup | None,
    folder: Path,
    talk: Talk,
    note: Callable[..., None],
) -> Undone:
    """Undo a run by what its plan says, and compare with the backup that was made before it.

    Args:
        world: the ports.
        plan: of the run.
        operation: for the undo script's environment.
        store: the target.
        backup: made before the run; None for a store that nobody would miss.
        folder: the run's private directory.
        talk: told what happens.
        note: journals a record of the run's chain.
    """
    step = plan.steps[0]
    note("undo-begun", how=step.undo)
    talk.begin("undo", step.undo)
    began = world.clock.elapsed_s()
    try:
        left = _act(world, plan, operation, store, backup, folder, talk)
        residue = (*left, *_differences(store, backup))
        undone = Undone(
            worked=True,
            seconds=world.clock.elapsed_s() - began,
            residue=tuple(dict.fromkeys(residue)),
        )
    except HandrailError as error:
        undone = Undone(
            worked=False, seconds=world.clock.elapsed_s() - began, residue=(error.message,)
        )
    note("undo-done", worked=undone.worked, seconds=undone.seconds, residue=undone.residue)
    said = "nothing left over" if not undone.residue else "left: " + ", ".join(undone.residue[:5])
    talk.end("undo", f"{step.undo}, {duration(undone.seconds)}, {said}", ok=undone.worked)
    return undone


def newer(store: Store, after: Path) -> tuple[Effect, ...]:
    """Return what was changed since the state in `after` was observed; empty when nothing was.

    That nobody can tell counts as changed.
    """
    why = "what it was like when the run ended is not known"
    try:
        if after.is_dir() and any(after.iterdir()):
            return store.effects(after)
    except StoreError as error:
        why = error.message
    return (Effect(store.resource, "unknown", "store", store.resource, detail=why),)


def _act(
    world: World,
    plan: Plan,
    operation: Operation,
    store: Store,
    backup: Backup | None,
    folder: Path,
    talk: Talk,
) -> tuple[str, ...]:
    step = plan.steps[0]
    if step.undo == "irreversible":
        raise RefusedError(
            "run.irreversible",
            f"declared irreversible: {operation.undo.reason}",
            hint="the backup made before the run is kept: handrail runs show",
        )
    if step.undo == "script":
        command = scripts.command(
            world,
            operation,
            plan,
            step,
            store.connection(),
            token=f"undo-{folder.name}",
            folder=folder,
            undo=True,
        )
        finished = world.processes.run(command, lambda _: None, talk.output)
        if finished.exit_code != 0:
            raise RefusedError(
                "run.undo-failed",
                f"the undo script ended with {finished.ended} {finished.exit_code}",
                hint=f"its output: {command.output}",
            )
        return ()
    if backup is None:
        raise RefusedError("run.undo-failed", "no backup was made before this run")
    with backups.opened(world, backup, folder / "opened") as readable:
        return store.restore(readable, talk.progress)


def _differences(store: Store, backup: Backup | None) -> tuple[str, ...]:
    expected: Fingerprint | None = backup.fingerprint if backup else None
    return expected.differences(store.fingerprint()) if expected else ()
