"""Runs: begun, listed, shown, stopped, resumed, undone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from handrail import wiring
from handrail.api.route import Answer, Asked, Route
from handrail.api.routes.errands import EVENTS, ask_of, begin, state_of
from handrail.api.routes.plans import judged
from handrail.api.shapes import (
    After,
    Choice,
    ErrandState,
    Judged,
    Marks,
    Page,
    RecordLine,
    RecordLines,
    RunLine,
    RunLines,
    Stopping,
    Undoing,
    Wanted,
)
from handrail.api.streaming import PING, event_line
from handrail.api.targets import on_request, on_run, sees
from handrail.core import recalling, records, walks
from handrail.core.surveying import summary
from handrail.errors import UsageError
from handrail.plans.canonical import encode, time_text
from handrail.plans.walk import Signal
from handrail.plans.walk_records import walk_chain
from handrail.ports import Record

_LOOK_S = 0.5
_PING_LOOKS = 30


def run(asked: Asked) -> Answer:
    """Begin a run."""
    wanted: Wanted = asked.body
    ask = ask_of(
        asked,
        "run",
        operation=wanted.operation,
        on=wanted.on,
        parameters=wanted.parameters,
        because=wanted.because,
        without=wanted.without,
    )
    return begin(asked, ask, on_request(asked))


def listed(asked: Asked) -> Answer:
    """Answer a page of the runs and walks that the person may see."""
    page, journal = asked.query, asked.world.journal
    of_walks = frozenset(records.walks(journal))
    hidden = set() if page.children else walks.children(asked.world, of_walks)
    numbers = sorted({*records.runs(journal), *of_walks} - hidden, reverse=True)
    found: list[RunLine] = []
    more = None
    for number in numbers:
        if number >= page.before:
            continue
        line, is_seen = _line(asked, number, is_walk=number in of_walks)
        if not is_seen:
            continue
        if len(found) == page.limit:
            more = found[-1].run
            break
        found.append(line)
    # Whoever sees some alone is not told how many there are.
    is_all = not asked.declared.policy.roles
    total = len(numbers) if is_all else len(found) + (more is not None)
    return Answer(RunLines(tuple(found), total, more))


def _line(asked: Asked, number: int, *, is_walk: bool) -> tuple[RunLine, bool]:
    """Return a run or walk in one line, and whether the person may see it."""
    if not is_walk:
        line = RunLine(**summary(asked.world, number))
        return line, sees(asked, line.target)
    told = walks.summary(asked.world, number)
    line = RunLine(**{name: told[name] for name in RunLine.__struct_fields__})
    return line, all(sees(asked, ref) for ref in walks.targets(asked.world, number))


def show(asked: Asked) -> Answer:
    """Answer a run or walk in one line."""
    is_walk = records.is_walk(asked.world.journal, asked.number)
    return Answer(_line(asked, asked.number, is_walk=is_walk)[0])


def marks(asked: Asked) -> Answer:
    """Answer what the journal has of a walk.

    Raises:
        UsageError: the number is not of one.
    """
    found = tuple(asked.world.journal.records(walk_chain(asked.number)))
    if not found:
        raise UsageError("api.not-found", f"run {asked.number} is of one target")
    return Answer(Marks(found))


def plan(asked: Asked) -> Answer:
    """Answer the plan of a run, as it was when the run was opened."""
    journal, number = asked.world.journal, asked.number
    if records.is_walk(journal, number):
        digest = walks.standing(asked.world, number).walk.digest
        return Answer(judged(records.find_plan(journal, digest), records.fan_out(journal, digest)))
    return Answer(judged(recalling.recorded_plan(asked.world, number)))


def told(asked: Asked) -> Answer:
    """Answer a page of a run's records."""
    page = asked.query
    every = asked.world.journal.records(records.run_chain(asked.number))
    lines = [
        RecordLine(one.sequence, one.time, one.kind, records.body(one))
        for one in every
        if page.after < one.sequence <= page.after + page.limit + 1
    ]
    more = lines[page.limit - 1].sequence if len(lines) > page.limit else None
    return Answer(RecordLines(tuple(lines[: page.limit]), more))


def events(asked: Asked) -> Answer:
    """Answer a run's records as they are written, whoever runs it, to its end."""
    return Answer(stream=_follow(asked, asked.number), content_type=EVENTS)


async def _follow(asked: Asked, number: int) -> AsyncIterator[bytes]:
    chain, server = records.run_chain(number), asked.server
    last, looks = 0, 0
    while True:
        found = await asyncio.to_thread(_new, asked, chain, last)
        for one in found:
            last = one.sequence
            body = {"time": one.time, "kind": one.kind, "body": records.body(one)}
            yield event_line("record", encode(body), last)
        is_ended = bool(found) and found[-1].kind == "ended"
        # What nobody works on here may never end: nobody waits for it at the server's end.
        if is_ended or (server.is_draining and not server.errands.working()):
            return
        looks = 0 if found else looks + 1
        if looks == _PING_LOOKS:
            looks = 0
            yield PING
        await asyncio.sleep(_LOOK_S)


def _new(asked: Asked, chain: str, after: int) -> list[Record]:
    return list(asked.world.journal.records(chain, after))


def resume(asked: Asked) -> Answer:
    """Go on with a run that was cut off."""
    said = asked.body
    ask = ask_of(asked, "resume", number=asked.number, choice=said.choice, on=said.on)
    return begin(asked, ask, on_run(asked))


def undo(asked: Asked) -> Answer:
    """Undo a run that has ended."""
    ask = ask_of(asked, "undo", number=asked.number, lose_newer=asked.body.lose_newer)
    return begin(asked, ask, on_run(asked))


def stop(asked: Asked) -> Answer:
    """End a run's script now, as Ctrl-C does; a walk is told by a word, whoever drives it."""
    errand = asked.server.errands.of_run(asked.number)
    if errand is None:
        raise UsageError(
            "run.nothing",
            f"run {asked.number} is not under way on this server",
            hint=f"handrail runs show {asked.number}",
        )
    if records.is_walk(asked.world.journal, asked.number):
        _tell(asked)
    else:
        asked.server.errands.interrupt(errand, asked.body.then)
    return Answer(state_of(errand), 202, {"Location": f"/v1/errands/{errand.id}"})


def _tell(asked: Asked) -> None:
    """Tell a walk to put back what it did, or to begin nothing more and hold."""
    world, number = asked.world, asked.number
    engine = wiring.engine(world, {})
    try:
        if asked.body.then == "stop":
            engine.cancel(number, world.person, "stopped")
            return
        digest = walks.standing(world, number).walk.digest
        now = time_text(world.clock.now())
        engine.signal(number, Signal(world.ids.new(), "undo", world.person, digest, {}, now))
    finally:
        engine.close()


ROUTES = (
    Route(
        "POST",
        "/v1/runs",
        "Plan anew, and run. 409, with the plan, where a guard stops it.",
        "operator",
        run,
        on=on_request,
        body=Wanted,
        answer=ErrandState,
        status=202,
        is_once=True,
    ),
    Route(
        "GET",
        "/v1/runs",
        "List runs, the newest first.",
        "viewer",
        listed,
        query=Page,
        answer=RunLines,
    ),
    Route(
        "GET",
        "/v1/runs/{number}",
        "Show a run in one line.",
        "viewer",
        show,
        on=on_run,
        answer=RunLine,
    ),
    Route(
        "GET",
        "/v1/runs/{number}/plan",
        "Show the plan of a run, with every decision.",
        "viewer",
        plan,
        on=on_run,
        answer=Judged,
    ),
    Route(
        "GET",
        "/v1/runs/{number}/marks",
        "Show what the journal has of a run over many targets.",
        "viewer",
        marks,
        on=on_run,
        answer=Marks,
    ),
    Route(
        "GET",
        "/v1/runs/{number}/records",
        "Show a run's records, the oldest first.",
        "viewer",
        told,
        on=on_run,
        query=After,
        answer=RecordLines,
    ),
    Route(
        "GET",
        "/v1/runs/{number}/events",
        "Stream a run's records as they are written, as server-sent events.",
        "viewer",
        events,
        on=on_run,
        content_type=EVENTS,
    ),
    Route(
        "POST",
        "/v1/runs/{number}/resume",
        "Go on with a run that was cut off.",
        "operator",
        resume,
        on=on_run,
        body=Choice,
        answer=ErrandState,
        status=202,
        is_once=True,
    ),
    Route(
        "POST",
        "/v1/runs/{number}/undo",
        "Put back what a run changed.",
        "operator",
        undo,
        on=on_run,
        body=Undoing,
        answer=ErrandState,
        status=202,
        is_once=True,
    ),
    Route(
        "POST",
        "/v1/runs/{number}/stop",
        "End a run's script now, and undo or leave what it did.",
        "operator",
        stop,
        on=on_run,
        body=Stopping,
        answer=ErrandState,
        status=202,
        ends=True,
    ),
)
