"""Takes an RDB file from a running server, as a replica does.

Rules:
- Nothing is written on the server, unless it is set to write its RDB file first
  (`repl-diskless-sync no`); it forks once.
- The file is one moment, whoever writes meanwhile; its last eight bytes prove that it is whole.
- The file gets its name when it is whole and on the disk; it is readable by us alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from redis.exceptions import ConnectionError as LostError
from redis.exceptions import ResponseError

from handrail.adapters.redis.connecting import Session
from handrail.adapters.redis.scratch import flush
from handrail.ports import Progress

_CHUNK_BYTES = 1024 * 1024
_MARK_BYTES = 40
_LINE_LIMIT = 1024


def receive(session: Session, to: Path, progress: Progress) -> None:
    """Write the server's content to the new file `to`. The session cannot be used any more.

    Raises:
        redis.exceptions.ResponseError: the server does not let this user replicate.
    """
    session.may("REPLCONF", "capa", "eof")
    # From 7.0 on: no stream of commands is kept for us.
    session.may("REPLCONF", "rdb-only", "1")
    session.link.send_command("SYNC")
    # The library's parser has read every reply so far: what comes now is ours.
    link = cast("socket.socket", session.link._sock)  # noqa: SLF001 - the library has no name for it
    partial = to.with_name(to.name + ".partial")
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        for piece, total in _pieces(link):
            stream.write(piece)
            progress(stream.tell(), total)
    flush(partial)
    partial.rename(to)
    flush(to.parent)


def _pieces(link: socket.socket) -> Iterator[tuple[bytes, int | None]]:
    line, rest = _first_line(link)
    if line.startswith(b"-"):
        raise ResponseError(line[1:].decode("utf-8", "replace"))
    if line.startswith(b"$EOF:"):
        for piece in _until(link, line.removeprefix(b"$EOF:"), rest):
            yield piece, None
        return
    total = int(line.removeprefix(b"$"))
    done = 0
    while done < total:
        piece = rest or _more(link, min(_CHUNK_BYTES, total - done))
        piece, rest = piece[: total - done], b""
        done += len(piece)
        yield piece, total


def _first_line(link: socket.socket) -> tuple[bytes, bytes]:
    """Return the line that says how the file comes, and what came behind it.

    Empty lines before it say only that the server is still at it.
    """
    read = b""
    while True:
        read = (read + _more(link, _CHUNK_BYTES)).lstrip(b"\r\n")
        line, end, rest = read.partition(b"\r\n")
        if end:
            return line, rest
        if len(read) > _LINE_LIMIT:
            raise LostError("what came is no RDB file")


def _until(link: socket.socket, mark: bytes, rest: bytes) -> Iterator[bytes]:
    """Yield what comes before `mark`, which is random and ends the file."""
    if len(mark) != _MARK_BYTES:
        raise LostError("what came is no RDB file")
    held = rest
    while not held.endswith(mark):
        if len(held) > _MARK_BYTES:
            yield held[:-_MARK_BYTES]
            held = held[-_MARK_BYTES:]
        held += _more(link, _CHUNK_BYTES)
    yield held[:-_MARK_BYTES]


def _more(link: socket.socket, size_bytes: int) -> bytes:
    piece = link.recv(size_bytes)
    if not piece:
        raise LostError("the server closed the connection before the file was whole")
    return piece
