"""Timers: which walks have to be looked at when, by the calendar or by a clock that nobody sets."""

from __future__ import annotations

import heapq
import math
from datetime import datetime

from handrail.plans.moving import Wake
from handrail.ports import Clock


class Timers:
    """When to look at which walk; one look too many does no harm."""

    def __init__(self, clock: Clock) -> None:
        """Begin with none."""
        self._clock = clock
        self._rests: list[tuple[float, int]] = []
        self._dates: list[tuple[float, int]] = []
        self._set: set[tuple[float, int]] = set()

    def set(self, run: int, wake: Wake, offset_s: float) -> None:
        """Look at `run` then; `offset_s` makes its own time of the clock's elapsed seconds."""
        at_s = datetime.fromisoformat(wake.at).timestamp()
        entry = (at_s - offset_s, run) if wake.is_rest else (at_s, run)
        if entry not in self._set:
            self._set.add(entry)
            heapq.heappush(self._rests if wake.is_rest else self._dates, entry)

    def due(self) -> list[int]:
        """Return the runs whose time has come, each once, and forget those times."""
        found = self._due(self._rests, self._clock.elapsed_s())
        if self._dates:
            found += self._due(self._dates, self._clock.now().timestamp())
        return list(dict.fromkeys(found))

    def _due(self, entries: list[tuple[float, int]], now_s: float) -> list[int]:
        found = []
        while entries and entries[0][0] <= now_s:
            entry = heapq.heappop(entries)
            self._set.discard(entry)
            found.append(entry[1])
        return found

    def left_s(self) -> float:
        """Return seconds until the next time that nobody sets; endless where there is none."""
        if not self._rests:
            return math.inf
        return max(self._rests[0][0] - self._clock.elapsed_s(), 0.0)
