"""Finds where a reply of the server ends, and what a short one says; both protocol versions. Pure.

Rules:
- Any bytes in any fragments: the same replies come out.
- What is no reply of Redis is an error that ends the connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MOST_LINE_BYTES = 1024 * 1024
_BULKS, _LISTS = frozenset(b"$=!"), frozenset(b"*~>")
_MAP, _ATTRIBUTE, _ERROR, _NULL, _PUSH = b"%|-_>"
_LINES = frozenset(b"+-:_#,(")
_NUMBERS = frozenset(b":(")


class FramingError(Exception):
    """The other side does not speak the protocol; what Redis says of it."""


def advance(  # noqa: C901, PLR0912
    data: bytes, at: int, left: int, skip: int, *, is_new: bool = False
) -> tuple[int, int, int]:
    """Go on through one reply as far as `data` reaches. One loop: every byte passes through it.

    Args:
        data: what the server sent.
        at: where to go on.
        left: elements that the reply still has; 1 at its beginning.
        skip: bytes that the present element still has.
        is_new: whether the reply begins at `at`. A push there is a reply of its own; inside of
            another one (a server before 7.2 puts it between the replies of EXEC) it is no element.

    Returns:
        The three anew; the reply has ended when `left` is 0. Else `data[at:]` is the beginning of
        a line of which the rest is to come, or nothing.

    Raises:
        FramingError: this is no reply.
    """
    size = len(data)
    while left:
        if skip:
            step = min(skip, size - at)
            at, skip = at + step, skip - step
            if skip:
                break
            left -= 1
            continue
        end = data.find(b"\r\n", at)
        if end < 0:
            if size - at > MOST_LINE_BYTES:
                raise FramingError("a line without an end")
            break
        kind = data[at]
        if kind in _LINES:
            left -= 1
        else:
            number = _length(data[at + 1 : end])
            if kind in _BULKS:
                if number < 0:
                    left -= 1
                else:
                    skip = number + 2
            elif kind == _PUSH and not is_new:
                left += number
            elif kind in _LISTS:
                left += max(number, 0) - 1
            elif kind == _MAP:
                left += 2 * number - 1
            elif kind == _ATTRIBUTE:
                left += 2 * number
            else:
                raise FramingError(f"a reply of kind {kind}")
        at, is_new = end + 2, False
    return at, left, skip


def _length(digits: bytes) -> int:
    if digits == b"-1":
        return -1
    if not digits.isdigit():
        raise FramingError("a reply of no length")
    return int(digits)


# What a reply is, once read: errors are values.
@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error as the server said it, without the leading dash."""

    text: bytes


Reply = int | bytes | None | ErrorReply | list["Reply"]


def decode(data: bytes) -> Reply:
    """Return the value of one complete reply; maps and sets become flat lists, as in RESP2."""
    value, _ = _value(data, 0)
    return value


def _value(data: bytes, at: int) -> tuple[Reply, int]:
    end = data.index(b"\r\n", at)
    kind, text = data[at], data[at + 1 : end]
    at = end + 2
    if kind in _BULKS:
        size = int(text)
        if size < 0:
            return None, at
        return data[at : at + size], at + size + 2
    if kind in _LISTS or kind == _MAP:
        count = int(text)
        if count < 0:
            return None, at
        items: list[Reply] = []
        for _ in range(count * 2 if kind == _MAP else count):
            item, at = _value(data, at)
            items.append(item)
        return items, at
    return _line(kind, text), at


def _line(kind: int, text: bytes) -> Reply:
    if kind in _NUMBERS:
        return int(text)
    if kind == _ERROR:
        return ErrorReply(text)
    if kind == _NULL:
        return None
    return text


def first_line(line: bytes) -> Reply:
    """Return what the first line of a reply tells: of a list or map the count, of a bulk its size.

    An absent bulk, list or value is None.
    """
    kind, text = line[0], line[1:]
    if kind in _BULKS or kind in _LISTS:
        number = int(text)
        return None if number < 0 else number
    if kind == _MAP:
        return int(text)
    return _line(kind, text)


def words(values: Iterable[Reply]) -> Iterator[bytes]:
    """Yield those of `values` that are text."""
    return (value for value in values if isinstance(value, bytes))
