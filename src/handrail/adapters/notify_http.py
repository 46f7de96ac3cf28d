"""One POST to a web hook: no redirect, a checked certificate, and an end in time.

Rules:
- 2xx is taken. 408, 429, 5xx, and no answer are worth another attempt; anything else is not.
- A redirect is not followed: a hook that moves is declared anew, not believed.
- Not a word of an answer, and not of the address, is in an error: either may hold a secret.
- http:// goes to this machine alone, unless somebody declared that it may go elsewhere.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from handrail.errors import NotifyError

TIMEOUT_S = 15.0
_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_SERVER_ERRORS = range(500, 600)
_TAKEN = range(200, 300)
_REDIRECTS = range(300, 400)


@dataclass(frozen=True)
class Hook:
    """Where a notice is sent.

    Attributes:
        url: with its secrets.
        authority: file of the certificates that are trusted besides the system's; None for none.
        plain: whether http:// may go to another machine.
        timeout_s: of the whole attempt, from the first byte to the status line.
    """

    url: str
    authority: Path | None = None
    plain: bool = False
    timeout_s: float = TIMEOUT_S


def post(
    hook: Hook,
    body: bytes,
    headers: Mapping[str, str],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Send `body` once.

    Raises:
        NotifyError: it was not taken.
    """
    status, retry_after = _answer(hook, body, headers)
    if status in _TAKEN:
        return
    if status in _REDIRECTS:
        raise refused(f"it answers {status}: redirects are not followed", is_passing=False)
    is_passing = status in _PASSING or status in _SERVER_ERRORS
    raise refused(
        f"it answers {status}",
        is_passing=is_passing,
        retry_after_s=_seconds(retry_after, now()) if is_passing else 0.0,
    )


def refused(why: str, *, is_passing: bool, retry_after_s: float = 0.0) -> NotifyError:
    """Return the error of a notice that was not taken."""
    error = NotifyError("notify.failed", why)
    error.is_passing = is_passing
    error.retry_after_s = retry_after_s
    return error


def trusting(authority: Path | None) -> ssl.SSLContext:
    """Return what checks a server's certificate.

    Raises:
        NotifyError: the file cannot be read, or holds no certificate.
    """
    context = ssl.create_default_context()
    if authority is not None:
        try:
            context.load_verify_locations(authority)
        except (OSError, ssl.SSLError) as error:
            why = f"the certificates in {authority.name} cannot be read"
            raise refused(why, is_passing=True) from error
    return context


class Deadline:
    """Cuts a connection at its end: a server that drips must not hold anybody."""

    def __init__(self, timeout_s: float) -> None:
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(timeout_s, self._cut)
        self._timer.daemon = True
        self.is_over = False

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        for one in self._sockets:
            one.close()  # also those of a connection that never came about

    def watch(self, opened: socket.socket | None) -> None:
        """Cut this one, too, when time is up."""
        if opened is not None:
            self._sockets.append(opened)

    def _cut(self) -> None:
        self.is_over = True
        for one in self._sockets:
            with suppress(OSError):
                # Not that of a TLS socket, which pulls its state from under whoever reads.
                socket.socket.shutdown(one, socket.SHUT_RDWR)


def _answer(hook: Hook, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
    """Return the status and what was said of another attempt."""
    with Deadline(hook.timeout_s) as deadline:
        try:
            parts = urlsplit(hook.url)
            connection = _connection(hook, parts)
            try:
                _connect(connection, hook, parts, deadline)
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("POST", path, body, _all(headers))
                response = connection.getresponse()
                return response.status, response.getheader("Retry-After", "")
            finally:
                connection.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            why = "no answer in time" if deadline.is_over else reason(error)
            is_passing = deadline.is_over or not isinstance(error, ValueError)
            raise refused(why, is_passing=is_passing) from None


def _all(headers: Mapping[str, str]) -> dict[str, str]:
    own = {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "User-Agent": "handrail",
    }
    return {**own, **headers}


def _connection(hook: Hook, parts: SplitResult) -> http.client.HTTPConnection:
    if not parts.hostname or parts.scheme not in {"http", "https"}:
        raise ValueError("no address of the web")
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.hostname, parts.port)
    if not hook.plain and not is_here(parts.hostname):
        raise refused(
            "http:// to another machine is readable on its way: use https://, or declare `plain`",
            is_passing=False,
        )
    return http.client.HTTPConnection(parts.hostname, parts.port)


def _connect(
    connection: http.client.HTTPConnection, hook: Hook, parts: SplitResult, deadline: Deadline
) -> None:
    """Connect with the deadline in sight: the library would do it unwatched."""
    context = trusting(hook.authority) if parts.scheme == "https" else None
    opened = socket.create_connection((connection.host, connection.port), hook.timeout_s)
    deadline.watch(opened)
    connection.sock = opened
    if context is not None:
        # The handshake by a call of its own: the socket must be watched before it.
        secured = context.wrap_socket(
            opened, server_hostname=connection.host, do_handshake_on_connect=False
        )
        connection.sock = secured
        deadline.watch(secured)
        secured.do_handshake()


def is_here(host: str) -> bool:
    """Whether a name or address is this machine's own, told without asking anybody."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def reason(error: Exception) -> str:  # noqa: PLR0911  one return for each kind of failure
    """Return why there was no answer, in words that hold nothing of address or answer."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case ssl.SSLError():
            return "no TLS connection could be made"
        case socket.gaierror():
            return "its name is not known"
        case http.client.HTTPException():
            return "its answer is not HTTP"
        case OSError() if error.strerror:
            return error.strerror.lower()
        case OSError():
            return "the connection was cut"
        case _:
            return "its address cannot be read"


def _seconds(said: str, now: datetime) -> float:
    """Return what `Retry-After` says: seconds, or a date."""
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        at = parsedate_to_datetime(said)
        return max(0.0, (at - now).total_seconds()) if at.tzinfo else 0.0
    except (ValueError, TypeError, IndexError):
        return 0.0
