"""One client of the guard: what it sends is judged, run, gated and answered, one group at a time.

Rules:
- One group (a simple query, or messages up to Sync or Flush) is under way at a time: the next one
  is looked at when the server has answered.
- What the classifier calls reading and the server refuses to do so is run again as writing.
- What runs in no transaction block is done only where the rehearsal did it too, and is reported.
- The short way (`_forward`) is for what needs no transaction of ours; everything else is served by
  a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from handrail.wire.ledger import Refusal
from handrail.wire.postgres import frames, refusing
from handrail.wire.postgres.frames import Frame, FrameError, lone_query
from handrail.wire.postgres.link import NEVER, READ_ONLY, Answer, Link, completions
from handrail.wire.postgres.prepared import UNKNOWN, Prepared, Statements
from handrail.wire.postgres.rules import Rules
from handrail.wire.postgres.statement import Statement
from handrail.wire.postgres.transaction import FAILED, IDLE, OPEN, Transactions

_Q, _E, _S, _H, _F, _X = (ord(letter) for letter in "QESHFX")
_COPIED, _COPY_DONE, _COPY_FAIL = ord("d"), ord("c"), ord("f")
_OF_A_COPY = frozenset({_COPIED, _COPY_DONE, _COPY_FAIL})
_FLUSH = Frame(_H, frames.FLUSH)
_ENDS_TRANSACTION = frozenset({"begin", "commit", "rollback", "two-phase"})
_READING = frozenset({"read", "setting", "prepare", "execute", "empty", "mode"})
# Of these, what calls functions.
_CALLING = frozenset({"read", "execute"})
# What may run in the client's own transaction without a second thought.
_IN_A_BLOCK = frozenset({"read", "write"})
# What ends prepared statements.
_ENDING = frozenset({"DISCARD", "DEALLOCATE"})
_MOST_WAITING_BYTES = 256 * 1024
_MOST_RETRIED_BYTES = 1024 * 1024
_COMMITS_ITSELF = frozenset({"2D000"})  # invalid transaction termination
_RUNS_ALONE = frozenset({"25001"})  # active SQL transaction
# Functions that clients call outside SQL to work with large objects, by their numbers.
_LARGE_OBJECTS = frozenset({715, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172})
_BACK_TO_READING = "SET default_transaction_read_only = on"
_MAY_WRITE = "SET default_transaction_read_only = off"


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
        self._skipping = False  # up to Sync, after a refusal
        self._relapsed = False  # the client lets its next transactions write
        self._leaving = False

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
        if self._relapsed or self._skipping or self.rules.ledger.stop is not None:
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
                statements = () if self._skipping else self._prepared.take(group)
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
            self._leaving = True
            return
        for statement in statements:
            self.rules.ledger.follow(statement.template)

    def _forward(self, group: list[Frame], statements: Statements) -> bool:
        """Forward what needs no transaction of ours; return False where the long way is needed."""
        transactions = self._transactions
        blocked = self._relapsed or self._skipping or transactions.state == FAILED
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
        simply = _is_simple(group)
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

        retries = READ_ONLY if not inside and statements and _may_retry(data) else NEVER
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
            if self._relapsed and self._transactions.state != FAILED:
                self._relapsed = False
                await self.link.ask(frames.query(_BACK_TO_READING))
            await self._serve_group(group, statements, again=again)
        except (FrameError, UnicodeError) as error:
            self._break_off(str(error))
        except ConnectionError:
            self.close()
        else:
            self._rest()

    async def _serve_group(
        self, group: list[Frame], statements: Statements, *, again: bool
    ) -> None:
        kind = group[0].kind
        if self._skipping:
            self._skip(group)
        elif kind == _X:
            self._leaving = True
        elif kind == _F:
            await self._serve_call(group)
        elif kind == _Q:
            await self._serve_query(group, statements, again=again)
        else:
            await self._serve_extended(group, statements, again=again)

    def _skip(self, group: list[Frame]) -> None:
        """Leave out what follows a refusal, up to Sync, as the server would."""
        if group[-1].kind in {_S, _Q}:
            self._skipping = False
            self._ready()

    async def _serve_call(self, group: list[Frame]) -> None:
        """Serve a function call outside SQL: those for large objects alone, gated."""
        refusal = self.rules.ledger.stopped()
        if refusal is None and int.from_bytes(group[0].body[:4]) not in _LARGE_OBJECTS:
            self.rules.ledger.tell("bypass", "it called a function outside SQL")
            refusal = self.rules.ledger.refuse("call a function outside SQL")
        if refusal is not None:
            await self._refuse(refusal, group)
            return
        await self._run_in_transaction(group[0].data, (UNKNOWN,))
        await self._finish()

    async def _serve_query(
        self, group: list[Frame], statements: Statements, *, again: bool
    ) -> None:
        """Serve a simple query: its statements one by one where one ends a transaction."""
        refusal = await self._admit(statements)
        if refusal is not None:
            await self._refuse(refusal, group)
            return
        whole = len(statements) <= 1 or not any(s.kind in _ENDS_TRANSACTION for s in statements)
        units = [(group[0].data, statements)] if whole else self._split(statements)
        for data, unit in units:
            if not whole:
                # What follows may need the gate, which counts what was not flushed before it too.
                await self._transactions.flush_if_needed()
            if not await self._run_unit(data, unit, may_read=whole and not again):
                break
        await self._finish()

    def _only_reads(self, unit: Statements) -> bool:
        """Whether a message may be tried as one that reads."""
        kinds = {statement.kind for statement in unit}
        if kinds & _CALLING and not self.rules.reads_hold:
            return False
        # Of several, the answers of the first have been shown when another may only read.
        return kinds <= _READING and len(unit) <= 1

    def _split(self, statements: Statements) -> list[tuple[bytes, Statements]]:
        codec = self.rules.codec(self.link.statuses.get("client_encoding", "UTF8"))
        return [
            (frames.build(b"Q", s.text.encode(codec) + b"\0"), (s,))
            for s in statements
            if s.kind != "empty"
        ]

    async def _run_unit(self, data: bytes, unit: Statements, *, may_read: bool) -> bool:
        """Run what stands in one message of its own; return whether the next may run."""
        kind = unit[0].kind if len(unit) == 1 else ""
        if kind == "begin":
            return await self._run_begin(data, unit[0])
        if kind == "commit":
            return await self._run_commit(data)
        if kind == "rollback":
            worked = self._transactions.note(await self.link.give(data))
            self._transactions.rolled_back()
            return worked
        idle = self._transactions.state == IDLE
        if kind in {"alone", "two-phase"} and idle:
            return await self._run_alone(data, unit)
        # A savepoint in no transaction is an error, which the server says.
        if idle and (kind == "savepoint" or (may_read and self._only_reads(unit))):
            answer = await self.link.give(data, retries=READ_ONLY if _may_retry(data) else NEVER)
            if not answer.again:
                return self._note(answer, unit)
        return await self._run_in_transaction(data, unit)

    async def _run_in_transaction(
        self, data: bytes, unit: Statements, *, simply: bool = True
    ) -> bool:
        """Run something in the transaction that is open, or in one of ours."""
        transactions = self._transactions
        if transactions.state == IDLE:
            await transactions.begin_ours(unit)
        ours = transactions.open is not None and transactions.open.ours
        transactions.act(unit, simply=simply)
        transactions.show_kept()
        retries = _ends_itself(unit[0]) if ours and len(unit) == 1 else NEVER
        answer = await self.link.give(data, keeps_last=ours, retries=retries)
        if answer.again:
            await transactions.roll_back()
            return await self._run_alone(data, unit)
        transactions.count(unit, answer)
        transactions.kept = answer.last
        return self._note(answer, unit)

    async def _run_alone(self, data: bytes, unit: Statements) -> bool:
        """Run what no transaction of ours can surround, where the rehearsal did so too.

        In a transaction of the client's the server itself refuses it.
        """
        refusal = self.rules.unheld(unit[0])
        if refusal is None:
            return await self._run_unheld(data, unit)
        await self._transactions.say(refusal)
        return False

    async def _run_unheld(self, data: bytes, unit: Statements) -> bool:
        """Run what no transaction of ours can surround: it takes effect as it runs."""
        self.rules.ledger.leave_unheld(unit[0].template)
        await self.link.ask(frames.query(_MAY_WRITE))
        worked = self._note(await self.link.give(data), unit)
        await self.link.ask(frames.query(_BACK_TO_READING))
        self._relapsed = False
        await self._transactions.flush()
        return worked

    async def _run_begin(self, data: bytes, statement: Statement) -> bool:
        transactions = self._transactions
        if transactions.open is not None and transactions.open.ours:
            # `INSERT ...; BEGIN; ...` in one message: PostgreSQL makes one transaction of it.
            transactions.open.ours = False
            transactions.show_kept()
            self._show(frames.build(b"C", b"BEGIN\0"))
            return True
        await transactions.flush_if_needed()
        already = transactions.open is not None
        if not transactions.note(await self.link.give(data)):
            return False
        if not already:
            await transactions.began(statement)
        return True

    async def _run_commit(self, data: bytes) -> bool:
        transactions = self._transactions
        transactions.show_kept()
        if transactions.open is None or transactions.state != OPEN:
            worked = transactions.note(await self.link.give(data))
            if transactions.state == IDLE:
                transactions.rolled_back()
            return worked
        return await transactions.commit(data)

    def _note(self, answer: Answer, unit: Statements) -> bool:
        ending = [
            words for s in unit if (words := s.template.upper().split()) and words[0] in _ENDING
        ]
        if ending:
            self._prepared.forget()
        # One alone that failed has removed nothing; of several, who knows.
        if any(words[-1] == "ALL" for words in ending) and (answer.error is None or len(unit) > 1):
            self._transactions.forget_prepared(surely=answer.error is None)
        return self._transactions.note(answer)

    async def _finish(self) -> None:
        """End a transaction of ours, then say that the group is done."""
        if self._transactions.open is not None and self._transactions.open.ours:
            await self._transactions.end_ours()
        self._ready()

    def _ready(self) -> None:
        self._transactions.show_kept()
        self._show(frames.build(b"Z", bytes([self._transactions.state])))

    def _show(self, frame: bytes) -> None:
        if not self._client.is_closing():
            self._client.write(frame)

    # --- refusals ------------------------------------------------------------------------------

    async def _admit(self, statements: Sequence[Statement]) -> Refusal | None:
        """Say why a statement may not even begin; None where all may."""
        if statements and all(s.kind == "rollback" for s in statements):
            return None
        locks_held = self._transactions.state == OPEN
        for statement in statements:
            refusal = await self.rules.admit(statement, locks_held=locks_held)
            if refusal is not None:
                return refusal
        return None

    async def _refuse(self, refusal: Refusal, group: Sequence[Frame]) -> None:
        """Answer a group with a refusal, in the place of what it asked for."""
        ours = self._transactions.open is not None and self._transactions.open.ours
        await self._transactions.say(refusal)
        if ours:
            await self._transactions.roll_back()
        self._skipping = group[-1].kind not in {_Q, _S, _F}
        if not self._skipping:
            self._ready()

    # --- the extended protocol -----------------------------------------------------------------

    async def _serve_extended(
        self, group: list[Frame], statements: Statements, *, again: bool
    ) -> None:
        """Serve messages up to Sync or Flush."""
        if group[-1].kind not in {_S, _H}:
            raise FrameError("this is not PostgreSQL's protocol")
        refusal = await self._admit(statements)
        if refusal is not None:
            await self._refuse(refusal, group)
        elif any(s.kind in _ENDS_TRANSACTION for s in statements) and (
            len(statements) > 1 or group[-1].kind == _H
        ):
            await self._serve_pipeline(group)
        elif group[-1].kind == _H:
            await self._serve_flushed(group, statements)
        elif not statements:
            self._transactions.note(await self.link.give(frames.joined(group)))
            await self._finish()
        else:
            data = frames.joined(group)
            if len(statements) == 1 and _is_simple(group):
                await self._run_unit(data, statements, may_read=not again)
            elif self._transactions.state == IDLE and not again and self._only_reads(statements):
                retries = READ_ONLY if _may_retry(data) else NEVER
                answer = await self.link.give(data, retries=retries)
                if answer.again:
                    await self._run_in_transaction(data, statements, simply=False)
                else:
                    self._note(answer, statements)
            else:
                await self._run_in_transaction(data, statements, simply=False)
            await self._finish()

    async def _serve_flushed(self, group: list[Frame], statements: Statements) -> None:
        """Serve messages that the client wants answered before it says Sync."""
        # Shown at once, it cannot be tried as reading first.
        if statements and self._transactions.state == IDLE:
            await self._transactions.begin_ours()
        self._transactions.act(statements, simply=False)
        if not await self._part(group[:-1]) and self._transactions.open is not None:
            self._transactions.state = FAILED

    async def _serve_pipeline(self, group: list[Frame]) -> None:
        """Serve a group in which transactions begin or end before its Sync."""
        if self._transactions.state == IDLE:
            await self._transactions.begin_ours()
        part: list[Frame] = []
        worked = True
        for position, frame in enumerate(group[:-1]):
            statement = next(iter(self._prepared.executed.get(position, ())), None)
            if statement is not None and statement.kind == "commit":
                worked = await self._part(part) and await self._commit_part(frame)
                part = []
            else:
                part.append(frame)
                self._note_in_pipeline(statement)
            if not worked:
                break
        worked = worked and await self._part(part)
        if group[-1].kind == _H:
            self._skipping = not worked
            return
        self._transactions.note(await self.link.ask(frames.SYNC))
        await self._finish()

    def _note_in_pipeline(self, statement: Statement | None) -> None:
        if statement is None or self._transactions.open is None:
            return
        if statement.kind == "begin":
            self._transactions.open.ours = False
        elif statement.kind != "rollback":
            self._transactions.act((statement,), simply=False)

    async def _part(self, part: list[Frame]) -> bool:
        """Send part of a group, and wait for its answers; return whether all went well."""
        if not completions(part):
            self.link.transport.write(frames.joined(part) + frames.FLUSH)
            return True
        answer = await self.link.give(
            frames.joined(part) + frames.FLUSH, left=completions(part), quiet=True
        )
        if self.link.closed:
            raise ConnectionResetError
        return answer.error is None

    async def _commit_part(self, execute: Frame) -> bool:
        """Gate a COMMIT in the middle of a pipeline."""
        transactions = self._transactions
        if transactions.open is None:
            return await self._part([execute])
        transactions.note(await self.link.ask(frames.SYNC))
        refused = await transactions.judge()
        if refused is not None:
            await transactions.fail(refused)
            return False
        if transactions.state == FAILED:
            await transactions.roll_back()
            return False
        # Sync has closed the portal that was bound to it: the COMMIT is ours, its answer the same.
        transactions.kept = frames.build(b"C", b"COMMIT\0")
        if not await transactions.commit_ours():
            return False
        await transactions.begin_ours()
        return True

    # --- the end -------------------------------------------------------------------------------

    def _changed(self, name: str, value: str) -> None:
        """A setting has changed that the server reports."""
        if name == "default_transaction_read_only" and value != "on":
            self._relapsed = not self._observes

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


def _ends_itself(statement: Statement) -> frozenset[str]:
    """Return the errors by which a statement says that no transaction may surround it."""
    if statement.kind in {"procedure", "unknown", "execute"}:
        return _COMMITS_ITSELF
    # Of a table with partitions these take each in a transaction of its own.
    if statement.template[:7].upper() in {"CLUSTER", "REINDEX"}:
        return _RUNS_ALONE
    return NEVER


def _is_simple(group: Sequence[Frame]) -> bool:
    """Whether a group executes its statement once, to its end."""
    return group[0].kind == _Q or sum(frame.kind == _E for frame in group) == 1


def _may_retry(data: bytes) -> bool:
    return len(data) <= _MOST_RETRIED_BYTES
