"""This machine's clock and randomness."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime


class SystemClock:
    """`ports.Clock`: the wall clock, and one that only grows."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""
        return datetime.now(UTC)

    def elapsed_s(self) -> float:
        """Return seconds since an unspecified start; setting the wall clock does not move it."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait; a number below zero does not."""
        time.sleep(max(seconds, 0))


class RandomIds:
    """`ports.Ids`: from the kernel's randomness."""

    def new(self) -> str:
        """Return 32 random hexadecimal digits."""
        return os.urandom(16).hex()
