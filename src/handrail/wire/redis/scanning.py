"""Counts the keys of databases by pattern, before a flush takes them.

Rules:
- Memory is bounded by the number of patterns, not of keys; beyond so many, the rest is one.
- A key that SCAN gives twice is counted twice: the count is never too low.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from handrail.wire.redis.plan import Place, blank, name_of
from handrail.wire.redis.replies import ErrorReply, Reply, words

_PAGE = b"1000"
_MOST_PATTERNS = 20_000
_OTHER = b"(others)"
_KEYSPACE = re.compile(rb"^db(\d+):keys=", re.MULTILINE)
Ask = Callable[..., Awaitable[list[Reply]]]


class ScanError(Exception):
    """The guard may not look."""


async def keys_by_pattern(ask: Ask, database: int, *, every: bool) -> dict[Place, int]:
    """Return how many keys of each pattern there are, under one of the keys of each.

    Args:
        ask: sends commands in the guard's name.
        database: that the session is in, and is in afterwards.
        every: of all databases.

    Raises:
        ScanError: the server does not let the guard look.
    """
    databases = [database]
    if every:
        (told,) = await ask((b"INFO", b"keyspace"))
        databases = [int(found) for found in _KEYSPACE.findall(_text(told))]
    firsts: dict[str, Place] = {}
    counts: dict[Place, int] = {}
    for number in databases:
        if number != database or every:
            await ask((b"SELECT", b"%d" % number))
        await _scan(ask, number, firsts, counts)
    if every:
        await ask((b"SELECT", b"%d" % database))
    return counts


async def _scan(
    ask: Ask, database: int, firsts: dict[str, Place], counts: dict[Place, int]
) -> None:
    cursor = b"0"
    while True:
        (page,) = await ask((b"SCAN", cursor, b"COUNT", _PAGE))
        if not isinstance(page, list) or not isinstance(page[0], bytes):
            raise ScanError(_text(page).decode("utf-8", "backslashreplace"))
        keys = page[1] if isinstance(page[1], list) else []
        for key in words(keys):
            _count((database, key), firsts, counts)
        cursor = page[0]
        if cursor == b"0":
            return


def _count(place: Place, firsts: dict[str, Place], counts: dict[Place, int]) -> None:
    name = name_of(place)
    first = firsts.get(name)
    if first is None:
        full = len(firsts) >= _MOST_PATTERNS
        # A key with its numbers blanked has the same pattern, and tells less.
        first = (place[0], _OTHER if full else blank(place[1]))
        firsts[name if not full else name_of(first)] = first
    counts[first] = counts.get(first, 0) + 1


def _text(reply: Reply) -> bytes:
    if isinstance(reply, ErrorReply):
        raise ScanError(reply.text.decode("utf-8", "backslashreplace"))
    return reply if isinstance(reply, bytes) else b""
