"""Adds up what is known of many paths, by pattern.

Rules:
- A path's pattern is that of each segment: `uploads/2024/17.png` is `uploads/*/*.png`.
- Where one directory has very many names that no pattern makes one of, they are told by ending,
  `uploads/**.png`; where a whole tree has, by its first directory, `uploads/**`. So a tree of a
  million names has a report that a person can read, and a budget that can be compared.
- The same paths give the same names, in whatever order of trees they come. Where rehearsal and run
  lie on two sides of such a limit the names differ, and a budget asks rather than allows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Generic, TypeVar

from handrail.errors import sanitise
from handrail.plans.patterns import pattern_of

MOST_NAMES_A_DIRECTORY = 200
MOST_NAMES = 2000
T = TypeVar("T")


def pattern(path: bytes) -> str:
    """Return the pattern of a path for people; `.` for the root."""
    return "/".join(_segment(part) for part in path.split(b"/")) if path else "."


@lru_cache(maxsize=65536)
def _segment(part: bytes) -> str:
    return sanitise(pattern_of(os.fsdecode(part)))


class Tally(Generic[T]):
    """Amounts by pattern, no more of them than a person can read."""

    def __init__(self, add: Callable[[T, T], T]) -> None:
        """Keep how two amounts become one; the order in which they come must not count."""
        self._add = add
        self._by_directory: dict[str, dict[str, T]] = {}
        self._by_ending: set[str] = set()

    def add(self, path: bytes, amount: T) -> None:
        """Add what is known of one path."""
        directory, _, name = pattern(path).rpartition("/")
        names = self._by_directory.setdefault(directory, {})
        self._put(names, _ending(name) if directory in self._by_ending else name, amount)
        if directory not in self._by_ending and len(names) > MOST_NAMES_A_DIRECTORY:
            self._by_ending.add(directory)
            fewer: dict[str, T] = {}
            self._by_directory[directory] = fewer
            for told, known in names.items():
                self._put(fewer, _ending(told), known)

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield each pattern and its amount, by name."""
        found: dict[str, T] = {}
        for directory, names in self._by_directory.items():
            for name, amount in names.items():
                self._put(found, f"{directory}/{name}" if directory else name, amount)
        if len(found) > MOST_NAMES:
            found = self._by_top(found)
        yield from sorted(found.items())

    def _by_top(self, found: dict[str, T]) -> dict[str, T]:
        fewer: dict[str, T] = {}
        for name, amount in found.items():
            top, slash, _ = name.partition("/")
            self._put(fewer, f"{top}/**" if slash else name, amount)
        return fewer

    def _put(self, into: dict[str, T], name: str, amount: T) -> None:
        into[name] = self._add(into[name], amount) if name in into else amount


def _ending(name: str) -> str:
    return f"**{os.path.splitext(name)[1]}"  # noqa: PTH122  of a pattern, which is no path
