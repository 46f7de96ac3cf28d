"""Adopting: the store says who it is, and its declaration keeps that.

Rules:
- The line is put into the file as text: comments, order and line ends stay.
- The file is replaced whole, or not at all.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import yaml

from handrail.core.world import World
from handrail.errors import RefusedError, UsageError
from handrail.estate.model import Resource
from handrail.plans.facts import Identity

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./@+-]*(:[A-Za-z0-9_./@+-]+)*")


def adopt(world: World, resource: Resource) -> Identity:
    """Write who the store is into its declaration, and return it. Twice equals once.

    Raises:
        RefusedError: it is a clone.
        StoreError: it does not answer.
        UsageError: the declaration cannot be extended, for it is written in one line.
    """
    identity = _identity(world, resource)
    if identity.marker:
        raise RefusedError("clone.not-distinct", f"{identity.endpoint} is a clone: not adopted")
    path = world.root / resource.place.file
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    changed = with_identity(text, resource, str(identity))
    if changed != text:
        _replace(path, changed)
    return identity


def _identity(world: World, resource: Resource) -> Identity:
    for kit in world.kits:
        if resource.kind in kit.identify:
            return kit.identify[resource.kind](world, resource)
    return world.open_store(resource).adopt(world.ids.new())


def with_identity(text: str, resource: Resource, identity: str) -> str:
    """Return the declaration with its `identity:` line set.

    Raises:
        UsageError: the resource's keys stand in one line with it.
    """
    node = _declaration(text, resource)
    if node is None or node.flow_style or not node.value:
        raise UsageError(
            "estate.wrong-type",
            f"write the keys of `{resource.ref}` a line each, then adopt it",
            at=resource.place,
        )
    wanted = scalar(identity)
    for key, value in node.value:
        if key.value == "identity":
            return text[: value.start_mark.index] + wanted + text[value.end_mark.index :]
    first = node.value[0][0].start_mark
    end = "\r\n" if "\r\n" in text else "\n"
    line = f"identity: {wanted}{end}{' ' * first.column}"
    return text[: first.index] + line + text[first.index :]


def scalar(text: str) -> str:
    """Return `text` as one YAML scalar: plain where that reads back the same, else quoted."""
    is_plain = _PLAIN.fullmatch(text) and text.lower() != "null"
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _declaration(text: str, resource: Resource) -> yaml.MappingNode | None:
    """Return the keys of `resource` as they stand in `text`, with their marks."""
    node: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    for name in (f"{resource.kind}s", resource.name):
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for key, value in node.value if key.value == name), None)
    return node if isinstance(node, yaml.MappingNode) else None


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.chmod(path.stat().st_mode)
    beside.replace(path)
