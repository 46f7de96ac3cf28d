"""What a hostile repository can put into its trees, and what is read of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from handrail.adapters.app_git import GitSources
from handrail.adapters.app_git.source import GitSource
from handrail.errors import UsageError
from handrail.kits.deploys.model import File
from handrail.testing.clock import FakeClock
from support.app_repositories import AppRepository, environment

FILE, LINK, SUBMODULE, FOLDER = "100644", "120000", "160000", "40000"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"


class Scene:
    """An app's repository beside the team's."""

    def __init__(self, folder: Path) -> None:
        self.shop = AppRepository(folder / "shop", folder / "home")
        self.root = folder / "team"
        self.root.mkdir()

    def open(self, ref: str = "main", **more: str) -> GitSource:
        env = environment(self.shop.home, **more)
        return GitSources(self.root, self.root / ".handrail", env, FakeClock()).open("../shop", ref)

    def refused(self, path: str) -> str:
        """Return why neither the file nor what is below it is read."""
        source = self.open()
        with pytest.raises(UsageError) as by_name:
            source.read(path)
        with pytest.raises(UsageError) as together:
            source.files([path])
        assert by_name.value.code == together.value.code == "source.refused"
        return by_name.value.message


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.mark.parametrize("leads_to", ["/etc/passwd", "../../team/secret", "other"])
def test_a_link_is_not_followed(scene: Scene, leads_to: str) -> None:
    """Neither out of the repository, nor within it; neither itself nor what lies behind it."""
    shop = scene.shop
    link, other = shop.blob(leads_to.encode()), shop.blob(b"x")
    shop.point(shop.tree((LINK, link, b"link"), (FILE, other, b"other")))
    assert "symbolic link" in scene.refused("link")
    assert "symbolic link" in scene.refused("link/passwd")
    with pytest.raises(UsageError, match="symbolic link"):
        scene.open().files(["."])


def test_a_submodule_is_not_read(scene: Scene) -> None:
    """Neither itself nor a path in it; `.gitmodules` is a file like any other."""
    shop = scene.shop
    modules = shop.blob(b'[submodule "m"]\n path = m\n url = ext::sh -c "touch /tmp/x"\n')
    shop.point(shop.tree((FILE, modules, b".gitmodules"), (SUBMODULE, "1" * 40, b"m")))
    assert "submodule" in scene.refused("m")
    assert "submodule" in scene.refused("m/app.hcl")
    assert "ext::" in (scene.open().read(".gitmodules") or "")


def test_a_pointer_of_lfs_is_not_taken_for_the_file(scene: Scene) -> None:
    """What Git LFS keeps elsewhere is refused with what to do."""
    scene.shop.commit({"app.hcl": POINTER})
    assert "Git LFS" in scene.refused("app.hcl")


@pytest.mark.parametrize(
    "name", [b"..", b".git", b".GIT", b"a/../../b", b"\xff\xfe", b"a\nb", b"\x1b[2J", b"."]
)
def test_a_name_that_could_not_be_kept_is_refused(scene: Scene, name: bytes) -> None:
    """A tree that git itself would not write out is not given to anybody who would."""
    shop = scene.shop
    inner = shop.tree((FILE, shop.blob(b"x"), name))
    shop.point(shop.tree((FOLDER, inner, b"app")))
    with pytest.raises(UsageError) as caught:
        scene.open().files(["app"])
    assert caught.value.code == "source.refused"
    assert "\x1b" not in str(caught.value.as_json())


def test_one_name_twice_is_refused(scene: Scene) -> None:
    """A reviewer saw one of them: nobody knows which."""
    shop = scene.shop
    one, two = shop.blob(b"1"), shop.blob(b"2")
    shop.point(shop.tree((FILE, one, b"app.hcl"), (FILE, two, b"app.hcl")))
    assert "twice" in scene.refused("app.hcl")
    inner = shop.tree((FILE, one, b"b"))
    shop.point(shop.tree((FILE, one, b"a"), (FOLDER, inner, b"a")), "both")
    with pytest.raises(UsageError, match=r"is there twice|lies in a file"):
        scene.open("both").files(["."])


def test_letters_are_told_apart(scene: Scene) -> None:
    """`Deploy/app` is not `deploy/app`, whatever file system somebody has."""
    shop = scene.shop
    small, large = shop.blob(b"small"), shop.blob(b"large")
    shop.point(shop.tree((FILE, large, b"APP.hcl"), (FILE, small, b"app.hcl")))
    assert scene.open().read("app.hcl") == "small"
    assert scene.open().read("App.hcl") is None


@pytest.mark.parametrize("name", ["-x", "*", ":(top)q", "a b", "größe", '"', "[a]", "--help"])
def test_a_strange_name_is_a_name(scene: Scene, name: str) -> None:
    """No name is taken for an option, a pattern or git's magic."""
    scene.shop.commit({name: "it", "other": "x", "d/in": "y"})
    source = scene.open()
    assert source.read(name) == "it"
    assert source.files([name]) == {name: File(b"it")}


def test_a_program_is_told_from_a_file(scene: Scene) -> None:
    """What may be executed in the repository is so where it is written out."""
    scene.shop.commit({"run.sh": "x", "app.py": "y"})
    scene.shop.git("update-index", "--chmod=+x", "run.sh")
    scene.shop.git("commit", "-q", "-m", "may run")
    assert scene.open().files(["."]) == {
        "app.py": File(b"y"),
        "run.sh": File(b"x", is_executable=True),
    }


def test_nothing_of_the_repository_runs(scene: Scene, tmp_path: Path) -> None:
    """Hooks, filters, attributes, aliases and programs of its config stay where they are."""
    shop, mark = scene.shop, tmp_path / "mark"
    program = f"touch {mark}; cat"
    shop.commit({"app.hcl": "x", ".gitattributes": "* filter=evil diff=evil text eol=crlf\n"})
    for key in (
        *("filter.evil.smudge", "filter.evil.clean", "diff.evil.textconv", "core.fsmonitor"),
        *("uploadpack.packObjectsHook", "core.sshCommand", "core.pager", "gpg.program"),
        *("gpg.ssh.program", "core.alternateRefsCommand", "alias.upload-pack", "core.askPass"),
    ):
        shop.git("config", key, program)
    hooks = shop.root / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (hooks / name).chmod(0o755)
    source = scene.open()
    assert source.read("app.hcl") == "x"
    assert source.since(source.commit.id) == ()
    assert not mark.exists()


def test_the_cache_has_no_files_of_the_app(scene: Scene) -> None:
    """Nothing is checked out: no file of the repository lies below Handrail's state."""
    scene.shop.commit({"app-with-a-name.hcl": "x"})
    scene.open().read("app-with-a-name.hcl")
    state = scene.root / ".handrail"
    assert state.stat().st_mode & 0o777 == 0o700 or (state / "apps").stat().st_mode & 0o077 == 0
    assert not list(state.rglob("app-with*"))
    assert not [one for one in state.rglob("*") if one.is_symlink() or one.name == "hooks"]


def test_a_tag_of_no_commit_is_refused(scene: Scene) -> None:
    """A tag may name a file; that is nothing to deploy."""
    scene.shop.commit({"a": "1"})
    scene.shop.git("tag", "odd", scene.shop.blob(b"x"))
    with pytest.raises(UsageError, match="leads to no commit"):
        scene.open("odd")


def test_an_empty_repository_has_nothing(scene: Scene) -> None:
    """Without a commit there is no branch, and that is said."""
    with pytest.raises(UsageError) as caught:
        scene.open()
    assert (caught.value.code, caught.value.hint) == ("source.no-ref", "it has no branches yet")


def test_a_commit_with_odd_words_is_told(scene: Scene) -> None:
    """Names of a megabyte, half characters and times of no year are cut or told as they are."""
    shop = scene.shop
    shop.commit({"a": "1"})
    tree = shop.git("rev-parse", "HEAD^{tree}")
    long = b"x" * 1_000_000
    raw = (
        b"tree " + tree.encode() + b"\nauthor " + b"A\xff" * 5 + b" <a@b> 99999999999999 +0000\n"
        b"committer C <c@d> 99999999999999 +0000\n\n" + long + b"\n\nReviewed-by: e@f\x1b[2J\n"
    )
    made = shop.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=raw)
    shop.git("update-ref", "refs/heads/odd", made)
    commit = scene.open("odd").commit
    assert (commit.id, commit.author) == (made, "a@b")
    assert len(commit.subject) == 300


def test_a_signature_alone_does_not_run_a_program(scene: Scene, tmp_path: Path) -> None:
    """An OpenPGP signature starts no gpg, whatever the person's config says."""
    mark = tmp_path / "mark"
    (tmp_path / "home/.gitconfig").write_text(
        f'[gpg]\n program = "touch {mark};"\n[gpg "ssh"]\n program = "touch {mark};"\n'
        "[log]\n showSignature = true\n"
    )
    shop = scene.shop
    shop.commit({"a": "1"})
    raw = shop.git("cat-file", "commit", "HEAD").encode()
    head, _, message = raw.partition(b"\n\n")
    signed = (
        head + b"\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n AAAA\n -----END PGP SIGNATURE-----"
        b"\n\n" + message
    )
    made = shop.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=signed)
    shop.git("update-ref", "refs/heads/pgp", made)
    assert scene.open("pgp").commit.signed_by == ""
    assert not mark.exists()
