"""Who signed a commit: made by git and ssh-keygen, judged by the team's `allowed_signers`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from handrail.adapters.app_git import GitSources
from handrail.testing.clock import FakeClock
from support.app_repositories import AppRepository, environment
from support.sshd import make_key, server_program

ANA, BEN = "ana@example.com", "ben@example.com"
NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)


class Signing:
    """A repository whose commits are signed, and a team that says whose keys count."""

    def __init__(self, folder: Path) -> None:
        server_program()
        self.folder = folder
        self.shop = AppRepository(folder / "shop", folder / "home")
        self.shop.git("config", "gpg.format", "ssh")
        self.team = folder / "team"
        self.team.mkdir()
        for name in ("ana", "ben"):
            make_key(folder / name)

    def commit(self, key: str = "ana", message: str = "change") -> str:
        """Commit with a signature by that key."""
        self.shop.git("config", "user.signingKey", str(self.folder / key))
        return self.shop.commit(None, message, "ana", "-S")

    def allow(self, *lines: str) -> None:
        """Write `allowed_signers`; `{ana}` and `{ben}` stand for public keys."""
        keys = {
            name: " ".join((self.folder / f"{name}.pub").read_text().split()[:2])
            for name in ("ana", "ben")
        }
        text = "".join(f"{line.format(**keys)}\n" for line in lines)
        (self.team / "allowed_signers").write_text(text)

    def signer(self, ref: str = "main") -> str:
        env = environment(self.shop.home)
        sources = GitSources(self.team, self.team / ".handrail", env, FakeClock(NOW))
        return sources.open("../shop", ref).commit.signed_by

    def rewrite(self, old: bytes, new: bytes) -> None:
        """Change the signed commit as somebody does who has no key."""
        raw = self.shop.git("cat-file", "commit", "main").encode() + b"\n"
        assert old in raw
        changed = raw.replace(old, new)
        made = self.shop.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=changed)
        self.shop.git("update-ref", "refs/heads/main", made)


@pytest.fixture
def signing(tmp_path: Path) -> Signing:
    return Signing(tmp_path)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((f"{ANA} {{ana}}",), ANA),
        ((f'{ANA} namespaces="git" {{ana}}',), ANA),
        ((f"{BEN} {{ben}}", f"{ANA} {{ana}}"), ANA),
        ((f"{ANA},ana@other.example {{ana}}",), ANA),
        ((f"{BEN} {{ben}}",), ""),
        ((f'{ANA} namespaces="handrail" {{ana}}',), ""),
        (("*@example.com {ana}",), ""),
        ((f"{ANA} cert-authority {{ana}}",), ""),
        ((f'{ANA} valid-before="20251231" {{ana}}',), ""),
        ((f'{ANA} valid-after="20260201" {{ana}}',), ""),
        ((f'{ANA} valid-before="20260201" {{ana}}',), ANA),
        ((), ""),
    ],
)
def test_a_key_counts_as_the_team_says(
    signing: Signing, lines: tuple[str, ...], expected: str
) -> None:
    """By name, for git, and while it is valid; a pattern names nobody."""
    signing.commit()
    signing.allow(*lines)
    assert signing.signer() == expected


def test_a_commit_that_is_not_signed_has_no_signer(signing: Signing) -> None:
    """Nor has one where the team has no list."""
    signing.shop.commit(None)
    signing.allow(f"{ANA} {{ana}}")
    assert signing.signer() == ""
    signing.commit()
    (signing.team / "allowed_signers").unlink()
    assert signing.signer() == ""


@pytest.mark.parametrize(
    ("old", "new"), [(b"change", b"chance"), (b"Ana <ana@", b"Ben <ben@"), (b"tree ", b"tree ")]
)
def test_what_was_changed_afterwards_is_not_signed(
    signing: Signing, old: bytes, new: bytes
) -> None:
    """Message and author are under the signature; unchanged, it holds."""
    signing.commit()
    signing.allow(f"{ANA} {{ana}}")
    signing.rewrite(old, new)
    assert signing.signer() == (ANA if old == new else "")


def test_two_signatures_are_none(signing: Signing) -> None:
    """A second one beside a good one: nobody knows which of them a reader meant."""
    signing.commit()
    signing.allow(f"{ANA} {{ana}}")
    raw = signing.shop.git("cat-file", "commit", "main").encode()
    start = raw.index(b"gpgsig ")
    end = raw.index(b"-----END SSH SIGNATURE-----") + len(b"-----END SSH SIGNATURE-----\n")
    signing.rewrite(raw[start:end], raw[start:end] * 2)
    assert signing.signer() == ""


def test_a_signature_in_the_message_is_none(signing: Signing) -> None:
    """What only looks like a header signs nothing."""
    signing.commit()
    signing.allow(f"{ANA} {{ana}}")
    raw = signing.shop.git("cat-file", "commit", "main").encode()
    start = raw.index(b"gpgsig ")
    end = raw.index(b"-----END SSH SIGNATURE-----") + len(b"-----END SSH SIGNATURE-----\n")
    signing.rewrite(raw[start:end], b"")
    signing.rewrite(b"\n\nchange", b"\n\nchange\n\n" + raw[start:end])
    assert signing.signer() == ""
