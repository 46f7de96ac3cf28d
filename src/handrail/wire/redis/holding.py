"""Holds what one connection writes: looks, the ledger, and only then the command.

Rules:
- A write leaves together with its looks where the worst of it fits; where it does not, the looks go
  first, under WATCH, and the command only if they say that it may.
- A transaction is kept here until its EXEC, and judged as a whole.
- What an earlier command of a transaction hides is counted after it, where the rehearsal ran it.
- Others may write between looks and command where no WATCH can be had: in a client's own WATCH,
  while a command waits, for a flush, and where they write the same keys all the time. What was done
  is then compared with the budget afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from handrail.wire.ledger import Refusal
from handrail.wire.redis.catalog import Entry
from handrail.wire.redis.counting import Counted, is_blind
from handrail.wire.redis.facts import Facts
from handrail.wire.redis.judging import Judge, Judged, told
from handrail.wire.redis.line import Line
from handrail.wire.redis.pairing import Entry as Expected
from handrail.wire.redis.pairing import Exec, Local, Silent, Waiting
from handrail.wire.redis.plan import (
    DELETE,
    KEY,
    Change,
    MalformedError,
    amounts_of,
)
from handrail.wire.redis.replies import ErrorReply, Reply
from handrail.wire.redis.requests import Request, encode
from handrail.wire.redis.scanning import ScanError, keys_by_pattern

if TYPE_CHECKING:
    from handrail.wire.ledger import Key

QUEUED = b"+QUEUED\r\n"
OK = b"+OK\r\n"
ABORTED = "EXECABORT Transaction discarded because of previous errors."
# So often WATCH is tried while others write the same keys; then what was done is compared after.
MOST_ATTEMPTS = 8
MOST_QUEUED = 100_000
MOST_QUEUED_BYTES = 32 * 1024 * 1024


@dataclass(slots=True)
class Queued:
    """A command of a transaction that waits for its EXEC; `error` is its reply where it has one."""

    request: Request
    judged: Judged | None
    error: str = ""


@dataclass(slots=True)
class Transaction:
    """A transaction that is kept here."""

    database: int
    queue: list[Queued] = field(default_factory=list)
    is_dirty: bool = False
    size_bytes: int = 0


class Holding:
    """What one connection may write.

    Args:
        line: it.
        judge: what all connections share.
    """

    def __init__(self, line: Line, judge: Judge) -> None:
        self._line = line
        self._judge = judge
        self._ledger = judge.ledger
        self.database = 0
        self.watches = False
        self.transaction: Transaction | None = None
        self._scanned: dict[int, list[Change]] = {}  # of a transaction's flushes, by identity

    @property
    def next_database(self) -> int:
        """Return the one that the next command runs in."""
        return self.database if self.transaction is None else self.transaction.database

    # --- one command ---------------------------------------------------------------------------

    def weigh(self, request: Request, entry: Entry) -> None:
        """Let one command through, counted, or refuse it."""
        try:
            judged = self._judged(request, entry, self.database)
        except MalformedError as error:
            judged = str(error)
        if isinstance(judged, str):
            request.close()
            self._line.say(judged)
        elif judged is None:
            self._line.forward(request, Waiting() if entry.may_block(request.arguments) else None)
        elif judged.plan is None:
            self._line.work(self._flush(request, judged))
        elif judged.is_unheld or self._fits_worst(judged):
            self._let_through(request, judged)
        else:
            self._line.work(self._look_first(request, judged))

    def _judged(
        self, request: Request, entry: Entry, database: int, *, apart: bool = False
    ) -> Judged | str | None:
        """Return what a command would do; an error to answer with; None where it only reads.

        Raises:
            MalformedError: the server would do nothing but say so.
        """
        words = request.arguments
        if entry.kind != "unknown" and not entry.accepts(len(words)):
            return wrong_number(entry)
        if entry.kind == "unknown" and not self._judge.catalog.knows(words):
            second = words[0].upper() in self._judge.catalog.entries
            return _unknown(words, is_second=second)
        refusal: Refusal | None = None
        if entry.only_reads or (entry.kind == "publish" and self._judge.mode != "read-only"):
            refusal = self._judge.follow(entry, words, database)
            return f"HANDRAIL {told(refusal)}" if refusal else None
        judged = self._judge.judge(entry, words, database, apart=apart)
        return f"HANDRAIL {told(judged)}" if isinstance(judged, Refusal) else judged

    def _fits_worst(self, judged: Judged) -> bool:
        """Whether a command may run whatever it finds; nothing is set aside yet."""
        plan = judged.plan
        if self._judge.mode != "hold":
            return True
        return (
            plan is not None
            and plan.worst is not None
            and self._ledger.fits(amounts_of(plan.worst))
        )

    def _let_through(self, request: Request, judged: Judged) -> None:
        """Send a command with its looks, and count it when they are answered."""
        counted = self._counted([judged])
        if isinstance(counted, Refusal):
            request.close()
            self._line.say_no(counted)
            return
        entries, parts = counted.expected(judged, request)
        for expected in entries:
            self._line.pairing.expect(expected)
        if request.file is None:
            self._line.send(b"".join(part for part in _raw(parts)))
        else:
            self._line.work(self._line.stream_all(parts))

    def _counted(
        self, judged: Sequence[Judged], amounts: dict[Key, int] | None = None
    ) -> Counted | Refusal:
        """Set aside what commands may do; say why it may not be."""
        counted = Counted(self._ledger, self._line.in_flight)
        if amounts is None:
            worst: list[Change] = []
            for one in judged:
                worst += (one.plan.worst if one.plan else None) or ()
            amounts = amounts_of(worst)
        refusal = self._ledger.reserve(counted, amounts, statement=judged[0].template)
        if refusal is not None:
            return refusal
        for one in judged:
            if one.is_unheld:
                self._ledger.leave_unheld(one.template)
        self._line.in_flight.add(counted)
        return counted

    async def _look_first(self, request: Request, judged: Judged) -> None:
        """Run one command only where it fits by what is there; WATCH sees to it that it stays."""
        plan = judged.plan
        assert plan is not None  # noqa: S101  flushes go another way
        # Under a client's own WATCH, or where it may wait, no transaction of ours can be had.
        alone = self.watches or plan.blocks or not plan.keys or request.file is not None
        for attempt in range(MOST_ATTEMPTS + 1):
            watches = not alone and attempt < MOST_ATTEMPTS
            watch = [(b"WATCH", *plan.keys)] if watches else []
            answers = (await self._line.asked([*watch, *plan.looks], whole=False))[len(watch) :]
            refusal = self._blind(answers, judged.template)
            counted = refusal or self._counted([judged], amounts_of(plan.changes(answers)))
            if isinstance(counted, Refusal):
                await self._unwatch_ours(watching=watches)
                request.close()
                self._line.say_no(counted)
                return
            if self._line.client is None:
                counted.never()
                return
            if not watches:
                counted.compare_after()
            if alone:
                await self._run_alone(request, judged, counted)
                return
            if await self._run_wrapped(request, judged, counted):
                return

    def _blind(self, answers: Sequence[Reply], template: str) -> Refusal | None:
        """Say that a command cannot be judged where the guard itself may not look."""
        for answer in answers:
            if isinstance(answer, ErrorReply) and is_blind(answer):
                why = answer.text[:200].decode("utf-8", "backslashreplace")
                what = f"run {template}, which cannot be looked into: {why}"
                return self._ledger.refuse(what, template)
        return None

    async def _unwatch_ours(self, *, watching: bool) -> None:
        if watching:
            await self._line.asked([(b"UNWATCH",)], whole=False)

    async def _run_alone(self, request: Request, judged: Judged, counted: Counted) -> None:
        entries, parts = counted.expected(judged, request)
        for expected in entries:
            self._line.pairing.expect(expected)
        await self._line.stream_all(parts)

    async def _run_wrapped(self, request: Request, judged: Judged, counted: Counted) -> bool:
        """Run one command in a transaction of ours; return False where WATCH undid it."""
        line = await self._execute([(request, judged, "")], counted, shown=None)
        return line not in {b"*-1", b"_"}

    # --- transactions --------------------------------------------------------------------------

    def multi(self, request: Request, entry: Entry) -> None:
        """Begin a transaction."""
        if not entry.accepts(len(request.arguments)):
            self._line.say(wrong_number(entry))
        elif self.transaction is not None:
            self._line.say("ERR MULTI calls can not be nested")
        else:
            self.transaction = Transaction(self.database)
            self._line.pairing.expect(Local(OK))

    def queue(self, request: Request, entry: Entry, transaction: Transaction) -> None:
        """Keep a command until EXEC, or refuse it."""
        try:
            judged = self._judged(request, entry, transaction.database, apart=True)
        except MalformedError as error:
            # The server would queue it, and say so only when it runs: it gets a PING in its place.
            request.close()
            standing = Request([b"PING"], encode(b"PING"))
            self.keep(Queued(standing, None, str(error)), transaction)
            return
        if isinstance(judged, str):
            request.close()
            transaction.is_dirty = True
            self._line.say(judged)
            return
        self.keep(Queued(request, judged), transaction)

    def keep(self, queued: Queued, transaction: Transaction) -> None:
        """Keep a command that is judged; the client is told that it is queued."""
        transaction.size_bytes += len(queued.request.raw)
        too_much = transaction.size_bytes > MOST_QUEUED_BYTES
        if too_much or len(transaction.queue) >= MOST_QUEUED:
            queued.request.close()
            transaction.is_dirty = True
            self._line.say("HANDRAIL this transaction is too large for the guard")
            return
        transaction.queue.append(queued)
        self._line.pairing.expect(Local(QUEUED))

    def discard(self, request: Request, entry: Entry) -> None:
        """Forget a transaction."""
        del request, entry
        if self.transaction is None:
            self._line.say("ERR DISCARD without MULTI")
        else:
            self.drop(self.transaction)
            self._line.pairing.expect(Local(OK))

    def drop(self, transaction: Transaction) -> None:
        """Forget a transaction, and what the client watches."""
        for queued in transaction.queue:
            queued.request.close()
        self.transaction = None
        if self.watches:
            self.watches = False
            self._line.pairing.expect(Silent(lambda _: None))
            self._line.send(encode(b"UNWATCH"))

    def execute(self, request: Request, entry: Entry) -> None:
        """Judge a transaction as a whole, and run it or not."""
        del request, entry
        transaction = self.transaction
        if transaction is None:
            self._line.say("ERR EXEC without MULTI")
        elif transaction.is_dirty:
            self.drop(transaction)
            self._line.say(ABORTED)
        else:
            self._line.work(self._settle_transaction(transaction))

    async def _settle_transaction(self, transaction: Transaction) -> None:
        writes = [queued.judged for queued in transaction.queue if queued.judged is not None]
        self.transaction = None
        for attempt in range(MOST_ATTEMPTS + 1):
            watches = attempt < MOST_ATTEMPTS
            counted, watching = await self._weigh_transaction(writes, watches=watches)
            if isinstance(counted, Refusal):
                await self._unwatch_ours(watching=watching)
                self.drop(transaction)
                self._line.say(f"EXECABORT HANDRAIL {told(counted)}")
                return
            if self._line.client is None:
                counted.never()
                self.drop(transaction)
                return
            pairs = [(one.request, one.judged, one.error) for one in transaction.queue]
            own = watching and not self.watches
            line = await self._execute(pairs, counted, shown=len(pairs), again=own)
            if line in {b"*-1", b"_"} and own:
                continue
            if line[:1] == b"*" and line != b"*-1":
                self.database = transaction.database
            self.watches = False
            self.drop(transaction)
            return

    async def _weigh_transaction(
        self, writes: Sequence[Judged], *, watches: bool
    ) -> tuple[Counted | Refusal, bool]:
        """Set aside what a transaction would do; and say whether WATCH is on what it depends on."""
        if not writes:
            return Counted(self._ledger, self._line.in_flight), False
        plain = [one for one in writes if not one.is_unheld]
        worst: list[Change] | None = []
        for one in plain:
            more = one.plan.worst if one.plan is not None else None
            worst = None if worst is None or more is None else [*worst, *more]
        flushes = any(one.plan is None for one in writes)
        self._scanned = {}
        if not flushes and self._judge.mode != "hold":
            return self._counted(writes), False
        if worst is not None and self._ledger.fits(amounts_of(worst)):
            return self._counted(writes, amounts_of(worst)), False
        return await self._look_at_all(writes, watches=watches)

    async def _look_at_all(
        self, writes: Sequence[Judged], *, watches: bool
    ) -> tuple[Counted | Refusal, bool]:
        here = self.database
        # WATCH and looks are about the database that each command runs in.
        facts, changes = Facts(), list[Change]()
        watching, guesses = False, not watches
        for one in writes:
            select = [(b"SELECT", b"%d" % one.database)] if one.database != here else []
            here = one.database
            if one.plan is None:
                await self._line.asked(select, whole=False)
                self._scanned[id(one)] = await self._scan(one)
                changes += self._scanned[id(one)]
                continue
            if one.is_unheld:
                continue
            watch = [(b"WATCH", *one.plan.keys)] if one.plan.keys and watches else []
            before = [*select, *watch]
            answers = (await self._line.asked([*before, *one.plan.looks], whole=False))[
                len(before) :
            ]
            watching = watching or bool(watch)
            refusal = self._blind(answers, one.template)
            found, is_certain = facts.changes(one.plan, one.database, answers)
            if is_certain:
                changes += found
            elif not self._judge.was_rehearsed(one):
                changes += found if one.plan.worst is None else one.plan.worst
                what = f"run {one.template} after commands that hide what it does"
                if refusal is None and one.plan.worst is None:
                    refusal = self._ledger.refuse(what)
            else:
                # What is bounded is compared afterwards; of the rest, what can be seen is held.
                guesses = True
                self._ledger.leave_unheld(one.template)
                changes += found if one.plan.worst is None else ()
            if refusal is not None:
                await self._back(here)
                return refusal, watching
        await self._back(here)
        counted = self._counted(writes, amounts_of(changes))
        if guesses and isinstance(counted, Counted):
            counted.compare_after()
        return counted, watching

    async def _back(self, here: int) -> None:
        if here != self.database:
            await self._line.asked([(b"SELECT", b"%d" % self.database)], whole=False)

    async def _execute(
        self,
        pairs: Sequence[tuple[Request, Judged | None, str]],
        counted: Counted,
        *,
        shown: int | None,
        again: bool = True,
    ) -> bytes:
        """Send MULTI, commands with their looks, EXEC; return the first line of what EXEC says.

        Args:
            pairs: the commands, with the error that the one in its place has for a reply.
            counted: what was set aside for them.
            shown: how many replies the client awaits; None for the one alone.
            again: whether it is tried again where WATCH undid it: the client need not know.
        """
        elements: list[Expected] = []
        parts: list[bytes | Request] = [encode(b"MULTI")]
        for request, judged, error in pairs:
            if judged is None:
                entries, pieces = counted.plain(request, error)
            else:
                entries, pieces = counted.expected(judged, request, self._scanned.get(id(judged)))
            elements += entries
            parts += pieces
        parts.append(encode(b"EXEC"))
        done = self._expect_exec(elements, counted, shown=shown, again=again)
        await self._line.stream(parts)
        return await done

    def _expect_exec(
        self, elements: list[Expected], counted: Counted, *, shown: int | None, again: bool
    ) -> asyncio.Future[bytes]:
        """Expect the replies of a transaction; the future has the first line of EXEC's."""
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        refused: list[bytes] = []

        def queued(reply: Reply) -> None:
            if isinstance(reply, ErrorReply):
                refused.append(b"-%s\r\n" % reply.text)

        def tell(line: bytes) -> None:
            if line[:1] != b"*" or line == b"*-1":
                counted.never()
            if shown is None and line[:1] == b"-":
                # The one command was refused where it was queued: that is its reply.
                self._line.pairing.expect(Local(refused[0] if refused else line + b"\r\n"))
            if not done.done():
                done.set_result(line)

        def is_kept(line: bytes) -> bool:
            return shown is not None if line[:1] == b"-" else not again

        for _ in range(len(elements) + 1):
            self._line.pairing.expect(Silent(queued))
        self._line.pairing.expect(Exec(elements, shown, tell, is_kept=is_kept))
        return done

    # --- flushes -------------------------------------------------------------------------------

    async def _scan(self, judged: Judged) -> list[Change]:
        """Return what a flush would delete: every key, by pattern."""
        every = judged.entry.name == "FLUSHALL"
        counts = await keys_by_pattern(self._line.ask, judged.database, every=every)
        return [(DELETE, KEY, place, number) for place, number in counts.items()]

    async def _flush(self, request: Request, judged: Judged) -> None:
        try:
            changes = await self._scan(judged)
        except ScanError as error:
            what = f"run {judged.template}, which cannot be counted: {error}"
            self._line.say_no(self._ledger.refuse(what, judged.template))
            return
        counted = self._counted([judged], amounts_of(changes))
        if isinstance(counted, Refusal):
            self._line.say_no(counted)
            return
        entries, parts = counted.expected(judged, request, changes)
        for expected in entries:
            self._line.pairing.expect(expected)
        await self._line.stream(parts)


def _raw(parts: Sequence[bytes | Request]) -> list[bytes]:
    return [part if isinstance(part, bytes) else part.raw for part in parts]


def wrong_number(entry: Entry) -> str:
    """Return what the server says of a command with too many words, or too few."""
    name = entry.name.lower().replace(" ", "|")
    return f"ERR wrong number of arguments for '{name}' command"


def _unknown(words: Sequence[bytes], *, is_second: bool) -> str:
    if is_second:
        second = words[1][:128].decode("utf-8", "backslashreplace")
        name = words[0].decode("utf-8", "backslashreplace").upper()
        return f"ERR unknown subcommand '{second}'. Try {name} HELP."
    shown = words[0][:128].decode("utf-8", "backslashreplace")
    begins = "".join(f"'{word[:128].decode('utf-8', 'backslashreplace')}' " for word in words[1:20])
    return f"ERR unknown command '{shown}', with args beginning with: {begins[:128]}"
