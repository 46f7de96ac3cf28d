"""Rehearsing: the script runs on a clone that was restored from a fresh backup.

Rules:
- The clone is proven to be another store than the target before the script starts: its identity
  has a marker that only this rehearsal knows, its endpoint differs, the target has no marker.
- The clone is destroyed when the rehearsal ends, however it ends, and that is journalled.
- The script runs behind a guard as in the run, but nothing is refused: what is held to the budget
  is counted as the budget was.
- The target is only read: its fingerprint may change by its own users' work, never by ours. Where
  the script cannot be confined, nobody can tell these apart, and a change voids the rehearsal.
- A backup counts from here on: it was restored, and its content compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from handrail.core import (
    backups,
    clones,
    guarding,
    nodes,
    privilege,
    proving,
    records,
    standing,
    together,
)
from handrail.core.clone_runs import Rehearsing, effects_of, ending, run_script
from handrail.core.deciding import Decided, again
from handrail.core.world import Talk, World
from handrail.errors import RefusedError, ScriptError, StoreError, UsageError
from handrail.plans.amounts import duration, size
from handrail.plans.canonical import time_text
from handrail.plans.effect import Effect, worst_first
from handrail.plans.facts import Backup, Fingerprint
from handrail.plans.holding import Report
from handrail.plans.model import Proof, Rehearsal
from handrail.ports import Finished, Store


@dataclass(frozen=True)
class _Undone:
    worked: bool
    seconds: float
    effects: tuple[Effect, ...]
    residue: tuple[str, ...]
    report: Report | None = None


def rehearse(world: World, decided: Decided, talk: Talk) -> Decided:
    """Rehearse a plan's script, and return the plan made anew with what was measured.

    Raises:
        UsageError: it is no script, but an operation of a kit.
        RefusedError: the target cannot be told from a clone, or the script must be confined and
            this machine cannot.
        StoreError: no backup, no restore or no clone could be made.
        ScriptError: the script could not be started.
    """
    if decided.operation.act:
        raise UsageError(
            "rehearsal.failed",
            f"`{decided.operation.name}` is no script: its plan is the platform's own dry run",
            hint=f"handrail plan {decided.plan.request.asked}",
        )
    clones.sweep(world)
    _refuse_unsuitable(world, decided)
    rehearsal = _begin(world, decided, talk)
    try:
        measured = _rehearse(rehearsal)
        rehearsal.note("measured", rehearsal=measured)
    except BaseException as error:
        rehearsal.note("failed", error=type(error).__name__)
        raise
    finally:
        clones.clear(world, rehearsal.id)
        world.journal.close(rehearsal.chain)
    backups.prune(world, decided.declared, decided.resource)
    anew = again(world, decided.declared, decided.operation, decided.resource, decided.plan.request)
    standing.settle(world, anew.plan, runs=False)
    return anew


def _refuse_unsuitable(world: World, decided: Decided) -> None:
    identity = decided.plan.facts.identity
    if identity is None:
        why = "; ".join(f"{name}: {reason}" for name, reason in decided.plan.facts.unreadable)
        raise RefusedError(
            "store.unreachable",
            f"{decided.resource.ref} cannot be read: {why}",
            hint="make it reachable, then rehearse again",
        )
    if decided.plan.facts.measure is None:
        raise RefusedError("store.failed", f"what {decided.resource.ref} holds cannot be read")
    if identity.marker:
        raise RefusedError("clone.not-distinct", f"{decided.resource.ref} is itself a clone")
    runs = nodes.processes(world, decided.plan, decided.declared.estate)
    nodes.check(runs, decided.plan, together.opened(world, decided.resource))
    reason = runs.can_confine()
    if decided.declared.policy.confine == "require" and reason:
        raise RefusedError(
            "script.confine",
            f"the policy requires confined rehearsals: {reason}",
            hint="rehearse on a machine that allows namespaces",
        )


def _begin(world: World, decided: Decided, talk: Talk) -> Rehearsing:
    plan = decided.plan
    name = world.ids.new()[:8]
    folder = world.state / "rehearsals" / name
    folder.mkdir(parents=True, mode=0o700)
    begun = Rehearsing(world, decided, talk, name, records.rehearsal_chain(plan.key, name), folder)
    begun.note(
        "opened",
        plan=plan.digest,
        key=plan.key,
        request=plan.request,
        material=plan.material,
        identity=str(plan.facts.identity),
    )
    return begun


def _rehearse(rehearsal: Rehearsing) -> Rehearsal:
    world, talk = rehearsal.world, rehearsal.talk
    target = together.opened(world, rehearsal.decided.resource)
    backup, backup_s = _back_up(rehearsal, target)
    policy = rehearsal.decided.declared.policy
    # The clone's keeper first: it also removes an opened backup when this process dies.
    with (
        clones.held(world, rehearsal.id, target, policy) as at,
        backups.opened(world, backup, rehearsal.folder / "opened") as readable,
    ):
        rehearsal.clone_at = at
        talk.begin("restore", "as a clone")
        began = world.clock.elapsed_s()
        clone = proving.clone(world, target, readable, at, talk)
        restore_s = world.clock.elapsed_s() - began
        resource = rehearsal.decided.resource
        proof = proving.prove(world, talk, resource, target, clone, backup, backup_s, restore_s)
        return _measure(rehearsal, target, clone, readable, proof)


def _back_up(rehearsal: Rehearsing, target: Store) -> tuple[Backup, float]:
    world, talk, decided = rehearsal.world, rehearsal.talk, rehearsal.decided
    rehearsal.note("backup-begun")
    talk.begin("backup", rehearsal.decided.resource.ref)
    began = world.clock.elapsed_s()
    backup = backups.make(world, decided.declared, decided.resource, target, talk)
    seconds = world.clock.elapsed_s() - began
    rehearsal.note("backup-done", backup=replace(backup, fingerprint=None))
    talk.end("backup", f"{size(backup.size_bytes)} in {duration(seconds)}")
    return backup, seconds


def _measure(
    rehearsal: Rehearsing, target: Store, clone: Store, backup: Backup, proof: Proof
) -> Rehearsal:
    world, plan = rehearsal.world, rehearsal.plan
    before = clone.fingerprint()
    finished, effects, report = _run(rehearsal, target, clone)
    undone = _undo(rehearsal, target, clone, backup, before)
    measure = plan.facts.measure
    if measure is None:
        raise StoreError("store.failed", "the target's content could not be measured")
    measured = Rehearsal(
        id=rehearsal.id,
        key=plan.key,
        made_at=time_text(world.clock.now()),
        person=world.person,
        exit_code=finished.exit_code,
        ended=finished.ended,
        duration_s=finished.duration_s,
        output_bytes=finished.output_bytes,
        effects=effects,
        undone=undone.worked,
        undo_s=undone.seconds,
        undo_effects=undone.effects,
        residue=undone.residue,
        reached=finished.reached,
        unlisted=_unlisted(rehearsal, target, finished),
        confined=finished.confined,
        traced=finished.traced,
        measure=measure,
        proof=proof,
        how=report.how,
        counted=guarding.counted(report),
        undo_counted=guarding.counted(undone.report) if undone.report else (),
        trace=report.trace,
        unheld=report.unheld,
        undo_trace=undone.report.trace if undone.report else (),
        undo_unheld=undone.report.unheld if undone.report else (),
        role=report.role,
        answers=tuple(sorted(rehearsal.answers.items())),
    )
    if rehearsal.decided.declared.policy.guard.role == "own":
        return measured
    return privilege.limit(rehearsal, target, clone, backup, before, measured)


def _run(
    rehearsal: Rehearsing, target: Store, clone: Store
) -> tuple[Finished, tuple[Effect, ...], Report]:
    talk, script = rehearsal.talk, rehearsal.plan.steps[0].argv[0]
    observed = rehearsal.folder / "before"
    observed.mkdir(mode=0o700)
    clone.observe(observed)
    talk.begin("run", f"{script} on the clone")
    finished, report = run_script(rehearsal, target, clone, observed)
    effects = effects_of(clone, observed)
    if report.stop is not None:
        # Nothing is refused in a rehearsal but what cannot be: then nobody knows what else it does.
        finished = replace(finished, ended="stopped")
        effects = worst_first({*effects, *([report.stop.effect] if report.stop.effect else [])})
        talk.end("guard", f"{script} {report.stop.what}", ok=False)
    printed = (
        f"{size(finished.output_bytes)} printed" if finished.output_bytes else ("printed nothing")
    )
    talk.end(
        "run",
        f"{script} on the clone, {duration(finished.duration_s)}, {ending(finished)}, {printed}",
        ok=finished.exit_code == 0,
    )
    rehearsal.note("ran", finished=finished, effects=effects, report=report)
    return finished, effects, report


def _undo(
    rehearsal: Rehearsing, target: Store, clone: Store, backup: Backup, before: Fingerprint
) -> _Undone:
    """Run the undo on the clone, and say what it leaves different."""
    step, world, talk = rehearsal.plan.steps[0], rehearsal.world, rehearsal.talk
    if step.undo == "irreversible":
        talk.end("undo", "declared irreversible: not tried", ok=False)
        return _Undone(worked=False, seconds=0.0, effects=(), residue=())
    talk.begin("undo", step.undo)
    observed = rehearsal.folder / "before-undo"
    observed.mkdir(mode=0o700)
    began = world.clock.elapsed_s()
    worked = True
    left: tuple[str, ...] = ()
    report: Report | None = None
    try:
        if step.undo != "restore":
            clone.observe(observed)
            began = world.clock.elapsed_s()
        if step.undo == "restore":
            left = clone.restore(backup, talk.progress)
        else:
            finished, report = run_script(rehearsal, target, clone, observed, undo=True)
            worked = finished.exit_code == 0
    except (StoreError, ScriptError) as error:
        worked, left = False, (error.message,)
    seconds = world.clock.elapsed_s() - began
    residue = _residue(clone, before, left)
    effects = () if step.undo == "restore" else effects_of(clone, observed)
    rehearsal.note("undone", worked=worked, residue=residue, effects=effects)
    talk.end(
        "undo",
        f"{step.undo}, {duration(seconds)}, "
        + ("nothing left over" if not residue else "left over: " + ", ".join(residue[:5])),
        ok=worked and not residue,
    )
    return _Undone(worked, seconds, effects, residue, report)


def _residue(clone: Store, before: Fingerprint, left: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys((*before.differences(clone.fingerprint()), *left)))
    except StoreError as error:
        return (*left, error.message)


def _unlisted(rehearsal: Rehearsing, target: Store, finished: Finished) -> tuple[str, ...]:
    """Return files of the repository that the script read and the plan does not cover."""
    covered = {name for name, _ in rehearsal.plan.material.files}
    root = rehearsal.world.root
    database = target.connection().parts.get("path", "")
    inside = [Path(n) for n in finished.read if Path(n).is_relative_to(root)]
    names = {
        path.relative_to(root).as_posix()
        for path in inside
        if not database or not str(path).startswith(database)
    }
    return tuple(sorted(n for n in names if n not in covered and not n.startswith(".")))
