"""Real git repositories, read; and the contract that the fake keeps too."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from handrail.adapters.git_repository import GitRepository
from handrail.errors import DeclarationError
from handrail.ports import Change, Repository
from handrail.testing.repository import FakeRepository

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

STRANGE = ("a b", "line\nend", "-x", "größe", "*", ":(top)q", '"', "[a]")


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": "2026-01-05T09:00:00+0300",
        "GIT_COMMITTER_DATE": "2026-01-05T09:00:00+0300",
    }


class Team:
    """A repository in `root` that commits as people do."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root, self.home = root, home
        root.mkdir(parents=True, exist_ok=True)
        home.mkdir(exist_ok=True)
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.email", "ana@example.com")
        self.git("config", "user.name", "Ana")

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "protocol.file.allow=always", *arguments]
        environment = _environment(self.home)
        done = subprocess.run(
            command, cwd=self.root, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def put(self, path: str, content: str = "x") -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(content)

    def commit(self, *paths: str, message: str = "change", author: str = "ana") -> str:
        for path in paths:
            if not (self.root / path).exists():
                self.put(path)
        self.git("--literal-pathspecs", "add", "-f", "--", *paths)
        email = f"{author} <{author}@example.com>"
        self.git("commit", "-q", "--allow-empty", "--author", email, "-m", message)
        return self.git("rev-parse", "HEAD")

    def read(self, below: str = ".") -> GitRepository:
        return GitRepository(self.root / below, _environment(self.home))


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path / "repository", tmp_path / "home")


@pytest.fixture(params=["git", "fake"])
def history(request: pytest.FixtureRequest, team: Team) -> tuple[Repository, str, str]:
    """A repository with two commits: `s/one` and `s/two` by ana, then `s/two` by ben."""
    message = "change\n\nReviewed-by: Chi <chi@example.com>\nReviewed-by: eva@example.com"
    first = team.commit("s/one", "s/two")
    team.put("s/two", "y")
    second = team.commit("s/two", message=message, author="ben")
    if request.param == "git":
        return team.read(), first, second
    when, reviewers = "2026-01-05T06:00:00.000000Z", ("chi@example.com", "eva@example.com")
    fake = FakeRepository(team.root)
    fake.put(Change(first, "ana@example.com", (), when), "s/one", "s/two")
    fake.put(Change(second, "ben@example.com", reviewers, when), "s/two")
    return fake, first, second


def test_the_last_commit_of_paths_is_found(history: tuple[Repository, str, str]) -> None:
    """The last commit that touched any of several files or folders; none for what is new."""
    repository, first, second = history
    assert repository.commit(["s/one"]) == first
    assert repository.commit(["s/one", "s/two"]) == repository.commit(["s"]) == second
    assert repository.commit(["none"]) is None
    assert repository.commit([]) is None


def test_the_last_change_names_author_and_reviewers(history: tuple[Repository, str, str]) -> None:
    """Who wrote a path's last commit and who reviewed it are e-mail addresses; the time is UTC."""
    repository, first, second = history
    when, reviewers = "2026-01-05T06:00:00.000000Z", ("chi@example.com", "eva@example.com")
    assert repository.last_change("s/two") == Change(second, "ben@example.com", reviewers, when)
    assert repository.last_change("s/one") == Change(first, "ana@example.com", (), when)
    assert repository.last_change("none") is None


def test_a_clean_repository_has_nothing_uncommitted(history: tuple[Repository, str, str]) -> None:
    """What is committed does not differ."""
    repository, _, _ = history
    assert repository.uncommitted(["s", "s/one"]) == ()


def test_the_person_is_the_email(history: tuple[Repository, str, str]) -> None:
    """Who works here is what `user.email` says."""
    assert history[0].person() == "ana@example.com"


def test_changes_of_every_kind_are_found(team: Team) -> None:
    """Changed, staged, new, removed and renamed files differ, in the asked paths alone."""
    team.commit("s/changed", "s/staged", "s/removed", "s/from", "s/same", "elsewhere")
    for path in ("s/changed", "s/staged", "elsewhere"):
        team.put(path, "y")
    team.put("s/deep/new")
    team.git("add", "s/staged")
    (team.root / "s/removed").unlink()
    team.git("mv", "s/from", "s/to")
    expected = ("changed", "deep/new", "from", "removed", "staged", "to")
    assert team.read().uncommitted(["s"]) == tuple(f"s/{name}" for name in expected)
    assert team.read().uncommitted(["s/same"]) == ()


def test_a_mode_is_a_change(team: Team) -> None:
    """A script that became executable differs from the last commit."""
    team.commit("script")
    (team.root / "script").chmod(0o755)
    assert team.read().uncommitted(["script"]) == ("script",)


@pytest.mark.parametrize("name", STRANGE)
def test_a_path_is_a_path(team: Team, name: str) -> None:
    """No name is taken for an option, a pattern or git's magic."""
    commit = team.commit(name)
    team.commit("other")
    repository = team.read()
    assert repository.commit([name]) == commit
    assert repository.uncommitted([name]) == ()
    team.put("other", "y")
    assert repository.uncommitted([name]) == ()
    team.put(name, "y")
    assert repository.uncommitted([name]) == (name,)
    change = repository.last_change(name)
    assert change is not None
    assert change.commit == commit


def test_paths_are_relative_to_the_root(team: Team) -> None:
    """A root below the repository's top names paths from itself."""
    commit = team.commit("team/s/one", "team/s/two")
    repository = team.read("team")
    team.put("team/s/one", "y")
    team.put("outside")
    assert repository.commit(["s/two"]) == commit
    assert repository.uncommitted(["s", "."]) == ("s/one",)
    assert repository.uncommitted(["s"]) == ("s/one",)
    assert repository.uncommitted(["."]) == ("s/one",)


def test_outside_of_a_repository_nothing_is_committed(tmp_path: Path) -> None:
    """A folder that no repository holds has no commit, and all is uncommitted."""
    repository = GitRepository(tmp_path, _environment(tmp_path), program="/no/git/is/needed")
    assert repository.commit(["s"]) is None
    assert repository.last_change("s") is None
    assert repository.uncommitted(["s", "a"]) == ("a", "s")


def test_before_the_first_commit_all_is_uncommitted(team: Team) -> None:
    """A repository without a commit has none to name, and every file is new."""
    team.put("s/one")
    repository = team.read()
    assert repository.commit(["s"]) is None
    assert repository.last_change("s/one") is None
    assert repository.uncommitted(["s"]) == ("s/one",)


def test_an_ignored_file_counts_when_it_is_named(team: Team) -> None:
    """An ignored script is not committed; an ignored cache beside a script does not matter."""
    team.put(".gitignore", "*.log\ncache/\n")
    team.commit(".gitignore", "s/one")
    for path in ("s/run.log", "s/cache/x", "cache/script"):
        team.put(path)
    repository = team.read()
    assert repository.uncommitted(["s"]) == ()
    assert repository.uncommitted(["s/run.log"]) == ("s/run.log",)
    assert repository.uncommitted(["cache/script"]) == ("cache/script",)
    assert repository.uncommitted(["s/cache/x", "s"]) == ("s/cache/x",)


def test_what_lies_in_another_repository_is_uncommitted(team: Team, tmp_path: Path) -> None:
    """Git does not look into submodules and nested repositories, so nothing there is proven."""
    other = Team(tmp_path / "other", tmp_path / "home")
    other.commit("script")
    team.commit("s/one")
    team.git("submodule", "--quiet", "add", str(other.root), "module")
    team.commit("module")
    Team(team.root / "nested", tmp_path / "home").commit("script")
    repository = team.read()
    assert repository.uncommitted(["module/script"]) == ("module/script",)
    assert repository.uncommitted(["nested/script"]) == ("nested/script",)


def test_what_lies_behind_a_link_is_uncommitted(team: Team, tmp_path: Path) -> None:
    """A path through a symbolic link, or out of the folder, is proven by nothing."""
    team.commit("s/one")
    (team.root / "link").symlink_to("s")
    team.commit("link")
    repository = team.read()
    for path in ("link/one", "../home", str(tmp_path / "home")):
        assert repository.uncommitted([path]) == (path,)
    assert repository.uncommitted(["link", "s/one"]) == ()


def test_a_shallow_clone_does_not_guess(team: Team, tmp_path: Path) -> None:
    """Where the history is cut off, nobody is named as a path's author."""
    team.commit("old")
    team.commit("new", author="ben")
    url = f"file://{team.root}"
    team.git("clone", "-q", "--depth", "1", url, str(tmp_path / "shallow"))
    shallow = GitRepository(tmp_path / "shallow", _environment(tmp_path / "home"))
    assert shallow.last_change("old") is None
    assert shallow.commit(["old"]) is not None
    assert shallow.uncommitted(["old"]) == ()


def test_a_first_commit_has_an_author(team: Team) -> None:
    """A commit without a parent is not taken for the end of a shallow clone."""
    team.commit("one", author="ben")
    change = team.read().last_change("one")
    assert change is not None
    assert change.author == "ben@example.com"


def test_a_work_tree_is_a_repository(team: Team, tmp_path: Path) -> None:
    """A linked work tree, whose `.git` is a file, is read like any other."""
    commit = team.commit("one")
    team.git("worktree", "add", "-q", str(tmp_path / "tree"))
    tree = GitRepository(tmp_path / "tree", _environment(tmp_path / "home"))
    assert tree.commit(["one"]) == commit
    assert tree.uncommitted(["one"]) == ()


def test_a_hook_s_variables_do_not_mislead(team: Team, tmp_path: Path) -> None:
    """Called from a git hook of another repository, this one is read."""
    commit = team.commit("one")
    environment = {"GIT_DIR": str(tmp_path), "GIT_INDEX_FILE": "/dev/null", "GIT_WORK_TREE": "/"}
    repository = GitRepository(team.root, {**_environment(team.home), **environment})
    assert repository.commit(["one"]) == commit
    assert repository.uncommitted(["one"]) == ()


def test_nothing_of_the_repository_is_started(team: Team, tmp_path: Path) -> None:
    """No hook, pager, fsmonitor or signature program of the repository's settings runs."""
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\necho x >> {tmp_path}/started\n")
    trap.chmod(0o755)
    team.commit("one")
    (team.root / ".git/hooks/post-index-change").symlink_to(trap)
    settings = ("core.fsmonitor", "core.pager", "gpg.program", "pager.log", "pager.status")
    for name in settings:
        team.git("config", name, str(trap))
    team.git("config", "log.showSignature", "true")
    (team.root / "one").touch()
    repository = team.read()
    repository.uncommitted(["one"])
    repository.last_change("one")
    repository.commit(["one"])
    assert not (tmp_path / "started").exists()


def test_reading_changes_nothing(team: Team) -> None:
    """Not even the index is refreshed: another git may be at work."""
    team.commit("one")
    index = team.root / ".git" / "index"
    os.utime(team.root / "one", (1, 1))
    before = index.read_bytes()
    assert team.read().uncommitted(["one"]) == ()
    assert index.read_bytes() == before


def test_without_git_a_repository_cannot_be_read(team: Team) -> None:
    """Where there is a repository and no git, the error says what to install."""
    team.commit("one")
    repository = GitRepository(team.root, {}, program="/no/such/git")
    with pytest.raises(DeclarationError) as caught:
        repository.uncommitted(["one"])
    assert "install git" in caught.value.hint


def test_a_broken_repository_is_an_error(team: Team) -> None:
    """A repository that git cannot read is an error, not a clean one."""
    team.commit("one")
    (team.root / ".git" / "HEAD").write_text("nonsense")
    for ask in (team.read().uncommitted, team.read().commit):
        with pytest.raises(DeclarationError):
            ask(["one"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to somebody else")
def test_a_repository_of_another_user_says_how_to_trust_it(team: Team) -> None:
    """Git's refusal of another user's repository becomes the command that allows it."""
    team.commit("one")
    for path in (team.root, team.root / ".git"):
        os.chown(path, 12345, 12345)
    with pytest.raises(DeclarationError) as caught:
        team.read().uncommitted(["one"])
    assert "safe.directory" in caught.value.hint


def test_nobody_works_here_without_an_email(tmp_path: Path) -> None:
    """Where git knows no e-mail address, the person is empty."""
    assert GitRepository(tmp_path, _environment(tmp_path)).person() == ""
