"""What commands on strings do to keys.

Rules:
- A string over a collection is a key deleted and a key made.
- A time to live on a key that had none is an `expire`, besides the change of its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from handrail.wire.redis.plan import (
    DELETE,
    EXPIRE,
    INSERT,
    KEY,
    NONE,
    SYNTAX,
    UPDATE,
    Asked,
    Change,
    MalformedError,
    Place,
    Plan,
    Rule,
    distinct,
    is_there,
    nothing,
    number,
    replaced,
    touched,
    touched_worst,
    whole,
)
from handrail.wire.redis.replies import Reply

STRING = b"string"
_FOR_EVER = -1
_SET_FLAGS = frozenset({b"NX", b"XX", b"GET", b"KEEPTTL"})
_TIMES = frozenset({b"EX", b"PX", b"EXAT", b"PXAT"})


def _worst_set(place: Place) -> tuple[Change, ...]:
    return (*touched_worst(place), (DELETE, KEY, place, 1), (EXPIRE, KEY, place, 1))


def _set(asked: Asked) -> Plan:
    key = asked.words[0]
    flags, time = _set_options(asked.upper(2))
    gets = b"GET" in flags
    return _assign(asked, key, nx=b"NX" in flags, xx=b"XX" in flags, time=time, gets=gets)


def _set_options(words: list[bytes]) -> tuple[set[bytes], tuple[bytes, int] | None]:
    flags: set[bytes] = set()
    time: tuple[bytes, int] | None = None
    rest = iter(words)
    for word in rest:
        if word in _TIMES and time is None:
            time = (word, whole(next(rest, b"")))
        elif word in _SET_FLAGS:
            flags.add(word)
        else:
            raise MalformedError(SYNTAX)
    if {b"NX", b"XX"} <= flags or (time and b"KEEPTTL" in flags):
        raise MalformedError(SYNTAX)
    return flags, time


def _assign(
    asked: Asked,
    key: bytes,
    *,
    nx: bool = False,
    xx: bool = False,
    time: tuple[bytes, int] | None = None,
    gets: bool = False,
) -> Plan:
    place = asked.at(key)
    looks: list[tuple[bytes, ...]] = [(b"TYPE", key)]
    if time:
        looks += [(b"PTTL", key), (b"TIME",)]

    def count(answers: Sequence[Reply]) -> list[Change]:
        existed = is_there(answers[0])
        if (nx and existed) or (xx and not existed):
            return []
        if gets and existed and answers[0] != STRING:
            return []  # what is no string cannot be given back, and stays
        if time and is_past(time, answers[2]):
            return [(DELETE, KEY, place, 1)] if existed else []
        found = replaced(place, answers[0], STRING)
        if time and answers[1] == _FOR_EVER:
            found.append((EXPIRE, KEY, place, 1))
        return found

    worst: tuple[Change, ...] = _worst_set(place)
    if nx and not time:
        worst = ((INSERT, KEY, place, 1),)
    return Plan((key,), tuple(looks), count, worst, STRING)


def is_past(time: tuple[bytes, int], now: Reply) -> bool:
    """Whether a time to live ends at once, given the server's own TIME."""
    unit, amount = time
    if unit in {b"EX", b"PX"}:
        return amount <= 0
    if not isinstance(now, list) or not isinstance(now[0], bytes):
        return False
    return amount * (1 if unit == b"PXAT" else 1000) <= int(now[0]) * 1000


def _set_for(unit: bytes) -> Rule:
    def rule(asked: Asked) -> Plan:
        return _assign(asked, asked.words[0], time=(unit, whole(asked.words[1])))

    return rule


def _set_new(asked: Asked) -> Plan:
    return _assign(asked, asked.words[0], nx=True)


def _get_and_set(asked: Asked) -> Plan:
    return _assign(asked, asked.words[0], gets=True)


def _set_many(asked: Asked) -> Plan:
    if len(asked.words) % 2:
        text = f"ERR wrong number of arguments for '{asked.name.lower()}' command"
        raise MalformedError(text)
    keys = distinct(asked.words[::2])
    only_new = asked.name == "MSETNX"

    def count(answers: Sequence[Reply]) -> list[Change]:
        if only_new and any(is_there(answer) for answer in answers):
            return []
        return [
            change
            for key, answer in zip(keys, answers, strict=True)
            for change in replaced(asked.at(key), answer, STRING)
        ]

    worst = tuple(
        change
        for key in keys
        for change in ([(INSERT, KEY, asked.at(key), 1)] if only_new else _worst_set(asked.at(key)))
    )
    return Plan(keys, tuple((b"TYPE", key) for key in keys), count, worst, STRING)


def touch(asked: Asked) -> Plan:
    """Plan a command that changes one string, or makes it."""
    key = asked.words[0]
    place = asked.at(key)

    def count(answers: Sequence[Reply]) -> list[Change]:
        if answers[0] not in {STRING, NONE}:
            return []
        return touched(place, existed=is_there(answers[0]))

    return Plan((key,), ((b"TYPE", key),), count, touched_worst(place), STRING)


def _set_range(asked: Asked) -> Plan:
    return touch(asked) if asked.words[2] else Plan((), (), nothing, ())


def _bit_field(asked: Asked) -> Plan:
    writes = any(word in {b"SET", b"INCRBY"} for word in asked.upper(1))
    return touch(asked) if writes else Plan((), (), nothing, ())


def _get_and_expire(asked: Asked) -> Plan:
    key, options = asked.words[0], asked.upper(1)
    if not options:
        return Plan((), (), nothing, ())
    if options == [b"PERSIST"]:
        return _of_string(key, persist(asked))
    if len(options) != 2 or options[0] not in _TIMES:  # noqa: PLR2004  a unit and an amount
        raise MalformedError(SYNTAX)
    plan = expire_by(asked, key, (options[0], whole(options[1])), frozenset())
    return _of_string(key, plan)


def _of_string(key: bytes, plan: Plan) -> Plan:
    """Return a plan that does nothing where the key is no string."""
    looks = (*plan.looks, (b"STRLEN", key))
    return replace(plan, looks=looks, count=lambda answers: plan.count(answers[:-1]))


def persist(asked: Asked) -> Plan:
    """Plan what takes a time to live away."""
    key = asked.words[0]
    place = asked.at(key)

    def count(answers: Sequence[Reply]) -> list[Change]:
        return [(UPDATE, KEY, place, 1)] if number(answers[0]) >= 0 else []

    return Plan((key,), ((b"PTTL", key),), count, ((UPDATE, KEY, place, 1),))


def _expire(unit: bytes) -> Rule:
    def rule(asked: Asked) -> Plan:
        conditions = frozenset(asked.upper(2))
        if not conditions <= {b"NX", b"XX", b"GT", b"LT"}:
            raise MalformedError(SYNTAX)
        return expire_by(asked, asked.words[0], (unit, whole(asked.words[1])), conditions)

    return rule


def expire_by(
    asked: Asked, key: bytes, time: tuple[bytes, int], conditions: frozenset[bytes]
) -> Plan:
    """Plan what gives a key a time to live: at once gone, or later."""
    place = asked.at(key)

    def count(answers: Sequence[Reply]) -> list[Change]:
        left = number(answers[0])
        if left < _FOR_EVER or not _meets(conditions, left, _left_ms(time, answers[1])):
            return []
        return [(DELETE if is_past(time, answers[1]) else EXPIRE, KEY, place, 1)]

    worst = ((DELETE, KEY, place, 1), (EXPIRE, KEY, place, 1))
    return Plan((key,), ((b"PTTL", key), (b"TIME",)), count, worst)


def _left_ms(time: tuple[bytes, int], now: Reply) -> int:
    unit, amount = time
    scaled = amount if unit in {b"PX", b"PXAT"} else amount * 1000
    if unit in {b"EX", b"PX"} or not isinstance(now, list) or not isinstance(now[0], bytes):
        return scaled
    return scaled - int(now[0]) * 1000


def _meets(conditions: frozenset[bytes], left_ms: int, wanted_ms: int) -> bool:
    lasts = left_ms == _FOR_EVER
    return not (
        (b"NX" in conditions and not lasts)
        or (b"XX" in conditions and lasts)
        or (b"GT" in conditions and (lasts or wanted_ms <= left_ms))
        or (b"LT" in conditions and not lasts and wanted_ms >= left_ms)
    )


RULES: dict[str, Rule] = {
    "SET": _set,
    "SETEX": _set_for(b"EX"),
    "PSETEX": _set_for(b"PX"),
    "SETNX": _set_new,
    "GETSET": _get_and_set,
    "MSET": _set_many,
    "MSETNX": _set_many,
    "SETRANGE": _set_range,
    "BITFIELD": _bit_field,
    "GETEX": _get_and_expire,
    "PERSIST": persist,
    "EXPIRE": _expire(b"EX"),
    "PEXPIRE": _expire(b"PX"),
    "EXPIREAT": _expire(b"EXAT"),
    "PEXPIREAT": _expire(b"PXAT"),
    **dict.fromkeys(
        ("APPEND", "INCR", "INCRBY", "INCRBYFLOAT", "DECR", "DECRBY", "SETBIT", "PFADD"), touch
    ),
}
