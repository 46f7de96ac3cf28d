"""People with real SSH keys, and the file that says who they are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed"
)


def make_key(directory: Path, name: str, passphrase: str = "", kind: str = "ed25519") -> Path:
    """Make a key pair and return the private key's path; an ordinary one without a program."""
    key = directory / name
    if kind == "ed25519" and not passphrase:
        made = Ed25519PrivateKey.generate()
        key.touch(mode=0o600)
        key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        line = made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        Path(f"{key}.pub").write_bytes(line + f" {name}@laptop\n".encode())
        return key
    options = ["-q", "-t", kind, "-N", passphrase, "-C", f"{name}@laptop", "-f", str(key)]
    subprocess.run(["ssh-keygen", *options], check=True, stdin=subprocess.DEVNULL)
    return key


def public(key: Path) -> str:
    """Return the public key's line: type, key and comment."""
    return Path(f"{key}.pub").read_text("ascii").strip()
