"""Who signed a commit, by the team's `allowed_signers`.

Rules:
- SSH signatures alone, in git's namespace, verified by `ssh-keygen`; no git config of anybody says
  which program that is, and no keyring of this machine's counts.
- A name that is a pattern, and a certificate, name nobody; two signatures are none.
- Validity is judged at the commit's own time, but never later than now. Who holds a key that has
  run out can write an earlier time: take a lost key's line out of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from handrail.adapters.ssh_keys import SshKeys
from handrail.adapters.ssh_signers import owners, read_allowed, signing_key
from handrail.errors import KeysError

NAMESPACE = "git"
_HEADER = re.compile(rb"^gpgsig(?:-sha256)? (?:[^\n]*\n)(?: [^\n]*\n)*", re.MULTILINE)


def signer(raw: bytes, allowed: Path, at: datetime, environment: Mapping[str, str]) -> str:
    """Return the principal whose good signature a commit has; empty for nobody's.

    Args:
        raw: the commit, as git keeps it.
        allowed: the team's `allowed_signers`.
        at: when the key must have been valid.
        environment: of this process.
    """
    signature, payload = _split(raw)
    key = signing_key(signature)
    if key is None:
        return ""
    keys = SshKeys(environment, asks=False, namespace=NAMESPACE)
    for person in owners(key, read_allowed(allowed)):
        try:
            keys.verify(payload, signature, allowed, at, person)
        except KeysError:
            continue
        return person
    return ""


def _split(raw: bytes) -> tuple[str, bytes]:
    """Return a commit's only signature, armoured, and what it is over."""
    head, blank, message = raw.partition(b"\n\n")
    head += b"\n"
    found = _HEADER.findall(head)
    if len(found) != 1:
        return "", raw
    lines = found[0].partition(b" ")[2].split(b"\n ")
    signature = b"\n".join(lines).decode("ascii", "replace")
    return signature, _HEADER.sub(b"", head) + blank[1:] + message
