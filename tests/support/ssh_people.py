"""People with real SSH keys, and the file that says who they are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed"
)


def make_key(directory: Path, name: str, passphrase: str = "", kind: str = "ed25519") -> Path:
    """Make a key pair and return the private key's path."""
    key = directory / name
    options = ["-q", "-t", kind, "-N", passphrase, "-C", f"{name}@laptop", "-f", str(key)]
    subprocess.run(["ssh-keygen", *options], check=True, stdin=subprocess.DEVNULL)
    return key


def public(key: Path) -> str:
    """Return the public key's line: type, key and comment."""
    return Path(f"{key}.pub").read_text("ascii").strip()
