"""Threads for steps: there only while steps act.

Rules:
- A thread that has nothing to do for a moment ends.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

_IDLE_S = 1.0


class Pool:
    """Threads for steps: as many as act at once, and at most `most`."""

    def __init__(self, most: int) -> None:
        """Begin with none."""
        self.most = most
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0

    def start(self, task: Callable[[], None]) -> None:
        """Run `task`, which raises nothing, at once."""
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._tasks.put(task)
                return
        # A daemon: who presses Ctrl-C twice does not wait for a step; it is found cut off.
        threading.Thread(target=self._work, args=(task,), name="handrail-step", daemon=True).start()

    def _work(self, task: Callable[[], None]) -> None:
        while True:
            task()
            with self._lock:
                self._idle += 1
            try:
                task = self._tasks.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._idle:
                        self._idle -= 1
                        return
                task = self._tasks.get()  # it was given one right now
