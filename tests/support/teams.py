"""A team: a git repository, two people with SSH keys, and a SQLite database, on the real wiring.

Rules:
- Nothing here is a fake: commits, signatures, locks, journal, processes and database are real.
- Every test has its own team, in its own directory. What is dear to make (a rehearsal, an approval)
  is made once a test process, kept as a snapshot, and put back at the same path: a database's
  identity, and with it the approval, is bound to its path.
- Scripts append a line to `executions` each time that they really run: nothing may run twice.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from handrail import wiring
from handrail.cli.main import main
from handrail.core import adopting, approving, deciding, rehearsing
from handrail.core.deciding import Decided
from handrail.core.world import Declared, World
from handrail.plans.model import Approval
from handrail.testing.talk import QuietTalk
from support.ssh_people import make_key, public

ANA, BEN, CHI = "ana@pilot.example", "ben@pilot.example", "chi@pilot.example"
SESSIONS, DEVICES = 20, 5
TABLES = f"""
CREATE TABLE devices (id INTEGER PRIMARY KEY, registered INTEGER NOT NULL);
CREATE TABLE sessions (id INTEGER PRIMARY KEY, device INTEGER, started TIMESTAMP);
CREATE TABLE readings (id INTEGER PRIMARY KEY, value TEXT, taken TIMESTAMP);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {SESSIONS})
INSERT INTO sessions SELECT i, i % {DEVICES}, '2026-01-01' FROM n;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {DEVICES})
INSERT INTO devices SELECT i, 1 FROM n;
INSERT INTO readings VALUES (1, 'a', '2019-03-02'), (2, 'b', '2020-01-01'), (3, 'c', NULL);
"""
ESTATE = """\
environments:
  pilot: {max-age: 30d}
stores:
  pilot-db:
    kind: sqlite
    url: data/pilot.db
    environment: pilot
    durability: durable
    holds: [production-data]
    backups: {to: object/backups}
objects:
  backups:
    path: .handrail/backups
services:
  pilot-api:
    needs: [store/pilot-db]
    checks:
      - {sql: "select count(*) from devices", store: store/pilot-db}
"""
SQL = """\
import os, pathlib, sqlite3, sys
counted = os.environ.get("COUNTED_IN", "")
if counted and "/rehearsals/" not in os.environ["PILOT_DB"]:  # a run works on a copy, too
    with open(counted, "a") as file:
        file.write("run\\n")
connection = sqlite3.connect(os.environ["PILOT_DB"])
connection.executescript("BEGIN;" + sys.argv[1] + ";COMMIT;")
connection.close()
"""
SCRIPT = '#!/bin/sh\nset -eu\nexec python3 -S "$(dirname "$0")/../lib/sql.py" "{sql}"\n'
OPERATION = """\
operation: {name}
run: ./scripts/{name}/run.sh
on: store/pilot-db
environment: {{PILOT_DB: path}}
inherit: [COUNTED_IN]
uses: [scripts/lib]
undo: {undo}
watch: {{soak: 0s}}
"""
SCRIPTS = {
    "reset-pilot/run.sh": "DELETE FROM sessions; UPDATE devices SET registered = 0",
    "close-devices/run.sh": "UPDATE devices SET registered = 0 WHERE id > 1",
    "close-devices/undo.sh": "UPDATE devices SET registered = 1 WHERE id > 1",
    "purge-readings/run.sh": "DELETE FROM readings WHERE taken < '2025-01-01'",
    "drop-readings/run.sh": "DROP TABLE readings",
}
UNDO = {
    "reset-pilot": "restore",
    "close-devices": "./scripts/close-devices/undo.sh",
    "purge-readings": "{irreversible: the law wants them gone}",
    "drop-readings": "restore",
}
PYTHON = '''\
import os, sqlite3

from handrail.operations.python import operation


@operation(on="store/pilot-db", undo="restore", watch={"soak": "0s"},
           environment={"PILOT_DB": "path"})
def trim_sessions(keep: int = 3) -> None:
    """Keep the first sessions only."""
    connection = sqlite3.connect(os.environ["PILOT_DB"])
    connection.execute("DELETE FROM sessions WHERE id > ?", (keep,))
    connection.commit()
    connection.close()
'''


@dataclass(frozen=True)
class Answer:
    """What one call of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The object on stdout."""
        return json.loads(self.out)


@dataclass
class Team:
    """One team's repository. `make_team` makes it."""

    root: Path
    keys: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        """The database's file."""
        return self.root / "data" / "pilot.db"

    @property
    def state(self) -> Path:
        """Handrail's own directory."""
        return self.root / ".handrail"

    @property
    def executions(self) -> int:
        """How often a script that counts has really run; confined rehearsals are not among them."""
        path = self.root / "data" / "executions"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def key(self, person: str) -> Path:
        """Return a person's private key."""
        return self.keys / person

    def environment_of(self, person: str) -> dict[str, str]:
        """Return the environment in which a person works."""
        return {
            **{n: v for n, v in os.environ.items() if not n.startswith(("HANDRAIL_", "GIT_"))},
            # Not a version manager's shim, which is slower than all the rest.
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "HANDRAIL_ROOT": str(self.root),
            "HANDRAIL_PERSON": person,
            "HANDRAIL_KEY": str(self.key(person)),
            "COUNTED_IN": str(self.root / "data" / "executions"),
            **self.environment,
        }

    def world(self, person: str = ANA, **ports: Any) -> World:
        """Return the real world as a person has it; `ports` replace what a test needs replaced."""
        made = wiring.world(self.root, self.state, self.environment_of(person), wiring.kits())
        return replace(made, **ports)

    @property
    def declared(self) -> Declared:
        """What the repository declares now."""
        return wiring.declared(self.root, wiring.kits())

    def call(self, *words: str, person: str = ANA, cwd: Path | None = None) -> Answer:
        """Call the command line in this process, as a person would in the repository."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(cwd or self.root)
            for name in [n for n in os.environ if n.startswith(("HANDRAIL_", "GIT_"))]:
                patch.delenv(name)
            for name, value in self.environment_of(person).items():
                patch.setenv(name, value)
            code = main(list(words))
        return Answer(code, out.getvalue(), err.getvalue())

    def spawn(self, *words: str, person: str = ANA, **options: Any) -> subprocess.Popen[str]:
        """Start the command line as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "handrail", *words],
            cwd=self.root,
            env=self.environment_of(person),
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
            | options,
        )

    def decide(self, operation: str, world: World | None = None, **options: Any) -> Decided:
        """Plan an operation as Ana."""
        return deciding.decide(world or self.world(), self.declared, operation, **options)

    def rehearse(self, operation: str, world: World | None = None, **options: Any) -> Decided:
        """Rehearse an operation as Ana."""
        world = world or self.world()
        return rehearsing.rehearse(world, self.decide(operation, world, **options), QuietTalk())

    def approve(self, decided: Decided, person: str = BEN, **options: Any) -> Approval:
        """Approve a plan as another person, with the target's name where that is needed."""
        typed = decided.plan.target.resource if approving.names_target(decided.plan) else ""
        options = {"typed": typed} | options
        return approving.approve(
            self.world(person), self.declared, decided.plan, self.key(person), **options
        )

    def make_ready(self, operation: str, world: World | None = None, **options: Any) -> Decided:
        """Rehearse and approve an operation, and return its plan as it may run now."""
        decided = self.rehearse(operation, world, **options)
        if decided.plan.verdict == "require":
            self.approve(decided)
        return self.decide(operation, world, **options)

    def execute(self, sql: str) -> None:
        """Change the database, as somebody else would."""
        with closing(sqlite3.connect(self.database)) as connection:
            connection.executescript(f"BEGIN; {sql}; COMMIT;")

    def query(self, sql: str) -> Any:
        """Return the first value of a query."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql).fetchone()[0]

    def fingerprint(self) -> Any:
        """Return checksums of the database's content."""
        return self.world().open_store(self.declared.estate.stores["store/pilot-db"]).fingerprint()

    def write(self, files: Mapping[str, str]) -> None:
        """Write files; those named `.sh` may be executed."""
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if name.endswith(".sh"):
                path.chmod(0o755)

    def commit(self, files: Mapping[str, str] | None = None, message: str = "as it is") -> None:
        """Write files, and commit everything as Ana, reviewed by Ben."""
        self.write(files or {})
        who = ("-c", "user.name=Ana", "-c", f"user.email={ANA}", "-c", "commit.gpgsign=false")
        self.git("add", "--all")
        self.git(*who, "commit", "-q", "-m", f"{message}\n\nReviewed-by: Ben <{BEN}>")

    def git(self, *words: str) -> None:
        """Call git in the repository."""
        environment = {n: v for n, v in os.environ.items() if not n.startswith("GIT_")}
        subprocess.run(["git", *words], cwd=self.root, check=True, env=environment)

    def journal_text(self) -> str:
        """Return everything that the journal holds."""
        return "\n".join(self.world().journal.export())

    @cached_property
    def kept(self) -> dict[str, Path]:
        """The snapshots, by name."""
        return {}

    def keep(self, name: str) -> None:
        """Keep the repository, the database and the state as they are now, under a name."""
        self.kept[name] = self.root.with_name(f"{self.root.name}-{name}")
        shutil.copytree(self.root, self.kept[name], symlinks=True)

    def put_back(self, name: str) -> None:
        """Make everything as it was when it was kept."""
        shutil.rmtree(self.root)
        shutil.copytree(self.kept[name], self.root, symlinks=True)


def make_team(root: Path, files: Mapping[str, str] | None = None, tables: str = TABLES) -> Team:
    """Return a team in the new directory `root`: adopted and committed, nothing rehearsed.

    Args:
        root: where; its parent gets the keys.
        files: written besides, or instead of, the usual declarations.
        tables: SQL that fills the database.
    """
    root.mkdir(parents=True)
    keys = root.with_name(f"{root.name}-keys")
    keys.mkdir(mode=0o700)
    team = Team(root, keys)
    for person in (ANA, BEN, CHI):
        make_key(keys, person)
    (root / "data").mkdir()
    with closing(sqlite3.connect(team.database)) as connection:
        connection.executescript(tables)
    team.git("init", "-q", "-b", "main", "--template=")  # no samples of hooks
    team.write(usual_files() | {"allowed_signers": signers(team, ANA, BEN)} | dict(files or {}))
    for resource in team.declared.estate.stores.values():
        adopting.adopt(team.world(), resource)
    team.commit()
    return team


def signers(team: Team, *people: str) -> str:
    """Return an `allowed_signers` file for `people`."""
    lines = []
    for person in people:
        kind, key = public(team.key(person)).split()[:2]
        lines.append(f'{person} namespaces="handrail" {kind} {key}\n')
    return "".join(lines)


def usual_files() -> dict[str, str]:
    """Return the usual declarations and scripts."""
    files = {
        "estate/pilot.yaml": ESTATE,
        "scripts/lib/sql.py": SQL,
        "operations/python.py": PYTHON,
        ".gitignore": ".handrail/\ndata/\n__pycache__/\n",
    }
    for name, undo in UNDO.items():
        files[f"operations/{name}.yaml"] = OPERATION.format(name=name, undo=undo)
    for name, sql in SCRIPTS.items():
        files[f"scripts/{name}"] = SCRIPT.format(sql=sql)
    return files
