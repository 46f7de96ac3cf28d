"""An errand: a rehearsal, a run, a resume or an undo for one person, in a process of its own.

Rules:
- It is told what to do by one JSON object on stdin, and says what happens as JSON lines on stdout.
- It is the same core as on the command line: one process, one run, its own main thread. SIGINT
  means there and here: end the script, record, and stop; a line on stdin before it says what with
  what is done (`undo` or `stop`).
- It outlives the server: nobody hears it then, and the journal still tells a truthful end.
- SIGTERM is not for it: the server, which gets it too, says when to end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from handrail import kit_wiring, wiring
from handrail.api.problems import problem_of
from handrail.core import (
    acts,
    backing_up,
    recalling,
    rehearsing,
    repeating,
    running,
    standing,
    taking,
)
from handrail.core.deciding import Decided
from handrail.core.world import Declared, World
from handrail.errors import HandrailError, UsageError
from handrail.kits.deploys import hooking
from handrail.plans.canonical import encode_plain, plain
from handrail.plans.schedule import Due
from handrail.ports import Engine

Say = Callable[[Mapping[str, Any]], None]
_EVERY_S = 0.2
_CHOICES = ("", "undo", "accept")


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What an errand is told to do.

    Attributes:
        kind: `rehearse`, `run`, `resume`, `undo`; `due`: one time of a schedule; `backup`: of the
            store `on`; or `hook`: a push that a web hook told.
        operation: its name, or the digest of a plan; for `rehearse` and `run`. For `hook` the app.
        number: of the run, for `resume` and `undo`.
        schedule: its key, for `due`.
        time: what is due, ISO 8601 UTC, for `due` and `backup`.
        begins_at: the same with its jitter.
        delivery: which push, for `hook`.
    """

    kind: str
    person: str
    root: str
    state: str
    operation: str = ""
    on: str | None = None
    parameters: dict[str, str] = {}
    because: str = ""
    number: int = 0
    choice: str = ""
    lose_newer: bool = False
    without: tuple[str, ...] = ()
    schedule: str = ""
    time: str = ""
    begins_at: str = ""
    delivery: str = ""


class SayingTalk:
    """`core.world.Talk` for whoever listens at the other end of stdout."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said_s = 0.0
        self.word = ""

    def begin(self, stage: str, text: str) -> None:
        """Say that a stage has begun."""
        self._say({"event": "begin", "stage": stage, "text": text})

    def progress(self, done: int, total: int | None) -> None:
        """Say how far the present stage is, a few times a second."""
        now = time.monotonic()
        if now - self._said_s >= _EVERY_S:
            self._said_s = now
            self._say({"event": "progress", "done": done, "total": total})

    def output(self, piece: bytes) -> None:
        """Pass on what the script printed."""
        self._say({"event": "output", "text": piece.decode("utf-8", "replace")})

    def end(self, stage: str, text: str, *, ok: bool = True) -> None:
        """Say how a stage ended."""
        self._say({"event": "end", "stage": stage, "text": text, "ok": ok})

    def below(self, lines: Sequence[str]) -> None:
        """Say what stands below everything else, a few times a second."""
        now = time.monotonic()
        if not lines or now - self._said_s >= _EVERY_S:
            self._said_s = now
            self._say({"event": "below", "lines": list(lines)})

    def choose(self, question: str, choices: Mapping[str, str], otherwise: str) -> str:
        """Return what was said before the interruption."""
        del question
        return self.word if self.word in choices else otherwise


# Does what is over many targets, and returns how that ended; None where it is of one.
Many = Callable[[World, Declared, Ask, SayingTalk, Say], dict[str, Any] | None]


def main(many: Many) -> int:
    """Do one errand, and return the exit code that the command line would have."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A handler, where ignoring would do: what is ignored is ignored by the script, too.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    lines = _lines(sys.stdin.fileno())
    asked = msgspec.json.decode(next(lines), type=Ask)
    say = _saying(sys.stdout.fileno())
    talk = SayingTalk(say)
    threading.Thread(target=_hear, args=(talk, lines), daemon=True).start()
    installed = wiring.kits()
    root, state = Path(asked.root), Path(asked.state)
    world = wiring.world(root, state, dict(os.environ), installed)
    world = replace(world, person=asked.person)
    try:
        declared = wiring.declared(root, installed)
        ended = many(world, declared, asked, talk, say) or do(world, declared, asked, talk, say)
    except HandrailError as error:
        ended = {"exit_code": error.exit_code, "problem": msgspec.to_builtins(problem_of(error))}
    except KeyboardInterrupt:
        ended = {"exit_code": 130}
    except Exception as error:  # noqa: BLE001  the last place: a defect is told like any other end
        ended = _defect(error)
    say({"event": "ended", **ended})
    return int(ended["exit_code"])


def do(world: World, declared: Declared, asked: Ask, talk: SayingTalk, say: Say) -> dict[str, Any]:
    """Do what is asked, and return how it ended: `exit_code`, with `plan` and `run`."""

    def opened(number: int) -> None:
        say({"event": "begun", "run": number})

    if asked.kind in {"due", "backup", "hook"}:
        return _by_itself(world, declared, asked, talk, opened)
    if asked.kind in {"resume", "undo"}:
        decided = recalling.recorded(world, declared, asked.number, None)
        opened(asked.number)
        if asked.kind == "resume":
            if asked.choice not in _CHOICES:
                raise UsageError(
                    "usage",
                    f"run {asked.number} is of one target: `{asked.choice}` is for many",
                    hint=f"handrail runs show {asked.number}",
                )
            outcome = running.resume(world, asked.number, decided, talk, choice=asked.choice)
            return _ended(decided, outcome=plain(outcome), exit_code=outcome.exit_code)
        outcome = running.undo(world, asked.number, decided, talk, lose_newer=asked.lose_newer)
        worked = outcome.outcome == "undone"
        return _ended(decided, outcome=plain(outcome), exit_code=0 if worked else 1)
    decided = repeating.decide(
        world,
        declared,
        asked.operation,
        on=asked.on,
        parameters=asked.parameters,
        because=asked.because,
    )
    say({"event": "planned", "plan": decided.plan.shown})
    if asked.kind == "rehearse":
        decided = rehearsing.rehearse(world, decided, talk)
        found = decided.plan.facts.rehearsal
        is_well = found is not None and found.ended == "exited" and found.exit_code == 0
        return _ended(decided, exit_code=0 if is_well else 1)
    standing.settle(world, decided.plan, runs=True)  # beyond what an approval stands for, it ends
    if decided.plan.verdict != "allow":
        return _ended(decided, exit_code=3 if decided.plan.verdict == "refuse" else 4)
    outcome = running.begin(world, decided, talk, opened=opened)
    return _ended(decided, outcome=plain(outcome), exit_code=outcome.exit_code)


def _by_itself(
    world: World,
    declared: Declared,
    asked: Ask,
    talk: SayingTalk,
    opened: Callable[[int], None],
) -> dict[str, Any]:
    """Do what no person asked for now: what is due, and what a web hook told."""
    match asked.kind:
        case "due":
            return _due(world, declared, asked, talk)
        case "backup":
            return _back_up(world, declared, asked, talk)
        case _:
            return _hook(world, declared, asked, talk, opened)


def _due(world: World, declared: Declared, asked: Ask, talk: SayingTalk) -> dict[str, Any]:
    """Plan, judge and run one due time; what becomes of it is recorded whatever is said here."""
    operation = declared.operations.get(asked.operation)
    for schedule in operation.schedules if operation else ():
        if schedule.key == asked.schedule:
            time, begins_at = map(datetime.fromisoformat, (asked.time, asked.begins_at))
            due = Due(asked.operation, schedule, time, begins_at)
            outcome = taking.carry_out(world, declared, due, talk, _engines(declared, talk))
            if outcome is not None:
                return {"outcome": plain(outcome), "exit_code": outcome.exit_code}
    return {"exit_code": 0}


def _hook(
    world: World,
    declared: Declared,
    asked: Ask,
    talk: SayingTalk,
    opened: Callable[[int], None],
) -> dict[str, Any]:
    """Plan, judge and run one push; what becomes of it is recorded whatever is said here."""
    outcome = hooking.carry_out(
        world,
        declared,
        asked.operation,
        asked.delivery,
        _engines(declared, talk),
        kit_wiring.outside(world).sources,
        opened,
    )
    if outcome is None:
        return {"exit_code": 0}
    return {"outcome": plain(outcome), "exit_code": outcome.exit_code}


def _engines(declared: Declared, talk: SayingTalk) -> Callable[[World], Engine]:
    """Return what gives an engine for operations of kits that nobody looks on at."""
    return lambda world: wiring.engine(world, acts.acts(world, declared, lambda _: talk))


def _back_up(world: World, declared: Declared, asked: Ask, talk: SayingTalk) -> dict[str, Any]:
    """Make a backup that is due, and prove it where that is its turn; its record tells the rest."""
    task = backing_up.Task(asked.on or "", datetime.fromisoformat(asked.time))
    came_to = backing_up.carry_out(world, declared, task, talk)
    return {"exit_code": 1 if came_to == "failed" else 0}


def _ended(decided: Decided, **rest: Any) -> dict[str, Any]:
    return {"plan": decided.plan.shown, **rest}


def _saying(number: int) -> Say:
    """Return what writes a line at a time, from any thread, and falls silent without a listener."""
    lock = threading.Lock()
    gone = False

    def say(event: Mapping[str, Any]) -> None:
        nonlocal gone
        line = (encode_plain(dict(event)) + "\n").encode()
        with lock:
            while line and not gone:
                try:
                    line = line[os.write(number, line) :]
                except OSError:
                    gone = True

    return say


def _defect(error: Exception) -> dict[str, Any]:
    traceback.print_exception(error)  # for the server's log
    told = HandrailError(
        "internal",
        f"a defect of Handrail: {type(error).__name__}: {error}",
        hint="the server's log has more; `handrail runs` shows what was begun",
    )
    return {"exit_code": 1, "problem": msgspec.to_builtins(problem_of(told))}


def _lines(number: int) -> Iterator[bytes]:
    """Yield lines as they come; unbuffered: a thread that waits here holds no lock of Python's."""
    rest = b""
    while piece := os.read(number, 65536):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _hear(talk: SayingTalk, lines: Iterator[bytes]) -> None:
    for line in lines:
        talk.word = str(json.loads(line))
