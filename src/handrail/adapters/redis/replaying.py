"""Counts what a record did, key by key, by playing it on a second server with the same content.

Rules:
- Every command counts: a key written a thousand times is a thousand updates.
- No key expires while it is played: expiries are counted and not set. A deletion by expiry counts
  when the record set that expiry, and not when the key's time had come anyway.
- A key that a command only reads (the sources of `SUNIONSTORE`) is not counted.
- A command's keys are what the server itself says they are.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redis.exceptions import ResponseError

from handrail.adapters.redis.comparing import Amounts
from handrail.adapters.redis.connecting import Reply, Session, Word
from handrail.adapters.redis.keys import IDENTITY_KEY, name_of, new_table, read_names
from handrail.adapters.redis.recording import Entry

_BATCH = 200
_BATCH_BYTES = 4 * 1024 * 1024
_LOOK = b"""
local counts = {list='LLEN', set='SCARD', zset='ZCARD', hash='HLEN', stream='XLEN'}
local found = {}
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key)['ok']
  found[#found + 1] = kind
  found[#found + 1] = counts[kind] and redis.call(counts[kind], key) or 0
end
return found
"""
_TIMES = frozenset({b"PEXPIREAT", b"EXPIREAT", b"PEXPIRE", b"EXPIRE"})
_FLUSHES = frozenset({b"FLUSHALL", b"FLUSHDB"})
_BRACKETS = frozenset({b"MULTI", b"EXEC", b"SELECT", b"PUBLISH", b"SPUBLISH"})
# Commands that write their first key alone; the others are read.
_INTO_FIRST = frozenset({b"BITOP", b"PFMERGE"})
_INTO_LAST = frozenset({b"COPY", b"SORT"})


@dataclass
class _Playing:
    """A record on its way through the second server."""

    session: Session
    before: sqlite3.Connection
    look: bytes
    database: int = 0
    found: Amounts = field(default_factory=Counter)
    # Expiries that the record has set or removed, by database and key.
    times: dict[tuple[int, bytes], int | None] = field(default_factory=dict)


def count(session: Session, before: Path, entries: Iterable[Entry]) -> Amounts:
    """Return how often keys of each pattern were inserted, updated, deleted or given an end.

    Args:
        session: with a server that holds the content at the record's beginning.
        before: the table of keys at that moment.
        entries: the record.
    """
    table = sqlite3.connect(f"file:{before}?mode=ro", uri=True)
    try:
        _keep_all(session, table)
        playing = _Playing(session, table, session.ask("SCRIPT", "LOAD", _LOOK))
        session.ask("SELECT", 0)
        for batch in _batches(entries):
            _play(playing, batch)
        return playing.found
    finally:
        table.close()


def _keep_all(session: Session, table: sqlite3.Connection) -> None:
    """Take every key's expiry away."""
    rows = table.execute("SELECT database, key FROM keys WHERE expires_ms IS NOT NULL")
    while page := rows.fetchmany(1000):
        commands: list[tuple[Word, ...]] = []
        for database, key in page:
            commands += [("SELECT", database), ("PERSIST", key)]
        session.must(commands)


def _batches(entries: Iterable[Entry]) -> Iterable[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        alone = entry.words[0].upper() in _FLUSHES | {b"SELECT"}
        if batch and (alone or len(batch) >= _BATCH or size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += sum(map(len, entry.words))
        if alone:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _play(playing: _Playing, batch: Sequence[Entry]) -> None:
    session = playing.session
    name = batch[0].words[0].upper()
    if name == b"SELECT":
        session.ask(*batch[0].words)
        playing.database = int(batch[0].words[1])
    elif name in _FLUSHES:
        _flush(playing, batch[0])
    else:
        played = [entry for entry in batch if entry.words[0].upper() not in _BRACKETS]
        keys = _keys_of(session, played)
        commands: list[tuple[Word, ...]] = []
        for entry, own in zip(played, keys, strict=True):
            look: tuple[Word, ...] = ("EVALSHA", playing.look, len(own), *own)
            commands += [look, _without_end(entry.words), look]
        replies = session.many(commands)
        for number, (entry, own) in enumerate(zip(played, keys, strict=True)):
            was, _, now = replies[3 * number : 3 * number + 3]
            _count(playing, entry, own, was, now)


def _keys_of(session: Session, entries: Sequence[Entry]) -> list[list[bytes]]:
    """Return the keys that each command writes."""
    replies = session.many([("COMMAND", "GETKEYS", *entry.words) for entry in entries])
    found = []
    for entry, reply in zip(entries, replies, strict=True):
        keys = [] if isinstance(reply, ResponseError) else list(dict.fromkeys(reply))
        name = entry.words[0].upper()
        if name in _INTO_FIRST or (name.endswith(b"STORE") and name != b"RESTORE"):
            keys = keys[:1]
        elif name in _INTO_LAST:
            keys = keys[-1:]
        found.append(keys)
    return found


def _without_end(words: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return a command without the expiry that it sets."""
    name = words[0].upper()
    if name in _TIMES:
        return (b"EXISTS", words[1])
    if name in {b"SETEX", b"PSETEX"}:
        return (b"SET", words[1], words[3])
    if name == b"RESTORE":
        return (*words[:2], b"0", *words[3:])
    if name in {b"SET", b"GETEX"}:
        kept = list(words[:3] if name == b"SET" else words[:2])
        rest = iter(words[len(kept) :])
        for word in rest:
            if word.upper() in {b"PXAT", b"EXAT", b"PX", b"EX"}:
                next(rest, None)
            else:
                kept.append(word)
        return tuple(kept)
    return words


def _end_of(words: tuple[bytes, ...]) -> int | None:
    """Return the expiry that a command sets, in milliseconds since 1970, where it is absolute."""
    name = words[0].upper()
    if name == b"PEXPIREAT":
        return int(words[2])
    if name in {b"SET", b"GETEX"}:
        upper = [word.upper() for word in words]
        return int(words[upper.index(b"PXAT") + 1]) if b"PXAT" in upper[2:-1] else None
    return None


def _count(playing: _Playing, entry: Entry, keys: Sequence[bytes], was: Reply, now: Reply) -> None:
    if isinstance(was, ResponseError) or isinstance(now, ResponseError):
        return
    name = entry.words[0].upper()
    ends = _end_of(entry.words)
    for key, before, after in zip(keys, _pairs(was), _pairs(now), strict=True):
        if key == IDENTITY_KEY and not playing.database:
            continue
        pattern = name_of(playing.database, key)
        natural = name in {b"DEL", b"UNLINK"} and _is_natural(playing, entry, key)
        if not natural:
            _count_key(playing.found, name, pattern, before, after)
        if ends is not None:
            if name != b"PEXPIREAT" and before[0] != b"none":
                playing.found["expire", "key", pattern] += 1
            playing.times[playing.database, key] = ends


def _count_key(
    found: Amounts, name: bytes, pattern: str, before: tuple[bytes, int], after: tuple[bytes, int]
) -> None:
    is_there, stays = before[0] != b"none", after[0] != b"none"
    if name in _TIMES:
        if is_there:
            found["expire", "key", pattern] += 1
        return
    if is_there and not stays:
        found["delete", "key", pattern] += 1
    elif stays:
        found["update" if is_there else "insert", "key", pattern] += 1
        lost = before[1] - after[1] if before[0] == after[0] else before[1]
        if lost > 0:
            found["delete", "member", pattern] += lost


def _is_natural(playing: _Playing, entry: Entry, key: bytes) -> bool:
    """Whether a deletion is of a key whose time had come, as it was before the record."""
    if entry.at_s is None or len(entry.words) != 2 or (playing.database, key) in playing.times:  # noqa: PLR2004 - DEL and one key
        return False
    row = playing.before.execute(
        "SELECT expires_ms FROM keys WHERE database = ? AND key = ?", (playing.database, key)
    ).fetchone()
    return bool(row and row[0] is not None and entry.at_s * 1000 + 999 >= row[0])


def _flush(playing: _Playing, entry: Entry) -> None:
    """Count every key that a flush takes, then let it."""
    with new_table() as table:
        read_names(playing.session, table)
        playing.session.ask("SELECT", playing.database)
        whole = entry.words[0].upper() == b"FLUSHALL"
        where = "" if whole else " WHERE database = ?"
        rows = table.execute(
            f"SELECT pattern, count(*) FROM keys{where} GROUP BY 1",  # noqa: S608 - a constant
            () if whole else (playing.database,),
        )
        for pattern, number in rows:
            playing.found["delete", "key", pattern] += number
    playing.session.ask(*entry.words)


def _pairs(flat: Sequence[Reply]) -> list[tuple[bytes, int]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
