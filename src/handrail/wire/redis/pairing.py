"""Pairs the server's replies with what was asked: by the client, and by the guard itself.

Rules:
- Every command that is sent has one entry, in order; a reply belongs to the first entry.
- What no command asked for (pushes, messages of channels) belongs to none, and is passed on.
- A reply passes through in the pieces that it comes in: none is kept whole but the guard's own.
- A redirect to another node of a cluster is told as what it is: nobody is sent round the guard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from handrail.wire.redis.replies import (
    FramingError,
    Reply,
    advance,
    decode,
    first_line,
)

MOST_KEPT_BYTES = 4 * 1024 * 1024
_MOST_LINE_BYTES = 64 * 1024
_MOST_PEEK_BYTES = 256
_MOST_BEFORE_BYTES = 4096
_DOLLAR, _STAR, _PUSH, _ERROR = b"$*>-"
_PLAIN_LINES = frozenset(b"+:_#,(")
_MOST_DIGITS = 10
_MESSAGES = frozenset({b"message", b"pmessage", b"smessage"})
_CONFIRMS = {
    b"subscribe": "channel",
    b"unsubscribe": "channel",
    b"psubscribe": "pattern",
    b"punsubscribe": "pattern",
    b"ssubscribe": "shard",
    b"sunsubscribe": "shard",
}
_REDIRECTS = (b"-MOVED ", b"-ASK ")
REDIRECTED = (
    b"-HANDRAIL this key is on another node of the cluster (%s); the guard stands before one node "
    b"alone: run it against that node\r\n"
)


class Entry:
    """What a reply is for. `forwards`: to the client. `whole`: all of it is wanted at the end."""

    __slots__ = ()
    forwards = True
    whole = False
    # Whether its reply may wait for somebody else.
    blocks = False
    # Whether the guard needs its reply to go on, or to count.
    counts = False

    def end(self, data: bytes) -> None:
        """Take the reply: its first line, or all of it where `whole`."""


class Plain(Entry):
    """So many replies in a row that are the client's alone."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count


class Waiting(Entry):
    """A reply that is the client's, and may wait for somebody else."""

    __slots__ = ()
    blocks = True


class Local(Entry):
    """A reply of the guard's own, which comes when its turn does."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Told(Entry):
    """A reply that passes on to the client, and is told to the guard."""

    __slots__ = ("_tell", "blocks", "whole")
    counts = True

    def __init__(
        self, tell: Callable[[bytes], None], *, whole: bool = False, blocks: bool = False
    ) -> None:
        self._tell = tell
        self.whole = whole
        self.blocks = blocks

    def end(self, data: bytes) -> None:
        self._tell(data)


class Silent(Entry):
    """A reply for the guard alone."""

    __slots__ = ("_tell", "whole")
    forwards = False
    counts = True

    def __init__(self, tell: Callable[[Reply], None], *, whole: bool = False) -> None:
        self._tell = tell
        self.whole = whole

    def end(self, data: bytes) -> None:
        self._tell(decode(data) if self.whole else first_line(data))


class Changed(Entry):
    """A reply that the guard rewrites before it passes on."""

    __slots__ = ("change",)
    forwards = False
    whole = True

    def __init__(self, change: Callable[[bytes], bytes]) -> None:
        self.change = change


class Subscribing(Entry):
    """Confirmations of one (un)subscribing command: so many, or as many as there are."""

    __slots__ = ("kind", "left")
    whole = True

    def __init__(self, kind: str, count: int | None) -> None:
        self.kind = kind
        self.left = count


class Exec(Entry):
    """The reply of an EXEC: a list whose elements have entries of their own.

    Args:
        elements: their entries.
        shown: how many of them are the client's; None where the one that is stands alone.
        tell: told the first line: of a list, of an error, or of nothing done.
    """

    __slots__ = ("_tell", "elements", "is_kept", "shown")
    counts = True

    def __init__(
        self,
        elements: Sequence[Entry],
        shown: int | None,
        tell: Callable[[bytes], None],
        *,
        is_kept: Callable[[bytes], bool],
    ) -> None:
        self.elements = elements
        self.shown = shown
        self._tell = tell
        self.is_kept = is_kept

    def end(self, data: bytes) -> None:
        self._tell(data)


class Pairing:
    """The replies of one connection to the server.

    Args:
        emit: takes what is the client's.
    """

    def __init__(self, emit: Callable[[bytes], None]) -> None:
        self._emit = emit
        self.pending: deque[Entry] = deque()
        self.subscribed = {"channel": 0, "pattern": 0, "shard": 0}
        self.counting = 0
        self.protocol = 2
        self._rest = b""
        self._header, self._span = b"$-1\r\n", 5  # how the last bulk began, and its whole length
        self._before, self._before_count = b"", 0  # replies that were all there was, and how many
        self._current: Entry | None = None
        self._forwards = True
        self._kept: bytearray | None = None
        self._line = b""
        self._left = self._skip = 0
        self._is_new = False  # the present reply's first line is still to be read
        self._pops = True

    # --- what is asked -------------------------------------------------------------------------

    def plain(self, count: int) -> None:
        """Expect so many replies that are the client's."""
        last = self.pending[-1] if self.pending else None
        if isinstance(last, Plain):
            last.count += count
        else:
            self.pending.append(Plain(count))

    def expect(self, entry: Entry) -> None:
        """Expect a reply, or put one of the guard's own in its place of the order."""
        if isinstance(entry, Local) and not self.pending and not self._left:
            self._emit(entry.data)
            return
        self.counting += entry.counts
        self.pending.append(entry)

    @property
    def is_listening(self) -> bool:
        """Whether messages may come that nobody asked for."""
        return any(self.subscribed.values())

    @property
    def is_waiting(self) -> bool:
        """Whether the next reply may wait for somebody else."""
        return bool(self.pending) and self.pending[0].blocks

    # --- what is answered ----------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take what the server sent.

        Raises:
            FramingError: it is no reply.
        """
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, size = 0, len(data)
        while at < size:
            if self._left:
                start = at
                at, self._left, self._skip = advance(
                    data, at, self._left, self._skip, is_new=self._is_new
                )
                self._is_new = False
                self._take(data[start:at])
                if self._left:
                    self._rest = data[at:]
                    return
                self._end()
                continue
            start = at
            head = self.pending[0] if self.pending else None
            if isinstance(head, Plain) and not self.is_listening:
                at = self._run(data, at, head)
            if at == start:
                at = self._begin(data, at)
                if at < 0:
                    self._rest = data[start:]
                    return

    def takes_all(self, data: bytes) -> bool:
        """Whether `data` is common replies, all the client's; they are counted, not passed on.

        The same as `feed`, without its steps: nearly all that a server sends is this.
        """
        pending, size, span = self.pending, len(data), self._span
        if len(pending) != 1 or self._left or self._rest or any(self.subscribed.values()):
            return False
        head, count = pending[0], size // span
        if not isinstance(head, Plain):
            return False
        if data == self._before:  # who asks the same again is often answered the same
            count = self._before_count
        elif not count or count * span != size or not _all_begin(data, self._header, count, span):
            if not self._is_one(data):
                return False
            count = 1
        if count > head.count:
            return False
        if size <= _MOST_BEFORE_BYTES:
            self._before, self._before_count = data, count
        head.count -= count
        if not head.count:
            pending.clear()
        return True

    def _is_one(self, data: bytes) -> bool:
        """Whether `data` is one common reply, whole."""
        end = data.find(b"\r\n")
        if end < 0:
            return False
        if data[0] != _DOLLAR:
            return data[0] in _PLAIN_LINES and end + 2 == len(data)
        length = data[1:end]
        if length == b"-1":
            return end + 2 == len(data)
        if not length.isdigit() or len(length) > _MOST_DIGITS or end + 4 + int(length) != len(data):
            return False
        self._header, self._span = data[: end + 2], len(data)
        return True

    def _run(self, data: bytes, at: int, head: Plain) -> int:  # noqa: C901  as hot as it gets
        """Pass on as many whole, common replies as there are in a row."""
        start, size, count = at, len(data), head.count
        header, span = self._header, self._span
        while count and at < size:
            if data.startswith(header, at) and at + span <= size:
                # As long as the last one.
                at, count = at + span, count - 1
                continue
            kind = data[at]
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            if kind == _DOLLAR:
                length = data[at + 1 : end]
                if length == b"-1":
                    at = end + 2
                elif not length.isdigit():
                    raise FramingError("a reply of no length")
                else:
                    after = end + 4 + int(length)
                    if after > size:
                        break
                    self._header, self._span = data[at : end + 2], after - at
                    header, span = self._header, self._span
                    at = after
            elif kind in _PLAIN_LINES:
                at = end + 2
            else:
                break
            count -= 1
        if at > start:
            self._emit(data[start:at] if start or at < size else data)
            head.count = count
            if not count:
                self._pop()
        return at

    def _begin(self, data: bytes, at: int) -> int:  # noqa: PLR0911  one line a kind of reply
        """Begin a reply at `at`; return where to go on, or -1 until more of it is there."""
        end = data.find(b"\r\n", at)
        if end < 0:
            if len(data) - at > _MOST_LINE_BYTES:
                raise FramingError("a line without an end")
            return -1
        line, kind = data[at:end], data[at]
        head = self.pending[0] if self.pending else None
        if kind == _PUSH or (kind == _STAR and (self.is_listening or self._confirms(head))):
            word = _second_line(data, end + 2)
            if word is None:
                return -1
            if word in _CONFIRMS and isinstance(head, Subscribing):
                self._start(head, line, pops=False)
                return at
            if kind == _PUSH or word in _MESSAGES or word in _CONFIRMS:
                self._start(None, line, pops=False)
                return at
        if kind == _ERROR and line.startswith(_REDIRECTS):
            return self._redirect(head, line, end + 2)
        if isinstance(head, Exec) and kind == _STAR and line != b"*-1":
            self._open(head, line)
            return end + 2
        self._start(head, line, pops=True)
        return at

    def _confirms(self, head: Entry | None) -> bool:
        return isinstance(head, Subscribing)

    def _redirect(self, head: Entry | None, line: bytes, after: int) -> int:
        told = REDIRECTED % line[1:].replace(b"\r", b"").replace(b"\n", b"")
        if head is None or head.forwards:
            self._emit(told)
        self._current, self._line, self._kept, self._pops = head, told[:-2], None, True
        if head is not None and head.whole:
            self._kept = bytearray(told)
        self._end()
        return after

    def _open(self, head: Exec, line: bytes) -> None:
        if line != b"*%d" % len(head.elements):
            raise FramingError("a transaction with other replies than commands")
        self._pop(pump=False)
        if head.shown is not None:
            self._emit(b"*%d\r\n" % head.shown)
        head.end(line)
        for entry in reversed(head.elements):
            self.counting += entry.counts
            self.pending.appendleft(entry)
        self._pump()

    def _start(self, entry: Entry | None, line: bytes, *, pops: bool) -> None:
        self._current, self._line, self._pops = entry, line, pops
        self._left, self._skip, self._is_new = 1, 0, True
        self._forwards = entry is None or entry.forwards
        if isinstance(entry, Exec):
            self._forwards = entry.is_kept(line)
        self._kept = bytearray() if entry is not None and entry.whole else None

    def _take(self, piece: bytes) -> None:
        if self._forwards:
            self._emit(piece)
        if self._kept is None:
            return
        if len(self._kept) + len(piece) > MOST_KEPT_BYTES:
            if not self._forwards:
                raise FramingError("a reply that is too large for the guard")
            # Only its beginning is of interest.
            piece = piece[: MOST_KEPT_BYTES - len(self._kept)]
        self._kept += piece

    def _end(self) -> None:
        """A reply has ended: it is told, and the next one is waited for."""
        entry, line = self._current, self._line
        kept = bytes(self._kept) if self._kept is not None else line
        self._current, self._kept = None, None
        if isinstance(entry, Subscribing) and line[0] != _ERROR:
            self._confirmed(entry, kept)
            return
        if not self._pops or entry is None:
            self._pump()
            return
        if isinstance(entry, Plain):
            entry.count -= 1
            if not entry.count:
                self._pop()
            return
        self._pop(pump=False)
        if isinstance(entry, Changed):
            self._emit(entry.change(kept))
        entry.end(kept)
        self._pump()

    def _confirmed(self, entry: Subscribing, frame: bytes) -> None:
        """Count a confirmation: its last line is how many there are now."""
        total = first_line(frame[frame.rindex(b"\r\n:") + 2 : -2])
        now = total if isinstance(total, int) else 0
        if entry.left is None:
            entry.left = max(self.subscribed[entry.kind], 1)
        other = {"channel": "pattern", "pattern": "channel"}.get(entry.kind)
        self.subscribed[entry.kind] = now - (self.subscribed[other] if other else 0)
        entry.left -= 1
        if entry.left <= 0:
            self._pop()

    def _pop(self, *, pump: bool = True) -> None:
        entry = self.pending.popleft()
        self.counting -= entry.counts
        if pump:
            self._pump()

    def _pump(self) -> None:
        """Give the guard's own replies whose turn it is."""
        while self.pending and isinstance(head := self.pending[0], Local):
            self.pending.popleft()
            self._emit(head.data)


def _all_begin(data: bytes, header: bytes, count: int, span: int) -> bool:
    """Whether each of `count` pieces of `span` bytes begins with `header`."""
    if count == 1:
        return data.startswith(header)
    for at, byte in enumerate(header):
        piece = data[at::span]  # every span-th byte, at once
        if piece.count(byte) != count:
            return False
    return True


def _second_line(data: bytes, at: int) -> bytes | None:
    """Return the word after a list's header; None until it is there, empty where it is none."""
    end = data.find(b"\r\n", at)
    if end < 0:
        return None if len(data) - at < _MOST_PEEK_BYTES else b""
    if data[at] != _DOLLAR:
        return b""
    after = data.find(b"\r\n", end + 2)
    if after < 0:
        return None if len(data) - at < _MOST_PEEK_BYTES else b""
    return data[end + 2 : after]
