"""What the repository declares, read again when it may have changed.

Rules:
- A request that begins something gets what is declared at that moment.
- One that only looks gets what was declared within the last second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from handrail.core.world import Declared

_OLD_S = 1.0


class Declarations:
    """The newest declarations. For any thread."""

    def __init__(self, load: Callable[[], Declared], elapsed_s: Callable[[], float]) -> None:
        self._load = load
        self._elapsed_s = elapsed_s
        self._lock = threading.Lock()
        self._kept: tuple[float, Declared] | None = None

    def now(self, *, at_once: bool = False) -> Declared:
        """Return what is declared; `at_once` for what a moment may not be too old for.

        Raises:
            DeclarationErrors: it is broken: then nothing is known of anybody's rights either.
        """
        with self._lock:
            kept = self._kept
            if kept is not None and not at_once and self._elapsed_s() - kept[0] < _OLD_S:
                return kept[1]
            self._kept = None
            found = self._load()
            self._kept = (self._elapsed_s(), found)
            return found
