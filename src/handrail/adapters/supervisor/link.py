"""Calls of supervisord, by XML-RPC over its socket or over HTTP.

Rules:
- Every call has a time, and every answer a size.
- A password in the address enters no error.
"""

from __future__ import annotations

import base64
import http.client
import socket
import xmlrpc.client
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.parsers.expat import ExpatError

from handrail.errors import PlatformError

BAD_NAME = 10
NOT_RUNNING = 70
ALREADY_ADDED = 90
STILL_RUNNING = 91
_TIMEOUT_S = 10.0
_ANSWER_BYTES = 16 * 1024 * 1024
_FOUND = 200
_NOT_ALLOWED = frozenset({401, 403})


class FaultError(PlatformError):
    """Supervisord answered with a fault.

    Attributes:
        number: supervisord's own.
    """

    number = 0


def password_of(address: str) -> str:
    """Return the password that stands in an address; empty for none."""
    try:
        return unquote(urlsplit(address).password or "")
    except ValueError:
        return ""


class _Local(http.client.HTTPConnection):
    """HTTP over a socket of this machine."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Link:
    """One supervisord.

    Attributes:
        endpoint: where it is, without a password.
    """

    def __init__(self, address: str, timeout_s: float = _TIMEOUT_S) -> None:
        """Read an address: `unix:///run/supervisor.sock`, `http://user:password@127.0.0.1:9001`.

        Raises:
            PlatformError: it is neither.
        """
        self._timeout_s = timeout_s
        try:
            parts = urlsplit(address)
            host, port = parts.hostname or "", parts.port or 80
        except ValueError:
            parts, host, port = urlsplit(""), "", 0
        self._path = unquote(parts.path) if parts.scheme == "unix" and not parts.netloc else ""
        if not self._path.startswith("/") and not (parts.scheme == "http" and host):
            raise PlatformError(
                "platform.failed",
                "the address of supervisord cannot be read",
                hint="write unix:///path/of/its.sock, or http://127.0.0.1:9001",
            )
        self._host, self._port = host, port
        self.endpoint = self._path or f"{host}:{port}"
        self._headers = {"Content-Type": "text/xml", "Accept": "text/xml"}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"

    def call(self, method: str, *arguments: object) -> Any:
        """Return what `supervisor.method` gives.

        Raises:
            FaultError: supervisord says what was wrong.
            PlatformError: it does not answer, or lets nobody in.
        """
        return self._call(f"supervisor.{method}", arguments)

    def call_each(self, method: str, names: Sequence[str]) -> list[Any]:
        """Return what `supervisor.method` gives each name by one request; None for an unknown one.

        Raises:
            FaultError: supervisord says what was wrong.
            PlatformError: it does not answer, or lets nobody in.
        """
        if not names:
            return []
        calls = [{"methodName": f"supervisor.{method}", "params": [name]} for name in names]
        answers = self._call("system.multicall", (calls,))
        for answer in answers:
            if answer.get("faultCode", BAD_NAME) != BAD_NAME:
                raise self._fault(xmlrpc.client.Fault(**answer))
        return [None if "faultCode" in answer else answer for answer in answers]

    def _call(self, method: str, arguments: tuple[object, ...]) -> Any:
        answer = self._asked(xmlrpc.client.dumps(arguments, method).encode())  # type: ignore[arg-type]
        try:
            (value,), _ = xmlrpc.client.loads(answer)
        except xmlrpc.client.Fault as fault:
            raise self._fault(fault) from fault
        except (ExpatError, ValueError, xmlrpc.client.Error) as error:
            raise self._failed("its answer is not XML-RPC") from error
        return value

    def _asked(self, body: bytes) -> bytes:
        connection = (
            _Local(self._path, self._timeout_s)
            if self._path
            else http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        )
        try:
            connection.request("POST", "/RPC2", body, self._headers)
            response = connection.getresponse()
            answer = response.read(_ANSWER_BYTES + 1)
        except PermissionError as error:
            raise self._denied("this user may not use its socket") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._away(error) from error
        finally:
            connection.close()
        if response.status in _NOT_ALLOWED:
            raise self._denied("it lets nobody in by the address at hand")
        if response.status != _FOUND or len(answer) > _ANSWER_BYTES:
            raise self._failed(f"it answers {response.status} with {len(answer)} bytes")
        return answer

    def _fault(self, fault: xmlrpc.client.Fault) -> FaultError:
        made = FaultError("platform.failed", f"supervisord at {self.endpoint}: {fault.faultString}")
        made.number = fault.faultCode
        return made

    def _failed(self, why: str) -> PlatformError:
        return PlatformError("platform.failed", f"supervisord at {self.endpoint}: {why}")

    def _denied(self, why: str) -> PlatformError:
        return PlatformError(
            "platform.denied",
            f"supervisord at {self.endpoint}: {why}",
            hint="look at [unix_http_server] or [inet_http_server] of its configuration",
        )

    def _away(self, error: Exception) -> PlatformError:
        said = getattr(error, "strerror", "") or type(error).__name__
        made = PlatformError(
            "platform.unreachable",
            f"supervisord at {self.endpoint} does not answer: {said.lower()}",
            hint="start it, or look at the platform's `url`",
        )
        made.is_passing = True
        return made
