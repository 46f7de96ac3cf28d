"""Answers the two questions that a check may ask of a tree.

Rules:
- `count GLOB` is how many files match, `exists PATH` is `yes` or `no`. Both are below the root:
  a path that leads out of it is refused, and no link is followed.
- Nothing is opened, and a walk ends at its time limit.
"""

from __future__ import annotations

import fnmatch
import os
import time
from pathlib import Path

from handrail.adapters.files.tree import answering, order, walk
from handrail.errors import StoreError


def ask(resource: str, root: Path, query: str, timeout_s: float) -> str:
    """Return the answer to `query` as text.

    Raises:
        StoreError: it is no such question, or it took too long.
    """
    word, _, what = query.strip().partition(" ")
    path = os.fsencode(what.strip())
    if word not in {"count", "exists"} or not path or b".." in order(path) or path[:1] == b"/":
        raise StoreError(
            "store.failed",
            f"{resource}: `{query}` is no question to a directory tree",
            hint="ask `count uploads/*.png` or `exists uploads/index.html`",
        )
    if word == "exists":
        return "yes" if _exists(root, path) else "no"
    return str(_count(resource, root, path, time.monotonic() + timeout_s))


def _exists(root: Path, path: bytes) -> bool:
    """Whether something is at `path`, reached through directories alone."""
    at = os.fsencode(root)
    for part in order(path)[:-1]:
        at = os.path.join(at, part)  # noqa: PTH118  bytes
        if os.path.islink(at):  # noqa: PTH114  bytes
            return False
    return os.path.lexists(os.path.join(at, order(path)[-1]))  # noqa: PTH118  bytes


def _count(resource: str, root: Path, pattern: bytes, deadline: float) -> int:
    count = 0
    with answering(resource, root):
        for found in walk(resource, root, reading=False):
            if time.monotonic() > deadline:
                raise StoreError(
                    "store.failed",
                    f"{resource}: counting took too long",
                    hint="give it more time, or a smaller directory",
                )
            if found.entry.kind != "directory":
                count += _matches(found.entry.path, pattern)
    return count


def _matches(path: bytes, pattern: bytes) -> bool:
    """Whether each segment of `path` matches that of `pattern`."""
    mine, wanted = order(path), order(pattern)
    return len(mine) == len(wanted) and all(
        fnmatch.fnmatchcase(part, glob) for part, glob in zip(mine, wanted, strict=True)
    )
