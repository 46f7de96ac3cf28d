"""Nomad's HTTP API: one client, and its errors in Handrail's words.

Rules:
- The token goes into a header, and nowhere else: not into a value's text, an error or a log.
- No redirect is followed: whoever answers with one is not the cluster that was declared.
- An answer that is larger than `ANSWER_BYTES` is not read to its end.
- What was sent and not answered may have been done: such an error is passing, and whoever asked
  looks again before sending it once more. Only what reads is sent again here, once.
"""

from __future__ import annotations

import json
import ssl
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import httpx

from handrail.errors import HandrailError, PlatformError, RefusedError

TIMEOUT_S = 15.0
ANSWER_BYTES = 64 * 1024 * 1024
_SAID_CHARACTERS = 400
_OK = range(200, 300)
_DENIED = frozenset({401, 403})
_BUSY = frozenset({408, 429, 502, 503, 504})
_MISSING = 404
_WRONG = frozenset({400, 500})
# What a server says while there is no leader, or while it loses the one that it forwards to.
_LEADERLESS = (
    "no cluster leader",
    "no path to region",
    "no known servers",
    "no servers",
    "not leader",
    "leadership lost",
    "leadership transfer",
    "rpc error: eof",
    "session shutdown",
    "connection refused",
    "connection reset",
    "stream closed",
    "raft is already shutdown",
    "timed out enqueuing operation",
    "context deadline exceeded",
)
_MOVED = "Enforcing job modify index"


@dataclass(frozen=True)
class Where:
    """Where a cluster answers, and as whom it is asked.

    Attributes:
        url: `http://`, `https://` or `unix://`; what stands before an `@` in it is not shown.
        token: ACL token; empty for none.
        ca: file of the authority whose certificates are trusted; None for the system's.
        certificate: file of the client's own; None for none.
        key: file of its key.
        timeout_s: until the first byte of an answer, and between two.
    """

    url: str = field(repr=False)
    token: str = field(default="", repr=False)
    namespace: str = "default"
    region: str = ""
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True)
class Answer:
    """What was answered.

    Attributes:
        body: its JSON.
        index: what a blocking query waits for a change after.
    """

    body: Any
    index: int = 0


class Link:
    """A client of one cluster, for any thread. Making it connects to nothing."""

    def __init__(self, resource: str, where: Where) -> None:
        self._resource = resource
        self.where = where
        self._parts = _read_url(resource, where.url)
        self._client: httpx.Client | None = None
        self._making = threading.Lock()

    @property
    def resource(self) -> str:
        """The platform's reference, for errors."""
        return self._resource

    @property
    def endpoint(self) -> str:
        """Where it answers, without what is secret in it."""
        if self._parts.scheme == "unix":
            return self._parts.path
        port = self._parts.port or {"http": 80, "https": 443}[self._parts.scheme]
        return f"{self._parts.hostname}:{port}"

    def get(self, path: str, *, after: int = 0, wait_s: float = 0.0, **query: str) -> Answer:
        """Return what stands there; waits up to `wait_s` for a change after an index.

        Raises:
            PlatformError: as `find`, and where there is nothing.
        """
        found = self.find(path, after=after, wait_s=wait_s, **query)
        if found is None:
            raise self._error("platform.failed", f"has nothing at {path}")
        return found

    def find(
        self, path: str, *, after: int = 0, wait_s: float = 0.0, **query: str
    ) -> Answer | None:
        """Return what stands there; None where nothing does.

        Raises:
            PlatformError: it does not answer, refuses, has no leader, or says what is no JSON.
        """
        if wait_s > 0:
            query = {**query, "index": str(after), "wait": f"{wait_s * 1000:.0f}ms"}
        try:
            return self._ask("GET", path, None, query, wait_s=wait_s)
        except _CutError:
            return self._again(path, query, wait_s)

    def send(
        self,
        path: str,
        body: object,
        wrong: Callable[[str], HandrailError | None] = lambda _: None,
        **query: str,
    ) -> Any:
        """Return what is answered to a POST.

        Args:
            path: what is asked.
            body: what is sent, as JSON.
            wrong: gives the error of an answer that says what is wrong with the body; None for
                one that says something else.
            query: parameters.

        Raises:
            PlatformError: as `find`; it may have been done all the same where that is passing.
            RefusedError: `platform.moved`: a compare-and-set was lost.
        """
        try:
            found = self._ask("POST", path, body, query, wrong=wrong)
        except _CutError as error:
            raise error.told from error.__cause__
        if found is None:
            raise self._error("platform.failed", f"has nothing at {path}")
        return found.body

    def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            self._client.close()

    def _again(self, path: str, query: Mapping[str, str], wait_s: float) -> Answer | None:
        """Read once more: a connection that was kept may have been closed at the other end."""
        try:
            return self._ask("GET", path, None, query, wait_s=wait_s)
        except _CutError as error:
            raise error.told from error.__cause__

    def _ask(
        self,
        method: str,
        path: str,
        body: object,
        query: Mapping[str, str],
        *,
        wait_s: float = 0.0,
        wrong: Callable[[str], HandrailError | None] = lambda _: None,
    ) -> Answer | None:
        # Nomad itself adds up to a sixteenth to what it is asked to wait.
        timeout = httpx.Timeout(self.where.timeout_s, read=self.where.timeout_s + wait_s * 1.1)
        request = self._open().build_request(
            method,
            path,
            json=body,
            params={**self._scope(), **query},
            timeout=timeout,
        )
        try:
            response = self._open().send(request, stream=True)
            try:
                return self._read(response, path, wrong)
            finally:
                response.close()
        except httpx.TransportError as error:
            raise self._lost(error) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._error("platform.failed", "does not answer as HTTP does") from error

    def _read(
        self, response: httpx.Response, path: str, wrong: Callable[[str], HandrailError | None]
    ) -> Answer | None:
        told = self._content(response)
        if response.status_code in _OK:
            return self._parsed(response, told)
        text = told.decode("utf-8", "replace").strip()
        if response.status_code == _MISSING and not _is_leaderless(text):
            return None
        told_wrong = wrong(text) if response.status_code in _WRONG else None
        if told_wrong is not None and not _is_leaderless(text):
            raise told_wrong
        raise self._refusal(response.status_code, text, path)

    def _content(self, response: httpx.Response) -> bytes:
        pieces, size = [], 0
        for piece in response.iter_bytes():
            size += len(piece)
            if size > ANSWER_BYTES:
                raise self._error(
                    "platform.failed", f"answers more than {ANSWER_BYTES // 1024 // 1024} MiB"
                )
            pieces.append(piece)
        return b"".join(pieces)

    def _parsed(self, response: httpx.Response, told: bytes) -> Answer:
        try:
            body = json.loads(told) if told else None
            return Answer(body, int(response.headers.get("X-Nomad-Index") or 0))
        except (ValueError, RecursionError) as error:
            raise self._error("platform.failed", "does not answer JSON: is it Nomad?") from error

    def _refusal(self, status: int, text: str, path: str) -> PlatformError | RefusedError:
        said = _short(text)
        if _MOVED in text:
            return RefusedError(
                "platform.moved",
                f"`{self._resource}` runs something else since this was planned: {said}",
                hint="plan it again",
            )
        if status in _DENIED:
            return self._error(
                "platform.denied",
                f"refuses {path}: {said}",
                hint="look at the policies of its token" if self.where.token else "declare `token`",
            )
        if status in _BUSY or _is_leaderless(text):
            return self._error("platform.unreachable", f"cannot answer now: {said}", passes=True)
        if status // 100 == 3:  # noqa: PLR2004  a redirect
            return self._error(
                "platform.failed", f"answers {status}: redirects are not followed", hint="its url?"
            )
        return self._error("platform.failed", f"answers {status}: {said}")

    def _lost(self, error: httpx.TransportError) -> PlatformError:
        """Return the error of a connection that did not come about, or that was cut."""
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = f"shows a certificate that is not trusted: {cause.verify_message}"
            return self._error("platform.failed", why, hint="declare the authority as `ca`")
        if isinstance(cause, ssl.SSLError):
            why = f"takes no TLS connection: {(cause.reason or 'cut').lower().replace('_', ' ')}"
            return self._error("platform.failed", why, hint="declare `certificate` and `key`")
        if isinstance(error, httpx.UnsupportedProtocol | httpx.ProxyError):
            return self._error("platform.failed", "cannot be reached by that address")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            return self._error("platform.unreachable", "does not answer", passes=True)
        if isinstance(error, httpx.TimeoutException):
            return self._error("platform.unreachable", "does not answer in time", passes=True)
        return _CutError(self._error("platform.unreachable", "cut the connection", passes=True))

    def _error(self, code: str, why: str, *, hint: str = "", passes: bool = False) -> PlatformError:
        error = PlatformError(code, f"`{self._resource}` at {self.endpoint} {why}", hint=hint)
        error.is_passing = passes
        return error

    def _scope(self) -> dict[str, str]:
        region = {"region": self.where.region} if self.where.region else {}
        return {"namespace": self.where.namespace, **region}

    def _open(self) -> httpx.Client:
        with self._making:
            if self._client is None:
                is_socket = self._parts.scheme == "unix"
                token = {"X-Nomad-Token": self.where.token} if self.where.token else {}
                self._client = httpx.Client(
                    base_url="http://localhost" if is_socket else self.where.url,
                    headers={**token, "User-Agent": "handrail"},
                    transport=httpx.HTTPTransport(
                        verify=self._trusting() if self._parts.scheme == "https" else False,
                        uds=self._parts.path if is_socket else None,
                        limits=httpx.Limits(max_connections=64, keepalive_expiry=30),
                    ),
                    follow_redirects=False,
                    trust_env=False,
                )
                # Nobody is told to close a platform: whoever lets go of it has closed it.
                weakref.finalize(self, self._client.close)
            return self._client

    def _trusting(self) -> ssl.SSLContext:
        where = self.where
        try:
            context = ssl.create_default_context(cafile=where.ca)
            if where.certificate is not None:
                context.load_cert_chain(where.certificate, where.key)
        except (OSError, ssl.SSLError) as error:
            raise self._error(
                "platform.failed",
                "is declared with `ca`, `certificate` or `key` that cannot be read",
                hint="they are PEM files",
            ) from error
        return context


class _CutError(PlatformError):
    """A connection was cut when it had been made: what reads may be sent again."""

    def __init__(self, told: PlatformError) -> None:
        super().__init__(told.code, told.message, hint=told.hint)
        self.is_passing = told.is_passing
        self.told = told


def segment(name: str) -> str:
    """Return a name as one part of a path, whatever it holds."""
    return quote(name, safe="")


def _read_url(resource: str, url: str) -> SplitResult:
    """Return the parts of an address.

    Raises:
        PlatformError: it is none. Not a word of it is shown: it may hold a password.
    """
    try:
        parts = urlsplit(url.strip())
        has_place = parts.path if parts.scheme == "unix" else parts.hostname
        _ = parts.port
    except ValueError:
        parts, has_place = SplitResult("", "", "", "", ""), ""
    if parts.scheme not in {"http", "https", "unix"} or not has_place:
        raise PlatformError(
            "platform.failed",
            f"the address of `{resource}` is not one of http://, https:// or unix://",
            hint="url: http://127.0.0.1:4646",
        )
    return parts


def _is_leaderless(text: str) -> bool:
    lowered = text.lower()
    return any(each in lowered for each in _LEADERLESS)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SAID_CHARACTERS else f"{line[:_SAID_CHARACTERS]}..."
