"""SSH signatures on a machine without OpenSSH's programs: the same format, Ed25519 keys alone.

Rules:
- What is signed here verifies with `ssh-keygen -Y verify`, and the other way round.
- A line of `allowed_signers` with an option that is not understood here allows nobody.
- A key that is locked by a passphrase, or of another kind, needs `ssh-keygen`, and is refused.

Source: PROTOCOL.sshsig of OpenSSH; ssh-keygen(1), ALLOWED SIGNERS.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import textwrap
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

from handrail.adapters.ssh_signers import (
    Signer,
    armoured,
    owners,
    public_key,
    read_allowed,
    signers,
    string_of,
)
from handrail.errors import KeysError

NAMESPACE = b"handrail"
_MAGIC = b"SSHSIG"
_KIND = b"ssh-ed25519"
_HASHES = {b"sha512": hashlib.sha512, b"sha256": hashlib.sha256}
_NEEDS = "apt install openssh-client: ssh-keygen knows every kind of key"


class Ed25519Keys:
    """`ports.Keys` without a program."""

    def sign(self, payload: bytes, key: Path) -> str:
        """Return an armoured signature; see `ports.Keys`."""
        private = _load(key)
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        signature = private.sign(_signed(payload, b"sha512"))
        blob = (
            _MAGIC
            + struct.pack(">I", 1)
            + b"".join(
                _packed(part)
                for part in (
                    _packed(_KIND) + _packed(raw),
                    NAMESPACE,
                    b"",
                    b"sha512",
                    _packed(_KIND) + _packed(signature),
                )
            )
        )
        lines = "\n".join(textwrap.wrap(base64.b64encode(blob).decode("ascii"), 70))
        return f"-----BEGIN SSH SIGNATURE-----\n{lines}\n-----END SSH SIGNATURE-----\n"

    def verify(
        self, payload: bytes, signature: str, allowed: Path, at: datetime, person: str
    ) -> None:
        """Raise unless `person` signed `payload`; see `ports.Keys`."""
        key = _verified(payload, signature)
        lines = [
            s for s in signers(read_allowed(allowed)) if s.key == key and person in s.principals
        ]
        if not any(_allows(line, at) for line in lines):
            raise KeysError(
                "keys.signature",
                f"{allowed.name} does not allow {person} this key at that time",
                hint=f"look at the line of {person} in {allowed.name}",
            )

    def principals(self, key: Path, allowed: Path) -> tuple[str, ...]:
        """Return who owns `key`; see `ports.Keys`."""
        for file in (key, Path(f"{key}.pub")):
            found = public_key(file.read_bytes()) if file.is_file() else None
            if found is not None:
                return owners(found, read_allowed(allowed))
        raise KeysError("keys.unavailable", f"there is no SSH key `{key}`", hint="name one: --key")


def _load(key: Path) -> Ed25519PrivateKey:
    try:
        private = load_ssh_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise KeysError(
            "keys.unavailable",
            f"the SSH key `{key}` cannot be read: {error.strerror}",
            hint="name one: --key",
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeysError(
            "keys.unavailable",
            f"the SSH key `{key}` is locked, or no key that can be read here",
            hint=_NEEDS,
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeysError(
            "keys.unavailable", f"the SSH key `{key}` is not of kind Ed25519", hint=_NEEDS
        )
    return private


def _verified(payload: bytes, signature: str) -> bytes:
    """Return the public key whose signature over `payload` this is.

    Raises:
        KeysError: it is nobody's, over something else, or of a form that is not read here.
    """
    blob = armoured(signature, "SSH SIGNATURE")
    try:
        if blob is None or not blob.startswith(_MAGIC + struct.pack(">I", 1)):
            raise ValueError("no signature of SSH")  # noqa: TRY301  one way out for every bad form
        rest = blob[len(_MAGIC) + 4 :]
        key, rest = string_of(rest)
        namespace, rest = string_of(rest)
        _, rest = string_of(rest)
        algorithm, rest = string_of(rest)
        inner, rest = string_of(rest)
        kind, raw = string_of(key)
        kind_again, made = string_of(inner)
        if rest or namespace != NAMESPACE or algorithm not in _HASHES:
            raise ValueError("not a signature of this namespace")  # noqa: TRY301  the same
        if (kind, kind_again) != (_KIND, _KIND):
            raise KeysError(
                "keys.signature", "the signature is of another kind than Ed25519", hint=_NEEDS
            )
        public = Ed25519PublicKey.from_public_bytes(_whole(raw))
        public.verify(_whole(made), _signed(payload, algorithm))
    except (ValueError, struct.error, InvalidSignature) as error:
        raise KeysError(
            "keys.signature", "the signature does not verify", hint="sign again: handrail approve"
        ) from error
    return key


def _whole(data: bytes) -> bytes:
    """Return the only string in `data`."""
    text, rest = string_of(data)
    if rest:
        raise ValueError("more than one string")
    return text


def _signed(payload: bytes, algorithm: bytes) -> bytes:
    """Return the bytes that an SSH signature is really over."""
    digest = _HASHES[algorithm](payload).digest()
    return _MAGIC + b"".join(_packed(part) for part in (NAMESPACE, b"", algorithm, digest))


def _packed(part: bytes) -> bytes:
    return struct.pack(">I", len(part)) + part


def _allows(line: Signer, at: datetime) -> bool:
    """Whether every option of a line is understood, and allows a signature at that time."""
    for option in line.options:
        name, _, value = option.partition("=")
        match name.lower():
            case "namespaces":
                good = NAMESPACE.decode() in value.split(",")
            case "valid-after":
                good = at >= _time(value)
            case "valid-before":
                good = at < _time(value)
            case _:
                good = False
        if not good:
            return False
    return True


def _time(text: str) -> datetime:
    """Return `YYYYMMDD[HHMM[SS]][Z]` as a time in UTC; one that never allows where it is not."""
    digits = text.removesuffix("Z")
    for size, form in ((8, "%Y%m%d"), (12, "%Y%m%d%H%M"), (14, "%Y%m%d%H%M%S")):
        if len(digits) == size:
            return datetime.strptime(digits, form).replace(tzinfo=UTC)
    raise KeysError("keys.signature", f"`{text}` is not a time of allowed_signers")
