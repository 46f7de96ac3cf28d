"""Framing: however bytes are cut, the same frames come out; what is no frame is refused."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.wire.postgres import frames
from handrail.wire.postgres.frames import Frame, FrameError, Splitter

bodies = st.binary(max_size=300)
sent = st.lists(st.tuples(st.sampled_from(sorted(frames.CLIENT)), bodies), max_size=20)
cuts = st.lists(st.integers(1, 64), max_size=200)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """Return `data` cut at these sizes, the rest whole."""
    found = []
    for size in sizes:
        found.append(data[:size])
        data = data[size:]
    return [piece for piece in (*found, data) if piece]


def merged(found: Iterable[Frame]) -> list[tuple[int, bytes]]:
    """Return letters and bodies; rows that follow one another as one: their cuts mean nothing."""
    out: list[tuple[int, bytes]] = []
    for frame in found:
        assert len(frame.data) == int.from_bytes(frame.data[1:5]) + 1
        if frame.kind == frames.COPY_DATA and out and out[-1][0] == frames.COPY_DATA:
            out[-1] = (frame.kind, out[-1][1] + frame.body)
        elif frame.kind != frames.COPY_DATA or frame.body:
            out.append((frame.kind, frame.body))
    return out


@given(sent, cuts)
def test_any_cut_gives_the_same_frames(messages: list[tuple[int, bytes]], sizes: list[int]) -> None:
    """What a client sends comes out in whole frames, however the network cuts it."""
    whole = [frames.build(bytes([kind]), body) for kind, body in messages]
    splitter = Splitter()
    out = [item for piece in pieces(b"".join(whole), sizes) for item in splitter.feed(piece)]
    assert merged(out) == merged(Frame(data[0], data) for data in whole)
    assert not splitter.waiting


@given(st.binary(max_size=2000), cuts)
def test_garbage_is_refused_and_not_kept(data: bytes, sizes: list[int]) -> None:
    """Bytes that are no frames end in an error of ours, and never in more memory than they have."""
    splitter = Splitter()
    out: list[Frame] = []
    try:
        for piece in pieces(data, sizes):
            out += splitter.feed(piece)
    except FrameError:
        pass
    assert sum(len(item.body) for item in out) <= len(data)


def test_a_frame_that_says_it_is_huge_is_refused_at_its_header() -> None:
    """A length beyond the largest frame is refused before anything of its body has come."""
    with pytest.raises(FrameError, match="64 MB is the most"):
        list(Splitter().feed(b"Q" + (frames.LARGEST_BYTES + 10).to_bytes(4)))


def test_copied_rows_pass_in_pieces() -> None:
    """A row of a COPY that is larger than any frame may be passes as it comes, in whole frames."""
    splitter = Splitter()
    size = 200 * 1024 * 1024
    (first,) = splitter.feed(b"d" + size.to_bytes(4) + b"x" * 100)
    assert first == Frame(frames.COPY_DATA, frames.build(b"d", b"x" * 100))
    (second,) = splitter.feed(b"y" * 1000)
    assert second == Frame(frames.COPY_DATA, frames.build(b"d", b"y" * 1000))


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=200))
def test_a_lone_query_is_nothing_but_itself(data: bytes) -> None:
    """The quick way takes only what the long way reads as the same single message."""
    for given_data in (data, frames.build(b"Q", data), frames.build(b"Q", data + b"\0")):
        sql = frames.lone_query(given_data)
        if sql is not None:
            (only,) = Splitter().feed(given_data)
            assert isinstance(only, Frame)
            assert frames.text(only.body) == (sql, len(sql) + 1)


def bind(name: bytes, portal: bytes = b"") -> bytes:
    """Return a Bind of a statement, with one parameter."""
    parameters = b"\0\0" + b"\0\1" + b"\0\0\0\x01" + b"7" + b"\0\0"
    return frames.build(b"B", portal + b"\0" + name + b"\0" + parameters)


EXECUTE = frames.build(b"E", b"\0" + b"\0" * 4)
DESCRIBE = frames.build(b"D", b"P\0")


def test_a_lone_execution_is_one_statement_executed_once() -> None:
    """The quick way for prepared statements takes bind, describe, execute and sync, and no more."""
    assert frames.lone_execution(bind(b"s1") + EXECUTE + frames.SYNC) == b"s1"
    assert frames.lone_execution(bind(b"s1") + DESCRIBE + EXECUTE + frames.SYNC) == b"s1"
    others = (
        bind(b"s1") + EXECUTE,
        bind(b"s1") + EXECUTE + EXECUTE + frames.SYNC,
        bind(b"s1") + EXECUTE + bind(b"s2") + EXECUTE + frames.SYNC,
        bind(b"s1", b"portal") + EXECUTE + frames.SYNC,
        bind(b"s1") + frames.build(b"E", b"portal\0" + b"\0" * 4) + frames.SYNC,
        bind(b"s1") + frames.SYNC + frames.SYNC,
        frames.query("DELETE FROM notes") + frames.SYNC,
    )
    assert [frames.lone_execution(data) for data in others] == [None] * len(others)
