"""Counts what commands did that are under way: their looks, their replies, the ledger.

Rules:
- What is set aside in the ledger stays so until the last reply has come.
- A command that the server refused did nothing; a script that failed may have done everything.
- Where a reply never comes, what was set aside counts as done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from handrail.wire.redis.judging import Judged
from handrail.wire.redis.pairing import Changed, Entry, Plain, Silent, Told
from handrail.wire.redis.plan import UPDATE, Change, Plan, amounts_of, is_wanted_whole
from handrail.wire.redis.replies import ErrorReply, Reply
from handrail.wire.redis.requests import Request, encode

if TYPE_CHECKING:
    from handrail.wire.ledger import Key, Ledger

Parts = list[bytes | Request]
_ANSWERS = (b"WRONGTYPE", b"ERR no such key")
_NIL = (b"$-1", b"*-1", b"_")
# A script that did not begin.
_NEVER_BEGAN = (
    b"-NOSCRIPT",
    b"-NOPERM",
    b"-ERR wrong number",
    b"-READONLY",
    b"-OOM",
    b"-MASTERDOWN",
)


class Counted:
    """Commands that are under way together, as one holder of the ledger.

    Args:
        ledger: counts them in the end.
        in_flight: has this one as long as it is under way.
    """

    def __init__(self, ledger: Ledger, in_flight: set[Counted]) -> None:
        self._ledger = ledger
        self._in_flight = in_flight
        self._awaited = 0
        self._amounts: dict[Key, int] = {}
        self._is_over = False
        self._exceeds = False

    def expected(
        self, judged: Judged, request: Request, fixed: Sequence[Change] | None = None
    ) -> tuple[list[Entry], Parts]:
        """Return what to expect and what to send of one command: looks before, it, looks after.

        Args:
            judged: the command.
            request: its bytes.
            fixed: what it would do, where that is known already.
        """
        self._awaited += 1
        plan = judged.plan
        if plan is None or fixed is not None:
            item = _Item(self, judged, lambda _: list(fixed or ()), 0)
            return [Told(item.acted)], [request]
        item = _Item(self, judged, plan.changes, len(plan.looks) + len(plan.after))
        before: list[Entry] = [_look(item, look) for look in plan.looks]
        act = Told(item.acted, whole=plan.blocks, blocks=plan.blocks)
        after: list[Entry] = [_look(item, look) for look in plan.after]
        parts: Parts = []
        if plan.looks:
            parts.append(b"".join(encode(*look) for look in plan.looks))
        parts.append(request)
        if plan.after:
            parts.append(b"".join(encode(*look) for look in plan.after))
        return [*before, act, *after], parts

    @staticmethod
    def plain(request: Request, error: str) -> tuple[list[Entry], Parts]:
        """Return the same of a command that is not counted, or only stands for one in error."""
        line = b"-%s\r\n" % error.encode("utf-8", "backslashreplace")
        return [Changed(lambda _: line) if error else Plain(1)], [request]

    def compare_after(self) -> None:
        """What it did is compared with the budget when it has run: it could not be before."""
        self._exceeds = True

    def done(self, changes: Sequence[Change], *, exceeds: bool) -> None:
        """Take what one command did; the last one settles all of them."""
        if self._is_over:
            return
        self._awaited -= 1
        self._exceeds = self._exceeds or exceeds
        for key, number in amounts_of(changes).items():
            self._amounts[key] = self._amounts.get(key, 0) + number
        if self._awaited:
            return
        if self._exceeds:
            # Nobody knew before what it would do: now it is compared with the budget.
            self._ledger.reserve(self, self._amounts)
        self._ledger.settle(self, kept=True, amounts=self._amounts)
        self._finish()

    def never(self) -> None:
        """Nothing of it was done."""
        if not self._is_over:
            self._ledger.settle(self, kept=False)
            self._finish()

    def lost(self) -> None:
        """Nobody knows what of it was done: all that was set aside."""
        if not self._is_over:
            self._ledger.settle(self, kept=True)
            self._finish()

    def _finish(self) -> None:
        self._is_over = True
        self._in_flight.discard(self)


class _Item:
    """One command that is under way."""

    __slots__ = ("_answers", "_count", "_counted", "_judged", "_looks", "_reply")

    def __init__(
        self,
        counted: Counted,
        judged: Judged,
        count: Callable[[Sequence[Reply]], list[Change]],
        looks: int,
    ) -> None:
        self._counted = counted
        self._judged = judged
        self._count = count
        self._looks = looks
        self._answers: list[Reply] = []
        self._reply: bytes | None = None

    def looked(self, answer: Reply) -> None:
        self._answers.append(answer)
        self._check()

    def acted(self, reply: bytes) -> None:
        self._reply = reply
        self._check()

    def _check(self) -> None:
        if self._reply is None or len(self._answers) < self._looks:
            return
        changes = self._changes(self._reply)
        self._counted.done(changes, exceeds=self._judged.is_unheld)

    def _changes(self, reply: bytes) -> list[Change]:
        plan = self._judged.plan
        if reply.startswith(b"-") and (
            not self._judged.is_unheld or reply.startswith(_NEVER_BEGAN)
        ):
            return []
        if plan is not None and any(is_blind(answer) for answer in self._answers):
            return _most(plan, self._judged.database)
        if plan is not None and plan.needs_yes and reply == b":0":
            return []
        changes = self._count(self._answers)
        if plan is not None and plan.blocks:
            return _of_reply(changes, reply)
        return changes


def _look(item: _Item, look: tuple[bytes, ...]) -> Silent:
    return Silent(item.looked, whole=is_wanted_whole(look))


def is_blind(answer: Reply) -> bool:
    """Whether the guard may not look there; that a key is none, or another one, is an answer."""
    return isinstance(answer, ErrorReply) and not answer.text.startswith(_ANSWERS)


def _most(plan: Plan, database: int) -> list[Change]:
    if plan.worst is not None:
        return list(plan.worst)
    return [(UPDATE, "key", (database, key), 1) for key in plan.keys]


def _of_reply(changes: list[Change], reply: bytes) -> list[Change]:
    """Return the changes of a command that waited: of the key that its reply names."""
    if reply.startswith(_NIL):
        return []
    if not reply.startswith(b"*"):
        return changes
    lines = reply.split(b"\r\n", 2)
    if len(lines) < 3 or not lines[1].startswith(b"$"):  # noqa: PLR2004  header, length, rest
        return changes
    key = lines[2][: int(lines[1][1:])]
    named = [change for change in changes if change[2][1] == key]
    return named or changes
