"""Signatures without OpenSSH's programs: the same format, and never more than ssh-keygen allows."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.adapters.ed25519_keys import Ed25519Keys
from handrail.adapters.ssh_keys import SshKeys
from handrail.errors import KeysError
from support.ssh_people import make_key, needs_ssh_keygen, public

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
PAYLOAD = b'{"digest":"7f3a"}\n'
OWN = Ed25519Keys()


def allow(folder: Path, key: Path, options: str = "", who: str = "ben@pilot.example") -> Path:
    kind, blob = public(key).split()[:2]
    allowed = folder / "allowed_signers"
    allowed.write_text(f"{who} {options} {kind} {blob}\n")
    return allowed


@needs_ssh_keygen
def test_what_is_signed_here_verifies_with_ssh_keygen(tmp_path: Path) -> None:
    """A signature made without OpenSSH is one of OpenSSH."""
    key = make_key(tmp_path, "ben")
    allowed = allow(tmp_path, key)
    signature = OWN.sign(PAYLOAD, key)
    SshKeys().verify(PAYLOAD, signature, allowed, NOW, "ben@pilot.example")
    OWN.verify(PAYLOAD, signature, allowed, NOW, "ben@pilot.example")


@needs_ssh_keygen
def test_what_ssh_keygen_signed_verifies_here(tmp_path: Path) -> None:
    """A signature of OpenSSH is good here, and names its owner."""
    key = make_key(tmp_path, "ben")
    allowed = allow(tmp_path, key, 'namespaces="git,handrail"')
    signature = SshKeys().sign(PAYLOAD, key)
    OWN.verify(PAYLOAD, signature, allowed, NOW, "ben@pilot.example")
    assert OWN.principals(key, allowed) == ("ben@pilot.example",)


@needs_ssh_keygen
@pytest.mark.parametrize(
    "options",
    [
        'namespaces="git"',
        'valid-after="20260602"',
        'valid-before="20260601"',
        "cert-authority",
        "some-option-of-later",
        'valid-before="never"',
    ],
)
def test_a_line_that_does_not_allow_it_allows_it_nowhere(tmp_path: Path, options: str) -> None:
    """Namespaces, dates and options that are not understood refuse, as they do with ssh-keygen."""
    key = make_key(tmp_path, "ben")
    allowed = allow(tmp_path, key, options)
    signature = OWN.sign(PAYLOAD, key)
    for keys in (OWN, SshKeys()):
        with pytest.raises(KeysError):
            keys.verify(PAYLOAD, signature, allowed, NOW, "ben@pilot.example")


@needs_ssh_keygen
def test_another_payload_person_key_or_namespace_does_not_verify(tmp_path: Path) -> None:
    """A signature counts for what it is over, for who made it, in this namespace."""
    ben, eva = make_key(tmp_path, "ben"), make_key(tmp_path, "eva")
    allowed = allow(tmp_path, ben)
    signature = OWN.sign(PAYLOAD, ben)
    file = tmp_path / "payload"
    file.write_bytes(PAYLOAD)
    elsewhere = ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", str(ben), str(file)]
    subprocess.run(elsewhere, check=True)
    for payload, made, person in (
        (PAYLOAD + b" ", signature, "ben@pilot.example"),
        (PAYLOAD, signature, "eva@pilot.example"),
        (PAYLOAD, OWN.sign(PAYLOAD, eva), "ben@pilot.example"),
        (PAYLOAD, Path(f"{file}.sig").read_text(), "ben@pilot.example"),
    ):
        with pytest.raises(KeysError):
            OWN.verify(payload, made, allowed, NOW, person)


@needs_ssh_keygen
def test_keys_that_need_ssh_keygen_say_so(tmp_path: Path) -> None:
    """A locked key, and one of another kind, are refused with what to install."""
    locked = make_key(tmp_path, "locked", passphrase="secret")
    other = make_key(tmp_path, "other", kind="ecdsa")
    for key in (locked, other):
        with pytest.raises(KeysError) as raised:
            OWN.sign(PAYLOAD, key)
        assert "openssh-client" in raised.value.hint
    with pytest.raises(KeysError):
        OWN.sign(PAYLOAD, tmp_path / "missing")


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_verifier(blob: bytes) -> None:
    """Whatever stands in a signature is refused, not believed and not a crash."""
    import base64
    import tempfile

    text = base64.b64encode(b"SSHSIG\0\0\0\1" + blob).decode()
    armour = f"-----BEGIN SSH SIGNATURE-----\n{text}\n-----END SSH SIGNATURE-----\n"
    with tempfile.TemporaryDirectory() as folder:
        allowed = Path(folder) / "allowed_signers"
        allowed.write_text("")
        with pytest.raises(KeysError):
            OWN.verify(PAYLOAD, armour, allowed, NOW, "ben@pilot.example")
