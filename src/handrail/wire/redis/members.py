"""What commands on lists, sets, hashes and sorted sets do to keys and to their members.

Rules:
- A member that is there and is written again is an `update`, though the value may be the same.
- The last member takes its key along: both are counted.
- A range is counted by the server's own counting commands.
"""

from __future__ import annotations

from collections.abc import Sequence

from handrail.wire.redis.plan import (
    INSERT,
    KEY,
    MEMBER,
    SYNTAX,
    UPDATE,
    Asked,
    Change,
    Look,
    MalformedError,
    Place,
    Plan,
    Rule,
    distinct,
    is_there,
    number,
    shrunk,
    shrunk_worst,
    touched,
    touched_worst,
    whole,
)
from handrail.wire.redis.replies import Reply

LIST, SET, HASH, SORTED = b"list", b"set", b"hash", b"zset"
SIZES = {LIST: b"LLEN", SET: b"SCARD", HASH: b"HLEN", SORTED: b"ZCARD"}
_HAS = {SET: b"SISMEMBER", HASH: b"HEXISTS", SORTED: b"ZSCORE"}
_ZADD_FLAGS = frozenset({b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"})
_LEFT_RIGHT, _MIN_MAX = frozenset({b"LEFT", b"RIGHT"}), frozenset({b"MIN", b"MAX"})


# --- adding ------------------------------------------------------------------------------------


def _put(
    asked: Asked,
    kind: bytes,
    members: Sequence[bytes],
    *,
    only_new: bool = False,
    only_old: bool = False,
) -> Plan:
    """Plan the writing of members by name; those of a set are not written twice."""
    key = asked.words[0]
    place, unique = asked.at(key), distinct(members)
    looks: tuple[Look, ...] = ((SIZES[kind], key), *((_HAS[kind], key, m) for m in unique))

    def count(answers: Sequence[Reply]) -> list[Change]:
        old = sum(is_there(answer) for answer in answers[1:])
        made = 0 if only_old else len(unique) - old
        written = 0 if only_new or kind == SET else old
        if not made and not written:
            return []
        found = touched(place, existed=number(answers[0]) > 0)
        return [*found, (INSERT, MEMBER, place, made), (UPDATE, MEMBER, place, written)]

    worst = (
        *touched_worst(place),
        (INSERT, MEMBER, place, 0 if only_old else len(unique)),
        (UPDATE, MEMBER, place, 0 if only_new or kind == SET else len(unique)),
    )
    adds = () if only_old else unique
    return Plan((key,), looks, count, worst, kind, adds=adds)


def _add_to_set(asked: Asked) -> Plan:
    return _put(asked, SET, asked.words[1:])


def _set_fields(asked: Asked) -> Plan:
    if len(asked.words) % 2 == 0:
        text = f"ERR wrong number of arguments for '{asked.name.lower()}' command"
        raise MalformedError(text)
    return _put(asked, HASH, asked.words[1::2], only_new=asked.name == "HSETNX")


def _increase_field(asked: Asked) -> Plan:
    return _put(asked, HASH, asked.words[1:2])


def _increase_score(asked: Asked) -> Plan:
    return _put(asked, SORTED, asked.words[2:3])


def _scored(width: int) -> Rule:
    """Return the rule of ZADD (a score and a member) or GEOADD (two numbers and a member)."""

    def rule(asked: Asked) -> Plan:
        flags: set[bytes] = set()
        at = 1
        while at < len(asked.words) and asked.words[at].upper() in _ZADD_FLAGS:
            flags.add(asked.words[at].upper())
            at += 1
        rest = asked.words[at:]
        if not rest or len(rest) % width:
            raise MalformedError(SYNTAX)
        members = rest[width - 1 :: width]
        only_new, only_old = b"NX" in flags, b"XX" in flags
        return _put(asked, SORTED, members, only_new=only_new, only_old=only_old)

    return rule


def _push(asked: Asked) -> Plan:
    key = asked.words[0]
    place, pushed = asked.at(key), len(asked.words) - 1
    only_old = asked.name.endswith("X")

    def count(answers: Sequence[Reply]) -> list[Change]:
        existed = number(answers[0]) > 0
        if only_old and not existed:
            return []
        return [*touched(place, existed=existed), (INSERT, MEMBER, place, pushed)]

    worst = (*touched_worst(place), (INSERT, MEMBER, place, pushed))
    return Plan((key,), ((b"LLEN", key),), count, worst, LIST)


def _insert_beside(asked: Asked) -> Plan:
    key, side, pivot = asked.words[0], asked.words[1].upper(), asked.words[2]
    if side not in {b"BEFORE", b"AFTER"}:
        raise MalformedError(SYNTAX)
    place = asked.at(key)

    def count(answers: Sequence[Reply]) -> list[Change]:
        if not number(answers[0]):
            return []
        return [(UPDATE, KEY, place, 1), (INSERT, MEMBER, place, 1)]

    worst = ((UPDATE, KEY, place, 1), (INSERT, MEMBER, place, 1))
    return Plan((key,), ((b"LPOS", key, pivot, b"COUNT", b"1"),), count, worst, LIST)


def _set_item(asked: Asked) -> Plan:
    key, index = asked.words[0], whole(asked.words[1])
    place = asked.at(key)
    worst = ((UPDATE, KEY, place, 1), (UPDATE, MEMBER, place, 1))

    def count(answers: Sequence[Reply]) -> list[Change]:
        size = number(answers[0])
        return list(worst) if -size <= index < size else []

    return Plan((key,), ((b"LLEN", key),), count, worst, LIST)


# --- taking ------------------------------------------------------------------------------------


def _remove(kind: bytes) -> Rule:
    """Return the rule of SREM, HDEL, ZREM: members by name."""

    def rule(asked: Asked) -> Plan:
        key, unique = asked.words[0], distinct(asked.words[1:])
        place = asked.at(key)
        looks: tuple[Look, ...] = ((SIZES[kind], key), *((_HAS[kind], key, m) for m in unique))

        def count(answers: Sequence[Reply]) -> list[Change]:
            taken = sum(is_there(answer) for answer in answers[1:])
            return shrunk(place, number(answers[0]), taken)

        worst = shrunk_worst(place, len(unique))
        return Plan((key,), looks, count, worst, kind, removes=unique)

    return rule


def _pop(kind: bytes) -> Rule:
    """Return the rule of LPOP, SPOP, ZPOPMIN and their like: so many of them."""

    def rule(asked: Asked) -> Plan:
        key = asked.words[0]
        wanted = whole(asked.words[1]) if len(asked.words) > 1 else 1
        return take_some(asked, (key,), kind, wanted)

    return rule


def take_some(asked: Asked, keys: Sequence[bytes], kind: bytes, wanted: int) -> Plan:
    """Plan the taking of up to `wanted` members from the first of `keys` that has any."""

    def count(answers: Sequence[Reply]) -> list[Change]:
        for key, answer in zip(keys, answers, strict=True):
            if number(answer):
                return shrunk(asked.at(key), number(answer), min(wanted, number(answer)))
        return []

    worst = tuple(change for key in keys for change in shrunk_worst(asked.at(key), wanted))
    looks = tuple((SIZES[kind], key) for key in keys)
    # Which members go is not known: those of the first key are obscure when more is done to it.
    obscures = tuple(asked.at(key) for key in keys) if kind != LIST else ()
    return Plan(tuple(keys), looks, count, worst, kind, obscures=obscures)


def numbered_keys(words: Sequence[bytes], at: int) -> tuple[tuple[bytes, ...], Sequence[bytes]]:
    """Return the keys that follow their own number at `at`, and the words after them."""
    many = whole(words[at])
    keys = tuple(words[at + 1 : at + 1 + many])
    if many <= 0 or len(keys) < many:
        raise MalformedError(SYNTAX)
    return keys, words[at + 1 + many :]


def pop_first(kind: bytes, start: int = 0) -> Rule:
    """Return the rule of LMPOP and ZMPOP; their blocking forms have the time before."""

    def rule(asked: Asked) -> Plan:
        keys, rest = numbered_keys(asked.words, start)
        options = [word.upper() for word in rest]
        where = _LEFT_RIGHT if kind == LIST else _MIN_MAX
        if not options or options[0] not in where or options[1:2] not in ([], [b"COUNT"]):
            raise MalformedError(SYNTAX)
        wanted = whole(options[2]) if len(options) > 2 else 1  # noqa: PLR2004  COUNT n
        return take_some(asked, keys, kind, wanted)

    return rule


def _trim(asked: Asked) -> Plan:
    key, start, stop = asked.words[0], whole(asked.words[1]), whole(asked.words[2])
    place = asked.at(key)

    def count(answers: Sequence[Reply]) -> list[Change]:
        size = number(answers[0])
        return shrunk(place, size, size - _within(size, start, stop))

    return Plan((key,), ((b"LLEN", key),), count, None, LIST)


def _within(size: int, start: int, stop: int) -> int:
    """Return how many of `size` lie between two indexes, both inside, negative from the end."""
    first = max(start + size if start < 0 else start, 0)
    last = min(stop + size if stop < 0 else stop, size - 1)
    return max(last - first + 1, 0)


def _remove_equal(asked: Asked) -> Plan:
    key, limit, value = asked.words[0], abs(whole(asked.words[1])), asked.words[2]
    place = asked.at(key)

    def count(answers: Sequence[Reply]) -> list[Change]:
        equal = number(answers[1])
        return shrunk(place, number(answers[0]), min(limit, equal) if limit else equal)

    looks: tuple[Look, ...] = ((b"LLEN", key), (b"LPOS", key, value, b"COUNT", b"0"))
    worst = shrunk_worst(place, limit) if limit else None
    return Plan((key,), looks, count, worst, LIST)


def _remove_range(asked: Asked) -> Plan:
    key, low, high = asked.words[0], asked.words[1], asked.words[2]
    place = asked.at(key)
    counting = {"ZREMRANGEBYSCORE": b"ZCOUNT", "ZREMRANGEBYLEX": b"ZLEXCOUNT"}.get(asked.name)
    looks: tuple[Look, ...] = ((b"ZCARD", key),)
    if counting:
        looks = (*looks, (counting, key, low, high))
    start, stop = (0, 0) if counting else (whole(low), whole(high))

    def count(answers: Sequence[Reply]) -> list[Change]:
        size = number(answers[0])
        taken = number(answers[1]) if counting else _within(size, start, stop)
        return shrunk(place, size, taken)

    return Plan((key,), looks, count, None, SORTED, obscures=(place,))


# --- from one to another -----------------------------------------------------------------------


def _rotated(place: Place, size: int) -> list[Change]:
    return [(UPDATE, KEY, place, 1)] if size else []


def move_item(asked: Asked) -> Plan:
    """Plan LMOVE, RPOPLPUSH and their blocking forms."""
    source, target = asked.words[0], asked.words[1]
    here, there = asked.at(source), asked.at(target)
    if source == target:
        return Plan(
            (source,),
            ((b"LLEN", source),),
            lambda answers: _rotated(here, number(answers[0])),
            ((UPDATE, KEY, here, 1),),
            LIST,
        )

    def count(answers: Sequence[Reply]) -> list[Change]:
        size = number(answers[0])
        if not size:
            return []
        made = touched(there, existed=number(answers[1]) > 0)
        return [*shrunk(here, size, 1), *made, (INSERT, MEMBER, there, 1)]

    worst = (*shrunk_worst(here, 1), *touched_worst(there), (INSERT, MEMBER, there, 1))
    return Plan((source, target), ((b"LLEN", source), (b"LLEN", target)), count, worst, LIST)


def _move_member(asked: Asked) -> Plan:
    source, target, member = asked.words[:3]
    here, there = asked.at(source), asked.at(target)
    looks: tuple[Look, ...] = (
        (b"SISMEMBER", source, member),
        (b"SCARD", source),
        (b"SISMEMBER", target, member),
        (b"SCARD", target),
    )

    def count(answers: Sequence[Reply]) -> list[Change]:
        if source == target or not is_there(answers[0]):
            return []
        found = shrunk(here, number(answers[1]), 1)
        if is_there(answers[2]):
            return found
        made = touched(there, existed=number(answers[3]) > 0)
        return [*found, *made, (INSERT, MEMBER, there, 1)]

    worst = (*shrunk_worst(here, 1), *touched_worst(there), (INSERT, MEMBER, there, 1))
    return Plan((source, target), looks, count, worst, SET, obscures=(here, there))


RULES: dict[str, Rule] = {
    "SADD": _add_to_set,
    "HSET": _set_fields,
    "HMSET": _set_fields,
    "HSETNX": _set_fields,
    "HINCRBY": _increase_field,
    "HINCRBYFLOAT": _increase_field,
    "ZADD": _scored(2),
    "GEOADD": _scored(3),
    "ZINCRBY": _increase_score,
    "LPUSH": _push,
    "RPUSH": _push,
    "LPUSHX": _push,
    "RPUSHX": _push,
    "LINSERT": _insert_beside,
    "LSET": _set_item,
    "SREM": _remove(SET),
    "HDEL": _remove(HASH),
    "ZREM": _remove(SORTED),
    "LPOP": _pop(LIST),
    "RPOP": _pop(LIST),
    "SPOP": _pop(SET),
    "ZPOPMIN": _pop(SORTED),
    "ZPOPMAX": _pop(SORTED),
    "LMPOP": pop_first(LIST),
    "ZMPOP": pop_first(SORTED),
    "LTRIM": _trim,
    "LREM": _remove_equal,
    "ZREMRANGEBYSCORE": _remove_range,
    "ZREMRANGEBYLEX": _remove_range,
    "ZREMRANGEBYRANK": _remove_range,
    "LMOVE": move_item,
    "RPOPLPUSH": move_item,
    "SMOVE": _move_member,
}
