"""What the launcher says and hears: lines of JSON, and descriptors handed over.

Rules:
- Outwards, to Handrail: one JSON object a line on a stream socket.
- Inwards, to the processes of a confinement: one JSON object a packet, descriptors beside it.
- The other side's end is `None`, never an error: it may be killed at any time.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

PACKET_BYTES = 64 * 1024
# The kernel hands over at most 253 descriptors in one message.
MOST_DESCRIPTORS = 253


class Control:
    """The line to Handrail."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")

    def send(self, **message: Any) -> None:
        """Say one thing; said to nobody when Handrail has gone."""
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return

    def receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None when Handrail has gone."""
        try:
            line = self._lines.readline()
        except OSError:
            return None
        return json.loads(line) if line else None


class Inner:
    """The two ends between the launcher and what runs inside a confinement."""

    def __init__(self) -> None:
        self._outer, self._inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def be_outer(self) -> None:
        """Close the other end, so that the death of all inside is seen."""
        self._inner.close()

    def be_inner(self) -> None:
        """Close the other end."""
        self._outer.close()

    def send(self, descriptors: tuple[int, ...] = (), **message: Any) -> None:
        """Say one thing from the inside."""
        packet = json.dumps(message).encode()[:PACKET_BYTES]
        socket.send_fds(self._inner, [packet], list(descriptors))

    def receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """Wait for what the inside says; None when all inside have ended."""
        packet, descriptors, _flags, _address = socket.recv_fds(
            self._outer, PACKET_BYTES, MOST_DESCRIPTORS
        )
        return (json.loads(packet) if packet else None), descriptors


class Gate:
    """Holds the script before its first instruction, and tells why it could not begin.

    The death of whoever holds the key leaves the gate shut for ever: the script then never runs.
    """

    def __init__(self) -> None:
        self._go_read, self._go_write = os.pipe()
        self._failed_read, self._failed_write = os.pipe()

    def hold_key(self) -> None:
        """Be the side that opens."""
        os.close(self._go_read)
        os.close(self._failed_write)

    def stand_before(self) -> None:
        """Be the side that waits."""
        os.close(self._go_write)
        os.close(self._failed_read)

    def leave(self) -> None:
        """Be neither side."""
        for descriptor in (self._go_read, self._go_write, self._failed_read, self._failed_write):
            os.close(descriptor)

    def wait(self) -> bool:
        """Return whether the gate was opened; False when nobody is left who could."""
        return os.read(self._go_read, 1) == b"g"

    def open(self) -> None:
        """Let the script begin."""
        os.write(self._go_write, b"g")

    def fail(self, stage: str, error: OSError) -> None:
        """Say why the script could not begin."""
        os.write(self._failed_write, json.dumps([stage, error.errno]).encode())

    def failure(self) -> list[Any] | None:
        """Wait until the script has begun or failed; return `[stage, errno]` when it failed.

        Every descriptor of the other side closes on exec, so the end of the pipe is the beginning
        of the script.
        """
        text = os.read(self._failed_read, PACKET_BYTES)
        return json.loads(text) if text else None
