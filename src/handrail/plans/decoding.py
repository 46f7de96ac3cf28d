"""Decoding: values from plain JSON values, by msgspec, from any thread.

Rules:
- One thread at a time: msgspec 0.22 ends the process (a segmentation fault) where two threads meet
  a dataclass for the first time at the same moment.
"""

from __future__ import annotations

import threading
from typing import TypeVar

T = TypeVar("T")
# The one lock of this process; what it guards is a cache on the classes themselves.
_lock = threading.Lock()


def decode(told: object, kind: type[T], *, strict: bool = True) -> T:
    """Return the value of `kind` that `told` is.

    Args:
        told: JSON values.
        kind: what it should be.
        strict: whether `"5"` is no number.

    Raises:
        msgspec.ValidationError: it is none; the message says where.
    """
    import msgspec  # noqa: PLC0415  what reads no record does not pay for it

    with _lock:
        return msgspec.convert(told, kind, strict=strict)


def decode_json(text: bytes, kind: type[T]) -> T:
    """Return the value of `kind` that the JSON `text` is.

    Raises:
        msgspec.DecodeError: it is no JSON, or not of that kind.
    """
    import msgspec  # noqa: PLC0415  as above

    with _lock:
        return msgspec.json.decode(text, type=kind)
