"""Probes whose targets are well or ill as a test says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handrail.plans.canonical import encode_plain
from handrail.ports import CheckResult


class FakeChecks:
    """`ports.Checks` with a script: each check gives its results in order, the last one for ever.

    Attributes:
        asked: the checks that were probed, in order.
    """

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self._results: dict[str, list[CheckResult]] = {}

    def set(self, check: Mapping[str, Any], *results: CheckResult) -> None:
        """Say what `check` will see."""
        self._results[encode_plain(check)] = list(results)

    def probe(self, check: Mapping[str, Any], timeout_s: float) -> CheckResult:  # noqa: ARG002  # the port's
        """Return what was said; a check that nothing was said of is ill."""
        self.asked.append(check)
        results = self._results.get(encode_plain(check), [])
        if not results:
            return CheckResult(healthy=False, seen="nothing was said of this check")
        return results.pop(0) if len(results) > 1 else results[0]
