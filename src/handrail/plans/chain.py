"""The arithmetic of the journal's chains: what a record's hash covers, and what an anchor says.

Rules (docs/reference/journal-format.md is the specification):
- A record's hash is SHA-256 over seven lines, so that it can be recomputed with `sha256sum`.
- No name holds a control character and no body a line end, so the lines cannot run into each other.
- The chain `anchors` says when each other chain opens, reopens and closes. The first record of a
  chain follows the anchor that opened it; so it also follows everything that was closed before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from handrail.plans.canonical import encode

FORMAT = 1
ANCHORS = "anchors"
# One record for each key that may be used once. Written by `Journal.single_use` alone.
USED = "used"
RESERVED = frozenset({ANCHORS, USED})
# What the first anchor follows.
GENESIS = "0" * 64

OPENED, REOPENED, CLOSED = "opened", "reopened", "closed"

# A secret as short as this is as likely a word of the record that happens to be the same.
_GUARDED_CHARACTERS = 8


def record_hash(
    *, chain: str, sequence: int, time: str, kind: str, body: str, previous: str
) -> str:
    """Return the hash of a record with these fields."""
    text = f"handrail-journal {FORMAT}\n{chain}\n{sequence}\n{time}\n{kind}\n{previous}\n{body}\n"
    return hashlib.sha256(text.encode()).hexdigest()


def opened_body(chain: str) -> str:
    """Return the body of the anchor that opens `chain`."""
    return encode({"chain": chain, "format": FORMAT})


def ended_body(chain: str, records: int, last: str) -> str:
    """Return the body of an anchor that closes or reopens `chain` after its record `last`."""
    return encode({"chain": chain, "last": last, "records": records})


def used_body(key: str) -> str:
    """Return the body of the record that says that `key` is used."""
    return encode({"key": key})


def is_name(name: str) -> bool:
    """Whether `name` can be a chain's name or a record's kind: printable, and not empty."""
    return bool(name) and name.isprintable()


def leaks(text: str, secrets: Collection[str]) -> bool:
    """Whether a body holds one of `secrets`, as it is or as JSON writes it.

    Secrets under eight characters are not looked for.
    """
    return any(
        secret in text or encode(secret)[1:-1] in text
        for secret in secrets
        if len(secret) >= _GUARDED_CHARACTERS
    )
