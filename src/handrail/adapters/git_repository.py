"""The team's git repository, read by the `git` program.

Rules:
- Read only, and nothing of the repository's own is started: no hooks, pager, fsmonitor, signature
  program, lock or network.
- A path is a path: never an option, pattern or "pathspec magic"; any byte may be in its name.
- Not proven to be committed is uncommitted: what lies in a submodule, in a repository of its own or
  behind a symbolic link counts as uncommitted, and so does an ignored file that was named itself.
  (Ignored files below a folder that was named do not count: caches lie there.)
- One `git` process a question; none at all outside of a repository.
- Known limit: who marks a file `assume-unchanged` in his own clone hides his change from git, and
  so from here. The digest still covers the file's bytes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from handrail.adapters import git_program
from handrail.errors import DeclarationError
from handrail.plans.canonical import time_text
from handrail.ports import Change

_TIMEOUT_S = 60.0
_LAST = "--format=%H%x00%P%x00%ae%x00%ct%x00%(trailers:key=Reviewed-by,valueonly,unfold)"


class GitRepository:
    """`ports.Repository` in a folder, which may be one below the repository's top."""

    def __init__(
        self, root: Path, environment: Mapping[str, str] | None = None, *, program: str = "git"
    ) -> None:
        """Start nothing yet.

        Args:
            root: all paths are relative to it.
            environment: of git, which finds the person's settings by it; None for this process's
                own. Its `GIT_*` variables are dropped: inside a hook they name another repository.
            program: name or path of git.
        """
        self.root = root.resolve()
        inherited = os.environ if environment is None else environment
        self._environment = {**git_program.quiet(inherited), "GIT_NO_LAZY_FETCH": "1"}
        self._program = program
        self._top = _top(self.root)

    def commit(self, paths: Sequence[str]) -> str | None:
        """Return the last commit that touched any of `paths`; see `ports.Repository`."""
        if self._top is None or not paths:
            return None
        return self._log(["--format=%H"], paths).strip() or None

    def uncommitted(self, paths: Sequence[str]) -> tuple[str, ...]:
        """Return what differs from the last commit, or is new, sorted; see `ports.Repository`."""
        if self._top is None or not paths:
            return tuple(sorted(set(paths)))
        foreign = {path for path in paths if self._is_foreign(path)}
        own = [path for path in paths if path not in foreign]
        return tuple(sorted(foreign | (self._changed(own) if own else set())))

    def last_change(self, path: str) -> Change | None:
        """Return the last commit that touched `path`; see `ports.Repository`.

        None too where a shallow clone has cut off the history that would tell.
        """
        if self._top is None:
            return None
        answer = self._log([_LAST], [path])
        if not answer:
            return None
        commit, parents, author, when, trailers = answer.split("\0", 4)
        if not parents and self._is_shallow():
            return None
        time = time_text(datetime.fromtimestamp(int(when), UTC))
        return Change(commit, author, git_program.reviewers(trailers), time)

    def person(self) -> str:
        """Return `user.email` of git; see `ports.Repository`."""
        done = self._start(["config", "--get", "user.email"])
        return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""

    def _log(self, arguments: list[str], paths: Sequence[str]) -> str:
        done = self._start(["log", "-1", "--no-show-signature", *arguments, "--", *paths])
        if done.returncode != 0 and b"does not have any commits yet" in done.stderr:
            return ""
        return os.fsdecode(self._checked(done))

    def _changed(self, paths: Sequence[str]) -> set[str]:
        options = ["--porcelain=v1", "-z", "--no-renames", "--untracked-files=all"]
        options += ["--ignored=matching", "--ignore-submodules=dirty"]
        done = self._start(["status", *options, "--", *paths])
        return set(self._entries(os.fsdecode(self._checked(done)), paths))

    def _entries(self, answer: str, paths: Sequence[str]) -> Iterator[str]:
        """Yield the paths of a status, relative to `root`; a folder it did not enter is named so.

        Git names paths from the repository's top, whatever folder it is asked from.
        """
        prefix = self.root.relative_to(self._top or self.root)
        named = {PurePosixPath(path) for path in paths}
        for entry in answer.split("\0"):
            state, name = entry[:2], entry[3:]
            if not entry:
                continue
            path = PurePosixPath(os.path.relpath(name, prefix))
            above = {one for one in named if path == one or path in one.parents}
            if above:
                yield from map(str, above)
            elif state != "!!":
                yield str(path)

    def _is_foreign(self, path: str) -> bool:
        """Whether `path` lies behind a link or in another repository: git does not look there."""
        at = self.root
        for part in PurePosixPath(path).parts[:-1]:
            at = at / part
            if at.is_symlink() or (at / ".git").exists():
                return True
        return ".." in PurePosixPath(path).parts or PurePosixPath(path).is_absolute()

    def _is_shallow(self) -> bool:
        return self._checked(self._start(["rev-parse", "--is-shallow-repository"])) == b"true\n"

    def _start(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                [self._program, *git_program.HARDENED, *arguments],
                cwd=self.root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise _unreadable(f"git gave no answer within {_TIMEOUT_S:g} s") from error
        except OSError as error:
            raise _unreadable(
                f"git cannot be started: {error.strerror}",
                hint="install git, on Debian: apt install git",
            ) from error

    def _checked(self, done: subprocess.CompletedProcess[bytes]) -> bytes:
        if done.returncode == 0:
            return done.stdout
        said = done.stderr.decode("utf-8", "replace").strip()
        if "dubious ownership" in said:
            raise _unreadable(
                f"`{self._top}` belongs to another user, and git does not trust it",
                hint=f"if you do: git config --global --add safe.directory '{self._top}'",
            )
        raise _unreadable(said.splitlines()[-1] if said else f"git ended with {done.returncode}")


def _top(root: Path) -> Path | None:
    """Return the folder that has `.git` (a folder, or a work tree's or submodule's file)."""
    return next((at for at in (root, *root.parents) if (at / ".git").exists()), None)


def _unreadable(why: str, hint: str = "") -> DeclarationError:
    return DeclarationError(
        "estate.unreadable",
        f"the git repository cannot be read: {why}",
        hint=hint or "try it by hand: git status",
    )
