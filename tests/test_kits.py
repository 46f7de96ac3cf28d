"""A team's own package: operations, guards and kinds of resource by the entry point."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

KIT = '''
"""A kit of a team."""
from handrail.core.world import Kit
from handrail.estate.shapes import TEXT, Key
from handrail.operations.python import operation, operation_of
from handrail.plans.model import Decision


@operation(on="store/app", undo="restore", environment={"APP_DB": "path"}, watch={"soak": "0s"})
def trim_notes(keep: int = 2) -> None:
    """Keep the newest notes."""
    import os, sqlite3

    with sqlite3.connect(os.environ["APP_DB"]) as database:
        database.execute("DELETE FROM notes WHERE id <= (SELECT max(id) FROM notes) - ?", (keep,))
    database.close()


class Quiet:
    """Nothing runs on a full moon."""

    name = "quiet"

    def judge(self, case):
        if case.plan.request.because == "full moon":
            return Decision(self.name, "refuse", "the moon is full", remedy="wait a day")
        return Decision(self.name, "allow", "no moon")


KIT = Kit("team", operations=(operation_of(trim_notes),), guards=(Quiet(),),
          kinds={"printer": {"paper": Key(TEXT, "its size", default="A4")}})
'''
ESTATE = """\
stores:
  app:
    kind: sqlite
    url: app.db
    durability: lossy
printers:
  office:
    paper: A3
    needs: [store/app]
"""


def handrail(root: Path, *words: str) -> tuple[int, Any]:
    environment = {**os.environ, "PYTHONPATH": str(root / "site"), "HANDRAIL_PERSON": "ana@x"}
    command = [sys.executable, "-m", "handrail", *words, "--json"]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout)


def make_team(root: Path) -> None:
    package, metadata = root / "site" / "team_kit", root / "site" / "team_kit-1.dist-info"
    for folder in (package, metadata, root / "estate"):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text(KIT)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: team-kit\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[handrail.kits]\nteam = team_kit:KIT\n")
    (root / "estate" / "estate.yaml").write_text(ESTATE)
    with sqlite3.connect(root / "app.db") as database:
        database.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO notes (text) VALUES (?)", [("a",)] * 5)
    database.close()


def test_a_package_brings_operations_guards_and_kinds(tmp_path: Path) -> None:
    """What an installed kit registers goes the same way as what is built in."""
    make_team(tmp_path)
    assert handrail(tmp_path, "adopt", "app")[0] == 0
    code, plan = handrail(tmp_path, "rehearse", "trim-notes", "-p", "keep=1")
    assert code == 0
    found = [(e["verb"], e["name"], e["rows"]) for e in plan["plan"]["effects"]]
    assert found == [("delete", "notes", 4)]
    assert [c["resource"] for c in plan["plan"]["consequences"]] == ["printer/office"]
    assert "quiet" in [d["guard"] for d in plan["plan"]["decisions"]]

    code, plan = handrail(tmp_path, "plan", "trim-notes", "-p", "keep=1", "--because", "full moon")
    assert (code, plan["verdict"]) == (3, "refuse")
    assert plan["next"] == "wait a day"


def test_a_kits_kind_is_checked_like_every_other(tmp_path: Path) -> None:
    """An unknown key of a kit's own kind is an error with file and line."""
    make_team(tmp_path)
    estate = tmp_path / "estate" / "estate.yaml"
    estate.write_text(ESTATE.replace("paper:", "papper:"))
    code, found = handrail(tmp_path, "check")
    assert code == 2
    [error] = found["errors"]
    assert (error["code"], error["line"]) == ("estate.unknown-key", 8)
    assert error["hint"] == "did you mean `paper`?"
