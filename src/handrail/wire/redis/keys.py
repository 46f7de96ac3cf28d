"""What commands on whole keys do: deleting, renaming, copying, storing a result, waiting for one.

Rules:
- A result that is stored takes the place of what was there: its members are gone, and others made.
- An empty result deletes the key that it was to be stored in.
- A key under a new name is a deletion and a making; what had that name before is deleted too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from handrail.wire.redis.members import (
    LIST,
    SET,
    SIZES,
    SORTED,
    move_item,
    numbered_keys,
    pop_first,
    take_some,
)
from handrail.wire.redis.plan import (
    DELETE,
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
    name_of,
    nothing,
    number,
    replaced,
    touched,
    touched_worst,
    whole,
)
from handrail.wire.redis.replies import ErrorReply, Reply
from handrail.wire.redis.strings import STRING

_GET_OPTIONS = frozenset({b"GET", b"BY"})


def _delete(asked: Asked) -> Plan:
    """Plan DEL and UNLINK: one look a pattern, however many keys it has."""
    keys = distinct(asked.words)
    groups: dict[str, list[bytes]] = {}
    for key in keys:
        name = key.hex() if asked.apart else name_of(asked.at(key))
        groups.setdefault(name, []).append(key)
    firsts = [asked.at(group[0]) for group in groups.values()]

    def count(answers: Sequence[Reply]) -> list[Change]:
        found = zip(firsts, answers, strict=True)
        return [(DELETE, KEY, place, number(answer)) for place, answer in found]

    looks = tuple((b"EXISTS", *group) for group in groups.values())
    worst = tuple(
        (DELETE, KEY, place, len(group))
        for place, group in zip(firsts, groups.values(), strict=True)
    )
    return Plan(keys, looks, count, worst)


def _get_and_delete(asked: Asked) -> Plan:
    key = asked.words[0]
    place = asked.at(key)

    def count(answers: Sequence[Reply]) -> list[Change]:
        return [(DELETE, KEY, place, 1)] if answers[0] == STRING else []

    return Plan((key,), ((b"TYPE", key),), count, ((DELETE, KEY, place, 1),))


def _rename(asked: Asked) -> Plan:
    source, target = asked.words[0], asked.words[1]
    here, there = asked.at(source), asked.at(target)
    only_new = asked.name == "RENAMENX"

    def count(answers: Sequence[Reply]) -> list[Change]:
        replaces = is_there(answers[1])
        if source == target or not is_there(answers[0]) or (only_new and replaces):
            return []
        made: list[Change] = [(DELETE, KEY, here, 1), (INSERT, KEY, there, 1)]
        return [(DELETE, KEY, there, 1), *made] if replaces else made

    worst: list[Change] = [(DELETE, KEY, here, 1), (INSERT, KEY, there, 1)]
    if not only_new:
        worst.append((DELETE, KEY, there, 1))
    looks = ((b"EXISTS", source), (b"EXISTS", target))
    return Plan((source, target), looks, count, tuple(worst), hides=(there,))


def _copy(asked: Asked) -> Plan:
    source, target = asked.words[0], asked.words[1]
    database, replaces = _copy_options(asked)
    there = (database, target)
    if there == asked.at(source):
        return Plan((), (), nothing, ())
    worst: list[Change] = [(INSERT, KEY, there, 1)]
    if replaces:
        worst.append((DELETE, KEY, there, 1))
    looks: tuple[Look, ...] = ((b"EXISTS", source),)
    if database == asked.database:
        looks = (*looks, (b"EXISTS", target))

    def count(answers: Sequence[Reply]) -> list[Change]:
        if not is_there(answers[0]):
            return []
        if database != asked.database:
            # Another database cannot be looked into from here: the most that it can be.
            return worst
        if not is_there(answers[1]):
            return [(INSERT, KEY, there, 1)]
        return [(DELETE, KEY, there, 1), (INSERT, KEY, there, 1)] if replaces else []

    keys = (source, target) if database == asked.database else (source,)
    return Plan(keys, looks, count, tuple(worst), hides=(there,), needs_yes=True)


def _copy_options(asked: Asked) -> tuple[int, bool]:
    database, replaces = asked.database, False
    rest = iter(asked.words[2:])
    for word in rest:
        if word.upper() == b"REPLACE":
            replaces = True
        elif word.upper() == b"DB":
            database = whole(next(rest, b""))
        else:
            raise MalformedError(SYNTAX)
    return database, replaces


def _move(asked: Asked) -> Plan:
    key, database = asked.words[0], whole(asked.words[1])
    here, there = asked.at(key), (database, key)
    if here == there:
        return Plan((), (), nothing, ())
    worst = ((DELETE, KEY, here, 1), (INSERT, KEY, there, 1))

    def count(answers: Sequence[Reply]) -> list[Change]:
        return list(worst) if is_there(answers[0]) else []

    return Plan((key,), ((b"EXISTS", key),), count, worst, hides=(there,), needs_yes=True)


def _restore(asked: Asked) -> Plan:
    key, replaces = asked.words[0], b"REPLACE" in asked.upper(3)
    place = asked.at(key)

    def count(answers: Sequence[Reply]) -> list[Change]:
        if not is_there(answers[0]):
            return [(INSERT, KEY, place, 1)]
        return [(DELETE, KEY, place, 1), (INSERT, KEY, place, 1)] if replaces else []

    worst: tuple[Change, ...] = ((INSERT, KEY, place, 1),)
    if replaces:
        worst = (*worst, (DELETE, KEY, place, 1))
    return Plan((key,), ((b"EXISTS", key),), count, worst, hides=(place,))


# --- results that are stored -------------------------------------------------------------------


def _stored(
    asked: Asked, target: bytes, kind: bytes, result: Look, sources: Sequence[bytes]
) -> Plan:
    """Plan the storing of what the reading command `result` gives, as type `kind`, in `target`."""
    place = asked.at(target)

    def count(answers: Sequence[Reply]) -> list[Change]:
        if isinstance(answers[2], ErrorReply):
            return []
        before, made = answers[0], number(answers[2])
        lost = 0 if isinstance(answers[1], ErrorReply) else number(answers[1])
        changes: list[Change] = [(DELETE, MEMBER, place, lost), (INSERT, MEMBER, place, made)]
        if made:
            return [*replaced(place, before, kind), *changes]
        return [(DELETE, KEY, place, 1), *changes] if is_there(before) else []

    looks = ((b"TYPE", target), (SIZES[kind], target), result)
    return Plan(
        (target, *sources),
        looks,
        count,
        None,
        kind,
        sources=tuple(sources),
        obscures=(place,),
        any_type=True,
    )


def _store_sets(asked: Asked) -> Plan:
    reading = asked.name.removesuffix("STORE").encode()
    return _stored(asked, asked.words[0], SET, (reading, *asked.words[1:]), asked.words[1:])


def _store_sorted(asked: Asked) -> Plan:
    reading = asked.name.removesuffix("STORE").encode()
    sources, _ = numbered_keys(asked.words, 1)
    return _stored(asked, asked.words[0], SORTED, (reading, *asked.words[1:]), sources)


def _store_range(asked: Asked) -> Plan:
    return _stored(asked, asked.words[0], SORTED, (b"ZRANGE", *asked.words[1:]), asked.words[1:2])


def _store_places(asked: Asked) -> Plan:
    reading = tuple(word for word in asked.words[1:] if word.upper() != b"STOREDIST")
    return _stored(asked, asked.words[0], SORTED, (b"GEOSEARCH", *reading), asked.words[1:2])


def _around(asked: Asked) -> Plan:
    """Plan GEORADIUS and GEORADIUSBYMEMBER, which store when they are told to."""
    start = 5 if asked.name == "GEORADIUS" else 4
    reading = list(asked.words[:start])
    target: bytes | None = None
    rest = iter(asked.words[start:])
    for word in rest:
        if word.upper() in {b"STORE", b"STOREDIST"}:
            target = next(rest, None)
            if target is None:
                raise MalformedError(SYNTAX)
        else:
            reading.append(word)
    if target is None:
        return Plan((), (), nothing, ())
    return _stored(asked, target, SORTED, (asked.name.encode() + b"_RO", *reading), reading[:1])


def _sort(asked: Asked) -> Plan:
    reading = [asked.words[0]]
    target: bytes | None = None
    rest = iter(asked.words[1:])
    for word in rest:
        option = word.upper()
        if option == b"STORE":
            target = next(rest, None)
            if target is None:
                raise MalformedError(SYNTAX)
            continue
        reading.append(word)
        if option in _GET_OPTIONS:
            reading += [next(rest, b"")]
        elif option == b"LIMIT":
            reading += [next(rest, b""), next(rest, b"")]
    if target is None:
        return Plan((), (), nothing, ())
    return _stored(asked, target, LIST, (b"SORT", *reading), reading[:1])


def _bit_operation(asked: Asked) -> Plan:
    target, sources = asked.words[1], asked.words[2:]
    place = asked.at(target)

    def count(answers: Sequence[Reply]) -> list[Change]:
        if any(number(answer) for answer in answers[1:]):
            return replaced(place, answers[0], STRING)
        return [(DELETE, KEY, place, 1)] if is_there(answers[0]) else []

    looks: tuple[Look, ...] = ((b"TYPE", target), *((b"STRLEN", source) for source in sources))
    worst = (*touched_worst(place), (DELETE, KEY, place, 1))
    keys = (target, *sources)
    return Plan(keys, looks, count, worst, STRING, sources=sources)


def _merge(asked: Asked) -> Plan:
    key = asked.words[0]
    place = asked.at(key)

    def count(answers: Sequence[Reply]) -> list[Change]:
        return touched(place, existed=is_there(answers[0]))

    return Plan((key,), ((b"EXISTS", key),), count, touched_worst(place), STRING)


# --- waiting -----------------------------------------------------------------------------------


def _waiting(plan: Plan, looks: int) -> Plan:
    """Return the plan of a command that waits where nothing is to be had.

    Nobody knows what will be there then: the most that it can be is counted, and what its reply
    does not name is taken off again.
    """
    worst = plan.worst or ()

    def count(answers: Sequence[Reply]) -> list[Change]:
        if not any(number(answer) for answer in answers[:looks]):
            return list(worst)
        return plan.count(answers)

    return replace(plan, count=count, worst=worst, blocks=True)


def _wait_to_pop(kind: bytes) -> Rule:
    def rule(asked: Asked) -> Plan:
        keys = distinct(asked.words[:-1])
        return _waiting(take_some(asked, keys, kind, 1), len(keys))

    return rule


def _wait_to_pop_first(kind: bytes) -> Rule:
    popping = pop_first(kind, 1)

    def rule(asked: Asked) -> Plan:
        plan = popping(asked)
        return _waiting(plan, len(plan.keys))

    return rule


def _wait_to_move(asked: Asked) -> Plan:
    return _waiting(move_item(asked), 1)


# --- scripts -----------------------------------------------------------------------------------


def by_looking(asked: Asked, keys: Sequence[bytes]) -> Plan:
    """Plan what nobody can know before it ran: keys are looked at before and after.

    What is there both times counts as updated. Keys that were not named show in their number.
    """
    unique = distinct(keys)
    looks: tuple[Look, ...] = (*((b"EXISTS", key) for key in unique), (b"DBSIZE",))

    def count(answers: Sequence[Reply]) -> list[Change]:
        before, after = answers[: len(looks)], answers[len(looks) :]
        found: list[Change] = []
        grown = number(after[-1]) - number(before[-1])
        for key, was, now in zip(unique, before, after, strict=False):
            change = _between(asked.at(key), is_there(was), is_there(now))
            found += change
            grown -= is_there(now) - is_there(was)
        verb = INSERT if grown > 0 else DELETE
        return [*found, (verb, KEY, asked.at(b""), abs(grown))]

    hides = tuple(asked.at(key) for key in unique)
    return Plan(unique, looks, count, None, after=looks, hides=hides)


def _between(place: Place, was: bool, now: bool) -> list[Change]:  # noqa: FBT001  before, after
    if was and now:
        return [(UPDATE, KEY, place, 1)]
    if was or now:
        return [(DELETE if was else INSERT, KEY, place, 1)]
    return []


RULES: dict[str, Rule] = {
    "DEL": _delete,
    "UNLINK": _delete,
    "GETDEL": _get_and_delete,
    "RENAME": _rename,
    "RENAMENX": _rename,
    "COPY": _copy,
    "MOVE": _move,
    "RESTORE": _restore,
    "SORT": _sort,
    "BITOP": _bit_operation,
    "PFMERGE": _merge,
    "SINTERSTORE": _store_sets,
    "SUNIONSTORE": _store_sets,
    "SDIFFSTORE": _store_sets,
    "ZUNIONSTORE": _store_sorted,
    "ZINTERSTORE": _store_sorted,
    "ZDIFFSTORE": _store_sorted,
    "ZRANGESTORE": _store_range,
    "GEOSEARCHSTORE": _store_places,
    "GEORADIUS": _around,
    "GEORADIUSBYMEMBER": _around,
    "BLPOP": _wait_to_pop(LIST),
    "BRPOP": _wait_to_pop(LIST),
    "BZPOPMIN": _wait_to_pop(SORTED),
    "BZPOPMAX": _wait_to_pop(SORTED),
    "BLMPOP": _wait_to_pop_first(LIST),
    "BZMPOP": _wait_to_pop_first(SORTED),
    "BLMOVE": _wait_to_move,
    "BRPOPLPUSH": _wait_to_move,
}
