"""What makes two values equal, and how they are read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from handrail.adapters.redis import RedisStore, content, values
from handrail.adapters.redis.connecting import connected, read_address
from support.redis_server import RedisServer, running, server_version


@pytest.fixture(scope="module")
def twin() -> Iterator[RedisServer]:
    """A second server: other hash seeds, other encodings."""
    with running(set_max_intset_entries="1", hash_max_ziplist_entries="1") as server:
        yield server


@pytest.fixture
def other(twin: RedisServer, redis_server: RedisServer) -> Iterator[Any]:
    """A client of the empty second server."""
    twin.clear()
    client = twin.client()
    yield client
    client.close()


def fill(client: Any, order: int) -> None:
    """Write the same content, begun from either end."""
    numbers = list(range(2000))[::order]
    client.sadd("set", *numbers)
    client.hset("hash", mapping={f"field {n}": n for n in numbers})
    client.zadd("zset", {f"m{n}": n / 7 for n in numbers})
    client.sadd("small", *[1, 2, 3][::order])
    client.hset("tiny", mapping=dict([("a", 1), ("b", 2)][::order]))


def read(server: RedisServer) -> dict[bytes, values.Value | None]:
    """Return the values of all keys."""
    with connected(read_address(server.url)) as session:
        keys = sorted(session.ask("KEYS", "*"))
        return dict(zip(keys, values.Reader(session).read(keys), strict=True))


def test_equal_by_value(client: Any, other: Any, twin: RedisServer, redis_server: Any) -> None:
    """Two servers with equal sets and hashes are equal, though what DUMP says differs."""
    fill(client, 1)
    fill(other, -1)
    assert client.dump("set") != other.dump("set")
    assert read(redis_server) == read(twin)


def test_parts(client: Any, redis_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large key read in parts is the same value as one read whole."""
    fill(client, 1)
    client.set("string", b"\x00\xff" * 5000)
    client.rpush("list", *range(500))
    for number in range(20):
        client.xadd("stream", {"n": number})
    whole = read(redis_server)
    monkeypatch.setattr(values, "_PART", 7)
    monkeypatch.setattr(values, "_PART_BYTES", 11)
    assert read(redis_server) == whole
    assert {key: value.members for key, value in whole.items() if value} == {
        b"set": 2000, b"hash": 2000, b"zset": 2000, b"small": 3, b"tiny": 2, b"string": 0,
        b"list": 500, b"stream": 20,
    }  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        ("XADD", "stream", "*", "a", 1),
        ("XDEL", "stream", "1-0"),
        ("XGROUP", "CREATE", "stream", "second", 0),
        ("XGROUP", "SETID", "stream", "group", 0),
        ("XREADGROUP", "GROUP", "group", "me", "COUNT", 1, "STREAMS", "stream", ">"),
        ("XACK", "stream", "group", "1-0"),
        ("XSETID", "stream", "9-9"),
    ],
    ids=lambda command: command[0] + str(command[1] == "CREATE"),
)
def test_streams(client: Any, redis_server: Any, command: tuple[Any, ...]) -> None:
    """Entries, the last id, groups and what is pending make a stream; looking changes none."""
    for number in (1, 2, 3):
        client.xadd("stream", {"n": number}, id=f"{number}-0")
    client.execute_command("XGROUP", "CREATE", "stream", "group", 0)
    reading = ("XREADGROUP", "GROUP", "group", "me", "COUNT", 1, "STREAMS", "stream", ">")
    client.execute_command(*reading)
    before = read(redis_server)
    assert read(redis_server) == before
    client.execute_command(*command)
    assert read(redis_server) != before


def test_goes_by_itself(store: RedisStore, client: Any) -> None:
    """A key that ends within hours is no content of a checksum, before it ended and after."""
    client.set("kept", 1)
    client.set("short", 1, px=300)
    before = store.fingerprint()
    assert [name for name, _ in before.tables] == ["kept"]
    deadline = time.monotonic() + 10
    while client.exists("short"):
        assert time.monotonic() < deadline
    assert store.fingerprint() == before


def test_many_patterns(store: RedisStore, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names without any pattern do not make a fingerprint or a measure without bounds."""
    monkeypatch.setattr(content, "MOST_PATTERNS", 5)
    for word in ("ana", "ben", "chi", "eva", "fay", "gus"):
        client.set(f"user:{word}", word)
    client.set("other", 1)
    before = store.fingerprint()
    assert [name for name, _ in before.tables] == ["other...", "user..."]
    assert sum(table.rows for table in store.measure().tables) == 7
    assert len(store.measure().tables) == 6
    client.set("user:gus", "other")
    assert before.differences(store.fingerprint()) == ("table user...",)


def test_reading_does_not_touch(store: RedisStore, client: Any) -> None:
    """From 7.2 on, looking at keys leaves their idle times as they are; before, it cannot."""
    client.set("old", 1)
    store.fingerprint()
    with connected(read_address(store.connection().parts["url"])) as session:
        knows = session.may("CLIENT", "NO-TOUCH", "ON") == b"OK"
    assert knows is (server_version() >= (7, 2))


def test_scores(client: Any, redis_server: Any) -> None:
    """Scores are equal by number: inf, small fractions and 2^53 are read exactly."""
    client.zadd("zset", {"a": float("inf"), "b": 0.1 + 0.2, "c": 2**53, "d": -0.0, "e": 1e-300})
    before = read(redis_server)
    client.zadd("zset", {"b": 0.3})
    assert read(redis_server) != before
