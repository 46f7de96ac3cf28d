"""Probes of health: http, tcp and command.

Rules:
- An ill target, a check that cannot be understood, and no answer in time are results, never errors:
  what cannot be seen to be well is ill.
- `http` is healthy at status 200-399 (a redirect is an answer, and is not followed) and, with
  `expect`, when that text is in the first 64 KB. No proxy is used, and certificates are checked.
- `tcp` is healthy when a connection is made; `command` when it exits with 0.
- The time is the whole probe's: name lookup, every address, TLS and each byte together.
- What was seen never holds the target's own words: a page or an output may hold a secret.
"""

from __future__ import annotations

import base64
import http.client
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from handrail.ports import CheckResult

_READ_BYTES = 64 * 1024
_HEALTHY_STATUS = range(200, 400)


class Probes:
    """`ports.Checks` from this machine."""

    def __init__(
        self, root: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Keep where a `command` runs (the present directory) and what it inherits (all)."""
        self._root = root
        self._environment = environment

    def probe(self, check: Mapping[str, Any], timeout_s: float) -> CheckResult:
        """Probe once; see `ports.Checks`."""
        match check:
            case {"http": str(url), **rest}:
                expected = str(rest.get("expect", ""))
                return _within(timeout_s, lambda opened: _http(url, expected, timeout_s, opened))
            case {"tcp": str(address)}:
                return _within(timeout_s, lambda opened: _tcp(address, timeout_s, opened))
            case {"command": [_, *_] as argv}:
                return self._command([str(word) for word in argv], timeout_s)
            case _:
                return CheckResult(healthy=False, seen="no check that can be made from here")

    def _command(self, argv: Sequence[str], timeout_s: float) -> CheckResult:
        try:
            process = subprocess.Popen(
                argv,
                cwd=self._root,
                env=None if self._environment is None else dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return CheckResult(healthy=False, seen=f"could not be started: {_reason(error)}")
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return CheckResult(healthy=False, seen=_late(timeout_s))
        finally:
            _end(process)
        return CheckResult(healthy=code == 0, seen=f"exit {code}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a probe's whole session: what it started must not outlive it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _within(timeout_s: float, attempt: Callable[[list[socket.socket]], CheckResult]) -> CheckResult:
    """Return what `attempt` saw, or that it was late.

    A thread, because a name lookup cannot be given a time. Late, its sockets are shut under it, and
    so it ends too.
    """
    opened: list[socket.socket] = []
    results: list[CheckResult] = []
    thread = threading.Thread(target=lambda: results.append(_tried(attempt, opened)), daemon=True)
    thread.start()
    thread.join(timeout_s)
    if results:
        return results[0]
    for one in opened:
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # it ended by itself in this moment
    return CheckResult(healthy=False, seen=_late(timeout_s))


def _tried(
    attempt: Callable[[list[socket.socket]], CheckResult], opened: list[socket.socket]
) -> CheckResult:
    try:
        return attempt(opened)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return CheckResult(healthy=False, seen=_reason(error))


def _reason(error: Exception) -> str:  # noqa: PLR0911  # one return for each kind of failure
    match error:
        case TimeoutError():
            return "no answer in time"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case ssl.SSLError():
            return "no TLS connection could be made"
        case socket.gaierror():
            return "its name is not known"
        case OSError() if error.strerror:
            return error.strerror.lower()
        case http.client.HTTPException():
            return "its answer is not HTTP"
        case _:
            return "the address cannot be read"


def _late(timeout_s: float) -> str:
    return f"no answer within {timeout_s:g} s"


def _tcp(address: str, timeout_s: float, opened: list[socket.socket]) -> CheckResult:
    parts = urlsplit(f"//{address}")
    if parts.hostname is None or parts.port is None:
        raise ValueError(address)
    with socket.create_connection((parts.hostname, parts.port), timeout_s) as connection:
        opened.append(connection)
        return CheckResult(healthy=True, seen="accepts connections")


def _http(url: str, expected: str, timeout_s: float, opened: list[socket.socket]) -> CheckResult:
    parts = urlsplit(url)
    connection = _connection(parts, timeout_s)
    try:
        connection.connect()
        opened.append(connection.sock)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers=_headers(parts))
        response = connection.getresponse()
        found = not expected or expected.encode() in response.read(_READ_BYTES)
    finally:
        connection.close()
    seen = f"answers {response.status}"
    if response.status in _HEALTHY_STATUS and not found:
        return CheckResult(healthy=False, seen=f"{seen} without the expected text")
    return CheckResult(healthy=response.status in _HEALTHY_STATUS, seen=seen)


def _connection(parts: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    if not parts.hostname:
        raise ValueError("no host")
    match parts.scheme:
        case "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        case "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout_s, context=context
            )
        case _:
            raise ValueError("no scheme of the web")


def _headers(parts: SplitResult) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "handrail"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return headers
