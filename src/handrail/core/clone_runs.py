"""A script on a clone: confined, behind a guard that counts and refuses nothing.

Rules:
- Where the script cannot be confined, nobody can tell what it did to the target from what the
  target's own users did: a change voids the rehearsal.
- A clone that is gone when the script ends has measured nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from handrail.core import attending, backups, guarding, nodes, scripts, together
from handrail.core.deciding import Decided
from handrail.core.world import Talk, World
from handrail.errors import RefusedError, StoreError
from handrail.plans.amounts import duration
from handrail.plans.canonical import plain
from handrail.plans.effect import Effect
from handrail.plans.facts import Fingerprint
from handrail.plans.holding import Limits, Report
from handrail.plans.model import Plan
from handrail.ports import Command, Confine, Connection, Finished, Processes, Store

MEASURED = Limits("measure")


@dataclass
class Rehearsing:
    """One rehearsal on its way: what every part of it needs."""

    world: World
    decided: Decided
    talk: Talk
    id: str
    chain: str
    folder: Path
    clone_at: Path | None = None
    answers: dict[str, str] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """What is rehearsed."""
        return self.decided.plan

    @property
    def processes(self) -> Processes:
        """What runs its script."""
        return nodes.processes(self.world, self.plan, self.decided.declared.estate)

    def note(self, kind: str, **body: object) -> None:
        """Write one record of this rehearsal."""
        self.world.journal.append(self.chain, kind, {k: plain(v) for k, v in body.items()})


def run_script(
    rehearsal: Rehearsing,
    target: Store,
    clone: Store,
    observed: Path,
    limits: Limits = MEASURED,
    *,
    undo: bool = False,
) -> tuple[Finished, Report]:
    """Run the script, or its undo, on the clone.

    Args:
        rehearsal: on its way.
        target: what must not change meanwhile.
        clone: where it runs.
        observed: the folder of `clone.observe`.
        limits: as what it runs; their mode refuses nothing.
        undo: run the undo instead.

    Raises:
        RefusedError: the target changed while the script was not confined, or the clone is gone.
        StoreError: no guard could be had.
        ScriptError: the script could not be started.
    """
    world = rehearsal.world
    private = rehearsal.folder / observed.name.replace("before", "guard")
    private.mkdir(mode=0o700)
    exposed = target.fingerprint() if rehearsal.processes.can_confine() else None
    hearing = guarding.Hearing(
        lambda event: rehearsal.note("guard-event", event=event), rehearsal.talk
    )
    with guarding.opened(world, clone, limits, observed, private, hearing) as guard:
        finished, reports = guarding.attend(
            guard,
            lambda connection: _run(rehearsal, target, connection, undo=undo),
            lambda _: None,  # what it tried to reach is a finding of the rehearsal, told as one
            always=True,
        )
    hearing.check()
    if exposed is not None:
        _refuse_touched(rehearsal, target, exposed)
    if rehearsal.clone_at and not rehearsal.clone_at.exists():
        raise RefusedError(
            "rehearsal.failed",
            f"the clone was gone when the script ended ({ending(finished)}): it is destroyed "
            f"after {duration(rehearsal.decided.declared.policy.clone_age_s)}",
            hint="if that is too short: `rehearsal: {clone-deadline: ...}` in policy.yaml",
        )
    return finished, guarding.one_report(clone, reports)


def _run(rehearsal: Rehearsing, target: Store, connection: Connection, *, undo: bool) -> Finished:
    """Run the script to its end, and answer what it asks; of an undo nobody is asked."""
    world, operation = rehearsal.world, rehearsal.decided.operation

    def note(kind: str, name: str, value: str, person: str) -> None:
        rehearsal.note("answered", question=name, outcome=kind, value=value, by=person)
        rehearsal.answers[name] = value if kind == "answer" else kind

    clerk = attending.Clerk(
        () if undo else operation.questions,
        rehearsal.plan.request.parameters,
        attending.by_default,
        note,
    )
    command = replace(_command(rehearsal, target, connection, undo=undo), tethered=True)
    with attending.attending(scripts.home_of(world, _token(rehearsal)), clerk):
        try:
            return rehearsal.processes.run(command, lambda _: None, rehearsal.talk.output)
        finally:
            mark = scripts.mark_of(world, _token(rehearsal))
            nodes.forget(rehearsal.processes, rehearsal.plan, (mark,), rehearsal.talk)


def _token(rehearsal: Rehearsing) -> str:
    return f"rehearsal-{rehearsal.id}"


def _command(
    rehearsal: Rehearsing, target: Store, connection: Connection, *, undo: bool
) -> Command:
    world, decided = rehearsal.world, rehearsal.decided
    real = target.connection()
    own = [part.connection() for part in together.parts_of(target)]
    token = _token(rehearsal)
    confine = Confine(
        writable=(*connection.paths, scripts.home_of(world, token)),
        replaced=guarding.replaced(real, connection),
        hidden=(world.state, *guarding.socket_folders(own)),
        sockets=connection.sockets,
    )
    return scripts.command(
        world,
        decided.operation,
        decided.plan,
        decided.plan.steps[0],
        connection,
        token=token,
        folder=rehearsal.folder,
        undo=undo,
        confine=confine,
    )


def _refuse_touched(rehearsal: Rehearsing, target: Store, before: Fingerprint) -> None:
    """Void a rehearsal that was not confined and during which the target changed.

    Raises:
        RefusedError: it did; by whom, nobody can tell.
    """
    try:
        different = before.differences(target.fingerprint())
    except StoreError as error:
        different = (error.message,)
    if different:
        decided = rehearsal.decided
        kept = backups.folder(rehearsal.world, decided.declared, decided.resource)
        raise RefusedError(
            "rehearsal.touched-target",
            f"{decided.resource.ref} changed while the script ran on its clone, "
            "unconfined: " + ", ".join(different[:5]),
            hint="if nobody else wrote there, the script has an address of its own; what was there "
            f"is in the backup made first, in {kept}",
        )


def effects_of(clone: Store, observed: Path) -> tuple[Effect, ...]:
    """Return what a script did; that nobody can say is an effect too."""
    try:
        return clone.effects(observed)
    except StoreError as error:
        return (Effect(clone.resource, "unknown", "store", clone.resource, detail=error.message),)


def ending(finished: Finished) -> str:
    """Return how a script ended, for people."""
    return f"exit {finished.exit_code}" if finished.ended == "exited" else finished.ended
