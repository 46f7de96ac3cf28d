"""What is known of keys inside a transaction that has not run yet.

Rules:
- Answers are what the server said before the transaction; what an earlier command of it changes is
  laid over them.
- Where a key's content is not known any more, there is no answer: the worst is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
from handrail.wire.redis.replies import Reply

_SIZES = frozenset({b"LLEN", b"SCARD", b"HLEN", b"ZCARD", b"XLEN"})
_HAS = frozenset({b"SISMEMBER", b"HEXISTS", b"ZSCORE"})
_GONE_MS, _FOR_EVER = -2, -1


@dataclass
class Facts:
    """What the commands of one transaction have changed so far."""

    _type: dict[Place, bytes] = field(default_factory=dict)
    _grown: dict[Place, int] = field(default_factory=dict)
    _emptied: set[Place] = field(default_factory=set)
    _members: dict[tuple[Place, bytes], bool] = field(default_factory=dict)
    _obscure: set[Place] = field(default_factory=set)
    _touched: set[Place] = field(default_factory=set)

    def changes(self, plan: Plan, database: int, answers: Sequence[Reply]) -> list[Change] | None:
        """Return what a command would do after those before it, and lay it over them.

        Returns:
            The changes; None where neither answers nor the worst can tell.
        """
        found: list[Change] | None
        if any((database, key) in self._obscure for key in plan.keys):
            found = None if plan.worst is None else list(plan.worst)
        else:
            seen = [
                self._answer((database, look[1]) if len(look) > 1 else None, look, answer)
                for look, answer in zip(plan.looks, answers, strict=True)
            ]
            found = plan.count(seen)
        if found is not None:
            self._lay(plan, database, found)
        return found

    def _answer(  # noqa: PLR0911  a table: one line a look
        self, place: Place | None, look: Look, answer: Reply
    ) -> Reply:
        if place is None or place not in self._touched:
            return answer
        known = self._type.get(place)
        command = look[0]
        if command == b"TYPE":
            return answer if known is None else known
        if command == b"EXISTS":
            return answer if known is None else int(known != NONE)
        if command == b"PTTL":
            return answer if known is None else (_GONE_MS if known == NONE else _FOR_EVER)
        if command in _HAS:
            has = self._members.get((place, look[2]))
            if has is None:
                return 0 if place in self._emptied else answer
            return int(has)
        size = 0 if place in self._emptied else number(answer)
        if command in _SIZES:
            return max(size + self._grown.get(place, 0), 0)
        # A range or a search: what was added may all be in it.
        return size + max(self._grown.get(place, 0), 0)

    def _lay(self, plan: Plan, database: int, changes: Sequence[Change]) -> None:
        self._obscure.update(plan.obscures)
        removed = {place for verb, kind, place, _ in changes if (verb, kind) == (DELETE, KEY)}
        made = {place for verb, kind, place, _ in changes if (verb, kind) == (INSERT, KEY)}
        for place in removed | made:
            self._touched.add(place)
            self._type[place] = plan.makes if place in made else NONE
            self._emptied.add(place)
            self._grown[place] = 0
            for key in [key for key in self._members if key[0] == place]:
                del self._members[key]
        for verb, kind, place, amount in changes:
            self._touched.add(place)
            if kind == MEMBER and verb in {INSERT, DELETE} and place not in removed - made:
                sign = 1 if verb == INSERT else -1
                self._grown[place] = self._grown.get(place, 0) + sign * amount
        if plan.keys and changes:
            first = (database, plan.keys[0])
            self._members.update({(first, member): True for member in plan.adds})
            self._members.update({(first, member): False for member in plan.removes})
