"""`Registry` on the OCI distribution protocol, version 2: Docker Hub, ECR, GHCR, and others.

Rules:
- `resolve` asks with HEAD: a registry that counts what is pulled does not count that. Where it does
  not say the digest, the manifest is read and hashed.
- A digest of several platforms' index is the index's: each machine takes its own image of it.
- What is read by a digest is hashed, and is nothing where it is not that.
- Tags are sorted by what their configurations say; that of more than `READ` is not read, and the
  names decide (v1.10 is newer than v1.9).

Source: OCI distribution specification 1.1.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import ssl
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from handrail.adapters.registry import manifests
from handrail.adapters.registry.asking import TIMEOUT_S, Asking, asking
from handrail.adapters.registry.carrying import base_of, joined
from handrail.adapters.registry.credentials import Access
from handrail.adapters.registry.entering import Tokens
from handrail.errors import HandrailError, PlatformError, UsageError
from handrail.kits.deploys.model import Image
from handrail.kits.deploys.references import Reference, parse, parse_repository

if TYPE_CHECKING:
    from handrail.adapters.registry.carrying import Answer
    from handrail.ports import Clock

READ = 60
PAGES = 100
_PAGE = 1000
_MOST = 200
_AT_ONCE = 8
_MANIFEST_BYTES = 4 * 1024 * 1024
_NEXT = re.compile(r'<([^<>]{1,4096})>\s*;[^,]*\brel="?next"?', re.IGNORECASE)
_OLD = "application/vnd.docker.distribution.manifest.v1"
_NO_HEAD = frozenset({HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})


class OciRegistry:
    """`kits.deploys.ports.Registry`: any registry that a name leads to. From any thread."""

    def __init__(
        self, clock: Clock, access: Access | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Keep what opens which registry; connects to nothing."""
        self._clock = clock
        self._access = access or Access()
        self._timeout_s = timeout_s
        self._tokens = Tokens()
        self._trust: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def resolve(self, reference: str) -> Image:
        """Return what `reference` means now; see `ports.Registry`."""
        at = parse(reference)
        with self._asking(at) as registry:
            digest = _digest(registry, at)
        return Image(at.repository, at.tag, digest)

    def tags(self, repository: str, matching: str = "", limit: int = 50) -> Sequence[Image]:
        """Return tags that contain `matching`, the newest first; see `ports.Registry`."""
        at = parse_repository(repository)
        limit = max(0, min(limit, _MOST))
        with self._asking(at) as registry:
            names = [tag for tag in _tags(registry, at) if matching in tag]
            names.sort(key=manifests.newest_by_name, reverse=True)
            if len(names) > READ:
                return _described(registry, at, names[:limit])
            found = _described(registry, at, names)
        return sorted(found, key=lambda image: image.created, reverse=True)[:limit]

    @contextmanager
    def _asking(self, at: Reference) -> Iterator[Asking]:
        trust = self._trusted() if base_of(at.host).startswith("https:") else None
        with asking(at, self._access, self._clock, self._tokens, trust, self._timeout_s) as opened:
            yield opened

    def _trusted(self) -> ssl.SSLContext:
        """Return the system's certificates; reading them takes a while, so once."""
        with self._lock:
            self._trust = self._trust or ssl.create_default_context()
            return self._trust


def _digest(registry: Asking, at: Reference) -> str:
    path = f"{at.path}/manifests/{at.wanted}"
    answer = registry.ask(path, method="HEAD", accept=manifests.ACCEPT)
    said = answer.headers.get("docker-content-digest", "")
    if answer.status in _NO_HEAD or (
        answer.status == HTTPStatus.OK and not manifests.is_digest(said)
    ):
        said, _ = _manifest(registry, at, at.wanted)
    elif answer.status == HTTPStatus.NOT_FOUND:
        raise _unknown(registry, at)
    else:
        _expect(registry, answer)
    if at.digest and said != at.digest:
        raise registry.failed("answers with another image than the digest says")
    return said


def _manifest(registry: Asking, at: Reference, wanted: str) -> tuple[str, bytes]:
    """Return a manifest's digest and content."""
    path = f"{at.path}/manifests/{wanted}"
    answer = registry.ask(path, accept=manifests.ACCEPT, limit_bytes=_MANIFEST_BYTES)
    if answer.status == HTTPStatus.NOT_FOUND:
        raise _unknown(registry, at)
    _expect(registry, answer)
    if not manifests.read_json(answer.body):
        raise registry.failed("sends a manifest that is none")
    return _hashed(registry, answer.body, wanted), answer.body


def _hashed(registry: Asking, body: bytes, wanted: str) -> str:
    kind = wanted.partition(":")[0] if manifests.is_digest(wanted) else "sha256"
    found = f"{kind}:{hashlib.new(kind, body).hexdigest()}"
    if manifests.is_digest(wanted) and found != wanted:
        raise registry.failed("sends something else than the digest says")
    return found


def _expect(registry: Asking, answer: Answer) -> None:
    if answer.status != HTTPStatus.OK:
        raise registry.failed(f"answers {answer.status}", "is that a registry?")
    if answer.headers.get("content-type", "").startswith(_OLD):
        raise registry.failed("has this image in the old form alone (schema 1)", "push it anew")


def _unknown(registry: Asking, at: Reference) -> UsageError:
    """Return what to say where there is no such image: which there are, as far as that is known."""
    try:
        names = list(_tags(registry, at))
    except HandrailError:
        names = []  # what is wrong is told without near names
    if not names:
        message = f"registry {at.host} has no image `{at}`"
        return UsageError("image.unknown", message, hint="push it first, or look at its name")
    near = difflib.get_close_matches(at.tag, names, n=3)
    shown = near or sorted(names, key=manifests.newest_by_name, reverse=True)[:3]
    words = ", ".join(f"`{one}`" for one in shown)
    hint = f"did you mean {words}?" if near else f"there are {len(names)} tags: {words} ..."
    if at.digest:
        hint = f"there are {len(names)} tags: {words} ..."
    return UsageError("image.unknown", f"{at.repository} has no image `{at.wanted}`", hint=hint)


def _tags(registry: Asking, at: Reference) -> Iterator[str]:
    """Give every tag, page by page.

    Raises:
        UsageError: there is no such repository.
        PlatformError: it does not answer, or has no end of pages.
    """
    base = base_of(at.host)
    path = f"{at.path}/tags/list?n={_PAGE}"
    for _ in range(PAGES):
        answer = registry.ask(path)
        if answer.status == HTTPStatus.NOT_FOUND:
            message = f"registry {at.host} has no repository `{at.path}`"
            raise UsageError("image.unknown", message, hint="push an image first")
        _expect(registry, answer)
        yield from manifests.tags_of(manifests.read_json(answer.body))
        following = _NEXT.search(answer.headers.get("link", ""))
        if following is None:
            return
        path = _next(registry, at, joined(f"{base}{path}", following[1]))
    raise registry.failed(f"has more than {PAGES} pages of tags", "delete old ones")


def _next(registry: Asking, at: Reference, url: str) -> str:
    """Return where the next page is: of the same list, whatever host or path the link names."""
    parts = urlsplit(url)
    if parts.netloc.lower() != at.host or parts.path != f"/v2/{at.path}/tags/list":
        raise registry.failed("names a next page that is not its own")
    return f"{at.path}/tags/list?{parts.query}"


def _described(registry: Asking, at: Reference, names: Sequence[str]) -> list[Image]:
    """Return the images of tags, in their order; without those that went in the meantime."""
    if not names:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(names)), "handrail-tags") as threads:
        found = list(threads.map(lambda name: _image(registry, at, name), names))
    return [one for one in found if one is not None]


def _image(registry: Asking, at: Reference, tag: str) -> Image | None:
    path = f"{at.path}/manifests/{tag}"
    answer = registry.ask(path, accept=manifests.ACCEPT, limit_bytes=_MANIFEST_BYTES)
    if answer.status != HTTPStatus.OK:
        return None
    digest = _hashed(registry, answer.body, tag)
    return Image(at.repository, tag, digest, _created(registry, at, answer.body))


def _created(registry: Asking, at: Reference, body: bytes) -> str:
    """Return when an image was made; empty where that cannot be found out."""
    document = manifests.read_json(body)
    said = manifests.created(document)
    if said:
        return said
    inner = manifests.one_of(document)
    try:
        if inner:
            document = manifests.read_json(_manifest(registry, at, inner)[1])
            said = manifests.created(document)
        config = manifests.config_of(document)
        if said or not config:
            return said
        answer = registry.ask(f"{at.path}/blobs/{config}")
        if answer.status != HTTPStatus.OK:
            return ""
        _hashed(registry, answer.body, config)
    except UsageError:
        return ""
    except PlatformError as error:
        if error.is_passing:
            raise
        return ""
    return manifests.created(manifests.read_json(answer.body))
