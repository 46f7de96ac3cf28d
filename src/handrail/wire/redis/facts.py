"""What is known of keys inside a transaction that has not run yet.

Rules:
- Answers are what the server said before the transaction; what an earlier command of it changes is
  laid over them.
- What an earlier command hides is guessed, and said to be a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from handrail.wire.redis.members import HASH, LIST, SET, SORTED
from handrail.wire.redis.plan import (
    DELETE,
    INSERT,
    KEY,
    MEMBER,
    NONE,
    Change,
    Look,
    Place,
    Plan,
    number,
)
from handrail.wire.redis.replies import ErrorReply, Reply
from handrail.wire.redis.streams import STREAM
from handrail.wire.redis.strings import STRING

_SIZES = frozenset({b"LLEN", b"SCARD", b"HLEN", b"ZCARD", b"XLEN"})
_HAS = frozenset({b"SISMEMBER", b"HEXISTS", b"ZSCORE"})
_GONE_MS, _FOR_EVER = -2, -1
_TYPES = {
    **dict.fromkeys((b"LLEN", b"LPOS"), LIST),
    **dict.fromkeys((b"SCARD", b"SISMEMBER"), SET),
    **dict.fromkeys((b"HLEN", b"HEXISTS"), HASH),
    **dict.fromkeys((b"ZCARD", b"ZSCORE", b"ZCOUNT", b"ZLEXCOUNT"), SORTED),
    **dict.fromkeys((b"XLEN", b"XRANGE"), STREAM),
    b"STRLEN": STRING,
}
_WRONG_TYPE = ErrorReply(b"WRONGTYPE")


@dataclass
class Facts:
    """What the commands of one transaction have changed so far."""

    _type: dict[Place, bytes] = field(default_factory=dict)
    _grown: dict[Place, int] = field(default_factory=dict)
    _emptied: set[Place] = field(default_factory=set)
    _members: dict[tuple[Place, bytes], bool] = field(default_factory=dict)
    _obscure: set[Place] = field(default_factory=set)
    _hidden: set[Place] = field(default_factory=set)
    _touched: set[Place] = field(default_factory=set)
    _is_certain: bool = True

    def changes(
        self, plan: Plan, database: int, answers: Sequence[Reply]
    ) -> tuple[list[Change], bool]:
        """Return what a command would do after those before it, and whether that is certain.

        What it does is laid over what was known before.
        """
        self._is_certain = not any(place in self._hidden for place in _places(plan, database))
        sources = [(database, key) for key in plan.sources]
        if any(source in self._touched for source in sources):
            self._is_certain = False
        seen = [
            self._answer((database, look[1]), look, answer) if len(look) > 1 else answer
            for look, answer in zip(plan.looks, answers, strict=True)
        ]
        found = plan.changes(seen)
        self._lay(plan, database, found)
        return found, self._is_certain

    def _answer(self, place: Place, look: Look, answer: Reply) -> Reply:
        """Return what a look would find now."""
        if place not in self._touched:
            return answer
        known, command = self._type.get(place), look[0]
        if command in {b"TYPE", b"EXISTS", b"PTTL"}:
            return answer if known is None else _of_key(command, known)
        if known not in {None, NONE} and _TYPES.get(command, known) != known:
            return _WRONG_TYPE
        if known is None and isinstance(answer, ErrorReply):
            return answer
        return self._of_members(place, look, answer)

    def _of_members(self, place: Place, look: Look, answer: Reply) -> Reply:
        if look[0] in _HAS:
            has = self._members.get((place, look[2]))
            if has is not None:
                return int(has)
            self._is_certain = self._is_certain and place not in self._obscure
            return 0 if place in self._emptied else answer
        size = 0 if place in self._emptied else number(answer)
        grown = self._grown.get(place, 0)
        if look[0] in _SIZES:
            return max(size + grown, 0)
        # A range or a search: nobody knows how many of those that came or went are in it.
        self._is_certain = self._is_certain and not grown and place not in self._obscure
        return max(size + min(grown, 0), 0)

    def _lay(self, plan: Plan, database: int, changes: Sequence[Change]) -> None:
        if not changes:
            return
        removed = {place for verb, kind, place, _ in changes if (verb, kind) == (DELETE, KEY)}
        made = {place for verb, kind, place, _ in changes if (verb, kind) == (INSERT, KEY)}
        for place in removed | made:
            self._type[place] = plan.makes if place in made else NONE
            self._forget(place)
        for verb, kind, place, amount in changes:
            self._touched.add(place)
            if kind == MEMBER and verb in {INSERT, DELETE} and place not in removed - made:
                sign = 1 if verb == INSERT else -1
                self._grown[place] = self._grown.get(place, 0) + sign * amount
        first = (database, plan.keys[0]) if plan.keys else (database, b"")
        self._members.update({(first, member): True for member in plan.adds})
        self._members.update({(first, member): False for member in plan.removes})
        self._obscure.update(plan.obscures)
        self._hidden.update(place for place in plan.hides if place in made)

    def _forget(self, place: Place) -> None:
        """Begin with a key that is empty, or gone."""
        self._emptied.add(place)
        self._grown[place] = 0
        self._obscure.discard(place)
        self._hidden.discard(place)
        for key in [key for key in self._members if key[0] == place]:
            del self._members[key]


def _of_key(command: bytes, known: bytes) -> Reply:
    if command == b"TYPE":
        return known
    if command == b"EXISTS":
        return int(known != NONE)
    return _GONE_MS if known == NONE else _FOR_EVER


def _places(plan: Plan, database: int) -> list[Place]:
    return [(database, key) for key in plan.keys]
