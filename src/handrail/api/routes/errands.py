"""Errands: rehearsals and runs that were begun here, and what they say while they work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from handrail.api.errand import Ask
from handrail.api.errands import Errand
from handrail.api.problems import problem_of
from handrail.api.route import Answer, Asked, On, Route
from handrail.api.shapes import ErrandState, Wanted
from handrail.api.streaming import PING, PING_S, event_line
from handrail.api.targets import on_request
from handrail.errors import RefusedError, WaitingError
from handrail.plans.canonical import encode

EVENTS = "text/event-stream"
_DECIDED_S = 60.0


def state_of(errand: Errand) -> ErrandState:
    """Return an errand as it is answered."""
    return ErrandState(
        errand.id, errand.kind, errand.person, errand.state, errand.run, dict(errand.ended)
    )


def begin(asked: Asked, ask: Ask, on: On) -> Answer:
    """Start an errand, and answer once it is known whether it begins."""
    errand = asked.server.errands.begin(ask, on)
    if ask.kind != "rehearse":
        errand.decided.wait(_DECIDED_S)
    ended = errand.ended
    if errand.run is None and ended:
        if "problem" in ended:
            found = ended["problem"]
            # As it was told: its own status, or a defect's.
            return Answer(found, int(found.get("status", 500)), content_type="problem")
        if ask.kind == "run":
            return _stopped(ended)
    return Answer(state_of(errand), 202, {"Location": f"/v1/errands/{errand.id}"})


def _stopped(ended: Any) -> Answer:
    """Answer that guards keep a plan from running: with the plan, which says why."""
    plan = ended["plan"]
    verdict = "refuse" if ended["exit_code"] == RefusedError.exit_code else "require"
    first = next(d for d in plan["decisions"] if d["verdict"] == verdict and d["binding"])
    kind, code = (
        (RefusedError, "plan.refused") if verdict == "refuse" else (WaitingError, "plan.waiting")
    )
    error = kind(code, f"{first['guard']}: {first['because']}", hint=first["remedy"])
    fan_out = ended.get("fan_out")
    return Answer(problem_of(error, plan=plan, fan_out=fan_out), 409, content_type="problem")


def ask_of(asked: Asked, kind: str, **rest: Any) -> Ask:
    """Return what an errand of the caller's is told."""
    return Ask(
        kind=kind,
        person=asked.world.person,
        root=str(asked.world.root),
        state=str(asked.world.state),
        **rest,
    )


def rehearse(asked: Asked) -> Answer:
    """Begin a rehearsal."""
    wanted: Wanted = asked.body
    ask = ask_of(
        asked,
        "rehearse",
        operation=wanted.operation,
        on=wanted.on,
        parameters=wanted.parameters,
        because=wanted.because,
        without=wanted.without,
    )
    return begin(asked, ask, on_request(asked))


def on_errand(asked: Asked) -> On:
    """Return what the errand in the address is about."""
    return asked.server.errands.find(asked.path["id"]).on


def show(asked: Asked) -> Answer:
    """Answer how far an errand is."""
    return Answer(state_of(asked.server.errands.find(asked.path["id"])))


def events(asked: Asked) -> Answer:
    """Answer what an errand says, as it says it, from its beginning."""
    errand = asked.server.errands.find(asked.path["id"])
    return Answer(stream=_follow(errand), content_type=EVENTS)


async def _follow(errand: Errand) -> AsyncIterator[bytes]:
    """Yield an errand's events to its end; a comment now and then keeps the connection open."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def listener() -> None:
        loop.call_soon_threadsafe(news.set)

    errand.listeners.add(listener)
    try:
        position, last = 0, 0
        while True:
            news.clear()
            # Looked at first: its last event may come while those before it are sent.
            is_working = errand.state == "working"
            for event in errand.events[max(0, position - 1) :]:
                if event.get("n", 0) > last or position == 0:
                    last = event.get("n", 0)
                    yield event_line(event["event"], encode(event), last)
                position += 1
            position = len(errand.events)
            if not is_working:
                return
            try:
                await asyncio.wait_for(news.wait(), PING_S)
            except TimeoutError:
                yield PING
    finally:
        errand.listeners.discard(listener)


ROUTES = (
    Route(
        "POST",
        "/v1/rehearsals",
        "Rehearse on a clone of the target. Goes on by itself; follow the errand that it answers.",
        "operator",
        rehearse,
        on=on_request,
        body=Wanted,
        answer=ErrandState,
        status=202,
        is_once=True,
    ),
    Route(
        "GET",
        "/v1/errands/{id}",
        "Say how far a rehearsal, run, resume or undo is.",
        "viewer",
        show,
        on=on_errand,
        answer=ErrandState,
    ),
    Route(
        "GET",
        "/v1/errands/{id}/events",
        "Stream what it says, as server-sent events; the last is `ended`.",
        "viewer",
        events,
        on=on_errand,
        content_type=EVENTS,
    ),
)
