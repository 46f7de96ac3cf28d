"""Compares a direct run with a guarded one: each difference needs a reason in a file.

Rules:
- A file of differences has a line a test: its name (`*` stands for anything), two spaces or more,
  and the reason. Lines with `#` are for people.
- What differs and is not listed fails. What is listed and does not differ is told, and fails
  nothing: some of it depends on the machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What came of one suite.

    Attributes:
        suite: its name.
        tests: how many ran, in each of the two runs.
        listed: differences with their reason.
        unlisted: differences without one, and how they differ.
        unseen: names that are listed and did not differ.
        note: what else a reader should know.
        duration_s: of the direct and of the guarded run.
    """

    suite: str
    tests: int = 0
    listed: tuple[tuple[str, str], ...] = ()
    unlisted: tuple[tuple[str, str], ...] = ()
    unseen: tuple[str, ...] = ()
    note: str = ""
    duration_s: tuple[float, float] = (0, 0)

    @property
    def is_good(self) -> bool:
        """Whether every difference has its reason, and something was compared at all."""
        return self.tests > 0 and not self.unlisted


def compare(
    suite: str,
    direct: Mapping[str, str],
    guarded: Mapping[str, str],
    reasons: Path,
    *,
    note: str = "",
    duration_s: tuple[float, float] = (0, 0),
) -> Outcome:
    """Return how two runs differ.

    Args:
        suite: its name.
        direct: what came of each test; two that are equal are no difference.
        guarded: the same through the guard.
        reasons: the file of differences.
        note: see `Outcome`.
        duration_s: see `Outcome`.
    """
    known = read_reasons(reasons)
    listed, unlisted = [], []
    for name in sorted(direct.keys() | guarded.keys()):
        before, after = direct.get(name, "not run"), guarded.get(name, "not run")
        if before == after:
            continue
        reason = next((why for pattern, why in known if fnmatchcase(name, pattern)), None)
        if reason is None:
            unlisted.append((name, _difference(before, after)))
        else:
            listed.append((name, reason))
    seen = [name for name, _ in listed]
    unseen = [p for p, _ in known if not any(fnmatchcase(name, p) for name in seen)]
    tests = len(direct.keys() & guarded.keys())
    return Outcome(suite, tests, tuple(listed), tuple(unlisted), tuple(unseen), note, duration_s)


def read_reasons(path: Path) -> tuple[tuple[str, str], ...]:
    """Return names and reasons of a file of differences."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, reason = re.split(r"\s{2,}", line.strip(), maxsplit=1)
            # `[` stands in parametrised names: it is meant as it is.
            found.append((name.replace("[", "[[]"), reason))
    return tuple(found)


def _difference(before: str, after: str) -> str:
    """Return the first lines that differ, shortly."""
    olds, news = before.splitlines(), after.splitlines()
    pairs = ((old, new) for old, new in zip(olds, news, strict=False) if old != new)
    old, new = next(pairs, (f"{len(olds)} lines", f"{len(news)} lines"))
    return f"direct {old[:160]!r}, guarded {new[:160]!r}"
