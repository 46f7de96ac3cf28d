"""What is read from manifests, indexes and configurations of images. Pure.

Rules:
- What a registry sends is believed as far as its shape goes, and no further: a shape that is not
  understood is no answer.

Source: OCI image specification 1.1; Docker's manifest, version 2, schema 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
ACCEPT = ", ".join((*INDEXES, *MANIFESTS))
_CREATED = "org.opencontainers.image.created"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_PREFERRED = ("linux", "amd64")
_NEVER = 1990  # images that are built to be reproducible say 1970, or 1980


def is_digest(text: str) -> bool:
    """Whether a text is a digest that is understood."""
    return _DIGEST.fullmatch(text) is not None


def read_json(body: bytes) -> Mapping[str, object]:
    """Return the object that a body holds; empty where it holds none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def created(document: Mapping[str, object]) -> str:
    """Return when a manifest, an index or a configuration says it was made; empty where it doesn't.

    ISO 8601 UTC, in whole seconds.
    """
    annotations = document.get("annotations")
    said = annotations.get(_CREATED) if isinstance(annotations, dict) else None
    return _moment(said) or _moment(document.get("created"))


def config_of(manifest: Mapping[str, object]) -> str:
    """Return the digest of a manifest's configuration; empty where there is none."""
    return _digest(manifest.get("config"))


def one_of(index: Mapping[str, object]) -> str:
    """Return the digest of one image of an index, that for Linux on amd64 first; else empty."""
    listed = index.get("manifests")
    images = [one for one in listed if _is_image(one)] if isinstance(listed, list) else []
    images.sort(key=lambda one: _platform(one) != _PREFERRED)
    return _digest(images[0]) if images else ""


def tags_of(page: Mapping[str, object]) -> tuple[str, ...]:
    """Return the tags of one page of a list; what cannot be a tag is left out."""
    listed = page.get("tags")
    if not isinstance(listed, list):
        return ()
    return tuple(one for one in listed if isinstance(one, str) and _TAG.fullmatch(one))


_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def newest_by_name(tag: str) -> tuple[tuple[int, int, str], ...]:
    """Return what tags are sorted by, downwards, where nobody knows when: v1.10 before v1.9."""
    pieces = re.findall(r"\d+|\D+", tag)
    return tuple((1, int(one), "") if one.isdigit() else (0, 0, one) for one in pieces)


def _digest(descriptor: object) -> str:
    found = descriptor.get("digest") if isinstance(descriptor, dict) else None
    return found if isinstance(found, str) and is_digest(found) else ""


def _platform(descriptor: Mapping[str, object]) -> tuple[object, object]:
    platform = descriptor.get("platform")
    if not isinstance(platform, dict):
        return ("", "")
    return (platform.get("os"), platform.get("architecture"))


def _is_image(descriptor: object) -> bool:
    """Whether it is no proof of how an image was built, which stands in the same list."""
    return (
        isinstance(descriptor, dict)
        and bool(_digest(descriptor))
        and _platform(descriptor) != ("unknown", "unknown")
    )


def _moment(said: object) -> str:
    if not isinstance(said, str) or len(said) > 40:  # noqa: PLR2004  longer than any moment
        return ""
    try:
        at = datetime.fromisoformat(said)
        at = at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ") if at.year > _NEVER else ""
