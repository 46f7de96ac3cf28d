"""Answers: each goes where it belongs, however the server's bytes are cut."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from handrail.wire.postgres import frames
from handrail.wire.postgres.link import NEVER, READ_ONLY, Answer, Link


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: bytes) -> None:  # type: ignore[override]  # never a memoryview here
        self.sent += data

    def is_closing(self) -> bool:
        return False


def error(code: str) -> bytes:
    """Return an ErrorResponse."""
    return frames.build(b"E", b"SERROR\0C" + code.encode() + b"\0Mno\0\0")


ROW = frames.build(b"D", b"\0\1\0\0\0\5hello")
READY = frames.build(b"Z", b"I")
usual = st.sampled_from(
    [
        ROW,
        frames.build(b"T", b"\0\0"),
        frames.build(b"C", b"SELECT 1\0"),
        frames.build(b"2"),
        frames.build(b"N", b"SNOTICE\0C00000\0Mhm\0\0"),
        frames.build(b"A", b"\0\0\0\1channel\0payload\0"),
        frames.build(b"S", b"TimeZone\0UTC\0"),
        error("22012"),
        frames.build(b"D", b"\0\1\0\0\4\0" + b"Z\0\0\0\5I" * 170 + b"abcd"),
    ]
)
answers = st.lists(st.tuples(st.booleans(), st.lists(usual, max_size=12)), min_size=1, max_size=4)


@given(answers, st.lists(st.integers(1, 40), max_size=120), st.sampled_from([NEVER, READ_ONLY]))
def test_answers_go_to_whom_they_belong(
    planned: list[tuple[bool, list[bytes]]], sizes: list[int], retries: frozenset[str]
) -> None:
    """The client gets exactly the answers to what it asked, byte for byte, in their order."""
    server, client = Wire(), Wire()
    link = Link(server, client, {}, lambda: None, lambda _name, _value: None)
    done: list[Answer] = []
    for passes, _ in planned:
        answer = Answer(
            done.append, passes=passes, ends=passes, retries=retries if passes else NEVER
        )
        link.send(b"?", answer)
    data = b"".join(b"".join(parts) + READY for _, parts in planned)
    for size in sizes:
        link.data_received(data[:size]) if data[:size] else None
        data = data[size:]
    if data:
        link.data_received(data)
    expected = b"".join(b"".join(parts) + READY for passes, parts in planned if passes)
    assert client.sent == expected
    assert len(done) == len(planned)


@given(
    st.lists(
        st.sampled_from([frames.build(b"1"), frames.build(b"2"), frames.build(b"T", b"\0\0")]),
        max_size=5,
    ),
    st.lists(st.integers(1, 9), max_size=60),
)
def test_an_attempt_that_is_made_again_shows_nothing(parts: list[bytes], sizes: list[int]) -> None:
    """Where a read-only transaction refused to write, nothing of the attempt reaches the client."""
    server, client = Wire(), Wire()
    link = Link(server, client, {}, lambda: None, lambda _name, _value: None)
    done: list[Answer] = []
    link.send(b"?", Answer(done.append, passes=True, ends=True, retries=READ_ONLY))
    data = b"".join(parts) + error("25006") + READY
    for size in sizes:
        if data[:size]:
            link.data_received(data[:size])
        data = data[size:]
    if data:
        link.data_received(data)
    assert client.sent == b""
    assert done[0].again
