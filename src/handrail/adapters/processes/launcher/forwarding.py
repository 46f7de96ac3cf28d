"""Carries bytes from a confinement to the few sockets outside that it may reach.

Rules:
- A listener is made inside, where its address lives, and served from outside, where the real one
  does: a socket belongs to the network it was made in, whoever accepts on it.
- Only the declared addresses are listened on: any other port inside answers to nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct
import threading

GET_FLAGS, SET_FLAGS, IS_UP = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
PIECE_BYTES = 64 * 1024
CONNECT_TIMEOUT_S = 30


def raise_loopback() -> None:
    """Switch on the loopback of a new network, the only interface that it has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(any_socket, GET_FLAGS, asked))[1]
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh22x", b"lo", flags | IS_UP))


def listen(host: str, port: int) -> list[socket.socket]:
    """Return listeners on every loopback address that `host` stands for.

    Raises:
        OSError: `host` is not a loopback address or `localhost`, so it cannot exist inside.
    """
    return [_listen(address, port) for address in _addresses(host)]


def _addresses(host: str) -> list[str]:
    if host == "localhost":
        return ["127.0.0.1", "::1"] if _has_version_6() else ["127.0.0.1"]
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return [host]
    raise OSError(99, "not a loopback address, so it cannot be reached inside", host)


def _has_version_6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as any_socket:
        any_socket.bind(("::1", 0))
        return True
    return False


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((address, port))
    listener.listen(128)
    return listener


def serve(listener: socket.socket, host: str) -> None:
    """Accept on `listener` from now on, each connection carried to `host` at the same port."""
    threading.Thread(target=_accept, args=(listener, host), daemon=True).start()


def _accept(listener: socket.socket, host: str) -> None:
    port = listener.getsockname()[1]
    while True:
        inside, _ = listener.accept()
        threading.Thread(target=_carry, args=(inside, host, port), daemon=True).start()


def _carry(inside: socket.socket, host: str, port: int) -> None:
    with inside:
        try:
            outside = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
        except OSError:
            return  # the script sees its connection closed: the real one does not answer
        with outside:
            outside.settimeout(None)
            back = threading.Thread(target=_copy, args=(outside, inside), daemon=True)
            back.start()
            _copy(inside, outside)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
