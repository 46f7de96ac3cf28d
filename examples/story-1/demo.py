"""Story 1, from the refusal to the verified journal, on an embedded SQLite store.

`make demo` runs this and asks nothing. It makes a team's repository in `demo/` (from nothing each
time), fills its database with the real planning data of `data/`, and calls `handrail` as a person
would. Each exit code is compared with the one that the story needs: a demo that goes wrong fails.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent.parent / "demo"
PEOPLE = ("ana@pilot.example", "ben@pilot.example")
SESSIONS, DEVICES = 214, 12
MORE_SESSIONS = 50

CORRECTED = """\
BEGIN;
DELETE FROM sessions;
UPDATE devices SET registered = 0 WHERE registered = 1;
COMMIT;
"""


def main() -> int:
    """Tell the story; return 0 when every step went as the story says."""
    begin()
    say(
        "A stand-up, a hurry. Ana is asked to reset the pilot before the test day:",
        "`reset_pilot.sh`, an innocent name. It prints nothing, and is a copy of another script.",
    )
    handrail("run", "reset-pilot", expect=3)
    say(
        'Refused, with reasons: the rows are old, so this "test server" holds real data, and',
        "nobody knows what the script does. The way forward is to try it on a copy.",
    )
    handrail("rehearse", "reset-pilot", expect=0)
    say(
        "There it is: two calls deep, in sql/reset_all.sql, it drops the register of planning",
        "applications. The backup was restored to find out, so it is proven. Nothing changed yet:",
    )
    count("applications")
    say("Ana corrects the script and declares what the pilot really holds. Ben reviews the commit.")
    correct()
    handrail("rehearse", "reset-pilot", expect=0)
    say("Only what it is for. A second person signs exactly that, with an SSH key:")
    digest = waiting_plan()
    handrail("approve", digest, "--yes", "--because", "test day", expect=0, person=1)
    handrail("run", digest, expect=0)
    count("applications", "sessions")
    say(
        "Confirmed by its watch. The next week: rehearsed and approved again, but in the meantime",
        f"{MORE_SESSIONS} testers have signed in. The run would take their sessions too.",
    )
    add_sessions(SESSIONS)
    handrail("rehearse", "reset-pilot", expect=0)
    digest = waiting_plan()
    handrail("approve", digest, "--yes", expect=0, person=1)
    add_sessions(MORE_SESSIONS)
    handrail("run", digest, expect=5)
    say("It would have done more than it did in rehearsal, so nothing of it was kept:")
    count("sessions")
    say("Everything above is in a hash-chained journal:")
    handrail("runs", expect=0)
    handrail("log", "verify", expect=0)
    end()
    return 0


def begin() -> None:
    """Make the team's repository, its people's keys and its database."""
    shutil.rmtree(DEMO, ignore_errors=True)
    shutil.copytree(HERE / "repository", DEMO)
    keys = DEMO / ".keys"
    keys.mkdir(mode=0o700)
    signers = [f'{person} namespaces="handrail" {make_key(keys / person)}' for person in PEOPLE]
    (DEMO / "allowed_signers").write_text("\n".join(signers) + "\n")
    (DEMO / ".gitignore").write_text(".handrail/\n.keys/\ndata/\n")
    build_database(DEMO / "data" / "pilot.db")
    call("git", "init", "-q", "-b", "main")
    handrail("adopt", "pilot-db", expect=0)
    commit("pilot: as it was found")


def make_key(path: Path) -> str:
    """Make a person's SSH key, as `ssh-keygen -t ed25519` does, and return its public line."""
    key = Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    path.with_name(f"{path.name}.pub").write_text(public + "\n")
    return public


def build_database(path: Path) -> None:
    """Fill the pilot's database: the real register, and made-up sessions and devices of testers."""
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.executescript("""
            CREATE TABLE authorities (name TEXT PRIMARY KEY);
            CREATE TABLE applications (
                number TEXT NOT NULL, week DATE NOT NULL, received DATE, details TEXT,
                authority TEXT REFERENCES authorities (name), PRIMARY KEY (number, week));
            CREATE TABLE sessions (id INTEGER PRIMARY KEY, device INTEGER, started TIMESTAMP);
            CREATE TABLE devices (id INTEGER PRIMARY KEY, registered INTEGER NOT NULL);
        """)
        rows = list(applications())
        database.executemany(
            "INSERT OR IGNORE INTO authorities VALUES (?)", {(r[4],) for r in rows}
        )
        database.executemany("INSERT OR IGNORE INTO applications VALUES (?, ?, ?, ?, ?)", rows)
        database.executemany(
            "INSERT INTO devices VALUES (?, 1)", [(number,) for number in range(DEVICES)]
        )
    database.close()
    add_sessions(SESSIONS)


def applications() -> Iterator[tuple[str, str, str | None, str, str]]:
    """Yield the register's rows: number, week of publication, date received, details, authority."""
    for file in sorted((HERE / "data").glob("*.csv")):
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                yield (
                    row["Application Number"],
                    file.name[:10],
                    date(row["Date"]),
                    row["Details"],
                    row["Local Authority"],
                )


def date(text: str) -> str | None:
    """Return `30 May 2022` as ISO 8601; None when it is not such a date."""
    try:
        return datetime.strptime(text, "%d %b %Y").replace(tzinfo=UTC).date().isoformat()
    except ValueError:
        return None


def add_sessions(number: int) -> None:
    """Let testers sign in."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with sqlite3.connect(DEMO / "data" / "pilot.db") as database:
        database.executemany(
            "INSERT INTO sessions (device, started) VALUES (?, ?)",
            [(i % DEVICES, now) for i in range(number)],
        )
        database.execute("UPDATE devices SET registered = 1")
    database.close()


def correct() -> None:
    """Take the drop out of the script, and declare what the store holds."""
    (DEMO / "scripts" / "sql" / "reset_all.sql").write_text(CORRECTED)
    estate = DEMO / "estate" / "pilot.yaml"
    estate.write_text(
        estate.read_text().replace(
            "    durability: durable\n", "    durability: durable\n    holds: [production-data]\n"
        )
    )
    script = DEMO / "scripts" / "reset_pilot.sh"
    script.write_text(
        script.read_text().replace(
            "before a test day.", "before a test day: sessions and devices alone."
        )
    )
    commit("reset-pilot: leave the register alone\n\nReviewed-by: Ben <ben@pilot.example>")


def waiting_plan() -> str:
    """Return the digest that `handrail` says is waiting."""
    found = subprocess.run(
        [sys.executable, "-m", "handrail", "--json"],
        cwd=DEMO,
        check=True,
        capture_output=True,
        text=True,
        env=environment(0),
    )
    return str(json.loads(found.stdout)["waiting"][-1]["plan"])


def handrail(*words: str, expect: int, person: int = 0) -> None:
    """Call `handrail` as one of the people, show the call, and insist on its exit code."""
    shown = " ".join(f'"{w}"' if " " in w else w for w in words)
    print(
        f"\n\033[1m{PEOPLE[person].partition('@')[0]}$ handrail {shown}\033[0m"
        if sys.stdout.isatty()
        else f"\n{PEOPLE[person].partition('@')[0]}$ handrail {shown}",
        flush=True,
    )
    found = subprocess.run(
        [sys.executable, "-m", "handrail", *words], cwd=DEMO, check=False, env=environment(person)
    )
    if found.returncode != expect:
        raise SystemExit(f"\nthe demo went wrong: exit code {found.returncode}, not {expect}")


def environment(person: int) -> dict[str, str]:
    """Return the environment of one of the people."""
    return {
        **os.environ,
        "HANDRAIL_PERSON": PEOPLE[person],
        "HANDRAIL_ROOT": str(DEMO),
        "HANDRAIL_KEY": str(DEMO / ".keys" / PEOPLE[person]),
    }


def count(*tables: str) -> None:
    """Show how many rows are there now."""
    with sqlite3.connect(DEMO / "data" / "pilot.db") as database:
        for table in tables:
            (rows,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
            print(f"  {table}: {rows:,} rows", flush=True)
    database.close()


def commit(message: str) -> None:
    """Commit everything, as Ana."""
    who = ("-c", "user.name=Ana", "-c", f"user.email={PEOPLE[0]}", "-c", "commit.gpgsign=false")
    call("git", "add", "--all")
    call("git", *who, "commit", "-q", "-m", message)


def call(*words: str) -> None:
    """Call a program in the demo's repository; its failure is the demo's."""
    subprocess.run(words, cwd=DEMO, check=True)


def say(*lines: str) -> None:
    """Tell a part of the story."""
    print("\n# " + "\n# ".join(lines), flush=True)


def end() -> None:
    """Say how to go on with the reader's own database."""
    print(f"""
The repository of this story is in {DEMO.name}/, its journal in {DEMO.name}/.handrail/. Look around:
  cd {DEMO.name} && handrail

The same on your own database; nothing in it changes:
  handrail rehearse ./your_script.sh --on postgres://user@host/database
  handrail rehearse ./your_script.sh --on path/to/your.db
and to keep the script behind Handrail from then on:
  handrail init --from postgres://user@host/database --script ./your_script.sh
(`handrail` is in .venv/bin; put it on your PATH, or install the package.)""")


if __name__ == "__main__":
    raise SystemExit(main())
