"""Numbers and checksums of a tree.

Rules:
- A pattern of paths stands where another store has a table: its rows are the files and links.
- The checksum of a path is BLAKE2b-256 over its name, content, mode, owner, attributes; a
  pattern's is their sum modulo 2^256: the order of directories does not count. Source: Clarke et
  al., "Incremental Multiset Hash Functions", 2003 (MSet-Add-Hash).
- Times do not count in a checksum: what is put back has the same content at another time.
- Directories are the schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from handrail.adapters.files.tally import Tally
from handrail.adapters.files.tree import Entry
from handrail.plans.facts import Fingerprint, Measure, TableMeasure

_WIDTH_BYTES = 32
_MODULUS: int = 1 << (8 * _WIDTH_BYTES)
_NS = 1_000_000_000


@dataclass(frozen=True)
class _Span:
    rows: int
    oldest_ns: int
    newest_ns: int


def measure(entries: Iterable[Entry]) -> Measure:
    """Return how many files a pattern, their oldest and newest time, and all their bytes."""
    tally: Tally[_Span] = Tally(_widest)
    size_bytes = 0
    for entry in entries:
        if entry.kind != "directory":
            tally.add(entry.path, _Span(1, entry.time_ns, entry.time_ns))
        if entry.twin is None:
            size_bytes += entry.size_bytes
    tables = (
        TableMeasure(name, span.rows, _time(span.oldest_ns), _time(span.newest_ns))
        for name, span in tally.items()
    )
    return Measure(tuple(tables), size_bytes)


def fingerprint(entries: Iterable[Entry]) -> Fingerprint:
    """Return the checksums of a tree; `entries` have their digests."""
    tally: Tally[int] = Tally(_added)
    directories = 0
    for entry in entries:
        if entry.kind == "directory":
            directories = _added(directories, _checksum(entry))
        else:
            tally.add(entry.path, _checksum(entry))
    tables = tuple((name, _digits(total)) for name, total in tally.items())
    return Fingerprint(tables, _digits(directories))


def _checksum(entry: Entry) -> int:
    text = repr((entry.path, entry.content, entry.manner)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=_WIDTH_BYTES).digest(), "big")


def _added(one: int, other: int) -> int:
    return (one + other) % _MODULUS


def _digits(total: int) -> str:
    return f"{total:0{2 * _WIDTH_BYTES}x}"


def _widest(one: _Span, other: _Span) -> _Span:
    return _Span(
        one.rows + other.rows,
        min(one.oldest_ns, other.oldest_ns),
        max(one.newest_ns, other.newest_ns),
    )


def _time(time_ns: int) -> str | None:
    try:
        return datetime.fromtimestamp(time_ns // _NS, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # beyond what a calendar has
        return None
