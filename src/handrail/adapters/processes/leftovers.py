"""Ends what a killed Handrail left running.

Rules:
- A process belongs to a run when its environment at its start had `HANDRAIL_RUN` with that token,
  or when it descends from one that had.
- This process and those above it are never ended, whatever their environment.
"""

from __future__ import annotations

import os
import signal
import time

from handrail.adapters.processes import table
from handrail.adapters.processes.table import Process

TICK_S, GIVE_UP_S = 0.02, 10.0
LAUNCHER = "handrail-start"


def end_leftovers(token: str, grace_s: float) -> tuple[str, ...]:
    """End what belongs to the run `token`; return the names in the order of their start."""
    names: dict[int, Process] = {}
    begun = time.monotonic()
    asked: set[int] = set()
    while time.monotonic() < begun + grace_s + GIVE_UP_S:
        found = _belonging(token)
        if not found:
            break
        names |= {one.number: one for one in found}
        if time.monotonic() >= begun + grace_s:
            table.send(signal.SIGKILL, found)
        else:
            table.send(signal.SIGTERM, [one for one in found if one.number not in asked])
            asked |= {one.number for one in found}
        time.sleep(TICK_S)
    ordered = sorted(names.values(), key=lambda one: one.started_ticks)
    return tuple(one.name for one in ordered if one.name != LAUNCHER)


def _belonging(token: str) -> list[Process]:
    mark = b"HANDRAIL_RUN=" + token.encode()
    now = table.processes()
    spared = _self_and_above(now)
    roots = [number for number in now if number not in spared and mark in table.environment(number)]
    found = [*(now[number] for number in roots), *table.below(now, roots)]
    return [one for one in found if one.number not in spared]


def _self_and_above(now: dict[int, Process]) -> set[int]:
    above = {os.getpid()}
    current = now.get(os.getpid())
    while current is not None and current.parent not in above:
        above.add(current.parent)
        current = now.get(current.parent)
    return above
