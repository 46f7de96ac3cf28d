"""Errands under way: started, listened to, interrupted, and remembered.

Rules:
- An errand is a process (`errand.py`). What it says is kept for whoever follows it, within bounds:
  the script's whole output is in the run's own log.
- The journal has when an errand began and how it ended (chain `errand-<id>`); one that a dead
  server left behind is told as `lost`, and its run tells the rest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from handrail.api import logs
from handrail.api.errand import Ask
from handrail.core import records
from handrail.core.world import World
from handrail.errors import JournalError, RefusedError, UsageError

_OUTPUT_CHARACTERS = 256 * 1024
_KEPT = 200
On = tuple[tuple[str, str], ...]


@dataclass
class Errand:
    """One errand, as far as it is known.

    Attributes:
        on: the resources that it touches, with their environments.
        state: `working`, `ended`, or `lost` when the server died meanwhile.
        run: number of its run, once it has one.
        ended: how: `exit_code`, and `plan`, `outcome` or `problem`.
        events: what it said, each with its number `n`; of progress only the newest is kept.
        decided: set once it is known whether a run began.
    """

    id: str
    kind: str
    person: str
    on: On
    asked: Ask | None = None
    state: str = "working"
    run: int | None = None
    ended: Mapping[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    decided: threading.Event = field(default_factory=threading.Event)
    listeners: set[Callable[[], None]] = field(default_factory=set)
    process: subprocess.Popen[bytes] | None = None
    printed: int = 0
    told: int = 0


class Errands:
    """Every errand of this server."""

    def __init__(
        self, world: World, at_once: int, heard: Callable[[Errand, Mapping[str, Any]], None]
    ) -> None:
        """Begin with none.

        Args:
            world: the server's ports.
            at_once: how many may work at once; more are refused, to be asked for again.
            heard: told of each event, from a thread of its errand's.
        """
        self._world = world
        self._at_once = at_once
        self._heard = heard
        self._known: dict[str, Errand] = {}
        self._lock = threading.Lock()
        self.is_closed = False

    def begin(self, ask: Ask, on: On) -> Errand:
        """Start an errand.

        Raises:
            RefusedError: the server is ending, or does as much as it may.
            JournalError: it could not be recorded; nothing was started.
        """
        errand = Errand(self._world.ids.new()[:12], ask.kind, ask.person, on, ask)
        with self._lock:
            if self.is_closed:
                raise RefusedError("api.draining", "the server is about to end: it begins nothing")
            working = sum(one.state == "working" for one in self._known.values())
            if working >= self._at_once:
                raise RefusedError(
                    "api.too-many",
                    f"{working} rehearsals and runs are under way: as many as this server does",
                    hint="wait until one has ended: handrail",
                )
            self._known[errand.id] = errand
            self._forget_old()
        try:
            self._note(
                errand, "opened", {"kind": ask.kind, "person": ask.person, "on": [*map(list, on)]}
            )
            self._start(errand, ask)
        except BaseException:
            self._known.pop(errand.id, None)
            raise
        return errand

    def find(self, name: str) -> Errand:
        """Return the errand of that id, from memory or from the journal.

        Raises:
            UsageError: there is none.
        """
        if name in self._known:
            return self._known[name]
        told = list(self._world.journal.records(f"errand-{name}"))
        if not told:
            raise UsageError("api.not-found", f"there is no errand `{name}`")
        body = records.body(told[0])
        on = tuple((str(ref), str(environment)) for ref, environment in body["on"])
        errand = Errand(name, body["kind"], body["person"], on, state="lost")
        if told[-1].kind == "ended":
            ended = records.body(told[-1])
            errand.state, errand.run = "ended", ended.pop("run")
            errand.ended = ended
        errand.events = [{"event": "ended", **errand.ended}] if errand.ended else []
        errand.decided.set()
        return errand

    def of_run(self, number: int) -> Errand | None:
        """Return the errand that works on a run now."""
        for errand in list(self._known.values()):
            if errand.run == number and errand.state == "working":
                return errand
        return None

    def working(self) -> tuple[Errand, ...]:
        """Return what is under way."""
        return tuple(one for one in list(self._known.values()) if one.state == "working")

    def interrupt(self, errand: Errand, word: str) -> None:
        """End its script as Ctrl-C does; `word` says what with what is done: `undo` or `stop`."""
        process = errand.process
        if process is None or errand.state != "working":
            return
        with suppress(OSError):  # it has ended meanwhile
            if process.stdin is not None:
                process.stdin.write(json.dumps(word).encode() + b"\n")
                process.stdin.flush()
            process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Begin nothing any more."""
        with self._lock:
            self.is_closed = True

    def _forget_old(self) -> None:
        over = [name for name, one in self._known.items() if one.state != "working"][:-_KEPT]
        for name in over:
            del self._known[name]

    def _start(self, errand: Errand, ask: Ask) -> None:
        process = subprocess.Popen(
            # -P: nothing of the repository, in which it works, is taken for a module.
            [sys.executable, "-P", "-m", "handrail", "errand"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._world.root,
            env=dict(self._world.environment) | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C at the server is the server's
        )
        errand.process = process
        if process.stdin is not None:
            process.stdin.write(msgspec.json.encode(ask) + b"\n")
            process.stdin.flush()
        threading.Thread(target=self._attend, args=(errand, process), daemon=True).start()

    def _attend(self, errand: Errand, process: subprocess.Popen[bytes]) -> None:
        """Hear what an errand says, to its end."""
        said: list[bytes] = []
        listening = threading.Thread(target=lambda: said.append(_last(process.stderr)), daemon=True)
        listening.start()
        for line in process.stdout or ():
            self._hear(errand, json.loads(line))
        code = process.wait()
        listening.join()
        text = said[0].decode("utf-8", "replace").strip() if said else ""
        if text:
            logs.tell("errand", level="warning", errand=errand.id, text=text[-4000:])
        if not errand.ended:
            self._hear(errand, _died(code, text.rpartition("\n")[2]))
        for stream in (process.stdin, process.stdout, process.stderr):
            with suppress(OSError):
                if stream is not None:
                    stream.close()

    def _hear(self, errand: Errand, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "begun":
            errand.run = int(event["run"])
        if kind == "output" and not _has_room(errand, event):
            return
        if kind == "ended":
            errand.ended = {name: value for name, value in event.items() if name != "event"}
            self._finish(errand)
        self._heard(errand, event)
        errand.told += 1
        event["n"] = errand.told
        is_passing = kind in {"progress", "below"}
        if is_passing and errand.events and errand.events[-1]["event"] == kind:
            # How far it was a moment ago is of no use to anybody.
            errand.events[-1] = event
        else:
            errand.events.append(event)
        if kind == "ended":
            errand.state = "ended"
        if kind in {"begun", "ended"}:
            errand.decided.set()
        for listener in list(errand.listeners):
            listener()

    def _finish(self, errand: Errand) -> None:
        kept = {name: value for name, value in errand.ended.items() if name != "plan"}
        with suppress(JournalError):  # its run, or its rehearsal, has told it already
            self._note(errand, "ended", {"run": errand.run, **kept})
            self._world.journal.close(f"errand-{errand.id}")

    def _note(self, errand: Errand, kind: str, body: Mapping[str, Any]) -> None:
        self._world.journal.append(f"errand-{errand.id}", kind, body)


def _has_room(errand: Errand, event: dict[str, Any]) -> bool:
    """Whether more of a script's output is kept here; says once that it is not."""
    before = errand.printed
    errand.printed += len(event["text"])
    if errand.printed <= _OUTPUT_CHARACTERS:
        return True
    if before > _OUTPUT_CHARACTERS:
        return False
    event["text"] = "\n(more is in the run's own log)\n"
    return True


def _last(stream: Any) -> bytes:
    """Read a stream to its end, and return what came last."""
    kept = b""
    while piece := os.read(stream.fileno(), 65536):
        kept = (kept + piece)[-65536:]
    return kept


def _died(code: int, why: str) -> dict[str, Any]:
    """Return how an errand ended that could not say so itself."""
    said = f"killed by signal {-code}" if code < 0 else f"exit {code}"
    problem = {
        "code": "internal",
        "detail": f"what the server started for this ended with {said}{': ' if why else ''}{why}",
        "hint": "handrail runs shows what was begun; handrail resume goes on with it",
        "exit_code": 1,
    }
    return {"event": "ended", "exit_code": 1, "problem": problem}
