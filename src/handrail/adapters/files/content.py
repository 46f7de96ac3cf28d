"""The content of files: read, digested and copied without filling what is empty.

Rules:
- A digest is over size and the blocks that are not all zero: a hole and written zeros are the same
  content, and a file of 10 TiB with 4 KiB of data is read in a moment.
- A copy shares its blocks with the original where the file system can (reflink); else what is
  written is what was digested, in one reading. A hard link is never a copy: a script that writes
  in place would write into the original.
- What grows while it is read is read to the size that it had.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

BLOCK_BYTES = 256 * 1024
_ZEROS = bytes(BLOCK_BYTES)
_FICLONE = 0x40049409
_NO_HOLES = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})


def digest_of(source: int, size_bytes: int) -> str:
    """Return the digest of an open file, read to `size_bytes`."""
    state = hashlib.blake2b(digest_size=32)
    for position, block in blocks(source, size_bytes):
        state.update(position.to_bytes(8, "big"))
        state.update(block)
    return _closed(state, size_bytes)


def blocks(source: int, size_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of an open file that are not all zero, with their positions."""
    done = 0
    for start, end in _data(source, size_bytes):
        position = max(done, start - start % BLOCK_BYTES)
        while position < end:
            block = os.pread(source, min(BLOCK_BYTES, size_bytes - position), position)
            if not block:  # it was cut off meanwhile
                return
            if block != _ZEROS[: len(block)]:
                yield position, block
            position += BLOCK_BYTES
        done = position


def copy(source: int, target: int, size_bytes: int) -> str:
    """Make the empty open file `target` hold what `source` does; return the digest of that."""
    if size_bytes and reflink(source, target):
        os.ftruncate(target, size_bytes)
        return digest_of(target, size_bytes)
    return write(blocks(source, size_bytes), target, size_bytes)


def write(content: Iterable[tuple[int, bytes]], target: int, size_bytes: int) -> str:
    """Write blocks into the empty open file `target`; return the digest of what it holds."""
    state = hashlib.blake2b(digest_size=32)
    for position, block in content:
        state.update(position.to_bytes(8, "big"))
        state.update(block)
        _write_all(target, block, position)
    if size_bytes:
        os.ftruncate(target, size_bytes)
    return _closed(state, size_bytes)


def pack(source: int, target: int, size_bytes: int) -> tuple[str, tuple[int, ...]]:
    """Write the blocks of `source` one after another; return its digest, and their numbers.

    So a file with holes takes no more in an archive that knows no holes.
    """
    state, numbers, end = hashlib.blake2b(digest_size=32), [], 0
    for position, block in blocks(source, size_bytes):
        state.update(position.to_bytes(8, "big"))
        state.update(block)
        _write_all(target, block, end)
        numbers.append(position // BLOCK_BYTES)
        end += len(block)
    return _closed(state, size_bytes), tuple(numbers)


def unpacked(source: int, numbers: Iterable[int], size_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of a file that `pack` wrote."""
    end = 0
    for number in numbers:
        position = number * BLOCK_BYTES
        block = os.pread(source, min(BLOCK_BYTES, size_bytes - position), end)
        yield position, block
        end += len(block)


def reflink(source: int, target: int) -> bool:
    """Share all blocks of `source` with `target`, where the file system can."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _closed(state: hashlib.blake2b, size_bytes: int) -> str:
    state.update(size_bytes.to_bytes(8, "big"))
    return state.hexdigest()


def _write_all(target: int, block: bytes, position: int) -> None:
    done = 0
    while done < len(block):
        done += os.pwrite(target, block[done:] if done else block, position + done)


def _data(source: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield from where to where an open file has data; all of it where nobody can tell."""
    if size_bytes <= BLOCK_BYTES:
        yield 0, size_bytes
        return
    end = 0
    with suppress(_Ended):
        while end < size_bytes:
            start = _seek(source, end, os.SEEK_DATA)
            end = _seek(source, start, os.SEEK_HOLE)
            yield start, min(end, size_bytes)


class _Ended(Exception):  # noqa: N818  not an error
    """There is no more data."""


def _seek(source: int, position: int, what: int) -> int:
    try:
        return os.lseek(source, position, what)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _Ended from error
        if error.errno in _NO_HOLES:
            return position if what == os.SEEK_DATA else os.fstat(source).st_size
        raise
