"""An image registry in memory."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from handrail.errors import PlatformError, UsageError
from handrail.kits.deploys.model import Image
from handrail.kits.deploys.references import parse, parse_repository

_FIRST = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


class FakeRegistry:
    """`kits.deploys.ports.Registry` whose tags a test pushes and moves.

    Attributes:
        down: what is wrong with it; every method raises while it is not empty.
        is_passing: whether what is wrong with it passes by itself.
        asked: every reference and repository that it was asked for, in order.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.down = ""
        self.is_passing = True
        self.asked: list[str] = []
        self._tags: dict[tuple[str, str], dict[str, Image]] = {}
        self._digests: dict[tuple[str, str], dict[str, Image]] = {}
        self._pushed = 0

    def push(self, reference: str, content: str = "") -> Image:
        """Make `reference` (with a tag) mean an image of that content; return it.

        Same content, same digest; without content, what no other push has. Each is a minute younger
        than the one before.
        """
        at = parse(reference)
        self._pushed += 1
        content = content or f"content {self._pushed}"
        digest = at.digest or f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
        created = _FIRST + timedelta(minutes=self._pushed)
        image = Image(at.repository, at.tag, digest, created.strftime("%Y-%m-%dT%H:%M:%SZ"))
        key = (at.host, at.path)
        if at.tag:
            self._tags.setdefault(key, {})[at.tag] = image
        self._digests.setdefault(key, {})[digest] = image
        return image

    def resolve(self, reference: str) -> Image:
        """Return what `reference` means now; see `ports.Registry`."""
        at = parse(reference)
        self._ask(reference)
        key = (at.host, at.path)
        tags, digests = self._tags.get(key, {}), self._digests.get(key, {})
        found = digests.get(at.digest) if at.digest else tags.get(at.tag)
        if found is None:
            raise _unknown(reference, at.tag, list(tags), is_known=key in self._digests)
        return Image(at.repository, at.tag, found.digest, found.created)

    def tags(self, repository: str, matching: str = "", limit: int = 50) -> Sequence[Image]:
        """Return tags that contain `matching`, the newest first; see `ports.Registry`."""
        at = parse_repository(repository)
        self._ask(repository)
        key = (at.host, at.path)
        if key not in self._digests:
            raise _unknown(repository, "", [], is_known=False)
        found = [image for tag, image in self._tags.get(key, {}).items() if matching in tag]
        newest = sorted(found, key=lambda image: image.created, reverse=True)[:limit]
        return [Image(repository, one.tag, one.digest, one.created) for one in newest]

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.down:
            error = PlatformError("image.unreachable", self.down, hint="try again later")
            error.is_passing = self.is_passing
            raise error


def _unknown(reference: str, tag: str, tags: list[str], *, is_known: bool) -> UsageError:
    near = difflib.get_close_matches(tag, tags, n=3)
    hint = f"did you mean {', '.join(f'`{one}`' for one in near)}?" if near else "push it first"
    what = "tag" if is_known else "repository"
    return UsageError("image.unknown", f"there is no such {what}: `{reference}`", hint=hint)
