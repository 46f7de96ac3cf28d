"""One walk that this engine drives: as far as the journal has it, and what is not in there yet."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

from handrail.errors import JournalError, RefusedError, UsageError
from handrail.plans.moving import Acting
from handrail.plans.standing import Course
from handrail.plans.walk import Mark
from handrail.plans.walk_records import read_mark, read_walk, walk_chain
from handrail.plans.walking import opened, step
from handrail.ports import Clock, Journal, Locks, Record


@dataclass(eq=False, slots=True)
class Driven:
    """A walk in the hands of this engine's thread.

    Attributes:
        run: its number.
        course: what the journal has of it.
        last: hash of its last record: the fence of the next one.
        sequence: of that record.
        heard: sequence of the last word to any run before this one was submitted.
        offset_s: what makes a time that nobody sets of the clock's elapsed seconds.
        facts: marks of what happened, not written yet.
        acting: what its threads do now, by step.
        held: its lock, while steps act.
        is_over: whether those steps are asked to end.
        wakes_s: elapsed seconds of its next timer; none yet where negative.
    """

    run: int
    course: Course
    last: str
    sequence: int
    heard: int = 0
    offset_s: float = 0.0
    facts: list[Mark] = field(default_factory=list)
    acting: dict[str, Acting] = field(default_factory=dict)
    held: ExitStack | None = None
    is_over: bool = False
    is_gone: bool = False
    wakes_s: float = -1.0

    @property
    def chain(self) -> str:
        """Return the chain of its marks."""
        return walk_chain(self.run)

    def steady(self, clock: Clock) -> datetime:
        """Return the time for soaks."""
        return datetime.fromtimestamp(self.offset_s + clock.elapsed_s(), UTC)

    def hold(self, locks: Locks) -> bool:
        """Hold its lock; return whether that worked: another process may act on it."""
        if self.held is None:
            stack = ExitStack()
            try:
                stack.enter_context(locks.hold(self.chain, f"run {self.run}"))
            except RefusedError:
                return False
            self.held = stack
        return True

    def release(self) -> None:
        """Let go of its lock."""
        if self.held is not None:
            self.held.close()
            self.held = None


def load(journal: Journal, clock: Clock, run: int) -> Driven:
    """Return the walk of a run, as the journal has it.

    Raises:
        UsageError: there is no such run.
        JournalError: its records make no walk.
    """
    records = journal.records(walk_chain(run))
    first = next(records, None)
    if first is None or first.kind != "opened":
        raise UsageError(
            "walk.unknown", f"there is no run {run} over several targets", hint="handrail runs"
        )
    mark = read_mark(first.kind, first.time, first.body)
    heard = mark.body.get("heard", 0)
    found = Driven(run, opened(read_walk(mark)), first.hash, first.sequence)
    found.heard = heard if isinstance(heard, int) else 0
    found.course = step(found.course, Mark("opened", "", first.time))
    for record in records:
        follow(found, record)
    rebase(found, clock)
    return found


def follow(walk: Driven, record: Record) -> Mark:
    """Count one more record of the walk, and return its mark."""
    mark = read_mark(record.kind, record.time, record.body)
    try:
        walk.course = step(walk.course, mark)
    except JournalError as error:
        where = f"record {record.sequence} of {record.chain}: {error.message}"
        raise JournalError(error.code, where, hint="handrail log verify") from error
    except (KeyError, ValueError, TypeError) as error:
        where = f"record {record.sequence} of {record.chain} makes no sense there: {error!r}"
        raise JournalError("journal.damaged", where, hint="handrail log verify") from error
    walk.last, walk.sequence = record.hash, record.sequence
    return mark


def rebase(walk: Driven, clock: Clock) -> None:
    """Let the walk's own time begin now, or with its last mark where the clock was set back."""
    latest = walk.course.latest
    told = datetime.fromisoformat(latest).timestamp() if latest else 0.0
    walk.offset_s = max(clock.now().timestamp(), told) - clock.elapsed_s()


def has_begun(course: Course) -> bool:
    """Whether a step acts as far as the journal tells: its engine may be dead."""
    under_way = (*course.lanes.values(), *course.undo_lanes.values())
    return any(course.steps.at(number).state in {"begun", "undoing"} for number in under_way)
