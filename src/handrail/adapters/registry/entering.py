"""How a registry lets us in: with a password, or with a token that somebody gives out for it.

Rules:
- A token is asked for with our own words (to pull one repository), whatever a challenge asks for.
- Credentials are shown to the registry and to its giver of tokens, to no other host.
- A token is kept while it holds, and forgotten when it is refused.

Source: distribution specification, token authentication.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from handrail.adapters.registry import challenges, waiting
from handrail.adapters.registry.carrying import Question, safe_parts
from handrail.adapters.registry.manifests import read_json

if TYPE_CHECKING:
    from handrail.adapters.registry.carrying import Answer, Carrier, LaterError
    from handrail.adapters.registry.credentials import Access
    from handrail.errors import PlatformError
    from handrail.ports import Clock

_TOKEN_S = 60.0  # as long as it holds where nothing is said
_EARLIER_S = 10.0
_LONGEST_TOKEN = 65_536
_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_SERVER_ERRORS = range(500, 600)


@dataclass
class Tokens:
    """What `Authorization` said when we were let in, until it expires. From any thread."""

    _given: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: tuple[str, str], now_s: float) -> str:
        """Return it for a host and a repository; empty where nothing holds any more."""
        with self._lock:
            header, until_s = self._given.get(key, ("", 0.0))
            return header if now_s < until_s else ""

    def put(self, key: tuple[str, str], header: str, until_s: float) -> None:
        """Keep it; an empty one is forgotten."""
        with self._lock:
            self._given[key] = (header, until_s)


class Entrance:
    """Ways into one repository of one registry. From any thread."""

    def __init__(
        self, carrier: Carrier, path: str, access: Access, clock: Clock, tokens: Tokens
    ) -> None:
        """Keep what it needs."""
        self._carrier = carrier
        self._access = access
        self._known = access.of(carrier.host)
        self._clock = clock
        self._tokens = tokens
        self._path = path
        self._key = (carrier.host, path)

    def carry(self, question: Question) -> Answer:
        """Ask, and once more with what a challenge wants.

        Raises:
            PlatformError: nobody is let in, or no answer came; LaterError where it may pass.
        """
        held = self._tokens.get(self._key, self._clock.elapsed_s())
        answer = self._carrier.carry(question, held)
        if answer.status == HTTPStatus.UNAUTHORIZED and _is_of(answer, question):
            self._tokens.put(self._key, "", 0.0)
            header = self._way_in(answer)
            answer = self._carrier.carry(question, header) if header else answer
        self._expect(answer)
        return answer

    def _expect(self, answer: Answer) -> None:
        if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise self._denied(answer)
        if answer.status in _PASSING or answer.status in _SERVER_ERRORS:
            raise self._later(answer)

    def _way_in(self, answer: Answer) -> str:
        """Return what `Authorization` must say; empty where nothing that we have helps."""
        for one in challenges.read(answer.headers.get("www-authenticate", "")):
            if self._known is not None and (one.scheme == "basic" or not self._known.user):
                return self._keep(self._known.header, _TOKEN_S)
            if one.scheme == "bearer":
                return self._token(one)
        return ""

    def _keep(self, header: str, lasts_s: float) -> str:
        self._tokens.put(self._key, header, self._clock.elapsed_s() + lasts_s)
        return header

    def _token(self, challenge: challenges.Challenge) -> str:
        """Return what `Authorization` must say, with a token that may pull this repository."""
        header = self._known.header if self._known is not None else ""
        answer = self._carrier.carry(Question(self._giver(challenge)), header)
        self._expect(answer)
        given = read_json(answer.body)
        token = given.get("token") or given.get("access_token")
        if answer.status != HTTPStatus.OK or not _is_token(token):
            raise self._carrier.failed("gives out tokens that are none")
        lasts = given.get("expires_in")
        lasts_s = float(lasts) if isinstance(lasts, int) and lasts > 0 else _TOKEN_S
        return self._keep(f"Bearer {token}", min(lasts_s, waiting.LONGEST_S) - _EARLIER_S)

    def _giver(self, challenge: challenges.Challenge) -> str:
        """Return the address that a token is asked for at."""
        parts = safe_parts(challenge.realm)
        if parts is None or not (challenge.realm.isascii() and challenge.realm.isprintable()):
            raise self._carrier.failed("names no safe address at which tokens are given out")
        host = parts.netloc.lower()
        if self._known is not None and not self._access.gives(host, self._carrier.host):
            raise self._carrier.failed(
                f"wants the credentials to be shown to {host}",
                f"where that is right, declare it in the app: `registry-realm: {host}`",
            )
        asked = {"service": challenge.service} if challenge.service else {}
        words = urlencode({**asked, "scope": f"repository:{self._path}:pull"})
        query = f"{parts.query}&{words}" if parts.query else words
        return parts._replace(netloc=host, query=query, fragment="").geturl()

    def _later(self, answer: Answer) -> LaterError:
        now = self._clock.now()
        said_s = waiting.seconds(answer.headers, now)
        if answer.status != HTTPStatus.TOO_MANY_REQUESTS:
            return self._carrier.later(f"answers {answer.status}", wait_s=said_s or 0.0)
        hint = "try again later"
        if self._known is None:
            hint = "who signs in (`registry-token` of the app) may usually ask more"
        if not said_s:
            return self._carrier.later("wants less to be asked", hint)
        until = now + timedelta(seconds=said_s)
        why = f"wants less to be asked, until {until:%Y-%m-%d %H:%M:%S} UTC"
        return self._carrier.later(why, hint, said_s)

    def _denied(self, answer: Answer) -> PlatformError:
        code = f" ({answer.code})" if answer.code else ""
        why = f"lets nobody in{code} to {self._path}"
        if self._known is not None:
            hint = "what `registry-token` refers to may have expired, or not be for this"
            return self._carrier.failed(f"{why} with these credentials", hint)
        hint = (
            "so many answer where there is no such repository; else declare the image under"
            " `images` of the app, and its `registry-token`"
        )
        return self._carrier.failed(why, hint)


def _is_of(answer: Answer, question: Question) -> bool:
    """Whether the registry answered itself, and not whoever it sent us to."""
    return urlsplit(answer.url).netloc == urlsplit(question.url).netloc


def _is_token(token: object) -> bool:
    if not isinstance(token, str) or not 0 < len(token) <= _LONGEST_TOKEN:
        return False
    return token.isascii() and token.isprintable() and " " not in token
