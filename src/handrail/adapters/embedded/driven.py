"""One walk that this engine drives: as far as the journal has it, and what is not in there yet."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

from handrail.core import walk_journal
from handrail.core.walk_journal import Recorded
from handrail.errors import RefusedError
from handrail.plans.moving import Acting
from handrail.plans.walk import Mark
from handrail.ports import Clock, Journal, Locks


@dataclass(eq=False, slots=True)
class Driven(Recorded):
    """A walk in the hands of this engine's thread.

    Attributes:
        offset_s: what makes a time that nobody sets of the clock's elapsed seconds.
        facts: marks of what happened, not written yet.
        acting: what its threads do now, by step.
        held: its lock, while steps act.
        is_over: whether those steps are asked to end.
        wakes_s: elapsed seconds of its next timer; none yet where negative.
    """

    offset_s: float = 0.0
    facts: list[Mark] = field(default_factory=list)
    acting: dict[str, Acting] = field(default_factory=dict)
    held: ExitStack | None = None
    is_over: bool = False
    is_gone: bool = False
    wakes_s: float = -1.0

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
    """Return the walk of a run, as the journal has it, with its own time; see `walk_journal`."""
    found = walk_journal.load(journal, run, Driven)
    rebase(found, clock)
    return found


def rebase(walk: Driven, clock: Clock) -> None:
    """Let the walk's own time begin now, or with its last mark where the clock was set back."""
    latest = walk.course.latest
    told = datetime.fromisoformat(latest).timestamp() if latest else 0.0
    walk.offset_s = max(clock.now().timestamp(), told) - clock.elapsed_s()
