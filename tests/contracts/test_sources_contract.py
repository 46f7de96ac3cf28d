"""The contract of apps' repositories: read by git, and in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from handrail.adapters.app_git import GitSources
from handrail.errors import UsageError
from handrail.kits.deploys.model import Commit, File
from handrail.kits.deploys.ports import Sources
from handrail.testing.clock import FakeClock
from handrail.testing.sources import FakeSources
from support.app_repositories import WHEN, AppRepository, environment

SHOP = "../shop"
TRAILERS = "change\n\nReviewed-by: Chi <chi@example.com>\nReviewed-by: eva@example.com"


class Told(Protocol):
    """What happened in a repository, told to a fake or done with git."""

    sources: Sources

    def commit(
        self,
        files: dict[str, str | bytes | None],
        branch: str = "main",
        *,
        after: str = "",
        is_reviewed: bool = False,
        author: str = "ana",
    ) -> str:
        """Commit, and return the id."""

    def tag(self, name: str, commit: str) -> None:
        """Tag, with a note."""

    def remove(self, branch: str) -> None:
        """Remove a branch."""


class ByGit:
    """Done with git."""

    def __init__(self, folder: Path) -> None:
        self.repository = AppRepository(folder / "shop", folder / "home")
        root = folder / "team"
        root.mkdir()
        env = environment(folder / "home")
        self.sources: Sources = GitSources(root, root / ".handrail", env, FakeClock())

    def commit(
        self,
        files: dict[str, str | bytes | None],
        branch: str = "main",
        *,
        after: str = "",
        is_reviewed: bool = False,
        author: str = "ana",
    ) -> str:
        if after:
            self.repository.git("checkout", "-q", "-B", branch, after)
        elif self.repository.git("branch", "--list"):
            self.repository.git("checkout", "-q", branch)
        return self.repository.commit(files, TRAILERS if is_reviewed else "change", author)

    def tag(self, name: str, commit: str) -> None:
        self.repository.git("tag", "-a", "-m", "note", name, commit)

    def remove(self, branch: str) -> None:
        self.repository.git("checkout", "-q", "--detach")
        self.repository.git("branch", "-q", "-D", branch)


class ByFake:
    """Told to the fake."""

    def __init__(self) -> None:
        self.fake = FakeSources()
        self.sources: Sources = self.fake

    def commit(
        self,
        files: dict[str, str | bytes | None],
        branch: str = "main",
        *,
        after: str = "",
        is_reviewed: bool = False,
        author: str = "ana",
    ) -> str:
        reviewers = ("chi@example.com", "eva@example.com") if is_reviewed else ()
        who = f"{author}@example.com"
        made = self.fake.commit(
            SHOP, files, branch=branch, after=after or None, author=who, reviewers=reviewers
        )
        return made.id

    def tag(self, name: str, commit: str) -> None:
        self.fake.tag(SHOP, name, commit)

    def remove(self, branch: str) -> None:
        self.fake.remove(SHOP, branch)


@pytest.fixture(params=["git", "fake"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Told:
    return ByGit(tmp_path) if request.param == "git" else ByFake()


def refused(told: Told, ref: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        told.sources.open(SHOP, ref)
    return caught.value


def test_a_branch_is_read_as_it_is_now(told: Told) -> None:
    """Each opening sees the branch's newest commit; what was opened before stays as it was."""
    first = told.commit({"app.hcl": "one"})
    before = told.sources.open(SHOP, "main")
    second = told.commit({"app.hcl": "two"})
    after = told.sources.open(SHOP, "main")
    assert (before.commit.id, before.read("app.hcl")) == (first, "one")
    assert (after.commit.id, after.read("app.hcl")) == (second, "two")


def test_a_commit_is_told(told: Told) -> None:
    """Author, time, subject and reviewers are those of the commit."""
    made = told.commit({"a": "1"}, is_reviewed=True, author="ben")
    reviewers = ("chi@example.com", "eva@example.com")
    expected = Commit(made, "ben@example.com", "Ben", WHEN, "change", reviewers)
    assert told.sources.open(SHOP, "main").commit == expected


def test_tags_and_commits_are_found(told: Told) -> None:
    """A tag with a note, a whole commit, the beginning of one, and a full name mean a commit."""
    first = told.commit({"a": "1"})
    told.tag("v1", first)
    second = told.commit({"a": "2"})
    for ref in ("v1", "refs/tags/v1", first, first[:7], first[:12].upper()):
        assert told.sources.open(SHOP, ref).commit.id == first
    for ref in ("main", "refs/heads/main", second, second[:9]):
        assert told.sources.open(SHOP, ref).commit.id == second


def test_an_older_branch_has_its_own_files(told: Told) -> None:
    """What is read is that branch's, and no other's."""
    first = told.commit({"app.hcl": "one", "gone": "x"})
    told.commit({"app.hcl": "two", "gone": None})
    told.commit({"app.hcl": "old, mended"}, "release/1", after=first)
    old = told.sources.open(SHOP, "release/1")
    assert (old.read("app.hcl"), old.read("gone")) == ("old, mended", "x")
    assert told.sources.open(SHOP, "main").read("gone") is None


def test_an_unknown_name_names_a_near_one(told: Told) -> None:
    """A name that is mistyped is refused with the one that was meant."""
    told.commit({"a": "1"})
    assert refused(told, "mian").code == "source.no-ref"
    assert "`main`" in refused(told, "mian").hint
    assert "main" in refused(told, "0" * 40).hint


def test_a_commit_that_nothing_leads_to_is_not_found(told: Told) -> None:
    """Nobody deploys what is on no branch any more, even where it was seen before."""
    first = told.commit({"a": "1"})
    lost = told.commit({"a": "2"}, "topic", after=first)
    assert told.sources.open(SHOP, lost[:10]).commit.id == lost
    assert told.sources.open(SHOP, "topic").commit.id == lost
    told.remove("topic")
    for ref in (lost, lost[:10], "topic"):
        assert refused(told, ref).code == "source.no-ref"


def test_a_name_that_means_two_commits_is_refused(told: Told) -> None:
    """Branch, tag and commit of one name: nobody deploys another one than was meant."""
    first = told.commit({"a": "1"})
    second = told.commit({"a": "2"})
    told.tag("both", first)
    told.commit({"a": "3"}, "both", after=second)
    told.commit({"a": "4"}, first[:9], after=second)
    for ref in ("both", first[:9]):
        assert refused(told, ref).code == "source.no-ref"
    assert told.sources.open(SHOP, "refs/tags/both").commit.id == first
    assert told.sources.open(SHOP, first).commit.id == first


@pytest.mark.parametrize(
    "ref",
    ["", "-uprogram", "--upload-pack=x", "main..v1", "main@{1}", "main^", "a b", "a\nb", "a\0b",
     "x:y", "/main", "main/", "*", "a.lock", "..", "@", "main~1", "^main", "a\\b", ".hidden"],
)  # fmt: skip
def test_what_is_no_name_is_refused(told: Told, ref: str) -> None:
    """No option, range, ancestor or pattern of git's gets as far as git."""
    told.commit({"a": "1"})
    assert refused(told, ref).code == "source.no-ref"


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "./a", "a//b", "a/", "a\0b", ".git/config"]
)
def test_a_path_that_leads_elsewhere_is_refused(told: Told, path: str) -> None:
    """A path is straight, and in the repository."""
    told.commit({"a": "1"})
    source = told.sources.open(SHOP, "main")
    for read in (source.read, lambda one: source.files([one])):
        with pytest.raises(UsageError) as caught:
            read(path)
        assert caught.value.code == "source.refused"


def test_what_is_no_text_is_refused(told: Told) -> None:
    """A folder, a file that is too large, and bytes that are no text are refused by name."""
    told.commit({"d/one": "1", "large": "x" * 101, "bytes": b"\xff\xfe", "nul": "a\0b"})
    source = told.sources.open(SHOP, "main")
    for path in ("d", "large", "bytes", "nul"):
        with pytest.raises(UsageError, match=path) as caught:
            source.read(path, limit_bytes=100)
        assert caught.value.code == "source.refused"
    assert source.read("large", limit_bytes=101) == "x" * 101
    assert source.read("d/one/two") is None


def test_files_below_paths_are_given_together(told: Told) -> None:
    """Folders and files, each once, as bytes; a path where nothing is adds nothing."""
    files: dict[str, str | bytes | None] = {"d/e/one": "1", "d/two": b"\xff\x00", "three": "3"}
    told.commit(files)
    source = told.sources.open(SHOP, "main")
    below = {"d/e/one": File(b"1"), "d/two": File(b"\xff\x00")}
    assert source.files(["d", "d/e", "none"]) == below
    assert source.files(["three"]) == {"three": File(b"3")}
    assert source.files(["."]) == {**below, "three": File(b"3")}
    assert source.files([]) == {}
    with pytest.raises(UsageError) as caught:
        source.files(["d"], limit_bytes=2)
    assert caught.value.code == "source.refused"


def test_the_commits_since_are_told(told: Told) -> None:
    """Newest first, at most as many as asked for; none for itself; unknown for an unknown one."""
    first = told.commit({"a": "1"})
    second = told.commit({"a": "2"}, author="ben")
    third = told.commit({"a": "3"})
    source = told.sources.open(SHOP, "main")
    since = source.since(first)
    assert since is not None
    assert {one.id for one in since} == {second, third}
    assert {one.author for one in since} == {"ana@example.com", "ben@example.com"}
    assert source.since(third) == ()
    assert len(source.since(first, limit=1) or ()) == 1
    assert source.since("0" * 40) is None


def test_the_commits_since_one_on_another_branch_are_told(told: Told) -> None:
    """What was deployed from a branch is known when another one is deployed."""
    first = told.commit({"a": "1"})
    other = told.commit({"a": "2"}, "topic", after=first)
    third = told.commit({"a": "3"})
    since = told.sources.open(SHOP, "main").since(other)
    assert since is not None
    assert [one.id for one in since] == [third]
    assert replace(since[0], id="") == replace(told.sources.open(SHOP, "main").commit, id="")


@pytest.mark.parametrize(
    "repository",
    [
        "ext::sh -c touch% /tmp/x", "ext::sh", "fd::3", "file:///etc", "file://localhost/etc",
        "-uprogram", "--upload-pack=x", "https://ana:s3cret@git.example/x", "git://git.example/x",
        "https://ana:x/s3cret@git.example/x", "https://ana:my s3cret@git.example/x",
        "https://" + "a" * 250 + ":s3cret@git.example/x",
        "https://ghp_abcdefghijklmnop@git.example/x", "ssh://ana:s3cret@git.example/x",
        "ssh://-oProxyCommand=x/x", "-oProxyCommand=x:path", "git@-oProxyCommand=x:path",
        "ssh://-uana@git.example/x", "http://git.example/x", "https://", "https:///x",
        "a b", "x\n", "x\0", "", "ftp://git.example/x", "http://127.0.0.1.example/x",
        "https://git.example:99999999/x", "git@git.example:-x", "ssh://git.example/-x",
        "https://git.example/x?service=y", "HTTPS://ana:s3cret@git.example/x", "a@b/c",
        "transport::address", "x" * 2000, "https://git.example", "\u00a0x",
    ],
)  # fmt: skip
def test_an_address_that_is_not_safe_is_refused(told: Told, repository: str) -> None:
    """Programs, other files, options, passwords and what is unencrypted; a password is not said."""
    with pytest.raises(UsageError) as caught:
        told.sources.open(repository, "main")
    assert caught.value.code == "source.refused"
    assert "s3cret" not in str(caught.value.as_json())
    assert "ghp_" not in str(caught.value.as_json())
