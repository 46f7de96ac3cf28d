"""An act that a test directs: it returns what it was told to, and waits where it was told to."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable

from handrail.plans.walk import step_id
from handrail.ports import ActCall, Acted

_PATIENCE_S = 30.0


class FakeAct:
    """`ports.Act`: every step is done at once, but for those of which something else was said.

    Attributes:
        calls: what was asked for, in order: `do`, `check` or `undo`, the step's id, and the call.
    """

    def __init__(self) -> None:
        """Begin with nothing said."""
        self.calls: list[tuple[str, str, ActCall]] = []
        self._answers: dict[tuple[str, str], deque[Acted | Exception]] = defaultdict(deque)
        self._held: set[str] = set()
        self._changed = threading.Condition()

    def says(self, step: str, *answers: Acted | Exception, to: str = "do") -> None:
        """Let a step return, or raise, each of `answers` once; then it is done again."""
        self._answers[to, step].extend(answers)

    def hold(self, step: str) -> None:
        """Let a step act until `release`, or until it is over."""
        with self._changed:
            self._held.add(step)

    def release(self, step: str) -> None:
        """Let a held step go to its end."""
        with self._changed:
            self._held.discard(step)
            self._changed.notify_all()

    def wait_for(self, step: str, to: str = "do", times: int = 1) -> None:
        """Return once a step was asked to; raise where it never is."""
        self.wait_until(lambda: self.count(step, to) >= times)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return once `holds`, which is asked whenever a step is called."""
        with self._changed:
            if not self._changed.wait_for(holds, _PATIENCE_S):
                raise AssertionError(f"it never came; calls: {[call[:2] for call in self.calls]}")

    def count(self, step: str, to: str = "do") -> int:
        """Return how often a step was asked to."""
        return sum(call[:2] == (to, step) for call in self.calls)

    def do(self, call: ActCall) -> Acted:
        """See `ports.Act`."""
        return self._answer("do", call)

    def check(self, call: ActCall) -> Acted:
        """See `ports.Act`."""
        return self._answer("check", call)

    def undo(self, call: ActCall) -> Acted:
        """See `ports.Act`."""
        return self._answer("undo", call)

    def _answer(self, to: str, call: ActCall) -> Acted:
        step = step_id(call.target, call.name)
        with self._changed:
            self.calls.append((to, step, call))
            self._changed.notify_all()
            while step in self._held and not call.is_over():
                self._changed.wait(0.01)  # nobody tells a condition that it is over
            answers = self._answers[to, step]
            answer = answers.popleft() if answers else Acted("done")
        if isinstance(answer, Exception):
            raise answer
        return answer
