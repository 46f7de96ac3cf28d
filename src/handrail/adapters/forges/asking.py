"""Questions to a forge's API: few, bounded, with an end, and to that host alone.

Rules:
- The token goes to the declared host and nowhere else: a redirect or a next page elsewhere is an
  error. It goes unencrypted to this machine alone. It is in no error, and neither is any answer.
- An answer is bounded in bytes, pages and time; what is not as the API describes it is an error.
- A limit that is reached is worth another attempt, and says when.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from handrail.errors import PlatformError, UsageError
from handrail.kits.deploys.sourcing import is_full, is_here

if TYPE_CHECKING:
    import httpx

    from handrail.ports import Clock

TIMEOUT_S = 30.0
_TIME_DIGITS = 11
_PART = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_LONGEST_NAME_CHARACTERS = 100
_SIZE_BYTES = 8 * 1024 * 1024
_MOST_PAGES = 10
_MOST_REDIRECTS = 3
_LONGEST_WAIT = timedelta(days=1)
_GOOD, _REDIRECTS, _SERVER_ERRORS = range(200, 300), range(300, 400), range(500, 600)
_UNAUTHORISED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY = 401, 403, 404, 429


class Forge:
    """One forge's API."""

    def __init__(
        self,
        name: str,
        url: str,
        headers: Mapping[str, str],
        clock: Clock,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Connect to nothing yet.

        Args:
            name: for people: `GitHub`.
            url: of the API.
            headers: sent with each question, the token among them.
            clock: to say when a limit ends.
            timeout_s: of all that is asked together.

        Raises:
            PlatformError: the address is none that a token may be sent to.
        """
        self._name = name
        self.parts = _checked(name, url)
        self.url = url.rstrip("/")
        self._headers = dict(headers)
        self.clock = clock
        self._timeout_s = timeout_s

    @contextmanager
    def asking(self) -> Iterator[Asking]:
        """Give what asks, over one connection.

        Raises:
            PlatformError: the forge does not answer, refuses, or says what no API does.
        """
        import httpx  # noqa: PLC0415  a command that asks no forge does not wait for it

        headers = {"User-Agent": "handrail", "Accept-Encoding": "identity", **self._headers}
        # The certificates of this machine, as for everything else here; none need be read for http.
        verify = ssl.create_default_context() if self.parts.scheme == "https" else False
        with _Cut(self._timeout_s) as cut:
            try:
                with httpx.Client(
                    headers=headers, timeout=self._timeout_s, verify=verify
                ) as client:
                    yield Asking(self, client, cut)
            except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
                # Not the exception's text: it may quote the address or the answer.
                is_late = cut.is_over or isinstance(error, httpx.TimeoutException)
                why = "does not answer in time" if is_late else "does not answer"
                raise self.error(why, is_passing=True) from None

    def odd(self) -> PlatformError:
        """Return the error for an answer that is not as the API describes it."""
        return self.error("answers what its API does not describe", is_passing=False)

    def error(self, why: str, *, is_passing: bool, hint: str = "") -> PlatformError:
        """Return the error of a forge that gives no answer."""
        text = f"{self._name} ({self.parts.hostname}) {why}"
        error = PlatformError("source.unreachable", text, hint=hint)
        error.is_passing = is_passing
        return error


class Asking:
    """A connection to a forge; see `Forge.asking` for what is raised."""

    def __init__(self, forge: Forge, client: httpx.Client, cut: _Cut) -> None:
        self.forge = forge
        self._client = client
        self._cut = cut

    def items(self, path: str) -> tuple[Any, ...]:
        """Return all pages of a list."""
        found: list[Any] = []
        url = f"{self.forge.url}{path}?per_page=100"
        for _ in range(_MOST_PAGES):
            body, url = self._get(url)
            if not isinstance(body, list):
                raise self.forge.odd()
            found += body
            if not url:
                return tuple(found)
        raise self.forge.error("has more to say than is read", is_passing=False)

    def item(self, path: str) -> Mapping[str, Any]:
        """Return one object."""
        body, _ = self._get(f"{self.forge.url}{path}")
        if not isinstance(body, dict):
            raise self.forge.odd()
        return body

    def _get(self, url: str) -> tuple[Any, str]:
        """Return what is there, and the address of the next page."""
        for _ in range(_MOST_REDIRECTS + 1):
            with self._client.stream("GET", url, extensions={"trace": self._cut.see}) as response:
                if response.status_code not in _REDIRECTS:
                    self._check(response)
                    return self._read(response), self._next(url, response)
                url = self._same_host(url, response.headers.get("location", ""))
        why = "leads from one address to another without end"
        raise self.forge.error(why, is_passing=False)

    def _read(self, response: httpx.Response) -> Any:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self.forge.odd()
        found = bytearray()
        for piece in response.iter_raw():
            found += piece
            if len(found) > _SIZE_BYTES:
                raise self.forge.error("answers more than is read", is_passing=False)
        try:
            return json.loads(found)
        except (ValueError, RecursionError):
            raise self.forge.odd() from None

    def _next(self, url: str, response: httpx.Response) -> str:
        found = response.links.get("next", {}).get("url", "")
        return self._same_host(url, found) if found else ""

    def _same_host(self, url: str, found: str) -> str:
        there = urljoin(url, found)
        if not found or urlsplit(there)[:2] != self.forge.parts[:2]:
            raise self.forge.error("leads to another host, which is not asked", is_passing=False)
        return there

    def _check(self, response: httpx.Response) -> None:
        status, headers = response.status_code, response.headers
        if status in _GOOD:
            return
        is_limit = headers.get("x-ratelimit-remaining") == "0" or "retry-after" in headers
        if status == _TOO_MANY or (status == _FORBIDDEN and is_limit):
            raise self.forge.error(f"wants less to be asked{self._until(headers)}", is_passing=True)
        if status in {_UNAUTHORISED, _FORBIDDEN}:
            raise self.forge.error(
                f"refuses the token ({status})",
                is_passing=False,
                hint="may it read pull requests, and has it not run out?",
            )
        if status == _NOT_FOUND:
            raise self.forge.error(
                "knows no such repository, or does not show it to this token",
                is_passing=False,
                hint="are the app's `review` and its token right?",
            )
        raise self.forge.error(f"answers {status}", is_passing=status in _SERVER_ERRORS)

    def _until(self, headers: Mapping[str, str]) -> str:
        """Return when another attempt may help, as far as the forge says."""
        now = self.forge.clock.now()
        for name in ("x-ratelimit-reset", "ratelimit-reset", "retry-after"):
            text = headers.get(name, "")
            if not (text.isascii() and text.isdigit() and len(text) <= _TIME_DIGITS):
                continue
            start = now if name == "retry-after" else datetime.fromtimestamp(0, UTC)
            when = start + timedelta(seconds=int(text))
            if now <= when <= now + _LONGEST_WAIT:
                return f" until {when:%Y-%m-%dT%H:%M:%SZ}"
        return ""


class _Cut:
    """Cuts a connection when time is up: a server that drips must not hold anybody."""

    def __init__(self, timeout_s: float) -> None:
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(timeout_s, self._cut)
        self._timer.daemon = True
        self.is_over = False

    def __enter__(self) -> _Cut:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def see(self, event: str, facts: Mapping[str, Any]) -> None:
        """Remember each socket that httpx tells of."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._sockets.append(facts["return_value"].get_extra_info("socket"))
            if self.is_over:
                self._cut()

    def _cut(self) -> None:
        self.is_over = True
        for one in self._sockets:
            with suppress(OSError):
                # Not that of a TLS socket, which pulls its state from under whoever reads.
                socket.socket.shutdown(one, socket.SHUT_RDWR)


def check_commit(commit: str) -> None:
    """Raise unless it is a whole commit id: it becomes part of an address."""
    if not is_full(commit):
        raise UsageError("source.no-ref", f"`{commit[:80]}` is no whole commit id")


def check_name(name: str) -> None:
    """Raise unless a repository's name stays in its place in an address."""
    parts = name.split("/")
    if "/" not in name or not all(_PART.fullmatch(one) and one.strip(".") for one in parts):
        raise UsageError(
            "source.refused",
            f"`{name[:80]}` is no name of a repository",
            hint="as in its address: `owner/name`",
        )


def header(name: str, token: str) -> str:
    """Return a token that can be sent.

    Raises:
        PlatformError: it cannot; it is not shown.
    """
    if token.isascii() and token.isprintable() and " " not in token:
        return token
    raise PlatformError(
        "source.unreachable",
        f"the token for {name} has characters that no token has",
        hint="is it the token alone, without a blank or a line end in it?",
    )


def said(item: Any, *keys: str) -> str:
    """Return the text at `keys`; empty where there is none."""
    for key in keys:
        item = item.get(key) if isinstance(item, dict) else None
    return item if isinstance(item, str) else ""


def people(names: Iterable[str], forge: str) -> tuple[str, ...]:
    """Return `login@forge` of each login, once, sorted."""
    good = {
        name
        for name in names
        if name and name.isprintable() and len(name) <= _LONGEST_NAME_CHARACTERS
    }
    return tuple(f"{name}@{forge}" for name in sorted(good, key=str.casefold))


def _checked(name: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_here(host))
    if not host or not is_safe or "@" in parts.netloc or parts.query or parts.fragment:
        raise PlatformError(
            "source.unreachable",
            f"the address of {name}'s API is none that a token may be sent to",
            hint="https://HOST/PATH, without a user, a password or a query in it",
        )
    return parts
