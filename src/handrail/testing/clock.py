"""A clock and ids that a test sets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)  # a Monday


class FakeClock:
    """`ports.Clock` that moves when it is told to: `sleep` returns at once and time has passed."""

    def __init__(self, now: datetime = START) -> None:
        """Begin at `now`, which must be aware."""
        self._now = now.astimezone(UTC)
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        """Return the wall-clock time."""
        return self._now

    def elapsed_s(self) -> float:
        """Return seconds slept or advanced; `jump` does not change them."""
        return self._elapsed_s

    def sleep(self, seconds: float) -> None:
        """Let time pass, at once."""
        self.advance(max(seconds, 0))

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._now += timedelta(seconds=seconds)
        self._elapsed_s += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back with a number below zero; no time passes."""
        self._now += timedelta(seconds=seconds)


class FakeIds:
    """`ports.Ids` that count: 32 digits, in order, and different in the first eight."""

    def __init__(self) -> None:
        self._given = 0

    def new(self) -> str:
        """Return the next id."""
        self._given += 1
        return f"{self._given:08x}".ljust(32, "0")
