"""Connections whose every byte has an end in time, to addresses that may be reached.

Rules:
- The address is looked up here, judged, and then connected to: a name that means another address
  a moment later changes nothing.
- A host that the app declares may be anywhere. Any other (of a redirect, of a giver of tokens, of
  an image that a specification names) is public, or as near as the registry that named it: on this
  machine where that is, on a private network where that is. Addresses at which clouds hand out
  their secrets are reached for nobody who does not declare them.
- `http://` goes to this machine alone.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import httpcore

Where = Literal["here", "private", "public", "never"]
_SHORTEST_S = 0.001
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SECRETS = ipaddress.ip_address("fd00:ec2::254")  # Amazon's, which is not link-local


class NotReachedError(Exception):
    """An address may not be reached, or there is none now. The text is for people."""

    def __init__(self, why: str, *, is_passing: bool) -> None:
        super().__init__(why)
        self.is_passing = is_passing


def is_here(host: str) -> bool:
    """Whether a name is this machine's own, told without asking anybody."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def where(address: str) -> Where:
    """Return how near an address is."""
    ip = _meant(ipaddress.ip_address(address.partition("%")[0]))
    if ip.is_loopback:
        return "here"
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip == _SECRETS:
        return "never"
    return "public" if ip.is_global else "private"


def _meant(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the old address that a new one stands for: mapped, 6to4, or behind NAT64."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


class _Until(threading.local):
    at_s = 0.0


class Reach(httpcore.NetworkBackend):
    """Makes the connections of one question to one registry."""

    def __init__(
        self, home: str, *, is_declared: bool, elapsed_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep the registry's host name, and whether it may be anywhere."""
        self._home = home
        self._is_declared = is_declared
        self._elapsed_s = elapsed_s
        self._near: Where = "public"
        self._until = _Until()
        self._inner = httpcore.SyncBackend()

    def begin(self, timeout_s: float) -> None:
        """Let all that this thread does from now on end in `timeout_s`."""
        self._until.at_s = self._elapsed_s() + timeout_s

    def left_s(self) -> float:
        """Return how much of that is left; never zero, which would mean for ever."""
        return max(self._until.at_s - self._elapsed_s(), _SHORTEST_S)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of `host` that answers and may be reached."""
        del timeout, local_address, socket_options
        last: Exception = NotReachedError("nobody knows its name", is_passing=True)
        for address in _addresses(host, port):
            near = where(address)
            if not self._may(host, near):
                last = NotReachedError("it is not public", is_passing=False)
                continue
            try:
                opened = self._inner.connect_tcp(address, port, self.left_s())
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
                continue
            if host == self._home:
                self._near = near
            return _Stream(opened, self)
        raise last

    def _may(self, host: str, near: Where) -> bool:
        if is_here(host):
            return near == "here" and (self._is_declared or self._near == "here")
        if host == self._home and self._is_declared:
            return True
        return near == "public" or (near == self._near and near != "never")


class _Stream(httpcore.NetworkStream):
    """A connection on which each call ends when the whole question does."""

    def __init__(self, inner: httpcore.NetworkStream, reach: Reach) -> None:
        self._inner = inner
        self._reach = reach

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        return self._inner.read(max_bytes, self._reach.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        self._inner.write(buffer, self._reach.left_s())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        del timeout
        return _Stream(
            self._inner.start_tls(ssl_context, server_hostname, self._reach.left_s()), self._reach
        )

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NotReachedError("nobody knows its name", is_passing=True) from error
    return list(dict.fromkeys(str(one[4][0]) for one in found))
