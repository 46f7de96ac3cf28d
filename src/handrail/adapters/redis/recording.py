"""The record of a clone: every change that its server makes, from its append-only file.

Rules:
- The file holds effects, not calls: scripts are resolved into what they wrote, deletions by expiry
  and eviction are in it, and a reply is sent only after its effect was written there.
- A record begins with a copy of the whole content (`before.rdb`): the server writes both when the
  file is switched on.
- A record that was cut off (the file switched off, or written anew) is none: `find` says so.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from handrail.adapters.redis.connecting import Session
from handrail.errors import StoreError

BEFORE_FILE = "before.rdb"
_FOLDER = "appendonlydir"
_MANIFEST = "appendonly.aof.manifest"
_OLD_FILE = "appendonly.aof"
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Record:
    """Where the effects since a moment stand.

    Attributes:
        file: relative to the server's folder.
        inode: of that file: another one of its name is another record.
        offset: of the first byte that counts.
    """

    file: str
    inode: int
    offset: int


@dataclass(frozen=True)
class Entry:
    """One command that changed something.

    Attributes:
        words: the command and its arguments.
        at_s: when, in seconds since 1970; None where the server does not write it (before 7.0).
    """

    words: tuple[bytes, ...]
    at_s: int | None


def begin(session: Session, folder: Path, into: Path) -> Record:
    """Switch the record on, anew; write the content of this moment into `into`."""
    session.ask("CONFIG", "SET", "appendonly", "no")
    session.ask("CONFIG", "SET", "appendonly", "yes")
    _wait_written(session)
    base, running = _files(folder)
    path = folder / running
    size = path.stat().st_size
    with (folder / base).open("rb") as source, _private(into / BEFORE_FILE) as target:
        if base == running:
            # One file before 7.0: the content first, and what follows is the record.
            _copy(source, target, size)
        else:
            shutil.copyfileobj(source, target)
    return Record(running, path.stat().st_ino, size)


def find(session: Session, folder: Path, record: Record) -> Path | None:
    """Return the file of a record; None when it was cut off."""
    if session.info("persistence").get("aof_enabled") != "1":
        return None
    path = folder / record.file
    try:
        is_same = path.stat().st_ino == record.inode and _files(folder)[1] == record.file
    except OSError:
        return None
    return path if is_same else None


def entries(path: Path, offset: int) -> Iterator[Entry]:
    """Yield the commands of a record, in the order in which they took effect."""
    at_s = None
    with path.open("rb") as stream:
        stream.seek(offset)
        while line := stream.readline():
            if line.startswith(b"#TS:"):
                at_s = int(line[4:])
            elif line.startswith(b"*"):
                yield Entry(tuple(_word(stream) for _ in range(int(line[1:]))), at_s)
            else:
                raise StoreError("store.failed", f"the record of the clone is damaged: {line!r}")


def _word(stream: BinaryIO) -> bytes:
    size = int(stream.readline()[1:])
    word = stream.read(size)
    stream.read(2)
    return word


def _wait_written(session: Session) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        told = session.info("persistence")
        if told.get("aof_last_bgrewrite_status") == "err":
            break
        if (told.get("aof_enabled"), told.get("aof_rewrite_in_progress")) == (
            "1",
            "0",
        ) and told.get("aof_rewrite_scheduled") == "0":
            return
        time.sleep(0.005)
    raise StoreError(
        "clone.failed", "the clone cannot record what is done to it: its disk may be full"
    )


def _files(folder: Path) -> tuple[str, str]:
    """Return the file with the content and the one that is being written."""
    manifest = folder / _FOLDER / _MANIFEST
    if not manifest.exists():
        return _OLD_FILE, _OLD_FILE
    base = running = ""
    for line in manifest.read_text().splitlines():
        words = line.split()
        told = dict(zip(words[::2], words[1::2], strict=False))
        if told.get("type") == "b":
            base = f"{_FOLDER}/{told['file']}"
        elif told.get("type") == "i":
            running = f"{_FOLDER}/{told['file']}"
    return base, running


def _private(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size > 0 and (piece := source.read(min(size, 1 << 20))):
        target.write(piece)
        size -= len(piece)
