"""Questions and answers on the wire: how long, how much, and where to.

Rules:
- `https://` everywhere but on this machine. Redirects are followed a few times, without credentials
  to another host, and never back to `http://`.
- No more is read than a bound. Not a word of an answer is in an error but its code
  (`MANIFEST_UNKNOWN`): the rest may be anybody's.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore

from handrail.adapters.registry.manifests import read_json
from handrail.adapters.registry.reaching import NotReachedError, Reach, is_here
from handrail.errors import PlatformError

BODY_BYTES = 8 * 1024 * 1024
_MB = 1024 * 1024
_REDIRECTS = 5
_AT_ONCE = 8
_MOVED = frozenset({301, 302, 303, 307, 308})
_CODE_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_LONGEST_CODE = 40


class LaterError(PlatformError):
    """What may pass by itself.

    Attributes:
        wait_s: how long to wait at least, as was said; 0 for unsaid.
    """

    is_passing = True
    wait_s = 0.0


@dataclass(frozen=True)
class Question:
    """One request, to be asked as often as it takes."""

    url: str
    method: str = "GET"
    accept: str = "*/*"
    limit_bytes: int = BODY_BYTES


@dataclass(frozen=True)
class Answer:
    """What was answered.

    Attributes:
        headers: by lower-case name; of several of one name, joined with commas.
        url: that answered, after all redirects.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def code(self) -> str:
        """The registry's own word for what is wrong: `MANIFEST_UNKNOWN`; empty for none."""
        errors = read_json(self.body).get("errors")
        first = errors[0] if isinstance(errors, list) and errors else None
        code = first.get("code") if isinstance(first, dict) else None
        known = isinstance(code, str) and len(code) <= _LONGEST_CODE and set(code) <= _CODE_LETTERS
        return str(code) if known else ""


class Carrier:
    """Carries questions to one registry, and to where it sends us. From any thread."""

    def __init__(
        self, host: str, trust: ssl.SSLContext | None, timeout_s: float, *, is_declared: bool
    ) -> None:
        """Keep where to; connects to nothing."""
        self.host = host
        self._timeout_s = timeout_s
        self._reach = Reach(name_of(host), is_declared=is_declared)
        self._pool = httpcore.ConnectionPool(
            ssl_context=trust, max_connections=_AT_ONCE, network_backend=self._reach
        )

    def close(self) -> None:
        """Close its connections."""
        self._pool.close()

    def carry(self, question: Question, authorization: str) -> Answer:
        """Ask, and follow where it was moved to.

        Raises:
            PlatformError: no answer came; a `LaterError` where one may come another time.
        """
        url, first = question.url, urlsplit(question.url).netloc
        for _ in range(_REDIRECTS):
            answer = self._once(question, url, authorization)
            if answer.status not in _MOVED:
                return answer
            url = moved(url, answer.headers.get("location", ""))
            if not url:
                raise self.failed("sends us to no safe address")
            if urlsplit(url).netloc != first:
                authorization = ""
        raise self.failed("sends us round and round")

    def failed(self, why: str, hint: str = "") -> PlatformError:
        """Return the error of what does not pass by itself."""
        return PlatformError("image.unreachable", f"registry {self.host} {why}", hint=hint)

    def later(self, why: str, hint: str = "try again later", wait_s: float = 0.0) -> LaterError:
        """Return the error of what may pass."""
        error = LaterError("image.unreachable", f"registry {self.host} {why}", hint=hint)
        error.wait_s = wait_s
        return error

    def _once(self, question: Question, url: str, authorization: str) -> Answer:
        self._reach.begin(self._timeout_s)
        headers = _asking(question, url, authorization)
        try:
            with self._pool.stream(question.method, url, headers=headers) as response:
                body = self._read(response, question.limit_bytes)
                return Answer(response.status, _headers(response.headers), body, url)
        except _FAILURES as error:
            raise self._explained(_deepest(error)) from error
        except ValueError as error:
            raise self.failed("is at an address that cannot be read") from error

    def _read(self, response: httpcore.Response, limit_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        for piece in response.iter_stream():
            size += len(piece)
            if size > limit_bytes:
                raise self.failed(f"sends more than {limit_bytes // _MB} MB")
            pieces.append(piece)
        return b"".join(pieces)

    def _explained(self, cause: BaseException) -> PlatformError:  # noqa: PLR0911  one a kind
        match cause:
            case NotReachedError(is_passing=True):
                return self.later(f"is not found: {cause}", "look at its name")
            case NotReachedError():
                hint = "a registry that is not public must be declared under `images` of the app"
                return self.failed(f"is not asked: {cause}", hint)
            case ssl.SSLCertVerificationError():
                why = f"shows a certificate that is not trusted: {cause.verify_message}"
                return self.failed(why, "its authority may be given by SSL_CERT_FILE")
            case ssl.SSLError():
                return self.failed("speaks no TLS", "http:// is for this machine alone")
            case httpcore.TimeoutException() | TimeoutError():
                return self.later(f"does not answer within {self._timeout_s:g} s")
            case httpcore.ProtocolError():
                return self.later("does not answer as a registry does")
            case _:
                return self.later("does not answer")


_FAILURES = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    NotReachedError,
    OSError,
)


def name_of(netloc: str) -> str:
    """Return the host of `host:port`; of an IPv6 address without its brackets."""
    return urlsplit(f"//{netloc}").hostname or ""


def base_of(host: str) -> str:
    """Return what all of a registry's addresses begin with."""
    return f"{'http' if is_here(name_of(host)) else 'https'}://{host}/v2/"


def moved(url: str, location: str) -> str:
    """Return where a redirect leads; empty where we do not go there, such as back to `http://`."""
    target = joined(url, location) if location.isascii() and location.isprintable() else ""
    parts = safe_parts(target)
    is_plain = parts is not None and parts.scheme == "http" and not url.startswith("http:")
    return "" if not location or parts is None or is_plain else target


def joined(url: str, further: str) -> str:
    """Return where `further` leads from an address; empty where that cannot be read."""
    try:
        return urljoin(url, further)
    except ValueError:
        return ""


def safe_parts(url: str) -> SplitResult | None:
    """Return the parts of an address that somebody else named; None where it is not to be asked."""
    try:
        parts = urlsplit(url)
        is_here_alone = parts.scheme == "http" and is_here(parts.hostname or "")
        is_safe = (parts.scheme == "https" or is_here_alone) and bool(parts.hostname)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    return parts if is_safe and "@" not in parts.netloc else None


def _asking(question: Question, url: str, authorization: str) -> Sequence[tuple[str, str]]:
    headers = [
        ("Host", urlsplit(url).netloc),
        ("Accept", question.accept),
        ("Accept-Encoding", "identity"),
        ("User-Agent", "handrail"),
    ]
    return [*headers, ("Authorization", authorization)] if authorization else headers


def _headers(found: Sequence[tuple[bytes, bytes]]) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for name, value in found:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _deepest(error: BaseException) -> BaseException:
    """Return the cause that says most: what the connection itself ran into."""
    most = (NotReachedError, ssl.SSLError, httpcore.TimeoutException, httpcore.ProtocolError)
    while not isinstance(error, most):
        below = error.__cause__ or error.__context__  # the pool leaves the latter alone
        if below is None:
            break
        error = below
    return error
