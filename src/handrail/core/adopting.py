"""Adopting: the store says who it is, and its declaration keeps that.

Rules:
- The line is put into the file as text: comments and order stay.
- The file is replaced whole, or not at all.
"""

from __future__ import annotations

import os
from pathlib import Path

from handrail.core.world import World
from handrail.errors import RefusedError, UsageError
from handrail.estate.model import Resource
from handrail.plans.facts import Identity


def adopt(world: World, resource: Resource) -> Identity:
    """Write who the store is into its declaration, and return it. Twice equals once.

    Raises:
        RefusedError: it is a clone.
        StoreError: it does not answer.
        UsageError: the declaration cannot be extended, for it is written in one line.
    """
    identity = world.open_store(resource).adopt(world.ids.new())
    if identity.marker:
        raise RefusedError("clone.not-distinct", f"{identity.endpoint} is a clone: not adopted")
    path = world.root / resource.place.file
    text = path.read_text(encoding="utf-8")
    changed = with_identity(text, resource, str(identity))
    if changed != text:
        _replace(path, changed)
    return identity


def with_identity(text: str, resource: Resource, identity: str) -> str:
    """Return the declaration with its `identity:` line set.

    Raises:
        UsageError: the resource's keys stand in one line with it.
    """
    lines = text.splitlines(keepends=True)
    first = (resource.place.line or 1) - 1
    indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
    if not indent or lines[first].lstrip().startswith("{"):
        raise UsageError(
            "estate.wrong-type",
            f"write the keys of `{resource.ref}` a line each, then adopt it",
            at=resource.place,
        )
    wanted = f"{indent}identity: {identity}\n"
    for number in range(first, len(lines)):
        line = lines[number]
        depth = len(line) - len(line.lstrip())
        if line.strip() and not line.lstrip().startswith("#") and depth < len(indent):
            break
        if depth == len(indent) and line.lstrip().startswith("identity:"):
            return "".join([*lines[:number], wanted, *lines[number + 1 :]])
    if not lines[first].endswith("\n"):
        lines[first] += "\n"
    return "".join([*lines[: first + 1], wanted, *lines[first + 1 :]])


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.chmod(path.stat().st_mode)
    beside.replace(path)
