"""A fleet: a team with several SQLite databases that one operation goes over, in waves.

Rules:
- As in `teams.py`, nothing is a fake. Each store stands at a site: two to a site.
- The script fails on a store whose database has a table `refuses`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from handrail.core import adopting
from support.ssh_people import make_key
from support.teams import ANA, BEN, OPERATION, TABLES, Answer, Team, signers

NAMES = ("edge-a", "edge-b", "edge-c", "edge-d")
NAME = "close-sessions"
WAVES = "waves: {sizes: [1, all], at-once: 2, first: [store/edge-c]}\n"
SCRIPT = """\
#!/bin/sh
exec python3 -S "$(dirname "$0")/close.py"
"""
CLOSE = """\
import os, pathlib, sqlite3, sys
real = "/rehearsals/" not in os.environ["PILOT_DB"]
counted = os.environ.get("COUNTED_IN", "")
if counted and real:
    with open(counted, "a") as file:
        file.write(os.environ["HANDRAIL_RUN"] + "\\n")
connection = sqlite3.connect(os.environ["PILOT_DB"], isolation_level=None)
connection.execute("DELETE FROM sessions")
if real and os.environ.get("REFUSES") and pathlib.Path(os.environ["REFUSES"]).exists():
    names = pathlib.Path(os.environ["REFUSES"]).read_text().split()
    if connection.execute("SELECT name FROM me").fetchone()[0] in names:
        sys.exit(3)
"""
STORE = """\
  {name}:
    kind: sqlite
    url: data/{name}.db
    environment: pilot
    site: site/{site}
    holds: [production-data]
    backups: {{to: object/backups}}
"""


def files_of(names: Sequence[str], waves: str, undo: str) -> dict[str, str]:
    """Return the declarations of a fleet."""
    sites = sorted({site_of(names, name) for name in names})
    stores = "".join(STORE.format(name=name, site=site_of(names, name)) for name in names)
    estate = (
        "environments:\n  pilot: {max-age: 30d}\n"
        f"stores:\n{stores}"
        "sites:\n"
        + "".join(f"  {site}: {{}}\n" for site in sites)
        + "objects:\n  backups:\n    path: .handrail/backups\n"
    )
    operation = OPERATION.format(name=NAME, undo=undo)
    operation = operation.replace("on: store/pilot-db", "on: {store: {environment: pilot}}")
    operation = operation.replace("inherit: [COUNTED_IN]", "inherit: [COUNTED_IN, REFUSES]")
    operation = operation.replace("uses: [scripts/lib]", f"uses: [scripts/{NAME}]")
    return {
        "estate/pilot.yaml": estate,
        f"operations/{NAME}.yaml": operation + waves,
        f"scripts/{NAME}/run.sh": SCRIPT,
        f"scripts/{NAME}/close.py": CLOSE,
        f"scripts/{NAME}/undo.sh": "#!/bin/sh\nexit 1\n",
    }


def site_of(names: Sequence[str], name: str) -> str:
    """Return where a store stands."""
    return f"s{list(names).index(name) // 2}"


class Fleet:
    """A team with several stores; `make_fleet` makes it."""

    def __init__(self, team: Team, names: Sequence[str]) -> None:
        self.team = team
        self.names = tuple(names)
        self.digest = ""
        # Not beside the databases: a script works on a copy of that folder.
        self.told = team.root.with_name(f"{team.root.name}-told")
        self.told.mkdir(exist_ok=True)
        self.team.environment["REFUSES"] = str(self.told / "refuses")
        self.team.environment["COUNTED_IN"] = str(self.told / "executions")

    def call(self, *words: str, person: str = ANA) -> Answer:
        """Call the command line."""
        return self.team.call(*words, person=person)

    def refuse(self, *names: str) -> None:
        """Let the script fail on those stores from now on."""
        (self.told / "refuses").write_text(" ".join(names))

    def forget(self) -> None:
        """Let the script do what it did first, and count from nothing."""
        for path in self.told.iterdir():
            path.unlink()

    @property
    def executions(self) -> int:
        """How often a script has really run; rehearsals are not among them."""
        path = self.told / "executions"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def sessions(self) -> dict[str, int]:
        """Return how many sessions each store has."""
        found = {}
        for name in self.names:
            with closing(sqlite3.connect(self.team.root / "data" / f"{name}.db")) as connection:
                counted = connection.execute("SELECT count(*) FROM sessions").fetchone()
                found[name] = int(counted[0])
        return found

    def ready(self) -> str:
        """Rehearse on every store and approve as Ben; return the fan-out's digest."""
        rehearsed = self.call("rehearse", NAME, "--on", "all", "--json")
        assert rehearsed.code == 0, rehearsed.out + rehearsed.err
        digest = str(rehearsed.json["fan_out"]["digest"])
        title = f"{NAME} on {len(self.names)} stores"
        if rehearsed.json["verdict"] == "require":
            approved = self.call("approve", digest, "--yes", "--name", title, person=BEN)
            assert approved.code == 0, approved.out + approved.err
        return digest


def make_fleet(
    root: Path,
    names: Sequence[str] = NAMES,
    *,
    waves: str = WAVES,
    undo: str = "restore",
    more: dict[str, str] | None = None,
) -> Fleet:
    """Return a fleet in the new directory `root`: adopted and committed, nothing rehearsed."""
    root.mkdir(parents=True)
    keys = root.with_name(f"{root.name}-keys")
    keys.mkdir(mode=0o700)
    team = Team(root, keys)
    for person in (ANA, BEN):
        make_key(keys, person)
    (root / "data").mkdir()
    for name in names:
        with closing(sqlite3.connect(root / "data" / f"{name}.db")) as connection:
            connection.executescript(
                f"BEGIN; {TABLES} CREATE TABLE me (name); INSERT INTO me VALUES ('{name}'); COMMIT;"
            )
    team.git("init", "-q", "-b", "main", "--template=")
    ignored = {".gitignore": ".handrail/\ndata/\n__pycache__/\n"}
    people = {"allowed_signers": signers(team, ANA, BEN)}
    team.write(files_of(names, waves, undo) | ignored | people | dict(more or {}))
    for resource in team.declared.estate.stores.values():
        adopting.adopt(team.world(), resource)
    team.commit()
    return Fleet(team, names)
