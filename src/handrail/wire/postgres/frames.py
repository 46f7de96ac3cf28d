"""Frames of PostgreSQL's protocol, version 3: split what a client sends, build what we send.

Rules:
- A frame is one letter, four bytes of length (their own included), and a body.
- Copied rows pass as they come, each piece in a frame of its own: nobody is ever left with half a
  frame, and where rows are cut means nothing.
- Every other frame is read whole, and none larger than `LARGEST_BYTES` is: a peer that announces
  more is refused before anything of it is kept.
- Nothing here decides anything.

Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

HEADER = 5
LARGEST_BYTES = 64 * 1024 * 1024
COPY_DATA = ord("d")
# What a client may send after its start; everything else is refused.
CLIENT = frozenset(b"QPBEDCSHFXdcfp")

_head = Struct("!cI")
_length = Struct("!I")


class FrameError(Exception):
    """A peer sent what is no frame, or one that is too large."""


class Frame(NamedTuple):
    """One frame of a client: its letter as a number, and all its bytes, header included."""

    kind: int
    data: bytes

    @property
    def body(self) -> bytes:
        """What follows the header."""
        return self.data[HEADER:]


class Splitter:
    """Splits what a client sends, however it was cut."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._passing = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield what is complete now.

        Raises:
            FrameError: it is no frame, or too large.
        """
        if self._passing and data:
            rows, data = data[: self._passing], data[self._passing :]
            self._passing -= len(rows)
            yield Frame(COPY_DATA, build(b"d", rows))
        if not data:
            return
        if not self._kept:
            # Nearly always: whole frames, nothing kept.
            at, end = 0, len(data)
            while end - at >= HEADER:
                size = self._size(data, at)
                if end - at < size:
                    break
                yield Frame(data[at], data[at : at + size])
                at += size
            self._kept += data[at:]
        else:
            self._kept += data
            yield from self._whole()
        if len(self._kept) >= HEADER and self._kept[0] == COPY_DATA:
            self._passing = self._size(self._kept, 0) - len(self._kept)
            rows = bytes(self._kept[HEADER:])
            self._kept.clear()
            if rows:
                yield Frame(COPY_DATA, build(b"d", rows))

    def _whole(self) -> Iterator[Frame]:
        while len(self._kept) >= HEADER:
            size = self._size(self._kept, 0)
            if len(self._kept) < size:
                return
            frame = bytes(self._kept[:size])
            del self._kept[:size]
            yield Frame(frame[0], frame)

    def _size(self, data: bytes | bytearray, at: int) -> int:
        """Return the size of the frame that begins at `at`, header included."""
        size = int(_length.unpack_from(data, at + 1)[0]) + 1
        if data[at] not in CLIENT or size < HEADER:
            raise FrameError("this is not PostgreSQL's protocol")
        if size > LARGEST_BYTES and data[at] != COPY_DATA:
            limit = LARGEST_BYTES // 1024 // 1024
            raise FrameError(f"a message of {size:,} bytes: {limit} MB is the most under a guard")
        return size

    @property
    def waiting(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._kept or self._passing)


def build(kind: bytes, body: bytes = b"") -> bytes:
    """Return one frame."""
    return _head.pack(kind, len(body) + 4) + body


def query(sql: str) -> bytes:
    """Return a simple query."""
    return build(b"Q", sql.encode() + b"\0")


def parse(name: str, sql: str) -> bytes:
    """Return a Parse of a statement without parameters."""
    return build(b"P", name.encode() + b"\0" + sql.encode() + b"\0\0\0")


def bind_and_execute(portal: str, name: str) -> bytes:
    """Return a Bind without parameters, an Execute of it, and a Close of the portal."""
    bound = build(b"B", portal.encode() + b"\0" + name.encode() + b"\0" + b"\0\0" * 3)
    close = build(b"C", b"P" + portal.encode() + b"\0")
    return bound + build(b"E", portal.encode() + b"\0" + b"\0\0\0\0") + close


_QUERY, _BIND, _DESCRIBE = ord("Q"), ord("B"), ord("D")
_QUICK_BYTES = 8192
_DESCRIBE_PORTAL = build(b"D", b"P\0")
_EXECUTE_HEAD = build(b"E", b"\0" + b"\0" * 4)[: HEADER + 1]
_EXECUTE_BYTES = HEADER + 5
FLUSH = build(b"H")
SYNC = build(b"S")
TERMINATE = build(b"X")


def text(body: bytes, at: int = 0) -> tuple[bytes, int]:
    """Return the bytes up to the next zero, and where what follows it begins.

    Raises:
        FrameError: there is no zero.
    """
    end = body.find(b"\0", at)
    if end < 0:
        raise FrameError("a text without its end")
    return body[at:end], end + 1


def lone_query(data: bytes) -> bytes | None:
    """Return the text of a simple query that is all of `data`; None for anything else."""
    size = len(data)
    if data[0] != _QUERY or not HEADER < size < _QUICK_BYTES or data[-1]:
        return None
    sql = data[HEADER:-1]
    # Exactly one frame, and one zero: its own end.
    return None if _length.unpack_from(data, 1)[0] + 1 != size or b"\0" in sql else sql


def lone_execution(data: bytes) -> bytes | None:
    """Return the statement that `data` binds, may describe, executes once and synchronises.

    None for anything else, and where the portal has a name.
    """
    size = len(data)
    if data[-HEADER:] != SYNC or data[0] != _BIND or size > _QUICK_BYTES or data[HEADER]:
        return None
    end = data.find(b"\0", HEADER + 1)
    at = int(_length.unpack_from(data, 1)[0]) + 1
    if not HEADER < end < at < size:
        return None
    if data[at] == _DESCRIBE:
        if data[at : at + len(_DESCRIBE_PORTAL)] != _DESCRIBE_PORTAL:
            return None
        at += len(_DESCRIBE_PORTAL)
    if data[at : at + len(_EXECUTE_HEAD)] != _EXECUTE_HEAD or at + _EXECUTE_BYTES + HEADER != size:
        return None
    return data[HEADER + 1 : end]


@dataclass(frozen=True)
class Said:
    """An error or a notice of the server: what a decision needs of it."""

    code: str
    message: str


def said(body: bytes) -> Said:
    """Return code and message of an ErrorResponse's or NoticeResponse's body."""
    fields: dict[int, str] = {}
    at = 0
    while at < len(body) and body[at]:
        value, end = text(body, at + 1)
        fields[body[at]] = value.decode(errors="replace")
        at = end
    return Said(fields.get(ord("C"), ""), fields.get(ord("M"), ""))


def columns(body: bytes) -> tuple[str | None, ...]:
    """Return a DataRow's values as text; None for NULL."""
    found: list[str | None] = []
    at = 2
    for _ in range(int.from_bytes(body[:2])):
        size = int.from_bytes(body[at : at + 4], signed=True)
        at += 4
        if size < 0:
            found.append(None)
        else:
            found.append(body[at : at + size].decode(errors="replace"))
            at += size
    return tuple(found)


def tag(body: bytes) -> str:
    """Return a CommandComplete's tag."""
    return text(body)[0].decode(errors="replace")


def joined(frames: Iterable[Frame]) -> bytes:
    """Return the bytes of `frames`."""
    return b"".join(frame.data for frame in frames)
