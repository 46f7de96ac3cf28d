"""A faulty network on this machine: a TCP proxy whose wire can be slow, cut, or closed half.

Rules:
- It listens on 127.0.0.1 and passes bytes on, each direction in a thread of its own, until it is
  told to do otherwise; what it is told holds for connections that are open and for new ones.
- It waits for conditions, and for time only where a delay is what was asked for.
- Leaving it closes everything, and returns when its threads have ended.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

HOST = "127.0.0.1"
_PIECE_BYTES = 16 * 1024
_END_S = 20
_LOOK_S = 0.1  # how soon a sender notices that its connection was cut
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset

Way = Literal["up", "down"]


@dataclass(eq=False)
class _Pair:
    """One connection: the client's socket and the server's."""

    client: socket.socket
    server: socket.socket
    threads: list[threading.Thread] = field(default_factory=list)
    is_cut: bool = False

    def ends(self, way: Way) -> tuple[socket.socket, socket.socket]:
        """Return where bytes of a direction come from, and where they go."""
        return (self.client, self.server) if way == "up" else (self.server, self.client)


class Proxy:
    """A wire to one server. `up` is from the client to the server, `down` the answers."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._changed = threading.Condition()
        self._pairs: list[_Pair] = []
        self._delay_s = 0.0
        self._bytes_a_second = 0
        self._stopped: set[Way] = set()
        # After how many bytes in all, and what then: `cut` or `stop`.
        self._faults: dict[Way, tuple[int, str]] = {}
        # Before a piece is sent, and after: whoever has its answer finds it in the first.
        self._taken: dict[Way, int] = {"up": 0, "down": 0}
        self._passed: dict[Way, int] = {"up": 0, "down": 0}
        self._is_over = False
        self._accepting = threading.Thread(target=self._accept, name="faults-accept", daemon=True)
        self._accepting.start()

    # --- what goes wrong -----------------------------------------------------------------------

    def delay(self, seconds: float) -> None:
        """Hold every piece back for so long."""
        self._delay_s = seconds

    def throttle(self, bytes_a_second: int) -> None:
        """Pass so much a second in each direction; 0 for all that comes."""
        self._bytes_a_second = bytes_a_second

    def stop(self, *ways: Way) -> None:
        """Pass nothing on any more, and close nothing: a cable that was pulled."""
        with self._changed:
            self._stopped = set(ways) or {"up", "down"}
            self._changed.notify_all()

    def stop_after(self, way: Way, count: int) -> None:
        """Do so in one direction once that many more bytes have passed, if need be within one."""
        with self._changed:
            self._faults[way] = (self._taken[way] + count, "stop")

    def go_on(self) -> None:
        """Undo `stop`; what has waited is passed on."""
        with self._changed:
            self._stopped = set()
            self._changed.notify_all()

    def cut(self) -> None:
        """Break every connection at once, by a reset, on both sides."""
        with self._changed:
            pairs = tuple(self._pairs)
        for pair in pairs:
            self._break(pair)

    def cut_after(self, way: Way, count: int) -> None:
        """Break the connection once so many more bytes have passed in a direction."""
        with self._changed:
            self._faults[way] = (self._taken[way] + count, "cut")

    def mend(self) -> None:
        """Forget what was to happen after some bytes and has not happened yet."""
        with self._changed:
            self._faults.clear()

    def close_half(self, way: Way) -> None:
        """Say the end of one direction on every connection; the other one goes on."""
        with self._changed:
            pairs = tuple(self._pairs)
        for pair in pairs:
            with contextlib.suppress(OSError):
                pair.ends(way)[1].shutdown(socket.SHUT_WR)

    # --- what a test waits for -----------------------------------------------------------------

    def taken(self, way: Way) -> int:
        """Return how many bytes have been passed on, or are about to be, in a direction."""
        with self._changed:
            return self._taken[way]

    def wait_passed(self, way: Way, count: int, timeout_s: float = _END_S) -> None:
        """Wait until so many bytes in all have been passed on in a direction."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._passed[way] >= count, timeout_s):
                raise TimeoutError(f"{self._passed[way]} of {count} bytes passed {way}")

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        with self._changed:
            return len(self._pairs)

    def wait_closed(self, timeout_s: float = _END_S) -> None:
        """Wait until no connection is open."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._pairs, timeout_s):
                raise TimeoutError(f"{len(self._pairs)} connections are open")

    # --- the wire itself -----------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                if self._is_over:
                    return
                continue
            try:
                server = socket.create_connection(self._target, timeout=_END_S)
            except OSError:
                # Nobody is there: the client must not wait for an answer.
                client.close()
                continue
            for end in (client, server):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(client, server)
            ways: tuple[Way, ...] = ("up", "down")
            threads = [
                threading.Thread(
                    target=self._carry, args=(pair, way), name=f"faults-{way}", daemon=True
                )
                for way in ways
            ]
            # A copy: the first of them may have ended, and left, before the second is started.
            pair.threads = list(threads)
            with self._changed:
                self._pairs.append(pair)
            for thread in threads:
                thread.start()

    def _carry(self, pair: _Pair, way: Way) -> None:
        """Pass one direction of one connection on, up to its end."""
        source, goal = pair.ends(way)
        try:
            while piece := source.recv(_PIECE_BYTES):
                while piece and self._wait_allowed(pair, way, len(piece)):
                    piece = piece[self._pass(pair, way, goal, piece) :]
            with contextlib.suppress(OSError):
                goal.shutdown(socket.SHUT_WR)
        except OSError:
            self._break(pair)
        finally:
            self._ended(pair)

    def _wait_allowed(self, pair: _Pair, way: Way, size: int) -> bool:
        """Wait until a piece may be passed on; return False where it never will be."""
        with self._changed:
            self._changed.wait_for(lambda: way not in self._stopped or self._is_over or pair.is_cut)
            slow_s = size / self._bytes_a_second if self._bytes_a_second else 0.0
            # A delay that nothing but the end of the proxy, or of this connection, cuts short.
            self._changed.wait_for(lambda: self._is_over or pair.is_cut, self._delay_s + slow_s)
            return not (self._is_over or pair.is_cut)

    def _pass(self, pair: _Pair, way: Way, goal: socket.socket, piece: bytes) -> int:
        """Send a piece up to where something is to happen; return how much of it that was."""
        with self._changed:
            size, fault = self._taken_by_fault(way, len(piece))
            self._taken[way] += size
            self._stopped |= {way} if fault == "stop" else set()
        self._send(pair, goal, piece[:size])
        with self._changed:
            self._passed[way] += size
            self._changed.notify_all()
        if fault == "cut":
            self._break(pair)
        return size

    def _taken_by_fault(self, way: Way, size: int) -> tuple[int, str]:
        """Return how much of a piece may pass, and what happens then; it happens to one alone."""
        at, fault = self._faults.get(way, (0, ""))
        if not fault or at - self._taken[way] > size:
            return size, ""
        del self._faults[way]
        return at - self._taken[way], fault

    def _send(self, pair: _Pair, goal: socket.socket, piece: bytes) -> None:
        """Send all of it, also to one that reads slowly, as long as the wire is whole."""
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[goal.send(rest, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                if self._is_over or pair.is_cut:
                    raise ConnectionAbortedError from None
                select.select((), (goal,), (), _LOOK_S)

    def _break(self, pair: _Pair) -> None:
        """Reset both ends; the threads that wait for them end."""
        with self._changed:
            if pair.is_cut:
                return
            pair.is_cut = True
            self._changed.notify_all()
        for end in (pair.client, pair.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            # Wakes the thread that reads; the reset goes out when the last of them closes.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)

    def _ended(self, pair: _Pair) -> None:
        """One direction has ended: with the second one the connection is closed."""
        current = threading.current_thread()
        with self._changed:
            pair.threads.remove(current)
            if pair.threads:
                return
            self._pairs.remove(pair)
            for end in (pair.client, pair.server):
                end.close()
            self._changed.notify_all()

    def close(self) -> None:
        """End everything, and wait for it."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(_END_S)
        self.cut()
        self.wait_closed()


@contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """Give a wire to a server of this machine."""
    made = Proxy(host, port)
    try:
        yield made
    finally:
        made.close()
