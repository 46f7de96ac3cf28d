"""Asking a server: one HTTP request, or a stream of events, and its errors as Handrail's own.

Rules:
- A token goes to a server that has proven who it is: https with the system's authorities or those
  of HANDRAIL_CA, a socket of this machine, or plain http to this machine alone.
- No redirect is followed, and no proxy asked.
- A request that begins something carries an Idempotency-Key: it is sent again when the connection
  broke, and still counts once.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import ssl
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from handrail.errors import CODES, HandrailError, Place, RefusedError, StoreError, UsageError

T = TypeVar("T")
_TIMEOUT_S = 600.0
# A stream says at least so often that it is still there.
_STREAM_S = 60.0
_ATTEMPTS = 4
_FIRST_WAIT_S = 0.3
_LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})
_MOST_BYTES = 256 * 1024 * 1024


class Server:
    """The server of HANDRAIL_URL, as the person of the token sees it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Connect to nothing yet.

        Raises:
            UsageError: the address is not one, or there is no token.
            RefusedError: the token would go unencrypted, or others can read its file.
        """
        self.address = environment["HANDRAIL_URL"].rstrip("/")
        parts = urlsplit(self.address)
        self._scheme, self._path = parts.scheme, parts.path
        if parts.scheme not in {"http", "https", "unix"} or (
            parts.scheme != "unix" and not parts.hostname
        ):
            raise UsageError(
                "usage", f"HANDRAIL_URL is `{self.address}`", hint="https://HOST:PORT or unix:/PATH"
            )
        try:
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError as error:
            raise UsageError("usage", f"HANDRAIL_URL is `{self.address}`: {error}") from error
        if (
            parts.scheme == "http"
            and self._host not in _LOCAL
            and environment.get("HANDRAIL_INSECURE") != "1"
        ):
            raise RefusedError(
                "remote.insecure",
                f"a token would go to {self._host} unencrypted",
                hint="use https://, or set HANDRAIL_INSECURE=1 where the network is your own",
            )
        self._authority = environment.get("HANDRAIL_CA") or None
        self._token = _token(environment)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return the decoded answer.

        Raises:
            HandrailError: as the server says; `UnansweredError` where it does not answer.
        """
        headers = self._headers(body)
        for attempt in range(_ATTEMPTS):
            try:
                connection = self._connected(_TIMEOUT_S)
                try:
                    answer = self._sent(connection, method, path, headers, body)
                    content = answer.read(_MOST_BYTES)
                    return self._decoded(answer.status, content)
                finally:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                # Who is only slow would do the same again and again.
                is_final = isinstance(error, ssl.SSLError | TimeoutError)
                if attempt + 1 == _ATTEMPTS or is_final:
                    raise self._unreachable(error) from error
                time.sleep(_FIRST_WAIT_S * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def lines(self, path: str, last: int = 0) -> Iterator[str]:
        """Yield the lines of a streamed answer, without their ends, as they come.

        Raises:
            HandrailError: as the server says, or the connection broke.
        """
        headers = self._headers(None) | ({"Last-Event-ID": str(last)} if last else {})
        connection = self._connected(_STREAM_S)
        try:
            answer = self._sent(connection, "GET", path, headers, None)
            if answer.status != http.client.OK:
                self._decoded(answer.status, answer.read(_MOST_BYTES))
            while line := answer.readline():
                yield line.decode("utf-8", "replace").rstrip("\n")
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _headers(self, body: object) -> dict[str, str]:
        found = {"Authorization": f"Bearer {self._token}", "Accept": "*/*"}
        if body is not None:
            found["Content-Type"] = "application/json"
            found["Idempotency-Key"] = secrets.token_hex(16)
        return found

    def _connected(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._scheme == "unix":
            return _SocketConnection(self._path, timeout_s)
        if self._scheme == "http":
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            context = ssl.create_default_context(cafile=self._authority)
        except OSError as error:
            said = f"HANDRAIL_CA is {self._authority}: {error.strerror or error}"
            raise UsageError("remote.insecure", said) from error
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout_s, context=context
        )

    def _sent(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: object,
    ) -> http.client.HTTPResponse:
        prefix = "" if self._scheme == "unix" else self._path
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, prefix + path, content, dict(headers))
        return connection.getresponse()

    def _decoded(self, status: int, content: bytes) -> Any:
        try:
            value = json.loads(content)
        except ValueError as error:
            said = f"{self.address} answered {status}, and no JSON"
            raise HandrailError(
                "remote.answer", said, hint="is it a Handrail server, and of this version?"
            ) from error
        if status < 300:  # noqa: PLR2004  well
            return value
        raise error_of(value if isinstance(value, dict) else {}, f"{self.address}: {status}")

    def _unreachable(self, error: Exception) -> HandrailError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return RefusedError(
                "remote.insecure",
                f"{self.address} does not prove who it is: {error.verify_message}",
                hint="HANDRAIL_CA=FILE names the authority that signed its certificate",
            )
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return StoreError(
            "remote.unreachable",
            f"{self.address} does not answer: {said}",
            hint="what was begun there goes on; `handrail` shows it once the server answers",
        )


class StoppedError(HandrailError):
    """Guards keep a plan from running; the server's answer has the plan.

    Attributes:
        judged: the plan as JSON, and over many targets the fan-out.
    """

    judged: Mapping[str, Any]


def error_of(problem: Mapping[str, Any], otherwise: str) -> HandrailError:
    """Return the error that a problem document tells, with the exit code of its own place."""
    code = str(problem.get("code", "remote.answer"))
    said = str(problem.get("detail", otherwise))
    hint = str(problem.get("hint", ""))
    file, line = problem.get("file"), problem.get("line")
    at = Place(str(file), line if isinstance(line, int) else None) if file else None
    kind = HandrailError
    if isinstance(problem.get("plan"), dict):
        kind = StoppedError
    error = kind(code if code in CODES else "remote.answer", said, at=at, hint=hint)
    exit_code = problem.get("exit_code")
    error.exit_code = exit_code if isinstance(exit_code, int) else 1
    if isinstance(error, StoppedError):
        error.judged = problem
    return error


def _token(environment: Mapping[str, str]) -> str:
    """Return the token, from its variable or its file.

    Raises:
        UsageError: there is none.
        RefusedError: others can read the file.
    """
    token = environment.get("HANDRAIL_TOKEN", "")
    name = environment.get("HANDRAIL_TOKEN_FILE", "")
    if not token and name:
        path = Path(name).expanduser()
        try:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise RefusedError(
                    "remote.insecure", f"others can read {path}", hint=f"chmod 600 {path}"
                )
            token = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            said = f"HANDRAIL_TOKEN_FILE is {path}, which cannot be read"
            raise UsageError("usage", said) from error
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise UsageError(
            "auth.missing",
            "HANDRAIL_URL is set, and no token is",
            hint="set HANDRAIL_TOKEN or HANDRAIL_TOKEN_FILE; an admin makes one: "
            "handrail tokens create",
        )
    return token


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a socket of this machine's file system."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._file = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._file))


def value_of(found: object, kind: type[T]) -> T:
    """Return an answer as the core's own value.

    Raises:
        HandrailError: it is of another version's form.
    """
    import msgspec

    from handrail.plans import decoding

    try:
        return decoding.decode(found, kind)
    except msgspec.ValidationError as error:
        raise HandrailError(
            "remote.answer",
            f"the server's answer is not understood: {error}",
            hint="server and command line should be of one version",
        ) from error
