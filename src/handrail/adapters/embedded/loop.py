"""The engine's one thread: it hears what came, thinks, writes all at once, and lets steps act.

Rules:
- Nothing is done before its mark is durable; a mark that could not be written is thought of anew,
  what happened is kept until it is written.
- The next step begins in the transaction that says how the last one ended: a step costs one commit.
- Everything that other threads want is put into the inbox; they touch nothing themselves.
- A walk of which something goes wrong is let go, and said; the others go on.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from handrail.adapters.embedded.driven import Driven, load
from handrail.adapters.embedded.pool import Pool
from handrail.adapters.embedded.timers import Timers
from handrail.adapters.embedded.writing import Batch, write
from handrail.core.acting import act_on
from handrail.errors import HandrailError, JournalError, render
from handrail.plans.hearing import heard
from handrail.plans.moving import Acting, Note, Undo, Wake, before, call, has_begun, moves
from handrail.plans.standing import Course
from handrail.plans.walk import Mark, Signal
from handrail.plans.walk_records import SIGNALS, read_signal
from handrail.plans.walking import step
from handrail.ports import Act, Clock, Ids, Journal, Locks

# How often it looks for words of other processes, and at a calendar that may have been set.
_LOOK_S = 0.2
_RETRY_S = 1.0
# How many walks are taken up between two looks at what came meanwhile.
_SLICE = 64
# A walk of so many marks is read again when it wakes; a larger one stays in memory.
_CHEAP_MARKS = 64
# After so many attempts, an engine that is to end leaves the rest to whoever takes it up.
_LAST_ATTEMPTS = 10
# The journal cannot be reached, or is full: another attempt may help.
_PASSING = frozenset({"journal.unwritable", "journal.unknown"})
# What a walk's own time is made with, before it is loaded.
_NO_TIME_YET = -math.inf


@dataclass(frozen=True)
class Ports:
    """What an engine works with."""

    journal: Journal
    clock: Clock
    ids: Ids
    locks: Locks
    acts: Mapping[str, Act]
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class News:
    """What a follower is told: marks that were written, and where the walk stands then.

    Attributes:
        course: None where this engine let go of the walk.
        is_quiet: whether nothing of it acts, and nothing is about to.
    """

    marks: tuple[Mark, ...]
    course: Course | None
    is_quiet: bool


class Loop:
    """The thread, and what it alone touches."""

    def __init__(self, ports: Ports, most_at_once: int) -> None:
        """Begin with no walk, and no thread."""
        self._ports = ports
        self._pool = Pool(most_at_once)
        self._name = ports.ids.new()[:8]
        self.inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._walks: dict[int, Driven] = {}
        # Walks that wait, by number: only what makes their own time of the clock.
        self._asleep: dict[int, float] = {}
        self._backlog: deque[int] = deque()
        self._touched: dict[int, Driven] = {}
        self._starved: set[int] = set()
        self._timers = Timers(ports.clock)
        self._cursor: int | None = None
        self._looked_s = -math.inf
        self._is_deaf = False
        self._acting = 0
        # What is about to act, in this round.
        self._planned = 0
        self._followers: dict[int, list[Callable[[News], None]]] = {}
        self._failed_attempts = 0
        self._retry_s = 0.0
        self.is_closing = False
        self.broken: BaseException | None = None

    # From any thread.

    def ask(self, what: Callable[[], None]) -> bool:
        """Let the thread do `what`, started where it does not run; False when it was closed."""
        with self._starting:
            if self.broken is not None:
                raise JournalError("internal", f"the engine has stopped: {self.broken!r}")
            if self.is_closing:
                return False
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="handrail-engine", daemon=True
                )
                self._thread.start()
        self.inbox.put(what)
        return True

    def is_running(self) -> bool:
        """Whether the thread is there to do what it was asked for."""
        return self._thread is not None and self._thread.is_alive()

    def is_busy(self) -> bool:
        """Whether a run is being taken up, or a step acts; else all that there is waits."""
        return bool(self._backlog or self._touched or self._acting or not self.inbox.empty())

    def close(self) -> None:
        """Let running steps end, begin none, and return once all is recorded."""
        with self._starting:
            self.is_closing = True
            thread = self._thread
        if thread is not None:
            self.inbox.put(lambda: None)
            thread.join()

    # In the thread.

    def _run(self) -> None:
        try:
            while not self._is_over():
                self._hear()
                self._round()
        except BaseException as error:  # noqa: BLE001  said to everybody who waits
            self.broken = error
            self._ports.say(f"the engine has stopped: {error!r}")
        for walk in tuple(self._walks.values()):
            walk.release()
        for run in tuple(self._followers):
            self._tell(run, News((), None, is_quiet=True))

    def _is_over(self) -> bool:
        if not self.is_closing or self._acting:
            return False
        if not any(walk.facts for walk in self._walks.values()):
            return self.inbox.empty()
        return self._failed_attempts >= _LAST_ATTEMPTS

    def _hear(self) -> None:
        """Do what was asked for; wait for it where there is nothing else."""
        timeout_s = self._timeout_s()
        try:
            # Zero would not be the same: a thread that put something in may be about to.
            what = self.inbox.get(timeout=timeout_s) if timeout_s > 0 else self.inbox.get_nowait()
            what()
            while True:
                self.inbox.get_nowait()()
        except queue.Empty:
            pass
        self._hear_words()
        for run in self._timers.due():
            self._wake(run)

    def _timeout_s(self) -> float:
        if self._failed_attempts:
            return _RETRY_S
        if self._backlog or self._touched:
            return 0.0
        return min(_LOOK_S, self._timers.left_s())

    def _hear_words(self, *, is_urgent: bool = False) -> None:
        """Hear the words of every process to the walks that are here."""
        now_s = time.monotonic()  # as the inbox waits: in real time
        if (
            self._cursor is None
            or not (self._walks or self._asleep)
            or (not is_urgent and now_s - self._looked_s < _LOOK_S)
        ):
            return
        self._looked_s = now_s
        try:
            records = tuple(self._ports.journal.records(SIGNALS, self._cursor))
        except JournalError as error:
            if not self._is_deaf:
                self._ports.say(f"no word is heard: {render(error)}")
            self._is_deaf = True
            return
        self._is_deaf = False
        for record in records:
            self._cursor = record.sequence
            try:
                run, signal = read_signal(record.body)
            except JournalError as error:
                self._ports.say(f"record {record.sequence} of {SIGNALS}: {error.message}")
                continue
            if run in self._walks or run in self._asleep:
                self._hear_word(run, signal)

    def _hear_word(self, run: int, signal: Signal) -> None:
        walk = self._wake(run)
        if walk is None:
            return
        told = {str(fact.body.get("id")) for fact in walk.facts if fact.kind == "signal"}
        if signal.id in walk.course.heard or signal.id in told:
            return
        course = walk.course
        for fact in walk.facts:
            course = step(course, fact)
        walk.facts.append(heard(course, signal))

    def hear_now(self) -> None:
        """Look for words without waiting for the next look."""
        self._hear_words(is_urgent=True)

    def look(self) -> None:
        """Look at every timer: a clock may have been set."""
        self._looked_s = -math.inf
        for run in self._timers.due():
            self._wake(run)

    # Taking up and letting go.

    def take(self, walk: Driven) -> None:
        """Drive a walk that was just submitted or loaded."""
        if walk.run not in self._walks:
            self._asleep.pop(walk.run, None)
            self._walks[walk.run] = walk
        self._touched[walk.run] = self._walks[walk.run]
        self._cursor = walk.heard if self._cursor is None else min(self._cursor, walk.heard)

    def take_all(self, runs: Iterable[int], heard_from: int) -> None:
        """Take up what nobody drives, bit by bit, in that order."""
        known = self._walks.keys() | self._asleep.keys()
        fresh = [run for run in runs if run not in known]
        self._asleep.update(dict.fromkeys(fresh, _NO_TIME_YET))
        self._backlog.extend(fresh)
        if fresh:
            self._cursor = heard_from if self._cursor is None else min(self._cursor, heard_from)
            self._looked_s = -math.inf  # a word to it may be older than the last look

    def has(self, run: int) -> bool:
        """Whether this engine drives the run."""
        return run in self._walks or run in self._asleep

    def _wake(self, run: int) -> Driven | None:
        """Return a walk of this engine that has to be looked at, loaded where it waited."""
        walk = self._walks.get(run)
        if walk is None and run in self._asleep:
            walk = self._load(run)
        if walk is not None:
            self._touched[run] = walk
        return walk

    def _load(self, run: int) -> Driven | None:
        """Load a walk, and see that no other process acts on it."""
        offset_s = self._asleep.pop(run)
        try:
            walk = load(self._ports.journal, self._ports.clock, run)
        except HandrailError as error:
            self._not_loaded(run, offset_s, error)
            return None
        if offset_s != _NO_TIME_YET:
            walk.offset_s = offset_s  # its time goes on, whatever was set meanwhile
        if has_begun(walk.course):
            if not walk.hold(self._ports.locks):
                self._tell(run, News((), None, is_quiet=True))
                return None
            walk.facts.append(Mark("taken", body={"by": self._name}))
        self._walks[run] = walk
        return walk

    def _not_loaded(self, run: int, offset_s: float, error: HandrailError) -> None:
        if error.code in _PASSING:
            self._failed_attempts += 1
            self._asleep[run] = offset_s
            self._backlog.append(run)
            return
        self._ports.say(f"run {run} is left alone: {render(error)}")
        self._tell(run, News((), None, is_quiet=True))

    def _let_go(self, walk: Driven, why: str) -> None:
        """Leave a walk to whoever has it; what its steps here return is dropped."""
        walk.is_gone = walk.is_over = True
        if why:
            self._ports.say(f"run {walk.run} is let go: {why}")
        self._forget(walk)
        self._tell(walk.run, News((), None, is_quiet=True))

    def _forget(self, walk: Driven) -> None:
        walk.release()
        self._walks.pop(walk.run, None)
        self._asleep.pop(walk.run, None)
        self._touched.pop(walk.run, None)
        self._starved.discard(walk.run)

    # One round.

    def _round(self) -> None:
        """Think about every walk that was touched, write all of it, and let steps act."""
        for _ in range(min(_SLICE, len(self._backlog))):
            run = self._backlog.popleft()
            if run in self._asleep and self._wake(run):
                self._failed_attempts = 0
        walks, self._touched = tuple(self._touched.values()), {}
        self._planned = 0
        batches = [self._think(walk) for walk in walks]
        to_write = [batch for batch in batches if batch.marks]
        refused: Mapping[int, JournalError] = {}
        if to_write:
            try:
                refused = write(self._ports.journal, to_write)
            except JournalError as error:
                self._put_off(walks, error)
                return
            self._failed_attempts = 0
        for batch in batches:
            why = refused.get(batch.walk.run)
            if why is None:
                self._begin(batch)
            else:
                self._refused(batch, why)
        for walk in walks:
            if not walk.is_gone:
                self._settle(walk)

    def _put_off(self, walks: Iterable[Driven], error: JournalError) -> None:
        """Nothing can be written: nothing begins, and it is tried again."""
        if not self._failed_attempts or self._failed_attempts % 60 == 0:
            self._ports.say(f"nothing begins: {render(error)}")
        self._failed_attempts += 1
        for walk in walks:
            self._touched[walk.run] = walk
            if not walk.acting and not walk.facts:
                walk.release()

    def _think(self, walk: Driven) -> Batch:
        """Return what is to be written of a walk, and what acts then."""
        batch = Batch(walk, walk.course)
        for fact in walk.facts:
            batch.course = step(batch.course, fact)
            batch.marks.append(fact)
        batch.facts = len(batch.marks)
        if self.is_closing:
            return batch
        while self._think_on(batch):
            pass
        if batch.doing and not walk.hold(self._ports.locks):
            # Another process acts on it, and will hear what there is to hear.
            self._let_go(walk, "another process goes on with it")
            return Batch(walk, walk.course)
        return batch

    def _think_on(self, batch: Batch) -> bool:
        """Add the next moves; return whether there may be more."""
        walk = batch.walk
        clock = self._ports.clock
        for move in moves(batch.course, clock.now(), walk.steady(clock)):
            if isinstance(move, Note):
                batch.course = step(batch.course, move.mark)
                batch.marks.append(move.mark)
                return True
            if isinstance(move, Wake):
                self._timers.set(walk.run, move, walk.offset_s)
            if not isinstance(move, Acting):
                continue
            if move.step in walk.acting:
                if isinstance(move, Undo) and not isinstance(walk.acting[move.step], Undo):
                    break  # it is still being checked: undoing has an order
                continue
            if self._acting + self._planned >= self._pool.most:
                self._starved.add(walk.run)
                break
            self._add(batch, move)
        return False

    def _add(self, batch: Batch, move: Acting) -> None:
        if any(one.step == move.step for one in batch.doing):
            return
        mark = before(move)
        if mark is not None:
            mark = replace(mark, body={**mark.body, "by": self._name})
            batch.course = step(batch.course, mark)
            batch.marks.append(mark)
        batch.doing.append(move)
        self._planned += 1

    def _begin(self, batch: Batch) -> None:
        """Let the steps act whose beginning is written, and tell who follows."""
        self._act_all(batch.walk, batch.doing)
        if batch.marks and batch.walk.run in self._followers:
            self._tell(batch.walk.run, News(tuple(batch.marks), batch.course, is_quiet=False))

    def _act_all(self, walk: Driven, doing: Iterable[Acting]) -> None:
        for move in doing:
            walk.acting[move.step] = move
            self._acting += 1
            self._pool.start(partial(self._act, walk, move, walk.course))

    def _act(self, walk: Driven, move: Acting, course: Course) -> None:
        """Act, in a thread of the pool, and tell the engine's thread what became of it."""

        def is_over() -> bool:
            return walk.is_over or self.is_closing

        mark = act_on(self._ports.acts, walk.run, move, call(course, move), is_over)
        self.inbox.put(partial(self._acted, walk, move, mark))

    def _acted(self, walk: Driven, move: Acting, mark: Mark) -> None:
        self._acting -= 1
        walk.acting.pop(move.step, None)
        if walk.is_gone:
            self._ports.say(
                f"run {walk.run}: {move.step} is {mark.kind}, which is not recorded here: another"
                " engine goes on with the run"
            )
        else:
            walk.facts.append(mark)
            self._touched[walk.run] = walk
        for _ in range(min(len(self._starved), self._pool.most - self._acting)):
            self._wake(self._starved.pop())

    def _refused(self, batch: Batch, error: JournalError) -> None:
        """One walk's marks were refused, and no other's."""
        walk = batch.walk
        if error.code == "internal" and any(_is_told(fact) for fact in walk.facts):
            # It may hold a secret: that a step acted is kept, what it told is not.
            walk.facts = [_untold(fact) for fact in walk.facts]
            self._touched[walk.run] = walk
        else:
            lost = [f"{fact.step} is {fact.kind}" for fact in walk.facts if _is_told(fact)]
            told = f"; not recorded: {', '.join(lost)}" if lost else ""
            self._let_go(walk, error.message + told)

    def _settle(self, walk: Driven) -> None:
        """See what a walk needs until something happens: a timer, nothing, or its end."""
        if walk.course.outcome and not walk.facts and not walk.acting:
            self._finish(walk)
            return
        walk.is_over = walk.course.cause == "cancelled"
        if not walk.acting and not walk.facts and walk.run not in self._touched:
            walk.release()
            self._rest(walk)

    def _rest(self, walk: Driven) -> None:
        """Keep only its number, and when to look again."""
        if walk.run in self._starved or self.is_closing:
            return
        self._tell(walk.run, News((), walk.course, is_quiet=True))
        if walk.course.marks <= _CHEAP_MARKS:
            self._asleep[walk.run] = walk.offset_s
            del self._walks[walk.run]

    def _finish(self, walk: Driven) -> None:
        """Anchor the end of a walk, and forget it."""
        try:
            self._ports.journal.close(walk.chain)
        except JournalError as error:
            # It has ended all the same; whoever recovers next sees that, and closes it.
            self._ports.say(f"the end of run {walk.run} is not anchored yet: {error.message}")
        self._forget(walk)
        self._tell(walk.run, News((), walk.course, is_quiet=True))

    # Followers.

    def subscribe(self, run: int, told: Callable[[News], None]) -> None:
        """Tell `told` what is written of a run, in this thread, and where it stands now."""
        self._followers.setdefault(run, []).append(told)
        walk = self._walks.get(run)
        if walk is None and run in self._asleep:
            walk = self._wake(run)
        elif walk is not None:
            self._touched[run] = walk
        if walk is None:
            told(News((), None, is_quiet=True))

    def unsubscribe(self, run: int, told: Callable[[News], None]) -> None:
        """Tell `told` no more."""
        left = [one for one in self._followers.get(run, ()) if one is not told]
        if left:
            self._followers[run] = left
        else:
            self._followers.pop(run, None)

    def _tell(self, run: int, news: News) -> None:
        for told in self._followers.get(run, ()):
            told(news)


_UNTOLD = "what was told of it may not be kept in the journal"
_KEPT = frozenset({"outcome", "again_at"})


def _is_told(fact: Mark) -> bool:
    """Whether a fact holds words of an act."""
    return fact.kind not in {"signal", "taken"} and fact.body.get("why") != _UNTOLD


def _untold(fact: Mark) -> Mark:
    if not _is_told(fact):
        return fact
    kept = {name: value for name, value in fact.body.items() if name in _KEPT}
    return replace(fact, body={**kept, "why": _UNTOLD})
