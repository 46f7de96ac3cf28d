"""Sealing with real keys: whole before, whole after, and nothing in between."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest

from handrail.adapters.age_sealer import AgeSealer
from handrail.errors import HandrailError, KeysError, StoreError
from support.ssh_people import make_key, needs_ssh_keygen, public


@pytest.fixture
def key() -> pyrage.x25519.Identity:
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def identity(key: pyrage.x25519.Identity, tmp_path: Path) -> Path:
    path = tmp_path / "identity"
    path.write_text(f"# made for a test\n\n{key}\n")
    return path


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    folder = tmp_path / "backup"
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "deep" / "data").write_bytes(os.urandom(3_000_000))
    (folder / "a\nname with\tstrange letters é").write_text("x")
    (folder / "link").symlink_to("deep/data")
    return folder


def _content(folder: Path) -> dict[str, bytes | str | None]:
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def test_what_was_sealed_is_opened(
    key: pyrage.x25519.Identity, identity: Path, backup: Path, tmp_path: Path
) -> None:
    """Every file, folder and link inside comes back, and the clear text is gone meanwhile."""
    before = _content(backup)
    sealed = tmp_path / "backup.age"
    AgeSealer(None).seal(backup, sealed, [str(key.to_public())])
    assert not backup.exists()
    assert sealed.stat().st_mode & 0o777 == 0o600
    assert sealed.read_bytes().startswith(b"age-encryption.org/v1\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backup.age", "identity"]
    AgeSealer(identity).open(sealed, tmp_path / "opened")
    assert _content(tmp_path / "opened") == before


@needs_ssh_keygen
@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_an_ssh_key_opens(backup: Path, tmp_path: Path, kind: str) -> None:
    """A backup may be sealed for an SSH key; any one of several recipients opens it."""
    before = _content(backup)
    ssh = make_key(tmp_path, "ana", kind=kind)
    other = str(pyrage.x25519.Identity.generate().to_public())
    AgeSealer(None).seal(backup, tmp_path / "s", [other, public(ssh)])
    AgeSealer(ssh).open(tmp_path / "s", tmp_path / "opened")
    assert _content(tmp_path / "opened") == before


def test_a_stranger_cannot_open(identity: Path, backup: Path, tmp_path: Path) -> None:
    """Another key opens nothing and leaves nothing."""
    other = str(pyrage.x25519.Identity.generate().to_public())
    AgeSealer(None).seal(backup, tmp_path / "s", [other])
    with pytest.raises(KeysError) as caught:
        AgeSealer(identity).open(tmp_path / "s", tmp_path / "opened")
    assert caught.value.code == "keys.seal"
    assert list((tmp_path / "opened").iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"x",
        lambda data: data[:2_000_000] + bytes([data[2_000_000] ^ 1]) + data[2_000_001:],
        lambda data: b"",
        lambda data: b"junk",
    ],
)
def test_a_damaged_file_leaves_nothing(
    key: pyrage.x25519.Identity,
    identity: Path,
    backup: Path,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
) -> None:
    """A byte that changed, is missing or is too many makes opening fail with nothing left."""
    sealed = tmp_path / "s"
    AgeSealer(None).seal(backup, sealed, [str(key.to_public())])
    sealed.write_bytes(damage(sealed.read_bytes()))
    with pytest.raises(HandrailError) as caught:
        AgeSealer(identity).open(sealed, tmp_path / "opened")
    assert caught.value.code in {"keys.seal", "backup.damaged"}
    opened = tmp_path / "opened"
    assert not opened.exists() or list(opened.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "link"), [("../out", None), ("/tmp/handrail-out", None), ("l", "/etc/passwd")]
)
def test_nothing_is_written_outside(
    key: pyrage.x25519.Identity, identity: Path, tmp_path: Path, name: str, link: str | None
) -> None:
    """An archive that somebody made to write elsewhere is refused."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for member in (tarfile.TarInfo("good"), tarfile.TarInfo(name)):
            member.type = tarfile.SYMTYPE if link and member.name == name else tarfile.REGTYPE
            member.linkname = link or ""
            tar.addfile(member)
    sealed = tmp_path / "s"
    sealed.write_bytes(pyrage.encrypt(archive.getvalue(), [key.to_public()]))
    if name.startswith("/") and link is None:
        # An absolute name is taken as one below the directory.
        AgeSealer(identity).open(sealed, tmp_path / "opened")
    else:
        with pytest.raises(StoreError):
            AgeSealer(identity).open(sealed, tmp_path / "opened")
        assert list((tmp_path / "opened").iterdir()) == []
    assert not (tmp_path / "out").exists()
    assert not Path("/tmp/handrail-out").exists()


def test_sealing_again_only_finishes(
    key: pyrage.x25519.Identity, identity: Path, backup: Path, tmp_path: Path
) -> None:
    """After a crash in the removal, the sealed file is kept as it is, and the rest removed."""
    before, sealed = _content(backup), tmp_path / "s"
    recipient = [str(key.to_public())]
    AgeSealer(None).seal(backup, sealed, recipient)
    backup.mkdir()
    (backup / "what was left").write_text("x")
    AgeSealer(None).seal(backup, sealed, recipient)
    assert not backup.exists()
    AgeSealer(identity).open(sealed, tmp_path / "opened")
    assert _content(tmp_path / "opened") == before


@pytest.mark.parametrize("recipients", [[], ["age1nonsense"], ["ssh-ed25519 x"], ["ana"], [""]])
def test_without_a_recipient_the_clear_text_stays(
    backup: Path, tmp_path: Path, recipients: list[str]
) -> None:
    """Who cannot be sealed for is an error before anything is touched."""
    before = _content(backup)
    with pytest.raises(KeysError) as caught:
        AgeSealer(None).seal(backup, tmp_path / "s", recipients)
    assert caught.value.code == "keys.seal"
    assert _content(backup) == before
    assert not (tmp_path / "s").exists()


def test_a_failed_seal_keeps_the_clear_text(
    key: pyrage.x25519.Identity, backup: Path, tmp_path: Path
) -> None:
    """Where the sealed file cannot be written, the backup stays whole and nothing is left over."""
    before = _content(backup)
    with pytest.raises(StoreError):
        AgeSealer(None).seal(backup, tmp_path / "none" / "s", [str(key.to_public())])
    assert _content(backup) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backup"]


@pytest.mark.parametrize("content", [None, "", "# only\n", "AGE-SECRET-KEY-1GEHEIM", "\xff"])
def test_an_identity_that_is_none_is_an_error_without_its_text(
    backup: Path, tmp_path: Path, content: str | None
) -> None:
    """A file that holds no key is named, and nothing of it is told."""
    path = tmp_path / "identity"
    if content is not None:
        path.write_text(content, "latin-1")
    with pytest.raises(KeysError, match="identity") as caught:
        AgeSealer(path).open(tmp_path / "s", tmp_path / "opened")
    assert "GEHEIM" not in f"{caught.value} {caught.value.__cause__}"


def test_without_an_identity_nothing_opens(tmp_path: Path) -> None:
    """Where no key is configured, the error says so."""
    with pytest.raises(KeysError, match="configured"):
        AgeSealer(None).open(tmp_path / "s", tmp_path / "opened")
