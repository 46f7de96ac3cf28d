"""`ports.Engine` in this process: what other threads call; the work is done in `loop.py`."""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from handrail.adapters.embedded.driven import Driven, load
from handrail.adapters.embedded.loop import Loop, News, Ports
from handrail.core import walk_journal
from handrail.plans.moving import has_begun, show
from handrail.plans.standing import Course, Standing
from handrail.plans.walk import Mark, Signal, Walk
from handrail.plans.walk_records import (
    read_mark,
    run_of,
    walk_chain,
)
from handrail.ports import Act, Clock, Ids, Journal, Locks

LARGEST_WORD_BYTES = 64 * 1024
_TAIL_S = 1.0
# How many runs are looked at before the first of them is taken up.
_SLICE = 500
# A run whose last record is one of these waits: those that do not are taken up first.
_WAITING = frozenset({"opened", "held", "soaking", "later", "asked", "signal"})


class EmbeddedEngine:
    """An engine of this process over a journal."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        ids: Ids,
        locks: Locks,
        acts: Mapping[str, Act],
        *,
        say: Callable[[str], None] | None = None,
        most_at_once: int = 64,
    ) -> None:
        """Begin with no run and no thread; `recover` takes up what there is.

        Args:
            journal: where everything stands.
            clock: when something waits.
            ids: names this engine, and words that have no id.
            locks: held on a run while its steps act.
            acts: by name: what steps are done by.
            say: told what people ought to know; stderr, where nothing is given.
            most_at_once: steps that act at once in this process, over all runs.
        """
        self._journal, self._clock, self._ids = journal, clock, ids
        ports = Ports(journal, clock, ids, locks, acts, say or _say)
        self._loop = Loop(ports, most_at_once)

    def submit(self, walk: Walk, request_id: str) -> int:
        """Record `walk` as a run; see `ports.Engine`.

        Raises:
            UsageError: the walk is not sound.
        """
        driven = walk_journal.record(self._journal, walk, request_id, Driven)
        if isinstance(driven, int):
            return driven
        driven.offset_s = self._clock.now().timestamp() - self._clock.elapsed_s()
        self._loop.ask(partial(self._loop.take, driven))
        return driven.run

    def signal(self, run: int, signal: Signal) -> bool:
        """Record a word to a run; see `ports.Engine`."""
        walk = walk_journal.add_word(self._journal, run, signal)
        if walk is None:
            return False
        if walk.course.outcome:
            self._loop.ask(partial(self._loop.take_all, [run], walk.heard))
        self._loop.ask(self._loop.hear_now)
        return True

    def cancel(self, run: int, person: str, why: str) -> None:
        """Let nothing new begin, end what runs, and hold; see `ports.Engine`."""
        signal = walk_journal.cancelling(self._journal, self._ids, run, person, why)
        if signal is not None:
            self.signal(run, signal)

    def load(self, run: int) -> Standing:
        """Return where a run stands; see `ports.Engine`."""
        return walk_journal.standing(self._journal, self._clock, run)

    def list(self, *, ended: bool = False) -> Iterator[tuple[int, Standing]]:
        """Yield the open runs, or those that have ended; see `ports.Engine`."""
        yield from walk_journal.standings(self._journal, self._clock, ended=ended)

    def recover(self) -> int:
        """Take up every open run that no living engine has; see `ports.Engine`.

        Those that were cut off come first. Counts what it has to look at: what another process
        acts on is left to that.
        """
        ends = self._journal.open_ends(walk_chain(0)[:-1])
        last = {run_of(record.chain): record for record in ends}
        runs = sorted(last)
        if not runs:
            return 0
        heard_from = self._heard_before(runs[0])
        # What was cut off is more likely among the newest; the first of them goes on at once.
        taken = 0
        for start in range(len(runs), 0, -_SLICE):
            some = runs[max(start - _SLICE, 0) : start]
            some.sort(key=self._is_waiting)
            taken += self._take(some, heard_from)
        return taken

    def _take(self, runs: Sequence[int], heard_from: int) -> int:
        """Let the loop take up what nobody here drives; return how many."""
        taken: queue.SimpleQueue[int] = queue.SimpleQueue()

        def take() -> None:
            fresh = [run for run in runs if not self._loop.has(run)]
            self._loop.take_all(fresh, heard_from)
            taken.put(len(fresh))

        self._loop.ask(take)
        while True:
            try:
                return taken.get(timeout=_TAIL_S)
            except queue.Empty:
                if not self._loop.is_running():
                    return 0

    def is_busy(self) -> bool:
        """Whether a run is being taken up, or a step acts; else all that there is waits."""
        return self._loop.is_busy()

    def look(self) -> None:
        """Look at every timer and for every word now: a clock may have been set."""
        self._loop.ask(self._loop.look)

    def follow(
        self, run: int, told: Callable[[Mark], None], timeout_s: float | None = None
    ) -> Standing:
        """Return where a run stands once it ended, waits for a human, or time is up.

        See `ports.Engine`. Ctrl-C cancels a run that has begun, and is passed on once what acted
        is recorded; a second one is passed on at once.
        """
        until_s = None if timeout_s is None else self._clock.elapsed_s() + timeout_s
        try:
            return self._follow(run, told, until_s)
        except KeyboardInterrupt:
            if self.load(run).state not in {"waiting", "held", "ended"}:
                self.cancel(run, self.load(run).walk.person, "Ctrl-C")
                self._follow(run, told, None)
            raise

    def close(self) -> None:
        """Let running steps end, begin none, and return once all is recorded."""
        self._loop.close()

    def _follow(self, run: int, told: Callable[[Mark], None], until_s: float | None) -> Standing:
        walk = load(self._journal, self._clock, run)
        if walk.course.outcome and not self._is_word_open(walk):
            return show(walk.course, self._clock.now())
        while True:
            found = self._drive(run, walk.heard, told, until_s) or self._tail(run, told, until_s)
            if found is not None:
                return found

    def _drive(
        self, run: int, heard_from: int, told: Callable[[Mark], None], until_s: float | None
    ) -> Standing | None:
        """Take a run up here and follow it; None where another process has it."""
        inbox: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._loop.ask(partial(self._loop.take_all, [run], heard_from))
        self._loop.ask(partial(self._loop.subscribe, run, inbox.put))
        try:
            while True:
                news = self._next(inbox, until_s)
                for mark in news.marks:
                    told(mark)
                if news.course is None:
                    return None
                if news.is_quiet and self._is_still(news.course):
                    return show(news.course, self._clock.now())
        except queue.Empty:
            return self.load(run)
        finally:
            if self._loop.broken is None:
                self._loop.ask(partial(self._loop.unsubscribe, run, inbox.put))

    def _next(self, inbox: queue.SimpleQueue[News], until_s: float | None) -> News:
        """Return what comes next from the loop.

        Raises:
            queue.Empty: time is up, or the engine was closed and tells nothing more.
        """
        while True:
            left_s = self._left_s(until_s)
            try:
                return inbox.get(timeout=_TAIL_S if left_s is None else min(left_s, _TAIL_S))
            except queue.Empty:
                if left_s == 0.0 or not self._loop.is_running():
                    raise

    def _tail(
        self, run: int, told: Callable[[Mark], None], until_s: float | None
    ) -> Standing | None:
        """Follow a run that another engine drives; None once it has said nothing for a while."""
        walk = load(self._journal, self._clock, run)
        while not self._is_still(walk.course):
            left_s = self._left_s(until_s)
            if left_s == 0.0:
                break
            self._journal.wait(walk.chain, walk.sequence, min(_TAIL_S, left_s or _TAIL_S))
            records = tuple(self._journal.records(walk.chain, walk.sequence))
            for record in records:
                told(walk_journal.follow(walk, record))
            if not records:
                return None  # it may be dead
        return show(walk.course, self._clock.now())

    def _left_s(self, until_s: float | None) -> float | None:
        return None if until_s is None else max(until_s - self._clock.elapsed_s(), 0.0)

    def _is_still(self, course: Course) -> bool:
        """Whether a run has ended, or only a human brings it on."""
        if course.outcome:
            return True
        standing = show(course, self._clock.now())
        is_human = bool(standing.awaits) and standing.state in {"held", "waiting"}
        return is_human and not has_begun(course)

    def _is_word_open(self, walk: Driven) -> bool:
        return next(walk_journal.unheard(self._journal, walk), None) is not None

    def _is_waiting(self, run: int) -> bool:
        last = self._journal.last(walk_chain(run))
        return last is None or last.kind in _WAITING

    def _heard_before(self, run: int) -> int:
        """Return the sequence of the last word before a run: none to a later one is older."""
        first = next(self._journal.records(walk_chain(run)), None)
        found = read_mark(first.kind, first.time, first.body).body.get("heard") if first else 0
        return found if isinstance(found, int) else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
