"""SCRAM-SHA-256 on the side that knows a verifier: PostgreSQL's clients send no user name in it.

Rules:
- The user was named before; a name in the exchange is read over, as PostgreSQL does.
- No channel binding is offered: a client that insists on it is told no.
- Whoever fails learns it after the same work as whoever succeeds.

Source: RFC 5802, RFC 7677; PostgreSQL, "SASL Authentication".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

MECHANISM = "SCRAM-SHA-256"
ITERATIONS = 4096
_KEY_BYTES = 32


class ScramError(Exception):
    """The client's message is not what the exchange needs."""


@dataclass(frozen=True)
class Verifier:
    """What proves a password without holding it."""

    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    iterations: int = ITERATIONS


def make_verifier(password: str) -> Verifier:
    """Return a verifier of an ASCII password: no other is prepared here as clients do it."""
    if not password.isascii():
        raise ValueError("the password of a guard is ASCII")
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored_key = hashlib.sha256(_mac(salted, b"Client Key")).digest()
    return Verifier(salt, stored_key, _mac(salted, b"Server Key"))


class Exchange:
    """One client's proof, from its first message to our last."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._header = ""
        self._nonce = ""
        self._said = ""

    def begin(self, message: bytes) -> bytes:
        """Take the client's first message, and return the answer to it.

        Raises:
            ScramError: it is no such message.
        """
        flag, _, rest = _text(message).partition(",")
        authorised_as, _, bare = rest.partition(",")
        if flag not in {"n", "y"} or authorised_as:
            raise ScramError("channel binding and other identities are not possible here")
        parts = bare.split(",")
        if len(parts) < 2 or not parts[0].startswith("n=") or not parts[1].startswith("r="):  # noqa: PLR2004
            raise ScramError("the first message is malformed")
        if not parts[1][2:].isprintable() or len(parts[1]) == len("r="):
            raise ScramError("the nonce is malformed")
        self._header = f"{flag},,"
        self._nonce = parts[1][2:] + secrets.token_urlsafe(18)
        salt = base64.b64encode(self._verifier.salt).decode()
        answer = f"r={self._nonce},s={salt},i={self._verifier.iterations}"
        self._said = f"{bare},{answer}"
        return answer.encode()

    def end(self, message: bytes) -> bytes | None:
        """Take the client's last message; return our own proof, or None when it did not prove it.

        Raises:
            ScramError: it is no such message.
        """
        without, _, proof_text = _text(message).rpartition(",p=")
        expected = f"c={base64.b64encode(self._header.encode()).decode()},r={self._nonce}"
        if without != expected:
            raise ScramError("the last message does not belong to the first")
        try:
            proof = base64.b64decode(proof_text, validate=True)
        except (binascii.Error, ValueError):
            raise ScramError("the proof is malformed") from None
        if len(proof) != _KEY_BYTES:
            raise ScramError("the proof is malformed")
        said = f"{self._said},{without}".encode()
        signature = _mac(self._verifier.stored_key, said)
        key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        proven = hmac.compare_digest(hashlib.sha256(key).digest(), self._verifier.stored_key)
        answer = b"v=" + base64.b64encode(_mac(self._verifier.server_key, said))
        return answer if proven else None


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _text(message: bytes) -> str:
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise ScramError("the message is not UTF-8") from None
