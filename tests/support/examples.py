"""The repositories of `examples/` as teams."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from support.teams import Team

STORY_1 = Path(__file__).resolve().parents[2] / "examples" / "story-1"


def story_1() -> ModuleType:
    """Return the program of story 1."""
    found = importlib.util.spec_from_file_location("story_1", STORY_1 / "demo.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def make_story_1(root: Path) -> Team:
    """Return story 1's team, which says what its store holds, and waits less."""
    story = story_1()
    vars(story)["DEMO"] = root
    story.begin()
    team = Team(root, root / ".keys")
    for name, old, new in (
        ("estate/pilot.yaml", "durable\n", "durable\n    holds: [production-data]\n"),
        ("operations/reset-pilot.yaml", "soak: 2s", "soak: 0s"),
    ):
        path = root / name
        path.write_text(path.read_text().replace(old, new))
    script = root / "scripts/reset_pilot.sh"
    script.write_text(script.read_text().replace("before a test day.", "before each test day."))
    team.commit(message="pilot: reviewed")
    return team
