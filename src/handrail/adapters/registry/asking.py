"""Questions to one registry about one repository, asked again while that may help.

Rules:
- What passes (no answer, 5xx, a limit) is asked again a few times; a limit that lasts is told with
  its end.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from handrail.adapters.registry.carrying import (
    BODY_BYTES,
    Answer,
    Carrier,
    LaterError,
    Question,
    base_of,
)
from handrail.adapters.registry.entering import Entrance

if TYPE_CHECKING:
    from handrail.adapters.registry.credentials import Access
    from handrail.adapters.registry.entering import Tokens
    from handrail.errors import PlatformError
    from handrail.kits.deploys.references import Reference
    from handrail.ports import Clock

TIMEOUT_S = 20.0
ATTEMPTS = 3
PATIENCE_S = 10.0  # a limit that ends sooner is waited for


class Asking:
    """Questions about the repository of `at`. From any thread, while it is open."""

    def __init__(self, at: Reference, carrier: Carrier, entrance: Entrance, clock: Clock) -> None:
        self._base = base_of(at.host)
        self._carrier = carrier
        self._entrance = entrance
        self._clock = clock

    def ask(
        self, path: str, *, method: str = "GET", accept: str = "*/*", limit_bytes: int = BODY_BYTES
    ) -> Answer:
        """Return the answer to a question, `path` below `/v2/`. Its status is none that passes.

        Raises:
            PlatformError: it does not answer, lets nobody in, or wants less to be asked.
        """
        question = Question(urljoin(self._base, path), method, accept, limit_bytes)
        for attempt in range(1, ATTEMPTS):
            try:
                return self._entrance.carry(question)
            except LaterError as error:
                wait_s = max(2.0 ** (attempt - 1), error.wait_s)
                if wait_s > PATIENCE_S:
                    raise
            self._clock.sleep(wait_s)
        return self._entrance.carry(question)

    def failed(self, why: str, hint: str = "") -> PlatformError:
        """Return an error of this registry that does not pass by itself."""
        return self._carrier.failed(why, hint)


@contextmanager
def asking(
    at: Reference,
    access: Access,
    clock: Clock,
    tokens: Tokens,
    trust: ssl.SSLContext | None,
    wait_s: float,
) -> Iterator[Asking]:
    """Give questions about the repository of `at`, and close their connections afterwards."""
    carrier = Carrier(at.host, trust, wait_s, is_declared=at.host in access.hosts)
    try:
        yield Asking(at, carrier, Entrance(carrier, at.path, access, clock, tokens), clock)
    finally:
        carrier.close()
