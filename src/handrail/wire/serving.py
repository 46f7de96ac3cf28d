"""A guard's own thread: an event loop beside the program that waits for the script.

Rules:
- The loop is started and stopped by the caller's thread; nothing of it outlives `stop`.
- What goes wrong in the loop is raised where somebody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")
THREADS = 64


class Loop:
    """An event loop in a thread of its own, from the making to `stop`."""

    def __init__(self, name: str) -> None:
        self._loop = uvloop.new_event_loop()
        # Some of these wait for people: those that look must not wait for them.
        self._loop.set_default_executor(ThreadPoolExecutor(THREADS, name))
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the loop, wait for it, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        """End the loop and its thread. Twice equals once."""
        if self._loop.is_closed():
            return
        self.run(self._wind_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _wind_down(self) -> None:
        """End every task that still waits, and the threads that the loop has made."""
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()
