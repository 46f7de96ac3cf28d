"""What an image is called: `ghcr.io/team/shop:main`, `nginx`, `localhost:5000/x@sha256:...`.

Rules:
- Pure. The grammar is that of the distribution project; what it does not allow is refused.
- A short name (`nginx`, `team/shop`) is Docker Hub's; it stays written as it was.
- Without tag and digest, `latest` is meant.

Source: github.com/distribution/reference (grammar), OCI distribution specification 1.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from handrail.errors import UsageError

HUB = "docker.io"
HUB_HOST = "registry-1.docker.io"
_LONGEST = 255
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]{{2,45}}\])(?::(\d{{1,5}}))?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_PORTS = range(1, 65536)


@dataclass(frozen=True)
class Reference:
    """An image's name in its parts.

    Attributes:
        repository: as it was written: `nginx`, `ghcr.io/team/shop`.
        host: where its registry answers: `registry-1.docker.io`, `localhost:5000`.
        path: of the repository there: `library/nginx`, `team/shop`.
        tag: empty where only a digest was given.
        digest: empty where none was given; where both were, the digest counts.
    """

    repository: str
    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def wanted(self) -> str:
        """What the registry is asked for: the digest, else the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"


def parse(text: str) -> Reference:
    """Return an image's name in its parts.

    Raises:
        UsageError: `image.unknown`: it cannot be an image's name.
    """
    if len(text) > _LONGEST + len("sha512:") + 256:
        raise _refused(text[:40] + "...", "it is too long")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        # What stands around an `@` may be a password: not shown.
        raise _refused("...@...", "what follows `@` is no sha256 or sha512 digest")
    repository, tag = _split_tag(rest)
    if tag is not None and not _TAG.fullmatch(tag):
        raise _refused(text, "its tag has characters that a tag cannot have")
    parsed = parse_repository(repository, text)
    meant = tag if tag is not None else ("" if digest else "latest")
    return Reference(parsed.repository, parsed.host, parsed.path, meant, digest)


def parse_repository(text: str, whole: str = "") -> Reference:
    """Return a repository's name in its parts, without tag and digest.

    Args:
        text: `ghcr.io/team/shop`.
        whole: what it is a part of, for errors.

    Raises:
        UsageError: `image.unknown`: it cannot be a repository's name.
    """
    whole = whole or text
    first, slash, rest = text.partition("/")
    is_host = bool(slash) and (first == "localhost" or bool(set(first) & set(".:[")))
    host, path = (first, rest) if is_host else (HUB, text)
    if len(path) > _LONGEST:
        raise _refused(whole[:40] + "...", "it is too long")
    found = _HOST.fullmatch(host)
    if found is None or (found[1] is not None and int(found[1]) not in _PORTS):
        raise _refused(whole, "its first part is no host")
    if not _PATH.fullmatch(path):
        why = "a repository has lower-case letters, digits, and `.`, `_`, `-`, `/` between them"
        raise _refused(whole, why)
    if host.lower() in {HUB, "index.docker.io", HUB_HOST}:
        return Reference(text, HUB_HOST, path if "/" in path else f"library/{path}")
    return Reference(text, host.lower(), path)


def _split_tag(text: str) -> tuple[str, str | None]:
    before, colon, after = text.rpartition(":")
    if not colon or "/" in after:
        return text, None  # the colon before a port, or none
    return before, after


def _refused(text: str, why: str) -> UsageError:
    return UsageError(
        "image.unknown",
        f"`{text}` is not an image's name: {why}",
        hint="name it as `docker pull` would: ghcr.io/team/shop:main",
    )
