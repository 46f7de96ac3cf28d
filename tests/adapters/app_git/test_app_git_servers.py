"""Apps' repositories behind real servers: git's own over HTTP, OpenSSH, and paths."""

from __future__ import annotations

import base64
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.adapters.app_git import GitSources, trees
from handrail.adapters.app_git.cache import Limits
from handrail.adapters.system import SystemClock
from handrail.errors import HandrailError, PlatformError, UsageError
from support.app_repositories import AppRepository, environment
from support.git_http import GitHttp, git_http
from support.sshd import Sshd, free_port, run_sshd, wait_until

__all__ = ["git_http"]


class Scene:
    """An app's repository in `shop`, and the team that reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shop = AppRepository(folder / "shop", folder / "home")
        self.root = folder / "team"
        self.root.mkdir()

    def sources(self, limits: Limits | None = None, config: str = "") -> GitSources:
        env = environment(self.shop.home, HANDRAIL_SSH_CONFIG=config)
        return GitSources(self.root, self.root / ".handrail", env, SystemClock(), limits=limits)

    def caches(self) -> list[Path]:
        return [one for one in (self.root / ".handrail/apps").iterdir() if one.suffix == ""]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    yield from run_sshd()


def failure(scene: Scene, repository: str, config: str = "") -> HandrailError:
    with pytest.raises(HandrailError) as caught:
        scene.sources(config=config).open(repository, "main")
    return caught.value


def is_passing(error: HandrailError) -> bool:
    assert isinstance(error, PlatformError), error
    assert error.code == "source.unreachable"
    return error.is_passing


# --- over HTTP ---------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [True, False])
def test_a_repository_is_read_over_http(scene: Scene, git_http: GitHttp, *, filters: bool) -> None:
    """Whether the server knows filters or not; a commit by its beginning too."""
    if not filters:
        scene.shop.git("config", "--unset", "uploadpack.allowFilter")
        scene.shop.git("config", "--unset", "uploadpack.allowAnySHA1InWant")
    first = scene.shop.commit({"app.hcl": "one", "d/e": "x"})
    second = scene.shop.commit({"app.hcl": "two"})
    url = f"{git_http.url}/shop/.git"
    source = scene.sources().open(url, "main")
    assert (source.commit.id, source.read("app.hcl")) == (second, "two")
    assert [one.id for one in source.since(first) or ()] == [second]
    assert sorted(source.files(["."])) == ["app.hcl", "d/e"]
    assert scene.sources().open(url, first[:8]).read("app.hcl") == "one"


def test_files_are_fetched_when_they_are_read(scene: Scene, git_http: GitHttp) -> None:
    """A repository with large files costs what is read of it: its other files stay there."""
    scene.shop.commit({"large": b"\xff" + base64.b64encode(bytes(range(256)) * 4000)})
    scene.shop.git("repack", "-q", "-a", "-d", "--window=0", "--depth=0")
    scene.shop.git("config", "core.compression", "0")
    scene.shop.commit({"app.hcl": "small"})
    source = scene.sources().open(f"{git_http.url}/shop/.git", "main")
    assert source.read("app.hcl") == "small"
    (cache,) = scene.caches()
    missing = subprocess.run(
        ["git", "rev-list", "--objects", "--missing=print", "--all"],
        cwd=cache,
        capture_output=True,
        text=True,
        check=True,
        env=environment(scene.shop.home, GIT_NO_LAZY_FETCH="1", GIT_ALLOW_PROTOCOL="none"),
    ).stdout
    assert "?" in missing


def test_a_file_that_is_too_large_is_not_even_fetched_whole(
    scene: Scene, git_http: GitHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The far side may send a file without end: what is kept of it is bounded."""
    monkeypatch.setattr(trees, "_EXTRA_BYTES", 20_000)
    _grow(scene, 1)
    source = scene.sources().open(f"{git_http.url}/shop/.git", "main")
    for read in (source.read, lambda path, limit: source.files([path], limit)):
        with pytest.raises(UsageError, match="larger") as caught:
            read("noise", 1000)
        assert caught.value.code == "source.refused"
    assert source.read("app.hcl", 1000) == "0"
    (cache,) = scene.caches()
    assert max(one.stat().st_size for one in cache.rglob("*")) < 30_000


def test_an_unchanged_repository_is_asked_once(scene: Scene, git_http: GitHttp) -> None:
    """What was fetched before is not fetched again: only which branches there are is asked."""
    scene.shop.commit({"a": "1"})
    url = f"{git_http.url}/shop/.git"
    scene.sources().open(url, "main")
    before = len(git_http.requests)
    scene.sources().open(url, "main")
    asked = git_http.requests[before:]
    assert [one.rpartition("/")[2] for one in asked] == [
        "refs?service=git-upload-pack",
        "git-upload-pack",
    ]


def test_a_password_comes_from_a_helper_and_is_shown_nowhere(
    scene: Scene, git_http: GitHttp
) -> None:
    """A credential helper of the person's git lets us in; without one nobody is asked."""
    git_http.password = "s3cret-word"
    scene.shop.commit({"a": "1"})
    url = f"{git_http.url}/shop/.git"
    error = failure(scene, url)
    assert not is_passing(error)
    assert "lets nobody in" in error.message
    (scene.folder / "home/.gitconfig").write_text(
        '[credential]\n helper = "!f() { echo username=ana; echo password=s3cret-word; }; f"\n'
    )
    assert scene.sources().open(url, "main").read("a") == "1"
    git_http.password = "another"
    error = failure(scene, url)
    assert "lets nobody in" in error.message
    assert "s3cret" not in str(error.as_json())
    kept = [one for one in (scene.root / ".handrail").rglob("*") if one.is_file()]
    assert not [one for one in kept if b"s3cret" in one.read_bytes()]


@pytest.mark.parametrize(
    ("status", "passes", "said"),
    [(404, False, "is not there"), (403, False, "lets nobody in"), (500, True, "does not answer"),
     (503, True, "does not answer"), (429, True, "does not answer"), (301, False, "another")],
)  # fmt: skip
def test_what_a_server_answers_is_told(
    scene: Scene, git_http: GitHttp, status: int, *, passes: bool, said: str
) -> None:
    """Whether another attempt may help is known from the answer; a redirect is not followed."""
    scene.shop.commit({"a": "1"})
    git_http.answer = status
    git_http.location = git_http.url if status == 301 else ""
    error = failure(scene, f"{git_http.url}/shop/.git")
    assert (is_passing(error), said in error.message) == (passes, True), error.message
    assert git_http.url in error.message


def test_nobody_there_is_worth_another_try(scene: Scene) -> None:
    """A port at which nobody listens."""
    assert is_passing(failure(scene, f"http://127.0.0.1:{free_port()}/shop.git"))


def test_a_server_that_hangs_ends_in_time(scene: Scene, git_http: GitHttp) -> None:
    """Nobody waits longer than the limit, and git and its helpers are gone."""
    git_http.hangs = True
    limits = Limits(ask_s=0.5)
    with pytest.raises(PlatformError, match=r"gave no whole answer within 0.5 s") as caught:
        scene.sources(limits).open(f"{git_http.url}/shop/.git", "main")
    assert caught.value.is_passing
    assert not _running(git_http.url)


def test_an_answer_that_is_cut_breaks_nothing(scene: Scene, git_http: GitHttp) -> None:
    """A fetch that was cut is told as such, and the next one succeeds."""
    scene.shop.commit({"a": "1" * 10_000})
    url = f"{git_http.url}/shop/.git"
    scene.sources().open(url, "main")
    second = scene.shop.commit({"a": "2" * 10_000})
    for cut in (0, 3, 40, 80):
        git_http.cut_after = cut
        assert is_passing(failure(scene, url)), cut
    git_http.cut_after = -1
    source = scene.sources().open(url, "main")
    assert (source.commit.id, source.read("a")) == (second, "2" * 10_000)


def test_a_password_of_a_configured_address_is_masked(scene: Scene) -> None:
    """Where the person's config rewrites the address to one with a password, it is not said."""
    port = free_port()
    (scene.folder / "home/.gitconfig").write_text(
        f'[url "http://ana:s3cret@127.0.0.1:{port}/"]\n insteadOf = http://127.0.0.1:{port}/\n'
    )
    error = failure(scene, f"http://127.0.0.1:{port}/shop.git")
    assert is_passing(error)
    assert "s3cret" not in str(error.as_json())


def test_a_config_does_not_lead_to_another_transport(scene: Scene, tmp_path: Path) -> None:
    """`insteadOf` of the person's own config brings back neither programs nor files."""
    mark = tmp_path / "mark"
    (scene.folder / "home/.gitconfig").write_text(
        f'[url "ext::touch {mark} "]\n insteadOf = https://git.example/\n'
        '[protocol]\n allow = always\n[protocol "ext"]\n allow = always\n'
    )
    error = failure(scene, "https://git.example/shop.git")
    assert (error.code, isinstance(error, UsageError)) == ("source.refused", True)
    assert not mark.exists()


# --- huge --------------------------------------------------------------------------------------


def _grow(scene: Scene, commits: int) -> list[str]:
    """Commit what does not compress, one file changed each time, a hundred thousand bytes each."""
    scene.shop.git("config", "core.compression", "0")
    made = []
    for number in range(commits):
        noise = subprocess.run(
            ["/bin/sh", "-c", "head -c 100000 /dev/urandom"], capture_output=True, check=True
        )
        made.append(scene.shop.commit({"noise": noise.stdout, "app.hcl": str(number)}))
    return made


def test_a_huge_repository_is_read_by_its_last_commits(scene: Scene, git_http: GitHttp) -> None:
    """What is too large as a whole is read in part, and that says what is not known."""
    scene.shop.git("config", "--unset", "uploadpack.allowFilter")
    made = _grow(scene, 8)
    limits = Limits(size_bytes=500_000, depth=3)
    url = f"{git_http.url}/shop/.git"
    source = scene.sources(limits).open(url, "main")
    assert (source.commit.id, source.read("app.hcl")) == (made[-1], "7")
    assert [one.id for one in source.since(made[-2]) or ()] == [made[-1]]
    assert source.since(made[0]) is None
    assert scene.sources(limits).open(url, made[-2]).read("app.hcl") == "6"
    with pytest.raises(UsageError, match="not among the last 3 commits"):
        scene.sources(limits).open(url, made[0])


def test_a_repository_beyond_all_limits_is_refused(scene: Scene, git_http: GitHttp) -> None:
    """Not even its last commit is taken: the error says what its server could do."""
    scene.shop.git("config", "--unset", "uploadpack.allowFilter")
    _grow(scene, 1)
    limits = Limits(size_bytes=50_000, depth=1)
    with pytest.raises(PlatformError, match="too large") as caught:
        scene.sources(limits).open(f"{git_http.url}/shop/.git", "main")
    assert (caught.value.is_passing, "allowFilter" in caught.value.hint) == (False, True)
    size = sum(one.stat().st_size for one in scene.root.rglob("*") if one.is_file())
    assert size < 200_000


def test_a_shallow_repository_is_read(scene: Scene) -> None:
    """One that is cut off itself gives what it has."""
    made = [scene.shop.commit({"a": str(number)}) for number in range(4)]
    scene.shop.git("clone", "-q", "--depth=2", f"file://{scene.shop.root}", "../cut")
    source = scene.sources().open("../cut", "main")
    assert (source.commit.id, source.read("a")) == (made[-1], "3")
    assert [one.id for one in source.since(made[-2]) or ()] == [made[-1]]
    assert source.since(made[0]) is None


def test_a_server_that_calls_itself_shallow_is_asked_a_few_times(
    scene: Scene, git_http: GitHttp
) -> None:
    """Git would by itself ask anew within each question, without end: here it does not."""
    for number in range(4):
        scene.shop.commit({"a": str(number)})
    scene.shop.git("clone", "-q", "--depth=2", f"file://{scene.shop.root}", "../cut")
    scene.shop.git("-C", "../cut", "config", "uploadpack.allowFilter", "true")
    source = scene.sources().open(f"{git_http.url}/cut/.git", "main")
    assert source.read("a") == "3"
    assert len(git_http.requests) < 20


# --- together, and killed ----------------------------------------------------------------------

_OPEN = """
import sys
from pathlib import Path
from handrail.adapters.app_git import GitSources, trees
from handrail.adapters.system import SystemClock
root = Path(sys.argv[1])
sources = GitSources(root, root / '.handrail', {'PATH': sys.argv[3]}, SystemClock())
print('begun', flush=True)
print(sources.open(sys.argv[2], 'main').commit.id)
"""


def _begin(scene: Scene, url: str) -> subprocess.Popen[str]:
    path = environment(scene.shop.home)["PATH"]
    return subprocess.Popen(
        [sys.executable, "-c", _OPEN, str(scene.root), url, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_read_one_repository_at_once(scene: Scene, git_http: GitHttp) -> None:
    """Processes that open the same repository, none of which was there, all succeed."""
    made = scene.shop.commit({"a": "1"})
    started = [_begin(scene, f"{git_http.url}/shop/.git") for _ in range(4)]
    for process in started:
        said, errors = process.communicate(timeout=120)
        assert said.split() == ["begun", made], errors


def test_one_that_was_killed_is_taken_up(scene: Scene, git_http: GitHttp) -> None:
    """Killed at any moment of a fetch: the next one reads the repository all the same."""
    made = scene.shop.commit({"a": "1"})
    url = f"{git_http.url}/shop/.git"
    for number in range(4):
        process = _begin(scene, url)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.05 + 0.08 * number)  # a moment of a real fetch, whichever it is
        process.kill()
        process.communicate()
    assert scene.sources().open(url, "main").commit.id == made


def test_ctrl_c_ends_git_too(scene: Scene, git_http: GitHttp) -> None:
    """Whoever stops waiting leaves nobody behind who goes on asking."""
    git_http.hangs = True
    process = _begin(scene, f"{git_http.url}/shop/.git")
    wait_until(lambda: git_http.requests, "the server was asked")
    assert _running(git_http.url)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert not [one for one in _running(git_http.url) if "git-remote" in one or "ls-remote" in one]


def test_a_cache_that_is_damaged_is_made_anew(scene: Scene) -> None:
    """Locks that a killed git left, a config that is none, packs that are torn."""
    made = scene.shop.commit({"a": "1"})
    scene.sources().open("../shop", "main")
    (cache,) = scene.caches()
    for name, content in (
        ("config", b"\xff[["),
        ("config.lock", b""),
        ("HEAD", b""),
        ("shallow.lock", b""),
        ("packed-refs", b"\xff"),
    ):
        (cache / name).write_bytes(content)
        made = scene.shop.commit({"a": name})
        assert scene.sources().open("../shop", "main").commit.id == made
    for pack in cache.rglob("*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(b"PACK")
    made = scene.shop.commit({"a": "2"})
    assert scene.sources().open("../shop", "main").read("a") == "2"


def test_a_state_folder_that_cannot_be_written_is_told(scene: Scene) -> None:
    """Where a file stands in its place, that is said."""
    scene.shop.commit({"a": "1"})
    (scene.root / ".handrail").write_text("x")
    error = failure(scene, "../shop")
    assert ("cannot be kept" in error.message, is_passing(error)) == (True, False)


# --- paths -------------------------------------------------------------------------------------


def test_a_path_leads_to_the_team_or_beside_it(scene: Scene, tmp_path: Path) -> None:
    """Further away only where it is written out as an absolute path."""
    scene.shop.commit({"a": "1"})
    far = AppRepository(tmp_path.parent / f"{tmp_path.name}-far", tmp_path / "home")
    made = far.commit({"a": "far"})
    error = failure(scene, f"../../{far.root.name}")
    assert (error.code, "absolute" in error.hint) == ("source.refused", True)
    (tmp_path / "team/link").symlink_to(far.root)
    assert failure(scene, "link").code == "source.refused"
    assert scene.sources().open(str(far.root), "main").commit.id == made
    inside = AppRepository(scene.root / "apps/own", tmp_path / "home").commit({"a": "in"})
    assert scene.sources().open("apps/own", "main").commit.id == inside


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_path_of_another_user_is_not_trusted(scene: Scene) -> None:
    """Git does not read what somebody else could have prepared; what to do is said."""
    scene.shop.commit({"a": "1"})
    for path in (scene.shop.root, *scene.shop.root.rglob("*")):
        os.chown(path, 65534, 65534)
    error = failure(scene, "../shop")
    assert (is_passing(error), "safe.directory" in error.hint) == (False, True)
    (scene.folder / "home/.gitconfig").write_text(f"[safe]\n directory = {scene.shop.root}/.git\n")
    assert scene.sources().open("../shop", "main").read("a") == "1"


@pytest.mark.parametrize("name", ["none", "file", "empty"])
def test_a_path_that_is_no_repository_is_told(scene: Scene, name: str) -> None:
    """Nothing, a bundle or other file, a folder without a repository."""
    (scene.folder / "file").write_text("# v2 git bundle\n")
    (scene.folder / "empty").mkdir()
    assert not is_passing(failure(scene, f"../{name}"))


# --- over SSH ----------------------------------------------------------------------------------


def _ssh_config(scene: Scene, sshd: Sshd, *, known: bool = True, key: str = "person") -> str:
    file = scene.folder / f"ssh-config-{known}-{key}"
    hosts = scene.folder / f"known-{known}"
    hosts.write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n" if known else "")
    file.write_text(
        f"IdentityFile {sshd.folder / key}\nIdentitiesOnly yes\nIdentityAgent none\n"
        f"UserKnownHostsFile {hosts}\nGlobalKnownHostsFile /dev/null\n"
    )
    return str(file)


def test_a_repository_is_read_over_ssh(scene: Scene, sshd: Sshd) -> None:
    """With the person's key and known hosts, and by either way of writing the address."""
    made = scene.shop.commit({"a": "1"})
    config = _ssh_config(scene, sshd)
    url = f"ssh://127.0.0.1:{sshd.port}{scene.shop.root}"
    assert scene.sources(config=config).open(url, "main").commit.id == made
    with Path(config).open("a") as file:
        file.write(f"Host git.example\n HostName 127.0.0.1\n Port {sshd.port}\n")
        file.write(f" HostKeyAlias [127.0.0.1]:{sshd.port}\n")
    short = f"git.example:{shlex.quote(str(scene.shop.root))}"
    assert scene.sources(config=config).open(short, "main").read("a") == "1"


def test_the_persons_own_ssh_is_called(scene: Scene, sshd: Sshd) -> None:
    """`core.sshCommand` of the person's git config, and nobody is asked all the same."""
    made = scene.shop.commit({"a": "1"})
    config = _ssh_config(scene, sshd)
    own = scene.folder / "home/.gitconfig"
    own.write_text(f'[core]\n sshCommand = "ssh -F {config}"\n')
    url = f"ssh://127.0.0.1:{sshd.port}{scene.shop.root}"
    assert scene.sources().open(url, "main").commit.id == made


def test_a_host_that_is_not_known_is_refused(scene: Scene, sshd: Sshd) -> None:
    """Nobody is asked whether to believe a key, and none is believed."""
    config = _ssh_config(scene, sshd, known=False)
    url = f"ssh://127.0.0.1:{sshd.port}{scene.shop.root}"
    error = failure(scene, url, config)
    assert not is_passing(error)
    assert "known_hosts" in error.hint


def test_a_key_that_is_not_let_in_is_told(scene: Scene, sshd: Sshd) -> None:
    """No passphrase or password is asked for."""
    config = _ssh_config(scene, sshd, key="host")
    url = f"ssh://127.0.0.1:{sshd.port}{scene.shop.root}"
    error = failure(scene, url, config)
    assert (is_passing(error), "lets nobody in" in error.message) == (False, True)


def test_a_repository_that_is_not_there_is_told(scene: Scene, sshd: Sshd) -> None:
    """The host is right, the path is not."""
    config = _ssh_config(scene, sshd)
    url = f"ssh://127.0.0.1:{sshd.port}/none/at/all"
    error = failure(scene, url, config)
    assert (is_passing(error), "is not there" in error.message) == (False, True)


def test_an_ssh_server_that_is_gone_is_worth_another_try(scene: Scene, sshd: Sshd) -> None:
    """A port at which nobody listens."""
    config = _ssh_config(scene, sshd)
    url = f"ssh://127.0.0.1:{free_port()}/x"
    assert is_passing(failure(scene, url, config))


def _running(word: str) -> list[str]:
    """Return the command lines of processes that have `word` in them."""
    found = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True)
    return [line for line in found.stdout.splitlines() if word in line and "git" in line]
