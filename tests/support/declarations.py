"""Declarations of a test: files in a folder, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

from handrail.core.declaring import load
from handrail.core.world import Declared
from handrail.errors import DeclarationError, DeclarationErrors
from handrail.guards import BUILT_IN

STORE = """\
stores:
  pilot-db:
    kind: sqlite
    url: data/pilot.db
"""


def write(root: Path, files: dict[str, str]) -> Path:
    """Write `files` (path to text) below `root`, and return `root`. What is in `scripts/` runs."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if name.startswith("scripts/"):
            path.chmod(0o755)
    return root


def read(root: Path) -> Declared:
    """Return what is declared below `root`."""
    return load(root, (), BUILT_IN)


def problems(root: Path) -> tuple[DeclarationError, ...]:
    """Return everything that is wrong below `root`; empty when nothing is."""
    try:
        read(root)
    except DeclarationErrors as error:
        return error.errors
    return ()


def told(root: Path) -> list[str]:
    """Return the problems as `code file:line`, in the order in which people see them."""
    return [f"{problem.code} {problem.at}" for problem in problems(root)]
