"""The server's side of a session: what was sent, and which answer is whose.

Rules:
- Answers come in the order in which things were sent: each goes to the client, or is kept.
- Rows pass as they come, in pieces; nothing that can be large is collected.
- A client that reads slowly stops the reading here: nothing piles up between the two.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from struct import Struct
from typing import TYPE_CHECKING

from handrail.wire.postgres import frames
from handrail.wire.postgres.frames import Said

if TYPE_CHECKING:
    from collections.abc import Sequence

# What has to be sent again as a writing statement: it did nothing, for it may only read.
READ_ONLY = frozenset({"25006"})
NEVER: frozenset[str] = frozenset()
_MOST_HELD_BYTES = 1024 * 1024
NO_NEW_TRANSACTION = "25001"
READING_DEFAULT = b"default_transaction_read_only"
_unpack = Struct("!I").unpack_from
_ROW, _COPIED, _READY, _ERROR = ord("D"), ord("d"), ord("Z"), ord("E")
_DONE, _STATUS, _COPY_IN, _NOTICE = ord("C"), ord("S"), ord("G"), ord("N")
_COPY_BOTH = ord("W")
# What may come before it is known whether a statement will be run again.
_UNDECIDED = frozenset(b"12TtnNSA3")
# What an answer consists of that needs no look: rows, their description, completions.
_USUAL = frozenset(b"12TtnDCI3")
_READY_HEAD = b"Z\0\0\0\x05"
_WHOLE_BYTES = 16 * 1024
# What ends one message of an unsynchronised group.
_COMPLETIONS = frozenset(b"12TnCIs3")


class Answer:
    """The answer to one thing that was sent, up to ReadyForQuery.

    Attributes:
        passes: it goes to the client.
        ends: its ReadyForQuery goes to the client too.
        keeps_last: a CommandComplete waits until another frame follows it, or for `last`.
        retries: errors of these codes are no answer: `again` is set, and nothing has passed.
        left: messages of a group without Sync that are still to be answered; -1 when it ends with
            ReadyForQuery.
        quiet: the notice that a transaction is in progress already does not pass.
        state: of the transaction, as ReadyForQuery says.
    """

    __slots__ = (
        "again",
        "collects",
        "done",
        "ends",
        "error",
        "error_frame",
        "held",
        "keeps_last",
        "last",
        "left",
        "passes",
        "quiet",
        "retries",
        "rows",
        "state",
        "tag",
        "undecided",
    )

    def __init__(
        self,
        done: Callable[[Answer], None],
        *,
        passes: bool = False,
        ends: bool = False,
        keeps_last: bool = False,
        retries: frozenset[str] = NEVER,
        collects: bool = False,
        quiet: bool = False,
        left: int = -1,
    ) -> None:
        self.done = done
        self.passes = passes
        self.ends = ends
        self.keeps_last = keeps_last
        self.retries = retries
        self.collects = collects
        self.quiet = quiet
        self.left = left
        self.undecided = bool(retries)
        self.again = False
        self.held = b""
        self.last = b""
        self.tag = ""
        self.state = 0
        self.error: Said | None = None
        self.error_frame = b""
        self.rows: list[tuple[str | None, ...]] = []


class Link(asyncio.Protocol):
    """The connection to the server, once it is open.

    Args:
        client: where answers go.
        statuses: what the server has reported of its settings.
        lost: called once when the server is gone.
        changed: called with each setting that the server reports.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        client: asyncio.Transport,
        statuses: Mapping[str, str],
        lost: Callable[[], None],
        changed: Callable[[str, str], None],
    ) -> None:
        self.transport = transport
        self._client = client
        self._lost = lost
        self._changed = changed
        self.statuses = dict(statuses)
        self._answers: deque[Answer] = deque()
        self._rest = b""
        self._passing = 0
        self.raw: asyncio.Transport | None = None
        # Told that rows are to be copied in, and that something failed.
        self.copying: Callable[[], None] = lambda: None
        self.failing: Callable[[], None] = lambda: None
        self.closed = False

    # --- sending -------------------------------------------------------------------------------

    def send(self, data: bytes, answer: Answer) -> None:
        """Send something, and say what becomes of its answer."""
        self._answers.append(answer)
        self.transport.write(data)

    def ask(self, data: bytes, *, collects: bool = False, left: int = -1) -> asyncio.Future[Answer]:
        """Send something of our own; the client sees nothing of it."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.send(data, Answer(_setter(future), collects=collects, left=left))
        return future

    def give(
        self,
        data: bytes,
        *,
        keeps_last: bool = False,
        retries: frozenset[str] = NEVER,
        quiet: bool = False,
        left: int = -1,
    ) -> asyncio.Future[Answer]:
        """Send what the client sent; all but ReadyForQuery goes back to it."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        answer = Answer(
            _setter(future),
            passes=True,
            keeps_last=keeps_last,
            retries=retries,
            quiet=quiet,
            left=left,
        )
        self.send(data, answer)
        return future

    # --- receiving -----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Give each frame to the answer that it belongs to."""
        if self.raw is not None:
            self.raw.write(data)
            return
        if self._is_whole(data):
            self._pass_whole(data)
            return
        self._take_apart(data)

    def _take_apart(self, data: bytes) -> None:  # noqa: C901  the hot loop: a call costs
        if self._rest:
            data = self._rest + data
            self._rest = b""
        end = len(data)
        begun = 0
        at = min(self._passing, end)
        self._passing -= at
        answer = self._answers[0] if self._answers else None
        while end - at >= frames.HEADER:
            kind = data[at]
            after = at + 1 + _unpack(data, at + 1)[0]
            if kind in (_ROW, _COPIED) and not (answer and (answer.collects or answer.undecided)):
                if answer is not None and answer.last:
                    self._show_last(answer)
                at = after
                if at > end:
                    self._passing, at = at - end, end
                continue
            if after > end:
                break
            if answer is None:
                self._pass(None, data[begun:at])
                self._unasked(kind, data[at:after])
                at = begun = after
                continue
            if answer.undecided and not self._may_be_again(answer, kind, data, at):
                answer.undecided = False
                self._client.write(answer.held)
                answer.held = b""
            if not self._is_plain(answer, kind) and not self._special(answer, kind, data[at:after]):
                self._pass(answer, data[begun:at])
                begun = after
            at = after
            if kind == _READY or (answer.left >= 0 and self._counted(answer, kind)):
                self._pass(answer, data[begun:at])
                begun = at
                self._answers.popleft()
                answer.done(answer)
                answer = self._answers[0] if self._answers else None
        if at > begun:
            self._pass(answer, data[begun:at])
        self._rest = data[at:]

    def _pass_whole(self, data: bytes) -> None:
        answer = self._answers.popleft()
        answer.undecided = False
        answer.state = data[-1]
        self._client.write(data)
        answer.done(answer)

    def _is_whole(self, data: bytes) -> bool:
        """Whether a piece is all of an answer that goes to the client as it is: the usual case."""
        if data[-6:-1] != _READY_HEAD or self._rest or self._passing or len(self._answers) != 1:
            return False
        answer = self._answers[0]
        if not (answer.ends and answer.undecided) or answer.held or answer.again:
            return False
        at, end = 0, len(data) - 6
        if end > _WHOLE_BYTES:
            return False
        while at < end:
            if data[at] not in _USUAL:
                return False
            at += 1 + _unpack(data, at + 1)[0]
        return at == end

    def _is_plain(self, answer: Answer, kind: int) -> bool:
        """Whether a frame needs no look: it goes where all of its answer goes."""
        if kind in {_STATUS, _ERROR, _READY, _NOTICE, _COPY_IN, _COPY_BOTH, _DONE}:
            return False
        return not (answer.collects or answer.last)

    def _may_be_again(self, answer: Answer, kind: int, data: bytes, at: int) -> bool:
        """Whether it is still open, or certain, that this attempt is made again."""
        if answer.again:
            return True
        if kind != _ERROR:
            return kind in _UNDECIDED and len(answer.held) < _MOST_HELD_BYTES
        size = _unpack(data, at + 1)[0] + 1
        answer.again = frames.said(data[at + 5 : at + size]).code in answer.retries
        return answer.again

    def _special(self, answer: Answer, kind: int, frame: bytes) -> bool:
        """Look at one frame; return whether it goes with the rest of its answer."""
        if answer.last and kind not in {_READY, _STATUS, _NOTICE}:
            self._show_last(answer)
        if kind == _READY:
            answer.state = frame[5]
            return answer.ends and not answer.again
        if kind == _ERROR:
            answer.error, answer.error_frame = frames.said(frame[5:]), frame
            self.failing()
            return not answer.again
        if kind == _DONE:
            answer.tag = frames.tag(frame[5:])
            if answer.keeps_last:
                answer.last = frame
                return False
        elif kind == _STATUS:
            return self._status(frame)
        elif kind == _NOTICE and answer.quiet:
            return frames.said(frame[5:]).code != NO_NEW_TRANSACTION
        elif kind == _ROW:
            answer.rows.append(frames.columns(frame[5:]))
        elif kind == _COPY_IN and answer.passes:
            self.copying()
        return True

    def _show_last(self, answer: Answer) -> None:
        """Another frame follows a CommandComplete: it was not the last."""
        if answer.passes:
            self._client.write(answer.last)
        answer.last = b""

    def _counted(self, answer: Answer, kind: int) -> bool:
        """Whether a group without Sync has been answered."""
        if kind == _ERROR:
            return True
        if kind in _COMPLETIONS:
            answer.left -= 1
        return answer.left == 0

    def _pass(self, answer: Answer | None, piece: bytes) -> None:
        if not piece:
            return
        if answer is None or (answer.passes and not answer.undecided):
            if not self._client.is_closing():
                self._client.write(piece)
        elif answer.passes and not answer.again:
            answer.held += piece

    def _unasked(self, kind: int, frame: bytes) -> None:
        """Pass on what the server says by itself: notices, notifications, settings, its end."""
        if kind != _STATUS or self._status(frame):
            self._client.write(frame)

    def _status(self, frame: bytes) -> bool:
        """Note a setting that the server reports; return whether the client may know."""
        name, after = frames.text(frame, frames.HEADER)
        value, _ = frames.text(frame, after)
        self.statuses[name.decode(errors="replace")] = value.decode(errors="replace")
        self._changed(name.decode(errors="replace"), value.decode(errors="replace"))
        return name != READING_DEFAULT

    # --- the transport -------------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        """The server is gone: whoever waits for an answer learns it."""
        del exc
        self.closed = True
        waiting = tuple(self._answers)
        self._answers.clear()
        for answer in waiting:
            answer.error = Said("08006", "the server closed the connection")
            answer.done(answer)
        self._lost()

    def pause_writing(self) -> None:
        """The server reads slowly: so do we."""
        if not self._client.is_closing():
            self._client.pause_reading()

    def resume_writing(self) -> None:
        """The server reads again."""
        if not self._client.is_closing():
            self._client.resume_reading()


def _setter(future: asyncio.Future[Answer]) -> Callable[[Answer], None]:
    def done(answer: Answer) -> None:
        if not future.done():
            future.set_result(answer)

    return done


def completions(group: Sequence[frames.Frame]) -> int:
    """Return how many answers the messages of a group without Sync have."""
    return sum(frame.kind in b"PBDEC" for frame in group)
