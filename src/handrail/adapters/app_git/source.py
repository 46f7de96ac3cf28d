"""One commit of an app's repository: its files, who made it, and what came before it.

Rules:
- Who signed is looked at of this commit alone, not of those before it.
- What a hostile history can hold (names of a megabyte, times of no year) is cut or told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from handrail.adapters import git_program
from handrail.adapters.app_git import signatures
from handrail.adapters.app_git.asking import unreachable
from handrail.adapters.app_git.cache import Cache
from handrail.adapters.app_git.trees import Tree
from handrail.errors import PlatformError
from handrail.kits.deploys import sourcing
from handrail.kits.deploys.model import Commit, File
from handrail.plans.canonical import time_text
from handrail.ports import Clock

_FIELDS = "%H%x00%ae%x00%an%x00%ct%x00%s%x00%(trailers:key=Reviewed-by,valueonly,unfold)"
_COUNT = 6
_TEXT_CHARACTERS = 300
_MOST_REVIEWERS = 20
_HISTORY = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class GitSource:
    """`ports.Source` of a commit that is in a cache."""

    def __init__(
        self,
        cache: Cache,
        commit: str,
        allowed: Path,
        clock: Clock,
        environment: Mapping[str, str],
    ) -> None:
        """Read the commit.

        Args:
            cache: that has it.
            commit: its whole id.
            allowed: the team's `allowed_signers`.
            clock: a signature counts by the keys of its time, but not of a time to come.
            environment: of this process.

        Raises:
            PlatformError: the cache cannot be read.
        """
        self._cache = cache
        self._tree = Tree(cache, commit)
        found = next(iter(self._log("-1", commit)), None)
        if found is None:
            raise unreachable(cache.where, f"has a commit {commit[:7]} that cannot be read")
        signed_by = ""
        if allowed.is_file():
            raw = cache.git.ask(["cat-file", "commit", commit]).out
            at = min(clock.now(), datetime.fromisoformat(found.when))
            signed_by = signatures.signer(raw, allowed, at, environment)
        self.commit = replace(found, signed_by=signed_by)

    def read(self, path: str, limit_bytes: int = 1024 * 1024) -> str | None:
        """Return a file's text; see `ports.Source`."""
        content = self._tree.file(path, limit_bytes)
        return None if content is None else _text(path, content)

    def files(
        self, paths: Sequence[str], limit_bytes: int = 64 * 1024 * 1024
    ) -> Mapping[str, File]:
        """Return the files at and below paths; see `ports.Source`."""
        return self._tree.files(paths, limit_bytes)

    def since(self, commit: str, limit: int = 200) -> tuple[Commit, ...] | None:
        """Return the commits after `commit`; see `ports.Source`. Signatures are not looked at."""
        if not _HISTORY.fullmatch(commit):
            return None
        known = self._is_before(commit)
        if known is None and not self._cache.is_narrow:
            self._cache.fetch_all()
            known = self._is_before(commit)
        if known is None or (not known and self._cache.is_narrow):
            return None
        return tuple(self._log(f"--max-count={max(0, limit)}", f"{commit}..{self.commit.id}"))

    def _is_before(self, commit: str) -> bool | None:
        """Whether `commit` is in this one's history; None where it is not here."""
        words = ["merge-base", "--is-ancestor", commit, self.commit.id]
        return {0: True, 1: False}.get(self._cache.git.ask(words).code)

    def _log(self, *words: str) -> Iterator[Commit]:
        options = ["log", "-z", "--no-show-signature", "--no-notes", "--encoding=UTF-8"]
        done = self._cache.git.ask([*options, f"--format={_FIELDS}", *words, "--"])
        if done.code != 0:
            raise _passing(self._cache, "its history is not whole here")
        fields = done.out.decode("utf-8", "replace").split("\0")
        for at in range(0, len(fields) - _COUNT + 1, _COUNT):
            yield _commit(*fields[at : at + _COUNT])


def _passing(cache: Cache, why: str) -> PlatformError:
    return unreachable(cache.where, f"cannot be read: {why}", is_passing=True)


def _commit(id_: str, email: str, name: str, when: str, subject: str, trailers: str) -> Commit:
    reviewers = git_program.reviewers(trailers[: _TEXT_CHARACTERS * _MOST_REVIEWERS])
    return Commit(
        id_,
        email[:_TEXT_CHARACTERS],
        name[:_TEXT_CHARACTERS],
        _time(when),
        subject[:_TEXT_CHARACTERS],
        reviewers[:_MOST_REVIEWERS],
    )


def _time(seconds: str) -> str:
    """Return the time of a commit; the first of all times where it has none that a clock knows."""
    try:
        return time_text(datetime.fromtimestamp(int(seconds), UTC))
    except (ValueError, OverflowError, OSError):
        return time_text(datetime.fromtimestamp(0, UTC))


def _text(path: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise sourcing.refused_file(path, "is not text in UTF-8") from None
    if "\0" in text:
        raise sourcing.refused_file(path, "is not text: it has NUL in it")
    return text
