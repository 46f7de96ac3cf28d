"""Story 1 on a real PostgreSQL server: a million rows, and the script exactly as it was found.

bash calls psql, psql calls a function, the function drops a table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.postgres_server import Server, server_binaries
from support.ssh_people import make_key, public

ROWS, SESSIONS, DEVICES = 1_000_000, 214, 12
SCHEMA = f"""
    CREATE TABLE readings (id bigint PRIMARY KEY, device int, at timestamptz, value real);
    INSERT INTO readings SELECT i, i % 1000, timestamptz '2019-03-02' + i * interval '2 min', i
        FROM generate_series(1, {ROWS}) i;
    CREATE TABLE sessions (id serial PRIMARY KEY, device int);
    INSERT INTO sessions (device) SELECT i FROM generate_series(1, {SESSIONS}) i;
    CREATE TABLE devices (id int PRIMARY KEY, registered boolean);
    INSERT INTO devices SELECT i, true FROM generate_series(1, {DEVICES}) i;
    CREATE FUNCTION clear_sessions() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN DELETE FROM sessions; UPDATE devices SET registered = false; END $$;
    CREATE FUNCTION reset_all() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN PERFORM clear_sessions(); EXECUTE 'DROP TABLE ' || 'read' || 'ings'; END $$;
"""
FILES = {
    "estate/pilot.yaml": """\
environments:
  pilot: {max-age: 30d}
stores:
  pilot-db:
    kind: postgres
    url: {env: PILOT_DB_URL}
    environment: pilot
    durability: durable
    holds: [production-data]
    backups: {to: object/backups}
objects:
  backups: {path: .handrail/backups}
services:
  ml-export:
    needs: [store/pilot-db]
""",
    "operations/reset-pilot.yaml": """\
operation: reset-pilot
run: ./scripts/reset_pilot.sh
on: {store: {environment: pilot}}
undo: restore
watch: {soak: 0s}
""",
    "scripts/reset_pilot.sh": '#!/bin/bash\n. "$(dirname "$0")/lib/db.sh"\nclean_all\n',
    "scripts/lib/db.sh": 'clean_all() { psql -qXAt -c "select reset_all()"; }\n',
    ".gitignore": ".handrail/\n",
}


class Team:
    """A team's repository, its people, and its database."""

    def __init__(self, root: Path, server: Server, keys: dict[str, Path]) -> None:
        self.root = root
        self._keys = keys
        database = server.make_database()
        self.url = server.url(database)
        binaries = server_binaries()
        assert binaries is not None
        self._path = f"{binaries.folder}:{os.environ['PATH']}"

    def query(self, query: str) -> Any:
        with psycopg.connect(self.url, autocommit=True) as session:
            found = session.execute(query.encode())
            return found.fetchone() if found.description else None

    def handrail(self, *words: str, who: str = "ana") -> tuple[int, Any]:
        """Return the exit code and the JSON of a call."""
        environment = {
            **os.environ,
            "PATH": self._path,
            "PILOT_DB_URL": self.url,
            "HANDRAIL_PERSON": f"{who}@pilot.example",
            "HANDRAIL_KEY": str(self._keys[who]),
        }
        done = subprocess.run(
            [sys.executable, "-m", "handrail", *words, "--json"],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "p%w" not in done.stdout + done.stderr
        return done.returncode, json.loads(done.stdout)

    def commit(self, message: str) -> None:
        who = ["-c", "user.name=Ana", "-c", "user.email=ana@pilot.example"]
        for words in (["add", "-A"], ["commit", "-qm", f"{message}\n\nReviewed-by: Ben <ben@x>"]):
            subprocess.run(["git", *who, *words], cwd=self.root, check=True)


@pytest.fixture
def team(postgres_server: Server, tmp_path: Path) -> Team:
    keys = {who: make_key(tmp_path, who) for who in ("ana", "ben")}
    root = tmp_path / "repository"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "scripts/reset_pilot.sh").chmod(0o755)
    signers = "".join(f"{who}@pilot.example {public(key)}\n" for who, key in keys.items())
    (root / "allowed_signers").write_text(signers)
    team = Team(root, postgres_server, keys)
    team.query(SCHEMA)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=root, check=True)
    assert team.handrail("adopt", "pilot-db")[0] == 0
    team.commit("as it was found")
    return team


def effects(plan: dict[str, Any]) -> set[tuple[str, str, int | None]]:
    return {(e["verb"], e["name"], e["rows"]) for e in plan["plan"]["effects"]}


def approved(team: Team, plan: dict[str, Any]) -> str:
    digest: str = plan["plan"]["digest"][:8]
    words = ("approve", digest, "--yes", "--name", "pilot-db")
    assert team.handrail(*words, who="ana")[0] == 3, "nobody approves their own run"
    assert team.handrail(*words, who="ben")[0] == 0
    return digest


@pytest.mark.postgres
def test_the_script_is_refused_rehearsed_approved_run_and_undone(team: Team) -> None:
    """What the unmodified script destroys is known exactly before it runs, and put back after."""
    code, plan = team.handrail("run", "reset-pilot")
    assert code == 3
    assert plan["next"] == "handrail rehearse reset-pilot"

    code, plan = team.handrail("rehearse", "reset-pilot")
    assert code == 0
    assert effects(plan) == {
        ("drop", "readings", ROWS),
        ("delete", "sessions", SESSIONS),
        ("update", "devices", DEVICES),
    }
    assert plan["plan"]["risk"] == "critical"
    assert [c["resource"] for c in plan["plan"]["consequences"]] == ["service/ml-export"]
    assert plan["plan"]["facts"]["rehearsal"]["residue"] == []
    assert team.query("SELECT count(*) FROM readings") == (ROWS,)

    assert team.handrail("run", "reset-pilot")[0] == 4
    digest = approved(team, plan)
    code, outcome = team.handrail("run", digest)
    assert (code, outcome["run"]["outcome"]) == (0, "confirmed")
    assert team.query("SELECT to_regclass('readings')") == (None,)

    code, outcome = team.handrail("undo", "1")
    assert (code, outcome["run"]["residue"]) == (0, [])
    assert team.query("SELECT count(*), sum(value)::bigint FROM readings")[0] == ROWS
    assert team.query("SELECT count(*) FROM sessions") == (SESSIONS,)
    assert team.handrail("log", "verify")[1]["problems"] == []


@pytest.mark.postgres
def test_a_run_that_would_do_more_than_it_did_in_rehearsal_is_stopped(team: Team) -> None:
    """Fifty rows beyond the budget: nothing of the run is kept, and it says by how much."""
    script = team.root / "scripts/lib/db.sh"
    script.write_text(script.read_text().replace("reset_all", "clear_sessions"))
    team.commit("leave the readings alone")
    code, plan = team.handrail("rehearse", "reset-pilot")
    assert code == 0
    assert effects(plan) == {("delete", "sessions", SESSIONS), ("update", "devices", DEVICES)}
    digest = approved(team, plan)
    team.query("INSERT INTO sessions (device) SELECT i FROM generate_series(1, 50) i")

    code, outcome = team.handrail("run", digest)
    assert (code, outcome["run"]["outcome"]) == (5, "over-budget")
    report = outcome["run"]["report"]
    stop = report["stop"]
    assert (stop["effect"]["rows"], stop["allowed"]["rows"]) == (SESSIONS + 50, SESSIONS)
    assert (report["how"], report["kept"], report["avoidable"]) == ("before COMMIT", 0, "")
    assert outcome["run"]["breaches"] == []
    assert team.query("SELECT count(*) FROM sessions") == (SESSIONS + 50,)
    assert team.query("SELECT count(*) FROM devices WHERE registered") == (DEVICES,)
