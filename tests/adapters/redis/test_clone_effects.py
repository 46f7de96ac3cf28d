"""Effects on a clone: every change counted, and what differs afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from support.redis_server import server_version
from support.redis_stores import Scene, said

DAYS_S = 3 * 86400
KEY, MEMBER = "key", "member"
Run = Callable[[Any], object]


def fill(client: Any) -> None:
    """Write keys of every kind."""
    for number in range(20):
        client.set(f"session:{number}", f"value {number}")
    client.rpush("queue:1", *range(30))
    client.sadd("tags:1", "a", "b", "c")
    client.sadd("tags:2", "d")
    client.zadd("rank:1", {"a": 1.5, "b": 2.5})
    client.hset("user:1", mapping={"name": "ana", "mail": "a@b"})
    for number in range(50):
        client.xadd("log", {"line": number})


def test_nothing(client: Any, scene: Scene) -> None:
    """A script that only reads, or deletes what is not there, has no effect."""
    fill(client)

    def script(clone: Any) -> None:
        clone.get("session:1")
        clone.delete("nothing", "nowhere:1")
        clone.expire("nothing", 10)
        clone.srem("tags:1", "not there")

    assert scene.effects(script) == {}


def test_gross_and_net(client: Any, scene: Scene) -> None:
    """A key written a thousand times is a thousand updates, of which one differs."""
    fill(client)

    def script(clone: Any) -> None:
        for number in range(1000):
            clone.set("session:1", number)
        clone.set("session:2", "value 2")
        clone.delete("session:3")
        clone.set("session:3", "value 3")

    assert scene.effects(script) == {
        ("update", KEY, "session:*"): (1001, 1),
        ("delete", KEY, "session:*"): (1, 0),
        ("insert", KEY, "session:*"): (1, 0),
    }


def test_other_databases(client: Any, scene: Scene, redis_server: Any) -> None:
    """Keys of another database than 0 are named with its number."""
    client.set("a:1", 1)
    client.execute_command("SELECT", 3)
    client.set("a:1", 1)
    client.execute_command("SELECT", 0)

    def script(clone: Any) -> None:
        clone.execute_command("SELECT", 3)
        clone.delete("a:1")
        clone.execute_command("SELECT", 0)

    assert scene.effects(script) == {("delete", KEY, "db3 a:*"): (1, 1)}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (lambda c: c.ltrim("queue:1", 1, 0), {("delete", KEY, "queue:*"): (1, 1)}),
        (
            lambda c: c.ltrim("queue:1", 0, 9),
            {("update", KEY, "queue:*"): (1, 1), ("delete", MEMBER, "queue:*"): (20, 20)},
        ),
        (
            lambda c: c.xtrim("log", maxlen=10, approximate=False),
            {("update", KEY, "log"): (1, 1), ("delete", MEMBER, "log"): (40, 40)},
        ),
        (lambda c: c.hdel("user:1", "name", "mail"), {("delete", KEY, "user:*"): (1, 1)}),
        (lambda c: c.blpop(["none", "tags:9", "queue:1"], 1), {
            ("update", KEY, "queue:*"): (1, 1), ("delete", MEMBER, "queue:*"): (1, 1)}),
        (lambda c: c.sinterstore("tags:1", "tags:2", "tags:3"), {
            ("delete", KEY, "tags:*"): (1, 1)}),
        (lambda c: c.sort("queue:1", store="rank:1"), {
            ("update", KEY, "rank:*"): (1, 1), ("delete", MEMBER, "rank:*"): (2, 2)}),
        (lambda c: c.rename("session:1", "user:1"), {
            ("delete", KEY, "session:*"): (1, 1), ("update", KEY, "user:*"): (1, 1),
            ("delete", MEMBER, "user:*"): (2, 2)}),
        (lambda c: c.expire("session:1", 0), {("delete", KEY, "session:*"): (1, 1)}),
        (lambda c: c.getdel("session:1"), {("delete", KEY, "session:*"): (1, 1)}),
        (lambda c: c.set("tags:1", "text"), {
            ("update", KEY, "tags:*"): (1, 1), ("delete", MEMBER, "tags:*"): (3, 3)}),
    ],
    ids=["ltrim-all", "ltrim", "xtrim", "last-hdel", "blpop", "empty-store", "sort-store",
         "rename-over", "expire-0", "getdel", "other-type"],
)  # fmt: skip
def test_deletes_without_a_delete(
    client: Any, scene: Scene, script: Run, expected: dict[Any, Any]
) -> None:
    """What is gone is a deletion, whatever the command that did it was called."""
    fill(client)
    assert scene.effects(script) == expected


@pytest.mark.parametrize(
    ("script", "verb"),
    [
        (lambda c: c.expire("session:1", DAYS_S), "expire"),
        (lambda c: c.getex("session:1", ex=DAYS_S), "expire"),
        (lambda c: c.pexpireat("session:1", int(time.time() + DAYS_S) * 1000), "expire"),
        (lambda c: c.persist("user:1"), "update"),
    ],
    ids=["expire", "getex", "pexpireat", "persist"],
)
def test_delayed_deletion(client: Any, scene: Scene, script: Run, verb: str) -> None:
    """An expiry set on a key that was to stay is an effect, though the key is still there."""
    fill(client)
    client.expire("user:1", 2 * DAYS_S)
    found = scene.effects(script)
    ((key, amounts),) = found.items()
    assert key[:2] == (verb, KEY)
    assert amounts == (1, 1)


def test_overwriting_with_an_end(client: Any, scene: Scene) -> None:
    """A key overwritten with a value that goes by itself is updated, and expires."""
    fill(client)
    found = scene.effects(lambda c: c.set("session:1", "other", ex=DAYS_S))
    assert found == {
        ("update", KEY, "session:*"): (1, 1),
        ("expire", KEY, "session:*"): (1, 1),
    }


@pytest.mark.skipif(server_version() < (7,), reason="the record has no times before Redis 7.0")
def test_what_ends_by_itself(client: Any, scene: Scene) -> None:
    """A key whose time comes during the rehearsal was not deleted by the script."""
    fill(client)
    client.set("short:1", "x", px=1500)

    def script(clone: Any) -> None:
        assert clone.exists("short:1")
        deadline = time.monotonic() + 10
        while clone.exists("short:1"):
            assert time.monotonic() < deadline

    assert scene.effects(script) == {}


def test_script_inside_the_server(client: Any, scene: Scene) -> None:
    """What a Lua script did is counted command by command, also when it failed midway."""
    fill(client)
    code = "for i=1,9 do redis.call('DEL', 'session:'..i) end; redis.call('LPUSH', 'user:1', 1)"

    def script(clone: Any) -> None:
        with pytest.raises(redis.ResponseError):
            clone.eval(code, 0)

    assert scene.effects(script) == {("delete", KEY, "session:*"): (9, 9)}


def test_transaction_with_a_bad_command(client: Any, scene: Scene) -> None:
    """EXEC with one failing command keeps the others' effects, and they are told."""
    fill(client)

    def script(clone: Any) -> None:
        with clone.pipeline(transaction=True) as pipe:
            pipe.delete("session:1")
            pipe.lpush("user:1", "wrong type")
            pipe.delete("session:2")
            assert isinstance(pipe.execute(raise_on_error=False)[1], redis.ResponseError)

    assert scene.effects(script) == {("delete", KEY, "session:*"): (2, 2)}


@pytest.mark.parametrize("flush", ["FLUSHALL", "FLUSHDB"])
def test_flush(client: Any, scene: Scene, flush: str) -> None:
    """A flush is the deletion of every key, told by pattern; FLUSHDB spares other databases."""
    fill(client)
    client.execute_command("SELECT", 2)
    client.set("kept:1", 1)
    client.execute_command("SELECT", 0)
    found = scene.effects(lambda c: c.execute_command(flush))
    expected = {"session:*": 20, "queue:*": 1, "tags:*": 2, "rank:*": 1, "user:*": 1, "log": 1}
    expected |= {"db2 kept:*": 1} if flush == "FLUSHALL" else {}
    assert found == {("delete", KEY, name): (n, n) for name, n in expected.items()}


def test_flush_and_refill(client: Any, scene: Scene) -> None:
    """A flush whose keys are all written again differs in nothing, and is still counted."""
    fill(client)

    def script(clone: Any) -> None:
        kept = clone.dump("user:1")
        clone.execute_command("FLUSHALL")
        clone.restore("user:1", 0, kept)

    found = scene.effects(script)
    assert found["delete", KEY, "user:*"] == (1, 0)
    assert found["insert", KEY, "user:*"] == (1, 0)
    assert found["delete", KEY, "session:*"] == (20, 20)


def test_exchanged_databases(client: Any, scene: Scene) -> None:
    """SWAPDB moves every key: gone in the one database, new in the other."""
    fill(client)
    found = scene.effects(lambda c: c.execute_command("SWAPDB", 0, 1))
    assert found["delete", KEY, "session:*"] == (20, 20)
    assert found["insert", KEY, "db1 session:*"] == (20, 20)


def test_eviction_that_hides(client: Any, scene: Scene) -> None:
    """Keys that a setting evicted are deletions, though the setting was put back."""
    for number in range(3000):
        client.set(f"page:{number}", "x" * 1000)

    def script(clone: Any) -> None:
        clone.config_set("maxmemory-policy", "allkeys-lru")
        clone.config_set("maxmemory", "3mb")
        clone.set("one", 1)
        clone.config_set("maxmemory", "0")
        clone.config_set("maxmemory-policy", "noeviction")

    found = scene.effects(script)
    rows, net = found["delete", KEY, "page:*"]
    assert rows == net
    assert rows is not None
    assert rows > 500
    assert {kind for _, kind, _ in found} == {KEY}


def test_settings_and_users(client: Any, scene: Scene) -> None:
    """A setting changed and users made, changed or removed are effects; no secret is told."""
    client.execute_command("ACL", "SETUSER", "ben", "on", ">old", "~*", "+get")
    client.execute_command("ACL", "SETUSER", "eva", "on", "~*", "+get")
    clone, script, before = scene.begin()
    script.config_set("maxmemory-policy", "allkeys-lru")
    script.config_set("masterauth", "s3cret")
    script.execute_command("ACL", "SETUSER", "chi", "on", "nopass", "~*", "+@all")
    script.execute_command("ACL", "SETUSER", "ben", ">s3cret")
    script.execute_command("ACL", "DELUSER", "eva")
    effects = clone.effects(before)
    assert set(said(effects)) == {
        ("alter", "setting", "maxmemory-policy"),
        ("alter", "setting", "masterauth"),
        ("create", "user", "chi"),
        ("alter", "user", "ben"),
        ("drop", "user", "eva"),
    }
    assert "now allkeys-lru, was noeviction" in {effect.detail for effect in effects}
    assert "s3cret" not in str(effects)


@pytest.mark.skipif(server_version() < (7,), reason="functions came with Redis 7.0")
def test_functions(client: Any, scene: Scene) -> None:
    """A library of functions that came, and one that went, are effects."""
    code = "#!lua name={}\nredis.register_function('f_{}', function() return 1 end)"
    client.execute_command("FUNCTION", "LOAD", code.format("old", "old"))

    def script(clone: Any) -> None:
        clone.execute_command("FUNCTION", "DELETE", "old")
        clone.execute_command("FUNCTION", "LOAD", code.format("new", "new"))

    try:
        found = scene.effects(script)
    finally:
        client.execute_command("FUNCTION", "FLUSH")
    assert set(found) == {("drop", "function", "old"), ("create", "function", "new")}


def test_binary_names(client: Any, scene: Scene) -> None:
    """Keys and values that are no text are counted like any other."""
    client.set(b"\xff\x00\r\n*$:1", b"\x00\xff" * 100)

    def script(clone: Any) -> None:
        clone.append(b"\xff\x00\r\n*$:1", b"\r\n")
        clone.set(b"*1\r\n$4\r\nPING\r\n", b"#TS:12\r\n")

    found = scene.effects(script)
    assert sorted((verb, kind, amounts) for (verb, kind, _), amounts in found.items()) == [
        ("insert", KEY, (1, 1)),
        ("update", KEY, (1, 1)),
    ]


def test_cut_record(client: Any, scene: Scene) -> None:
    """Where a script cut the clone's record off, what differs is still told, and no more."""
    fill(client)

    def script(clone: Any) -> None:
        clone.config_set("appendonly", "no")
        for number in range(5):
            clone.set("session:1", number)
        clone.delete("session:2")

    found = scene.effects(script)
    assert found["update", KEY, "session:*"] == (1, None)
    assert found["delete", KEY, "session:*"] == (1, None)
    assert ("alter", "setting", "appendonly") in found


def test_observed_twice(client: Any, scene: Scene, tmp_path: Any) -> None:
    """A second observation begins anew: what was done before it is not told again."""
    fill(client)
    clone, script, before = scene.begin()
    script.delete("session:1")
    again = tmp_path / "again"
    again.mkdir()
    clone.observe(again)
    script.delete("session:2", "session:3")
    assert said(clone.effects(again)) == {("delete", KEY, "session:*"): (2, 2)}
    # The first record ended when the second began; what differs is still known.
    assert said(clone.effects(before)) == {("delete", KEY, "session:*"): (3, None)}


def test_large_commands(client: Any, scene: Scene) -> None:
    """A command with ten thousand keys is counted key by key."""
    client.mset({f"bulk:{number}": number for number in range(10_000)})
    found = scene.effects(lambda c: c.delete(*(f"bulk:{number}" for number in range(10_000))))
    assert found == {("delete", KEY, "bulk:*"): (10_000, 10_000)}


def test_shutdown_is_no_silence(client: Any, scene: Scene) -> None:
    """A clone that the script shut down cannot be measured, and that is an error."""
    from handrail.errors import StoreError

    fill(client)
    clone, script, before = scene.begin()
    with pytest.raises(redis.ConnectionError):
        script.execute_command("SHUTDOWN", "NOSAVE")
    with pytest.raises(StoreError):
        clone.effects(before)
