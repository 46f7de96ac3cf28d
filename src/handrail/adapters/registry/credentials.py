"""What opens a registry, and for which hosts it is meant.

Rules:
- Credentials go to hosts that the app declares, and to those hosts' own givers of tokens; to nobody
  that a specification, a redirect or an answer names.
- They are never shown: not by `repr`, not in an error.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from handrail.errors import UsageError
from handrail.kits.deploys.references import HUB_HOST

_VISIBLE = re.compile(r"[\x21-\x7e]{1,16384}")
# Who gives out tokens for registries whose host is another.
_GIVERS = {HUB_HOST: "auth.docker.io", "registry.gitlab.com": "gitlab.com"}


@dataclass(frozen=True)
class Credentials:
    """A user with a password, or a token alone, which is sent as it is."""

    user: str
    secret: str = field(repr=False)

    @property
    def header(self) -> str:
        """What `Authorization` says."""
        if not self.user:
            return f"Bearer {self.secret}"
        pair = base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()
        return f"Basic {pair}"


def read_credentials(text: str) -> Credentials | None:
    """Return what `user:password` or a token says; None where it is empty.

    Amazon's registries want `AWS:` and what `aws ecr get-login-password` prints, GitHub's any user
    and a token.

    Raises:
        UsageError: it cannot be either. It is not shown.
    """
    text = text.strip()
    if not text:
        return None
    user, colon, secret = text.partition(":")
    if not colon:
        user, secret = "", text
    if not _VISIBLE.fullmatch(secret) or (colon and not user) or "\n" in user:
        raise UsageError(
            "image.unreachable",
            "what `registry-token` refers to is neither `user:password` nor a token",
            hint="one line, without spaces in it",
        )
    return Credentials(user, secret)


@dataclass(frozen=True)
class Access:
    """Which registries an app declares, and what opens them.

    Attributes:
        hosts: of the images that it declares.
        giver: the host that gives out their tokens, where it is another and not a known one.
    """

    hosts: frozenset[str] = frozenset()
    credentials: Credentials | None = None
    giver: str = ""

    def of(self, host: str) -> Credentials | None:
        """Return what opens a registry; None where it is asked as anybody."""
        return self.credentials if host in self.hosts else None

    def gives(self, realm: str, host: str) -> bool:
        """Whether `realm` may be shown the credentials of `host` for a token."""
        return realm in {host, _GIVERS.get(host, host), self.giver or host}
