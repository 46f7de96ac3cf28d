"""Random Redis scripts: every kind of data, errors, transactions, several databases.

Rules:
- A script is made by a seed alone: the same on two servers.
- With `exact` it has nothing of which the guard counts a bound: commands that fail for a value, and
  in transactions results that depend on keys that the same transaction changes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from support.redis_guarding import Client, encoded

Command = tuple[str, ...]
KEYS = ("session:1", "session:2", "l:1", "s:1", "h:1", "z:1", "x:1", "k")


class Writer:
    """Writes commands, by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._entries = 0

    # --- words ---------------------------------------------------------------------------------

    def _key(self) -> str:
        return self._random.choice(KEYS)

    def _member(self) -> str:
        return self._random.choice("abcd")

    def _number(self) -> str:
        return self._random.choice(("0", "1", "2", "-1", "5"))

    def _one(self, *choices: str) -> str:
        return self._random.choice(choices)

    # --- kinds ---------------------------------------------------------------------------------

    def _strings(self) -> Iterator[Command]:
        key, other, member = self._key(), self._key(), self._member()
        yield ("SET", key, member)
        yield ("SET", key, member, self._one("NX", "XX", "KEEPTTL"))
        yield ("SET", key, member, "EX", "100")
        yield ("SETNX", key, member)
        yield ("SETEX", key, "100", member)
        yield ("GET", key)
        yield ("GETSET", key, member)
        yield ("GETDEL", key)
        yield ("GETEX", key, "EX", "100")
        yield ("INCR", "n:1")
        yield ("APPEND", key, member)
        yield ("SETRANGE", key, "2", member)
        yield ("SETBIT", key, "3", "1")
        yield ("MSET", key, member, other, member)
        yield ("MSETNX", key, member, other, member)
        yield ("PFADD", "pf", member)
        yield ("PFMERGE", "pf2", "pf")

    def _lists(self) -> Iterator[Command]:
        key, other, member = self._key(), self._key(), self._member()
        yield ("LPUSH", key, member, member)
        yield ("RPUSHX", "l:1", member)
        yield ("LPOP", key)
        yield ("RPOP", "l:1", "2")
        yield ("LTRIM", key, self._number(), self._number())
        yield ("LREM", "l:1", self._number(), member)
        yield ("LINSERT", "l:1", "BEFORE", self._member(), member)
        yield ("LSET", "l:1", self._number(), member)
        yield ("LRANGE", key, "0", "-1")
        yield ("RPOPLPUSH", key, other)
        yield ("LMOVE", key, other, "LEFT", "RIGHT")

    def _sets(self) -> Iterator[Command]:
        key, member, other = self._key(), self._member(), self._member()
        yield ("SADD", "s:1", member, other)
        yield ("SREM", "s:1", member, other)
        yield ("SMOVE", "s:1", key, member)
        yield ("SCARD", key)
        yield ("SISMEMBER", "s:1", member)

    def _hashes(self) -> Iterator[Command]:
        member, other = self._member(), self._member()
        yield ("HSET", "h:1", member, "1", other, "2")
        yield ("HSETNX", "h:1", member, "1")
        yield ("HDEL", "h:1", member, other)
        yield ("HINCRBY", "h:1", member, "1")
        yield ("HLEN", self._key())

    def _sorted(self) -> Iterator[Command]:
        member, number = self._member(), self._number()
        yield ("ZADD", "z:1", number, member, self._number(), self._member())
        yield ("ZADD", "z:1", self._one("NX", "XX", "GT", "CH"), number, member)
        yield ("ZREM", "z:1", member, self._member())
        yield ("ZINCRBY", "z:1", "1", member)
        yield ("ZREMRANGEBYRANK", "z:1", number, self._number())
        yield ("ZREMRANGEBYSCORE", "z:1", number, self._number())
        yield ("ZPOPMIN", "z:1")
        yield ("ZRANGE", "z:1", "0", "-1", "WITHSCORES")
        yield ("ZSCORE", "z:1", member)

    def _streams(self) -> Iterator[Command]:
        self._entries += 1
        bound = self._random.choice(((), ("MAXLEN", "2"), ("MAXLEN", "=", "3"), ("NOMKSTREAM",)))
        yield ("XADD", "x:1", *bound, f"{self._entries}-1", "f", "v")
        yield ("XLEN", self._key())
        yield ("XDEL", "x:1", f"{self._random.randint(1, 4)}-1")
        yield ("XTRIM", "x:1", "MAXLEN", str(self._random.randint(0, 3)))
        yield ("XGROUP", "CREATE", "x:1", "g", "$", "MKSTREAM")
        yield ("XREADGROUP", "GROUP", "g", "c", "COUNT", "1", "STREAMS", "x:1", ">")

    def _keys(self) -> Iterator[Command]:
        key, other = self._key(), self._key()
        yield ("DEL", key, other)
        yield ("UNLINK", key, other)
        yield ("EXPIRE", key, self._one("100", "-1", "0"))
        yield ("PERSIST", key)
        yield ("TYPE", key)
        yield ("EXISTS", key, other)
        yield ("RENAME", key, other)
        yield ("RENAMENX", key, other)
        yield ("COPY", key, other, *self._random.choice(((), ("REPLACE",))))
        yield ("MOVE", key, self._one("0", "1"))
        yield ("OBJECT", "ENCODING", key)

    def _results(self) -> Iterator[Command]:
        key, other = self._key(), self._key()
        yield ("SUNIONSTORE", key, "s:1", other)
        yield ("SINTERSTORE", key, "s:1", other)
        yield ("SDIFFSTORE", key, "s:1", "s:2")
        yield ("ZUNIONSTORE", key, "2", "z:1", other)
        yield ("ZRANGESTORE", key, "z:1", "0", "-1")
        yield ("SORT", "l:1", "ALPHA", "STORE", key)
        yield ("BITOP", "OR", key, other, "session:1")

    def _errors(self) -> Iterator[Command]:
        yield ("NOSUCH", "a")
        yield ("GET",)
        yield ("SET", "a")
        yield ("SET", "a", "b", "c")
        yield ("SELECT", "99")
        yield ("SELECT", "x")

    def _connection(self) -> Iterator[Command]:
        yield ("PING",)
        yield ("ECHO", self._member())
        yield ("CLIENT", "SETNAME", "x")
        yield ("CLIENT", "GETNAME")
        yield ("DBSIZE",)
        yield ("SELECT", self._one("0", "0", "1"))
        yield ("PUBLISH", "elsewhere", "hello")

    # --- scripts -------------------------------------------------------------------------------

    def _pick(self, *kinds: Callable[[], Iterator[Command]]) -> Command:
        return self._random.choice(list(self._random.choice(kinds)()))

    def _common(self, *more: Callable[[], Iterator[Command]]) -> Command:
        kinds = (self._strings, self._lists, self._sets, self._hashes, self._sorted)
        return self._pick(*kinds, self._streams, self._keys, self._connection, *more)

    def anything(self, length: int) -> list[Command]:
        """Return commands in any order: transactions that were never begun, and never ended."""
        found: list[Command] = []
        while len(found) < length:
            dice = self._random.random()
            if dice < 0.25:
                bound = self._one("MULTI", "MULTI", "EXEC", "EXEC", "DISCARD", "UNWATCH")
                found.append((bound,))
            elif dice < 0.28:
                found.append(("WATCH", self._key()))
            elif dice < 0.32:
                # Servers before 7.2 let it into a transaction; the guard never does.
                found += [("DISCARD",), ("SUBSCRIBE", "channel")]
            elif dice < 0.36:
                found += [("DISCARD",), ("UNSUBSCRIBE",)]
            elif dice < 0.40:
                found.append(("BLPOP", self._key(), "l:1", "0.01"))
            elif dice < 0.42:
                found.append(("FLUSHDB",))
            else:
                found.append(self._common(self._errors, self._results))
        return found

    def exact(self, length: int) -> list[Command]:
        """Return commands whose effects can be known before they run."""
        found: list[Command] = []
        while len(found) < length:
            if self._random.random() < 0.2:
                inner = [self._known() for _ in range(self._random.randint(1, 4))]
                found += [("MULTI",), *inner, ("EXEC",)]
            elif self._random.random() < 0.04:
                found.append((self._one("FLUSHDB", "FLUSHALL"),))
            else:
                found.append(self._known(self._results))
        return found

    def _known(self, *more: Callable[[], Iterator[Command]]) -> Command:
        return self._common(*more)


def play(client: Client, commands: list[Command], piece_bytes: int) -> list[bytes]:
    """Send everything in pieces of that size, and return every frame that comes, to the last."""
    ending = [("DISCARD",), ("UNSUBSCRIBE",), ("ECHO", "the end")]
    data = b"".join(encoded(*command) for command in (*commands, *ending))
    for at in range(0, len(data), piece_bytes):
        client.send(data[at : at + piece_bytes])
    frames: list[bytes] = []
    while not frames or frames[-1] != b"$7\r\nthe end\r\n":
        frames.append(client.raw())
    return frames


def run(client: Client, commands: list[Command], *, at_once: bool) -> list[bytes]:
    """Run commands, each with one reply, one after the other or all at once."""
    if at_once:
        client.send(b"".join(encoded(*command) for command in commands))
        return [client.raw() for _ in commands]
    replies = []
    for command in commands:
        client.send(encoded(*command))
        replies.append(client.raw())
    return replies
