"""What a server does by itself: walks go on, what is due begins, people outside are told.

Rules:
- Each is looked at again and again; a mistake is logged, and the next look comes all the same.
- What is due is begun as an errand, a process of its own: no schedule waits for another.
- A push that a web hook told, and that nobody carries out, is begun with; so is one that was
  approved meanwhile.
- A walk that another process drives stays its own until that process is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from handrail import wiring
from handrail.api import hooks, logs
from handrail.api.errand import Ask
from handrail.api.server import Server
from handrail.api.targets import on_of
from handrail.core import acts, backing_up, notifying, scheduling
from handrail.core.schedule_records import target_of
from handrail.core.world import Declared
from handrail.kits.deploys import hooking
from handrail.plans.canonical import time_text
from handrail.plans.schedule import Due
from handrail.ports import Engine

# Called with the server; returns after how many seconds to be called again.
Tick = Callable[[Server], float]
_WALKS_S = 15.0
_PUSHES_S = 3.0


class SilentTalk:
    """`core.world.Talk` of what nobody watches: its records tell."""

    def begin(self, stage: str, text: str) -> None:
        """Say nothing."""

    def progress(self, done: int, total: int | None) -> None:
        """Say nothing."""

    def output(self, piece: bytes) -> None:
        """Say nothing: it is in the run's own log."""

    def end(self, stage: str, text: str, *, ok: bool = True) -> None:
        """Say nothing."""

    def choose(self, question: str, choices: Mapping[str, str], otherwise: str) -> str:  # noqa: ARG002  the port's
        """Ask nobody."""
        return otherwise


class _Live:
    """`core.world.Declared`, as the repository has it whenever it is looked at."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __getattr__(self, name: str) -> object:
        return getattr(self._server.declarations.now(), name)


def engine_of(server: Server) -> Engine:
    """Return what runs walks here. Takes up none yet."""
    declared = cast("Declared", _Live(server))
    talk = SilentTalk()

    def say(text: str) -> None:
        logs.tell("engine", level="warning", text=text)

    # Who asked stands in the walk's words: it was not whoever started this server.
    world = replace(server.world, person="")
    return wiring.engine(world, acts.acts(world, declared, lambda _: talk), say)


def walks(engine: Engine) -> Tick:
    """Return what takes up walks that nobody drives any more."""

    def tick(server: Server) -> float:
        if not server.is_draining:
            engine.recover()
        return _WALKS_S

    return tick


def schedules(server: Server) -> float:
    """Begin what is due."""
    if server.is_draining:
        return _WALKS_S
    declared = server.declarations.now(at_once=True)
    wakes_at = scheduling.tick(server.world, declared, lambda due: _begin(server, declared, due))
    return (wakes_at - server.world.clock.now()).total_seconds()


def backups(server: Server) -> float:
    """Make the backups that are due."""
    if server.is_draining:
        return _WALKS_S
    declared = server.declarations.now(at_once=True)
    wakes_at = backing_up.tick(server.world, declared, lambda t: _back_up(server, declared, t))
    return (wakes_at - server.world.clock.now()).total_seconds()


def _back_up(server: Server, declared: Declared, task: backing_up.Task) -> None:
    ask = Ask(
        kind="backup",
        person="",
        root=str(server.world.root),
        state=str(server.world.state),
        on=task.store,
        time=time_text(task.time),
    )
    if any(
        (one.kind, one.asked and one.asked.on) == ("backup", task.store)
        for one in server.errands.working()
    ):
        return
    errand = server.errands.begin(ask, on_of(declared, task.store))
    logs.tell("backup", store=task.store, time=ask.time, errand=errand.id)


def _begin(server: Server, declared: Declared, due: Due) -> None:
    time = time_text(due.time)
    ask = Ask(
        kind="due",
        person="",
        root=str(server.world.root),
        state=str(server.world.state),
        operation=due.operation,
        schedule=due.schedule.key,
        time=time,
        begins_at=time_text(due.begins_at),
    )
    if any(errand.asked == ask for errand in server.errands.working()):
        return
    target = target_of(declared.operations[due.operation], due.schedule)
    errand = server.errands.begin(ask, on_of(declared, target))
    logs.tell("due", operation=due.operation, time=time, errand=errand.id)


def pushes(server: Server) -> float:
    """Begin with pushes that were left, or have been approved."""
    if server.is_draining:
        return _WALKS_S
    for one in hooking.ready(server.world):
        hooks.begin(server, server.declarations.now(at_once=True), one.app, one.id)
    return _PUSHES_S


def notices(server: Server) -> float:
    """Tell people outside what there is to tell."""
    again_at = notifying.deliver(server.world, server.declarations.now())
    return (again_at - server.world.clock.now()).total_seconds()
