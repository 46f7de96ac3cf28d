"""Paired slices of time: each turn measures every target shortly, the next begins with another one.

Rules:
- A slow moment of the machine hits all targets alike, and none has the best place in each turn.
- A ratio is taken inside each turn; the median over the turns counts.
- `HANDRAIL_BENCH_TURNS` and `HANDRAIL_BENCH_SLICE_S` make it longer and steadier.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence

TURNS = int(os.environ.get("HANDRAIL_BENCH_TURNS", "5"))
SLICE_S = int(os.environ.get("HANDRAIL_BENCH_SLICE_S", "2"))

Row = dict[str, object]
Turns = Mapping[str, Sequence[float]]


def measured(targets: Mapping[str, Callable[[], float]], turns: int = TURNS) -> Turns:
    """Return what each target reached, a number a turn."""
    names = list(targets)
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(turns):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(targets[name]())
    return found


def row(name: str, turns: Turns, over: str, bound: float | None, unit: str) -> Row:
    """Return the row of `guard` against the target `over`; told only where either is missing."""
    told = ", ".join(f"{n} {statistics.median(v):,.0f} {unit}" for n, v in turns.items())
    missing = {"guard", over} - turns.keys()
    if missing:
        detail = f"skipped: no {', '.join(sorted(missing))}; {told}"
        return {"name": name, "ratio": None, "bound": None, "detail": detail}
    pairs = zip(turns["guard"], turns[over], strict=True)
    ratio = statistics.median(one / other for one, other in pairs)
    return {
        "name": name,
        "ratio": round(ratio, 3),
        "bound": bound,
        "detail": told,
        "at_least": True,
    }
