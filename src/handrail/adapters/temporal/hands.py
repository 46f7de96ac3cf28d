"""The activity that acts: one attempt at a step, on whichever machine has it.

Rules:
- It says at once which slot of which worker it holds, and then again and again that it lives. Who
  takes up a step waits until nobody holds that slot for it any more: a worker that comes back from
  the dead never acts beside its successor.
- Whatever an act does, it ends as a mark; what it told and may not be kept does not leave here.
- An act is asked to end when the run is cancelled, the worker ends, or the server has given it up.
"""

from __future__ import annotations

import contextvars
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from temporalio import activity
from temporalio.exceptions import ApplicationError

from handrail.adapters.temporal.crossing import Plain, call_in, mark_out, move_in, verb
from handrail.core import walk_journal
from handrail.core.acting import act_on
from handrail.core.walk_journal import Recorded
from handrail.errors import RefusedError
from handrail.plans.canonical import encode_plain
from handrail.plans.chain import leaks
from handrail.plans.moving import Acting, Call, call
from handrail.plans.walk import Mark
from handrail.ports import Act, Journal, Locks

_SLOTS = 512
_LOOK_S = 0.1
_BEATS = 4
_UNTOLD = "what was told of it may not be kept in the journal"
_KEPT = frozenset({"outcome", "again_at"})


class Hands:
    """What a worker does steps with."""

    def __init__(
        self,
        journal: Journal,
        locks: Locks,
        acts: Mapping[str, Act],
        secrets: Collection[str],
        ended: Callable[[int, int, str], None],
    ) -> None:
        """Hold nothing yet.

        Args:
            journal: where a call is read that is too large to cross.
            locks: held while a step acts; on every machine that may have it.
            acts: by name.
            secrets: nothing that holds one of them leaves here.
            ended: told the run, its sequence and the step, once a step is over.
        """
        self._journal, self._locks = journal, locks
        self._acts, self._secrets, self._ended = acts, secrets, ended

    @activity.defn(name="act", no_thread_cancel_exception=True)
    def act(self, told: Plain) -> Plain:
        """Do, check or undo one step; return the mark of what became of it."""
        move, run = move_in(told["move"]), int(told["run"])
        asked = Asked()
        beats_s = float(told["heartbeat_s"]) / _BEATS
        with self._held(run, move) as slot, _beating(slot, beats_s):
            self._wait_for(told["was"], asked)
            found = told["call"]
            given = call_in(found) if found else self._read(run, int(told["sequence"]), move)
            mark = act_on(self._acts, run, move, given, asked.is_over)
            self._ended(run, int(told["sequence"]), move.step)
            return mark_out(self._safe(mark))

    @contextmanager
    def _held(self, run: int, move: Acting) -> Iterator[Plain]:
        """Hold a slot that nobody else holds, in the name of this attempt."""
        who = f"{verb(move)} {move.step} of run {run}, {activity.info().activity_id}"
        first = random.randrange(_SLOTS)  # noqa: S311  spreads; nothing is guessed by it
        with ExitStack() as stack:
            for number in range(first, first + _SLOTS):
                name = f"acting-{number % _SLOTS}"
                try:
                    stack.enter_context(self._locks.hold(name, who))
                except RefusedError:
                    if number + 1 == first + _SLOTS:
                        raise
                else:
                    yield {"slot": name, "who": who}
                    return

    def _wait_for(self, were: Sequence[Plain], asked: Asked) -> None:
        """Return once nobody acts on the step who was not heard of any more."""
        for was in were:
            while self._locks.holder(was["slot"]) == was["who"]:
                if asked.is_over():
                    raise ApplicationError(f"{was['who']} still acts", non_retryable=True)
                time.sleep(_LOOK_S)

    def _read(self, run: int, sequence: int, move: Acting) -> Call:
        """Return what the act is told, from the journal: it was too large to cross."""
        del sequence  # what came later is of other steps
        return call(walk_journal.load(self._journal, run, Recorded).course, move)

    def _safe(self, mark: Mark) -> Mark:
        """Return the mark without what was told, where that holds a secret."""
        if not self._secrets or not leaks(encode_plain(mark.body), self._secrets):
            return mark
        kept = {name: value for name, value in mark.body.items() if name in _KEPT}
        return replace(mark, body={**kept, "why": _UNTOLD})


class Asked:
    """Whether the present activity is asked to end; from any thread."""

    def __init__(self) -> None:
        """Remember which activity this is."""
        self._context = contextvars.copy_context()

    def is_over(self) -> bool:
        """Whether to return soon."""
        # A context is entered by one thread at a time: each asks in a copy.
        context = self._context.copy()
        return context.run(activity.is_cancelled) or context.run(activity.is_worker_shutdown)


@contextmanager
def _beating(slot: Plain, every_s: float) -> Iterator[None]:
    """Say that this attempt lives, at once and then again and again."""
    context, is_over = contextvars.copy_context(), threading.Event()

    def beat() -> None:
        while True:
            context.run(activity.heartbeat, slot)
            if is_over.wait(every_s):
                return

    activity.heartbeat(slot)
    thread = threading.Thread(target=beat, name="handrail-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
