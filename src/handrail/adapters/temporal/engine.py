"""`ports.Engine` by a Temporal server: what programs call; the work is done by workers.

Rules:
- What is recorded comes first: a run or a word that the server did not hear of is found in the
  journal by the next worker that looks.
- Reading asks the journal alone; the server need not be there.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from handrail.adapters.embedded.driven import Driven, follow, load
from handrail.adapters.temporal.link import (
    Link,
    Where,
    ask_for_nothing,
    has_worker,
    home,
    start,
)
from handrail.errors import EngineError, FencedError, RefusedError
from handrail.plans.canonical import encode_plain, plain
from handrail.plans.hearing import heard, refusal
from handrail.plans.moving import show
from handrail.plans.standing import Course, Standing
from handrail.plans.walk import Mark, Signal, Walk
from handrail.plans.walk_records import (
    SIGNALS,
    check,
    mark_body,
    opened_mark,
    read_mark,
    read_signal,
    request_chain,
    run_of,
    walk_chain,
)
from handrail.plans.walking import step
from handrail.ports import Clock, Entry, Ids, Journal, Locks, Record

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
        run = self._record(walk, request_id)
        if self._start(run, look=False):
            with suppress(EngineError):  # the run is recorded and begun: only a hint is missing
                if not self._link.do(self._has_worker):
                    self._say(f"run {run} waits: no worker is there; start one: handrail worker")
        return run

    def signal(self, run: int, signal: Signal) -> bool:
        """Record a word to a run; see `ports.Engine`."""
        walk = load(self._journal, self._clock, run)
        course = self._course_with_words(walk)
        if signal.id in course.heard:
            return False
        why = refusal(course, signal)
        if not why and len(encode_plain(plain(signal))) > LARGEST_WORD_BYTES:
            why = f"it is longer than {LARGEST_WORD_BYTES:,} bytes"
        if why:
            raise RefusedError(
                "walk.word",
                f"`{signal.name}` to run {run}: {why}",
                hint=f"handrail runs show {run}",
            )
        self._journal.append(SIGNALS, "signal", {"run": run, "signal": plain(signal)})
        self._start(run, look=True)
        return True

    def cancel(self, run: int, person: str, why: str) -> None:
        """Let nothing new begin, end what runs, and hold; see `ports.Engine`."""
        walk = load(self._journal, self._clock, run)
        course = self._course_with_words(walk)
        digest = course.layout.walk.digest
        signal = Signal(self._ids.new(), "cancel", person, digest, {"why": why})
        if not refusal(course, signal):
            self.signal(run, signal)

    def load(self, run: int) -> Standing:
        """Return where a run stands; see `ports.Engine`."""
        return show(load(self._journal, self._clock, run).course, self._clock.now())

    def list(self, *, ended: bool = False) -> Iterator[tuple[int, Standing]]:
        """Yield the open runs, or those that have ended; see `ports.Engine`."""
        chains = self._journal.open_chains(walk_chain(0)[:-1])
        if ended:
            still = frozenset(chains)
            every = self._journal.chains(walk_chain(0)[:-1])
            chains = tuple(chain for chain in every if chain not in still)
        for run in sorted(run_of(chain) for chain in chains):
            yield run, self.load(run)

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

    def _record(self, walk: Walk, request_id: str) -> int:
        """Record a run; return its number, or that of the same request before."""
        chain = request_chain(request_id)
        known = self._journal.last(chain) if request_id else None
        if known is not None:
            return _run_in(known)
        last_word = self._journal.last(SIGNALS)
        mark = opened_mark(walk, last_word.sequence if last_word else 0)
        run = self._journal.open_run()
        entries = [Entry(walk_chain(run), mark.kind, mark_body(mark), "new")]
        if request_id:
            entries.append(Entry(chain, "submitted", {"run": run}, "new"))
        try:
            self._journal.write(entries)
        except FencedError:
            known = self._journal.last(chain)
            if known is None:
                raise
            return _run_in(known)
        return run

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
        walk = load(self._journal, self._clock, run)
        words = {_word_of(mark) for mark in self._signals(run)}
        while not self._is_still(walk, words):
            left_s = None if until_s is None else max(until_s - self._clock.elapsed_s(), 0.0)
            if left_s == 0.0:
                break
            self._journal.wait(walk.chain, walk.sequence, min(_TAIL_S, left_s or _TAIL_S))
            for record in tuple(self._journal.records(walk.chain, walk.sequence)):
                mark = follow(walk, record)
                words.add(_word_of(mark))
                told(mark)
        return show(walk.course, self._clock.now())

    def _signals(self, run: int) -> Iterator[Mark]:
        for record in self._journal.records(walk_chain(run)):
            if record.kind == "signal":
                yield read_mark(record.kind, record.time, record.body)

    def _is_still(self, walk: Driven, words: set[str]) -> bool:
        """Whether a run has ended or waits for a human, and every word to it was heard."""
        course = walk.course
        if not course.outcome:
            standing = show(course, self._clock.now())
            if not standing.awaits or standing.state not in {"held", "waiting"}:
                return False
            numbers = (*course.lanes.values(), *course.undo_lanes.values())
            if any(course.steps.at(number).state in _ACTING for number in numbers):
                return False
        return all(signal.id in words for signal in self._words(walk))

    def _words(self, walk: Driven) -> Iterator[Signal]:
        """Yield the words to a run since it was submitted."""
        for record in self._journal.records(SIGNALS, walk.heard):
            run, signal = read_signal(record.body)
            if run == walk.run:
                yield signal

    def _course_with_words(self, walk: Driven) -> Course:
        """Return where a run stands once the words that nobody has heard yet are heard."""
        course = walk.course
        marked = {_word_of(mark) for mark in self._signals(walk.run)}
        for signal in self._words(walk):
            if signal.id not in marked:
                course = step(course, heard(course, signal))
        return course


def _run_in(record: Record) -> int:
    return int(json.loads(record.body)["run"])


def _word_of(mark: Mark) -> str:
    """Return the id of the word that a mark is of; empty for other marks."""
    signal = mark.body.get("signal")
    return str(signal.get("id", "")) if mark.kind == "signal" and isinstance(signal, dict) else ""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
