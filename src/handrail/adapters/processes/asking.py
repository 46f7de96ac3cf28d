"""The request to the launcher, made of a command: every path resolved, nothing left to guess.

Rules:
- What the script needs to be found (its file, its folder, its `PATH`, the repository) stays where
  it is, read-only; the launcher takes it from below what it empties.
- Where the network alone is confined nothing is emptied, and so nothing has to be kept.
- A path that does not exist is left out, except one that is to be replaced: that is a defect.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from handrail.errors import ScriptError
from handrail.ports import Command, Confine

FRESH = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # noqa: S108 - they are covered, not used


def request_for(command: Command, *, is_confined: bool) -> dict[str, Any]:
    """Return what the launcher is asked."""
    confine = command.confine if is_confined else None
    return {
        "argv": list(command.argv),
        "cwd": str(command.cwd.resolve() if is_confined else command.cwd),
        "environment": dict(command.environment),
        "confine": None if confine is None else _confine(command, confine),
    }


def _confine(command: Command, confine: Confine) -> dict[str, Any]:
    writable = _existing(confine.writable)
    is_narrow = confine.network_only
    replaced = [_pair(real, clone) for real, clone in confine.replaced]
    _check_folders(replaced)
    watched = _existing([command.watched] if command.watched else [])
    fresh = [] if is_narrow else [os.path.realpath(path) for path in FRESH]
    below_fresh = tuple(path + "/" for path in fresh)
    own = [*writable, *_existing([command.cwd]), *(_own(real, clone) for real, clone in replaced)]
    return {
        "writable": writable,
        "replaced": replaced,
        "hidden": [path for path in _existing(confine.hidden) if path not in fresh],
        # An empty folder needs things put back into it; what stays as it is does not.
        "kept": []
        if is_narrow
        else [p for p in _needed(command, watched) if p.startswith(below_fresh)],
        "sockets": [list(pair) for pair in dict.fromkeys(confine.sockets)],
        "own": [path for path in dict.fromkeys(own) if path != "/"],
        "fresh": fresh,
        "watched": next(iter(watched), None),
        "network_only": is_narrow,
    }


def _existing(paths: Iterable[Path]) -> list[str]:
    return list(dict.fromkeys(str(path.resolve()) for path in paths if _exists(path)))


def _exists(path: Path) -> bool:
    """Whether a path is there for this user: what they cannot see, the script cannot either."""
    return os.access(path, os.F_OK)


def _pair(real: Path, clone: Path) -> list[str]:
    if real.is_dir() != clone.is_dir() or not _exists(clone):
        raise _unfit(f"`{clone}` cannot stand in for `{real}`: one of them is a folder, or missing")
    if clone.is_file() and real.resolve().name != clone.resolve().name:
        raise _unfit(
            f"`{clone}` cannot stand in for `{real}`: a clone has the name of its original"
        )
    return [str(real.resolve()), str(clone.resolve())]


def _check_folders(replaced: list[list[str]]) -> None:
    """A real folder can be replaced by one clone's folder only."""
    folders: dict[str, str] = {}
    for real, clone in replaced:
        mine = str(Path(clone).parent)
        if Path(clone).is_file() and folders.setdefault(str(Path(real).parent), mine) != mine:
            raise _unfit(f"two clones in different folders stand in for `{real}` and a neighbour")


def _unfit(message: str) -> ScriptError:
    return ScriptError("script.confine", message, hint="rehearse one store at a time")


def _own(real: str, clone: str) -> str:
    return real if Path(clone).is_dir() else str(Path(real).parent)


def _needed(command: Command, watched: list[str]) -> list[str]:
    """Return what must be seen for the script to be found and to find its programs."""
    program = Path(command.argv[0])
    folders = [Path(one) for one in command.environment.get("PATH", "").split(":") if one]
    # A program's own files stand beside its `bin`: a Python environment, a database's tools.
    beside = [folder.parent for folder in folders if folder.name in {"bin", "sbin"}]
    ours = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[3]]
    found = _existing([program, program.parent, command.cwd, *folders, *beside, *ours])
    return sorted({*found, *watched})
