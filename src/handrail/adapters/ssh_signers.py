"""The `allowed_signers` file and public keys, read as far as it takes to name who owns a key.

Rules:
- Nothing here decides whether a signature is good.
- A pattern (`*@example.com`) names nobody.
- A line that cannot be read names nobody; `ssh-keygen` refuses it too.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from handrail.errors import KeysError

_WORD = re.compile(r'(?:[^\s"]|"(?:\\.|[^"\\])*")+')
_OPTION = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*")+')
_KEY_TYPE = re.compile(r"(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+")
_PATTERN = re.compile(r"[*?!]")
_PRIVATE_MAGIC = b"openssh-key-v1\0"
_SIGNATURE_MAGIC = b"SSHSIG"
_CERTIFICATE = b"-cert-v01@openssh.com"
_ARMOUR = re.compile(r"-----BEGIN ([A-Z ]+)-----(.*?)-----END \1-----", re.DOTALL)


@dataclass(frozen=True)
class Signer:
    """One line: who may sign with which key.

    Attributes:
        principals: names, patterns left out.
        options: as written, without quotes: `namespaces=handrail,git`.
    """

    principals: tuple[str, ...]
    key: bytes
    options: tuple[str, ...]

    @property
    def is_authority(self) -> bool:
        """Whether the key signs certificates, and no payloads."""
        return any(option.lower() == "cert-authority" for option in self.options)


def read_allowed(allowed: Path) -> str:
    """Return the text of an `allowed_signers` file.

    Raises:
        KeysError: it cannot be read.
    """
    try:
        return allowed.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise KeysError(
            "keys.not-allowed",
            f"`{allowed}` cannot be read: {error.strerror}",
            hint="write it, a line a person: EMAIL ssh-ed25519 AAAA...",
        ) from error


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
        options = _OPTION.findall(words[1]) if at > 1 else []
        yield Signer(_names(words[0]), key, tuple(o.replace('"', "") for o in options))


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
    blob = armoured(text, "OPENSSH PRIVATE KEY")
    if blob is None or not blob.startswith(_PRIVATE_MAGIC):
        return None
    try:
        rest = blob[len(_PRIVATE_MAGIC) :]
        for _ in ("cipher", "key derivation", "its options"):
            _, rest = string_of(rest)
        return string_of(rest[4:])[0]  # after the number of keys, which is always 1
    except (struct.error, ValueError):
        return None


def signing_key(signature: str) -> bytes | None:
    """Return the public key (or certificate) that a signature says it was made with."""
    blob = armoured(signature, "SSH SIGNATURE")
    if blob is None or not blob.startswith(_SIGNATURE_MAGIC):
        return None
    try:
        return string_of(blob[len(_SIGNATURE_MAGIC) + 4 :])[0]  # after the version
    except (struct.error, ValueError):
        return None


def is_certificate(key: bytes) -> bool:
    """Whether a key is one that an authority certified: the names of its owner are in it."""
    try:
        return string_of(key)[0].endswith(_CERTIFICATE)
    except (struct.error, ValueError):
        return False


def armoured(text: str, label: str) -> bytes | None:
    """Return what stands between the BEGIN and END lines of `label`, decoded; None without them."""
    found = _ARMOUR.search(text)
    if found is None or found[1] != label:
        return None
    return _decoded("".join(found[2].split()))


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


def string_of(data: bytes) -> tuple[bytes, bytes]:
    """Return the first string of SSH's wire format, and what follows it.

    Raises:
        struct.error, ValueError: the data is shorter than it says.
    """
    (length,) = struct.unpack_from(">I", data)
    if len(data) < 4 + length:
        raise ValueError("shorter than it says")
    return data[4 : 4 + length], data[4 + length :]
