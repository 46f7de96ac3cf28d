"""Work for a Temporal server: let the runs over several targets go on, here and elsewhere.

Needs HANDRAIL_TEMPORAL. Start it on as many machines as you like; for more than one, the journal
has to be in PostgreSQL (HANDRAIL_JOURNAL). Told to end (SIGTERM, Ctrl-C), it begins nothing more,
lets steps end, and records them; what lasts longer is found cut off, and taken up by another one.

examples:
  HANDRAIL_TEMPORAL=temporal.internal:7233/ops handrail worker
  handrail worker --at-once 4 --grace 600
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from handrail.errors import UsageError, sanitise

if TYPE_CHECKING:
    from handrail.adapters.temporal.worker import TemporalWorker
    from handrail.cli.call import Call

_RECORDED_S = 15.0
_LOOK_S = 0.5


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--at-once",
        type=int,
        default=16,
        metavar="N",
        help="steps that act at once here; 16 when left out",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long they may go on once told to end; 60 when left out",
    )


def run(call: Call) -> int:
    """Work until told to end."""
    from handrail import wiring
    from handrail.api.declarations import Declarations
    from handrail.core import working

    options = call.options
    if options.at_once < 1 or options.grace < 0:
        raise UsageError("usage", "--at-once is above 0, --grace not below")
    where = wiring.temporal(call.world.environment)
    if where is None:
        raise UsageError(
            "temporal.address",
            "HANDRAIL_TEMPORAL is not set: there is no server to work for",
            hint="export HANDRAIL_TEMPORAL=temporal.internal:7233/default",
        )
    root, kits = call.root, call.kits
    declared = Declarations(lambda: wiring.declared(root, kits), call.world.clock.elapsed_s)
    declared.now()  # what is broken is said now, not by the first step
    acts = working.working(call.world, declared.now, _Lines)
    worker = wiring.worker(
        call.world, acts, where, _say, most_at_once=options.at_once, grace_s=options.grace
    )
    is_told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: is_told.set())
    worker.start()
    _say(f"works for {where}, {options.at_once} steps at once; SIGTERM ends it")
    while not is_told.is_set() and not worker.wait(0):
        is_told.wait(_LOOK_S)
    return _end(worker, options.grace, is_told=is_told.is_set())


def _end(worker: TemporalWorker, grace_s: float, *, is_told: bool) -> int:
    """Let it end, and return the exit code; what does not end in time is left to others."""
    if not is_told:
        return 1
    _say("ends: nothing begins here any more")
    worker.end()
    if worker.wait(grace_s + _RECORDED_S):
        _say("has ended")
        return 0
    _say(f"steps still act after {grace_s:g} s; they are cut off here, and found out about")
    os._exit(1)


class _Lines:
    """`core.world.Talk` of one target's run: a line for each stage that ended."""

    def __init__(self, target: str) -> None:
        self._target = target

    def begin(self, stage: str, text: str) -> None:
        """Say nothing: its end is said."""

    def progress(self, done: int, total: int | None) -> None:
        """Say nothing."""

    def output(self, piece: bytes) -> None:
        """Say nothing: it is in the run's own output."""

    def end(self, stage: str, text: str, *, ok: bool = True) -> None:
        """Say how a stage ended."""
        _say(f"{'ok' if ok else 'x':<3} {self._target}   {stage}   {text}")

    def choose(self, question: str, choices: Mapping[str, str], otherwise: str) -> str:  # noqa: ARG002  the port's
        """Ask nobody."""
        return otherwise


def _say(text: str) -> None:
    print(f"worker: {sanitise(text)}", file=sys.stderr, flush=True)
