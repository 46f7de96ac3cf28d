"""The one workflow there is: it walks any walk, by the rules that every engine has.

Rules:
- It decides alone what is marked and in which order; nothing is begun before its mark is durable.
- What it knows it has from its activities, whose results Temporal keeps: played again, it decides
  the same. It starts anew from the journal when its history has become long.
- A step whose worker is not heard of any more is marked as taken up; then it is checked, done again
  or asked about, as its own recovery says.
- Somebody else writes the chain: the workflow lets go of the walk, and ends.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, CancelledError
from temporalio.exceptions import TimeoutError as LateError

from handrail.adapters.temporal.crossing import (
    Plain,
    call_out,
    mark_in,
    mark_out,
    move_out,
    unpack,
    verb,
)
from handrail.plans.canonical import encode_plain
from handrail.plans.hearing import heard
from handrail.plans.moving import (
    Acting,
    Check,
    Do,
    Note,
    Undo,
    Wake,
    before,
    call,
    has_begun,
    moves,
)
from handrail.plans.standing import Course
from handrail.plans.walk import Mark, Signal
from handrail.plans.walk_records import read_walk
from handrail.plans.walking import opened, step

# Of one walk so many steps act at once; the server bears 2,000.
_MOST_AT_ONCE = 500
# What is begun in one go, in bytes of what the acts are told; what is larger they read themselves.
_TOLD_BYTES = 1024 * 1024
_SINGLE_BYTES = 128 * 1024
_WRITTEN_BYTES = 512 * 1024
# A history of so many events is given up when nothing acts; of so many more, nothing new begins
# until nothing acts. The server ends a workflow at 51,200.
_LONG_EVENTS, _TOO_LONG_EVENTS = 8_000, 24_000
_LONG_BYTES = 16 * 1024 * 1024
_LONGEST_ACT = timedelta(days=3650)
# A worker that stands still may have been handed such a task: another one gets it soon.
_WRITING, _READING = timedelta(seconds=10), timedelta(seconds=30)
_AGAIN = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10)
)
_ONCE = RetryPolicy(maximum_attempts=1)


@workflow.defn(name="handrail-walk")
class WalkWorkflow:
    """One walk, from where the journal has it to its end."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._told: Plain = {}
        self._course: Course | None = None
        self._last = ""
        self._sequence = 0
        self._heard = 0
        self._signals: set[str] = set()
        self._facts: list[Mark] = []
        self._acting: dict[str, Acting] = {}
        self._handles: dict[str, workflow.ActivityHandle[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._was: dict[str, list[Plain]] = {}
        self._wakes_at: datetime | None = None
        self._latest = datetime.min.replace(tzinfo=UTC)
        self._is_word_open = True
        self._is_stirred = False
        self._defect: BaseException | None = None
        self._ending: set[str] = set()
        self._base_events = self._base_bytes = 0

    @workflow.signal(name="look")
    def look(self) -> None:
        """Hear that there is a word in the journal."""
        self._is_word_open = True

    @workflow.query(name="state")
    def state(self) -> Plain:
        """Return what acts, for people who look here; the journal has the rest."""
        return {
            "sequence": self._sequence,
            "acting": {name: verb(move) for name, move in self._acting.items()},
        }

    @workflow.run
    async def run(self, told: Plain) -> str:
        """Walk; return how it ended, or why it was let go of.

        Args:
            told: `run`, `heartbeat_s` and `steps_queue`; of a walk that is gone on with also
                `heard`: sequence of the last word that was heard, and `was`: who may still act on
                a step, and was not heard of any more.
        """
        self._told = told
        self._was = dict(told.get("was", {}))
        walking = asyncio.create_task(self._walk())
        while True:
            try:
                return await asyncio.shield(walking)
            except asyncio.CancelledError:
                if walking.done():
                    raise
                self._hear_cancel()

    async def _walk(self) -> str:
        await self._load()
        while True:
            await self._hear()
            course, marks, facts, doing = self._think()
            if marks:
                why = await self._write(course, marks, facts)
                if why:
                    self._let_go()
                    return why
            self._act_all(doing)
            if self.course.cause == "cancelled":
                self._end_acts()
            if self.course.outcome and not self._has_news() and not self._acting:
                await self._do("close", {"run": self._run})
                if not self._has_news():
                    return self.course.outcome
            if self._is_long() and not (self._acting or self._has_news()):
                more = {"heard": self._heard, "was": self._was}
                workflow.continue_as_new({**self._told, **more})
            await self._rest()

    @property
    def course(self) -> Course:
        """Where the walk stands, once it was loaded."""
        if self._course is None:
            raise AssertionError("the walk is not loaded yet")
        return self._course

    @property
    def _run(self) -> int:
        return int(self._told["run"])

    def _has_news(self) -> bool:
        return bool(self._facts) or self._is_word_open

    def _now(self) -> datetime:
        """Return the server's time, which does not go back here."""
        self._latest = max(self._latest, workflow.now().astimezone(UTC))
        return self._latest

    async def _do(self, name: str, told: Plain) -> Any:
        """Let an activity read or write the journal, as often as it takes."""
        return await workflow.execute_activity(
            name, told, start_to_close_timeout=_WRITING, retry_policy=_AGAIN
        )

    # Loading.

    async def _load(self) -> None:
        """Read the walk, and how far it is; what was begun and has no end yet was cut off."""
        first = unpack(await self._whole())
        course = opened(read_walk(Mark("opened", body=first["body"])))
        course = step(course, Mark("opened", "", first["time"]))
        self._last, self._sequence = first["hash"], first["sequence"]
        self._heard = int(self._told.get("heard", first["body"].get("heard", 0)))
        while True:
            read = unpack(await self._piece("marks", {"after": self._sequence}))
            if not read["marks"]:
                break
            for one in read["marks"]:
                course = step(course, mark_in(one))
                if one["kind"] == "signal":
                    self._signals.add(str(one["body"].get("signal", {}).get("id")))
            self._last, self._sequence = read["hash"], read["sequence"]
        self._course = course
        self._latest = max(self._latest, datetime.fromisoformat(course.latest))
        if has_begun(course):
            self._facts.append(Mark("taken", body={"by": self._name()}))
        self._base_events = workflow.info().get_current_history_length()
        self._base_bytes = workflow.info().get_current_history_size()

    async def _whole(self) -> bytes:
        """Return the record that opened the walk: it may be larger than what crosses at once."""
        found = b""
        while True:
            piece = await self._piece("opened", {"offset": len(found)})
            if not piece:
                return found
            found += piece

    async def _piece(self, name: str, told: Plain) -> bytes:
        found = await workflow.execute_activity(
            name,
            {"run": self._run, **told},
            result_type=bytes,
            start_to_close_timeout=_READING,
            retry_policy=_AGAIN,
        )
        return bytes(found)

    # Hearing.

    async def _hear(self) -> None:
        """Count the words that have come, once each."""
        while self._is_word_open:
            self._is_word_open = False
            told = await self._do("words", {"run": self._run, "after": self._heard})
            self._heard = told["sequence"]
            self._is_word_open = self._is_word_open or told["more"]
            for one in told["words"]:
                self._hear_word(Signal(**one))

    def _hear_word(self, signal: Signal) -> None:
        if signal.id in self._signals:
            return
        self._signals.add(signal.id)
        course = self.course
        for fact in self._facts:
            course = step(course, fact)
        self._facts.append(heard(course, signal))

    def _hear_cancel(self) -> None:
        """Take it for a word, that somebody cancelled the workflow on the server."""
        if self._course is None:
            return
        digest = self._course.layout.walk.digest
        number = sum(name.startswith("temporal-") for name in self._signals)
        body = {"why": "it was cancelled on the Temporal server"}
        signal = Signal(f"temporal-{self._name()}-{number}", "cancel", "", digest, body)
        self._hear_word(signal)

    def _name(self) -> str:
        return f"temporal {workflow.info().run_id[:8]}"

    # Thinking.

    def _think(self) -> tuple[Course, list[Mark], int, list[Acting]]:
        """Return where the walk stands next, the marks of that, how many are facts, what acts."""
        course, marks, size_bytes = self.course, list[Mark](), 0
        for fact in self._facts:
            size_bytes += len(encode_plain(fact.body))
            if marks and size_bytes > _WRITTEN_BYTES:
                return course, marks, len(marks), []  # the others are thought of after these
            course = step(course, fact)
            marks.append(fact)
        facts, doing = len(marks), list[Acting]()
        self._wakes_at, self._is_stirred = None, False
        now = self._now()
        while True:
            found = moves(course, now, now)
            note = next((move for move in found if isinstance(move, Note)), None)
            ahead = found if note is None else found[: found.index(note)]
            course = self._begin(course, ahead, marks, doing)
            if note is None:
                return course, marks, facts, doing
            course = step(course, note.mark)
            marks.append(note.mark)

    def _begin(
        self, course: Course, found: tuple[Any, ...], marks: list[Mark], doing: list[Acting]
    ) -> Course:
        """Add the moves that act, with the marks that come before them."""
        for move in found:
            if isinstance(move, Wake):
                at = datetime.fromisoformat(move.at)
                self._wakes_at = at if self._wakes_at is None else min(self._wakes_at, at)
            if not isinstance(move, Acting):
                continue
            if move.step in self._acting:
                if isinstance(move, Undo) and not isinstance(self._acting[move.step], Undo):
                    break  # it is still being checked: undoing has an order
                continue
            if any(one.step == move.step for one in doing):
                continue
            if self._is_full(len(doing)):
                break
            mark = before(move)
            if mark is not None:
                mark = replace(mark, body={**mark.body, "by": self._name()})
                course = step(course, mark)
                marks.append(mark)
            doing.append(move)
        return course

    def _is_full(self, more: int) -> bool:
        if len(self._acting) + more >= _MOST_AT_ONCE:
            return True
        return self._events() > _TOO_LONG_EVENTS

    # Writing.

    async def _write(self, course: Course, marks: list[Mark], facts: int) -> str:
        """Write the marks, and stand there; return why the walk is let go of, or nothing."""
        told = {
            "run": self._run,
            "after": self._last,
            "sequence": self._sequence,
            "marks": [mark_out(mark) for mark in marks],
        }
        found = await self._do("write", told)
        if "why" in found:
            return str(found["why"])
        self._last, self._sequence = found["hash"], found["sequence"]
        self._course = course
        del self._facts[:facts]
        return ""

    # Acting.

    def _act_all(self, doing: list[Acting]) -> None:
        room_bytes = _TOLD_BYTES
        for move in doing:
            told = call_out(call(self.course, move))
            size_bytes = len(encode_plain(told))
            if size_bytes > min(_SINGLE_BYTES, room_bytes):
                told, size_bytes = {}, 0  # the act reads it from the journal
            room_bytes -= size_bytes
            self._acting[move.step] = move
            task = asyncio.create_task(self._act(move, told))
            self._tasks.add(task)
            task.add_done_callback(self._acted)

    def _acted(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._defect = task.exception()

    async def _act(self, move: Acting, told: Plain) -> None:
        """Let a worker act, and keep what became of it as facts."""
        given = {
            "run": self._run,
            "sequence": self._sequence,
            "move": move_out(move),
            "call": told,
            "heartbeat_s": self._told["heartbeat_s"],
            "was": self._was.get(move.step, []),
        }
        handle = workflow.start_activity(
            "act",
            given,
            task_queue=self._told["steps_queue"],
            start_to_close_timeout=_LONGEST_ACT,
            heartbeat_timeout=timedelta(seconds=self._told["heartbeat_s"]),
            retry_policy=_ONCE,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"{verb(move)} {move.step}",
        )
        self._handles[move.step] = handle
        try:
            facts = [mark_in(await handle)]
            self._was.pop(move.step, None)
        except ActivityError as error:
            facts = self._lost(move, error)
        del self._acting[move.step], self._handles[move.step]
        self._ending.discard(move.step)
        self._facts += facts

    def _lost(self, move: Acting, error: ActivityError) -> list[Mark]:
        """Return the facts of a step whose worker did not come back with it."""
        cause = error.cause
        if isinstance(cause, LateError) and cause.last_heartbeat_details:
            # Every one of them may still act: who comes next waits for all.
            was = self._was.get(move.step, [])
            self._was[move.step] = [*was, cause.last_heartbeat_details[-1]]
        if isinstance(move, Check):
            self._is_stirred = True
            return []  # it changes nothing: it is told again
        why = f"its worker is not heard of any more: {cause or error}"[:300]
        facts = [Mark("taken", move.step, body={"by": self._name(), "why": why})]
        if isinstance(cause, CancelledError) and isinstance(move, Do) and not move.goes_on:
            body = {"outcome": "never", "why": "cancelled before a worker had it"}
            facts.append(Mark("checked", move.step, body=body))
        return facts

    def _end_acts(self) -> None:
        """Ask the steps that act to end."""
        for name, move in self._acting.items():
            if isinstance(move, Do) and name in self._handles and name not in self._ending:
                self._ending.add(name)
                self._handles[name].cancel()

    def _let_go(self) -> None:
        for handle in self._handles.values():
            handle.cancel()

    # Waiting.

    def _events(self) -> int:
        return workflow.info().get_current_history_length() - self._base_events

    def _is_long(self) -> bool:
        """Whether the history is to be given up."""
        size_bytes = workflow.info().get_current_history_size() - self._base_bytes
        return self._events() > _LONG_EVENTS or size_bytes > _LONG_BYTES

    def _is_time(self) -> bool:
        """Whether there is something to think about, whatever the time is."""
        is_free = not self._acting and self._is_long()
        return self._has_news() or self._is_stirred or self._defect is not None or is_free

    async def _rest(self) -> None:
        """Wait until there is something to think about."""
        timeout = None
        if self._wakes_at is not None:
            left = self._wakes_at - self._now()
            timeout = max(left, timedelta()) + timedelta(milliseconds=1)
        with suppress(TimeoutError):
            await workflow.wait_condition(self._is_time, timeout=timeout)
        if self._defect is not None:
            raise self._defect
