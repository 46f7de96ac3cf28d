"""What waits for a client to read: a little in memory, the rest in a file.

Rules:
- Order is kept, whatever waits where.
- A file is only used while the guard itself must go on reading; else the server's side rests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

HIGH_BYTES = 64 * 1024
_PIECE_BYTES = 64 * 1024


class Outbox:
    """The way to one client.

    Args:
        folder: where the file lies.
        changed: called when the client takes more, or no more.
    """

    def __init__(self, folder: Path, changed: Callable[[], None]) -> None:
        self._folder = folder
        self._changed = changed
        self._client: asyncio.Transport | None = None
        self._file: IO[bytes] | None = None
        self._read_bytes = self._written_bytes = 0
        self._ends = False
        self._batch: list[bytes] | None = None
        self.is_full = False

    def open(self, client: asyncio.Transport) -> None:
        """Begin."""
        self._client = client
        client.set_write_buffer_limits(high=HIGH_BYTES)

    def write(self, data: bytes) -> None:
        """Give something to the client; nothing where it is gone."""
        if self._client is None:
            return
        if self._batch is not None and self._file is None and not self.is_full:
            self._batch.append(data)
            return
        if self._file is None and not self.is_full:
            self._client.write(data)
            return
        if self._file is None:
            self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115  closed when it is empty
            self._read_bytes = self._written_bytes = 0
        self._file.seek(self._written_bytes)
        self._file.write(data)
        self._written_bytes += len(data)

    def begin(self) -> None:
        """Gather what comes until `commit`: it leaves together."""
        self._batch = []

    def commit(self) -> None:
        """Give the client what was gathered."""
        batch, self._batch = self._batch, None
        if batch:
            self.write(batch[0] if len(batch) == 1 else b"".join(batch))

    def pause(self) -> None:
        """The client takes no more."""
        self.is_full = True
        self._changed()

    def resume(self) -> None:
        """The client takes more: first what waits in the file."""
        self.is_full = False
        while self._file is not None and not self.is_full and self._client is not None:
            self._file.seek(self._read_bytes)
            piece = self._file.read(_PIECE_BYTES)
            self._read_bytes += len(piece)
            if self._read_bytes >= self._written_bytes:
                self._drop()
            self._client.write(piece)
        if self._ends and self._file is None:
            self.end()
        self._changed()

    def end(self) -> None:
        """Close the client's side, once it has everything."""
        self._ends = True
        self.commit()
        if self._file is None and self._client is not None:
            self._client.close()

    def close(self) -> None:
        """Forget everything: the client is gone."""
        self._client = None
        self._drop()

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
