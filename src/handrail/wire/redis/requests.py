"""Cuts what a client sends into requests, multibulk or inline.

Rules:
- Stricter than the server, never laxer: what Redis might frame otherwise is an error that ends the
  connection, so that guard and server never disagree about where a command begins.
- Any bytes in any fragments: the same requests come out, and memory stays bounded.
- A large request goes to a file as it comes; of its long arguments only the beginning is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from handrail.wire.redis.replies import FramingError

# A request up to here is kept in memory; a larger one goes to a file.
MOST_IN_MEMORY_BYTES = 128 * 1024
# Of an argument of a large request, this much is kept; of all of them together, that much.
MOST_OF_ARGUMENT_BYTES = 16 * 1024
MOST_KEPT_BYTES = 8 * 1024 * 1024
MOST_INLINE_BYTES = 64 * 1024
MOST_ARGUMENTS = 1024 * 1024
MOST_BULK_BYTES = 512 * 1024 * 1024
# For clients that have not shown the secret yet, as the server itself has it.
MOST_ARGUMENTS_UNKNOWN = 10
MOST_BULK_UNKNOWN_BYTES = 16 * 1024
_MOST_DIGITS = 10
_STAR, _DOLLAR = 0x2A, 0x24
_CR, _LF = b"\r", b"\n"
_SPACES = b" \n\r\t\v\f"
_ZERO, _QUOTE, _APOSTROPHE, _BACKSLASH = b"0\"'\\"
_PRINTABLE = range(0x20, 0x7F)
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")


class Cut(bytes):
    """The beginning of an argument of which the rest was not kept."""

    __slots__ = ()


@dataclass(slots=True)
class Request:
    """One command as a client sent it.

    Attributes:
        arguments: name and arguments; long ones of a large request are `Cut`.
        raw: the bytes to send on; empty where they lie in `file`.
        file: a large request's bytes, from the start.
    """

    arguments: list[bytes]
    raw: bytes = b""
    file: IO[bytes] | None = None

    def close(self) -> None:
        """Let go of the file."""
        if self.file is not None:
            self.file.close()


def encode(*arguments: bytes) -> bytes:
    """Return a command as clients send it."""
    bulks = [b"$%d\r\n%s\r\n" % (len(argument), argument) for argument in arguments]
    return b"*%d\r\n%s" % (len(arguments), b"".join(bulks))


def parse(data: bytes, at: int, arguments: list[bytes]) -> int:
    """Read one multibulk request at `at`, append its arguments, and return where it ends.

    Returns:
        The end; -1 where `data` ends before it does (then `arguments` is of no use).

    Raises:
        FramingError: it is none.
    """
    end = data.find(b"\r\n", at)
    if end < 0:
        _check_line(data, at)
        return -1
    count = _number(data[at + 1 : end], MOST_ARGUMENTS, "Protocol error: invalid multibulk length")
    at = end + 2
    size = len(data)
    for _ in range(count):
        end = data.find(b"\r\n", at)
        if end < 0:
            _check_line(data, at)
            return -1
        if data[at] != _DOLLAR:
            raise _expected(data[at])
        digits = data[at + 1 : end]
        # Inlined for speed: a number of few digits without a leading zero.
        if (
            digits.isdigit()
            and len(digits) < _MOST_DIGITS
            and (digits[0] != _ZERO or end == at + 2)
        ):
            length = int(digits)
        else:
            length = _number(digits, MOST_BULK_BYTES, "Protocol error: invalid bulk length")
        if length > MOST_BULK_BYTES:
            raise FramingError("Protocol error: invalid bulk length")
        start = end + 2
        at = start + length + 2
        if at > size:
            return -1
        arguments.append(data[start : at - 2])
    return at


def _check_line(data: bytes, at: int) -> None:
    """Raise where a header cannot become one any more."""
    if len(data) - at > MOST_INLINE_BYTES:
        raise FramingError("Protocol error: too big mbulk count string")


def _number(digits: bytes, most: int, text: str) -> int:
    """Return a length; what Redis does not take for one, or takes for another, is an error."""
    if digits[:1] == b"-" and most == MOST_ARGUMENTS:
        # As the server has it: less than one argument is a request for nothing.
        _number(digits[1:], most, text)
        return 0
    if (
        not digits.isdigit()
        or len(digits) > _MOST_DIGITS
        or (digits[0] == _ZERO and digits != b"0")
    ):
        raise FramingError(text)
    if int(digits) > most:
        raise FramingError(text)
    return int(digits)


def _expected(got: int) -> FramingError:
    shown = chr(got) if got in _PRINTABLE else "?"
    return FramingError(f"Protocol error: expected '$', got '{shown}'")


class Requests:
    """Cuts what a client sends into requests.

    `feed` bytes, then take requests from `next_request` until it returns None. `data` and `at`
    are open to whoever can take many at once.

    Args:
        folder: where large requests lie while they come.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._large: _Large | None = None
        self.data = b""
        self.at = 0
        self.is_known = False

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        self.data = self.data[self.at :] + data if self.at < len(self.data) else data
        self.at = 0

    @property
    def is_between(self) -> bool:
        """Whether the next byte begins a request."""
        return self._large is None

    def next_request(self) -> Request | None:
        """Return the next complete request; None until there are more bytes.

        Raises:
            FramingError: the connection is to be ended, with that text as its last reply.
        """
        while self.at < len(self.data):
            if self._large is not None:
                return self._go_on(self._large)
            is_multibulk = self.data[self.at] == _STAR
            found = self._multibulk() if is_multibulk else self._inline()
            if found is None or found.arguments:
                return found
        return None

    def _multibulk(self) -> Request | None:
        if not self.is_known:
            self._check_unknown()
        arguments: list[bytes] = []
        end = parse(self.data, self.at, arguments)
        if end >= 0:
            raw = self.data[self.at : end]
            self.at = end
            return Request(arguments, raw)
        if len(self.data) - self.at <= MOST_IN_MEMORY_BYTES:
            return None
        self._large = _Large(self.folder)
        return self._go_on(self._large)

    def _check_unknown(self) -> None:
        """Raise where a client that has not shown the secret sends more than a greeting."""
        end = self.data.find(b"\r\n", self.at)
        count = self.data[self.at + 1 : max(end, self.at + 1)]
        if count.isdigit() and int(count[:_MOST_DIGITS]) > MOST_ARGUMENTS_UNKNOWN:
            raise FramingError("Protocol error: unauthenticated multibulk length")
        if len(self.data) - self.at > MOST_BULK_UNKNOWN_BYTES:
            raise FramingError("Protocol error: unauthenticated bulk length")

    def _go_on(self, large: _Large) -> Request | None:
        try:
            self.at = large.take(self.data, self.at)
        except FramingError:
            large.close()
            self._large = None
            raise
        if not large.is_complete:
            return None
        self._large = None
        return large.request()

    def _inline(self) -> Request | None:
        end = self.data.find(_LF, self.at)
        if end < 0:
            if len(self.data) - self.at > MOST_INLINE_BYTES:
                raise FramingError("Protocol error: too big inline request")
            return None
        line = self.data[self.at : end].removesuffix(_CR)
        self.at = end + 1
        # As the server has it: the line ends at a NUL.
        arguments = split_inline(line.partition(b"\0")[0])
        return Request(arguments, encode(*arguments))

    def close(self) -> None:
        """Let go of what is half there."""
        if self._large is not None:
            self._large.close()
            self._large = None
        self.data, self.at = b"", 0


class _Large:
    """A request that is larger than memory should hold, while it comes."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115  lives with the request
        self._arguments: list[bytes] = []
        self._kept_bytes = 0
        self._awaited = -1  # arguments to come; -1 before the first line
        self._left = 0  # bytes of the present argument to come, with its line end
        self._begun = b""
        self._is_cut = False
        self._line = b""

    @property
    def is_complete(self) -> bool:
        return self._awaited == 0 and self._left == 0

    def take(self, data: bytes, at: int) -> int:
        """Take what belongs to the request, and return where it ends, or the end of `data`."""
        start = at
        while not self.is_complete and at < len(data):
            at = self._argument(data, at) if self._left else self._header(data, at)
        self._file.write(data[start:at])
        return at

    def _header(self, data: bytes, at: int) -> int:
        end = data.find(_LF, at)
        line = self._line + data[at : end if end >= 0 else len(data)]
        if len(line) > MOST_INLINE_BYTES:
            raise FramingError("Protocol error: too big bulk count string")
        if end < 0:
            self._line = line
            return len(data)
        self._line = b""
        if not line.endswith(_CR):
            raise FramingError("Protocol error: invalid bulk length")
        if self._awaited < 0:
            text = "Protocol error: invalid multibulk length"
            self._awaited = _number(line[1:-1], MOST_ARGUMENTS, text)
        elif line[0] != _DOLLAR:
            raise _expected(line[0])
        else:
            text = "Protocol error: invalid bulk length"
            self._left = _number(line[1:-1], MOST_BULK_BYTES, text) + 2
        return end + 1

    def _argument(self, data: bytes, at: int) -> int:
        piece = data[at : at + self._left]
        self._left -= len(piece)
        room = min(MOST_OF_ARGUMENT_BYTES + 2, MOST_KEPT_BYTES - self._kept_bytes)
        room -= len(self._begun)
        self._is_cut = self._is_cut or len(piece) > room
        self._begun += piece[: max(room, 0)]
        if not self._left:
            whole = Cut(self._begun) if self._is_cut else self._begun[:-2]
            self._arguments.append(whole)
            self._kept_bytes += len(whole)
            self._begun, self._is_cut = b"", False
            self._awaited -= 1
        return at + len(piece)

    def request(self) -> Request:
        self._file.seek(0)
        return Request(self._arguments, b"", self._file)

    def close(self) -> None:
        self._file.close()


def split_inline(line: bytes) -> list[bytes]:
    """Split a line as a person types it, with quotes and escapes, as the server does.

    Raises:
        FramingError: a quote is not closed, or text follows one without a space.
    """
    found: list[bytes] = []
    at, size = 0, len(line)
    while True:
        while at < size and line[at] in _SPACES:
            at += 1
        if at >= size:
            return found
        word = bytearray()
        at = _word(line, at, word)
        found.append(bytes(word))


_UNBALANCED = "Protocol error: unbalanced quotes in request"
_ESCAPES = {0x6E: 10, 0x72: 13, 0x74: 9, 0x62: 8, 0x61: 7}


def _word(line: bytes, at: int, word: bytearray) -> int:
    """Append the word at `at`, and return where it ends."""
    quote = 0
    while at < len(line):
        byte = line[at]
        if quote and byte == quote:
            if line[at + 1 : at + 2].strip(_SPACES):
                raise FramingError(_UNBALANCED)
            return at + 1
        if quote:
            at += _quoted(line, at, quote, word)
        elif byte in _SPACES:
            return at
        elif byte in {_QUOTE, _APOSTROPHE}:
            quote, at = byte, at + 1
        else:
            word.append(byte)
            at += 1
    if quote:
        raise FramingError(_UNBALANCED)
    return at


def _quoted(line: bytes, at: int, quote: int, word: bytearray) -> int:
    """Append what stands at `at` inside quotes; return how many bytes it took."""
    following = line[at + 1 : at + 2]
    if line[at] != _BACKSLASH or not following:
        word.append(line[at])
        return 1
    if quote == _APOSTROPHE:
        is_quote = following[0] == _APOSTROPHE
        word.append(_APOSTROPHE if is_quote else _BACKSLASH)
        return 2 if is_quote else 1
    digits = line[at + 2 : at + 4]
    if following == b"x" and len(digits) == len(b"ff") and _HEXADECIMAL.issuperset(digits):
        word.append(int(digits, 16))
        return 4
    word.append(_ESCAPES.get(following[0], following[0]))
    return 2
