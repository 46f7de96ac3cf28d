r"""Reads keys as values that are equal wherever the same content is.

Rules:
- A value is compared by what it holds, never by DUMP: two servers with equal sets and hashes give
  different payloads (hash seeds, encodings). Only a module's own type is compared by its payload.
- Sets and hashes have no order; lists, sorted sets and streams have one.
- A stream is its entries, its last id, and its groups with what is pending, without idle times.
- When a key expires counts, in milliseconds since 1970, where the server can say it (7.0 and
  later); before, it is reckoned from what is left, and may be off by `SLACK_MS`.
- A collection is read in parts of bounded size.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from redis.exceptions import ResponseError

from handrail.adapters.redis.connecting import Reply, Session, Word

# How far apart two readings of one expiry may be, where a server cannot say it exactly.
SLACK_MS = 1500
_WIDTH_BYTES = 32
_PART = 10_000
_PART_BYTES = 4 * 1024 * 1024
_COUNTS = {
    b"string": "STRLEN",
    b"list": "LLEN",
    b"set": "SCARD",
    b"zset": "ZCARD",
    b"hash": "HLEN",
    b"stream": "XLEN",
}


@dataclass(frozen=True)
class Value:
    """One key, as it was read.

    Attributes:
        type: as TYPE says it.
        members: of a collection; 0 for a string and for a module's type.
        expires_ms: since 1970; None when it stays.
        digest: of its content; empty for a key that went away meanwhile.
    """

    type: str
    members: int
    expires_ms: int | None
    digest: bytes


class Reader:
    """Reads the values of one session's database."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.is_exact = session.may("PEXPIRETIME", "handrail:none") is not None
        self._has_field_times = (
            session.may("HPEXPIRETIME", "handrail:none", "FIELDS", 1, "f") is not None
        )

    def read(self, keys: list[bytes]) -> list[Value | None]:
        """Return the values of `keys`; None for one that is not there."""
        ends = "PEXPIRETIME" if self.is_exact else "PTTL"
        commands: list[tuple[Word, ...]] = []
        for key in keys:
            commands += [("TYPE", key), (ends, key)]
        now_ms = int(time.time() * 1000)
        replies = self._session.must(commands)
        found = list(zip(keys, replies[::2], replies[1::2], strict=True))
        counts = self._counts([(key, kind) for key, kind, _ in found])
        whole = self._whole([(key, kind, counts[key]) for key, kind, _ in found])
        values: list[Value | None] = []
        for key, kind, left in found:
            digest = whole.get(key) or self._by_parts(key, kind)
            if kind == b"none" or digest is None:
                values.append(None)
                continue
            members = 0 if kind == b"string" else counts[key]
            values.append(Value(kind.decode(), members, self._expiry(left, now_ms), digest))
        return values

    def _expiry(self, left: int, now_ms: int) -> int | None:
        if left < 0:
            return None
        return left if self.is_exact else now_ms + left

    def _counts(self, found: list[tuple[bytes, bytes]]) -> dict[bytes, int]:
        asked = [(key, _COUNTS[kind]) for key, kind in found if kind in _COUNTS]
        replies = self._session.many([(command, key) for key, command in asked])
        counts = {key: 0 for key, _ in found}
        for (key, _), reply in zip(asked, replies, strict=True):
            counts[key] = reply if isinstance(reply, int) else 0
        return counts

    def _whole(self, found: list[tuple[bytes, bytes, int]]) -> dict[bytes, bytes]:
        """Return the digests of those keys that one reply can hold."""
        asked = [
            (key, kind)
            for key, kind, count in found
            if (kind in _WHOLE and count <= (_PART_BYTES if kind == b"string" else _PART))
            and not (kind == b"hash" and self._has_field_times)
        ]
        replies = self._session.many([_WHOLE[kind](key) for key, kind in asked])
        digests = {}
        for (key, kind), reply in zip(asked, replies, strict=True):
            if not isinstance(reply, ResponseError):
                digests[key] = _digest_of(kind, [reply])
        return digests

    def _by_parts(self, key: bytes, kind: bytes) -> bytes | None:
        """Return the digest of a key that is large, or of a kind that takes several commands."""
        try:
            if kind == b"stream":
                return self._stream(key)
            if kind == b"none":
                return None
            if kind in _PARTS:
                return _digest_of(kind, getattr(self, _PARTS[kind])(key))
            payload = self._session.ask("DUMP", key)
            return None if payload is None else _digest_of(b"string", [payload])
        except ResponseError:
            # It went away, or became another type, between two commands: others write here.
            return None

    def _string(self, key: bytes) -> Iterator[Reply]:
        start = 0
        while part := self._session.ask("GETRANGE", key, start, start + _PART_BYTES - 1):
            yield part
            start += len(part)

    def _list(self, key: bytes) -> Iterator[Reply]:
        start = 0
        while part := self._session.ask("LRANGE", key, start, start + _PART - 1):
            yield part
            start += len(part)

    def _zset(self, key: bytes) -> Iterator[Reply]:
        start = 0
        while part := self._session.ask("ZRANGE", key, start, start + _PART - 1, "WITHSCORES"):
            yield part
            start += len(part) // 2

    def _set(self, key: bytes) -> Iterator[Reply]:
        """Yield members, each once: SSCAN may give one twice."""
        seen: set[bytes] = set()
        for part in self._scanned("SSCAN", key):
            fresh = [member for member in part if _short(member) not in seen]
            seen.update(_short(member) for member in fresh)
            yield fresh

    def _hash(self, key: bytes) -> Iterator[Reply]:
        seen: set[bytes] = set()
        for part in self._scanned("HSCAN", key):
            fresh: list[bytes] = []
            for field, value in zip(part[::2], part[1::2], strict=True):
                if _short(field) not in seen:
                    seen.add(_short(field))
                    fresh += [field, value + self._field_time(key, field)]
            yield fresh

    def _field_time(self, key: bytes, field: bytes) -> bytes:
        if not self._has_field_times:
            return b""
        found = self._session.ask("HPEXPIRETIME", key, "FIELDS", 1, field)
        return b"" if not found or found[0] < 0 else b"\0%d" % found[0]

    def _scanned(self, command: str, key: bytes) -> Iterator[list[bytes]]:
        cursor: Word = 0
        while True:
            cursor, part = self._session.ask(command, key, cursor, "COUNT", _PART)
            yield part
            if cursor in {b"0", 0}:
                return

    def _stream(self, key: bytes) -> bytes:
        total = hashlib.blake2b(digest_size=_WIDTH_BYTES)
        start = b"-"
        while entries := self._session.ask("XRANGE", key, start, "+", "COUNT", 1000):
            for number, fields in entries:
                _add(total, [number, *(fields or [])])
            start = b"(" + entries[-1][0]
        about = _pairs(self._session.ask("XINFO", "STREAM", key))
        _add(total, [b"last", about[b"last-generated-id"]])
        for group in sorted(self._session.ask("XINFO", "GROUPS", key), key=lambda g: bytes(g[1])):
            told = _pairs(group)
            name = told[b"name"]
            _add(total, [b"group", name, told[b"last-delivered-id"]])
            consumers = self._session.ask("XINFO", "CONSUMERS", key, name)
            _add(total, sorted(_pairs(consumer)[b"name"] for consumer in consumers))
            for line in self._pending(key, name):
                _add(total, line)
        return total.digest()

    def _pending(self, key: bytes, group: bytes) -> Iterator[list[bytes]]:
        start = b"-"
        while lines := self._session.ask("XPENDING", key, group, start, "+", 1000):
            for number, consumer, _idle, times in lines:
                yield [number, consumer, b"%d" % times]
            start = b"(" + lines[-1][0]


_WHOLE: dict[bytes, Callable[[bytes], tuple[Word, ...]]] = {
    b"string": lambda key: ("GET", key),
    b"list": lambda key: ("LRANGE", key, 0, -1),
    b"set": lambda key: ("SMEMBERS", key),
    b"zset": lambda key: ("ZRANGE", key, 0, -1, "WITHSCORES"),
    b"hash": lambda key: ("HGETALL", key),
}
_PARTS = {
    b"string": "_string",
    b"list": "_list",
    b"set": "_set",
    b"zset": "_zset",
    b"hash": "_hash",
}


def _digest_of(kind: bytes, parts: Iterable[Reply]) -> bytes:
    if kind == b"string":
        whole = hashlib.blake2b(digest_size=_WIDTH_BYTES)
        for part in parts:
            whole.update(part or b"")
        return whole.digest()
    if kind in {b"list", b"zset"}:
        ordered = hashlib.blake2b(digest_size=_WIDTH_BYTES)
        for part in parts:
            _add(ordered, part if kind == b"list" else _scores(part))
        return ordered.digest()
    total = 0
    for part in parts:
        items = [(m,) for m in part] if kind == b"set" else zip(part[::2], part[1::2], strict=True)
        for item in items:
            one = hashlib.blake2b(digest_size=_WIDTH_BYTES)
            _add(one, item)
            total += int.from_bytes(one.digest(), "little")
    return (total % (1 << 8 * _WIDTH_BYTES)).to_bytes(_WIDTH_BYTES, "little")


def _scores(part: list[bytes]) -> list[bytes]:
    """Return members with their scores written alike by every version of the server."""
    return [repr(float(item)).encode() if index % 2 else item for index, item in enumerate(part)]


def _add(total: hashlib.blake2b, items: Iterable[bytes]) -> None:
    for item in items:
        total.update(len(item).to_bytes(8, "little"))
        total.update(item)


def _pairs(flat: list[Reply]) -> dict[bytes, Reply]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _short(member: bytes) -> bytes:
    """Return what stands for a member among those seen: of bounded size."""
    return member if len(member) <= _WIDTH_BYTES else hashlib.blake2b(member).digest()
