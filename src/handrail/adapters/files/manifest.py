"""Manifests: what was in a tree, as lines on disk, and several of them side by side.

Rules:
- One entry a line, as a JSON list, in the order of `tree.order`: a manifest is read as a stream,
  and compared with another one without holding either.
- A manifest has its name when it is whole.
"""

from __future__ import annotations

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
    rests = [iter(entries) for entries in manifests]
    heads = [next(rest, None) for rest in rests]
    while any(heads):
        path = _first(heads)
        row = tuple(head if head and head.path == path else None for head in heads)
        yield path, row
        for number, entry in enumerate(row):
            if entry is not None:
                heads[number] = next(rests[number], None)


def _first(heads: list[Entry | None]) -> bytes:
    """Return the path that comes first; nearly always it is the same in all of them."""
    paths = {head.path for head in heads if head}
    return paths.pop() if len(paths) == 1 else min(paths, key=order)
