"""Attends a script from its first instruction until nothing of it is left.

Rules:
- Attending happens in a thread of its own: a slow terminal stops no deadline and loses no output.
- The script is over when its status is known; a child that keeps its output open is no reason to
  wait.
- What the script leaves behind has a moment to end by itself (a `tee` that still writes), then it
  is named and ended. Whatever has to end is asked first, and killed after the grace.
- What cannot be killed (asleep in the kernel, or another user's) is given up on after a while and
  named: a run that never returns helps nobody.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handrail.adapters.processes import table
from handrail.adapters.processes.keeping import Kept, Live
from handrail.adapters.processes.launching import Launched, launchers
from handrail.adapters.processes.table import Process

TICK_S, BUSY_TICK_S = 0.1, 0.02
GIVE_UP_S = 10.0
# A script that prints without end does so in small pieces. A moment's rest lets the pipe fill up,
# and fewer pieces cost less; nobody sees half a millisecond.
ENOUGH_BYTES, REST_S = 256 * 1024, 0.0005
MOST_REST_PIECES = 64


@dataclass(frozen=True)
class Limits:
    """How long the script may take, how full its disk may get, and how patient its end is.

    Attributes:
        timeout_s: from its first instruction.
        reserve_bytes: that must stay free in `folder`.
        folder: where the output is kept.
        grace_s: between asking to end and killing.
        linger_s: for what the script leaves behind to end by itself.
        is_over: whether somebody lets go of it: it is ended as by Ctrl-C.
    """

    timeout_s: float
    reserve_bytes: int
    folder: Path
    grace_s: float
    linger_s: float
    is_over: Callable[[], bool]


@dataclass(frozen=True)
class Outcome:
    """How the script ended: `status` as wait(2) has it, None when nobody knows.

    `failure` is the stage and the errno when the script never began.
    """

    status: int | None
    ended: str
    duration_s: float
    survivors: tuple[str, ...]
    failure: tuple[str, int] | None
    seen: dict[str, Any]


class Ending:
    """A row of signals, each due at its time; the last one again and again."""

    def __init__(self, reason: str, begins: float, grace_s: float) -> None:
        first = [signal.SIGINT] if reason == "interrupted" else []
        row = [*first, signal.SIGTERM, signal.SIGKILL]
        self.reason = reason
        self._due = [(begins + grace_s * place, number) for place, number in enumerate(row)]

    def signal_due(self, now: float) -> int | None:
        """Return the signal to send now; None between two."""
        if now < self._due[0][0]:
            return None
        _, number = self._due[0]
        if len(self._due) > 1:
            self._due.pop(0)
        return number

    def hurry(self, now: float) -> None:
        """Kill from now on."""
        self._due = [(min(now, self._due[-1][0]), signal.SIGKILL)]

    def is_hopeless(self, now: float) -> bool:
        """Whether killing has not helped for a long time."""
        return now > self._due[-1][0] + GIVE_UP_S


class Attendant:
    """One script's attendance."""

    def __init__(
        self,
        launched: Launched,
        script: int,
        kept: Kept,
        limits: Limits,
        *,
        is_confined: bool,
    ) -> None:
        self.live = Live()
        self._launched = launched
        self._script = script
        self._kept = kept
        self._limits = limits
        self._is_confined = is_confined
        self._wish = ""  # set by another thread: `interrupted`, then `hurry`
        self._began = 0.0
        self._ended_at = 0.0
        self._status: int | None = None
        self._failure: tuple[str, int] | None = None
        self._is_ended = False
        self._is_launcher_gone = False
        self._ending: Ending | None = None
        self._survivors: tuple[str, ...] = ()
        self._result: Outcome | BaseException | None = None
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._attend, daemon=True)

    def start(self) -> None:
        """Let the script begin."""
        self._began = time.monotonic()
        self._selector.register(self._launched.output, selectors.EVENT_READ, self._take_output)
        self._selector.register(self._launched.control, selectors.EVENT_READ, self._take_message)
        self._thread.start()  # before the script: from its first instruction somebody attends it
        self._launched.ask({"go": True})

    def outcome(self) -> Outcome:
        """Wait for the end of everything, and return how it was."""
        self._thread.join()
        if isinstance(self._result, Outcome):
            return self._result
        raise self._result or AssertionError("attended without a result")

    def wait(self) -> None:
        """Wait for the end of everything."""
        if self._thread.ident is not None:
            self._thread.join()

    def interrupt(self) -> None:
        """End everything; called again, without patience."""
        self._wish = "hurry" if self._wish else "interrupted"

    def _attend(self) -> None:
        try:
            while not self._is_over():
                busy = self._ending is not None
                for key, _ in self._selector.select(BUSY_TICK_S if busy else TICK_S):
                    key.data()
            self._result = self._finish()
        except BaseException as error:  # noqa: BLE001 - raised again by `outcome`
            self._result = error
        finally:
            self.live.end()

    def _take_output(self) -> None:
        piece = self._launched.read_output()
        if piece is None:
            return
        if not piece:
            self._selector.unregister(self._launched.output)
            return
        if not self._kept.write(piece):
            self._end("disk-full")
        self.live.offer(piece)
        if len(piece) < ENOUGH_BYTES:
            time.sleep(REST_S)

    def _take_message(self) -> None:
        message = self._launched.hear()
        if message is None:
            self._selector.unregister(self._launched.control)
            self._is_launcher_gone = True
        elif "failure" in message:
            self._failure = (message["failure"][0], message["failure"][1])
            self._script_ended(None)
        else:
            self._script_ended(message["status"])

    def _script_ended(self, status: int | None) -> None:
        self._status = status
        self._is_ended = True
        self._ended_at = time.monotonic()

    def _is_over(self) -> bool:
        """Look at everything that has a time or a limit; return whether nothing is left."""
        now = time.monotonic()
        if self._is_launcher_gone and not self._is_ended:
            self._reap_script()
        if self._wish or (not self._is_ended and self._limits.is_over()):
            self._end("interrupted")
        if self._is_ended:
            self._end("exited", after_s=self._limits.linger_s)
        elif now > self._began + self._limits.timeout_s:
            self._end("timeout")
        elif shutil.disk_usage(self._limits.folder).free < self._limits.reserve_bytes:
            self._end("disk-full")
        if self._wish == "hurry" and self._ending is not None:
            self._ending.hurry(now)
        return self._ending is not None and self._press(self._ending, now)

    def _end(self, reason: str, after_s: float = 0.0) -> None:
        if self._ending is None:
            self._ending = Ending(reason, time.monotonic() + after_s, self._limits.grace_s)

    def _press(self, ending: Ending, now: float) -> bool:
        """Send what is due to all that is left; return whether nothing is left, or no hope."""
        left = self._left()
        if self._is_ended and not left:
            return True
        number = ending.signal_due(now)
        if number is not None:
            if ending.reason == "exited" and not self._survivors:
                self._survivors = _names(left)
            table.send(number, left)
        if not ending.is_hopeless(now):
            return False
        self._survivors = tuple(f"{name} (could not be ended)" for name in _names(left))
        return True

    def _left(self) -> list[Process]:
        """Return what the script started and is still there, itself included."""
        now = table.processes()
        roots = {self._launched.pid, *self._adopted(now)}
        found = {one.number: one for one in table.below(now, roots)}
        found |= {number: now[number] for number in roots - {self._launched.pid}}
        if self._is_confined:
            found.pop(self._script, None)  # process 1 inside: it holds the others, and ends last
        return list(found.values())

    def _adopted(self, now: dict[int, Process]) -> list[int]:
        """Return the orphans that came to us because the launcher was killed.

        A child of ours in another session that is not the launcher: a process cannot join our
        session again once it left it, and Handrail starts nothing else while it attends scripts.
        One with the mark of another script that is attended here is not ours.
        """
        if not self._is_launcher_gone:
            return []
        own, session, others = os.getpid(), os.getsid(0), launchers()
        return [
            one.number
            for one in now.values()
            if one.parent == own
            and one.session != session
            and one.number not in others
            and table.mark_of(one.number) in {"", self._launched.token}
        ]

    def _reap_script(self) -> None:
        """Learn the status ourselves: the launcher was killed, so the script is our child."""
        if not self._launched.has_ended():
            return  # its descriptors close before its children become ours
        try:
            ended, status = os.waitpid(self._script, os.WNOHANG)
        except ChildProcessError:
            self._script_ended(None)
            return
        if ended:
            # The first process of a confinement ends with the launcher: that says nothing.
            self._script_ended(None if self._is_confined else status)

    def _finish(self) -> Outcome:
        seen = self._launched.say_goodbye()
        self._take_rest()
        if self._is_launcher_gone:
            table.reap_orphans(launchers())
        self._selector.close()
        reason = self._ending.reason if self._ending is not None else "exited"
        if self._status is None and reason == "exited":
            reason = "lost"
        duration_s = (self._ended_at or time.monotonic()) - self._began
        return Outcome(self._status, reason, duration_s, self._survivors, self._failure, seen)

    def _take_rest(self) -> None:
        """Take what still lies in the pipe; not more, for what prints on cannot be ended."""
        for _ in range(MOST_REST_PIECES):
            piece = self._launched.read_output()
            if not piece:
                return
            self._kept.write(piece)
            self.live.offer(piece)


def _names(found: list[Process]) -> tuple[str, ...]:
    return tuple(one.name for one in sorted(found, key=lambda one: one.started_ticks))
