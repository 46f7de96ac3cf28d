"""Taking: one due time of a schedule is planned, judged and run to its end.

Rules:
- Begun at most once: by the lock of its operation, by its records, and by a key that counts once.
  What was taken when a process died is looked for in the journal, and begun only where no run of it
  was opened.
- Planned and judged like any other, asked for by `schedule`: nobody's name, so anybody may approve.
- What its target's present user keeps it from is tried again as long as it may be late.
- An operation of a kit is run by an engine: its run is found by what it was asked for as.
"""

from __future__ import annotations

from dataclasses import replace

from handrail.core import (
    deciding,
    kit_beginning,
    noticing,
    notifying,
    records,
    rehearsing,
    running,
    standing,
)
from handrail.core.deciding import Decided
from handrail.core.kit_beginning import Engines
from handrail.core.outcome import Outcome
from handrail.core.schedule_records import (
    OPEN,
    Past,
    chain_of,
    lock_of,
    missed,
    past,
    skipped_body,
    target_of,
)
from handrail.core.world import Declared, Talk, World
from handrail.errors import (
    HandrailError,
    JournalError,
    OverBudgetError,
    RefusedError,
    WaitingError,
)
from handrail.operations.model import Operation, Schedule
from handrail.plans.canonical import time_text
from handrail.plans.notice import Notice
from handrail.plans.schedule import Due, Skipped, said
from handrail.ports import Engine, Entry

_ATTEMPTS = 3
_RUNS = 300


def no_engine(world: World) -> Engine:
    """Refuse: here nothing runs operations of kits."""
    raise RefusedError(
        "operations.unknown", f"nothing here runs operations of kits for {world.person}"
    )


def carry_out(
    world: World, declared: Declared, due: Due, talk: Talk, engines: Engines = no_engine
) -> Outcome | None:
    """Plan, judge and run one due time to its end; None where it did not come to a run.

    Whatever becomes of it is recorded. Called again, also after a crash, it goes on from there;
    while another process is at it, it does nothing.

    Args:
        world: the ports.
        declared: the team's declarations.
        due: what is to begin.
        talk: told what happens.
        engines: gives what runs operations of kits.

    Raises:
        JournalError: it cannot be written.
    """
    operation = declared.operations.get(due.operation)
    if operation is None:
        return None
    try:
        with world.locks.hold(lock_of(due.operation), f"schedule of {due.operation}"):
            return _Turn(world, declared, operation, due, talk, engines).take()
    except RefusedError as error:
        if error.code != "run.locked":
            raise
        return None


class _Turn:
    """One due time in the hands of whoever holds its operation's lock."""

    def __init__(
        self,
        world: World,
        declared: Declared,
        operation: Operation,
        due: Due,
        talk: Talk,
        engines: Engines,
    ) -> None:
        self._engines = engines
        self._world = replace(world, person=noticing.SCHEDULE)
        self._declared = declared
        self._operation = operation
        self._schedule = due.schedule
        self._due = due
        self._talk = talk
        self._time = time_text(due.time)
        self._number = 0

    def take(self) -> Outcome | None:
        """Begin it, where nobody has; see what became of it, where somebody had."""
        known = past(self._world, self._operation.name)
        standing = known.of(self._schedule, self._time)
        kind = standing[0] if standing is not None else ""
        if kind and kind not in OPEN:
            return None
        if kind in {"due", "begun"} and self._recover(known):
            return None
        late_s = round((self._world.clock.now() - self._due.begins_at).total_seconds())
        is_late = late_s > self._schedule.late_s and self._schedule.missed == "skip"
        if is_late and kind in {"due", "postponed"}:
            self._skip("it could not be begun until it was too late")
            return None
        attempts = known.attempts(self._schedule, self._time)
        if kind == "due" and attempts >= _ATTEMPTS:
            self._skip(f"the process that was to begin it died, {attempts} times")
            return None
        if kind in {"", "due"}:
            self._note("due", late_s=late_s, attempt=attempts + 1)
        key = f"schedule {self._operation.name} {self._schedule.key} {self._time}"
        if not self._world.journal.single_use(key) and not kind:
            self._skip("it was begun before, when the clock said otherwise")
            return None
        return self._begin()

    def _recover(self, known: Past) -> bool:
        """Find the run that a process which died had begun; return whether there is one."""
        number = known.number(self._schedule, self._time) or self._found()
        if not number:
            return False
        if not known.number(self._schedule, self._time):
            self._note("begun", run=number)
        if self._operation.act:
            outcome = kit_beginning.ended(self._world, number)
            if outcome is not None:
                self._note("ended", run=number, outcome=outcome.outcome, why=outcome.why)
            return True
        last = self._world.journal.last(records.run_chain(number))
        if last is not None and last.kind == "ended":
            body = records.body(last)
            self._note("ended", run=number, outcome=body["outcome"], why=body["why"])
        return True

    def _found(self) -> int:
        """Return the run of this due time that the journal has; 0 for none."""
        if self._operation.act:
            return kit_beginning.found(self._world, self._request)
        return _run_of(self._world, self._declared, self._operation, self._schedule, self._label)

    @property
    def _request(self) -> str:
        """What an engine knows this due time by."""
        name, key = self._operation.name, self._schedule.key
        return kit_beginning.request_id("schedule", name, key, self._time)

    @property
    def _label(self) -> str:
        """What the run of this due time is found by."""
        return f"due {self._time} by {self._schedule.key}"

    def _begin(self) -> Outcome | None:
        try:
            decided = self._decide()
            # Beyond what an approval stands for: it stands no more.
            standing.settle(self._world, decided.plan, runs=True)
            if decided.plan.verdict == "allow":
                return self._run(decided)
            self._not_allowed(decided)
        except JournalError:
            raise
        except (WaitingError, OverBudgetError) as error:
            # Its run hangs open, and says itself what it waits for.
            if not self._number:
                self._refuse(error)
        except HandrailError as error:
            if error.code == "run.locked":
                self._postpone(error.message)
            else:
                self._refuse(error)
        return None

    def _decide(self) -> Decided:
        decided = deciding.decide(
            self._world,
            self._declared,
            self._operation.name,
            on=self._schedule.on or None,
            parameters=dict(self._schedule.parameters),
            because=self._label,
        )
        unrehearsed = any(
            d.guard == "rehearsed" and d.verdict != "allow" for d in decided.plan.decisions
        )
        if self._schedule.rehearse and unrehearsed:
            return rehearsing.rehearse(self._world, decided, self._talk)
        return decided

    def _run(self, decided: Decided) -> Outcome | None:
        if decided.operation.act:
            outcome = kit_beginning.run(
                self._world, decided.plan, self._engines, self._request, self._begun
            )
        else:
            outcome = running.begin(self._world, decided, self._talk, opened=self._begun)
        if outcome is None:
            return None  # it waits for a human, and says so itself
        self._note("ended", run=outcome.run, outcome=outcome.outcome, why=outcome.why)
        return outcome

    def _begun(self, number: int) -> None:
        self._number = number
        self._note("begun", run=number)

    def _not_allowed(self, decided: Decided) -> None:
        plan = decided.plan
        refusing = [d for d in plan.decisions if d.binding and d.verdict == "refuse"]
        if refusing and all(d.guard == "lock" for d in refusing) and plan.facts.holder:
            self._postpone(f"{plan.target.resource} is held by {plan.facts.holder}")
            return
        try:
            deciding.insist(plan)
        except WaitingError as error:
            self._wait(plan.digest, error)
        except RefusedError as error:
            self._refuse(error)

    def _wait(self, digest: str, error: HandrailError) -> None:
        body = {
            "schedule": self._schedule.key,
            "time": self._time,
            "plan": digest,
            "approvals": len(records.approvals(self._world.journal, digest)),
            "why": error.message,
        }
        notice = self._notice("waiting", "waits", error)
        entry = Entry(chain_of(self._operation.name), "waiting", body)
        notifying.queue(self._world, self._declared, [notice], [entry])

    def _notice(self, kind: str, what: str, error: HandrailError) -> Notice:
        return noticing.make(
            self._declared,
            ("schedule", self._operation.name, self._schedule.key, self._time),
            kind,
            title=f"{self._operation.name}, due at {said(self._due.time)}, {what}",
            text=error.message,
            time=time_text(self._world.clock.now()),
            operation=self._operation.name,
            resource=target_of(self._operation, self._schedule),
            person=self._world.person,
            next=error.hint.partition("\n")[0],
        )

    def _refuse(self, error: HandrailError) -> None:
        why = error.message
        if self._number:
            self._note("ended", run=self._number, outcome="failed", why=why)
            return
        notice = self._notice("refused", "is refused", error)
        body = {"schedule": self._schedule.key, "time": self._time, "why": why, "hint": error.hint}
        entry = Entry(chain_of(self._operation.name), "refused", body)
        notifying.queue(self._world, self._declared, [notice], [entry])

    def _postpone(self, why: str) -> None:
        # Once a reason: a target that is in use for hours must not fill the record.
        last = past(self._world, self._operation.name).of(self._schedule, self._time)
        if last is None or (last[0], last[1].get("why")) != ("postponed", why):
            self._note("postponed", why=why)

    def _skip(self, why: str) -> None:
        skipped = Skipped(self._due.time, self._due.time, 1, why)
        notice = missed(self._declared, self._operation, self._schedule, skipped)
        entry = Entry(
            chain_of(self._operation.name), "skipped", skipped_body(self._schedule, skipped)
        )
        notifying.queue(self._world, self._declared, [notice], [entry])

    def _note(self, kind: str, **body: object) -> None:
        what = {"schedule": self._schedule.key, "time": self._time, **body}
        self._world.journal.append(chain_of(self._operation.name), kind, what)


def _run_of(
    world: World, declared: Declared, operation: Operation, schedule: Schedule, label: str
) -> int:
    """Return the run that was asked for as `label`; 0 where there is none."""
    from handrail.core import declaring, together  # noqa: PLC0415  only after a crash

    resource = declaring.find_target(declared.estate, operation, schedule.on or None)
    chain = f"resource-{together.refs(resource)[0]}"
    last = world.journal.last(chain)
    beyond = max(0, last.sequence - _RUNS) if last else 0
    # One that died right after its first record is not known to its target yet.
    chains = set(world.journal.open_chains("run-"))
    for record in world.journal.records(chain, beyond):
        chains.add(records.run_chain(int(records.body(record)["run"])))
    for run in chains:
        opened = next(world.journal.records(run), None)
        body = records.body(opened) if opened is not None else {}
        if body.get("plan", {}).get("request", {}).get("because") == label:
            return int(run.partition("-")[2])
    return 0
