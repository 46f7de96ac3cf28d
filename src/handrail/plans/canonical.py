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
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring
from pathlib import PurePath

_SURROGATE = re.compile("[\ud800-\udfff]")


def encode(value: object) -> str:
    """Return the canonical JSON text of `value`; it holds no line end.

    Raises:
        TypeError: something in `value` has no canonical text.
    """
    return _escaped(_text(value, _refuse))


def encode_plain(value: object) -> str:
    """Return `encode(plain(value))`, faster.

    Raises:
        TypeError: something in `value` has no plain form, or no canonical text.
    """
    return _escaped(_text(value, plain))


def _text(value: object, plainer: Callable[[object], object]) -> str:
    """Return the text of `value`, in one walk; `plainer` gives what stands for a value of no text.

    The frequent types come first: the journal does this between two commits of each step.
    """
    match value:
        case str():
            return encode_basestring(value)
        case dict():
            # Refuses a key that is not text: json itself would write 1 and "1" as the same.
            items = [
                f"{encode_basestring(key)}:{_text(value[key], plainer)}" for key in sorted(value)
            ]
            return "{" + ",".join(items) + "}"
        case list() | tuple():
            return "[" + ",".join([_text(item, plainer) for item in value]) + "]"
        case _:
            return _other_text(value, plainer)


def _other_text(value: object, plainer: Callable[[object], object]) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return int.__repr__(value)
        case float():
            return float.__repr__(_check_finite(value))
        case _:
            return _text(plainer(value), plainer)


def _escaped(text: str) -> str:
    if text.isascii():
        return text
    return _SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no canonical JSON")


def _check_finite(value: float) -> float:
    if not math.isfinite(value):
        raise TypeError(f"{value} has no canonical JSON")
    return value


def _check_key(key: object) -> str:
    # 1 and "1" would have one text.
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
    text = moment.isoformat(timespec="microseconds")
    if text.endswith("+00:00"):
        return text[:-6] + "Z"
    if moment.tzinfo is None:
        raise TypeError("a time without a zone has no canonical text")
    return time_text(moment.astimezone(UTC))


def plain(value: object) -> object:
    """Return `value` as what `encode` takes.

    A dataclass becomes a mapping of its fields, a tuple a list, a set a list sorted by canonical
    text, a path its text, an aware time its `time_text`.

    Raises:
        TypeError: something in `value` is none of these.
    """
    if isinstance(value, Mapping):
        return {_check_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return _plain_other(value)


def _plain_other(value: object) -> object:
    match value:
        case None | str() | int():
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
