"""How much is answered: a bucket of requests a token, and a smaller one for wrong tokens.

Rules:
- A bucket refills steadily and holds a burst; its clock only grows.
- What nobody asked from for a while is forgotten: a stranger cannot fill the memory.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_KEPT = 4096


@dataclass
class _Bucket:
    left: float
    seen_s: float


class Limits:
    """Buckets by name. Used from one thread."""

    def __init__(self, per_s: float, burst: int, elapsed_s: Callable[[], float]) -> None:
        self._per_s = per_s
        self._burst = burst
        self._elapsed_s = elapsed_s
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, name: str, cost: float = 1.0) -> int:
        """Take `cost` from the bucket of `name`; return 0, or the seconds until there is enough."""
        now = self._elapsed_s()
        bucket = self._buckets.pop(name, None) or _Bucket(float(self._burst), now)
        bucket.left = min(float(self._burst), bucket.left + (now - bucket.seen_s) * self._per_s)
        bucket.seen_s = now
        self._buckets[name] = bucket
        while len(self._buckets) > _KEPT:
            self._buckets.popitem(last=False)
        if bucket.left >= cost:
            bucket.left -= cost
            return 0
        return max(1, math.ceil((cost - bucket.left) / self._per_s))
