"""One run, from its records: what has been done, and what comes next.

Rules:
- Each stage first looks whether its record is there: going on after a crash is the same code as
  running.
- `step-begun` stands before the script's first instruction, `step-done` after its last. Between
  the two nobody knows; that is said, measured, and asked, never assumed.
- Over budget, failed or ill: undone at once, and said so.
- Only the holder of the target's lock writes to its run.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from handrail.core import approving, backups, deciding, records, scripts, undoing, watching
from handrail.core.deciding import Decided
from handrail.core.outcome import Outcome
from handrail.core.world import Talk, World
from handrail.errors import (
    HandrailError,
    JournalError,
    OverBudgetError,
    RefusedError,
    ScriptError,
    StoreError,
    UsageError,
    WaitingError,
)
from handrail.plans import budget as budgets
from handrail.plans.amounts import duration, size
from handrail.plans.canonical import plain
from handrail.plans.effect import Effect
from handrail.plans.facts import Backup
from handrail.plans.model import Breach
from handrail.ports import Finished, Store


class Run:
    """One run: its records so far, and what comes next. The caller holds the target's lock."""

    def __init__(
        self, world: World, number: int, decided: Decided, talk: Talk, *, choice: str = ""
    ) -> None:
        self._world = world
        self._number = number
        self._decided = decided
        self._talk = talk
        self._chain = records.run_chain(number)
        self._folder = world.state / "runs" / str(number)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._bodies: dict[str, dict[str, Any]] = {}
        self._last = ""
        for record in world.journal.records(self._chain):
            self._remember(record.kind, records.body(record))
        self._choice = choice or self._bodies.get("told", {}).get("choice", "")
        self._store: Store = world.open_store(decided.resource)

    def note(self, kind: str, **values: object) -> None:
        """Write one record of this run."""
        body = {name: plain(value) for name, value in values.items()}
        self._world.journal.append(self._chain, kind, body)
        self._remember(kind, body)

    def _remember(self, kind: str, body: dict[str, Any]) -> None:
        if kind == "undo-asked":
            # What an earlier undo came to says nothing about this one.
            for earlier in ("verdict", "undo-begun", "undo-done"):
                self._bodies.pop(earlier, None)
        self._bodies[kind] = body
        self._last = kind

    def ended(self) -> str:
        """Return the outcome; empty while there is none, and again while it is being undone."""
        return str(self._bodies["ended"]["outcome"]) if self._last == "ended" else ""

    def tell_resource(self) -> Outcome:
        """Return how this ended run ended, having told the resource, where a crash prevented that.

        Raises:
            UsageError: the resource knows: there is nothing to resume.
        """
        target = self._decided.plan.target.resource
        if self._number not in records.unfinished(self._world.journal, target):
            raise UsageError(
                "run.nothing",
                f"run {self._number} has ended: {self.ended()}",
                hint=f"handrail runs show {self._number}",
            )
        return self._tell(Outcome(self._number, self.ended(), str(self._bodies["ended"]["why"])))

    def proceed(self) -> Outcome:
        """Go through the stages that have no record yet."""
        if {"undo-begun", "undo-asked"} & set(self._bodies):
            return self.undo(
                self._bodies.get("verdict", {}).get("outcome", "undone"),
                "an undo that was cut off was done again",
            )
        if not {"step-started", "step-done"} & set(self._bodies):
            # It never began: whatever an earlier attempt prepared may be out of date by now.
            ended = self._begin_step()
            if ended is not None:
                return ended
        finished = self._act()
        effects, breaches = self._measure()
        return self._conclude(finished, effects, breaches)

    def _begin_step(self) -> Outcome | None:
        """Prepare the step; return the outcome of a run that ends before it.

        Raises:
            UsageError: somebody accepts what the script did, and it never began.
        """
        if self._choice == "undo":
            return self._end("undone", "its script never began: there was nothing to put back")
        if self._choice == "accept":
            raise UsageError(
                "run.nothing",
                f"run {self._number} was cut off before its script began: nothing to accept",
                hint=f"handrail resume {self._number}          to begin it now\n"
                f"      handrail resume {self._number} --undo   to leave it",
            )
        if "step-begun" in self._bodies:
            self._world.processes.end_leftovers(scripts.mark_of(self._world, self._chain))
        try:
            return self._prepare()
        except KeyboardInterrupt:
            return self._end("stopped", "stopped by Ctrl-C before anything was done")

    def _prepare(self) -> Outcome | None:
        """See that the plan still holds, use its approvals, back the target up, observe it."""
        plan = self._decided.plan
        try:
            self._check_still_valid()
            if "approved" not in self._bodies:
                used = approving.use(self._world, plan, self._chain)
                self.note("approved", approvals=used)
            self._back_up()
            self._observe("before")
        except JournalError:
            raise
        except HandrailError as error:
            return self._end("refused", f"nothing was done: {error.message}")
        return None

    def _check_still_valid(self) -> None:
        """Refuse when what was planned with has changed, or a guard says otherwise by now."""
        plan = self._decided.plan
        deciding.insist(deciding.still(self._world, self._decided))
        planned, found = plan.facts.identity, self._store.identify()
        if planned is None or replace(found, version="") != replace(planned, version=""):
            raise RefusedError("store.identity", f"{found} answers, the plan is for {planned}")
        self._talk.end("facts", f"same server, {found.endpoint}")

    def _back_up(self) -> None:
        if self._decided.plan.target.durability == "lossy":
            return
        self.note("backup-begun")
        self._talk.begin("backup", self._decided.resource.ref)
        backup = backups.make(
            self._world, self._decided.declared, self._decided.resource, self._store, self._talk
        )
        self.note("backup-done", backup=backup)
        self._talk.end("backup", f"{size(backup.size_bytes)}, to go back to")

    def _observe(self, name: str) -> None:
        """Observe the store into a folder of this run; one that is there is made anew."""
        into = self._folder / name
        _empty(into)
        self._store.observe(into)
        self.note(f"observed-{name}", others=self._store.others())

    def _act(self) -> Finished | None:
        """Run the script, or find out what became of it; None when nobody knows."""
        if "step-done" in self._bodies:
            return records.decode(self._bodies["step-done"]["finished"], Finished)
        if "step-started" in self._bodies:
            self._find_out()
            return None
        step, plan = self._decided.plan.steps[0], self._decided.plan
        command = scripts.command(
            self._world,
            self._decided.operation,
            plan,
            step,
            self._store.connection(),
            token=self._chain,
            folder=self._folder,
        )
        self.note("step-begun", step=step.id, output=command.output)
        self._talk.begin("run", step.argv[0])
        try:
            finished = self._world.processes.run(
                command,
                lambda process: self.note("step-started", process=process),
                self._talk.output,
            )
        except KeyboardInterrupt:
            finished = Finished(-2, "interrupted", 0.0, 0)
        except ScriptError as error:
            self._talk.output(f"{error.message}\n".encode())
            finished = Finished(127, "not-started", 0.0, 0)
        self.note("step-done", step=step.id, finished=finished)
        self._talk.end(
            "run",
            f"{step.argv[0]}, {duration(finished.duration_s)}, "
            + (f"exit {finished.exit_code}" if finished.ended == "exited" else finished.ended),
            ok=finished.exit_code == 0,
        )
        return finished

    def _find_out(self) -> None:
        """The process that ran the script is gone: end what it left, and let somebody say."""
        ended = self._world.processes.end_leftovers(scripts.mark_of(self._world, self._chain))
        effects = self._effects()
        self.note("outcome-unknown", leftovers=ended, effects=effects)
        if self._choice:
            self.note("told", choice=self._choice, person=self._world.person)
        else:
            done = (
                "it has changed nothing so far"
                if not effects
                else ("so far: " + "; ".join(f"{e.verb} {e.kind} {e.name}" for e in effects[:3]))
            )
            raise WaitingError(
                "run.unknown-outcome",
                f"run {self._number} was cut off while its script ran; {done}",
                hint=f"handrail resume {self._number} --undo     to put everything back\n"
                f"      handrail resume {self._number} --accept   if what is there is right",
            )

    def _measure(self) -> tuple[tuple[Effect, ...], tuple[Breach, ...]]:
        plan = self._decided.plan
        if "measured" not in self._bodies:
            effects = self._effects()
            nothing_known = tuple(Breach(e, None) for e in effects if e.verb == "unknown")
            breaches = budgets.breaches(plan.budget, effects) if plan.budget else nothing_known
            try:
                self._observe("after")
            except StoreError:
                # An undo later has nothing to compare with, and will ask for --lose-newer.
                shutil.rmtree(self._folder / "after", ignore_errors=True)
            self.note("measured", effects=effects, breaches=breaches)
        body = self._bodies["measured"]
        return (
            records.decode(body["effects"], tuple[Effect, ...]),
            records.decode(body["breaches"], tuple[Breach, ...]),
        )

    def _effects(self) -> tuple[Effect, ...]:
        """Return what the step did; that nobody can say is the worst that it can have done."""
        try:
            return self._store.effects(self._folder / "before")
        except StoreError as error:
            resource = self._decided.plan.target.resource
            return (Effect(resource, "unknown", "store", resource, detail=error.message),)

    def _conclude(
        self, finished: Finished | None, effects: tuple[Effect, ...], breaches: tuple[Breach, ...]
    ) -> Outcome:
        """Confirm, or undo and say why."""
        if self._choice == "undo":
            why = f"asked for by {self._world.person or 'somebody'} when it was resumed"
            return self.undo("undone", why, effects)
        if breaches and self._choice != "accept":
            self._hold_if_others(breaches)
            why = "; ".join(budgets.sentence(breach) for breach in breaches[:3])
            return self.undo(
                "over-budget", f"it did more than in rehearsal: {why}", effects, breaches
            )
        if finished is not None and finished.ended == "interrupted":
            return self._interrupted(effects)
        if finished is not None and (finished.ended != "exited" or finished.exit_code != 0):
            said = f"exit {finished.exit_code}" if finished.ended == "exited" else finished.ended
            if not effects:
                return self._end(
                    "failed", f"the script ended with {said}, and changed nothing", effects
                )
            return self.undo("undone", f"the script ended with {said}", effects)
        return self._watch(effects)

    def _hold_if_others(self, breaches: tuple[Breach, ...]) -> None:
        """Leave it to a human where the rows too many may be somebody else's.

        A store counts everybody's rows. Undoing by restore would take theirs away, so rows alone
        are not undone while others were connected, nor where the store also counts what was rolled
        back; what only the script can have done (a table
        dropped, a column altered) is.

        Raises:
            OverBudgetError: held, with the two ways on.
        """
        kinds = ("observed-before", "observed-after")
        others = [who for kind in kinds for who in self._bodies.get(kind, {}).get("others", ())]
        rows_alone = all(b.effect.verb in {"insert", "update", "delete"} for b in breaches)
        perhaps_fewer = all(b.effect.is_ceiling for b in breaches)
        if not rows_alone or not (others or perhaps_fewer):
            return
        said = "; ".join(budgets.sentence(breach) for breach in breaches[:3])
        doubt = f"or {others[0]} did" if others else "or took some of it back"
        self.note("held", others=others)
        raise OverBudgetError(
            "run.over-budget",
            f"run {self._number} did more than in rehearsal, {doubt}: {said}",
            hint=f"handrail resume {self._number} --undo     to put everything back, theirs too\n"
            f"      handrail resume {self._number} --accept   if nothing is wrong",
        )

    def _interrupted(self, effects: tuple[Effect, ...]) -> Outcome:
        if not effects:
            return self._end("stopped", "stopped before it had changed anything", effects)
        choice = self._talk.choose(
            f"stopped by Ctrl-C; the script has changed {len(effects)} things",
            {"undo": "put everything back now", "stop": "leave it as it is"},
            "stop",
        )
        if choice == "undo":
            return self.undo("interrupted", "stopped by Ctrl-C", effects)
        return self._end(
            "stopped",
            f"stopped by Ctrl-C, and left as it is: handrail undo {self._number}",
            effects,
        )

    def _watch(self, effects: tuple[Effect, ...]) -> Outcome:
        decided = self._decided
        watch = decided.operation.watch
        if "watched" not in self._bodies:
            found = watching.probes(
                self._world,
                decided.operation,
                decided.resource,
                decided.declared.estate,
                self._store,
                decided.plan.facts.identity,
            )
            self.note("watch-begun", checks=[probe.name for probe in found], soak_s=watch.soak_s)
            self._talk.begin("watch", f"{len(found)} checks for {watch.soak_s} s")
            try:
                seen = watching.watch(
                    self._world, found, watch.soak_s, watch.every_s, self._talk, self._note_health
                )
            except KeyboardInterrupt:
                return self._interrupted(effects)
            self.note("watched", ill=seen.ill, rounds=seen.rounds)
            self._talk.end(
                "watch",
                f"{len(found)} checks healthy for {watch.soak_s} s"
                if not seen.ill
                else "ill: " + ", ".join(seen.ill[:3]),
                ok=not seen.ill,
            )
        ill = self._bodies["watched"]["ill"]
        if ill:
            return self.undo("undone", "the watch saw it ill: " + ", ".join(ill[:3]), effects)
        return self._end("confirmed", "inside its budget, and healthy", effects)

    def _note_health(self, name: str, healthy: bool, seen: str) -> None:  # noqa: FBT001  the watch's own order
        self.note("health", check=name, healthy=healthy, seen=seen)

    def refuse_undo(self, *, lose_newer: bool) -> None:
        """Raise when this ended run cannot, or need not, be undone."""
        if "step-begun" not in self._bodies:
            raise UsageError("run.nothing", f"run {self._number} did nothing")
        if not self.ended():
            raise UsageError(
                "run.unfinished",
                f"run {self._number} has not ended",
                hint=f"handrail resume {self._number} --undo",
            )
        if self._bodies.get("undo-done", {}).get("worked"):
            raise UsageError("run.nothing", f"run {self._number} was undone already")
        self._refuse_impossible_undo()
        self.refuse_other_target()
        with backups.taken_out(self._world, self._folder / "after"):
            changed = undoing.newer(self._store, self._folder / "after")
        if changed and not lose_newer:
            some = "; ".join(f"{e.verb} {e.kind} {e.name}" for e in changed[:3])
            raise RefusedError(
                "store.moved",
                f"since run {self._number} ended, others changed: {some}",
                hint=f"handrail undo {self._number} --lose-newer   goes back all the same; what is "
                "there now is kept beside it",
            )

    def _refuse_impossible_undo(self) -> None:
        plan, operation = self._decided.plan, self._decided.operation
        if plan.steps[0].undo == "irreversible":
            raise RefusedError(
                "run.irreversible",
                f"run {self._number} cannot be undone: {operation.undo.reason}",
                hint=f"the backup made before it: handrail runs show {self._number}",
            )
        backup = self._backup()
        if plan.steps[0].undo == "restore" and (backup is None or not Path(backup.path).exists()):
            raise RefusedError(
                "backup.damaged",
                f"the backup that run {self._number} made is not there any more",
                hint=f"it is kept for {duration(self._decided.declared.policy.undo_age_s)}; "
                "look for another copy of it",
            )

    def refuse_other_target(self) -> None:
        """Raise when another store answers in the target's place.

        What does not answer, or lost its identity, may be so because of this very run.
        """
        planned = self._decided.plan.facts.identity
        try:
            found = self._store.identify()
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
                f"{found} answers, and run {self._number} was on {planned}",
                hint="point the store's url, or --on, at the store that it ran on",
            )

    def _backup(self) -> Backup | None:
        found = self._bodies.get("backup-done")
        return records.decode(found["backup"], Backup) if found else None

    def undo(
        self,
        outcome: str,
        why: str,
        effects: tuple[Effect, ...] | None = None,
        breaches: tuple[Breach, ...] = (),
    ) -> Outcome:
        """Undo what the step did, and end the run."""
        self.note("verdict", outcome=outcome, why=why)
        undone = undoing.undo(
            self._world,
            self._decided.plan,
            self._decided.operation,
            self._store,
            self._backup(),
            self._folder,
            self._talk,
            self.note,
        )
        if not undone.worked:
            return self._end(
                "failed", f"{why}; and the undo failed: {undone.residue[0]}", effects, breaches
            )
        return replace(
            self._end(outcome, f"{why}; undone", effects, breaches), residue=undone.residue
        )

    def _end(
        self,
        outcome: str,
        why: str,
        effects: tuple[Effect, ...] | None = None,
        breaches: tuple[Breach, ...] = (),
    ) -> Outcome:
        self.note("ended", outcome=outcome, why=why)
        return self._tell(Outcome(self._number, outcome, why, effects, breaches))

    def _tell(self, ended: Outcome) -> Outcome:
        """Clean up after this ended run, and let the resource know that it is free."""
        for token in (self._chain, f"undo-{self._number}"):
            scripts.clear(self._world, token)
        after = self._folder / "after"
        for folder in (self._folder / "before", self._folder / "opened"):
            shutil.rmtree(folder, ignore_errors=True)  # they may hold what the target does
        if self._bodies.get("undo-done", {}).get("worked"):
            shutil.rmtree(after, ignore_errors=True)
            after.with_suffix(".age").unlink(missing_ok=True)
        else:
            backups.put_away(self._world, self._decided.declared, self._decided.resource, after)
        self._world.journal.close(self._chain)
        # The last word: until it is said, `resume` finds this run and says it.
        resource = f"resource-{self._decided.plan.target.resource}"
        said = {"run": self._number, "outcome": ended.outcome}
        self._world.journal.append(resource, "run-ended", said)
        return ended


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
