"""The repository of story 1, as `make demo` makes it, for pages that begin there."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any


def make_story(example: Path, at: Path) -> Path:
    """Make the team's repository in `at`, as it was found, and return it.

    Ana works there. The corrected script, reviewed by Ben, is on the branch `corrected`.
    """
    demo = _load(example / "demo.py")
    demo.DEMO = at
    demo.begin()
    git = ["git", "-C", str(at)]
    for key, value in (("user.name", "Ana"), ("user.email", demo.PEOPLE[0])):
        subprocess.run([*git, "config", key, value], check=True)
    subprocess.run([*git, "switch", "-q", "-c", "corrected"], check=True)
    demo.correct()
    subprocess.run([*git, "switch", "-q", "main"], check=True)
    return at


def _load(file: Path) -> Any:
    found = importlib.util.spec_from_file_location("story", file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
