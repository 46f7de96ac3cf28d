"""Apps' repositories at a branch, tag or commit, fetched into caches of ours.

Rules:
- A branch or tag is what its server says now; a commit counts where one of them leads to it now.
- A name that means two commits is refused: nobody deploys the other one by accident.
- A path leads into the team's repository, or beside it, or is absolute.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from handrail.adapters.app_git.asking import unreachable
from handrail.adapters.app_git.cache import Cache, Limits
from handrail.adapters.app_git.source import GitSource
from handrail.errors import UsageError
from handrail.kits.deploys import sourcing
from handrail.kits.deploys.sourcing import Where
from handrail.plans.canonical import sha256
from handrail.ports import Clock

_HEADS, _TAGS = "refs/heads/", "refs/tags/"


class GitSources:
    """`ports.Sources` by the `git` program."""

    def __init__(
        self,
        root: Path,
        state: Path,
        environment: Mapping[str, str],
        clock: Clock,
        *,
        limits: Limits | None = None,
    ) -> None:
        """Start nothing yet, and make no folder.

        Args:
            root: the team's repository: paths are relative to it, and `allowed_signers` lies there.
            state: Handrail's own folder; caches lie below `apps` in it.
            environment: of this process; git and ssh find the person's settings by it. ssh reads
                the config in `HANDRAIL_SSH_CONFIG`, where that is set.
            clock: for waiting, and for the time of signatures.
            limits: how much of a repository is taken.
        """
        self._root = root
        self._state = state
        self._environment = environment
        self._clock = clock
        self._limits = limits or Limits()

    def open(self, repository: str, ref: str) -> GitSource:
        """Return the repository at a ref; see `ports.Sources`."""
        where = self._where(repository)
        sourcing.check_ref(ref)
        folder = self._state / "apps" / sha256(f"{where.transport} {where.address}")[:32]
        cache = Cache(folder, where, self._environment, self._clock, self._limits)
        commit = _find(cache, repository, ref)
        allowed = self._root / "allowed_signers"
        return GitSource(cache, commit, allowed, self._clock, self._environment)

    def _where(self, repository: str) -> Where:
        where = sourcing.read_repository(repository)
        if where.transport != "file":
            return where
        path = (self._root / where.address).resolve()
        around = self._root.resolve().parent
        if not Path(where.address).is_absolute() and path.parent != around:
            inside = self._root.resolve()
            if path != inside and inside not in path.parents and path.parent.parent != around:
                raise UsageError(
                    "source.refused",
                    f"the path `{repository}` leads neither into this repository nor beside it",
                    hint="write an absolute path, if you mean it",
                )
        if not path.is_dir():
            raise unreachable(Where("file", str(path)), "is no folder", hint="is the path right?")
        return Where("file", str(path))


def _find(cache: Cache, repository: str, ref: str) -> str:
    """Return the whole id of the commit that a ref means, fetched."""
    there = cache.advertised()
    names = _named(there, ref)
    if len({there[name] for name in names}) > 1:
        raise sourcing.ambiguous(ref, "a branch and a tag", f"say `{_HEADS}{ref}`")
    if sourcing.is_commit(ref):
        found = _commit(cache, there, ref.lower())
        named = {_fetched(cache, there, name) for name in names[:1]}
        if len({*found, *named}) > 1:
            raise sourcing.ambiguous(ref, _meanings(found, names), "say more digits of it")
        if found or named:
            return {*found, *named}.pop()
    if not names:
        raise sourcing.no_ref(repository, ref, map(_short, there), _narrowed(cache, ref))
    return _fetched(cache, there, names[0])


def _named(there: Mapping[str, str], ref: str) -> list[str]:
    """Return the branches and tags of that name; none for what can be nothing but a commit."""
    if sourcing.is_full(ref):
        return []
    return [name for name in (ref, f"{_HEADS}{ref}", f"{_TAGS}{ref}") if name in there]


def _fetched(cache: Cache, there: Mapping[str, str], name: str) -> str:
    own = cache.own(name)
    here, commit = cache.at(own)
    if here != there[name]:
        cache.fetch(name)
        _, commit = cache.at(own)
    if not commit:
        raise UsageError("source.no-ref", f"the tag `{_short(name)}` leads to no commit")
    return commit


def _commit(cache: Cache, there: Mapping[str, str], ref: str) -> set[str]:
    """Return the commits that begin so and that a branch or tag leads to now."""
    tips = [name for name, commit in there.items() if commit == ref]
    if tips:
        return {_fetched(cache, there, tips[0])}
    cache.fetch_all(there)
    return {one for one in cache.commits(ref) if cache.is_reached(one)}


def _short(name: str) -> str:
    return name.removeprefix(_HEADS).removeprefix(_TAGS)


def _meanings(found: set[str], names: list[str]) -> str:
    return "a commit, and the name of another one" if names else f"{len(found)} commits"


def _narrowed(cache: Cache, ref: str) -> str:
    if not cache.is_narrow or not sourcing.is_commit(ref):
        return ""
    return (
        f"`{ref}` is not among the last {cache.limits.depth} commits of any branch or tag, and "
        "the repository is too large to look further: name a branch or tag"
    )
