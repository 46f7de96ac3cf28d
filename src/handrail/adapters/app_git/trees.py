"""The files of one commit, as git keeps them: through no filter, link, submodule or attribute.

Rules:
- What stands in a hostile tree is judged name by name: one that could be written outside of a
  folder, or over another one, is refused.
- Files that are missing here are fetched together, in one question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from handrail.adapters.app_git.asking import Bounds, LocalTroubleError, TooLargeError, unreachable
from handrail.adapters.app_git.cache import Cache
from handrail.errors import PlatformError, UsageError
from handrail.kits.deploys import sourcing
from handrail.kits.deploys.model import File

_EXTRA_BYTES = 64 * 1024 * 1024
_MOST_FILES = 100_000
_LFS = b"version https://git-lfs.github.com/spec/"
_FOLDER, _EXECUTABLE = "040000", "100755"
_REFUSED = {
    "120000": ("is a symbolic link, which is not followed", "name the file that it leads to"),
    "160000": ("is a submodule, which is not read", "keep it in the app's own repository"),
}
_FETCH = (
    *("-c", "fetch.negotiationAlgorithm=noop", "fetch", "--quiet", "--no-tags"),
    *("--no-write-fetch-head", "--no-recurse-submodules", "--filter=blob:none", "--stdin"),
    "origin",
)


@dataclass(frozen=True)
class _Entry:
    path: str
    mode: str
    id: str


class Tree:
    """All files of a commit that is in a cache."""

    def __init__(self, cache: Cache, commit: str) -> None:
        """Read nothing yet."""
        self._cache = cache
        self._commit = commit
        self._top: _Entry | None = None

    def file(self, path: str, limit_bytes: int) -> bytes | None:
        """Return what stands at a path; None where nothing does.

        Raises:
            UsageError: it is no file, lies behind something that is no folder, or is too large.
            PlatformError: it has to be fetched, and is not to be had.
        """
        entry = self._at(path)
        if entry is None:
            return None
        if entry.mode == _FOLDER:
            raise sourcing.refused_file(path, "is a folder", "name a file")
        size = self._ensured({entry.id}, [path], limit_bytes)[entry.id]
        if size > limit_bytes:
            raise sourcing.refused_file(path, f"is larger than {limit_bytes} bytes")
        return _whole(path, self._ask(["cat-file", "blob", entry.id]))

    def files(self, paths: Sequence[str], limit_bytes: int) -> Mapping[str, File]:
        """Return the files at and below paths; `.` is all of them.

        Raises:
            UsageError: one of them is no file, could not be kept, or they are too large together.
            PlatformError: they have to be fetched, and are not to be had.
        """
        entries = {entry.path: entry for path in paths for entry in self._below(path)}
        _check_together(entries.values())
        contents = self._contents({entry.id for entry in entries.values()}, paths, limit_bytes)
        total = sum(len(contents[entry.id]) for entry in entries.values())
        if total > limit_bytes:
            raise _too_large(paths, limit_bytes)
        return {
            path: File(_whole(path, contents[entry.id]), entry.mode == _EXECUTABLE)
            for path, entry in sorted(entries.items())
        }

    def _at(self, path: str) -> _Entry | None:
        """Return what stands at a path; None where nothing does."""
        name = sourcing.check_path(path)
        steps = [str(one) for one in (*reversed(name.parents), name)][1:]
        words = ["ls-tree", "-t", "-z", "--full-tree", self._commit, "--", *steps]
        self._ensured_top()
        found = list(_entries(self._ask(words)))
        entries = {entry.path: entry for entry in found}
        if len(entries) != len(found):
            raise _twice(path)
        for step in steps:
            if step in entries:
                _check(entries[step])
        return entries.get(path)

    def _below(self, path: str) -> Iterator[_Entry]:
        at = self._ensured_top() if path == "." else self._at(path)
        if at is None:
            return
        if at.mode != _FOLDER:
            yield at
            return
        words = ["ls-tree", "-r", "-z", "--full-tree", at.id]
        prefix = f"{at.path}/" if at.path else ""
        seen = set()
        for entry in _entries(self._ask(words)):
            whole = _Entry(f"{prefix}{entry.path}", entry.mode, entry.id)
            _check(whole)
            if whole.path in seen:
                raise _twice(whole.path)
            seen.add(whole.path)
            yield whole

    def _contents(
        self, ids: set[str], paths: Sequence[str], limit_bytes: int
    ) -> Mapping[str, bytes]:
        sizes = self._ensured(ids, paths, limit_bytes)
        if sum(sizes.values()) > limit_bytes:
            raise _too_large(paths, limit_bytes)
        return dict(self._batch(ids))

    def _ensured(self, ids: set[str], paths: Sequence[str], limit_bytes: int) -> Mapping[str, int]:
        """Return the size of each of these files, fetched where it was missing."""
        sizes = self._sizes(ids)
        if ids - set(sizes):
            try:
                self._fetch(ids - set(sizes), limit_bytes)
            except TooLargeError:
                raise _too_large(paths, limit_bytes) from None
            sizes = self._sizes(ids)
        for lacking in ids - set(sizes):
            raise unreachable(self._cache.where, f"lacks the file {lacking}", is_passing=True)
        return sizes

    def _ensured_top(self) -> _Entry:
        """Fetch all folders of the commit, where they are missing; never its files."""
        if self._top is None:
            words = ["log", "-1", "--no-show-signature", "--format=%T", self._commit]
            top = self._ask(words).decode("ascii", "replace").strip()
            known = self._cache.git.ask(["cat-file", "--batch-check"], stdin=_lines([top])).out
            if known.split()[1:2] != [b"tree"]:
                self._fetch({top}, 0)
            self._top = _Entry("", _FOLDER, top)
        return self._top

    def _fetch(self, ids: set[str], limit_bytes: int) -> None:
        bounds = Bounds(self._cache.limits.fetch_s, limit_bytes + _EXTRA_BYTES)
        try:
            self._cache.git.get(_FETCH, bounds, stdin=_lines(ids))
        except LocalTroubleError as error:
            raise self._unread(str(error)) from error

    def _sizes(self, ids: set[str]) -> dict[str, int]:
        """Return the sizes of those that are here."""
        answer = self._cache.git.ask(["cat-file", "--batch-check"], stdin=_lines(ids)).out
        words = (line.split() for line in answer.decode("ascii", "replace").splitlines())
        return {one[0]: int(one[2]) for one in words if len(one) == 3 and one[1] == "blob"}  # noqa: PLR2004  id, kind, size

    def _batch(self, ids: set[str]) -> Iterator[tuple[str, bytes]]:
        answer = self._ask(["cat-file", "--batch"], ids)
        at = 0
        for _ in ids:
            end = answer.index(b"\n", at)
            name, _, size = answer[at:end].decode("ascii").split(" ")
            at = end + 1 + int(size) + 1
            yield name, answer[end + 1 : at - 1]

    def _ask(self, words: Sequence[str], ids: Iterable[str] = ()) -> bytes:
        done = self._cache.git.ask(words, stdin=_lines(ids))
        if done.code != 0:
            raise self._unread("a file that was fetched cannot be read")
        return done.out

    def _unread(self, why: str) -> PlatformError:
        return unreachable(self._cache.where, f"cannot be read: {why}", is_passing=True)


def _lines(ids: Iterable[str]) -> bytes:
    return "".join(f"{one}\n" for one in sorted(ids)).encode()


def _entries(answer: bytes) -> Iterator[_Entry]:
    for number, entry in enumerate(answer.split(b"\0")[:-1]):
        if number >= _MOST_FILES:
            raise UsageError("source.refused", f"there are more than {_MOST_FILES} files")
        head, _, name = entry.partition(b"\t")
        mode, _, id_ = head.decode("ascii").split(" ")
        yield _Entry(name.decode("utf-8", "surrogateescape"), mode, id_)


def _check(entry: _Entry) -> None:
    """Raise for what is neither file nor folder, or could not be kept under its name."""
    if entry.mode in _REFUSED:
        why, hint = _REFUSED[entry.mode]
        raise sourcing.refused_file(entry.path, why, hint)
    sourcing.check_path(entry.path)
    if not entry.path.isprintable():  # half characters and bytes of no text are not, either
        raise sourcing.refused_file(
            ascii(entry.path), "has a name that is not text", "give the file another name"
        )


def _check_together(entries: Iterable[_Entry]) -> None:
    """Raise where one name is both a file and a folder of another one."""
    names = {entry.path for entry in entries}
    for name in names:
        parts = name.split("/")
        if any("/".join(parts[:count]) in names for count in range(1, len(parts))):
            raise sourcing.refused_file(name, "lies in a file", "the repository is damaged")


def _twice(path: str) -> UsageError:
    return sourcing.refused_file(path, "is there twice", "the repository is damaged")


def _whole(path: str, content: bytes) -> bytes:
    if content.startswith(_LFS):
        raise sourcing.refused_file(
            path, "is kept in Git LFS, which is not read", "commit the file itself: git lfs untrack"
        )
    return content


def _too_large(paths: Sequence[str], limit_bytes: int) -> UsageError:
    return UsageError(
        "source.refused",
        f"the files of {', '.join(f'`{path}`' for path in paths)[:200]} are larger than "
        f"{limit_bytes} bytes together",
        hint="name only what the app needs to run",
    )
