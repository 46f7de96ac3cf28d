"""A connection while it is being opened: what arrives is kept until somebody reads it.

Rules:
- Nothing is lost when the connection is handed over: `leftover` has what was not read, and reading
  is paused before the next protocol takes its place.
- A peer that sends more than anybody reads is not read any further.
- A message is never larger than its reader allows; what announces more is refused unread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

LARGEST_BYTES = 64 * 1024
_HEADER = 5


class ClosedError(ConnectionError):
    """The peer closed the connection before it had said what was needed."""


class GarbledError(ConnectionError):
    """The peer sent something that the protocol does not have here."""


class Pipe(asyncio.Protocol):
    """A connection's protocol until it is open.

    Args:
        opened: called once with this pipe when the connection is there.
    """

    transport: asyncio.Transport

    def __init__(self, opened: Callable[[Pipe], None] | None = None) -> None:
        self._opened = opened
        self._kept = bytearray()
        self._waiting: asyncio.Future[None] | None = None
        self._is_paused = False
        self.closed = False

    # --- reading -------------------------------------------------------------------------------

    async def read(self, count: int) -> bytes:
        """Return exactly `count` bytes.

        Raises:
            ClosedError: the connection ended before; what came of them stays unread.
        """
        while len(self._kept) < count:
            if self.closed:
                raise ClosedError("the connection was closed")
            await self._more()
        data = bytes(self._kept[:count])
        del self._kept[:count]
        return data

    async def read_message(self, largest: int = LARGEST_BYTES) -> tuple[int, bytes]:
        """Return one message: its letter as a number, and its body of at most `largest` bytes.

        Raises:
            ClosedError: the connection ended before.
            GarbledError: it is larger, or no message at all.
        """
        head = await self.read(_HEADER)
        size = int.from_bytes(head[1:]) - 4
        if not 0 <= size <= largest:
            raise GarbledError("this is not PostgreSQL's protocol, or a message is too large")
        return head[0], await self.read(size)

    async def ended(self) -> bool:
        """Wait until the peer has closed the connection; what it sends meanwhile is forgotten."""
        while not self.closed:
            self._kept.clear()
            await self._more()
        return True

    async def _more(self) -> None:
        self._go_on()
        self._waiting = asyncio.get_running_loop().create_future()
        await self._waiting

    def leftover(self) -> bytes:
        """Return what came and was not read, and forget it."""
        data = bytes(self._kept)
        self._kept.clear()
        return data

    # --- handing over --------------------------------------------------------------------------

    def pause(self) -> None:
        """Read nothing more, until the next protocol does."""
        if not self._is_paused and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def _go_on(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()

    # --- the protocol of the connection --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._opened is not None:
            self._opened(self)

    def data_received(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > LARGEST_BYTES + _HEADER:
            self.pause()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
