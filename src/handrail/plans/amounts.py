"""Amounts as people read them: `1.9 GB`, `0.03 s`, `4 min`."""

from __future__ import annotations

_STEP = 1000
_MINUTES_FROM_S = 90


def size(size_bytes: int) -> str:
    """Return a number of bytes in the unit that keeps it short."""
    amount = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < _STEP:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= _STEP
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """Return a duration with two figures that matter."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 10:  # noqa: PLR2004  one figure before the point
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < _MINUTES_FROM_S else f"{seconds / 60:.0f} min"
