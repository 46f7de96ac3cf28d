"""The `allowed_signers` file and public keys, read as far as it takes to name who owns a key.

Rules:
- Only `ssh-keygen` decides whether a signature is good. What is read here names candidates for it,
  because `ssh-keygen -Y find-principals` stops at the first line that fits, and that may be a
  pattern, or a line that is no longer valid.
- A pattern (`*@example.com`) names nobody.
- A line that cannot be read names nobody; `ssh-keygen` refuses it too.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_WORD = re.compile(r'(?:[^\s"]|"(?:\\.|[^"\\])*")+')
_KEY_TYPE = re.compile(r"(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+")
_PATTERN = re.compile(r"[*?!]")
_PRIVATE_MAGIC = b"openssh-key-v1\0"
_SIGNATURE_MAGIC = b"SSHSIG"
_ARMOUR = re.compile(r"-----BEGIN [A-Z ]+-----(.*?)-----END [A-Z ]+-----", re.DOTALL)


@dataclass(frozen=True)
class Signer:
    """One line: who may sign with which key; `is_authority` when the key signs certificates."""

    principals: tuple[str, ...]
    key: bytes
    is_authority: bool


def signers(text: str) -> tuple[Signer, ...]:
    """Return the lines of an `allowed_signers` file that can be read, in their order."""
    return tuple(_signers(text))


def _signers(text: str) -> Iterator[Signer]:
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        words = _WORD.findall(line)
        # principals [options] key-type key [comment]
        at = next((n for n, word in enumerate(words[1:3], 1) if _KEY_TYPE.fullmatch(word)), None)
        key = _decoded(words[at + 1]) if at is not None and len(words) > at + 1 else None
        if at is None or key is None:
            continue
        options = words[1].lower().split(",") if at > 1 else []
        yield Signer(_names(words[0]), key, "cert-authority" in options)


def _names(field: str) -> tuple[str, ...]:
    names = field.replace('"', "").split(",")
    return tuple(name for name in names if name and not _PATTERN.search(name))


def owners(key: bytes, text: str) -> tuple[str, ...]:
    """Return every principal whose line has exactly `key`, each once, in the order of the file."""
    names = [n for s in signers(text) if s.key == key and not s.is_authority for n in s.principals]
    return tuple(dict.fromkeys(names))


def public_key(content: bytes) -> bytes | None:
    """Return the public key in a public key file, or in a private one that OpenSSH wrote.

    Its private file holds the public half in the clear, locked or not. None for every other form.
    """
    text = content.decode("ascii", "replace")
    words = text.split(maxsplit=2)
    if len(words) > 1 and _KEY_TYPE.fullmatch(words[0]):
        return _decoded(words[1])
    blob = _armoured(text)
    if blob is None or not blob.startswith(_PRIVATE_MAGIC):
        return None
    try:
        rest = blob[len(_PRIVATE_MAGIC) :]
        for _ in ("cipher", "key derivation", "its options"):
            _, rest = _string(rest)
        return _string(rest[4:])[0]  # after the number of keys, which is always 1
    except (struct.error, ValueError):
        return None


def signing_key(signature: str) -> bytes | None:
    """Return the public key (or certificate) that a signature says it was made with."""
    blob = _armoured(signature)
    if blob is None or not blob.startswith(_SIGNATURE_MAGIC):
        return None
    try:
        return _string(blob[len(_SIGNATURE_MAGIC) + 4 :])[0]  # after the version
    except (struct.error, ValueError):
        return None


def _armoured(text: str) -> bytes | None:
    found = _ARMOUR.search(text)
    return None if found is None else _decoded("".join(found.group(1).split()))


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


def _string(data: bytes) -> tuple[bytes, bytes]:
    (length,) = struct.unpack_from(">I", data)
    if len(data) < 4 + length:
        raise ValueError("shorter than it says")
    return data[4 : 4 + length], data[4 + length :]
