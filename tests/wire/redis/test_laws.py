"""Laws of the guard, over random scripts: it changes nothing, it counts alike, it holds exactly."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from handrail.plans.budget import from_effects
from handrail.plans.holding import Limits, Report
from handrail.plans.model import Budget
from handrail.wire.redis.plan import name_of
from support.redis_guarding import Guarded, direct, guarding
from support.redis_scripts import Command, Writer, play, run
from support.redis_server import RedisServer, run_server

DATABASES = (0, 1)
SCRIPTS = 30


@pytest.fixture(scope="session")
def other_process() -> Iterator[RedisServer]:
    """A second server, equal to the first."""
    yield from run_server()


@pytest.fixture
def pair(redis_server: RedisServer, other_process: RedisServer) -> tuple[RedisServer, RedisServer]:
    other_process.clear()
    return redis_server, other_process


def fill(server: RedisServer) -> None:
    """Put something of every kind into an empty server."""
    server.clear()
    with closing(cast("Any", server.client())) as client:
        for number in range(3):
            client.set(f"session:{number}", number)
        client.rpush("l:1", *"abcab")
        client.sadd("s:1", *"abc")
        client.hset("h:1", mapping={"a": 1, "b": 2})
        client.zadd("z:1", {"a": 1, "b": 2, "c": 3})
        client.xadd("x:1", {"f": "v"}, id="0-1")


def content(server: RedisServer) -> dict[tuple[int, bytes], object]:
    """Return every value: not its payload, which differs between equal servers."""
    found: dict[tuple[int, bytes], object] = {}
    for database in DATABASES:
        with closing(cast("Any", server.client(database))) as client:
            readers = {
                b"string": client.get,
                b"list": lambda key, client=client: client.lrange(key, 0, -1),
                b"set": lambda key, client=client: sorted(client.smembers(key)),
                b"hash": client.hgetall,
                b"zset": lambda key, client=client: client.zrange(key, 0, -1, withscores=True),
                b"stream": client.xrange,
            }
            for key in client.scan_iter(count=1000):
                kind = client.type(key)
                found[database, key] = (kind, readers[kind](key), client.ttl(key) >= 0)
    return found


def keys_by_name(server: RedisServer) -> Counter[str]:
    return Counter(name_of(place) for place in content(server))


def measured(server: RedisServer, commands: list[Command], folder: Path) -> tuple[Any, Report]:
    with guarding(server, Limits(mode="measure"), folder) as guarded:
        replies = run(guarded.client(), commands, at_once=True)
        return replies, guarded.report()


def held(
    server: RedisServer, commands: list[Command], folder: Path, limits: Limits, *, at_once: bool
) -> tuple[list[bytes], Report]:
    with guarding(server, limits, folder) as guarded:
        replies = run(guarded.client(), commands, at_once=at_once)
        return replies, guarded.report()


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("seed", range(SCRIPTS))
def test_observing_changes_no_reply(
    seed: int, protocol: int, pair: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    """Random commands get the same replies through the guard as direct, byte for byte."""
    straight, behind = pair
    commands = Writer(seed).anything(60)
    with direct(straight, protocol) as client:
        expected = play(client, commands, 5000)
    with guarding(behind, Limits(mode="observe"), tmp_path) as guarded:
        pieces = random.Random(seed).choice((3, 100, 5000))
        assert play(guarded.client(protocol), commands, pieces) == expected
    assert content(behind) == content(straight)


@pytest.mark.parametrize("seed", range(SCRIPTS))
def test_a_measured_script_is_counted_to_the_key(
    seed: int, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Keys made less keys deleted, by pattern, are what the server has more of afterwards."""
    fill(redis_server)
    before = keys_by_name(redis_server)
    _, report = measured(redis_server, Writer(seed).exact(40), tmp_path)
    assert report.stop is None
    counted: Counter[str] = Counter(before)
    for effect in report.effects:
        if effect.kind == "key" and effect.verb in {"insert", "delete"}:
            counted[effect.name] += (effect.rows or 0) * (1 if effect.verb == "insert" else -1)
    assert +counted == keys_by_name(redis_server)


@pytest.mark.parametrize("seed", range(SCRIPTS))
def test_a_script_fits_into_what_was_measured_of_it(
    seed: int, pair: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    """The same script on an equal server is inside its budget to the last key, and counts alike."""
    rehearsed, real = pair
    commands = Writer(seed).exact(40)
    fill(rehearsed)
    expected, measure = measured(rehearsed, commands, tmp_path)
    fill(real)
    budget = from_effects(measure.effects, relative=0, absolute=0)
    limits = Limits(mode="hold", budget=budget, trace=measure.trace)
    replies, report = held(real, commands, tmp_path, limits, at_once=bool(seed % 2))
    assert report.stop is None
    assert replies == expected
    assert report.effects == measure.effects
    assert content(real) == content(rehearsed)


@pytest.mark.parametrize("seed", range(SCRIPTS))
def test_one_less_in_the_budget_stops_the_script_before(
    seed: int, pair: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    """With one key or member less, nothing of the command that needs it takes effect."""
    rehearsed, real = pair
    commands = Writer(seed).exact(40)
    fill(rehearsed)
    _, measure = measured(rehearsed, commands, tmp_path)
    allowances = from_effects(measure.effects, relative=0, absolute=0).allowances
    chosen = random.Random(seed).choice(allowances)
    less = tuple(
        replace(one, rows=(one.rows or 0) - 1) if one is chosen else one for one in allowances
    )
    limits = Limits(mode="hold", budget=Budget(less, "rehearsal"), trace=measure.trace)
    fill(real)
    replies, report = held(real, commands, tmp_path, limits, at_once=bool(seed % 2))
    if report.unheld:
        pytest.skip("what its transaction hides is compared afterwards")
    assert report.stop is not None
    stopped_at = next(at for at, reply in enumerate(replies) if b"HANDRAIL" in reply)
    left = content(real)
    fill(real)
    with direct(real) as client:
        run(client, commands[:stopped_at], at_once=False)
    assert left == content(real)


def test_two_connections_share_one_budget(redis_server: RedisServer, tmp_path: Path) -> None:
    """What one connection has used, another has not any more."""
    with closing(cast("Any", redis_server.client())) as client:
        client.mset({f"session:{number}": "x" for number in range(20)})
    one = Limits(mode="measure")
    with guarding(redis_server, one, tmp_path) as guarded:
        guarded.client().ask("DEL", "session:0", "session:1", "session:2")
        budget = from_effects(guarded.report().effects, relative=0, absolute=0)
    with guarding(redis_server, Limits(mode="hold", budget=budget), tmp_path) as guarded:
        first, second = guarded.client(), guarded.client()
        assert first.ask("DEL", "session:3", "session:4") == 2
        assert stopped(second.ask("DEL", "session:5", "session:6"))
        assert guarded.amounts() == {("delete", "key", "session:*"): 2}
    assert keys_by_name(redis_server)["session:*"] == 15


def stopped(reply: object) -> bool:
    text = getattr(reply, "text", b"")
    return bool(text.startswith(b"HANDRAIL stopped before it took effect"))


def test_what_both_do_at_once_is_one_sum(redis_server: RedisServer, tmp_path: Path) -> None:
    """Many connections at the same time never do more together than the budget has."""
    allowed = 50
    with guarding(redis_server, Limits(mode="measure"), tmp_path) as guarded:
        guarded.client().ask("MSET", *(word for n in range(allowed) for word in (f"job:{n}", "x")))
        budget = from_effects(guarded.report().effects, relative=0, absolute=0)
    redis_server.clear()
    with guarding(redis_server, Limits(mode="hold", budget=budget), tmp_path) as guarded:
        clients = [guarded.client() for _ in range(8)]
        made = _all_at_once(guarded, clients)
        assert guarded.amounts() == {("insert", "key", "job:*"): allowed}
    assert made == allowed
    assert keys_by_name(redis_server) == Counter({"job:*": allowed})


def _all_at_once(guarded: Guarded, clients: list[Any]) -> int:
    """Let each client set 20 keys of its own in one go; return how many were set."""
    from support.redis_guarding import encoded

    del guarded
    for number, client in enumerate(clients):
        client.send(b"".join(encoded("SET", f"job:{number * 100 + n}", "x") for n in range(20)))
    return sum(client.reply() == b"OK" for client in clients for _ in range(20))
