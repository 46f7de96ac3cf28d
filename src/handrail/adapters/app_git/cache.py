"""What was fetched of one app's repository: a bare repository of ours below Handrail's state.

Rules:
- Nothing is ever checked out, and nothing of the far side's config or hooks comes here.
- Fetched whole without files where the server knows filters (commits first, the rest when it is
  read); where that is too large, or not whole there, the last commits alone: the cache is then
  `narrow`.
- One process fetches at a time; a fetch that was killed leaves what the next one takes up, and a
  cache that is damaged is made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from handrail.adapters.app_git.asking import (
    Bounds,
    Git,
    LocalTroubleError,
    TooLargeError,
    TooSlowError,
    unreachable,
)
from handrail.errors import UsageError
from handrail.kits.deploys import sourcing
from handrail.kits.deploys.sourcing import Where
from handrail.plans.canonical import sha256
from handrail.ports import Clock

T = TypeVar("T")
_HEX = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LOCK_S = 0.05
_NARROW = "handrail-narrow"
_MOST_ALIKE = 20
_NAMES_BYTES = 64 * 1024 * 1024
_LEFT_S = 3600  # no fetch goes on so long


class _ShallowError(Exception):
    """The far side has not got its whole history itself."""


@dataclass(frozen=True)
class Limits:
    """How much of a repository is taken.

    Attributes:
        size_bytes: of one fetch.
        kept_bytes: of a cache; what is larger is made anew.
        depth: commits of a narrow cache.
    """

    fetch_s: float = 120.0
    ask_s: float = 30.0
    size_bytes: int = 512 * 1024 * 1024
    kept_bytes: int = 2 * 1024 * 1024 * 1024
    depth: int = 200

    @property
    def fetching(self) -> Bounds:
        """Bounds of a fetch."""
        return Bounds(self.fetch_s, self.size_bytes)

    @property
    def asking(self) -> Bounds:
        """Bounds of the question which branches and tags there are."""
        return Bounds(self.ask_s, _NAMES_BYTES)


class Cache:
    """One app's repository as it was fetched last."""

    def __init__(
        self,
        folder: Path,
        where: Where,
        environment: Mapping[str, str],
        clock: Clock,
        limits: Limits,
    ) -> None:
        """Make nothing yet; `fetching` makes `folder`, for the present user alone."""
        self.folder = folder
        self.where = where
        self.limits = limits
        self._clock = clock
        self._environment = environment
        self.git = Git(folder, where, environment)

    @property
    def is_narrow(self) -> bool:
        """Whether the last commits alone are here."""
        return (self.folder / _NARROW).exists()

    # --- asking the far side -------------------------------------------------------------------

    def advertised(self) -> Mapping[str, str]:
        """Return `refs/heads/...` and `refs/tags/...` as they are there now, tags unpeeled.

        Needs no lock where there is a cache: it writes nothing.
        """
        if (self.folder / "HEAD").exists():
            with contextlib.suppress(LocalTroubleError):
                return self._advertised()
        return self._repaired(self._advertised)

    def fetch(self, ref: str) -> None:
        """Fetch one branch or tag, named as the far side does."""
        self._repaired(lambda: self._fetched(f"+{ref}:{self.own(ref)}"))

    def fetch_all(self, there: Mapping[str, str] | None = None) -> None:
        """Fetch every branch and tag; forget those that are gone.

        Args:
            there: those of the far side: nothing is fetched where the same are here.
        """
        specs = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        if there is None or there != self._all():
            self._repaired(lambda: self._fetched("--prune", *specs))

    # --- what is here --------------------------------------------------------------------------

    def own(self, ref: str) -> str:
        """Return our name for a branch or tag that was fetched alone."""
        return f"refs/handrail/{sha256(ref)}"

    def at(self, own: str) -> tuple[str, str]:
        """Return what our name for a ref is at, and the commit that leads to; empty for none."""
        found = self.git.ask(["rev-parse", own, f"{own}^{{commit}}"]).out.decode("ascii", "replace")
        ids = [line if _HEX.fullmatch(line) else "" for line in found.splitlines()[:2]]
        one, commit = (*ids, "", "")[:2]
        return one, commit

    def commits(self, beginning: str) -> tuple[str, ...]:
        """Return the commits here whose ids begin so."""
        found = self.git.ask(["rev-parse", f"--disambiguate={beginning}"]).out.split()
        ids = (one.decode("ascii") for one in found[:_MOST_ALIKE])
        return tuple(one for one in ids if self._is_commit(one))

    def is_reached(self, commit: str) -> bool:
        """Whether a branch or tag led to it when all were fetched last."""
        words = ["for-each-ref", "--count=1", f"--contains={commit}", "refs/heads", "refs/tags"]
        return bool(self.git.ask(words).out)

    def _is_commit(self, name: str) -> bool:
        return self.git.ask(["cat-file", "-t", name]).out == b"commit\n"

    def _all(self) -> Mapping[str, str]:
        words = ["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags"]
        lines = self.git.ask(words).out.decode("utf-8", "replace").splitlines()
        return {name: commit for commit, _, name in (line.partition(" ") for line in lines)}

    def _advertised(self) -> Mapping[str, str]:
        words = ["ls-remote", "--quiet", "--heads", "--tags", "--refs", "origin"]
        answer = self.git.get(words, self.limits.asking).out.decode("utf-8", "replace")
        pairs = (line.partition("\t") for line in answer.splitlines())
        return {name: commit for commit, _, name in pairs if _is_pair(commit, name)}

    def _fetched(self, *specs: str) -> None:
        if not self.is_narrow:
            try:
                self._fetch("--filter=tree:0", *specs)
            except (TooLargeError, _ShallowError):
                self._make_anew()
            except TooSlowError:
                if self._has_refs():  # what is new is little: the far side is ill, not large
                    raise
                self._make_anew()
            else:
                return
        try:
            self._fetch(f"--depth={self.limits.depth}", "--filter=blob:none", *specs)
        except TooLargeError:
            self._make_anew()
            raise
        (self.folder / _NARROW).touch()

    def _has_refs(self) -> bool:
        return bool(self.git.ask(["for-each-ref", "--count=1"]).out)

    def _fetch(self, *words: str) -> None:
        options = [word for word in words if word.startswith("--")]
        specs = [word for word in words if not word.startswith("--")]
        done = self.git.get(
            [
                *("fetch", "--quiet", "--no-tags", "--no-recurse-submodules"),
                *("--no-write-fetch-head", "--force", *options, "--end-of-options"),
                *("origin", *specs),
            ],
            self.limits.fetching,
        )
        if "shallow roots are not allowed" in done.said:
            raise _ShallowError

    def _repaired(self, what: Callable[[], T]) -> T:
        """Do it under the lock; where git fails for no fault of the far side, in a new cache."""
        with self._held():
            try:
                self._prepare()
                return what()
            except LocalTroubleError:
                pass
            try:
                self._make_anew()
                return what()
            except LocalTroubleError as error:
                raise unreachable(self.where, f"cannot be read: {error}") from error

    # --- the folder ----------------------------------------------------------------------------

    def _prepare(self) -> None:
        if (self.folder / "HEAD").exists():
            self._sweep()
        else:
            self._make_anew()

    def _sweep(self) -> None:
        """Remove what a killed fetch left; a cache that has grown too large as a whole."""
        size = 0
        for file in self.folder.rglob("*"):
            with contextlib.suppress(OSError):
                status = file.stat(follow_symlinks=False)
                size += status.st_size
                is_old = self._clock.now().timestamp() - status.st_mtime > _LEFT_S
                if is_old and (file.name.startswith("tmp_") or file.suffix == ".lock"):
                    file.unlink()
        if size > self.limits.kept_bytes:
            self._make_anew()

    def _make_anew(self) -> None:
        """Put an empty repository in the place of what is there, if anything is."""
        made = self.folder.with_suffix(".new")
        for old in (made, self.folder.with_suffix(".old")):
            shutil.rmtree(old, ignore_errors=True)
        made.mkdir(parents=True, mode=0o700)
        other = Git(made, self.where, self._environment)
        wrong = [
            done.said
            for words in (
                ["init", "--quiet", "--bare", "--template=", "--initial-branch=none"],
                ["config", "remote.origin.url", self.where.address],
            )
            if (done := other.ask(words)).code != 0
        ]
        if wrong:
            raise unreachable(self.where, f"cannot be kept at {self.folder}: {wrong[0].strip()}")
        with contextlib.suppress(FileNotFoundError):
            self.folder.rename(self.folder.with_suffix(".old"))
        made.rename(self.folder)
        shutil.rmtree(self.folder.with_suffix(".old"), ignore_errors=True)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Let nobody else fetch meanwhile; wait for whoever does."""
        try:
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            number = os.open(
                self.folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            why = f"cannot be kept at {self.folder.parent}: {error.strerror}"
            raise unreachable(self.where, why, hint="make the state folder writable") from error
        try:
            self._wait(number)
            yield
        finally:
            os.close(number)

    def _wait(self, number: int) -> None:
        until = self._clock.elapsed_s() + 2 * self.limits.fetch_s
        while True:
            try:
                return fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._clock.elapsed_s() >= until:
                    why = "is being fetched by another process for too long"
                    raise unreachable(self.where, why, is_passing=True) from None
            self._clock.sleep(_LOCK_S)


def _is_pair(commit: str, name: str) -> bool:
    """Whether a line of the far side's is a branch or tag that can be asked for by its name."""
    try:
        sourcing.check_ref(name)
    except UsageError:
        return False
    return _HEX.fullmatch(commit) is not None and name.startswith(("refs/heads/", "refs/tags/"))
