"""`HANDRAIL_JOURNAL`: the whole command with its journal in PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from handrail import wiring
from handrail.adapters.sqlite_journal import SqliteJournal
from handrail.errors import JournalError, UsageError
from handrail.testing.clock import FakeClock
from support.journals import fill, journal_database, journal_url
from support.postgres_server import PASSWORD

__all__ = ["journal_database", "journal_url"]

HANDRAIL = Path(sys.executable).with_name("handrail")


def _handrail(at: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("HANDRAIL_")}
    return subprocess.run(
        [str(HANDRAIL), *words],
        cwd=at,
        env={**own, "HANDRAIL_JOURNAL": url, "HANDRAIL_PERSON": "ana@example.com"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_command_keeps_its_records_there(tmp_path: Path, journal_url: str) -> None:
    """What a command does stands in PostgreSQL, and nothing of it in the repository's folder."""
    (tmp_path / "data.txt").write_text("x")
    done = _handrail(tmp_path, journal_url, "guard", "--files", ".", "--", "touch", "new.txt")
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("journal.db"))
    shown = _handrail(tmp_path, journal_url, "log", "verify", "--json")
    found = json.loads(shown.stdout)
    assert (found["problems"], found["records"] > 1) == ([], True)
    assert PASSWORD not in done.stdout + done.stderr + shown.stdout


def test_a_team_takes_its_journal_along(tmp_path: Path, journal_url: str) -> None:
    """A journal in a file is exported and imported into PostgreSQL, with its head, once."""
    journal = SqliteJournal(tmp_path / ".handrail" / "journal.db", FakeClock())
    fill(journal)
    journal.shut()
    (tmp_path / "j.jsonl").write_text(_handrail(tmp_path, "", "log", "export").stdout)
    done = _handrail(tmp_path, journal_url, "log", "import", "--file", "j.jsonl")
    assert done.returncode == 0, done.stderr
    exported = _handrail(tmp_path, journal_url, "log", "export").stdout
    assert exported == (tmp_path / "j.jsonl").read_text()
    again = _handrail(tmp_path, journal_url, "log", "import", "--file", "j.jsonl")
    assert (again.returncode, "only into an empty one" in again.stderr) == (1, True)
    assert _handrail(tmp_path, journal_url, "log", "import").returncode == 2


@pytest.mark.parametrize("url", ["mysql://u:hunter2hunter2@db/x", "hunter2hunter2"])
def test_another_address_is_a_usage_error(tmp_path: Path, url: str) -> None:
    """A journal that is no PostgreSQL is refused before anything is done, and not shown."""
    done = _handrail(tmp_path, url, "log", "verify")
    assert done.returncode == 2
    assert "HANDRAIL_JOURNAL" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_a_server_that_refuses_is_told(tmp_path: Path, journal_url: str) -> None:
    """A command without its journal does nothing, and says what is wrong with it."""
    given = conninfo_to_dict(journal_url)
    url = f"postgres://nobody:hunter2hunter2@127.0.0.1:{given['port']}/{given['dbname']}"
    done = _handrail(tmp_path, url, "log", "verify")
    assert done.returncode == 1
    assert "journal.unwritable" in done.stderr
    assert "hunter2" not in done.stderr


def test_the_password_is_a_secret(tmp_path: Path, journal_url: str) -> None:
    """No record may hold the password of the journal itself."""
    world = wiring.world(tmp_path, tmp_path / ".handrail", {"HANDRAIL_JOURNAL": journal_url})
    try:
        with pytest.raises(JournalError, match="secret"):
            world.journal.append("run-1", "begun", {"said": f"psql: {PASSWORD}"})
        with world.locks.hold("engine", "ana"):
            assert world.locks.holder("engine") == "ana"
    finally:
        world.journal.shut()  # type: ignore[attr-defined]  # of this one


def test_no_address_is_the_file(tmp_path: Path) -> None:
    """Without the setting, or where it is empty, journal and locks are files of the folder."""
    for environment in ({}, {"HANDRAIL_JOURNAL": ""}):
        world = wiring.world(tmp_path, tmp_path / "state", environment)
        world.journal.append("run-1", "begun", {})
        with world.locks.hold("engine", "ana"):
            assert (tmp_path / "state" / "locks" / "engine.lock").exists()
        world.journal.shut()  # type: ignore[attr-defined]  # of this one
    assert (tmp_path / "state" / "journal.db").exists()
    with pytest.raises(UsageError):
        wiring.world(tmp_path, tmp_path / "state", {"HANDRAIL_JOURNAL": "journal.db"})
