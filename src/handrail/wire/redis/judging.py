"""Says of each command what it would do, and whether the run may: rules, the trace, the ledger.

Rules:
- The trace has a command's name and the patterns of its keys, never a value.
- A command that nobody can judge stops the run; one that the server would refuse does not.
- After the first refusal nothing that writes is let through.
- Who asks for what somebody is being asked about waits for the same answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha1

from handrail.ports import Asks
from handrail.wire.ledger import Ledger, Refusal
from handrail.wire.redis.catalog import Catalog, Entry, asked_of, scripted_keys
from handrail.wire.redis.keys import by_looking
from handrail.wire.redis.plan import Plan, UnjudgedError, blank, name_of
from handrail.wire.redis.requests import Cut
from handrail.wire.redis.usual import Usual

_MOST_NAMES = 12
_MOST_SEEN = 100_000
_MOST_DATABASES = 16
_SHA_DIGITS = 40
# The others are refused whoever is asked, or noted by nobody.
_ASKED = frozenset({"read", "publish", "write", "flush"})
_WRITES = _ASKED - {"read"}
REHEARSE = "rehearse again, if that is what you meant"


@dataclass(frozen=True, slots=True)
class Judged:
    """A command that writes, and what it would do.

    Attributes:
        entry: what is known of it.
        plan: what it would do; None for a flush, which is counted by a scan.
        template: its name and its keys' patterns.
        database: in which it runs.
    """

    entry: Entry
    plan: Plan | None
    template: str
    database: int

    @property
    def is_unheld(self) -> bool:
        """Whether nobody knows what it does before it has run."""
        return self.entry.kind == "script"


class Judge:
    """What the sessions of one guard share.

    Args:
        catalog: the server's commands.
        ledger: of the run.
        databases: how many the server has.
        asks: whom a command that the rehearsal did not have waits for.
    """

    def __init__(
        self, catalog: Catalog, ledger: Ledger, databases: int, asks: Asks | None = None
    ) -> None:
        self.catalog = catalog
        self.ledger = ledger
        self.databases = databases
        self.mode = ledger.limits.mode
        self._usual: dict[int, Usual] = {}
        self._seen: set[tuple[bytes, int, bytes]] = set()
        self._allowed = frozenset(ledger.limits.trace)
        waits = ledger.limits.divergence == "hold" and self.mode != "observe" and self._allowed
        self._asks = asks if waits else None
        self._asking: dict[str, asyncio.Future[bool]] = {}
        self._answers: dict[str, bool] = {}
        self.is_over = False

    # --- the trace -----------------------------------------------------------------------------

    def usual(self, database: int) -> Usual:
        """Return what came before in a database, and passes."""
        found = self._usual.get(database)
        if found is None:
            if len(self._usual) >= _MOST_DATABASES:
                self._usual.clear()
            found = self._usual[database] = Usual()
        return found

    def follow(self, entry: Entry, words: Sequence[bytes], database: int) -> Refusal | None:
        """Note a command that only reads; say why it may not."""
        if entry.kind == "pass":
            return None
        first = entry.first
        if first and entry.last == first and len(words) > first:
            seen = (words[0], database, blank(words[first]))
            if seen in self._seen:
                return None
            refusal = self.follow_template(self.template(entry, words, database))
            if refusal is None and len(self._seen) < _MOST_SEEN:
                self._seen.add(seen)
            return refusal
        return self.follow_template(self.template(entry, words, database))

    def follow_template(self, template: str) -> Refusal | None:
        """Note a command by its template; say why it may not."""
        known = self.ledger.follow(template) or self.ledger.limits.divergence == "report"
        if self._answers.get(template, known):
            return None
        return self.ledger.refuse(f"run {template}, which the rehearsal did not", template)

    def template(self, entry: Entry, words: Sequence[bytes], database: int) -> str:
        """Return a command's name, and the patterns of its keys."""
        found = entry.keys(words) if entry.kind != "unknown" else ()
        names = sorted({name_of((database, key)) for key in found[:1000]})
        if entry.name in {"EVAL", "EVALSHA"} and len(words) > 1:
            names.insert(0, _sha(entry, words[1]))
        elif entry.name == "FCALL" and len(words) > 1:
            names.insert(0, words[1].decode("utf-8", "backslashreplace"))
        more = [f"and {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
        name = "EVAL" if entry.name == "EVALSHA" else entry.name
        shown = name or words[0][:40].decode("utf-8", "backslashreplace").upper()
        return " ".join([shown, *names[:_MOST_NAMES], *more])

    # --- somebody's word -----------------------------------------------------------------------

    def in_question(self, entry: Entry, words: Sequence[bytes], database: int) -> str:
        """Return the template of a command that waits for somebody's word; empty for all others."""
        if self._asks is None or self.ledger.stop is not None:
            return ""
        if entry.kind not in _ASKED and entry.name != "WATCH":
            return ""
        if not entry.accepts(len(words)) or (self.mode == "read-only" and entry.kind in _WRITES):
            return ""
        template = self.template(entry, words, database)
        return "" if template in self._allowed or template in self._answers else template

    async def ask(self, template: str) -> None:
        """Wait until somebody has said whether a command may begin: `follow` knows it then."""
        asks, waiting = self._asks, self._asking.get(template)
        if waiting is None and asks is not None:
            self.ledger.follow(template)
            waiting = asyncio.ensure_future(
                asyncio.to_thread(asks.ask, template, "not in the rehearsal", self._is_done)
            )
            self._asking[template] = waiting
            waiting.add_done_callback(partial(self._answered, template))
        if waiting is not None:
            # Whoever is cancelled meanwhile leaves the question to the others.
            await asyncio.wait({waiting})

    def _is_done(self) -> bool:
        return self.is_over or self.ledger.stop is not None

    def _answered(self, template: str, waiting: asyncio.Future[bool]) -> None:
        failed = waiting.cancelled() or waiting.exception() is not None
        self._answers[template] = not failed and waiting.result()
        del self._asking[template]

    # --- what would be done --------------------------------------------------------------------

    def judge(
        self, entry: Entry, words: Sequence[bytes], database: int, *, apart: bool = False
    ) -> Judged | Refusal:
        """Return what a command would do, or why it may not.

        Raises:
            MalformedError: the server would refuse it, with that text.
        """
        template = self.template(entry, words, database)
        refusal = self._refuse_kind(entry, template) or self.follow_template(template)
        if refusal is not None:
            return refusal
        try:
            return Judged(entry, self._plan(entry, words, database, apart), template, database)
        except UnjudgedError as error:
            return self.ledger.refuse(f"run {template}: {error}", template)

    def was_rehearsed(self, judged: Judged) -> bool:
        """Whether the rehearsal ran a command of the same template."""
        return judged.template in self._allowed

    def _refuse_kind(self, entry: Entry, template: str) -> Refusal | None:
        if entry.kind == "admin":
            self.ledger.tell("bypass", f"{template} was refused")
            what = f"run {template}, which changes the server itself"
            return self.ledger.refuse(
                what, template, "run it by hand, with whoever runs the server"
            )
        if entry.kind == "unknown":
            what = f"run {template}, of which nobody knows what it does"
            return self.ledger.refuse(what, template, "use commands of Redis itself")
        if self.mode == "read-only":
            return self.ledger.refuse(f"run {template}; this run may only read", template)
        stopped = self.ledger.stopped()
        if stopped is not None or entry.kind != "script" or self.mode != "hold":
            return stopped
        if template in self._allowed:
            return None
        what = f"run {template}, a script that the rehearsal did not run"
        return self.ledger.refuse(what, template)

    def _plan(
        self,
        entry: Entry,
        words: Sequence[bytes],
        database: int,
        apart: bool,  # noqa: FBT001
    ) -> Plan | None:
        if entry.kind == "flush":
            return None
        asked = asked_of(entry, words, database, apart=apart)
        if entry.rule is None:
            plan = by_looking(asked, scripted_keys(entry, words))
        else:
            try:
                plan = entry.rule(asked)
            except IndexError as error:
                raise UnjudgedError("it has too few arguments") from error
        long = any(isinstance(word, Cut) for look in (*plan.looks, plan.keys) for word in look)
        if long:
            raise UnjudgedError("a key or a member of it is too long to look for")
        return plan


def _sha(entry: Entry, script: bytes) -> str:
    if entry.name == "EVAL":
        return sha1(script, usedforsecurity=False).hexdigest()
    return script[:_SHA_DIGITS].decode("ascii", "backslashreplace").lower()


def told(refusal: Refusal) -> str:
    """Return a refusal as one line of an error reply, without its first word."""
    what = refusal.message.removeprefix("handrail: ")
    return f"{what}; {refusal.detail}; {refusal.hint}".replace("\r", " ").replace("\n", " ")
