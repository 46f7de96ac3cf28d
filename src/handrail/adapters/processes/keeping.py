"""What a script prints: the part that is kept in a file, and the pieces that are shown live.

Rules:
- What fits is kept as it came. Of more than the limit the first half and the last half are kept,
  with a line between them that says how many bytes were left out.
- The file never holds more than its limit and that line; while the script runs, the last half waits
  in a nameless file of the same folder, and what a `kill -9` of Handrail leaves is the first half.
- Keeping comes first: a slow reader of the live pieces loses pieces, told in place, but no kept
  bytes.
"""

from __future__ import annotations

import os
import queue
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

COPY_BYTES = 1024 * 1024
LIVE_BYTES = 8 * 1024 * 1024


class Kept:
    """The file of a script's output, readable by the present user alone."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        """Create the file, or empty the one that is there; a link is refused.

        Raises:
            OSError: it cannot be created there.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        os.fchmod(self._file, 0o600)
        self._folder = path.parent
        self._head_bytes = limit_bytes - limit_bytes // 2
        self._tail_bytes = limit_bytes // 2
        self._tail: IO[bytes] | None = None
        self._lost_bytes = 0
        self.total_bytes = 0

    def write(self, piece: bytes) -> bool:
        """Keep what of `piece` is to be kept. Returns False when the disk is full."""
        room = max(0, self._head_bytes - self.total_bytes)
        self.total_bytes += len(piece)
        try:
            _write_all(self._file, piece[:room])
            self._write_tail(piece[room:])
        except OSError:
            self._lost_bytes += len(piece)
            return False
        return True

    def _write_tail(self, piece: bytes) -> None:
        """Put `piece` into the ring of the last bytes, at its place by count from the head."""
        if not piece or not self._tail_bytes:
            return
        if self._tail is None:
            self._tail = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - closed in `close`
        end = self.total_bytes - self._head_bytes
        piece = piece[-self._tail_bytes :]
        at = (end - len(piece)) % self._tail_bytes
        first = piece[: self._tail_bytes - at]
        os.pwrite(self._tail.fileno(), first, at)
        os.pwrite(self._tail.fileno(), piece[len(first) :], 0)

    def close(self) -> None:
        """Put the last half after the first, and close. Twice equals once."""
        if self._file < 0:
            return
        try:
            self._append_tail()
        except OSError:
            self._lost_bytes += 1  # the disk is full: the first half stays, and the count is known
        finally:
            os.close(self._file)
            self._file = -1
            if self._tail is not None:
                self._tail.close()

    def _append_tail(self) -> None:
        beyond = max(0, self.total_bytes - self._head_bytes)
        left_out = max(0, beyond - self._tail_bytes)
        if left_out or self._lost_bytes:
            line = f"\n[handrail: {max(left_out, self._lost_bytes):,} bytes left out here]\n"
            _write_all(self._file, line.encode())
        if self._tail is None:
            return
        start = beyond % self._tail_bytes if left_out else 0
        self._copy_tail(start, min(beyond, self._tail_bytes))
        if start:
            self._copy_tail(0, start)

    def _copy_tail(self, start: int, end: int) -> None:
        if self._tail is None:
            return
        while start < end:
            piece = os.pread(self._tail.fileno(), min(COPY_BYTES, end - start), start)
            if not piece:
                return
            _write_all(self._file, piece)
            start += len(piece)


def _write_all(file: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(file, view) :]


class Live:
    """Pieces on their way to whoever watches, at most `LIVE_BYTES` of them waiting."""

    def __init__(self) -> None:
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._skipped_bytes = 0

    def offer(self, piece: bytes) -> None:
        """Hand on a piece; it is counted only where too much waits already."""
        with self._lock:
            if self._waiting_bytes >= LIVE_BYTES:
                self._skipped_bytes += len(piece)
                return
            self._waiting_bytes += len(piece)
        self._tell_skipped()
        self._pieces.put(piece)

    def end(self) -> None:
        """Say that no more comes."""
        self._tell_skipped()
        self._pieces.put(None)

    def _tell_skipped(self) -> None:
        if self._skipped_bytes:
            self._pieces.put(b"\n[handrail: %d bytes not shown]\n" % self._skipped_bytes)
            self._skipped_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield pieces as they come, until the end."""
        while (piece := self._pieces.get()) is not None:
            yield piece
            with self._lock:
                self._waiting_bytes = max(0, self._waiting_bytes - len(piece))
