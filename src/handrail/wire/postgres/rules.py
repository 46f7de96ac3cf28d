"""The rules of one guarded run, shared by all its sessions: what may begin, what may take effect.

Rules:
- Nothing here reads from or writes to a connection.
- What the rehearsal did without a transaction block may be done so again; nothing else may.
- A run that was stopped stays stopped, on every connection.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from handrail.plans.effect import Effect
from handrail.plans.holding import Limits
from handrail.ports import Asks
from handrail.wire.ledger import Key, Ledger, Refusal
from handrail.wire.postgres import classify
from handrail.wire.postgres.statement import Statement

# Given a conninfo that leads into an open transaction: all that is not rows, of the run so far.
Look = Callable[[str], tuple[Effect, ...]]

# It takes effect as it runs, and a rollback does not take it back.
_SETS_BACK = re.compile(r'\b(setval"?|U&"[^"]*")\s*\(', re.IGNORECASE)
_WRITES = frozenset({"write", "copy-in", "procedure", "alone", "two-phase", "unknown"})


class PlainTables(Protocol):
    """The tables whose command tags are provably all that a plain statement does."""

    @property
    def reads_hold(self) -> bool:
        """Whether nothing that a read-only transaction does takes effect."""

    def name(self, table: tuple[str, str]) -> str | None:
        """Return how effects spell a table as a statement names it; None where it is not plain."""


class Rules:
    """What every session of a run is held to.

    Args:
        ledger: of the run.
        look: for what is not rows; None where there was no observation to compare with.
        database: the one that was observed; others have their names before those of tables.
        read_plain: reads which tables are plain; None where that cannot be said.
        asks: whom a statement that the rehearsal did not have waits for.
    """

    def __init__(
        self,
        ledger: Ledger,
        look: Look | None,
        database: str,
        read_plain: Callable[[], PlainTables | None] = lambda: None,
        asks: Asks | None = None,
    ) -> None:
        self.ledger = ledger
        self.limits: Limits = ledger.limits
        self.look = look
        self.database = database
        self._read_plain = read_plain
        self._asks = asks
        self.is_over = False
        self._plain: PlainTables | None = read_plain()
        # Else what reads is gated too.
        self.reads_hold = bool(self._plain and self._plain.reads_hold)
        self._reading = 0
        self._classifier = classify.Classifier()
        self._unheld = frozenset(self.limits.unheld)
        self._trace = frozenset(self.limits.trace)
        self._allowed: set[str] = set()  # by somebody's word
        self._asking: dict[str, asyncio.Future[bool]] = {}

    # --- statements ----------------------------------------------------------------------------

    def classify(self, sql: bytes, statuses: Mapping[str, str]) -> tuple[Statement, ...]:
        """Return the statements of what a client sent, read as the server's settings say."""
        return self._classifier.of(
            sql,
            statuses.get("client_encoding", "UTF8"),
            standard_strings=statuses.get("standard_conforming_strings", "on") == "on",
        )

    def reading(self, sql: bytes, statuses: Mapping[str, str]) -> str | None:
        """Return the template of one statement that reads; None for everything else."""
        return self._classifier.reading(
            sql,
            statuses.get("client_encoding", "UTF8"),
            standard_strings=statuses.get("standard_conforming_strings", "on") == "on",
        )

    @staticmethod
    def codec(encoding: str) -> str:
        """Return Python's name of one of PostgreSQL's encodings."""
        return classify.codec(encoding)

    def knows(self, statements: Sequence[Statement]) -> bool:
        """Whether the rehearsal had all of them, or there was none to compare with.

        What somebody has let begin counts as known from then on; what is being asked about not.
        """
        known = self._trace
        return not known or all(
            s.template in known or s.template in self._allowed for s in statements
        )

    async def admit(self, statement: Statement, *, locks_held: bool) -> Refusal | None:
        """Say why a statement may not begin; None when it may, or once somebody let it."""
        self.ledger.follow(statement.template)
        if self.ledger.stop is not None:
            return self.ledger.stopped()
        kind = statement.inner.kind if statement.inner else statement.kind
        if kind == "forbidden":
            why = (statement.inner or statement).why
            self.ledger.tell("bypass", f"{why}: {statement.template[:200]}")
            return self.ledger.refuse(f"{why}, which no guard can hold", statement.template)
        if self.limits.mode == "read-only" and (kind in _WRITES or statement.reads_only is False):
            return self.ledger.refuse("write, and may only read", statement.template)
        if kind == "two-phase":
            return self.unheld(statement)
        if _SETS_BACK.search(statement.template) and not self._may_set_back(statement):
            return self.ledger.refuse(
                "set a sequence, which nothing takes back", statement.template
            )
        return await self._diverge(statement, locks_held=locks_held)

    def _may_set_back(self, statement: Statement) -> bool:
        """Whether the rehearsal set a sequence so too, or the budget has one altered."""
        if self.limits.mode != "hold" or statement.template in self._trace:
            return True
        budget = self.limits.budget
        allowed = budget.allowances if budget else ()
        return any((a.verb, a.kind) == ("alter", "sequence") for a in allowed)

    def unheld(self, statement: Statement) -> Refusal | None:
        """Say why something may not take effect as it runs; None where it may."""
        if self.limits.mode == "measure" or statement.template in self._unheld:
            return None
        return self.ledger.refuse(
            "run what takes effect at once and cannot be held", statement.template
        )

    async def _diverge(self, statement: Statement, *, locks_held: bool) -> Refusal | None:
        """Decide about a statement that the rehearsal may not have had."""
        if self.limits.divergence == "report" or self.knows([statement]):
            return None
        asks = self._asks if self.limits.divergence == "hold" else None
        if asks and await self._is_let(asks, statement.template, locks_held=locks_held):
            return self.ledger.stopped()
        return self.ledger.refuse("run what the rehearsal did not", statement.template)

    async def _is_let(self, asks: Asks, template: str, *, locks_held: bool) -> bool:
        """Wait for somebody's word about a template: one question, whoever else sends it too."""
        clock = asyncio.get_running_loop().time
        latest_s = clock() + self.limits.hold_s if locks_held else math.inf
        waiting = self._asking.get(template)
        if waiting is None:
            is_over = partial(self._is_done, lambda: clock() > latest_s)
            waiting = asyncio.ensure_future(
                asyncio.to_thread(asks.ask, template, "not in the rehearsal", is_over)
            )
            self._asking[template] = waiting
            waiting.add_done_callback(partial(self._answered, template))
        # Whoever is cancelled, or may not wait any longer, leaves the question to the others.
        await asyncio.wait({waiting}, timeout=self.limits.hold_s if locks_held else None)
        return template in self._allowed

    def _is_done(self, is_late: Callable[[], bool]) -> bool:
        return self.is_over or self.ledger.stop is not None or is_late()

    def _answered(self, template: str, waiting: asyncio.Future[bool]) -> None:
        del self._asking[template]
        if not waiting.cancelled() and waiting.exception() is None and waiting.result():
            self._allowed.add(template)

    # --- amounts -------------------------------------------------------------------------------

    def is_plain(self, statement: Statement) -> bool:
        """Whether a statement's tag is provably all that it did."""
        return statement.plain and bool(self.name_of(statement))

    def name_of(self, statement: Statement) -> str:
        """Return how effects spell a plain statement's table; empty where it is not plain."""
        plain = self._plain
        if plain is None or statement.table is None:
            return ""
        return plain.name(statement.table) or ""

    @property
    def ends_may_write(self) -> bool:
        """Whether what COMMIT itself still reads may write large objects, as far as is known."""
        known = self._plain is not None or not self._reading
        return self.limits.mode != "measure" and known and not self.reads_hold

    def forget_plain(self) -> None:
        """Something was declared anew: which tables are plain has to be read again."""
        self._plain, self.reads_hold = None, False
        self._reading += 1

    def read_plain(self) -> None:
        """Read again which tables are plain, after what was declared anew took effect."""
        asyncio.get_running_loop().run_in_executor(None, self._read_again, self._reading)

    def _read_again(self, reading: int) -> None:
        found = self._read_plain()
        if reading == self._reading:  # else something was declared meanwhile
            self._plain, self.reads_hold = found, bool(found and found.reads_hold)

    def reserve(
        self,
        holder: object,
        amounts: Mapping[Key, int],
        template: str,
        shapes: Sequence[Effect] | None,
        database: str = "",
    ) -> Refusal | None:
        """Set aside what a transaction is about to let take effect; say why it may not."""
        if database and database != self.database:
            amounts = {(v, k, f"{database}: {n}"): rows for (v, k, n), rows in amounts.items()}
        return self.ledger.reserve(holder, amounts, statement=template, shapes=shapes)

    def unseen(self, kind: str, name: str, detail: str) -> Effect:
        """Return the effect that nobody can say what was done."""
        return Effect(self.ledger.resource, "unknown", kind, name, detail=detail)

    def foreign(self, names: Sequence[str]) -> tuple[Effect, ...]:
        """Return what writing to foreign tables is: nobody counts it here."""
        why = "its rows are on another server"
        return tuple(self.unseen("foreign table", name, why) for name in names)
