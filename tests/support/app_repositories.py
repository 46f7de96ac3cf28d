"""Apps' repositories for tests: made by git as people do, with a home of their own.

Rules:
- Nothing of this user's or this machine's git is read or written.
- Where git is not installed, tests are skipped with a line that says so; with
  `HANDRAIL_REQUIRE=all` they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

WHEN = "2026-01-05T06:00:00.000000Z"


def git_program() -> str:
    """Return git; skip the test where there is none."""
    found = shutil.which("git")
    if found:
        return found
    said = "no git here: apt-get install git"
    if os.environ.get("HANDRAIL_REQUIRE") == "all":
        pytest.fail(said)
    pytest.skip(said)


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a person whose home is `home`."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": "2026-01-05T09:00:00+0300",
        "GIT_COMMITTER_DATE": "2026-01-05T09:00:00+0300",
        **more,
    }


class AppRepository:
    """A repository with a work tree, in `root`."""

    def __init__(self, root: Path, home: Path) -> None:
        """Make it, without a commit."""
        self.root, self.home = root, home
        root.mkdir(parents=True, exist_ok=True)
        home.mkdir(exist_ok=True)
        self._program = git_program()
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.email", "ana@example.com")
        self.git("config", "user.name", "Ana")
        self.git("config", "uploadpack.allowFilter", "true")
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")
        self.git("config", "gc.auto", "0")

    def git(self, *arguments: str, stdin: bytes = b"", **more: str) -> str:
        """Run git there, and return what it says."""
        done = subprocess.run(
            [self._program, "-c", "protocol.file.allow=always", *arguments],
            cwd=self.root,
            env=environment(self.home, **more),
            check=False,
            capture_output=True,
            input=stdin,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def commit(
        self,
        files: Mapping[str, str | bytes | None] | None = None,
        message: str = "change",
        author: str = "ana",
        *options: str,
    ) -> str:
        """Commit files (None removes one), and return the commit's id."""
        for name, content in (files or {}).items():
            path = self.root / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "-A")
        who = f"{author.capitalize()} <{author}@example.com>"
        self.git("commit", "-q", "--allow-empty", "--author", who, "-m", message, *options)
        return self.git("rev-parse", "HEAD")

    def blob(self, content: bytes) -> str:
        """Keep bytes, and return their id."""
        return self.git("hash-object", "-w", "--stdin", stdin=content)

    def tree(self, *entries: tuple[str, str, bytes]) -> str:
        """Write a tree of (mode, id, name) as it stands, be it ever so hostile; return its id."""
        raw = b"".join(
            mode.encode() + b" " + name + b"\0" + bytes.fromhex(id_) for mode, id_, name in entries
        )
        return self.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)

    def point(self, tree: str, branch: str = "main", message: str = "hostile") -> str:
        """Let a branch lead to a commit of that tree; return its id."""
        made = self.git("commit-tree", tree, "-m", message)
        self.git("update-ref", f"refs/heads/{branch}", made)
        return made
