"""What came before passes without being taken apart again, and is paired all the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.plans.budget import from_effects
from handrail.plans.holding import Limits
from handrail.plans.patterns import pattern_of
from handrail.wire.redis import usual
from handrail.wire.redis.pairing import Local, Pairing
from handrail.wire.redis.replies import FramingError
from handrail.wire.redis.requests import encode, parse
from handrail.wire.redis.usual import NO_SHAPE, Shape, Usual
from support.redis_guarding import Client, Guarded, direct, encoded, guarding
from support.redis_server import RedisServer

OpenGuard = Callable[..., AbstractContextManager[Guarded]]
# Arguments that look like the protocol itself.
SNEAKY = [b"k", b"k1", b"", b"*2\r\n$3\r\nGET\r\n$", b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", b"\r\n"]
GETS = st.sampled_from(SNEAKY).map(lambda key: encode(b"GET", key))
OTHERS = st.sampled_from([encode(b"get", b"k"), encode(b"HGET", b"k", b"f"), encode(b"PING"), b""])
ODD = st.sampled_from([b"*2\r\n$3\r\nGETxx$1\r\nkxx", b"*2\r\n", b"$3\r\nGET\r\n", b"k\r\n", b"\r"])


def parsed(data: bytes) -> list[list[bytes]]:
    """Return the commands of `data`; all of it is commands."""
    at, found = 0, []
    while at < len(data):
        words: list[bytes] = []
        at = parse(data, at, words)
        assert at > 0
        found.append(words)
    return found


def learned(commands: list[bytes]) -> tuple[Usual, Shape]:
    known, shape = Usual(), NO_SHAPE
    for raw in commands:
        shape = known.learn(parsed(raw)[0], raw, is_alone=True)
    return known, shape


@given(st.lists(GETS, min_size=1), st.lists(st.one_of(GETS, OTHERS, ODD)))
def test_only_whole_commands_that_came_before_are_counted(
    before: list[bytes], now: list[bytes]
) -> None:
    """What is counted without a parser is what a parser finds, and each of it came before."""
    known, shape = learned(before)
    data = b"".join(now)
    if count := shape.count(data):
        assert len(parsed(data)) == count
        assert {encode(*words) for words in parsed(data)} <= set(before)
    if data in known.alone:
        assert len(parsed(data)) == 1
    # One that has another one's beginning in it is left to the parser.
    if now and set(now) <= {raw for raw in before if raw.count(b"GET") == 1}:
        assert shape.count(data) == len(now)


KEYS = st.from_regex(rb"(key|v|user|session)[:.-]?[0-9a-f]{0,9}(:[0-9]{1,3})?", fullmatch=True)
NAMES = st.sampled_from(
    [(b"GET",), (b"TTL",), (b"HGET", b"f1"), (b"HGET", b"f2"), (b"HGET", b"12")]
)


def named(name: tuple[bytes, ...], key: bytes) -> bytes:
    return encode(name[0], key, *name[1:])


def template(raw: bytes) -> tuple[bytes, str, tuple[bytes, ...]]:
    words = parsed(raw)[0]
    return words[0], pattern_of(words[1].decode("utf-8", "backslashreplace")), tuple(words[2:])


@given(
    st.lists(st.tuples(NAMES, KEYS), min_size=1, max_size=6),
    st.lists(st.tuples(NAMES, KEYS), min_size=1, max_size=4),
    st.data(),
)
def test_a_key_passes_for_another_only_where_both_have_one_pattern(
    before: list[tuple[tuple[bytes, ...], bytes]],
    now: list[tuple[tuple[bytes, ...], bytes]],
    data: st.DataObject,
) -> None:
    """What passes unseen has a name, a pattern and arguments that were all noted together."""
    known, noted = Usual(), set()
    for name, key in before:
        raw = named(name, key)
        known.learn(parsed(raw)[0], raw, is_alone=False, has_key=True)
        noted.add(template(raw))
    # Others like these: with other digits, of which some are the lengths'.
    like = [(name, _with_digits(key, data)) for name, key in before]
    for raw in (named(*one) for one in (*now, *like)):
        if count := known.shape_of(raw).count(raw):
            assert count == 1
            assert template(raw) in noted
    for raw in (_with_digits(named(*one), data) for one in before):
        if known.shape_of(raw).count(raw):
            assert template(raw) in noted
            assert len(parsed(raw)) == 1


def _with_digits(text: bytes, data: st.DataObject) -> bytes:
    """Return `text` with some of its digits exchanged for others."""
    digits = data.draw(st.lists(st.sampled_from(b"0123456789"), min_size=1, max_size=5))
    return bytes(
        digits[at % len(digits)] if bytes([byte]).isdigit() else byte
        for at, byte in enumerate(text)
    )


def test_numbers_are_alike_and_names_with_digits_are_not() -> None:
    """`key:17` passes for `key:42`, also before arguments; `v1` never does for `v2`."""
    known = Usual()
    for words in ([b"GET", b"key:17"], [b"HGET", b"user:17", b"name"], [b"GET", b"v1"]):
        known.learn(words, encode(*words), is_alone=False, has_key=True)
    known.learn([b"GETBIT", b"a", b"17"], encode(b"GETBIT", b"a", b"17"), is_alone=False)

    def count(*words: bytes, times: int = 1) -> int:
        data = encode(*words) * times
        return known.shape_of(data).count(data)

    assert count(b"GET", b"key:42", times=3) == 3
    assert count(b"HGET", b"user:99", b"name") == 1
    assert count(b"HGET", b"user:99", b"nome") == 0
    assert count(b"GET", b"key:420") == 0  # of another length: looked at once
    wrong = encode(b"GET", b"key:42").replace(b"$6", b"$5")
    assert known.shape_of(wrong).span
    assert known.shape_of(wrong).count(wrong) == 0  # a length that is not the key's
    assert count(b"GET", b"v1") == 1
    assert count(b"GET", b"v2") == 0
    assert count(b"GETBIT", b"b", b"17") == 0


def test_a_command_with_odd_ends_is_not_learned() -> None:
    """Two bytes after an argument that are no line's end are the server's to skip, not ours."""
    raw = b"*2\r\n$3\r\nGETxx$1\r\nk\r\n"
    assert Usual().learn([b"GET", b"k"], raw, is_alone=True) is NO_SHAPE


def test_what_came_before_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many, all are forgotten, also by who holds a shape; a long one is never noted."""
    monkeypatch.setattr(usual, "MOST_COMMANDS", 3)
    raws = [encode(b"GET", b"key:%d" % number) for number in range(4)]
    known, _ = learned(raws[:3])
    shape = known.learn([b"GET", b"key:0"], raws[0], is_alone=True)
    assert shape.count(raws[0]) == 1
    assert shape.count(raws[1]) == 0
    assert known.alone == {raws[0]}
    long = encode(b"GET", b"x" * usual.MOST_COMMAND_BYTES)
    assert known.learn([b"GET", b"x"], long, is_alone=True) is NO_SHAPE


# --- replies ---------------------------------------------------------------------------------

USUAL_REPLIES = st.one_of(
    st.sampled_from([b"$-1\r\n", b":1\r\n", b"+OK\r\n", b"_\r\n", b":1234567\r\n", b"$0\r\n\r\n"]),
    st.sampled_from(
        [b"$5\r\n$5\r\na\r\n", b"$5\r\nabcde\r\n", b"$3\r\nabc\r\n", b"$3\r\n$3\r\r\n"]
    ),
    st.sampled_from([b"*2\r\n:1\r\n$3\r\nabc\r\n", b"-ERR no\r\n", b"*0\r\n"]),
)


@given(
    st.lists(st.tuples(st.lists(USUAL_REPLIES, min_size=1, max_size=6), st.integers(0, 2))),
    st.lists(st.integers(1, 60), min_size=1),
)
def test_replies_are_counted_alike_the_quick_way(
    groups: list[tuple[list[bytes], int]], sizes: list[int]
) -> None:
    """Groups, their parts, and several at once: the client gets the same, in its turn."""
    emitted: list[bytes] = []
    pairing, expected, data = Pairing(emitted.append), b"", b""
    pieces: list[bytes] = []
    for turn, (replies, ours) in enumerate(groups):
        for _ in replies:
            pairing.plain(1)
        for _ in range(ours):
            pairing.expect(Local(b"+ours\r\n"))
        expected += b"".join(replies) + b"+ours\r\n" * ours
        # A group comes whole, or cut somewhere.
        data, size = b"".join(replies), sizes[turn % len(sizes)]
        pieces += [data] if turn % 2 else [data[:size], data[size:]]
    for piece in pieces:
        if pairing.takes_all(piece):
            emitted.append(piece)
        else:
            pairing.feed(piece)
    assert b"".join(emitted) == expected
    assert not pairing.pending


@given(st.binary(max_size=80), st.integers(1, 4))
def test_what_is_no_reply_is_not_taken_for_one(data: bytes, count: int) -> None:
    """The quick way takes nothing that the general one would not pass on as it is."""
    quick, emitted = Pairing(lambda _: None), list[bytes]()
    general = Pairing(emitted.append)
    quick.plain(count)
    general.plain(count)
    if not data or not quick.takes_all(data):
        return
    general.feed(data)
    assert b"".join(emitted) == data
    assert [entry.__class__ for entry in quick.pending] == [e.__class__ for e in general.pending]


def test_more_replies_than_were_asked_for_are_not_passed_quickly() -> None:
    """A server that answers more than it was asked has the general way decide."""
    pairing = Pairing(lambda _: None)
    pairing.plain(1)
    assert not pairing.takes_all(b"$-1\r\n$-1\r\n")
    assert not pairing.takes_all(b"+\r")
    assert not pairing.takes_all(b"+")
    with pytest.raises(FramingError):
        pairing.feed(b"$x\r\n")


def test_replies_of_other_lengths_are_not_counted_as_equal_ones() -> None:
    """Two short replies in the room of one more of the last length are two."""
    emitted: list[bytes] = []
    pairing = Pairing(emitted.append)
    pairing.plain(4)
    assert pairing.takes_all(b"$3\r\nabc\r\n")
    assert not pairing.takes_all(b"$3\r\nabc\r\n$-1\r\n:1\r\n")
    pairing.feed(b"$3\r\nabc\r\n$-1\r\n:1\r\n")
    assert not pairing.pending


# --- the whole -------------------------------------------------------------------------------


def script(seed: int) -> list[tuple[Any, ...]]:
    """Return commands of which most read, and some change what the next ones mean."""
    chance = random.Random(seed)
    reads: list[tuple[Any, ...]] = [("GET", f"key:{n}") for n in range(6)] + [
        ("get", "key:1"),
        ("MGET", "key:1", "key:2"),
    ]
    reads += [
        ("GET", "no"),
        ("HGET", "hash:1", "f"),
        ("STRLEN", "key:3"),
        ("LRANGE", "list:1", 0, 9),
    ]
    reads += [("GET", f"key:{n}") for n in range(10, 90, 7)] + [("HGET", "hash:7", "f")]
    reads += [("GET", "hash:1"), ("PING",), ("ECHO", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), ("GET",)]
    others = [
        ("SELECT", 1),
        ("SELECT", 0),
        ("SET", "key:1", "v" * 7),
        ("INCR", "number:1"),
        ("EXEC",),
    ]
    others += [("MULTI",), ("DISCARD",), ("WATCH", "key:1"), ("UNWATCH",), ("SELECT", 99)]
    return [chance.choice(reads if chance.random() < 0.85 else others) for _ in range(120)]


def sent(client: Client, commands: list[tuple[Any, ...]], chance: random.Random) -> list[bytes]:
    """Send commands one by one, in whole pipelines, or cut anywhere; return the replies' bytes."""
    found: list[bytes] = []
    at = 0
    while at < len(commands):
        group = commands[at : at + chance.choice((1, 1, 1, 4, 16))]
        data = b"".join(encoded(*words) for words in group)
        middle = chance.choice((0, 0, chance.randrange(len(data))))
        for piece in (data[:middle], data[middle:]):
            if piece:
                client.send(piece)
        found += [client.raw() for _ in group]
        at += len(group)
    return found


def fill(server: RedisServer) -> None:
    server.clear()
    with closing(server.client()) as client:
        client.mset({f"key:{number}": "x" * number for number in range(6)})
        client.hset("hash:1", "f", "v")
        client.rpush("list:1", *range(5))


@pytest.mark.parametrize("mode", ["observe", "measure", "hold"])
@pytest.mark.parametrize("seed", range(4))
def test_replies_are_the_servers_own_the_quick_way(
    seed: int, mode: Any, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Reads that come again and again, among all else: each reply is its own command's."""
    commands = script(seed)
    fill(redis_server)
    with direct(redis_server) as client:
        expected = sent(client, commands, random.Random(seed))
    fill(redis_server)
    limits = Limits(mode="measure" if mode == "hold" else mode)
    # Each alone: what is noted, and counted, is the same.
    with guarding(redis_server, limits, tmp_path) as guarded:
        client = guarded.client()
        for words in commands:
            client.ask(*words)
        alone = guarded.report()
    fill(redis_server)
    if mode == "hold":
        budget = from_effects(alone.effects, relative=0, absolute=0)
        limits = Limits(mode="hold", budget=budget, trace=alone.trace)
    with guarding(redis_server, limits, tmp_path) as guarded:
        assert sent(guarded.client(), commands, random.Random(seed)) == expected
        report = guarded.report()
    assert report.trace == alone.trace
    assert report.effects == alone.effects


def test_a_database_of_its_own_is_noted(guard: OpenGuard) -> None:
    """The same bytes after SELECT are another command: the trace has both."""
    with guard("measure") as guarded:
        client = guarded.client()
        for database in (0, 1, 0):
            client.ask("SELECT", database)
            for _ in range(3):
                client.ask("GET", "key:1")
        assert [line for line in guarded.report().trace if "GET" in line] == [
            "GET key:*",
            "GET db1 key:*",
        ]


def test_pushes_come_between_replies_of_the_quick_way(guard: OpenGuard) -> None:
    """What the server tells on its own accord passes where it comes, and shifts no reply."""
    with guard("observe") as guarded:
        client, other = guarded.client(protocol=3), guarded.client()
        assert client.ask("CLIENT", "TRACKING", "ON", "BCAST") == b"OK"
        for number in range(5):
            other.ask("SET", "key:1", f"v{number}")
            client.send(encoded("GET", "key:1") * 3)
            frames = [client.raw() for _ in range(4)]
            pushes = [frame for frame in frames if frame.startswith(b">")]
            assert len(pushes) == 1
            assert [f for f in frames if f not in pushes] == [b"$2\r\nv%d\r\n" % number] * 3
