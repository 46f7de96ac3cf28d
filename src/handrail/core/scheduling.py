"""Scheduling: what is due begins, once; what was missed is told.

The chain `schedule-<operation>` has `declared` (first seen), `due` (taken, about to be planned),
`waiting` (for an approval), `postponed`, `refused`, `begun`, `ended`, `skipped`, `paused` and
`resumed`.

Rules:
- A due time is begun at most once: by the lock of its operation, by its records, and by a key that
  counts once. What was taken when a process died is looked for in the journal, and begun only
  where no run of it was opened.
- It is planned and judged like any other, asked for by `schedule`: whoever waits for an approval
  waits until the next due time, and no longer.
- A schedule begins with the first look at it: what it would have done before never happens.
- A paused schedule begins nothing, and makes up for nothing afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from handrail.core import deciding, expecting, noticing, notifying, records, rehearsing, running
from handrail.core.deciding import Decided
from handrail.core.outcome import Outcome
from handrail.core.world import Declared, Talk, World
from handrail.errors import (
    FencedError,
    HandrailError,
    JournalError,
    OverBudgetError,
    RefusedError,
    UsageError,
    WaitingError,
)
from handrail.estate.shapes import nearest
from handrail.operations.model import Operation, Schedule
from handrail.plans import schedule as calendar
from handrail.plans.canonical import time_text
from handrail.plans.notice import Notice
from handrail.plans.schedule import Due, Skipped, said
from handrail.ports import Entry, Record

LOOK_S = 60
_TAIL = 300
_ATTEMPTS = 3
_OPEN = frozenset({"due", "waiting", "postponed", "begun"})
_TIMED = frozenset({"declared", "due", "skipped"})


@dataclass(frozen=True)
class Past:
    """The newest records of an operation's schedules.

    Attributes:
        told: kind, body and record, oldest first.
        fence: what the next record must follow.
    """

    told: tuple[tuple[str, dict[str, Any], Record], ...]
    fence: str

    def paused(self, now: datetime) -> dict[str, Any] | None:
        """Return who paused it, why and until when; None where it is not paused now."""
        last = self._pause()
        until = str(last.get("until", "")) if last else ""
        return None if until and datetime.fromisoformat(until) <= now else last

    def is_pause_over(self, now: datetime) -> bool:
        """Whether it was paused until a time, and that has come."""
        return self._pause() is not None and self.paused(now) is None

    def _pause(self) -> dict[str, Any] | None:
        last = next((t for t in reversed(self.told) if t[0] in {"paused", "resumed"}), None)
        return None if last is None or last[0] == "resumed" else last[1]

    def base(self, schedule: Schedule, now: datetime) -> datetime | None:
        """Return up to when its times are done with; None where it was never seen.

        Only what is not to come counts: a clock that was a year ahead for a moment must not
        silence a schedule for that year.
        """
        found = [
            datetime.fromisoformat(record.time if kind == "resumed" else body["time"])
            for kind, body, record in self.told
            if kind == "resumed" or (kind in _TIMED and body["schedule"] == schedule.key)
        ]
        is_seen = any(body.get("schedule") == schedule.key for _, body, _ in self.told)
        return max((at for at in found if at <= now), default=None) if is_seen else None

    def is_fading(self, schedule: Schedule) -> bool:
        """Whether a schedule is about to be forgotten, behind the many records of another."""
        recent = self.told[-_TAIL // 2 :]
        return len(self.told) > len(recent) and not any(
            kind in _TIMED and body["schedule"] == schedule.key for kind, body, _ in recent
        )

    def taken(self, schedule: Schedule) -> frozenset[datetime]:
        """Return the times that were begun with."""
        return frozenset(
            datetime.fromisoformat(body["time"])
            for kind, body, _ in self.told
            if kind == "due" and body["schedule"] == schedule.key
        )

    def last_of(self, schedule: Schedule) -> tuple[str, dict[str, Any]] | None:
        """Return the kind and body that its newest due time came to; None where there is none."""
        own = [t for t in self.told if t[1].get("schedule") == schedule.key and "time" in t[1]]
        begun = [t[1]["time"] for t in own if t[0] == "due"]
        return self.of(schedule, begun[-1]) if begun else None

    def of(self, schedule: Schedule, time: str) -> tuple[str, dict[str, Any]] | None:
        """Return the newest kind and body of one due time."""
        for kind, body, _ in reversed(self.told):
            if body.get("schedule") == schedule.key and body.get("time") == time:
                return kind, body
        return None

    def attempts(self, schedule: Schedule, time: str) -> int:
        """Return how often one due time was taken."""
        own = (t for t in self.told if t[0] == "due" and t[1]["schedule"] == schedule.key)
        return sum(body["time"] == time for _, body, _ in own)

    def number(self, schedule: Schedule, time: str) -> int:
        """Return the run of one due time; 0 where none was noted."""
        for kind, body, _ in self.told:
            is_it = body.get("schedule") == schedule.key and body.get("time") == time
            if kind == "begun" and is_it:
                return int(body["run"])
        return 0


def chain_of(operation: str) -> str:
    """Return the chain of an operation's schedules."""
    return f"schedule-{operation}"


def past(world: World, operation: str) -> Past:
    """Return what the journal has of an operation's schedules."""
    last = world.journal.last(chain_of(operation))
    if last is None:
        return Past((), "new")
    found = world.journal.records(chain_of(operation), max(0, last.sequence - _TAIL))
    told = tuple((record.kind, records.body(record), record) for record in found)
    return Past(told, told[-1][2].hash)


def tick(world: World, declared: Declared, begin: Callable[[Due], None]) -> datetime:
    """Look at every schedule once, and return when to look again, at the latest in a minute.

    Args:
        world: the ports.
        declared: the team's declarations.
        begin: is given what is due, and sees that `carry_out` is called with it: here and now, or
            in another thread. Given the same again while that has not come to its end; that
            does no harm.

    Raises:
        JournalError: it cannot be read or written.
    """
    now = world.clock.now()
    wakes = [now + timedelta(seconds=LOOK_S)]
    for operation in declared.operations.values():
        if operation.schedules:
            wakes += _look_at(world, declared, operation, begin)
    wakes += expecting.look(world, declared, lambda name: past(world, name).paused(now) is not None)
    return min(wakes)


def _look_at(
    world: World, declared: Declared, operation: Operation, begin: Callable[[Due], None]
) -> list[datetime]:
    for _ in range(_ATTEMPTS):
        try:
            ready, wakes = _note(world, declared, operation)
        except FencedError:
            continue  # another server looked in this moment: see what it saw
        for due in ready:
            begin(due)
        return wakes
    return []


def _note(
    world: World, declared: Declared, operation: Operation
) -> tuple[list[Due], list[datetime]]:
    """Record what is over; return what is to be begun, and when the next look is worth it."""
    now, known = world.clock.now(), past(world, operation.name)
    if known.paused(now) is not None:
        return [], []
    if known.is_pause_over(now):
        _resume(world, operation, "")
        known = past(world, operation.name)
    is_busy = world.locks.holder(_lock(operation.name)) is not None
    entries: list[tuple[str, dict[str, object]]] = []
    notices: list[Notice] = []
    ready: list[Due] = []
    wakes: list[datetime] = []
    for schedule in operation.schedules:
        if not schedule.cron:
            continue
        base = known.base(schedule, now)
        if base is None or known.is_fading(schedule):
            base = base or now
            entries.append(("declared", {"schedule": schedule.key, "time": time_text(base)}))
        found = calendar.look(operation.name, schedule, base, now, known.taken(schedule))
        wakes += [found.wakes_at] if found.wakes_at else []
        if is_busy:
            continue  # the one before is not at its end: nothing is said of this one yet
        standing = _open(known, schedule)
        if found.skipped is not None:
            entries.append(("skipped", _skipped_body(schedule, found.skipped)))
            if found.due is None:
                notices.append(_missed(declared, operation, schedule, found.skipped))
        if found.due is not None:
            entries += _superseded(schedule, standing, found.due)
            ready.append(found.due)
        elif standing is not None:
            ready += _again(world, operation, schedule, standing, now)
    _write(world, declared, operation.name, entries, notices, known.fence)
    return ready, wakes


def _write(
    world: World,
    declared: Declared,
    operation: str,
    said_of_it: list[tuple[str, dict[str, object]]],
    notices: list[Notice],
    fence: str,
) -> None:
    entries = []
    for kind, body in said_of_it:
        entries.append(Entry(chain_of(operation), kind, body, after=fence))
        fence = ""
    notifying.queue(world, declared, notices, entries)


def _open(known: Past, schedule: Schedule) -> tuple[str, dict[str, Any]] | None:
    last = known.last_of(schedule)
    return last if last is not None and last[0] in _OPEN else None


def _superseded(
    schedule: Schedule, standing: tuple[str, dict[str, Any]] | None, due: Due
) -> list[tuple[str, dict[str, object]]]:
    """Return the end of a due time that still waits when the next one comes."""
    if standing is None or standing[0] == "begun":
        return []
    time = str(standing[1]["time"])
    why = f"it still waited at the next time, {said(due.time)}"
    return [("skipped", {"schedule": schedule.key, "time": time, "count": 1, "why": why})]


def _again(
    world: World,
    operation: Operation,
    schedule: Schedule,
    standing: tuple[str, dict[str, Any]],
    now: datetime,
) -> list[Due]:
    """Return an earlier due time that is to be looked at again: nobody is at it any more."""
    kind, body = standing
    due = calendar.one(operation.name, schedule, datetime.fromisoformat(body["time"]))
    if kind == "waiting":
        approved = len(records.approvals(world.journal, str(body["plan"])))
        return [due] if approved != body.get("approvals", 0) else []
    if kind == "postponed" and now < datetime.fromisoformat(body["again_at"]):
        return []
    return [due]


def carry_out(world: World, declared: Declared, due: Due, talk: Talk) -> Outcome | None:
    """Plan, judge and run one due time to its end; None where it did not come to a run.

    Whatever becomes of it is recorded. Called again, also after a crash, it goes on from there;
    while another process is at it, it does nothing.

    Raises:
        JournalError: it cannot be written.
    """
    operation = declared.operations.get(due.operation)
    if operation is None:
        return None
    try:
        with world.locks.hold(_lock(due.operation), f"schedule of {due.operation}"):
            return _Turn(world, declared, operation, due, talk).take()
    except RefusedError as error:
        if error.code != "run.locked":
            raise
        return None


class _Turn:
    """One due time in the hands of whoever holds its operation's lock."""

    def __init__(
        self, world: World, declared: Declared, operation: Operation, due: Due, talk: Talk
    ) -> None:
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
        if kind and kind not in _OPEN:
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
        number = known.number(self._schedule, self._time) or _run_of(
            self._world, self._declared, self._operation, self._schedule, self._label
        )
        if not number:
            return False
        if not known.number(self._schedule, self._time):
            self._note("begun", run=number)
        last = self._world.journal.last(records.run_chain(number))
        if last is not None and last.kind == "ended":
            body = records.body(last)
            self._note("ended", run=number, outcome=body["outcome"], why=body["why"])
        return True

    @property
    def _label(self) -> str:
        """What the run of this due time is found by."""
        return f"due {self._time} by {self._schedule.key}"

    def _begin(self) -> Outcome | None:
        try:
            decided = self._decide()
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

    def _run(self, decided: Decided) -> Outcome:
        outcome = running.begin(self._world, decided, self._talk, opened=self._begun)
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
            resource=_target(self._operation, self._schedule),
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
        again_at = self._world.clock.now() + timedelta(seconds=LOOK_S)
        self._note("postponed", why=why, again_at=time_text(again_at))

    def _skip(self, why: str) -> None:
        skipped = Skipped(self._due.time, self._due.time, 1, why)
        notice = _missed(self._declared, self._operation, self._schedule, skipped)
        entry = Entry(
            chain_of(self._operation.name), "skipped", _skipped_body(self._schedule, skipped)
        )
        notifying.queue(self._world, self._declared, [notice], [entry])

    def _note(self, kind: str, **body: object) -> None:
        what = {"schedule": self._schedule.key, "time": self._time, **body}
        self._world.journal.append(chain_of(self._operation.name), kind, what)


def _lock(operation: str) -> str:
    return f"schedule/{operation}"


def _skipped_body(schedule: Schedule, skipped: Skipped) -> dict[str, object]:
    return {
        "schedule": schedule.key,
        "first": time_text(skipped.first),
        "time": time_text(skipped.last),
        "count": skipped.count,
        "why": skipped.why,
    }


def _missed(
    declared: Declared, operation: Operation, schedule: Schedule, skipped: Skipped
) -> Notice:
    times = said(skipped.last)
    if skipped.count > 1:
        times = f"{said(skipped.first)} to {times}, {skipped.count:,} times"
    return noticing.make(
        declared,
        ("schedule", operation.name, schedule.key, time_text(skipped.last)),
        "skipped",
        title=f"{operation.name} did not begin at {said(skipped.last)}",
        text=f"{times}: {skipped.why}",
        time=time_text(skipped.last),
        operation=operation.name,
        resource=_target(operation, schedule),
        next=f"handrail run {operation.name}",
    )


def _target(operation: Operation, schedule: Schedule) -> str:
    on = operation.on
    return schedule.on or (f"{on.kind}/{on.name}" if on.name else "")


def _run_of(
    world: World, declared: Declared, operation: Operation, schedule: Schedule, label: str
) -> int:
    """Return the run that was asked for as `label`; 0 where there is none."""
    from handrail.core import declaring, together  # noqa: PLC0415  only after a crash

    resource = declaring.find_target(declared.estate, operation, schedule.on or None)
    chain = f"resource-{together.refs(resource)[0]}"
    last = world.journal.last(chain)
    beyond = max(0, last.sequence - _TAIL) if last else 0
    for record in reversed(tuple(world.journal.records(chain, beyond))):
        number = int(records.body(record)["run"])
        opened = next(world.journal.records(records.run_chain(number)), None)
        body = records.body(opened) if opened is not None else {}
        if body.get("plan", {}).get("request", {}).get("because") == label:
            return number
    return 0


def pause(
    world: World, declared: Declared, name: str, because: str, *, for_s: int = 0
) -> datetime | None:
    """Let an operation's schedules begin nothing, and return until when; None for until resumed.

    Raises:
        UsageError: there is no such schedule.
    """
    _scheduled(declared, name)
    now = world.clock.now()
    until = now + timedelta(seconds=for_s) if for_s else None
    body = {
        "person": world.person,
        "because": because,
        "until": time_text(until) if until else "",
    }
    world.journal.append(chain_of(name), "paused", body)
    return until


def resume(world: World, declared: Declared, name: str) -> None:
    """Let an operation's schedules begin again. What passed meanwhile is not made up for.

    Raises:
        UsageError: there is no such schedule, or it is not paused.
    """
    operation = _scheduled(declared, name)
    if past(world, name).paused(world.clock.now()) is None:
        raise UsageError("schedule.unknown", f"`{name}` is not paused", hint="handrail schedules")
    _resume(world, operation, world.person)


def _resume(world: World, operation: Operation, person: str) -> None:
    world.journal.append(chain_of(operation.name), "resumed", {"person": person})
    expecting.begin_anew(world, operation)


def _scheduled(declared: Declared, name: str) -> Operation:
    known = {o.name: o for o in declared.operations.values() if o.schedules}
    if name in known:
        return known[name]
    raise UsageError(
        "schedule.unknown",
        f"no operation `{name}` has a schedule",
        hint=nearest(name, tuple(known)) or "declare it: `schedule:` in operations/*.yaml",
    )
