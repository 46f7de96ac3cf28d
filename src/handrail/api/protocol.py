"""HTTP/1.1 on one connection: uvicorn's, and a deadline for a request's first lines.

Rules:
- Who connects and says nothing, or says it letter by letter, is not waited for.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Protocol(H11Protocol):
    """One connection."""

    def __init__(self, *given: Any, head_s: float, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head_s = head_s
        self._waiting: asyncio.TimerHandle | None = None

    @classmethod
    def with_head_s(cls, head_s: float) -> Any:
        """Return what makes connections with that deadline."""
        return partial(cls, head_s=head_s)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait."""
        super().connection_made(transport)  # type: ignore[arg-type]  # as asyncio calls it
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take a piece; the first lines of a request must be whole in time."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop_waiting()
        elif self._waiting is None and getattr(before, "response_complete", True):
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self._head_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if not self.transport.is_closing():
            self.transport.close()
