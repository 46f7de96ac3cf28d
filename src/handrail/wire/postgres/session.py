"""One client of the guard: what it sends is judged, run, gated and answered, one group at a time.

Rules:
- One group (a simple query, or messages up to Sync or Flush) is under way at a time: the next one
  is looked at when the server has answered.
- The quick way is for whole queries that read, the short way (`_forward`) for what needs no
  transaction of ours; the long way (`Groups`) is everything else, in a task.
"""

from __future__ import annotations

import asyncio

from handrail.wire.ledger import Refusal
from handrail.wire.postgres import frames, refusing
from handrail.wire.postgres.frames import Frame, FrameError, lone_query
from handrail.wire.postgres.groups import Groups, is_simple, may_retry
from handrail.wire.postgres.link import NEVER, READ_ONLY, Answer, Link
from handrail.wire.postgres.prepared import Prepared, Statements
from handrail.wire.postgres.rules import Rules
from handrail.wire.postgres.transaction import FAILED, IDLE, Transactions

_Q, _E, _S, _H, _F, _X = (ord(letter) for letter in "QESHFX")
_COPIED, _COPY_DONE, _COPY_FAIL = ord("d"), ord("c"), ord("f")
_OF_A_COPY = frozenset({_COPIED, _COPY_DONE, _COPY_FAIL})
_FLUSH = Frame(_H, frames.FLUSH)
# What may run in the client's own transaction without a second thought.
_IN_A_BLOCK = frozenset({"read", "write"})
_MOST_WAITING_BYTES = 256 * 1024


class Session(asyncio.Protocol):
    """A client and its connection to the server. It is the client's protocol, once both are open.

    Args:
        rules: what the run is held to, shared by all its sessions.
        client: the script's side.
        server: the store's side.
        statuses: what the server has reported of its settings.
        database: the one that it is connected to.
    """

    def __init__(
        self,
        rules: Rules,
        client: asyncio.Transport,
        server: asyncio.Transport,
        statuses: dict[str, str],
        database: str,
    ) -> None:
        self.rules = rules
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.link = Link(server, client, statuses, self.close, self._changed)
        self.link.copying = self._begin_copy
        self.link.failing = self._fail_copy
        self._client = client
        self._splitter = frames.Splitter()
        self._waiting: list[Frame] = []
        self._waiting_bytes = 0
        self._prepared = Prepared(self._classify)
        self._transactions = Transactions(rules, self.link, self._show, self)
        self._transactions.database = database
        self._groups = Groups(rules, self.link, self._transactions, self._prepared, self._show)
        self._observes = rules.limits.mode == "observe"
        self._quick = Answer(self._done_quickly, passes=True, ends=True, retries=READ_ONLY)
        self._quick_data = b""
        self._followed: set[str] = set()
        limits = rules.limits
        self._may_be_quick = limits.mode in {"hold", "measure"} and limits.divergence == "report"
        self._task: asyncio.Task[None] | None = None
        self._group_ends = 0
        self._busy = False  # a group is under way
        self._copying = False  # rows of a COPY go straight to the server
        self._after_copy = False  # and then a Sync of their own
        self._copy_synced = False  # which came while they were copied
        self._leaving = False
        self.parted = False  # the client has said good-bye

    # --- from the client -----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what the client sends apart, and serve what is complete."""
        if self._may_be_quick and not self._busy and self._read_quickly(data):
            return
        if self._observes:  # as it came: what follows only takes note of it
            self.link.transport.write(data)
        try:
            for item in self._splitter.feed(data):
                self._take(item)
        except FrameError as error:
            self._break_off(str(error))
            return
        self._proceed()
        if self._busy and self._waiting_bytes > _MOST_WAITING_BYTES:
            self._client.pause_reading()

    def _read_quickly(self, data: bytes) -> bool:
        """Forward one whole query that reads; return False where it has to be taken apart.

        The same as the short way, without its steps: nearly all that a client sends is this.
        """
        if self._splitter.waiting or self._waiting or self._transactions.open is not None:
            return False
        sql = lone_query(data)
        if sql is None:
            template = self._prepared.lone_reading(data)
        else:
            template = self.rules.reading(sql, self.link.statuses)
        if template is None:
            return False
        if self._groups.relapsed or self._groups.skipping or self.rules.ledger.stop is not None:
            return False
        if not self.rules.reads_hold:
            return False
        if template not in self._followed:
            self._followed.add(template)
            self.rules.ledger.follow(template)
        self._busy = True
        self._group_ends = data[-5] if sql is None else _Q
        self._quick_data = data
        quick = self._quick
        quick.again, quick.error = False, None
        quick.undecided = True
        self.link.send(data, quick)
        return True

    def _done_quickly(self, answer: Answer) -> None:
        if answer.again:
            # Its own splitter: the session's may have the beginning of what comes next.
            items = frames.Splitter().feed(self._quick_data)
            group = list(items)
            self._serve_soon(group, self._prepared.take(group), again=True)
            return
        self._transactions.state = answer.state or self._transactions.state
        self._busy = False
        if self._waiting or self._leaving or answer.state != IDLE or self._copying:
            self._transactions.follow(answer)
            self._rest()

    def _take(self, frame: Frame) -> None:
        if self._copying or self._after_copy:
            self._take_copied(frame)
        else:
            self._waiting.append(frame)
            self._waiting_bytes += len(frame.data)

    def _take_copied(self, frame: Frame) -> None:
        """Pass rows of a COPY on to the server; what else comes waits, or ends the session.

        The server passes over Sync and Flush while it copies: they are not sent, lest it should
        have ended the COPY meanwhile and answer them.
        """
        if frame.kind in _OF_A_COPY:
            if self._copying:
                self.link.transport.write(frame.data)
            if frame.kind != _COPIED:
                self._end_copy()
        elif self._copying and frame.kind in {_S, _H}:
            self._copy_synced = self._copy_synced or frame.kind == _S
        elif self._copying and frame.kind == _X:
            self.close()
        elif self._copying:
            self._break_off("a message in the middle of a COPY")
        elif frame.kind in {_S, _H}:
            self.link.transport.write(frame.data)
            self._after_copy = self._after_copy and frame.kind == _H
        else:
            self._waiting.append(frame)
            self._waiting_bytes += len(frame.data)

    def _end_copy(self) -> None:
        if self._copying and self._group_ends == _H:
            self.link.transport.write(frames.FLUSH)
        self._copying = False

    def _fail_copy(self) -> None:
        """The server has had enough of the rows: it waits for a Sync where the group has one."""
        if self._copying and self._after_copy and self._copy_synced:
            self.link.transport.write(frames.SYNC)
            self._after_copy = False
        self._copying = False

    def _begin_copy(self) -> None:
        self._copying, self._copy_synced = True, False
        # In a group with a Sync of its own the server ignores that one: another follows the rows.
        self._after_copy = self._group_ends == _S
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for frame in waiting:
            self._take(frame)
        if self._leaving and (self._copying or self._after_copy):
            self.close()
        elif not self._client.is_closing():
            self._client.resume_reading()

    def eof_received(self) -> bool:
        """The client says no more: what it sent before is served first."""
        if self._copying or self._after_copy:  # rows that will never come
            self.close()
            return False
        self.leave()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: what it sent before is served, then the server's side is closed."""
        del exc
        if self._copying:  # rows that will never come: the server takes the COPY back
            self.close()
            return
        if not self.link.transport.is_closing():
            self.link.transport.resume_reading()
        self.leave()

    def leave(self) -> asyncio.Future[None]:
        """Serve what has been sent, and end; return what is done then."""
        self._leaving = True
        self._proceed()
        return self.ended

    def pause_writing(self) -> None:
        """The client reads slowly: so do we."""
        if not self.link.transport.is_closing():
            self.link.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        if not self.link.transport.is_closing():
            self.link.transport.resume_reading()

    # --- one group at a time -------------------------------------------------------------------

    def _proceed(self) -> None:
        """Serve the next group, if there is one and none is under way."""
        while not self._busy and not self.link.closed:
            group = self._next_group()
            if not group:
                if self._leaving:
                    self.close()
                return
            self._group_ends = group[-1].kind
            try:
                statements = () if self._groups.skipping else self._prepared.take(group)
            except FrameError as error:
                self._break_off(str(error))
                return
            if self._observes:
                self._observe(group, statements)
            elif not self._forward(group, statements):
                self._serve_soon(group, statements)

    def _next_group(self) -> list[Frame]:
        """Return the next complete group; empty when there is none."""
        self._drop_rows()
        for index, frame in enumerate(self._waiting):
            if frame.kind in b"PBDEC":
                continue
            if frame.kind == _X:  # nothing that was not synchronised counts, nor what follows
                self._waiting, self._waiting_bytes = [], 0
                return [frame]
            count = index + 1 if not index or frame.kind in b"SH" else index
            group, self._waiting = self._waiting[:count], self._waiting[count:]
            self._waiting_bytes -= sum(len(f.data) for f in group)
            # Rows that do not wait for the server: it begins to copy when it comes to them.
            return [*group, _FLUSH] if frame.kind in _OF_A_COPY else group
        return []

    def _drop_rows(self) -> None:
        """Leave out rows that nobody copies: what is left of a COPY that failed."""
        count = 0
        while count < len(self._waiting) and self._waiting[count].kind in _OF_A_COPY:
            self._waiting_bytes -= len(self._waiting[count].data)
            count += 1
        if count:
            del self._waiting[:count]

    def _serve_soon(
        self, group: list[Frame], statements: Statements, *, again: bool = False
    ) -> None:
        self._busy = True
        work = self._serve(group, statements, again=again)
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        """A defect of ours leaves nobody waiting, and nothing is let through after it."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            refusal = self.rules.ledger.refuse(f"go on after a defect, {type(error).__name__}")
            self._show(refusing.frame(refusal))
            self.close()

    def _observe(self, group: list[Frame], statements: Statements) -> None:
        """Note what is run; it has been passed on."""
        if group[0].kind == _X:
            self._leaving = self.parted = True
            return
        for statement in statements:
            self.rules.ledger.follow(statement.template)

    def _forward(self, group: list[Frame], statements: Statements) -> bool:
        """Forward what needs no transaction of ours; return False where the long way is needed."""
        transactions = self._transactions
        blocked = self._groups.relapsed or self._groups.skipping or transactions.state == FAILED
        blocked = blocked or not self.rules.reads_hold
        if blocked or group[-1].kind not in {_Q, _S} or self.rules.ledger.stop is not None:
            return False
        kinds = {statement.kind for statement in statements}
        inside = transactions.open is not None
        if inside and transactions.open and transactions.open.ours:
            return False
        if not inside and len(statements) > 1:
            return False
        if not kinds <= (_IN_A_BLOCK if inside else {"read"}) or not self._may_forward(statements):
            return False
        simply = is_simple(group)
        transactions.act(statements, simply=simply)
        self._busy = True
        data = group[0].data if len(group) == 1 else frames.joined(group)

        def done(answer: Answer) -> None:
            if answer.again:
                self._serve_soon(group, statements, again=True)
                return
            transactions.follow(answer)
            transactions.count(statements, answer)
            self._rest()

        retries = READ_ONLY if not inside and statements and may_retry(data) else NEVER
        self.link.send(data, Answer(done, passes=True, ends=True, retries=retries))
        return True

    def _may_forward(self, statements: Statements) -> bool:
        """Follow statements; return False where the long way has to ask about them."""
        limits = self.rules.limits
        if limits.mode == "read-only" and any(s.kind != "read" for s in statements):
            return False
        if limits.divergence != "report" and not self.rules.knows(statements):
            return False
        for statement in statements:
            self.rules.ledger.follow(statement.template)
        return True

    def _rest(self) -> None:
        """A group has been answered: go on with the next."""
        self._busy = self._copying = self._after_copy = False
        self._task = None
        if self._transactions.state == IDLE:
            self._transactions.open = None
        if self._waiting_bytes <= _MOST_WAITING_BYTES and not self._client.is_closing():
            self._client.resume_reading()
        self._proceed()

    def _classify(self, sql: bytes) -> Statements:
        return self.rules.classify(sql, self.link.statuses)

    # --- the long way --------------------------------------------------------------------------

    async def _serve(self, group: list[Frame], statements: Statements, *, again: bool) -> None:
        """Serve one group, whatever it is."""
        try:
            if group[0].kind == _X:
                self._leaving = self.parted = True
            else:
                await self._groups.serve(group, statements, again=again)
        except (FrameError, UnicodeError) as error:
            self._break_off(str(error))
        except ConnectionError:
            self.close()
        else:
            self._rest()

    def _show(self, frame: bytes) -> None:
        if not self._client.is_closing():
            self._client.write(frame)

    # --- the end -------------------------------------------------------------------------------

    def _changed(self, name: str, value: str) -> None:
        """A setting has changed that the server reports."""
        if name == "default_transaction_read_only" and value != "on":
            self._groups.relapsed = not self._observes

    def _break_off(self, why: str) -> None:
        """End a session whose protocol is broken, and say so."""
        self.rules.ledger.tell("bypass", f"a connection was cut: {why}")
        self._show(refusing.frame(Refusal(f"handrail: {why}")))
        self.close()

    def close(self) -> None:
        """End both sides. What was not committed is rolled back by the server."""
        self._leaving = True
        if not self._client.is_closing():
            self._client.close()
        if not self.link.transport.is_closing():
            if not self._busy:
                self.link.transport.write(frames.TERMINATE)
            self.link.transport.close()
        self.rules.ledger.settle(self, kept=False)
        if not self.ended.done():
            self.ended.set_result(None)
