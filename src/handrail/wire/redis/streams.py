"""What commands on streams do to keys and entries.

Rules:
- An approximate trim (`~`) may leave more than it was asked to: it is counted as if it were exact.
- A stream without entries is still a key.
- Groups, consumers and what is pending are the key's content: an `update`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from handrail.wire.redis.plan import (
    DELETE,
    INSERT,
    KEY,
    MEMBER,
    NONE,
    SYNTAX,
    UPDATE,
    Asked,
    Change,
    Look,
    MalformedError,
    Plan,
    Rule,
    distinct,
    is_there,
    number,
    touched,
    touched_worst,
    whole,
)
from handrail.wire.redis.replies import Reply

STREAM = b"stream"


@dataclass(frozen=True, slots=True)
class _Trim:
    """The trim of XADD or XTRIM: to so many entries, or to those from an id on."""

    most: int | None = None
    least_id: bytes = b""

    def look(self, key: bytes) -> tuple[Look, ...]:
        """Return the look that counts what is below the least id."""
        if self.most is not None or not self.least_id:
            return ()
        return ((b"XRANGE", key, b"-", b"(" + _full(self.least_id)),)

    def taken(self, size: int, below: int) -> int:
        """Return how many of `size` entries go."""
        return max(size - self.most, 0) if self.most is not None else below


def _full(entry_id: bytes) -> bytes:
    """Return an id as a command means it: `5` is `5-0`, but in a range all of that millisecond."""
    return entry_id if b"-" in entry_id else entry_id + b"-0"


def _read_trim(words: Sequence[bytes], at: int) -> tuple[_Trim, int]:
    """Return the trim at `at`, and where the words after it begin."""
    by = words[at].upper()
    at += 1
    if words[at : at + 1] in ((b"=",), (b"~",)):
        at += 1
    if at >= len(words):
        raise MalformedError(SYNTAX)
    trim = _Trim(whole(words[at])) if by == b"MAXLEN" else _Trim(None, words[at])
    at += 1
    if at < len(words) and words[at].upper() == b"LIMIT":
        at += 2
    return trim, at


def _add(asked: Asked) -> Plan:
    key, words = asked.words[0], asked.words
    place, at, trim, only_old = asked.at(key), 1, _Trim(), False
    while at < len(words):
        option = words[at].upper()
        if option == b"NOMKSTREAM":
            only_old, at = True, at + 1
        elif option in {b"MAXLEN", b"MINID"}:
            trim, at = _read_trim(words, at)
        else:
            break

    def count(answers: Sequence[Reply]) -> list[Change]:
        existed = is_there(answers[0])
        if only_old and not existed:
            return []
        below = number(answers[2]) if len(answers) > 2 else 0  # noqa: PLR2004  the third look
        taken = trim.taken(number(answers[1]) + 1, below)
        found = [*touched(place, existed=existed), (INSERT, MEMBER, place, 1)]
        return [*found, (DELETE, MEMBER, place, taken)]

    looks: tuple[Look, ...] = ((b"EXISTS", key), (b"XLEN", key), *trim.look(key))
    worst = (*touched_worst(place), (INSERT, MEMBER, place, 1))
    return Plan((key,), looks, count, worst if trim == _Trim() else None, STREAM)


def _trim(asked: Asked) -> Plan:
    key = asked.words[0]
    place = asked.at(key)
    if asked.words[1].upper() not in {b"MAXLEN", b"MINID"}:
        raise MalformedError(SYNTAX)
    trim, _ = _read_trim(asked.words, 1)

    def count(answers: Sequence[Reply]) -> list[Change]:
        taken = trim.taken(number(answers[0]), number(answers[1]) if len(answers) > 1 else 0)
        return [(DELETE, MEMBER, place, taken), (UPDATE, KEY, place, 1)] if taken else []

    return Plan((key,), ((b"XLEN", key), *trim.look(key)), count, None, STREAM)


def _delete(asked: Asked) -> Plan:
    key = asked.words[0]
    ids = distinct(_full(word) for word in asked.words[1:])
    place = asked.at(key)

    def count(answers: Sequence[Reply]) -> list[Change]:
        taken = sum(number(answer) for answer in answers)
        return [(DELETE, MEMBER, place, taken), (UPDATE, KEY, place, 1)] if taken else []

    worst = ((DELETE, MEMBER, place, len(ids)), (UPDATE, KEY, place, 1))
    return Plan((key,), tuple((b"XRANGE", key, one, one) for one in ids), count, worst, STREAM)


def _change(keys: Sequence[bytes], asked: Asked, *, blocks: bool = False) -> Plan:
    """Plan what changes the content of streams that are there."""
    places = [asked.at(key) for key in keys]

    def count(answers: Sequence[Reply]) -> list[Change]:
        if any(answer not in {STREAM, NONE} for answer in answers):
            return []
        return [
            (UPDATE, KEY, place, 1)
            for place, answer in zip(places, answers, strict=True)
            if is_there(answer)
        ]

    worst = tuple((UPDATE, KEY, place, 1) for place in places)
    looks = tuple((b"TYPE", key) for key in keys)
    return Plan(tuple(keys), looks, count, worst, STREAM, blocks=blocks)


def _change_one(asked: Asked) -> Plan:
    return _change(asked.words[:1], asked)


def _group(asked: Asked) -> Plan:
    """Plan XGROUP: its first word is what it does."""
    key = asked.words[1]
    place = asked.at(key)
    if asked.words[0].upper() != b"CREATE":
        return _change((key,), asked)
    makes = b"MKSTREAM" in asked.upper(4)

    def count(answers: Sequence[Reply]) -> list[Change]:
        if answers[0] not in {STREAM, NONE} or (answers[0] == NONE and not makes):
            return []
        if asked.words[2] in groups_of(answers[1]):
            return []
        return touched(place, existed=is_there(answers[0]))

    looks: tuple[Look, ...] = ((b"TYPE", key), (b"XINFO", b"GROUPS", key))
    return Plan((key,), looks, count, touched_worst(place), STREAM)


def _read_group(asked: Asked) -> Plan:
    options = asked.upper(0)
    if b"STREAMS" not in options[3:]:
        raise MalformedError(SYNTAX)
    start = options.index(b"STREAMS", 3) + 1
    rest = asked.words[start:]
    if not rest or len(rest) % 2:
        raise MalformedError(SYNTAX)
    keys, group = rest[: len(rest) // 2], asked.words[1]
    plan = _change(keys, asked, blocks=b"BLOCK" in options[3:start])

    def count(answers: Sequence[Reply]) -> list[Change]:
        types, groups = answers[: len(keys)], answers[len(keys) :]
        return plan.count(types) if all(group in groups_of(one) for one in groups) else []

    looks = (*plan.looks, *((b"XINFO", b"GROUPS", key) for key in keys))
    return replace(plan, looks=looks, count=count)


def groups_of(answer: Reply) -> set[bytes]:
    """Return the names of a stream's groups, as XINFO GROUPS tells them."""
    found: set[bytes] = set()
    for group in answer if isinstance(answer, list) else []:
        if isinstance(group, list) and len(group) > 1 and isinstance(group[1], bytes):
            found.add(group[1])
    return found


RULES: dict[str, Rule] = {
    "XADD": _add,
    "XTRIM": _trim,
    "XDEL": _delete,
    "XACK": _change_one,
    "XCLAIM": _change_one,
    "XAUTOCLAIM": _change_one,
    "XSETID": _change_one,
    "XGROUP": _group,
    "XREADGROUP": _read_group,
}
