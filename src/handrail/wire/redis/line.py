"""The line between one client and the server: bytes, order, back-pressure and the end.

Rules:
- Memory is bounded: a client that does not read stops the server's side; where the guard must go on
  reading to count, what is the client's waits in a file.
- While something that takes its time is under way, no other request is taken.
- What is counted is counted to the end, also when its client is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Protocol, cast

from handrail.wire.ledger import Refusal
from handrail.wire.redis.counting import Counted
from handrail.wire.redis.judging import Judge, told
from handrail.wire.redis.outbox import Outbox
from handrail.wire.redis.pairing import Entry as Expected
from handrail.wire.redis.pairing import Local, Pairing, Silent, Told
from handrail.wire.redis.plan import is_wanted_whole
from handrail.wire.redis.replies import FramingError, Reply
from handrail.wire.redis.requests import Request, Requests, encode

MOST_COUNTING = 10_000
_PIECE_BYTES = 64 * 1024


class Gate(Protocol):
    """What a session needs of its guard."""

    @property
    def judge(self) -> Judge:
        """What all sessions share."""

    def is_secret(self, user: bytes, password: bytes) -> bool:
        """Whether these open this guard."""

    async def connect(self, line: Line) -> asyncio.Transport:
        """Open the server's side; its protocol is the session's `link`."""

    def sign_in(self) -> Sequence[Sequence[bytes]]:
        """Return the commands that sign the guard in; none where none is needed."""

    def left(self, line: Line) -> None:
        """Take note that a line has ended."""


class Link(asyncio.Protocol):
    """The server's side of a line."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def data_received(self, data: bytes) -> None:
        self._line.answered(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._line.server_left()

    def pause_writing(self) -> None:
        self._line.hold_client(full=True)

    def resume_writing(self) -> None:
        self._line.hold_client(full=False)


class Line(asyncio.Protocol):
    """One client and its connection to the server.

    Args:
        gate: the guard.
        requests: cuts what the client sends.
    """

    def __init__(self, gate: Gate, requests: Requests) -> None:
        self.gate = gate
        self.requests = requests
        self.ledger = gate.judge.ledger
        self._outbox = Outbox(requests.folder, self.rebalance)
        self.pairing = Pairing(self._outbox.write)
        self.link = Link(self)
        self.server: asyncio.Transport | None = None
        self.client: asyncio.Transport | None = None
        self._busy: asyncio.Task[None] | None = None
        self._server_full: asyncio.Event | None = None
        self.is_ending = False
        self._said_all = False
        self._batch: list[bytes] | None = None  # what is to leave together
        self._rests = False  # the server's side is not read
        self.in_flight: set[Counted] = set()
        self.put_back: Request | None = None  # the next one, taken once and to be taken again
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take_run(self) -> None:
        """Take all requests in a row that need no more than a glance."""
        raise NotImplementedError

    def take(self, request: Request) -> None:
        """Take one request."""
        raise NotImplementedError

    # --- the client's side ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has transports of its own, which are none by class.
        self.client = cast("asyncio.Transport", transport)
        self._outbox.open(self.client)

    def data_received(self, data: bytes) -> None:
        self.requests.feed(data)
        self._go_on()

    def pause_writing(self) -> None:
        self._outbox.pause()

    def resume_writing(self) -> None:
        self._outbox.resume()

    def eof_received(self) -> bool:
        """The client has said all that it will: what it asked for is still answered."""
        self._said_all = True
        if self.pairing.is_listening or self.pairing.is_waiting:
            return False
        self.check_end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.client = None
        self._outbox.close()
        self.requests.close()
        self.check_end()

    def hold_client(self, *, full: bool) -> None:
        """Read no more of the client while the server takes no more."""
        if full and self._server_full is None:
            self._server_full = asyncio.Event()
        elif not full and self._server_full is not None:
            self._server_full.set()
            self._server_full = None
        self._rest_or_read()

    def _rest_or_read(self) -> None:
        if self.client is None or self.client.is_closing():
            return
        crowded = self.pairing.counting > MOST_COUNTING
        if self._server_full or self._busy or crowded:
            self.client.pause_reading()
        else:
            self.client.resume_reading()

    # --- the server's side ---------------------------------------------------------------------

    def answered(self, data: bytes) -> None:
        """Take what the server sent."""
        if self.pairing.takes_all(data):
            self._outbox.write(data)
        elif not self._feed(data):
            return
        if self._outbox.is_full or self._rests:
            self.rebalance()
        if self._said_all or self.is_ending or self.client is None:
            self.check_end()

    def _feed(self, data: bytes) -> bool:
        """Take what the server sent apart; return False where that ended the line."""
        crowded = self.pairing.counting > MOST_COUNTING
        self._outbox.begin()
        try:
            self.pairing.feed(data)
        except FramingError:
            self.cut()
            return False
        finally:
            self._outbox.commit()
        if crowded and self.pairing.counting <= MOST_COUNTING:
            self._rest_or_read()
            self._go_on()
        return True

    def server_left(self) -> None:
        """The server has closed its side: nobody knows what of the last commands it did."""
        self.server, self.is_ending = None, True
        for counted in tuple(self.in_flight):
            counted.lost()
        if self._busy is not None:
            self._busy.cancel()
        if self._server_full is not None:
            self._server_full.set()
        self._outbox.end()
        self._over()

    def rebalance(self) -> None:
        """Read of the server only what the client takes, but for what the guard waits for."""
        if self.server is None or self.server.is_closing():
            return
        needs = self._busy is not None or self.pairing.counting > 0
        rests = self._outbox.is_full and not needs
        if rests and not self._rests:
            self.server.pause_reading()
        elif self._rests and not rests:
            self.server.resume_reading()
        self._rests = rests

    # --- the end -------------------------------------------------------------------------------

    def leave(self) -> asyncio.Future[None]:
        """Take nothing more; end when what is under way has ended."""
        self.is_ending = True
        if self.client is not None:
            self.client.pause_reading()
        self.requests.close()
        self.check_end()
        return self.ended

    def cut(self) -> None:
        """End at once, whatever is under way."""
        self.is_ending = True
        if self._busy is not None:
            self._busy.cancel()
        for counted in tuple(self.in_flight):
            counted.lost()
        for side in (self.client, self.server):
            if side is not None:
                side.abort()
        self._over()

    def check_end(self) -> None:
        """Close where nothing more is to come, and what is counted has been counted."""
        if self.client is not None and not (self.is_ending or self._said_all):
            return
        # What waits for somebody else is not waited for.
        if not (self.pairing.is_waiting or self.pairing.is_listening):
            awaited = self.pairing.pending if self.client is not None else self.in_flight
            if self._busy is not None or awaited:
                return
        for counted in tuple(self.in_flight):
            counted.never()
        self.is_ending = True
        if self.server is not None:
            self.server.close()
            self.server = None
        self._outbox.end()
        self._over()

    def _over(self) -> None:
        self.requests.close()
        if self.put_back is not None:
            self.put_back.close()
        if not self.ended.done():
            self.ended.set_result(None)
            self.gate.left(self)

    # --- one request after the other -----------------------------------------------------------

    def _go_on(self) -> None:
        """Take as many requests as are there; what they send leaves together."""
        self._batch = []
        try:
            self._take_all()
        except FramingError as error:
            self.say(f"ERR {error}")
            self.is_ending = True
            self.check_end()
        finally:
            batch, self._batch = self._batch, None
            if batch:
                self.send(batch[0] if len(batch) == 1 else b"".join(batch))

    def _take_all(self) -> None:
        while self._busy is None and not self.is_ending:
            if self.pairing.counting > MOST_COUNTING:
                self._rest_or_read()
                return
            request, self.put_back = self.put_back, None
            if request is None:
                self.take_run()
                request = self.requests.next_request()
            if request is None:
                return
            self.take(request)

    def say(self, error: str) -> None:
        """Answer with an error of the guard's own, in its turn."""
        line = error.replace("\r", " ").replace("\n", " ").encode("utf-8", "backslashreplace")
        self.pairing.expect(Local(b"-%s\r\n" % line))

    def say_no(self, refusal: Refusal) -> None:
        """Answer with a refusal."""
        self.say(f"HANDRAIL {told(refusal)}")

    def send(self, data: bytes) -> None:
        """Send bytes to the server, if it is there."""
        if self._batch is not None:
            self._batch.append(data)
        elif self.server is not None:
            self.server.write(data)

    def forward(self, request: Request, expected: Expected | None = None) -> None:
        """Send a request, and expect its reply for the client."""
        if expected is None:
            self.pairing.plain(1)
        else:
            self.pairing.expect(expected)
        if request.file is None:
            self.send(request.raw)
        else:
            self.work(self.stream_all([request]))

    # --- work that takes its time --------------------------------------------------------------

    def work(self, work: Coroutine[None, None, None]) -> None:
        """Do something that waits; no other request is taken meanwhile."""
        self._busy = asyncio.get_running_loop().create_task(work)
        self._busy.add_done_callback(self._worked)
        self._rest_or_read()
        self.rebalance()

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._busy = None
        if not task.cancelled() and task.exception() is not None:
            # A defect, or a server that broke off in the middle: nothing is let through after it.
            self.ledger.tell("refused", f"a connection was cut: {task.exception()!r}")
            self.cut()
            return
        self._rest_or_read()
        self.rebalance()
        self._go_on()
        self.check_end()

    async def stream(self, parts: Sequence[bytes | Request]) -> None:
        """Send pieces and large requests in order, no faster than the server takes them."""
        for part in parts:
            if isinstance(part, bytes):
                self.send(part)
            elif part.file is None:
                self.send(part.raw)
            else:
                part.file.seek(0)
                while piece := part.file.read(_PIECE_BYTES):
                    if self._server_full is not None:
                        await self._server_full.wait()
                    self.send(piece)

    async def stream_all(self, parts: Sequence[bytes | Request]) -> None:
        """The same, for what is not sent again."""
        try:
            await self.stream(parts)
        finally:
            for part in parts:
                if isinstance(part, Request):
                    part.close()

    async def ask(self, *commands: Sequence[bytes]) -> list[Reply]:
        """Ask the server in the guard's own name; whole replies."""
        return await self.asked(commands, whole=True)

    async def asked(self, commands: Sequence[Sequence[bytes]], *, whole: bool) -> list[Reply]:
        if not commands:
            return []
        answers: list[Reply] = []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell(reply: Reply) -> None:
            answers.append(reply)
            if len(answers) == len(commands) and not done.done():
                done.set_result(None)

        for command in commands:
            self.pairing.expect(Silent(tell, whole=whole or is_wanted_whole(tuple(command))))
        self.send(b"".join(encode(*command) for command in commands))
        self.rebalance()
        await done
        return answers

    async def told(self, request: Request) -> bytes:
        """Forward a request, and return the first line of its reply."""
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def tell(line: bytes) -> None:
            if not done.done():
                done.set_result(line)

        self.pairing.expect(Told(tell))
        self.send(request.raw)
        return await done
