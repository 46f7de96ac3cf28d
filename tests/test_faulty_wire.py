"""The faulty wire of the tests: what goes wrong is what was asked for, and nothing more."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.faults import HOST, Proxy, proxy

_END_S = 10


@contextmanager
def _echoed() -> Iterator[Proxy]:
    """Give a wire to a server that sends back what it gets."""
    with socket.create_server((HOST, 0)) as listener:

        def echo(connection: socket.socket) -> None:
            with connection:
                try:
                    while piece := connection.recv(100):
                        connection.sendall(piece)
                except ConnectionError:
                    return

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=echo, args=(connection,), daemon=True).start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            with proxy(HOST, listener.getsockname()[1]) as wire:
                yield wire
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _connected(wire: Proxy) -> socket.socket:
    return socket.create_connection((HOST, wire.port), timeout=_END_S)


def test_a_connection_whose_first_byte_is_cut_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut before the second direction is carried leaves no connection that nobody answers."""
    start = threading.Thread.start

    def start_and_wait(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "faults-up":
            thread.join(_END_S)

    with _echoed() as wire:
        monkeypatch.setattr(threading.Thread, "start", start_and_wait)
        wire.cut_after("up", 1)
        with _connected(wire) as client:
            client.sendall(b"x")
            wire.wait_passed("up", 1)
            wire.wait_closed(_END_S)


def test_a_fault_happens_to_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two connections that reach the point of a cut together, one is cut, and one whole."""
    send, is_sending, goes_on = Proxy._send, threading.Event(), threading.Event()

    def hold_the_first(wire: Proxy, pair: Any, goal: socket.socket, piece: bytes) -> None:
        if piece == b"cut":
            is_sending.set()
            assert goes_on.wait(_END_S)
        send(wire, pair, goal, piece)

    monkeypatch.setattr(Proxy, "_send", hold_the_first)
    with _echoed() as wire, _connected(wire) as first, _connected(wire) as second:
        wire.cut_after("up", 3)
        first.sendall(b"cut")
        assert is_sending.wait(_END_S)
        second.sendall(b"whole")
        try:
            wire.wait_passed("up", 5, _END_S)
            assert second.recv(100) == b"whole"
        finally:
            goes_on.set()
        _wait_ended(first)
        second.sendall(b"still")
        assert second.recv(100) == b"still"


def _wait_ended(client: socket.socket) -> None:
    """Wait until the other side ends the connection; what comes before is not looked at."""
    with contextlib.suppress(ConnectionError):
        while client.recv(100):
            pass


def test_a_client_does_not_wait_for_a_server_that_is_not_there() -> None:
    """Where nobody listens behind the wire, whoever connects is told so at once."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    with proxy(HOST, port) as wire, _connected(wire) as client:
        _wait_ended(client)
