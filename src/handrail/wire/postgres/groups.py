"""The long way of a group: its statements run in the transaction that they need, and are gated.

Rules:
- What the classifier calls reading and the server refuses to do so is run again as writing.
- What runs in no transaction block is done only where the rehearsal did it too, and is reported.
- A message in which a transaction ends is taken apart there: nothing follows a COMMIT ungated.
- A refusal takes the place of the whole group, up to its Sync.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from handrail.wire.ledger import Refusal
from handrail.wire.postgres import frames
from handrail.wire.postgres.frames import Frame, FrameError
from handrail.wire.postgres.link import NEVER, READ_ONLY, Answer, Link, completions
from handrail.wire.postgres.prepared import UNKNOWN, Prepared, Statements
from handrail.wire.postgres.rules import Rules
from handrail.wire.postgres.statement import Statement
from handrail.wire.postgres.transaction import FAILED, IDLE, OPEN, Transactions

_Q, _E, _S, _H, _F = (ord(letter) for letter in "QESHF")
_ENDS_TRANSACTION = frozenset({"begin", "commit", "rollback", "two-phase"})
_READING = frozenset({"read", "setting", "prepare", "execute", "empty", "mode"})
# Of these, what calls functions.
_CALLING = frozenset({"read", "execute"})
# What ends prepared statements.
_ENDING = frozenset({"DISCARD", "DEALLOCATE"})
_MOST_RETRIED_BYTES = 1024 * 1024
_COMMITS_ITSELF = frozenset({"2D000"})  # invalid transaction termination
_RUNS_ALONE = frozenset({"25001"})  # active SQL transaction
# Functions that clients call outside SQL to work with large objects, by their numbers.
_LARGE_OBJECTS = frozenset({715, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172})
_BACK_TO_READING = "SET default_transaction_read_only = on"
_MAY_WRITE = "SET default_transaction_read_only = off"


class Groups:
    """Serves the groups of one session, one at a time.

    Args:
        rules: of the run.
        link: to the server.
        transactions: of the session.
        prepared: what the client has prepared.
        show: writes a frame to the client.

    Attributes:
        skipping: what comes is left out up to Sync, after a refusal.
        relapsed: the client lets its next transactions write.
    """

    def __init__(
        self,
        rules: Rules,
        link: Link,
        transactions: Transactions,
        prepared: Prepared,
        show: Callable[[bytes], None],
    ) -> None:
        self._rules = rules
        self._link = link
        self._transactions = transactions
        self._prepared = prepared
        self._show = show
        self.skipping = False
        self.relapsed = False

    async def serve(self, group: list[Frame], statements: Statements, *, again: bool) -> None:
        """Serve one group, whatever it is.

        Raises:
            FrameError: it is no group of PostgreSQL's protocol.
            ConnectionError: the server is gone.
        """
        if self.relapsed and self._transactions.state != FAILED:
            self.relapsed = False
            await self._link.ask(frames.query(_BACK_TO_READING))
        kind = group[0].kind
        if self.skipping:
            self._skip(group)
        elif kind == _F:
            await self._serve_call(group)
        elif kind == _Q:
            await self._serve_query(group, statements, again=again)
        else:
            await self._serve_extended(group, statements, again=again)

    def _skip(self, group: list[Frame]) -> None:
        """Leave out what follows a refusal, up to Sync, as the server would."""
        if group[-1].kind in {_S, _Q}:
            self.skipping = False
            self._ready()

    async def _serve_call(self, group: list[Frame]) -> None:
        """Serve a function call outside SQL: those for large objects alone, gated."""
        refusal = self._rules.ledger.stopped()
        if refusal is None and int.from_bytes(group[0].body[:4]) not in _LARGE_OBJECTS:
            self._rules.ledger.tell("bypass", "it called a function outside SQL")
            refusal = self._rules.ledger.refuse("call a function outside SQL")
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
        if kinds & _CALLING and not self._rules.reads_hold:
            return False
        # Of several, the answers of the first have been shown when another may only read.
        return kinds <= _READING and len(unit) <= 1

    def _split(self, statements: Statements) -> list[tuple[bytes, Statements]]:
        codec = self._rules.codec(self._link.statuses.get("client_encoding", "UTF8"))
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
            worked = self._transactions.note(await self._link.give(data))
            self._transactions.rolled_back()
            return worked
        idle = self._transactions.state == IDLE
        if kind in {"alone", "two-phase"} and idle:
            return await self._run_alone(data, unit)
        # A savepoint in no transaction is an error, which the server says.
        if idle and (kind == "savepoint" or (may_read and self._only_reads(unit))):
            answer = await self._link.give(data, retries=READ_ONLY if may_retry(data) else NEVER)
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
        answer = await self._link.give(data, keeps_last=ours, retries=retries)
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
        refusal = self._rules.unheld(unit[0])
        if refusal is None:
            return await self._run_unheld(data, unit)
        await self._transactions.say(refusal)
        return False

    async def _run_unheld(self, data: bytes, unit: Statements) -> bool:
        """Run what no transaction of ours can surround: it takes effect as it runs."""
        self._rules.ledger.leave_unheld(unit[0].template)
        await self._link.ask(frames.query(_MAY_WRITE))
        worked = self._note(await self._link.give(data), unit)
        await self._link.ask(frames.query(_BACK_TO_READING))
        self.relapsed = False
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
        if not transactions.note(await self._link.give(data)):
            return False
        if not already:
            await transactions.began(statement)
        return True

    async def _run_commit(self, data: bytes) -> bool:
        transactions = self._transactions
        transactions.show_kept()
        if transactions.open is None or transactions.state != OPEN:
            worked = transactions.note(await self._link.give(data))
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

    # --- refusals ------------------------------------------------------------------------------

    async def _admit(self, statements: Sequence[Statement]) -> Refusal | None:
        """Say why a statement may not even begin; None where all may."""
        if statements and all(s.kind == "rollback" for s in statements):
            return None
        locks_held = self._transactions.state == OPEN
        for statement in statements:
            refusal = await self._rules.admit(statement, locks_held=locks_held)
            if refusal is not None:
                return refusal
        return None

    async def _refuse(self, refusal: Refusal, group: Sequence[Frame]) -> None:
        """Answer a group with a refusal, in the place of what it asked for."""
        ours = self._transactions.open is not None and self._transactions.open.ours
        await self._transactions.say(refusal)
        if ours:
            await self._transactions.roll_back()
        self.skipping = group[-1].kind not in {_Q, _S, _F}
        if not self.skipping:
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
            self._transactions.note(await self._link.give(frames.joined(group)))
            await self._finish()
        else:
            data = frames.joined(group)
            if len(statements) == 1 and is_simple(group):
                await self._run_unit(data, statements, may_read=not again)
            elif self._transactions.state == IDLE and not again and self._only_reads(statements):
                retries = READ_ONLY if may_retry(data) else NEVER
                answer = await self._link.give(data, retries=retries)
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
            self.skipping = not worked
            return
        self._transactions.note(await self._link.ask(frames.SYNC))
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
            self._link.transport.write(frames.joined(part) + frames.FLUSH)
            return True
        answer = await self._link.give(
            frames.joined(part) + frames.FLUSH, left=completions(part), quiet=True
        )
        if self._link.closed:
            raise ConnectionResetError
        return answer.error is None

    async def _commit_part(self, execute: Frame) -> bool:
        """Gate a COMMIT in the middle of a pipeline."""
        transactions = self._transactions
        if transactions.open is None:
            return await self._part([execute])
        transactions.note(await self._link.ask(frames.SYNC))
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


def _ends_itself(statement: Statement) -> frozenset[str]:
    """Return the errors by which a statement says that no transaction may surround it."""
    if statement.kind in {"procedure", "unknown", "execute"}:
        return _COMMITS_ITSELF
    # Of a table with partitions these take each in a transaction of its own.
    if statement.template[:7].upper() in {"CLUSTER", "REINDEX"}:
        return _RUNS_ALONE
    return NEVER


def is_simple(group: Sequence[Frame]) -> bool:
    """Whether a group executes its statement once, to its end."""
    return group[0].kind == _Q or sum(frame.kind == _E for frame in group) == 1


def may_retry(data: bytes) -> bool:
    """Whether something is short enough to be kept until it is known whether it runs again."""
    return len(data) <= _MOST_RETRIED_BYTES
