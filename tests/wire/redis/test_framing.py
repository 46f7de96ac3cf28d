"""Where requests and replies begin and end."""

from __future__ import annotations

from pathlib import Path
from tempfile import gettempdir

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.wire.redis.pairing import Pairing, Silent
from handrail.wire.redis.replies import FramingError, advance, decode
from handrail.wire.redis.requests import (
    MOST_IN_MEMORY_BYTES,
    Cut,
    Request,
    Requests,
    encode,
    split_inline,
)

FOLDER = Path(gettempdir())
WORDS = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


def requests() -> Requests:
    found = Requests(FOLDER)
    found.is_known = True
    return found


def cut_up(data: bytes, sizes: list[int]) -> list[bytes]:
    """Return `data` in pieces of these sizes, over and over."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


def take(reader: Requests, pieces: list[bytes]) -> list[Request]:
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (request := reader.next_request()) is not None:
            found.append(request)
    return found


@given(st.lists(WORDS, max_size=8), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_requests_are_the_same_in_any_fragments(
    commands: list[list[bytes]], sizes: list[int]
) -> None:
    """The same requests come out, and the same bytes, however they were cut up on the way."""
    data = b"".join(encode(*words) for words in commands)
    found = take(requests(), cut_up(data, sizes))
    assert [request.arguments for request in found] == commands
    assert b"".join(request.raw for request in found) == data


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_any_bytes_are_requests_or_an_error(data: bytes, sizes: list[int]) -> None:
    """Whatever a client sends, it is cut into requests or refused, and fragments change nothing."""

    def outcome(pieces: list[bytes]) -> tuple[list[list[bytes]], str]:
        reader, found = requests(), []
        try:
            for piece in pieces:
                reader.feed(piece)
                while (request := reader.next_request()) is not None:
                    found.append(request.arguments)
        except FramingError as error:
            return found, str(error)
        return found, ""

    assert outcome([data]) == outcome(cut_up(data, sizes))


@pytest.mark.parametrize(
    "data",
    [
        b"*1\r\n$04\r\nPING\r\n",
        b"*1\r\n$+4\r\nPING\r\n",
        b"*1\r\n$4_0\r\nPING\r\n",
        b"*1\r\n$ 4\r\nPING\r\n",
        b"*01\r\n$4\r\nPING\r\n",
        b"*1\r\n:4\r\nPING\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1048577\r\n",
        b"*1\rX$4\r\nPING\r\n",
        b"*x\r\n",
        b"*\r\n",
    ],
)
def test_lengths_that_could_be_read_otherwise_are_refused(data: bytes) -> None:
    """A length that Redis refuses, or might read as another, ends the connection."""
    reader = requests()
    reader.feed(data)
    with pytest.raises(FramingError):
        reader.next_request()


def test_requests_for_nothing_are_no_requests() -> None:
    """Empty lines and lists of no arguments are skipped, as the server skips them."""
    found = take(requests(), [b"*0\r\n\r\n*-1\r\n\n" + encode(b"PING")])
    assert [request.arguments for request in found] == [[b"PING"]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"set  a\tb", [b"set", b"a", b"b"]),
        (b'set a "b c\\r\\n\\x41\\q"', [b"set", b"a", b"b c\r\nAq"]),
        (b"set a 'b \\' \\n'", [b"set", b"a", b"b ' \\n"]),
        (b"set a '' \"\"", [b"set", b"a", b"", b""]),
    ],
)
def test_inline_commands_are_split_as_the_server_splits_them(
    line: bytes, words: list[bytes]
) -> None:
    """Quotes and escapes of an inline command mean what they mean to Redis."""
    assert split_inline(line) == words


@pytest.mark.parametrize("line", [b'set "a', b"set 'a", b'set "a"b', b"set 'a'b"])
def test_unbalanced_quotes_are_refused(line: bytes) -> None:
    """An inline command with a quote that is not closed ends the connection."""
    with pytest.raises(FramingError, match="unbalanced"):
        split_inline(line)


def test_an_inline_command_comes_in_fragments() -> None:
    """An inline command is one request, also byte by byte, and is sent on as a list."""
    found = take(requests(), [bytes([byte]) for byte in b"PING hello\r\nPING\n"])
    assert [request.arguments for request in found] == [[b"PING", b"hello"], [b"PING"]]
    assert found[0].raw == encode(b"PING", b"hello")


def test_a_large_request_goes_to_a_file(tmp_path: Path) -> None:
    """Of a large value only the beginning stays in memory; all of it is in the file."""
    value = bytes(range(256)) * 8192
    data = encode(b"SET", b"key", value, b"EX", b"10") + encode(b"PING")
    reader = Requests(tmp_path)
    reader.is_known = True
    first, second = take(reader, cut_up(data, [65536, 7]))
    assert first.file is not None
    assert first.file.read() == data[: -len(encode(b"PING"))]
    assert first.arguments[:2] == [b"SET", b"key"]
    assert isinstance(first.arguments[2], Cut)
    assert len(first.arguments[2]) < MOST_IN_MEMORY_BYTES
    assert first.arguments[3:] == [b"EX", b"10"]
    assert second.arguments == [b"PING"]
    first.close()


def test_strangers_may_not_send_much(tmp_path: Path) -> None:
    """Who has not shown the secret sends ten arguments and 16 KB at most, as with the server."""
    for data in (b"*11\r\n", b"*2\r\n$4\r\nAUTH\r\n$20000\r\n" + b"x" * 20000):
        reader = Requests(tmp_path)
        reader.feed(data)
        with pytest.raises(FramingError, match="unauthenticated"):
            reader.next_request()


LEAVES = st.one_of(
    st.integers(-(10**9), 10**9).map(lambda n: b":%d\r\n" % n),
    st.sampled_from([b"+OK\r\n", b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n"]),
    st.sampled_from([b"-ERR no\r\n", b"(12345678901234567890\r\n", b"=7\r\ntxt:abc\r\n"]),
    st.binary(max_size=60).map(lambda b: b"$%d\r\n%s\r\n" % (len(b), b)),
)
FRAMES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda f: b"*%d\r\n" % len(f) + b"".join(f)),
        st.lists(inner, max_size=4).map(lambda f: b"~%d\r\n" % len(f) + b"".join(f)),
        st.lists(st.tuples(inner, inner), max_size=3).map(
            lambda f: b"%%%d\r\n" % len(f) + b"".join(k + v for k, v in f)
        ),
        st.tuples(inner, inner).map(lambda f: b"|1\r\n+k\r\n" + f[0] + f[1]),
    ),
    max_leaves=8,
)


@given(st.lists(FRAMES, min_size=1, max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_replies_pass_whole_in_any_fragments(frames: list[bytes], sizes: list[int]) -> None:
    """Every reply reaches whom it belongs to, however the bytes were cut up on the way."""
    emitted: list[bytes] = []
    heard: list[bytes] = []
    pairing = Pairing(emitted.append)
    for turn, _ in enumerate(frames):
        if turn % 3 == 2:
            pairing.expect(_Heard(heard))
        else:
            pairing.plain(1)
    for piece in cut_up(b"".join(frames), sizes):
        pairing.feed(piece)
    assert not pairing.pending
    passed = b"".join(frame for turn, frame in enumerate(frames) if turn % 3 != 2)
    assert b"".join(emitted) == passed
    assert heard == [frame for turn, frame in enumerate(frames) if turn % 3 == 2]


class _Heard(Silent):
    """Keeps whole frames."""

    def __init__(self, heard: list[bytes]) -> None:
        super().__init__(lambda _: None, whole=True)
        self._heard = heard

    def end(self, data: bytes) -> None:
        self._heard.append(data)


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_any_bytes_of_a_server_pass_or_are_an_error(data: bytes, sizes: list[int]) -> None:
    """Whatever a server sends, the guard passes on what is replies and refuses the rest."""

    def outcome(pieces: list[bytes]) -> tuple[bytes, bool]:
        emitted: list[bytes] = []
        pairing = Pairing(emitted.append)
        pairing.plain(3)
        try:
            for piece in pieces:
                pairing.feed(piece)
        except FramingError:
            return b"", True
        return b"".join(emitted), False

    whole, parts = outcome([data]), outcome(cut_up(data, sizes))
    assert whole[1] == parts[1]
    if not whole[1]:
        assert data.startswith(whole[0])


@given(FRAMES)
def test_a_reply_ends_where_it_ends(frame: bytes) -> None:
    """The end of a reply is found to the byte, and no further."""
    at, left, skip = advance(frame + b"+next\r\n", 0, 1, 0)
    assert (at, left, skip) == (len(frame), 0, 0)


def test_values_are_read_as_they_are_meant() -> None:
    """Lists, maps, errors and nothing come out as values."""
    assert decode(b"*3\r\n:1\r\n$2\r\nab\r\n*-1\r\n") == [1, b"ab", None]
    assert decode(b"%1\r\n+a\r\n:2\r\n") == [b"a", 2]
