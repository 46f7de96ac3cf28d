"""Repositories with an estate of any size, for benches.

Rules:
- The shape is a plausible one: nine services in ten need one or two others, hard and soft by turns,
  towards one store; each has a check.
- The same size gives the same estate.
"""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

_A_FILE = 250
_OPERATION = """\
operation: reset-pilot
summary: Empty the pilot's sessions before a test day
run: ./scripts/reset_pilot.sh
on: {store: {environment: pilot}}
environment: {PILOT_DB: path}
undo: restore
"""
_STORE = """\
environments:
  pilot:
    max-age: 30d

stores:
  pilot-db:
    kind: sqlite
    url: data/pilot.db
    environment: pilot
    backups: {to: object/backups}

objects:
  backups:
    path: .handrail/backups
"""
_SCRIPT = "#!/bin/sh\nsqlite3 \"$PILOT_DB\" 'delete from sessions'\n"


def make_repository(root: Path, *, resources: int) -> None:
    """Write a git repository with that many resources, one operation and one small database."""
    files = {
        "estate/pilot.yaml": _STORE,
        "operations/reset-pilot.yaml": _OPERATION,
        "scripts/reset_pilot.sh": _SCRIPT,
        ".gitignore": ".handrail/\ndata/\n",
    }
    services = list(_services(resources - 2))
    for number, start in enumerate(range(0, len(services), _A_FILE)):
        text = "services:\n" + "".join(services[start : start + _A_FILE])
        files[f"estate/services-{number:03}.yaml"] = text
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "scripts/reset_pilot.sh").chmod(0o755)
    _make_database(root / "data/pilot.db")
    _commit(root)


def _services(count: int) -> Iterator[str]:
    for number in range(count):
        needs = ["store/pilot-db"] if number < count // 10 else [f"service/s{number // 3:05}"]
        if number % 2:
            needs.append(f"{{service/s{number // 5:05}: soft}}")
        yield (
            f"  s{number:05}:\n"
            f"    summary: Service number {number}\n"
            "    environment: pilot\n"
            f"    needs: [{', '.join(needs)}]\n"
            "    checks:\n"
            f"      - http://s{number:05}.internal/health\n"
        )


def _make_database(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE sessions (id INTEGER PRIMARY KEY, name TEXT)")
        database.executemany("INSERT INTO sessions (name) VALUES (?)", [("ana",)] * 100)
    database.close()


def _commit(root: Path) -> None:
    person = ("-c", "user.name=Ana", "-c", "user.email=ana@pilot.example")
    for words in (
        ("init", "--quiet", "--initial-branch=main"),
        ("config", "user.email", "ana@pilot.example"),
        ("add", "--all"),
        (*person, "commit", "--quiet", "--message=estate: declare the pilot"),
    ):
        subprocess.run(("git", "-C", str(root), *words), check=True)
