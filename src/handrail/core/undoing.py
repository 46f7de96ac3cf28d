"""Undoing: the target goes back to what it was before a run.

Rules:
- An undo is itself an act: journalled before and after, and what it leaves different is said.
- An undo script is itself destructive: it runs behind a guard, with the budget of its rehearsal.
- What others wrote since the run ended is not lost silently: such an undo needs a word for it.
- Undo twice equals once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from handrail.core import backups, guarding, scripts
from handrail.core.world import Talk, World
from handrail.errors import HandrailError, RefusedError, StoreError
from handrail.operations.model import Operation
from handrail.plans.amounts import duration
from handrail.plans.effect import Effect
from handrail.plans.facts import Backup, Fingerprint
from handrail.plans.holding import Limits
from handrail.plans.model import Plan
from handrail.ports import Connection, Finished, Processes, Store


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
    limits: Limits,
    runs: Processes,
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
        limits: what an undo script is held to; one that is stopped has failed.
        runs: what runs an undo script: where the script itself ran.
    """
    step = plan.steps[0]
    note("undo-begun", how=step.undo)
    talk.begin("undo", step.undo)
    began = world.clock.elapsed_s()
    try:
        if step.undo == "script":
            _run_script(world, plan, operation, store, folder, talk, note, limits, runs)
            left: tuple[str, ...] = ()
        else:
            left = _restore(world, plan, operation, store, backup, folder, talk)
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


def _run_script(
    world: World,
    plan: Plan,
    operation: Operation,
    store: Store,
    folder: Path,
    talk: Talk,
    note: Callable[..., None],
    limits: Limits,
    runs: Processes,
) -> None:
    """Run the undo script behind a guard of its own.

    Raises:
        RefusedError: it failed, or was stopped.
        StoreError: no guard could be had.
    """
    token = f"undo-{folder.name}"
    before, private = folder / "before-undo", folder / "guard-undo"
    for made in (before, private):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
    store.observe(before)
    hearing = guarding.Hearing(lambda event: note("guard-event", event=event, undo=True), talk)

    def run(connection: Connection) -> Finished:
        command = scripts.command(
            world,
            operation,
            plan,
            plan.steps[0],
            connection,
            token=token,
            folder=folder,
            undo=True,
            confine=guarding.cage(world, store, connection, token),
        )
        return runs.run(command, lambda _: None, talk.output)

    try:
        with guarding.opened(world, store, limits, before, private, hearing) as guard:
            finished, reports = guarding.attend(guard, run, hearing)
    finally:
        for made in (before, private):
            shutil.rmtree(made, ignore_errors=True)  # they may hold what the target does
    hearing.check()
    report = guarding.one_report(store, reports)
    note("undo-ran", finished=finished, report=report)
    said = f"the undo script ended with {finished.ended} {finished.exit_code}"
    if report.stop is not None:
        said = f"the undo script was stopped: it {report.stop.what}"
    if report.stop is not None or finished.exit_code != 0 or finished.ended != "exited":
        raise RefusedError("run.undo-failed", said, hint=f"its output: {folder / 'undo.log'}")


def _restore(
    world: World,
    plan: Plan,
    operation: Operation,
    store: Store,
    backup: Backup | None,
    folder: Path,
    talk: Talk,
) -> tuple[str, ...]:
    if plan.steps[0].undo == "irreversible":
        raise RefusedError(
            "run.irreversible",
            f"declared irreversible: {operation.undo.reason}",
            hint="the backup made before the run is kept: handrail runs show",
        )
    if backup is None:
        raise RefusedError("run.undo-failed", "no backup was made before this run")
    with backups.opened(world, backup, folder / "opened") as readable:
        return store.restore(readable, talk.progress)


def _differences(store: Store, backup: Backup | None) -> tuple[str, ...]:
    expected: Fingerprint | None = backup.fingerprint if backup else None
    return expected.differences(store.fingerprint()) if expected else ()
