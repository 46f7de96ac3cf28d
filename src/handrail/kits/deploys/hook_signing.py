"""Who sent a web hook: its signature over the body as it came. Pure.

Rules:
- Compared in constant time, also where there is no such app: then against a key that nobody has.
- Own clients sign `t.body` (`X-Handrail-Signature: t=<unix>,v1=<hex>`): a copy counts for five
  minutes. GitHub and what signs as it does sign the body alone (`X-Hub-Signature-256`): a copy of
  it is told by its delivery, its bytes and its commit, for ever.
- GitLab's `X-Gitlab-Token` is the secret itself, and counts only where the app says so.
- Several secrets, with blanks between, all count: a key can be changed in peace. One that is
  shorter than 16 characters counts for none.

Source: https://docs.github.com/webhooks (validating deliveries); Stripe's scheme for `t=,v1=`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

WINDOW_S = 300
SHORTEST_SECRET_CHARACTERS = 16
OWN, HUB, GITLAB = "x-handrail-signature", "x-hub-signature-256", "x-gitlab-token"
_TIME = re.compile(r"t=([0-9]{1,12})")
_V1 = re.compile(r"v1=([0-9a-f]{64})")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MOST_PARTS = 5
_IDS = {"github": ("x-github-delivery", "x-gitea-delivery"), "gitlab": ("x-gitlab-event-uuid",)}


@dataclass(frozen=True)
class Signed:
    """A body that whoever knows the secret sent.

    Attributes:
        by: `own`, `github` or `gitlab`: how it is read.
        id: what the sender calls this delivery; empty where it does not say.
        late_s: how far its time is from now, in seconds; 0 where it has none.
    """

    by: str
    id: str
    late_s: int = 0

    @property
    def is_late(self) -> bool:
        """Whether it is too old, or too new, to count."""
        return abs(self.late_s) > WINDOW_S


def keys_of(secret: str) -> tuple[bytes, ...]:
    """Return the keys that a secret holds; none where it is too short to be one."""
    return tuple(one.encode() for one in secret.split() if len(one) >= SHORTEST_SECRET_CHARACTERS)


def verify(
    keys: tuple[bytes, ...],
    headers: Mapping[str, str],
    content: bytes,
    now_s: float,
    *,
    takes_tokens: bool = False,
) -> Signed | None:
    """Return what was signed; None where nobody who knows a key did.

    Args:
        keys: of the app; none for an app that is not there.
        headers: names in lower case.
        content: the body as it came.
        now_s: seconds since 1970.
        takes_tokens: whether the secret itself counts, in GitLab's header.
    """
    if OWN in headers:
        return _own(keys, headers[OWN], content, now_s)
    if HUB in headers:
        given = headers[HUB].removeprefix("sha256=")
        is_same = _is_signed(keys, content, (given,))
        return Signed("github", _id_of("github", headers)) if is_same else None
    given = headers.get(GITLAB, "")
    is_same = _is_token(keys, given) and takes_tokens
    return Signed("gitlab", _id_of("gitlab", headers)) if is_same else None


def sign(key: bytes, content: bytes, at_s: int) -> str:
    """Return the value of `X-Handrail-Signature` for a body."""
    return f"t={at_s},v1={_hex(key, b'%d.' % at_s + content)}"


def _own(keys: tuple[bytes, ...], header: str, content: bytes, now_s: float) -> Signed | None:
    parts = [part.strip() for part in header.split(",")]
    times = [found[1] for part in parts if (found := _TIME.fullmatch(part))]
    given = tuple(found[1] for part in parts if (found := _V1.fullmatch(part)))
    if len(parts) > _MOST_PARTS or len(times) != 1:
        given, times = (), ["0"]
    signed = f"{times[0]}.".encode() + content
    if not _is_signed(keys, signed, given):
        return None
    # By what was signed: whoever copies it can add to the header, and not to that.
    return Signed("own", hashlib.sha256(signed).hexdigest(), round(now_s) - int(times[0]))


def _is_signed(keys: tuple[bytes, ...], content: bytes, given: tuple[str, ...]) -> bool:
    """Whether one of `given` is a signature by one of the keys; takes as long without any."""
    found = False
    for key in keys or (bytes(32),):
        wanted = _hex(key, content)
        for one in given or ("",):
            # Bytes: text that is no ASCII is an error there, and here it is just wrong.
            found |= hmac.compare_digest(wanted.encode(), one.encode())
    return found and bool(keys)


def _is_token(keys: tuple[bytes, ...], given: str) -> bool:
    wanted = keys or (bytes(32),)
    same = [hmac.compare_digest(_hash(key), _hash(given.encode())) for key in wanted]
    return any(same) and bool(keys)


def _hash(text: bytes) -> bytes:
    # Of one length: comparing tells nothing of how long the secret is.
    return hashlib.sha256(text).digest()


def _hex(key: bytes, content: bytes) -> str:
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def _id_of(by: str, headers: Mapping[str, str]) -> str:
    given = next((headers[name] for name in _IDS[by] if name in headers), "")
    return given if _ID.fullmatch(given) else ""
