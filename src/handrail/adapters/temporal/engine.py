"""`ports.Engine` by a Temporal server: what programs call; the work is done by workers.

Rules:
- What is recorded comes first: a run or a word that the server did not hear of is found in the
  journal by the next worker that looks.
- Reading asks the journal alone; the server need not be there.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from handrail.adapters.temporal.link import (
    Link,
    Where,
    ask_for_nothing,
    has_worker,
    home,
    start,
)
from handrail.core import walk_journal
from handrail.core.walk_journal import Recorded
from handrail.errors import EngineError
from handrail.plans.moving import show
from handrail.plans.standing import Standing
from handrail.plans.walk import Mark, Signal, Walk
from handrail.plans.walk_records import (
    check,
    run_of,
    walk_chain,
)
from handrail.ports import Clock, Ids, Journal, Locks

if TYPE_CHECKING:
    from temporalio.client import Client

LARGEST_WORD_BYTES = 64 * 1024
_TAIL_S = 1.0
# Of a run that the server had, it is not asked again for so long.
_SURE_S = 300.0
_STARTS_AT_ONCE = 16
_ACTING = frozenset({"begun", "undoing", "cut-off", "undo-cut-off"})


class TemporalEngine:
    """An engine whose runs go on wherever a worker of the same journal is."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        ids: Ids,
        locks: Locks,
        where: Where,
        *,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            journal: where everything stands; the workers' too.
            clock: for those who follow.
            ids: names words that have no id.
            locks: who holds a run's lock has it in an engine of its own process.
            where: the server.
            say: told what people ought to know; stderr, where nothing is given.
        """
        self._journal, self._clock, self._ids, self._locks = journal, clock, ids, locks
        self._where, self._say = where, say or _say
        self._link = Link(where)
        self._seen: dict[int, float] = {}

    def submit(self, walk: Walk, request_id: str) -> int:
        """Record `walk` as a run, and let it begin; see `ports.Engine`.

        Raises:
            UsageError: the walk is not sound.
            EngineError: the server does not answer; nothing was recorded.
        """
        check(walk)
        self._link.do(ask_for_nothing)
        made = walk_journal.record(self._journal, walk, request_id, Recorded)
        run = made if isinstance(made, int) else made.run
        if self._start(run, look=False):
            with suppress(EngineError):  # the run is recorded and begun: only a hint is missing
                if not self._link.do(self._has_worker):
                    self._say(f"run {run} waits: no worker is there; start one: handrail worker")
        return run

    def signal(self, run: int, signal: Signal) -> bool:
        """Record a word to a run; see `ports.Engine`."""
        if walk_journal.add_word(self._journal, run, signal) is None:
            return False
        self._start(run, look=True)
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
        """Let every open run go on that the server does not have; return how many those were.

        See `ports.Engine`. A run that another process acts on without the server is left to that.
        """
        runs = sorted(run_of(chain) for chain in self._journal.open_chains(walk_chain(0)[:-1]))
        now_s = self._clock.elapsed_s()
        self._seen = {run: at_s for run, at_s in self._seen.items() if now_s - at_s < _SURE_S}
        unsure = [run for run in runs if run not in self._seen]
        free = [run for run in unsure if self._locks.holder(walk_chain(run)) is None]
        if not free:
            return 0
        self._seen.update(dict.fromkeys(free, now_s))
        return self._link.do(partial(self._all_started, free))

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
        """Let go of the server; the runs go on where the workers are."""
        self._link.close()

    def _start(self, run: int, *, look: bool) -> bool:
        """Let the server know of a run or a word that is recorded; a worker does it otherwise."""
        try:
            self._link.do(partial(self._started, run, look=look))
        except EngineError as error:
            self._say(f"run {run} goes on once a worker has looked: {error.message}")
            return False
        return True

    async def _has_worker(self, client: Client) -> bool:
        return await has_worker(client, home(self._journal, self._where))

    async def _all_started(self, runs: Sequence[int], client: Client) -> int:
        """Start what the server does not have; return how many those were."""
        together = asyncio.Semaphore(_STARTS_AT_ONCE)

        async def started(run: int) -> bool:
            async with together:
                return await self._started(run, client)

        return sum(await asyncio.gather(*map(started, runs)))

    async def _started(self, run: int, client: Client, *, look: bool = False) -> bool:
        name = home(self._journal, self._where)
        return await start(client, self._where, name, run, look=look)

    def _follow(self, run: int, told: Callable[[Mark], None], until_s: float | None) -> Standing:
        walk = walk_journal.load(self._journal, run, Recorded)
        while not self._is_still(walk):
            left_s = None if until_s is None else max(until_s - self._clock.elapsed_s(), 0.0)
            if left_s == 0.0:
                break
            self._journal.wait(walk.chain, walk.sequence, min(_TAIL_S, left_s or _TAIL_S))
            for record in tuple(self._journal.records(walk.chain, walk.sequence)):
                told(walk_journal.follow(walk, record))
        return show(walk.course, self._clock.now())

    def _is_still(self, walk: Recorded) -> bool:
        """Whether a run has ended or waits for a human, and every word to it was heard."""
        course = walk.course
        if not course.outcome:
            standing = show(course, self._clock.now())
            if not standing.awaits or standing.state not in {"held", "waiting"}:
                return False
            numbers = (*course.lanes.values(), *course.undo_lanes.values())
            if any(course.steps.at(number).state in _ACTING for number in numbers):
                return False
        return next(walk_journal.unheard(self._journal, walk), None) is None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
