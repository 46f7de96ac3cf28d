"""Until when a registry wants to be left alone, from what it answers. Pure.

Source: RFC 9110 `Retry-After`; Docker Hub's `X-Retry-After` and `ratelimit-limit: 100;w=21600`;
GitHub's `X-RateLimit-Reset`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_S = 7 * 24 * 3600.0  # what is said to take longer is not believed
_MOMENT = 1_000_000_000  # a number from here on is no number of seconds, but a time since 1970
_NAMES = ("retry-after", "x-retry-after", "x-ratelimit-reset", "ratelimit-reset")
_WINDOW = re.compile(r"\d{1,9};w=(\d{1,9})")


def seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return how long to wait at least; None where nothing is said."""
    for name in _NAMES:
        found = _seconds(headers.get(name, "").strip(), now)
        if found is not None:
            return min(max(found, 0.0), LONGEST_S)
    window = _WINDOW.match(headers.get("ratelimit-limit", "").strip())
    return min(float(window[1]), LONGEST_S) if window else None


def _seconds(said: str, now: datetime) -> float | None:
    if said.isascii() and said.isdigit():
        number = float(said[:12])
        return number - now.timestamp() if number >= _MOMENT else number
    try:
        at = parsedate_to_datetime(said)
    except (ValueError, TypeError, IndexError):
        return None
    return (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
