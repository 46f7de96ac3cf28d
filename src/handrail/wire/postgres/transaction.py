"""The transaction of a session: opened by the client or by us, and gated before it takes effect.

Rules:
- Outside a transaction the server lets nothing be written; one of ours surrounds what may write.
- COMMIT, the client's or ours, is sent when the ledger has set aside what the transaction did.
- The gate is left out only where the tags of plain statements are provably all that was done.
- A refusal is said by the server, and what was open is rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from handrail.plans.effect import Effect
from handrail.wire.ledger import Key, Refusal
from handrail.wire.postgres import frames, gate, refusing
from handrail.wire.postgres.gate import GateError, Reading
from handrail.wire.postgres.link import Answer, Link
from handrail.wire.postgres.looking import look_inside
from handrail.wire.postgres.rules import Rules
from handrail.wire.postgres.statement import Statement

IDLE, OPEN, FAILED = ord("I"), ord("T"), ord("E")
_BEGIN = {True: "BEGIN READ ONLY", False: "BEGIN READ WRITE"}
_MODE = {True: "SET TRANSACTION READ ONLY", False: "SET TRANSACTION READ WRITE"}


@dataclass
class Open:
    """An open transaction.

    Attributes:
        ours: the guard opened it around a statement; nobody but us ends it.
        acted: something ran in it that could have written.
        exact: amounts from command tags, while nothing but plain statements ran; else None.
        base: what the counters said before it began: they are not flushed between chained ones.
        last: template of the last statement.
    """

    ours: bool
    acted: bool = False
    exact: dict[Key, int] | None = field(default_factory=dict)
    base: dict[Key, int] = field(default_factory=dict)
    last: str = ""


class Transactions:
    """The state of a session's transaction, and what ends it.

    Args:
        rules: of the run.
        link: to the server.
        show: writes a frame to the client.
        holder: whose reservations these are.
    """

    def __init__(
        self, rules: Rules, link: Link, show: Callable[[bytes], None], holder: object
    ) -> None:
        self._rules = rules
        self._link = link
        self._show = show
        self._holder = holder
        self._dirty = False
        # None: nobody knows whether the gate's own statement is prepared.
        self._gate_ready: bool | None = False
        self._seen: dict[Key, int] = {}
        self._reshaped = False
        self.state = IDLE
        self.open: Open | None = None
        # The CommandComplete of a statement whose transaction of ours has not been committed yet.
        self.kept = b""
        self.database = rules.database

    # --- what happens in it --------------------------------------------------------------------

    def note(self, answer: Answer) -> bool:
        """Note what came of something that was sent; return whether it went well.

        Raises:
            ConnectionResetError: the server is gone.
        """
        self.follow(answer)
        if self._link.closed:
            raise ConnectionResetError
        return answer.error is None

    def follow(self, answer: Answer) -> None:
        """Take over the state that the server said; a transaction nobody saw begin is gated too."""
        self.state = answer.state or self.state
        if self.state == IDLE:
            return
        if self.open is None:
            self.open = Open(ours=False, acted=True, exact=None)

    def act(self, statements: Sequence[Statement], *, simply: bool) -> None:
        """Note that statements run in the open transaction; `simply`: one, executed once."""
        if self.open is None or not statements:
            return
        self.open.acted = True
        self.open.last = statements[-1].template
        if not simply or len(statements) != 1 or not self._rules.is_plain(statements[0]):
            self.open.exact = None

    def count(self, statements: Sequence[Statement], answer: Answer) -> None:
        """Count what a plain statement's tag says: nothing else can have been done."""
        if self.open is None or self.open.exact is None or answer.error is not None:
            return
        if not answer.tag or len(statements) != 1:
            self.open.exact = None
            return
        name = self._rules.name_of(statements[0])
        for key, count in gate.of_tag(statements[0].verb, name, answer.tag).items():
            self.open.exact[key] = self.open.exact.get(key, 0) + count

    def forget_prepared(self, *, surely: bool) -> None:
        """The gate's own prepared statement is gone, or may be."""
        self._gate_ready = False if surely else None

    # --- its beginning -------------------------------------------------------------------------

    async def begin_ours(self, statements: Sequence[Statement] = ()) -> None:
        """Begin a transaction of ours, around `statements`."""
        if len(statements) != 1 or not self._rules.is_plain(statements[0]):
            await self.flush_if_needed()
        begin = _BEGIN[self._rules.limits.mode == "read-only"]
        self.note(await self._link.ask(frames.query(begin)))
        self.open = Open(ours=True)

    async def began(self, statement: Statement) -> None:
        """Note that the client began one, and let it write where it may."""
        reads_only = self._rules.limits.mode == "read-only"
        if reads_only or statement.reads_only is not True:
            self.note(await self._link.ask(frames.query(_MODE[reads_only])))
        self.open = Open(ours=False)

    async def flush_if_needed(self) -> None:
        """Have the server put away what transactions that came to nothing have counted."""
        if self._dirty and self.state == IDLE:
            await self.flush()

    async def flush(self) -> None:
        """Have the server put its counters away: the next transaction begins at zero."""
        self._dirty = False
        self.note(await self._link.ask(frames.query(gate.FLUSH)))

    # --- its end -------------------------------------------------------------------------------

    async def commit(self, data: bytes) -> bool:
        """Gate the client's COMMIT, and send it; return whether it took effect."""
        refused = await self.judge()
        if refused is not None:
            await self.fail(refused)
            return False
        if self.state == FAILED:  # a deferred constraint: its error has been shown
            await self.roll_back()
            return False
        answer = await self._link.give(data)
        kept = self.note(answer) and answer.tag != "ROLLBACK"
        self._settle(kept=kept)
        if self.state == OPEN:  # AND CHAIN: the next one is what this one was, and may only read
            self.note(await self._link.ask(frames.query(_MODE[False])))
            self.open = Open(ours=False, base=self._seen, exact=None)
        return kept

    def rolled_back(self) -> None:
        """Note that the client's ROLLBACK has been answered."""
        self._settle(kept=False)
        self._dirty = True
        if self.state == OPEN:  # AND CHAIN
            self.open = Open(ours=False, exact=None)

    async def end_ours(self) -> None:
        """Let what a transaction of ours did take effect where the gate lets it."""
        if self.state == FAILED:
            await self.roll_back()
            return
        refused = await self.judge()
        if refused is not None:
            await self.fail(refused)
        elif self.state == FAILED:
            await self.roll_back()
        else:
            await self.commit_ours()

    async def commit_ours(self) -> bool:
        """Commit what was judged; show the answer that waited for it. Return whether it worked."""
        answer = await self._link.ask(frames.query("COMMIT"))
        kept = self.note(answer) and answer.tag != "ROLLBACK"
        self._settle(kept=kept)
        if answer.error:
            self.kept = b""
            self._show(answer.error_frame)
        self.show_kept()
        return kept

    async def roll_back(self) -> None:
        """Take the open transaction back."""
        self.kept = b""
        self.note(await self._link.ask(frames.query("ROLLBACK")))
        self._dirty = True
        self._settle(kept=False)

    def show_kept(self) -> None:
        """Show the answer that waited."""
        if self.kept:
            self._show(self.kept)
            self.kept = b""

    def _settle(self, *, kept: bool) -> None:
        self._rules.ledger.settle(self._holder, kept=kept)
        self.open = None
        if self._reshaped:
            self._reshaped = False
            self._rules.read_plain()

    # --- the gate ------------------------------------------------------------------------------

    async def judge(self) -> Refusal | None:
        """Set aside what the open transaction has done; return why it may not take effect.

        An error of a deferred constraint is shown to the client, and `state` says so.
        """
        if self.open is None or not self.open.acted:
            return None
        template = self.open.last
        if self.open.exact is not None and not self.open.base:
            self._seen, self._dirty = self.open.exact, True
            return self._rules.reserve(self._holder, self.open.exact, template, None, self.database)
        try:
            cursor = await self._held_cursor()
            if cursor:
                what = f"commit a cursor WITH HOLD, {cursor}, whose end is not counted"
                return self._rules.ledger.refuse(what, template)
            reading = await self._read()
            return await self._judge(reading, template) if reading else None
        except GateError as error:
            return self._rules.ledger.refuse(f"commit what cannot be counted: {error}", template)

    async def _judge(self, reading: Reading, template: str) -> Refusal | None:
        open_now = self.open or Open(ours=False)
        self._seen = reading.amounts
        base = open_now.base
        amounts = {key: max(n - base.get(key, 0), 0) for key, n in reading.amounts.items()}
        shapes: tuple[Effect, ...] | None = None
        if reading.reshaped or reading.foreign:
            self._reshaped = True
            self._rules.forget_plain()
            shapes = self._rules.foreign(reading.foreign)
            if reading.reshaped:
                shapes += await look_inside(self._link, self._rules, self.database)
        return self._rules.reserve(self._holder, amounts, template, shapes, self.database)

    async def _read(self) -> Reading | None:
        """Ask the gate; None where a deferred constraint has failed instead."""
        if self._gate_ready is False and not await self._asked(gate.PREPARE):
            return None
        prepared = self._gate_ready = None if self._gate_ready is None else True
        answer = await self._asked(gate.ASK if prepared else gate.ASK_PLAINLY)
        return gate.read(answer.rows, prepared=bool(prepared)) if answer else None

    async def _held_cursor(self) -> str:
        """Return a cursor that COMMIT would run, where what it reads could write; else nothing."""
        if not self._rules.ends_may_write:
            return ""
        answer = await self._asked(gate.HELD_CURSORS)
        return str(answer.rows[0][0]) if answer and answer.rows else ""

    async def _asked(self, question: str) -> Answer | None:
        answer = await self._link.ask(frames.query(question), collects=True)
        if self.note(answer):
            return answer
        if answer.tag:  # the constraints held; it is the gate itself that failed
            raise GateError(answer.error.message if answer.error else "")
        self._show(answer.error_frame)
        return None

    # --- refusals ------------------------------------------------------------------------------

    async def fail(self, refusal: Refusal) -> None:
        """Say a refusal in the place of a COMMIT, and take the open transaction back."""
        await self.say(refusal)
        await self.roll_back()

    async def say(self, refusal: Refusal) -> None:
        """Have the server fail with a refusal."""
        self.kept = b""
        if self.state == FAILED:
            self._show(refusing.frame(refusal))
            return
        answer = await self._link.ask(refusing.failing(refusal))
        self.note(answer)
        said = answer.error is not None and answer.error.code == refusing.CODE
        own = refusing.without_context(answer.error_frame) if said else refusing.frame(refusal)
        self._show(own)
