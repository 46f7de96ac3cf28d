"""One run, from its records: what has been done, and what comes next.

Rules:
- Each stage first looks whether its record is there: going on after a crash is the same code as
  running.
- `step-begun` stands before the script's first instruction, `step-done` after its last. Between
  the two nobody knows; that is said, measured, and asked, never assumed.
- The script runs behind a guard. What the guard held back needs no undo, and gets none.
- Over budget all the same, failed or ill: undone at once, and said so.
- Only the holder of the target's lock writes to its run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from handrail.core import (
    approving,
    asking,
    attending,
    backups,
    covering,
    deciding,
    guarding,
    holding,
    nodes,
    records,
    refusing,
    scripts,
    standing,
    together,
    undoing,
    watching,
)
from handrail.core.deciding import Decided
from handrail.core.outcome import Outcome
from handrail.core.run_records import RunRecords
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
from handrail.plans.effect import Effect
from handrail.plans.model import Breach, Plan
from handrail.ports import Connection, Finished, Processes, Store


@dataclass(frozen=True)
class OfWalk:
    """What a run knows of the walk that it is part of: that watches it, and asks nobody.

    Attributes:
        number: of the walk.
        attempt: of the walk's step, from 1.
        is_over: whether the walk lets go of it: its script is ended, as by Ctrl-C.
    """

    number: int
    attempt: int
    is_over: Callable[[], bool]


class Run:
    """One run: its records so far, and what comes next. The caller holds the target's lock."""

    def __init__(
        self,
        world: World,
        number: int,
        decided: Decided,
        talk: Talk,
        *,
        choice: str = "",
        of_walk: OfWalk | None = None,
    ) -> None:
        self._world = world
        self._number = number
        self._decided = decided
        self._talk = talk
        self._told = RunRecords(world, number)
        self._chain = self._told.chain
        self._folder = world.state / "runs" / str(number)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._of_walk = of_walk
        self._choice = choice or self._told.body("told").get("choice", "")
        self._store: Store = together.opened(world, decided.resource)

    @property
    def _processes(self) -> Processes:
        """What runs its script."""
        return nodes.processes(self._world, self._decided.plan, self._decided.declared.estate)

    def note(self, kind: str, **values: object) -> None:
        """Write one record of this run."""
        self._told.note(kind, **values)

    def ended(self) -> str:
        """Return the outcome; empty while there is none, and again while it is being undone."""
        return self._told.outcome

    @property
    def why(self) -> str:
        """Why it ended as it did, in one sentence."""
        return str(self._told.body("ended").get("why", ""))

    def tell_resource(self) -> Outcome:
        """Return how this ended run ended, having told the resource, where a crash prevented that.

        Raises:
            UsageError: the resource knows: there is nothing to resume.
        """
        targets = together.refs(self._decided.resource)
        if self._number not in records.unfinished(self._world.journal, *targets):
            raise UsageError(
                "run.nothing",
                f"run {self._number} has ended: {self.ended()}",
                hint=f"handrail runs show {self._number}",
            )
        return self._tell(Outcome(self._number, self.ended(), self.why))

    def proceed(self) -> Outcome | None:
        """Go through the stages that have no record yet; None where its walk is to watch it."""
        if "undo-begun" in self._told or "undo-asked" in self._told:
            return self.undo(
                self._told.body("verdict").get("outcome", "undone"),
                "an undo that was cut off was done again",
            )
        if "step-started" not in self._told and "step-done" not in self._told:
            # It never began: whatever an earlier attempt prepared may be out of date by now.
            ended = self._begin_step()
            if ended is not None:
                return ended
        finished = self._act()
        if isinstance(finished, Outcome):
            return finished
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
        if "step-begun" in self._told:
            self._processes.end_leftovers(scripts.mark_of(self._world, self._chain))
        try:
            ended = self._prepare()
        except KeyboardInterrupt:
            return self._end("stopped", "stopped by Ctrl-C before anything was done")
        if ended is None and self._of_walk is not None and self._of_walk.is_over():
            return self._end("stopped", "let go of before anything was done")
        return ended

    def _prepare(self) -> Outcome | None:
        """See that the plan still holds, use its approvals, back the target up, observe it."""
        try:
            plan = self._check_still_valid()
            if "approved" not in self._told:
                use = approving.use if self._decided.cover is None else covering.use
                used = use(self._world, plan, self._chain)
                self.note("approved", approvals=used)
            if plan.runs_on:
                nodes.check(self._processes, plan, self._store)
            self._back_up()
            self._observe("before")
        except JournalError:
            raise
        except HandrailError as error:
            return self._end("refused", f"nothing was done: {error.message}")
        return None

    def _check_still_valid(self) -> Plan:
        """Return the plan as it is judged now.

        Raises:
            RefusedError, WaitingError: what it was planned with has changed, or a guard objects.
        """
        plan = deciding.still(self._world, self._decided)
        deciding.insist(plan)
        planned, found = plan.facts.identity, self._store.identify()
        if planned is None or replace(found, version="") != replace(planned, version=""):
            raise RefusedError("store.identity", f"{found} answers, the plan is for {planned}")
        self._talk.end("facts", f"same server, {found.endpoint}")
        return plan

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

    def _act(self) -> Finished | Outcome | None:
        """Run the script, or find out what became of it; None when nobody knows.

        The outcome, where no guard could be had: then the script does not begin.
        """
        if "step-done" in self._told:
            return records.decode(self._told.body("step-done")["finished"], Finished)
        if "step-started" in self._told:
            return self._find_out()
        limits = guarding.limits_of(self._decided.plan, self._decided.declared.policy)
        resource = self._decided.plan.target.resource
        hearing = guarding.Hearing(
            lambda event: self.note("guard-event", event=event),
            self._talk,
            partial(holding.wait, self._world, self._chain, resource),
        )
        private = self._folder / "guard"
        _empty(private)
        with ExitStack() as held:
            try:
                guard = held.enter_context(
                    guarding.opened(
                        self._world, self._store, limits, self._folder / "before", private, hearing
                    )
                )
            except StoreError as error:
                return self._end("refused", f"nothing was done: {error.message}")
            finished, reports = guarding.attend(guard, self._run_script, hearing)
        hearing.check()
        step = self._decided.plan.steps[0]
        report = guarding.one_report(self._store, reports)
        self.note("step-done", step=step.id, finished=finished, report=report)
        self._talk.end(
            "run",
            f"{step.argv[0]}, {duration(finished.duration_s)}, "
            + (f"exit {finished.exit_code}" if finished.ended == "exited" else finished.ended),
            ok=finished.exit_code == 0 and report.stop is None,
        )
        return finished

    def _run_script(self, connection: Connection) -> Finished:
        """Run the step's script to the end of all that it starts; Ctrl-C is a way to end."""
        step = self._decided.plan.steps[0]
        command = scripts.command(
            self._world,
            self._decided.operation,
            self._decided.plan,
            step,
            connection,
            token=self._chain,
            folder=self._folder,
            confine=guarding.cage(self._world, self._store, connection, self._chain),
            waits=True,
        )
        if self._of_walk is not None:
            command = replace(command, is_over=self._of_walk.is_over)
        self.note("step-begun", step=step.id, output=command.output)
        self._talk.begin("run", step.argv[0])
        try:
            with attending.attending(scripts.home_of(self._world, self._chain), self._clerk()):
                return self._processes.run(
                    command,
                    lambda process: self.note("step-started", process=process),
                    self._talk.output,
                )
        except KeyboardInterrupt:
            return Finished(-2, "interrupted", 0.0, 0)
        except WaitingError as error:
            raise self._away(error) from error
        except ScriptError as error:
            self._talk.output(f"{error.message}\n".encode())
            return Finished(127, "not-started", 0.0, 0)

    def _clerk(self) -> attending.Clerk:
        """Return whoever answers what the script asks."""
        plan, policy = self._decided.plan, self._decided.declared.policy
        resource, operation = plan.target.stores[0], plan.request.operation
        reply = attending.by_people(
            self._world,
            policy,
            self._number,
            resource,
            operation,
            self._talk,
            lambda asked: self.note("asked", asked=asked),
        )
        return attending.Clerk(
            self._decided.operation.questions,
            plan.request.parameters,
            reply,
            lambda kind, name, value, person: self.note(
                "answered", question=name, outcome=kind, value=value, by=person
            ),
        )

    def _away(self, error: HandrailError) -> WaitingError:
        """Say that the node went away while the script ran there, and how to go on."""
        plan = self._decided.plan
        self.note("node-lost", node=plan.runs_on, why=error.message)
        return WaitingError(
            "run.unknown-outcome",
            f"run {self._number}: {error.message}; whatever it had open in "
            f"{plan.target.resource} was rolled back",
            hint=f"handrail resume {self._number}          once {plan.runs_on} answers\n"
            f"      handrail resume {self._number} --undo   not to wait for it",
        )

    def _collect(self) -> Finished | None:
        """Return how a script ended that its node kept; None where nobody keeps one, or knows.

        It went on without a guard, and so without its store: what it did is measured.
        """
        plan = self._decided.plan
        if not plan.runs_on or self._choice == "undo":
            return None
        mark = scripts.mark_of(self._world, self._chain)
        step, kept = plan.steps[0], self._folder / "output.log"
        self._talk.begin("run", f"{step.argv[0]}, as {plan.runs_on} kept it")
        try:
            found = self._processes.collect(mark, kept, step.timeout_s, self._talk.output)
        except KeyboardInterrupt:
            found = Finished(-2, "interrupted", 0.0, 0)
        except (ScriptError, WaitingError) as error:
            if self._choice:
                return None
            raise self._away(error) from error
        if found is not None:
            self.note("step-done", step=step.id, finished=found, report=None, collected=True)
            said = f"exit {found.exit_code}" if found.ended == "exited" else found.ended
            self._talk.end("run", f"{step.argv[0]}, {said}", ok=found.exit_code == 0)
        return found

    def _leftovers(self) -> tuple[str, ...]:
        """End what is left of the script; where its node is away, say that."""
        try:
            return self._processes.end_leftovers(scripts.mark_of(self._world, self._chain))
        except ScriptError as error:
            if not self._choice:
                raise self._away(error) from error
            return (error.message,)

    def _find_out(self) -> Finished | None:
        """The process that ran the script is gone: end what it left, and let somebody say.

        Where the script ran on a node, that knows more: how it ended, or that it still runs.
        """
        if (found := self._collect()) is not None:
            return found
        ended = self._leftovers()
        effects = self._effects()
        self.note("outcome-unknown", leftovers=ended, effects=effects)
        if self._choice:
            self.note("told", choice=self._choice, person=self._world.person)
        else:
            done = "it has changed nothing so far"
            if effects:
                # The store may count what was rolled back with the cut-off transaction.
                doubt = ", unless rolled back" if any(e.is_ceiling for e in effects) else ""
                some = "; ".join(f"{e.verb} {e.kind} {e.name}" for e in effects[:3])
                done = f"so far{doubt}: {some}"
            raise WaitingError(
                "run.unknown-outcome",
                f"run {self._number} was cut off while its script ran; {done}",
                hint=f"handrail resume {self._number} --undo     to put everything back\n"
                f"      handrail resume {self._number} --accept   if what is there is right",
            )
        return None

    def _measure(self) -> tuple[tuple[Effect, ...], tuple[Breach, ...]]:
        plan = self._decided.plan
        if "measured" not in self._told:
            report = self._told.report
            effects = guarding.done(self._effects(), report)
            nothing_known = tuple(Breach(e, None) for e in effects if e.verb == "unknown")
            breaches = budgets.breaches(plan.budget, effects) if plan.budget else nothing_known
            if guarding.is_dropped(report):
                breaches = ()  # whatever is seen, it was not the copy: nobody can tell whose it is
            try:
                self._observe("after")
            except StoreError:
                # An undo later has nothing to compare with, and will ask for --lose-newer.
                shutil.rmtree(self._folder / "after", ignore_errors=True)
            self.note("measured", effects=effects, breaches=breaches)
        body = self._told.body("measured")
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
    ) -> Outcome | None:
        """Confirm, or undo and say why; None where its walk is to watch it."""
        if self._choice == "undo":
            why = f"asked for by {self._world.person or 'somebody'} when it was resumed"
            return self.undo("undone", why, effects)
        if breaches:
            standing.end_after(self._world, self._decided.plan, self._number, "over-budget")
        if breaches and self._choice != "accept":
            if not guarding.is_exact(self._told.report):
                self._hold_if_others(breaches)
            why = "; ".join(budgets.sentence(breach) for breach in breaches[:3])
            return self.undo(
                "over-budget", f"it did more than in rehearsal: {why}", effects, breaches
            )
        report = self._told.report
        if report is not None and report.stop is not None and self._choice != "accept":
            return self._end("over-budget", f"the guard stopped it: {report.stop.what}", effects)
        if finished is not None and (finished.ended != "exited" or finished.exit_code != 0):
            return self._failed(finished, effects)
        return self._watch(effects)

    def _failed(self, finished: Finished, effects: tuple[Effect, ...]) -> Outcome:
        """Undo what a script did that did not end well."""
        if finished.ended == "interrupted":
            return self._interrupted(effects)
        said = f"exit {finished.exit_code}" if finished.ended == "exited" else finished.ended
        if not effects:
            return self._end(
                "failed", f"the script ended with {said}, and changed nothing", effects
            )
        return self.undo("undone", f"the script ended with {said}", effects)

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
        others = [who for kind in kinds for who in self._told.body(kind).get("others", ())]
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
        choice = "stop"
        if self._of_walk is None:
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

    def _watch(self, effects: tuple[Effect, ...]) -> Outcome | None:
        watch = self._decided.operation.watch
        if "watched" not in self._told:
            found = self._probes()
            if self._of_walk is None or "watch-begun" not in self._told:
                names = [probe.name for probe in found]
                self.note("watch-begun", checks=names, soak_s=watch.soak_s)
            if self._of_walk is not None:
                return None
            self._talk.begin("watch", f"{len(found)} checks for {watch.soak_s} s")
            try:
                seen = watching.watch(
                    self._world, found, watch.soak_s, watch.every_s, self._talk, self._note_health
                )
            except KeyboardInterrupt:
                return self._interrupted(effects)
            self._note_watched(seen, len(found))
        return self._end_watched(effects)

    def _probes(self) -> tuple[watching.Probe, ...]:
        decided = self._decided
        return watching.probes(
            self._world,
            decided.operation,
            decided.resource,
            decided.declared.estate,
            self._store,
            decided.plan.facts.identity,
        )

    def _note_watched(self, seen: watching.Seen, count: int) -> None:
        self.note("watched", ill=seen.ill, rounds=seen.rounds)
        self._talk.end(
            "watch",
            f"{count} checks healthy for {self._decided.operation.watch.soak_s} s"
            if not seen.ill
            else "ill: " + ", ".join(seen.ill[:3]),
            ok=not seen.ill,
        )

    def _end_watched(self, effects: tuple[Effect, ...]) -> Outcome:
        ill = self._told.body("watched")["ill"]
        if ill:
            return self.undo("undone", "the watch saw it ill: " + ", ".join(ill[:3]), effects)
        return self._end("confirmed", "inside its budget, and healthy", effects)

    @property
    def is_soaking(self) -> bool:
        """Whether all is done but its watch."""
        return "watch-begun" in self._told and self._told.last in {"watch-begun", "health"}

    def look(
        self, so_far: watching.Rounds, *, is_over: bool
    ) -> tuple[watching.Rounds, Outcome | None]:
        """Do one round of the watch; return the rounds, and the outcome once that was the last.

        Args:
            so_far: the rounds before.
            is_over: whether the time of the watch has passed.
        """
        found = self._probes()
        so_far = watching.look(found, so_far, self._note_health)
        seen = so_far.seen(is_over=is_over)
        if seen is None:
            return so_far, None
        self._note_watched(seen, len(found))
        effects = records.decode(self._told.body("measured")["effects"], tuple[Effect, ...])
        return so_far, self._end_watched(effects)

    def _note_health(self, name: str, healthy: bool, seen: str) -> None:  # noqa: FBT001  the watch's own order
        self.note("health", check=name, healthy=healthy, seen=seen)

    def refuse_undo(self, *, lose_newer: bool) -> None:
        """Raise when this ended run cannot, or need not, be undone."""
        refusing.refuse_undo(
            self._world,
            self._number,
            self._decided,
            self._told,
            self._store,
            self._folder / "after",
            lose_newer=lose_newer,
        )

    def refuse_other_target(self) -> None:
        """Raise when another store answers in the target's place."""
        refusing.refuse_other_target(self._number, self._decided, self._store)

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
            self._told.backup,
            self._folder,
            self._talk,
            self.note,
            guarding.limits_of(self._decided.plan, self._decided.declared.policy, undo=True),
            self._undoing_processes(),
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
        standing.end_after(self._world, self._decided.plan, self._number, outcome)
        self.note("ended", outcome=outcome, why=why)
        return self._tell(
            Outcome(self._number, outcome, why, effects, breaches, report=self._told.report)
        )

    def _undoing_processes(self) -> Processes:
        """Return what runs an undo script; an undo by restore needs no node."""
        is_script = self._decided.plan.steps[0].undo == "script"
        return self._processes if is_script else self._world.processes

    def _forget(self) -> None:
        """Let the node remove what it kept: all of it is recorded."""
        plan, told = self._decided.plan, self._told
        tokens = [self._chain] if "step-begun" in told else []
        tokens += [f"undo-{self._number}"] if "undo-begun" in told else []
        if plan.runs_on and tokens:
            marks = tuple(scripts.mark_of(self._world, token) for token in tokens)
            try:
                nodes.forget(self._processes, plan, marks, self._talk)
            except ScriptError:
                return  # it is not declared any more

    def _tell(self, ended: Outcome) -> Outcome:
        """Clean up after this ended run, and let the resource know that it is free."""
        for token in (self._chain, f"undo-{self._number}"):
            scripts.clear(self._world, token)
        self._forget()
        asking.clear(self._world, self._number)
        after = self._folder / "after"
        for folder in (self._folder / name for name in ("before", "opened", "guard")):
            shutil.rmtree(folder, ignore_errors=True)  # they may hold what the target does
        if self._told.is_undone:
            shutil.rmtree(after, ignore_errors=True)
            after.with_suffix(".age").unlink(missing_ok=True)
        else:
            backups.put_away(self._world, self._decided.declared, self._decided.resource, after)
        self._world.journal.close(self._chain)
        # The last word: until it is said, `resume` finds this run and says it.
        said = {"run": self._number, "outcome": ended.outcome}
        for ref in together.refs(self._decided.resource):
            if self._number in records.unfinished(self._world.journal, ref):
                self._world.journal.append(f"resource-{ref}", "run-ended", said)
        return ended


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
