"""Manifests: what was in a tree, as lines on disk, and several of them side by side.

Rules:
- One entry a line, as a JSON list, in the order of `tree.order`: a manifest is read as a stream,
  and compared with another one without holding either.
- A manifest has its name when it is whole.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from handrail.adapters.files.tree import Entry, order

_PARTIAL = ".partial"


def write(at: Path, entries: Iterable[Entry]) -> None:
    """Write `entries`, which come in order, to the file `at`."""
    partial = at.with_name(at.name + _PARTIAL)
    with partial.open("w", encoding="ascii") as stream:
        for entry in entries:
            stream.write(line(entry))
    partial.rename(at)


def read(at: Path) -> Iterator[Entry]:
    """Yield the entries of the manifest `at`."""
    with at.open(encoding="ascii") as stream:
        for text in stream:
            yield parse(text)


def line(entry: Entry) -> str:
    """Return an entry as a line."""
    one = entry
    fields = (
        os.fsdecode(one.path),
        one.kind,
        one.mode,
        one.user,
        one.group,
        one.size_bytes,
        one.digest,
        one.attributes,
        one.time_ns,
        None if one.twin is None else os.fsdecode(one.twin),
        one.seen,
        one.names,
        one.allocated_bytes,
    )
    return json.dumps(fields, separators=(",", ":")) + "\n"


def parse(text: str) -> Entry:
    """Return the entry that a line holds."""
    path, kind, mode, user, group, size, digest, attributes, time, twin, seen, names, disk = (
        json.loads(text)
    )
    return Entry(
        os.fsencode(path),
        kind,
        mode,
        user,
        group,
        size,
        digest,
        tuple((name, value) for name, value in attributes),
        time,
        None if twin is None else os.fsencode(twin),
        (seen[0], seen[1], seen[2]),
        names,
        disk,
    )


def joined(*manifests: Iterable[Entry]) -> Iterator[tuple[bytes, tuple[Entry | None, ...]]]:
    """Yield each path with its entry in each of `manifests`; None where it is not in one."""
    keyed = [_keyed(number, entries) for number, entries in enumerate(manifests)]
    for _, group in itertools.groupby(heapq.merge(*keyed, key=_rank), key=_path):
        found: list[Entry | None] = [None] * len(manifests)
        path = b""
        for number, entry in group:
            found[number] = entry
            path = entry.path
        yield path, tuple(found)


def _keyed(number: int, entries: Iterable[Entry]) -> Iterator[tuple[int, Entry]]:
    for entry in entries:
        yield number, entry


def _rank(one: tuple[int, Entry]) -> tuple[list[bytes], int]:
    return order(one[1].path), one[0]


def _path(one: tuple[int, Entry]) -> bytes:
    return one[1].path
