"""A git repository that a test declares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from handrail.ports import Change


class FakeRepository:
    """`ports.Repository` whose commits are put in by hand.

    Attributes:
        root: where it would be.
        email: who works here.
        dirty: paths of files that differ from the last commit.
    """

    def __init__(self, root: Path, *, email: str = "ana@example.com") -> None:
        """Begin without a commit."""
        self.root = root
        self.email = email
        self.dirty: set[str] = set()
        self._changes: list[tuple[Change, frozenset[str]]] = []

    def put(self, change: Change, *paths: str) -> None:
        """Commit `paths` (files); they no longer differ."""
        self._changes.append((change, frozenset(paths)))
        self.dirty -= set(paths)

    def commit(self, paths: Sequence[str]) -> str | None:
        """Return the last commit that touched any of `paths`."""
        found = next(self._touching(paths), None)
        return None if found is None else found.commit

    def uncommitted(self, paths: Sequence[str]) -> tuple[str, ...]:
        """Return which files differ; all of `paths` while nothing is committed."""
        if not self._changes:
            return tuple(sorted(set(paths)))
        return tuple(sorted(file for file in self.dirty if _is_below(file, paths)))

    def last_change(self, path: str) -> Change | None:
        """Return the last commit that touched `path`."""
        return next(self._touching([path]), None)

    def person(self) -> str:
        """Return who works here."""
        return self.email

    def _touching(self, paths: Sequence[str]) -> Iterator[Change]:
        for change, files in reversed(self._changes):
            if any(_is_below(file, paths) for file in files):
                yield change


def _is_below(file: str, paths: Sequence[str]) -> bool:
    plain = [PurePosixPath(path).as_posix() for path in paths]
    return any(path in (".", file) or file.startswith(f"{path}/") for path in plain)
