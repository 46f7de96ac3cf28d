"""What a registry says that it wants: `WWW-Authenticate: Bearer realm="...",service="..."`. Pure.

Source: RFC 9110 section 11.6.1; distribution specification, token authentication.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SCHEME = re.compile(r"\s*,?\s*([A-Za-z]+)(?=[\s,]|$)")
_PARAMETER = re.compile(
    r'\s*,?\s*([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))'  # quoted, or a plain word
)
_LONGEST = 8192


@dataclass(frozen=True)
class Challenge:
    """One way in.

    Attributes:
        scheme: `basic` or `bearer`.
        realm: of `bearer`, the address that gives out tokens.
        service: what it is told that the token is for.
    """

    scheme: str
    realm: str = ""
    service: str = ""


def read(header: str) -> tuple[Challenge, ...]:
    """Return the ways in that are understood, `bearer` first; headers are joined with commas."""
    found = _read(header) if len(header) <= _LONGEST else ()
    return tuple(sorted(found, key=lambda one: one.scheme != "bearer"))


def _read(header: str) -> Iterator[Challenge]:
    at = 0
    while found := _SCHEME.match(header, at):
        at = found.end()
        parameters: dict[str, str] = {}
        while pair := _PARAMETER.match(header, at):
            at = pair.end()
            value = pair[3] if pair[2] is None else re.sub(r"\\(.)", r"\1", pair[2])
            parameters.setdefault(pair[1].lower(), value)
        scheme = found[1].lower()
        if scheme == "basic":
            yield Challenge("basic")
        elif scheme == "bearer" and parameters.get("realm"):
            yield Challenge("bearer", parameters["realm"], parameters.get("service", ""))
