"""A worker: it does what the server hands out for one journal, until it is told to end.

Rules:
- It also looks at the journal by itself: an open run that the server does not have is started, and
  the workflow of a run to which there is a word is told to look.
- Told to end, it lets steps end that act, and stays until what became of them is written.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.workflow import NondeterminismError

from handrail.adapters.temporal.book import Book
from handrail.adapters.temporal.hands import Hands
from handrail.adapters.temporal.link import Where, acts_queue, connect, home, queue, start
from handrail.adapters.temporal.workflow import WalkWorkflow
from handrail.errors import HandrailError, JournalError, render
from handrail.plans.walk_records import SIGNALS, read_signal, run_of, walk_chain
from handrail.ports import Act, Clock, Journal, Locks

_PREFIX = walk_chain(0)[:-1]
# How often it looks for words, for runs that nobody started, and at all of them.
_WORDS_S, _FRESH_S, _ALL_S = 0.3, 5.0, 300.0
_STARTS_AT_ONCE = 16
_JOURNAL_THREADS = 8
_RECORDED_S = 10.0
_SOON_S = 0.05
# A workflow whose worker is gone is played again by another one after this.
_STICKY = timedelta(seconds=2)
DEFAULT_GRACE_S = 60.0


class TemporalWorker:
    """Workflows and steps of one journal, in threads of this process."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        locks: Locks,
        acts: Mapping[str, Act],
        where: Where,
        *,
        say: Callable[[str], None],
        secrets: Collection[str] = (),
        most_at_once: int = 64,
        grace_s: float = DEFAULT_GRACE_S,
    ) -> None:
        """Begin with no thread.

        Args:
            journal: whose runs go on here.
            clock: for reading them.
            locks: held while a step acts; the same on every machine that has a worker.
            acts: by name: what steps are done by.
            where: the server.
            say: told what people ought to know, from any thread.
            secrets: nothing that holds one of them is told to the server.
            most_at_once: steps that act at once here.
            grace_s: how long they may go on once it is told to end.
        """
        self._journal, self._clock, self._locks, self._acts = journal, clock, locks, acts
        self._where, self._say, self._secrets = where, say, secrets
        self._most, self._grace_s = most_at_once, grace_s
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_up = threading.Event()
        self._is_ending = threading.Event()
        self.error: BaseException | None = None

    def start(self) -> None:
        """Return once it works.

        Raises:
            HandrailError: the server or the journal does not answer.
        """
        self._thread = threading.Thread(target=self._run, name="handrail-worker", daemon=True)
        self._thread.start()
        self._is_up.wait()
        if self.error is not None:
            raise self.error

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return whether it has ended, once it has or time is up."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Begin no step, let those that act end, and return once all is recorded; in the grace."""
        self.end()
        self.wait()

    def end(self) -> None:
        """Let it end, without waiting for that; from a signal's handler, too."""
        self._is_ending.set()
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(stop.set)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  said to whoever started it
            self.error = error
            if self._is_up.is_set():
                self._say(f"the worker has stopped: {_told(error)}")
        self._is_up.set()

    async def _serve(self) -> None:
        """Work until told to end."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        client = await connect(self._where)
        name = await asyncio.to_thread(home, self._journal, self._where)
        book = Book(self._journal, self._say)
        journal_pool = ThreadPoolExecutor(_JOURNAL_THREADS, "handrail-journal")
        act_pool = ThreadPoolExecutor(self._most, "handrail-step")
        try:
            async with self._walks(client, name, book, journal_pool):
                async with self._steps(client, name, book, act_pool):
                    await self._look_after(client, name)
                await self._recorded(book)
        finally:
            journal_pool.shutdown(wait=False)
            act_pool.shutdown(wait=False)

    def _walks(self, client: Client, name: str, book: Book, pool: ThreadPoolExecutor) -> Worker:
        """Return what decides, reads and writes."""
        return Worker(
            client,
            task_queue=queue(name),
            workflows=[WalkWorkflow],
            activities=book.activities(),
            activity_executor=pool,
            max_concurrent_activities=_JOURNAL_THREADS,
            # Not in a sandbox: the one workflow is our own, and pure. A sandbox imports modules of
            # the standard library a second time, and other threads of this process then meet half
            # of them (`ssl` that makes no context, `grp` without its functions).
            workflow_runner=UnsandboxedWorkflowRunner(),
            sticky_queue_schedule_to_start_timeout=_STICKY,
            # What was decided by another Handrail is not played again: it begins anew.
            workflow_failure_exception_types=[NondeterminismError],
            graceful_shutdown_timeout=timedelta(seconds=_RECORDED_S),
        )

    def _steps(self, client: Client, name: str, book: Book, pool: ThreadPoolExecutor) -> Worker:
        """Return what acts."""

        def ended(run: int, sequence: int, step: str) -> None:
            if self._is_ending.is_set():
                book.unwritten.add((run, sequence, step))

        hands = Hands(self._journal, self._locks, self._acts, self._secrets, ended)
        beat = timedelta(seconds=self._where.heartbeat_s / 4)
        return Worker(
            client,
            task_queue=acts_queue(name),
            activities=[hands.act],
            activity_executor=pool,
            max_concurrent_activities=self._most,
            max_heartbeat_throttle_interval=beat,
            default_heartbeat_throttle_interval=beat,
            graceful_shutdown_timeout=timedelta(seconds=self._grace_s),
        )

    async def _recorded(self, book: Book) -> None:
        """Stay until what became of the last steps is in the journal; not for ever."""
        until_s = self._clock.elapsed_s() + _RECORDED_S
        while book.unwritten and self._clock.elapsed_s() < until_s:
            await asyncio.sleep(_SOON_S)
            for one in tuple(book.unwritten):
                if await asyncio.to_thread(book.has_mark, *one):
                    book.unwritten.discard(one)

    # Looking at the journal.

    async def _look_after(self, client: Client, name: str) -> None:
        """Let the server have every open run, and every word, until told to end."""
        stop = self._stop
        if stop is None:
            raise AssertionError("looked after before it began")
        after = await asyncio.to_thread(self._last_word)
        self._is_up.set()
        started: frozenset[int] = frozenset()
        ending = asyncio.create_task(stop.wait())
        all_s = fresh_s = -_ALL_S
        while not stop.is_set():
            now_s = self._clock.elapsed_s()
            try:
                if now_s - all_s >= _ALL_S:
                    started, all_s, fresh_s = (
                        await self._take_up(client, name, frozenset()),
                        now_s,
                        now_s,
                    )
                elif now_s - fresh_s >= _FRESH_S:
                    started, fresh_s = await self._take_up(client, name, started), now_s
                after = await self._pass_on(client, name, after)
            except (HandrailError, RPCError) as error:
                self._say(f"looked in vain: {_told(error)}")
                await asyncio.wait([ending], timeout=_FRESH_S)
        ending.cancel()

    def _last_word(self) -> int:
        last = self._journal.last(SIGNALS)
        return last.sequence if last else 0

    async def _take_up(self, client: Client, name: str, known: frozenset[int]) -> frozenset[int]:
        """Start the open runs that the server does not have; return all that it has now."""
        chains = await asyncio.to_thread(self._journal.open_chains, _PREFIX)
        runs = frozenset(run_of(chain) for chain in chains)
        waiting = sorted(runs - known)
        together = asyncio.Semaphore(_STARTS_AT_ONCE)

        async def take(run: int) -> None:
            async with together:
                # Who holds its lock has it in an engine of its own process.
                holder = await asyncio.to_thread(self._locks.holder, walk_chain(run))
                if holder is None:
                    await start(client, self._where, name, run)

        await asyncio.gather(*(take(run) for run in waiting))
        if not known and waiting:
            await self._tell_all(client, name, runs)
        return runs

    async def _tell_all(self, client: Client, name: str, runs: frozenset[int]) -> None:
        """Tell the runs to look to which there may be words that nobody passed on."""
        words = await asyncio.to_thread(self._words_after, 0)
        for run in {run for _, run in words} & runs:
            await start(client, self._where, name, run, look=True)

    async def _pass_on(self, client: Client, name: str, after: int) -> int:
        """Tell the workflows of runs to which there is a word; return the last word's place."""
        if not await asyncio.to_thread(self._journal.wait, SIGNALS, after, _WORDS_S):
            return after
        words = await asyncio.to_thread(self._words_after, after)
        for run in {run for _, run in words}:
            await start(client, self._where, name, run, look=True)
        return max((sequence for sequence, _ in words), default=after)

    def _words_after(self, after: int) -> list[tuple[int, int]]:
        """Return the place and the run of each word beyond a place."""
        found = []
        for record in self._journal.records(SIGNALS, after):
            try:
                run, _ = read_signal(record.body)
            except JournalError as error:
                self._say(f"record {record.sequence} of {SIGNALS}: {error.message}")
                continue
            found.append((record.sequence, run))
        return found


def _told(error: BaseException) -> str:
    return render(error) if isinstance(error, HandrailError) else repr(error)
