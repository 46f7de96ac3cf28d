"""Notices to a web hook, signed as the Standard Webhooks specification has it.

Rules:
- The body is one JSON object; `webhook-id` is the notice's own, the same for every attempt.
- Signed is `id.timestamp.body` with HMAC-SHA256, anew for each attempt: a copy that somebody kept
  is told by its time.
- Several secrets, with blanks between, give several signatures: a key can be changed in peace.

Source: https://www.standardwebhooks.com (specification 1.0.0).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from handrail.adapters.notify_http import Hook, post, refused
from handrail.plans.canonical import encode
from handrail.ports import Clock

PREFIX = "whsec_"
FORMAT = 1


class WebhookNotifier:
    """`ports.Notifier` by POST."""

    def __init__(self, hook: Hook, secrets: str, clock: Clock) -> None:
        """Keep where to, and what signs; empty for unsigned.

        Raises:
            NotifyError: a secret is not what it should be.
        """
        self._hook = hook
        self._keys = tuple(key_of(secret) for secret in secrets.split())
        self._clock = clock

    def send(self, notice: Mapping[str, Any]) -> None:
        """Send one notice; see `ports.Notifier`."""
        body = encode({"format": FORMAT, "type": f"handrail.{notice['kind']}", "data": notice})
        time = str(int(self._clock.now().timestamp()))
        headers = {"webhook-id": str(notice["id"]), "webhook-timestamp": time}
        if self._keys:
            signed = f"{notice['id']}.{time}.{body}".encode()
            headers["webhook-signature"] = " ".join(sign(key, signed) for key in self._keys)
        post(self._hook, body.encode(), headers, self._clock.now)


def key_of(secret: str) -> bytes:
    """Return the key of `whsec_<base64>`; any other text is a key as it is.

    Raises:
        NotifyError: what follows `whsec_` is not base64.
    """
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        why = "its secret is not base64 behind `whsec_`"
        raise refused(why, is_passing=True) from None


def sign(key: bytes, content: bytes) -> str:
    """Return a signature as `webhook-signature` has it."""
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
