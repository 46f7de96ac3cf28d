"""Canonical JSON: one value has one text, so that a digest over the text is a digest of the value.

Rules:
- Keys are sorted by code point; there is no space outside of strings; UTF-8 is not escaped.
- Text, whole numbers, truth values, None, lists and mappings with text keys have a text. A finite
  float has Python's shortest text that reads back the same, always with a point or an exponent:
  2 and 2.0 differ. Nothing else has one: a TypeError here is a defect of the caller.
- A lone surrogate (a byte of a file name that is not UTF-8) is written as its JSON escape, so every
  text that `encode` returns can be written as UTF-8.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePath

_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)
_SCALARS = frozenset({str, int, bool, type(None)})
_SURROGATE = re.compile("[\ud800-\udfff]")


def encode(value: object) -> str:
    """Return the canonical JSON text of `value`; it holds no line end.

    Raises:
        TypeError: something in `value` has no canonical text.
    """
    _check(value)
    return _text(value)


def encode_plain(value: object) -> str:
    """Return `encode(plain(value))`, faster.

    Raises:
        TypeError: something in `value` has no plain form, or no canonical text.
    """
    return _text(plain(value))


def _text(value: object) -> str:
    text = _ENCODER.encode(value)
    if text.isascii():
        return text
    return _SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _check(value: object) -> None:
    match value:
        case None | str() | int():
            return
        case float():
            _check_finite(value)
        case list() | tuple():
            for item in value:
                _check(item)
        case dict():
            for key, item in value.items():
                _check_key(key)
                _check(item)
        case _:
            raise TypeError(f"{type(value).__name__} has no canonical JSON")


def _check_finite(value: float) -> float:
    if not math.isfinite(value):
        raise TypeError(f"{value} has no canonical JSON")
    return value


def _check_key(key: object) -> str:
    # json would write 1 and "1" as one and the same key.
    if not isinstance(key, str):
        raise TypeError(f"a key is {type(key).__name__}, not text")
    return key


def sha256(content: str | bytes) -> str:
    """Return the SHA-256 of `content` (text as UTF-8) in 64 hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def time_text(moment: datetime) -> str:
    """Return an aware time as ISO 8601 in UTC, microseconds always: `2026-01-31T09:00:00.000000Z`.

    All have one width: sorted as text, they are sorted as times.
    """
    if moment.tzinfo is None:
        raise TypeError("a time without a zone has no canonical text")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def plain(value: object) -> object:
    """Return `value` as what `encode` takes.

    A dataclass becomes a mapping of its fields, a tuple a list, a set a list sorted by canonical
    text, a path its text, an aware time its `time_text`.

    Raises:
        TypeError: something in `value` is none of these.
    """
    # By exact type first: the journal does this between two commits of each step.
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Mapping):
        return {
            _check_key(key): item if type(item) in _SCALARS else plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return _plain_other(value)


def _plain_other(value: object) -> object:
    match value:
        case str() | int():
            return value
        case float():
            return _check_finite(value)
        case set() | frozenset():
            return sorted((plain(item) for item in value), key=encode)
        case PurePath():
            return str(value)
        case datetime():
            return time_text(value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        case _:
            raise TypeError(f"{type(value).__name__} has no plain form")
