"""What Nomad says that a job would do: fates by group, and what differs, a line each.

Rules:
- Values that are likely secrets (their name says so, or they are the environment of a task) are
  told to differ, and not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from handrail.adapters.nomad.rollouts import unplaced
from handrail.kits.deploys.model import DryRun, GroupFate

# Nomad's names of fates, to those of `model.Fate`.
_FATES = {
    "Place": "place",
    "Stop": "stop",
    "InPlaceUpdate": "in-place",
    "DestructiveUpdate": "destructive",
    "Ignore": "ignore",
    "Canary": "canary",
    "Migrate": "migrate",
}
_MARKS = {"Added": "+", "Deleted": "-", "Edited": "~"}
_SECRET = re.compile(
    r"secret|password|passwd|token|credential|private|api[-_]?key|auth", re.IGNORECASE
)
_SECRET_IN = re.compile(rf"(?:{_SECRET.pattern})[\w-]*[=: ]|://[^/\s]*:[^/\s]*@", re.IGNORECASE)
_LINE_CHARACTERS = 300


def dry_run(told: Mapping[str, Any]) -> DryRun:
    """Return the answer to `/v1/job/:id/plan`, with its diff, as values."""
    updates = (told.get("Annotations") or {}).get("DesiredTGUpdates") or {}
    groups = tuple(
        GroupFate(name, {word: int(counts[key]) for key, word in _FATES.items() if counts.get(key)})
        for name, counts in sorted(updates.items())
    )
    warnings = tuple(line.strip(" *\t") for line in str(told.get("Warnings") or "").splitlines())
    return DryRun(
        groups,
        tuple(_job(told.get("Diff") or {})),
        tuple(line for line in warnings if line and not _HEADING.match(line)),
        unplaced(told.get("FailedTGAllocs")),
    )


_HEADING = re.compile(r"^\d+ (errors?|warnings?)( occurred)?:?$|^Job Warnings:$", re.IGNORECASE)


def _job(diff: Mapping[str, Any]) -> Iterator[str]:
    yield from _level(diff, "")
    for group in diff.get("TaskGroups") or ():
        name = f"group {group.get('Name')}"
        if group.get("Type") in {"Added", "Deleted"}:
            yield f"{_MARKS[group['Type']]} {name}"
        yield from _level(group, f"{name} > ")
        for task in group.get("Tasks") or ():
            label = f"{name} > task {task.get('Name')}"
            if task.get("Type") in {"Added", "Deleted"}:
                yield f"{_MARKS[task['Type']]} {label}"
            yield from _level(task, f"{label} > ")


def _level(diff: Mapping[str, Any], path: str) -> Iterator[str]:
    for each in diff.get("Fields") or ():
        if each.get("Type") in _MARKS:
            yield _field(each, path)
    for each in diff.get("Objects") or ():
        if each.get("Type") in _MARKS:
            yield from _level(each, f"{path}{_word(each.get('Name'))} > ")


def _field(diff: Mapping[str, Any], path: str) -> str:
    name, mark = str(diff.get("Name")), _MARKS[diff["Type"]]
    old, new = str(diff.get("Old") or ""), str(diff.get("New") or "")
    if name.startswith("Env[") or _SECRET.search(name) or _SECRET_IN.search(f"{old} {new}"):
        return f"{mark} {path}{_word(name)} (not shown)"
    told = f"{old} -> {new}" if mark == "~" else (new if mark == "+" else old)
    if "\n" in told:
        told = f"{old.count(chr(10))} lines -> {new.count(chr(10))} lines"
    line = f"{mark} {path}{_word(name)}: {told}"
    return line if len(line) <= _LINE_CHARACTERS else f"{line[:_LINE_CHARACTERS]}..."


def _word(name: object) -> str:
    """Return a name of Nomad's JSON as specifications write it: `KillTimeout`, `kill_timeout`."""
    text = str(name)
    head, bracket, tail = text.partition("[")
    if not head.isidentifier() or head.islower():
        return text
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", head).lower()
    return f"{words}{bracket}{tail}"
