"""What each command counts, by key pattern and member, before it takes effect."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from support.redis_guarding import Guarded, direct
from support.redis_server import RedisServer, server_program, server_version

OpenGuard = Callable[..., AbstractContextManager[Guarded]]
Amounts = dict[str, int]
IS_NEW = server_program() is not None and server_version() >= (7,)

# What is there before, what is run, and what it counts: `verb kind name` to a number.
CASES: dict[str, tuple[list[str], list[str], Amounts]] = {
    "a new key": ([], ["SET session:1 x"], {"insert key session:*": 1}),
    "a key written again": (["SET session:1 x"], ["SET session:1 y"], {"update key session:*": 1}),
    "a string over a list": (
        ["RPUSH l:1 a b"],
        ["SET l:1 x"],
        {"delete key l:*": 1, "insert key l:*": 1},
    ),
    "SET NX of what is there": (["SET k x"], ["SET k y NX", "SETNX k z"], {}),
    "deleting nothing": ([], ["DEL session:1", "UNLINK a b", "HDEL h f", "SREM s m", "LPOP l"], {}),
    "deleting twice in one command": (["SET k x"], ["DEL k k"], {"delete key k": 1}),
    "keys of two patterns": (
        ["MSET a:1 x a:2 x b:1 x"],
        ["DEL a:1 a:2 a:3 b:1"],
        {"delete key a:*": 2, "delete key b:*": 1},
    ),
    "a time to live on a key that had none": (
        ["SET k x"],
        ["EXPIRE k 100"],
        {"expire key k": 1},
    ),
    "GETEX": (["SET k x"], ["GETEX k", "GETEX k EX 5"], {"expire key k": 1}),
    "SET EX over a lasting key": (
        ["SET k x"],
        ["SET k y EX 5"],
        {"update key k": 1, "expire key k": 1},
    ),
    "SET EX over one that would go": (["SET k x EX 9"], ["SET k y EX 5"], {"update key k": 1}),
    "EXPIRE of the past": (["SET k x"], ["EXPIRE k 0"], {"delete key k": 1}),
    "EXPIREAT of the past": (["SET k x"], ["EXPIREAT k 1"], {"delete key k": 1}),
    "EXPIRE of nothing": ([], ["EXPIRE k 100", "PERSIST k"], {}),
    "GETDEL": (["SET k x"], ["GETDEL k"], {"delete key k": 1}),
    "an empty result deletes": (
        ["SADD d a b"],
        ["SINTERSTORE d none nothing"],
        {"delete key d": 1, "delete member d": 2},
    ),
    "a result over another one": (
        ["ZADD d 1 a 2 b 3 c", "ZADD z 1 x"],
        ["ZUNIONSTORE d 1 z"],
        {"update key d": 1, "delete member d": 3, "insert member d": 1},
    ),
    "SORT STORE": (
        ["RPUSH l 3 1 2", "SET d x"],
        ["SORT l STORE d"],
        {"delete key d": 1, "insert key d": 1, "insert member d": 3},
    ),
    "LTRIM to nothing": (
        ["RPUSH l a b c"],
        ["LTRIM l 5 6"],
        {"delete member l": 3, "delete key l": 1},
    ),
    "the last field": (
        ["HSET h a 1 b 2"],
        ["HDEL h a b c"],
        {"delete member h": 2, "delete key h": 1},
    ),
    "the last item that is waited for": (
        ["RPUSH l a"],
        ["BLPOP l 1"],
        {"delete member l": 1, "delete key l": 1},
    ),
    "a name over a key": (
        ["SET a x", "SET b y"],
        ["RENAME a b"],
        {"delete key a": 1, "delete key b": 1, "insert key b": 1},
    ),
    "COPY REPLACE": (
        ["SET a x", "SET b y"],
        ["COPY a b", "COPY a b REPLACE"],
        {"delete key b": 1, "insert key b": 1},
    ),
    "fields new and written again": (
        ["HSET h a 1"],
        ["HSET h a 2 b 2 c 3"],
        {"update key h": 1, "update member h": 1, "insert member h": 2},
    ),
    "members that are there": (["SADD s a"], ["SADD s a"], {}),
    "scores": (
        ["ZADD z 1 a"],
        ["ZADD z 2 a 1 b", "ZADD z NX 5 a", "ZINCRBY z 1 b"],
        {"update key z": 2, "update member z": 2, "insert member z": 1},
    ),
    "LREM": (
        ["RPUSH l a b a a"],
        ["LREM l 2 a", "LREM l 0 x"],
        {"delete member l": 2, "update key l": 1},
    ),
    "ranges of a sorted set": (
        ["ZADD z 1 a 2 b 3 c 4 d"],
        ["ZREMRANGEBYSCORE z 1 2", "ZREMRANGEBYRANK z 0 0", "ZREMRANGEBYLEX z - +"],
        {"delete member z": 4, "update key z": 2, "delete key z": 1},
    ),
    "an item from one list to another": (
        ["RPUSH a x"],
        ["LMOVE a b LEFT RIGHT", "LMOVE b b LEFT RIGHT"],
        {
            "delete member a": 1,
            "delete key a": 1,
            "insert key b": 1,
            "insert member b": 1,
            "update key b": 1,
        },
    ),
    "a stream that is cut short": (
        ["XADD x 1-1 f v", "XADD x 2-1 f v", "XADD x 3-1 f v", "XADD x 4-1 f v"],
        ["XTRIM x MAXLEN 3", "XTRIM x MINID 3", "XADD x MAXLEN 1 5-1 f v", "XDEL x 5-1 9-9"],
        {"delete member x": 5, "insert member x": 1, "update key x": 4},
    ),
    "a group that is there already": (
        ["XGROUP CREATE x g $ MKSTREAM"],
        [
            "XGROUP CREATE x g $ MKSTREAM",
            "XGROUP CREATE x h $",
            "XREADGROUP GROUP no c STREAMS x >",
        ],
        {"update key x": 1},
    ),
    "another database": (
        [],
        ["SELECT 1", "SET k x", "MOVE k 0"],
        {"insert key db1 k": 1, "delete key db1 k": 1, "insert key k": 1},
    ),
    "a database in a transaction": (
        [],
        ["MULTI", "SELECT 1", "SET a x", "EXEC", "SET b x"],
        {"insert key db1 a": 1, "insert key db1 b": 1},
    ),
    "a database in a transaction that is dropped": (
        [],
        ["MULTI", "SELECT 1", "SET a x", "DISCARD", "SET b x"],
        {"insert key b": 1},
    ),
    "a flush": (
        ["MSET session:1 x session:2 x lock y"],
        ["FLUSHDB"],
        {"delete key session:*": 2, "delete key lock": 1},
    ),
    "a flush of all": (
        ["MSET session:1 x lock y", "SELECT 1", "SET session:1 x", "SELECT 0"],
        ["FLUSHALL"],
        {"delete key session:*": 1, "delete key lock": 1, "delete key db1 session:*": 1},
    ),
    "an error in the middle of a transaction": (
        ["RPUSH l a"],
        ["MULTI", "SET k x", "INCR l", "SET m x", "EXEC"],
        {"insert key k": 1, "insert key m": 1},
    ),
    "one key many times in a transaction": (
        [],
        ["MULTI", "SET k x", "SET k y", "DEL k", "SET k z", "EXEC"],
        {"insert key k": 2, "update key k": 1, "delete key k": 1},
    ),
    "a key of another type": (["SET k x"], ["LPUSH k a", "SADD k a", "HSET k a b"], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_command_counts_what_it_does(
    name: str, guard: OpenGuard, redis_server: RedisServer
) -> None:
    """Every deletion counts, by whatever verb it comes; what does nothing counts nothing."""
    before, commands, expected = CASES[name]
    with direct(redis_server) as client:
        for command in before:
            client.ask(*command.split())
    with guard("measure") as guarded:
        client = guarded.client()
        for command in commands:
            client.ask(*command.split())
        found = {" ".join(key): rows for key, rows in guarded.amounts().items()}
        assert guarded.report().stop is None
    assert found == expected


def test_entries_that_a_trim_takes_are_counted(guard: OpenGuard, redis_server: RedisServer) -> None:
    """A stream that loses 5,900 entries loses 5,900 entries, though no key is gone."""
    with direct(redis_server) as client:
        client.ask("EVAL", "for i=1,6000 do redis.call('xadd','x','*','f',i) end", 0)
    with guard("measure") as guarded:
        assert guarded.client().ask("XTRIM", "x", "MAXLEN", 100) == 5900
        assert guarded.amounts()["delete", "member", "x"] == 5900


def test_a_script_is_counted_by_what_it_did(guard: OpenGuard) -> None:
    """Keys that a script names are looked at before and after; others show in their number."""
    script = "redis.call('set',KEYS[1],'x') redis.call('set','hidden:1','x') return 1"
    with guard("measure") as guarded:
        assert guarded.client().ask("EVAL", script, 1, "named:1") == 1
        assert guarded.amounts() == {
            ("insert", "key", "named:*"): 1,
            ("insert", "key", "(undeclared)"): 1,
        }
        assert len(guarded.report().unheld) == 1
    assert "unheld" in guarded.kinds()


def test_a_script_that_fails_midway_is_counted(guard: OpenGuard, redis_server: RedisServer) -> None:
    """What a script did before it failed has happened, whatever its reply says."""
    with direct(redis_server) as client:
        client.ask("MSET", "a:1", "x", "a:2", "x")
    script = "redis.call('del',KEYS[1]) redis.call('incr','no','such')"
    with guard("measure") as guarded:
        guarded.client().ask("EVAL", script, 2, "a:1", "a:2")
        assert guarded.amounts()["delete", "key", "a:*"] == 1


def test_a_script_that_was_not_loaded_counts_nothing(guard: OpenGuard) -> None:
    """EVALSHA of what the server does not have has no effect, and then EVAL has its own."""
    with guard("measure") as guarded:
        guarded.client().ask("SET", "k", "x")
        guarded.client().ask("EVALSHA", "0" * 40, 1, "k")
        assert guarded.amounts() == {("insert", "key", "k"): 1}


def test_reads_count_nothing(guard: OpenGuard) -> None:
    """Reading, asking and publishing are no effects; the trace has them, without values."""
    with guard("measure") as guarded:
        client = guarded.client()
        client.ask("GET", "session:17")
        client.ask("PUBLISH", "news", "hello")
        client.ask("EVAL_RO" if IS_NEW else "TYPE", *(["return 1", 0] if IS_NEW else ["k"]))
        client.ask("ZUNION" if IS_NEW else "EXISTS", *([1, "z"] if IS_NEW else ["z"]))
        report = guarded.report()
    assert report.effects == ()
    assert "GET session:*" in report.trace
    assert not any("17" in template for template in report.trace)


def test_a_flush_is_counted_with_bounded_patterns(
    guard: OpenGuard, redis_server: RedisServer
) -> None:
    """Ten thousand keys of three patterns are three amounts."""
    with direct(redis_server) as client:
        client.ask("DEBUG", "POPULATE", 10_000, "cache")
        client.ask("MSET", "user:1", "x", "lock", "y")
    with guard("measure") as guarded:
        assert guarded.client().ask("FLUSHALL") == b"OK"
        assert guarded.amounts() == {
            ("delete", "key", "cache:*"): 10_000,
            ("delete", "key", "user:*"): 1,
            ("delete", "key", "lock"): 1,
        }
