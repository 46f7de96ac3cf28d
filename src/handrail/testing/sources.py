"""Apps' repositories whose commits, and their reviewers, a test puts in by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from handrail.errors import HandrailError, UsageError
from handrail.kits.deploys import sourcing
from handrail.kits.deploys.model import Commit, File
from handrail.plans.canonical import sha256

WHEN = "2026-01-05T06:00:00.000000Z"


class FakeSources:
    """`ports.Sources` with the repositories of a test.

    Attributes:
        broken: raised by every `open`, where it is set.
        opened: repository and ref of every `open`, in order.
    """

    def __init__(self) -> None:
        """Begin without any repository."""
        self.broken: HandrailError | None = None
        self.opened: list[tuple[str, str]] = []
        self._all: dict[str, _Repository] = {}

    def commit(
        self,
        repository: str,
        files: Mapping[str, str | bytes | File | None] | None = None,
        *,
        branch: str = "main",
        after: str | None = None,
        author: str = "ana@example.com",
        subject: str = "change",
        reviewers: tuple[str, ...] = (),
        signed_by: str = "",
        when: str = WHEN,
    ) -> Commit:
        """Commit to a branch, and return what was.

        Args:
            repository: as apps declare it; made by its first commit.
            files: changed ones, by path; None for one that is removed.
            branch: made where there is none.
            after: the commit before it; else the branch's last one.
            author: mail address; the part before its `@` is the name.
            subject: first line of the message.
            reviewers: of its `Reviewed-by` trailers.
            signed_by: whose signature on it verifies.
            when: ISO 8601 UTC.
        """
        at = self._all.setdefault(repository, _Repository())
        parent = after or at.branches.get(branch, "")
        before = at.files.get(parent, {})
        now = {path: one for path, one in {**before, **(files or {})}.items() if one is not None}
        number = len(at.commits)
        made = Commit(
            sha256(f"{repository} {number} {subject}")[:40],
            author,
            author.partition("@")[0].capitalize(),
            when,
            subject,
            reviewers,
            signed_by,
        )
        at.commits[made.id], at.files[made.id], at.parents[made.id] = made, now, parent
        at.branches[branch] = made.id
        return made

    def tag(self, repository: str, name: str, commit: str) -> None:
        """Name a commit for good."""
        self._all[repository].tags[name] = commit

    def move(self, repository: str, branch: str, commit: str) -> None:
        """Let a branch be at a commit, as a forced push does."""
        self._all[repository].branches[branch] = commit

    def remove(self, repository: str, branch: str) -> None:
        """Remove a branch; what nothing else leads to is not found any more."""
        del self._all[repository].branches[branch]

    def open(self, repository: str, ref: str) -> FakeSource:
        """Return the repository at a ref; see `ports.Sources`."""
        sourcing.read_repository(repository)
        sourcing.check_ref(ref)
        self.opened.append((repository, ref))
        if self.broken is not None:
            raise self.broken
        at = self._all.get(repository, _Repository())
        return FakeSource(at, at.commits[at.find(repository, ref)])


class _Repository:
    """What was committed, by commit."""

    def __init__(self) -> None:
        self.commits: dict[str, Commit] = {}
        self.files: dict[str, Mapping[str, str | bytes | File]] = {}
        self.parents: dict[str, str] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}

    def find(self, repository: str, ref: str) -> str:
        names = {f"refs/heads/{name}": commit for name, commit in self.branches.items()}
        names |= {f"refs/tags/{name}": commit for name, commit in self.tags.items()}
        meant = {
            names[one] for one in (ref, f"refs/heads/{ref}", f"refs/tags/{ref}") if one in names
        }
        if sourcing.is_full(ref):
            meant = set()
        if sourcing.is_commit(ref):
            known = {one for tip in names.values() for one in self.line(tip)}
            meant |= {one for one in known if one.startswith(ref.lower())}
        if not meant:
            raise sourcing.no_ref(repository, ref, [*self.branches, *self.tags])
        if len(meant) > 1:
            raise sourcing.ambiguous(ref, "more than one commit", f"try `refs/heads/{ref}`")
        return meant.pop()

    def line(self, commit: str) -> Iterator[str]:
        """Yield a commit and all before it."""
        while commit:
            yield commit
            commit = self.parents[commit]


class FakeSource:
    """`ports.Source` of one commit that a test made."""

    def __init__(self, repository: _Repository, commit: Commit) -> None:
        """Stand at `commit`."""
        self.commit = commit
        self._repository = repository

    def read(self, path: str, limit_bytes: int = 1024 * 1024) -> str | None:
        """Return a file's text; see `ports.Source`."""
        name = str(sourcing.check_path(path))
        files = self._repository.files[self.commit.id]
        found = files.get(name)
        if found is None and any(one.startswith(f"{name}/") for one in files):
            raise sourcing.refused_file(path, "is a folder")
        if found is None:
            return None
        content = _file(found).content
        if len(content) > limit_bytes:
            raise sourcing.refused_file(path, f"is larger than {limit_bytes} bytes")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise sourcing.refused_file(path, "is not text")
        return text

    def files(
        self, paths: Sequence[str], limit_bytes: int = 64 * 1024 * 1024
    ) -> Mapping[str, File]:
        """Return the files at and below paths; see `ports.Source`."""
        names = [path if path == "." else str(sourcing.check_path(path)) for path in paths]
        found = {
            path: _file(content)
            for path, content in sorted(self._repository.files[self.commit.id].items())
            if any(name in {".", path} or path.startswith(f"{name}/") for name in names)
        }
        if sum(len(file.content) for file in found.values()) > limit_bytes:
            raise UsageError("source.refused", f"they are larger than {limit_bytes} bytes together")
        return found

    def since(self, commit: str, limit: int = 200) -> tuple[Commit, ...] | None:
        """Return the commits after `commit`; see `ports.Source`."""
        if commit not in self._repository.commits:
            return None
        before = set(self._repository.line(commit))
        found = [one for one in self._repository.line(self.commit.id) if one not in before]
        return tuple(self._repository.commits[one] for one in found[:limit])


def _file(content: str | bytes | File) -> File:
    if isinstance(content, File):
        return content
    return File(content.encode() if isinstance(content, str) else content)


class FakeReviews:
    """`ports.Reviews` as a test says.

    Attributes:
        broken: raised by every question, where it is set.
    """

    def __init__(self) -> None:
        """Begin without any review."""
        self.broken: HandrailError | None = None
        self._reviewers: dict[str, tuple[str, ...]] = {}

    def put(self, commit: str, *reviewers: str) -> None:
        """Say who approved the pull request that brought `commit`."""
        self._reviewers[commit] = reviewers

    def reviewers(self, commit: str) -> tuple[str, ...]:
        """Return who approved; see `ports.Reviews`."""
        if self.broken is not None:
            raise self.broken
        if not sourcing.is_full(commit):
            raise UsageError("source.no-ref", f"`{commit}` is no whole commit")
        return self._reviewers.get(commit, ())
