"""Story 1 among a database, its Redis and uploads on the disk: the team, and its script as found.

Rules:
- Every server is real; every call is the real command line, in a process of its own.
- The script says `Database reset complete.` and ends with exit 0 whatever became of it.
- What each store must look like is counted past every guard.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from support.postgres_server import Server, server_binaries
from support.redis_server import RedisServer
from support.ssh_people import make_key, public

SESSIONS, DEVICES, OLD, NEW = 214, 12, 580, 40
KEYS, LEFT, FILES, KEPT = 30, 5, 8, 3
COMPLETE = "Database reset complete."
SCHEMA = f"""
    CREATE TABLE sessions (id serial PRIMARY KEY, device int);
    INSERT INTO sessions (device) SELECT i FROM generate_series(1, {SESSIONS}) i;
    CREATE TABLE devices (id int PRIMARY KEY, registered boolean);
    INSERT INTO devices SELECT i, true FROM generate_series(1, {DEVICES}) i;
    CREATE TABLE readings (id serial PRIMARY KEY, at date);
    INSERT INTO readings (at) SELECT '2019-03-02' FROM generate_series(1, {OLD}) i;
    INSERT INTO readings (at) SELECT '2026-01-01' FROM generate_series(1, {NEW}) i;
    CREATE FUNCTION clear_sessions() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN DELETE FROM sessions; UPDATE devices SET registered = false; END $$;
    CREATE FUNCTION purge() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN DELETE FROM readings WHERE at < '2020-01-01'; END $$;
    CREATE FUNCTION reset_all() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN PERFORM purge(); END $$;
"""
# What somebody else changes between the rehearsal and the run.
PURGES_ALL = """
    CREATE OR REPLACE FUNCTION purge() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN DELETE FROM readings; END $$
"""
DROPS = """
    CREATE OR REPLACE FUNCTION purge() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN EXECUTE 'DROP TABLE ' || 'read' || 'ings'; END $$
"""
PARTS = {
    "database": """\
    psql -qXAt -c "select clear_sessions()"
    psql -qXAt -c "select reset_all()"
""",
    "cache": """\
    redis-cli -u "$REDIS_URL" --scan --pattern 'session:*' | xargs -r redis-cli -u "$REDIS_URL" del
""",
    "uploads": """\
    rm -rf "$HANDRAIL_FILES"/tmp
""",
}
STORES = {
    "database": """\
  pilot-db:
    kind: postgres
    url: {env: PILOT_DB_URL}
""",
    "cache": """\
  cache:
    kind: redis
    url: {env: CACHE_URL}
""",
    "uploads": """\
  uploads:
    kind: files
    url: {env: UPLOADS}
""",
}
NAMES = {"database": "pilot-db", "cache": "cache", "uploads": "uploads"}
ABOUT = """\
    environment: pilot
    holds: [production-data]
    durability: durable
    backups: {to: object/backups}
"""


@dataclass(frozen=True)
class Answer:
    """What a command line answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        return json.loads(self.out)

    @property
    def screen(self) -> str:
        """Everything that the operator reads."""
        return self.out + self.err


def script(*stores: str) -> dict[str, str]:
    """Return the script's files for these stores: bash calls bash, which calls their clients."""
    acts = "".join(PARTS[store] for store in stores)
    return {
        "scripts/reset_pilot.sh": '#!/bin/bash\n. "$(dirname "$0")/lib/db.sh"\nclean_all\n'
        f'echo "{COMPLETE}"\n',
        "scripts/lib/db.sh": f"clean_all() {{\n{acts}}}\n",
    }


def declarations(*stores: str) -> dict[str, str]:
    """Return the estate and the operation for these stores; the script is for the first."""
    listed = "".join(STORES[store] + ABOUT for store in stores)
    first, *others = (f"store/{NAMES[store]}" for store in stores)
    also = f"also: [{', '.join(others)}]\n" if others else ""
    return {
        "estate/pilot.yaml": "environments:\n  pilot: {max-age: 30d}\n"
        f"stores:\n{listed}objects:\n  backups: {{path: .handrail/backups}}\n",
        "operations/reset-pilot.yaml": "operation: reset-pilot\nrun: ./scripts/reset_pilot.sh\n"
        f"on: {first}\n{also}undo: restore\nwatch: {{soak: 0s}}\n",
        ".gitignore": ".handrail/\n",
    }


@dataclass
class Story:
    """A team's directory, its people, and its stores.

    Attributes:
        root: where the script lies; a repository once it is declared.
        url: the database's address; empty without one.
        redis: its server; None without one.
        uploads: the directory; there only when it is a store.
    """

    root: Path
    uploads: Path
    url: str = ""
    redis: RedisServer | None = None
    keys: dict[str, Path] = field(default_factory=dict)

    # --- calling -------------------------------------------------------------------------------

    def environment(
        self, who: str = "ana", more: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Return the environment in which somebody works."""
        own = {n: v for n, v in os.environ.items() if not n.startswith(("HANDRAIL_", "GIT_", "PG"))}
        binaries = server_binaries()
        folder = f"{binaries.folder}:" if binaries else ""
        own |= {
            "PATH": f"{Path(sys.executable).parent}:{folder}{os.environ['PATH']}",
            "UPLOADS": str(self.uploads),
            "HANDRAIL_PERSON": f"{who}@pilot.example",
        }
        if self.url:
            own["PILOT_DB_URL"] = self.url
        if self.redis:
            own["CACHE_URL"] = self.redis.url
        if who in self.keys:
            own["HANDRAIL_KEY"] = str(self.keys[who])
        return own | dict(more or {})

    def spawn(self, *words: str, who: str = "ana", **more: str) -> subprocess.Popen[str]:
        """Start the command line as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "handrail", *words],
            cwd=self.root,
            env=self.environment(who, more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *words: str, who: str = "ana", **more: str) -> Answer:
        """Call the command line, and return what it answered: never a trace, never a password."""
        process = self.spawn(*words, who=who, **more)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err, err
        assert "p%w" not in out + err
        return Answer(process.returncode, out, err)

    @property
    def options(self) -> tuple[str, ...]:
        """How `handrail guard` is told of every store, without any estate."""
        found = ["--postgres", self.url] if self.url else []
        found += ["--redis", self.redis.url] if self.redis else []
        found += ["--files", str(self.uploads)] if self.uploads.exists() else []
        return tuple(found)

    def guard(self, *words: str, **more: str) -> Answer:
        """Run the script behind a guard of every store."""
        return self.call("guard", *self.options, *words, "--", "./scripts/reset_pilot.sh", **more)

    # --- the repository ------------------------------------------------------------------------

    def write(self, files: Mapping[str, str]) -> None:
        """Write files; those named `.sh` or `.py` may be executed."""
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if path.suffix in {".sh", ".py"}:
                path.chmod(0o755)

    def declare(self, *stores: str, files: Mapping[str, str] | None = None) -> None:
        """Make a repository of the directory: stores adopted, all of it committed and reviewed."""
        self.keys = {who: make_key(self.root.parent, who) for who in ("ana", "ben")}
        signers = [f"{who}@pilot.example {public(key)}\n" for who, key in self.keys.items()]
        self.write(declarations(*stores) | script(*stores) | dict(files or {}))
        self.write({"allowed_signers": "".join(signers)})
        subprocess.run(["git", "init", "-q", "-b", "main"], cwd=self.root, check=True)
        for store in stores:
            adopted = self.call("adopt", NAMES[store])
            assert adopted.code == 0, adopted.screen
        self.commit("as it was found")

    def commit(self, message: str) -> None:
        """Commit everything as Ana, reviewed by Ben."""
        who = ["-c", "user.name=Ana", "-c", "user.email=ana@pilot.example"]
        for words in (["add", "-A"], ["commit", "-qm", f"{message}\n\nReviewed-by: Ben <ben@x>"]):
            subprocess.run(["git", *who, *words], cwd=self.root, check=True)

    def make_ready(self, name: str = "pilot-db") -> Any:
        """Rehearse and approve; return the plan.

        Args:
            name: of the target, which whoever approves something critical has to type.
        """
        rehearsed = self.call("rehearse", "reset-pilot", "--json")
        assert rehearsed.code == 0, rehearsed.screen
        plan = rehearsed.json["plan"]
        words = ("approve", plan["digest"][:8], "--yes", "--name", name)
        approved = self.call(*words, who="ben")
        assert approved.code == 0, approved.screen
        return plan

    # --- the stores ----------------------------------------------------------------------------

    def query(self, query: str) -> Any:
        """Return the first value of a query, asked past every guard."""
        with psycopg.connect(self.url, autocommit=True) as session:
            found = session.execute(query.encode())
            row = found.fetchone() if found.description else None
            return row[0] if row else None

    @property
    def tables(self) -> tuple[int, int, int | None]:
        """How many sessions, registered devices and readings there are; None: no such table."""
        readings = None
        if self.query("SELECT to_regclass('readings')") is not None:
            readings = self.query("SELECT count(*) FROM readings")
        return (
            self.query("SELECT count(*) FROM sessions"),
            self.query("SELECT count(*) FROM devices WHERE registered"),
            readings,
        )

    def redis_do(self, *words: str) -> Any:
        """Run a command past every guard."""
        assert self.redis is not None
        with closing(self.redis.client()) as client:
            return client.execute_command(*words)  # type: ignore[no-untyped-call]

    def fill(self, first: int = 0, count: int = KEYS) -> None:
        """Put sessions into Redis."""
        for number in range(first, first + count):
            self.redis_do("SET", f"session:{number}", f"of {number}")

    @property
    def cached(self) -> int:
        """How many keys there are."""
        return int(self.redis_do("DBSIZE"))

    def upload(self, folder: str, first: int, count: int) -> None:
        """Put files into the uploads."""
        (self.uploads / folder).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            (self.uploads / folder / f"{number}.png").write_text(f"picture {number}")

    @property
    def uploaded(self) -> int:
        """How many files there are."""
        return sum(path.is_file() for path in self.uploads.rglob("*"))


def make_story(
    folder: Path,
    *,
    server: Server | None = None,
    redis: RedisServer | None = None,
    files: bool = False,
) -> Story:
    """Return a story in `folder` with the stores that are asked for, filled, and its script."""
    story = Story(folder / "work", folder / "uploads", redis=redis)
    story.root.mkdir()
    if server is not None:
        story.url = server.url(server.make_database())
        story.query(SCHEMA)
    if redis is not None:
        redis.clear()
        story.fill()
        for number in range(LEFT):
            story.redis_do("SET", f"device:{number}", "1")
    if files:
        story.upload("tmp", 0, FILES)
        story.upload("kept", 0, KEPT)
    present = [
        name
        for name, is_there in (
            ("database", server is not None),
            ("cache", redis is not None),
            ("uploads", files),
        )
        if is_there
    ]
    story.write(script(*present))
    return story
