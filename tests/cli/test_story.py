"""The command line from end to end, on SQLite: real processes, real keys, real exit codes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from handrail.adapters.sqlite.catalog import IDENTITY_TABLE
from handrail.core import records
from support.examples import STORY_1
from support.scripts import wait_for
from support.teams import BEN, OPERATION, SESSIONS, Team, make_team

DEADLINE_S = 60
CLOSE = """\
#!/usr/bin/env python3
import os, sqlite3
connection = sqlite3.connect(os.environ["SQLITE_DATABASE"], isolation_level=None)
connection.execute("UPDATE devices SET registered = 0")
"""
WAITING = """\
#!/usr/bin/env python3
import os, sqlite3, time
connection = sqlite3.connect(os.environ["PILOT_DB"], isolation_level=None)
connection.execute("DELETE FROM sessions")
if "TELL" in os.environ:
    with open(os.environ["TELL"], "w") as file:
        file.write("here\\n")
    time.sleep(60)
"""


@pytest.fixture
def team(tmp_path: Path) -> Team:
    """A team that has rehearsed nothing yet."""
    return make_team(tmp_path / "team")


def test_demo_works_twice(tmp_path: Path) -> None:
    """The demo tells its whole story, asks nothing, and works a second time."""
    here = tmp_path / "examples" / "story-1"
    shutil.copytree(STORY_1, here)
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("HANDRAIL_", "GIT_"))}
    for _ in range(2):
        told = subprocess.run(
            [sys.executable, str(here / "demo.py")],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=DEADLINE_S,
        )
        assert told.returncode == 0, told.stdout + told.stderr
        assert "drop    table applications  1,335 rows" in told.stdout
        assert "confirmed: run 1" in told.stdout
        assert "would have deleted more than it did in rehearsal" in told.stdout
        assert told.stdout.count("applications: 1,335 rows") == 2
        assert "sessions: 264 rows" in told.stdout
        assert "every chain whole" in told.stdout


def test_the_way_of_one_operation(team: Team) -> None:
    """Refused, rehearsed, waiting, approved, confirmed, undone: each says the command that is next.

    Exit codes 3, 0, 4, 0, 0 and 0.
    """
    refused = team.call("run", "drop-readings")
    assert (refused.code, "next: handrail rehearse drop-readings" in refused.out) == (3, True)
    rehearsed = team.call("rehearse", "drop-readings")
    assert (rehearsed.code, "drop  table readings  3 rows" in rehearsed.out) == (0, True)
    digest = next(w for w in rehearsed.out.split() if w.count("-") == 1 and len(w) == 9)
    assert f"next: handrail approve {digest}" in rehearsed.out
    waiting = team.call("run", digest)
    assert (waiting.code, f"next: handrail approve {digest}" in waiting.out) == (4, True)
    unnamed = team.call("approve", digest, "--yes", person=BEN)
    assert (unnamed.code, "usage.not-interactive" in unnamed.err) == (2, True)
    approved = team.call("approve", digest, "--yes", "--name", "store/pilot-db", person=BEN)
    assert (approved.code, f"next: handrail run {digest}" in approved.out) == (0, True)
    assert f"handrail run {digest}" in team.call().out
    ran = team.call("run", digest)
    assert (ran.code, "confirmed: run 1" in ran.out) == (0, True)
    assert "handrail undo 1" in ran.out
    assert team.call("undo", "1").code == 0
    assert team.query("SELECT count(*) FROM readings") == 3


def test_approving_as_oneself(team: Team) -> None:
    """Whoever asked for a run cannot approve it, also not by calling themselves otherwise."""
    digest = team.rehearse("reset-pilot").plan.digest
    assert team.call("approve", digest, "--yes").code == 3
    own = str(team.key("ana@pilot.example"))
    pretending = team.call("approve", digest, "--yes", "--key", own, person=BEN)
    assert (pretending.code, "keys.own-run" in pretending.err) == (3, True)


def test_over_budget(team: Team) -> None:
    """A run that would do more than it did in rehearsal is stopped before, and exits with 5."""
    team.make_ready("reset-pilot")
    team.execute("INSERT INTO sessions SELECT id + 100, 1, started FROM sessions")
    answer = team.call("run", "reset-pilot")
    assert answer.code == 5
    assert answer.out.startswith("stopped before the swap: ./scripts/reset-pilot/run.sh would have")
    assert "table sessions    40 deleted so far; budget 20, tolerance 2" in answer.out
    assert "nothing that it did was kept" in answer.out
    assert "next: handrail rehearse reset-pilot" in answer.out
    assert team.query("SELECT count(*) FROM sessions") == 2 * SESSIONS


def test_failed_run(team: Team) -> None:
    """A run whose script fails leaves everything as it was, and exits with 1."""
    script = '#!/bin/sh\nexec python3 -S "$(dirname "$0")/../lib/sql.py" "DELETE FROM sessions"\n'
    fails = f'{script.replace("exec ", "")}test ! -e "$FAIL"\n'
    declared = OPERATION.format(name="fails", undo="restore").replace("COUNTED_IN", "FAIL")
    team.environment["FAIL"] = str(team.root / "data/fail")
    team.commit({"operations/fails.yaml": declared, "scripts/fails/run.sh": fails})
    team.make_ready("fails")
    team.write({"data/fail": ""})
    answer = team.call("run", "fails")
    assert answer.code == 1
    assert "failed: run 1. the script ended with exit 1, and changed nothing" in answer.out
    assert team.query("SELECT count(*) FROM sessions") == SESSIONS


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("run",),
        ("plan", "no-such-operation"),
        ("plan", "reset-pilot", "--on", "no-such-store"),
        ("plan", "reset-pilot", "-p", "days"),
        ("plan", "reset-pilot", "-p", "days=3"),
        ("plan", "trim-sessions", "-p", "keep=three"),
        ("plan", "./scripts/reset-pilot/missing.sh", "--on", "store/pilot-db"),
        ("undo", "7"),
        ("resume", "7"),
        ("runs", "show", "7"),
        ("runs", "show"),
        ("approve", "7f3a-91c2"),
        ("explain", "7"),
        ("adopt", "store/no-such"),
        ("reset-pilot",),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_call(team: Team, words: tuple[str, ...], as_json: bool) -> None:
    """A wrong call exits with 2, says what is wrong, and does nothing."""
    answer = team.call(*words, *(("--json",) if as_json else ()))
    assert answer.code == 2
    if as_json:
        (error,) = answer.json["errors"]
        assert set(error) == {"code", "message", "file", "line", "hint"}
        assert answer.err == ""
    else:
        assert answer.err.startswith("error[")
        assert answer.out == ""
    assert team.query("SELECT count(*) FROM sessions") == SESSIONS


def test_broken_declaration(team: Team) -> None:
    """A broken declaration exits with 2, and names file and line."""
    team.write({"operations/broken.yaml": "operation: broken\nrun: ./scripts/reset-pilot/run.sh\n"})
    answer = team.call("plan", "reset-pilot")
    assert answer.code == 2
    assert "--> operations/broken.yaml:1" in answer.err
    assert team.call("check").code == 2


# --- stale ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("scripts/reset-pilot/run.sh", "set -eu", "set -e"),
        ("scripts/lib/sql.py", "import os", "import os  # and more"),
        ("operations/reset-pilot.yaml", "soak: 0s", "soak: 1s"),
        ("estate/pilot.yaml", "count(*)", "count(id)"),
        ("allowed_signers", "namespaces", "namespaces"),
    ],
)
def test_stale_plan(team: Team, file: str, old: str, new: str) -> None:
    """The plan of a digest does not run once script, declaration or commit have changed."""
    digest = team.make_ready("reset-pilot").plan.digest
    text = (team.root / file).read_text().replace(old, new)
    team.commit({file: text + "# looked at again\n"}, "something else")
    answer = team.call("run", digest)
    assert (answer.code, "plan.stale" in answer.err) == (3, True)
    assert "handrail plan reset-pilot" in answer.err
    assert records.runs(team.world().journal) == ()


def test_residue(team: Team) -> None:
    """What an undo script does not put back is shown by the rehearsal, and needs a reason."""
    undo = (team.root / "scripts/close-devices/undo.sh").read_text().replace("id > 1", "id > 3")
    team.commit({"scripts/close-devices/undo.sh": undo})
    answer = team.call("rehearse", "close-devices")
    assert "x   undo      script, " in answer.err
    assert "left over: table devices" in answer.err
    assert "its undo leaves different: table devices" in answer.out
    assert "say why it must be: --because" in answer.out


def test_uncommitted(team: Team) -> None:
    """What is not committed does not run at risk high, whoever approved it."""
    digest = team.make_ready("reset-pilot").plan.digest
    team.write({"estate/pilot.yaml": (team.root / "estate/pilot.yaml").read_text() + "# more\n"})
    answer = team.call("run", digest)
    assert (answer.code, "not committed: estate/pilot.yaml" in answer.out) == (3, True)


def test_another_database(team: Team) -> None:
    """A database that was put in the target's place is not the one that was adopted."""
    digest = team.make_ready("reset-pilot").plan.digest
    team.execute(f"UPDATE {IDENTITY_TABLE} SET id = 'another'")
    answer = team.call("run", digest)
    assert (answer.code, "plan.stale" in answer.err) == (3, True)
    planned = team.call("run", "reset-pilot")
    assert (planned.code, "x  identity" in planned.out) == (3, True)
    assert team.query("SELECT count(*) FROM sessions") == SESSIONS


# --- processes ------------------------------------------------------------------------------------


@pytest.fixture
def waiting(team: Team, tmp_path: Path) -> Team:
    """A team whose approved script tells when it is in the middle, and waits there."""
    declared = OPERATION.format(name="waits", undo="restore").replace("COUNTED_IN", "TELL")
    team.commit({"operations/waits.yaml": declared, "scripts/waits/run.sh": WAITING})
    team.make_ready("waits")
    team.environment["TELL"] = str(tmp_path / "here")
    return team


def test_two_at_once(waiting: Team, tmp_path: Path) -> None:
    """While a run is on its way another is refused, by plan and by run, and told who holds it."""
    first = waiting.spawn("run", "waits")
    try:
        wait_for(tmp_path / "here")
        for words in (("plan", "reset-pilot"), ("run", "waits"), ("run", "reset-pilot")):
            answer = waiting.call(*words, person=BEN)
            assert answer.code == 3
            assert "ana@pilot.example, waits holds store/pilot-db" in answer.out
        status = waiting.call("--json").json
        assert status["runs"][0]["outcome"] == "unfinished (step-started)"
    finally:
        first.send_signal(signal.SIGINT)
        out, _ = first.communicate(timeout=DEADLINE_S)
    assert first.returncode == 130, out


@pytest.mark.parametrize("to_group", [False, True])
def test_ctrl_c(waiting: Team, tmp_path: Path, to_group: bool) -> None:
    """Ctrl-C stops, nothing of the script's copy is swapped in, and it exits with 130."""
    running = waiting.spawn("run", "waits", start_new_session=True)
    wait_for(tmp_path / "here")
    if to_group:
        os.killpg(running.pid, signal.SIGINT)
    else:
        running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 130, err
    assert "stopped before it had changed anything" in out
    assert waiting.query("SELECT count(*) FROM sessions") == SESSIONS
    assert waiting.call("undo", "1").code == 0


def test_ctrl_c_in_rehearsal(waiting: Team, tmp_path: Path) -> None:
    """Ctrl-C in a rehearsal exits with 130, and nothing of the clone is left."""
    del waiting.environment["TELL"]
    script = '#!/bin/sh\necho "in the middle"\nsleep 60\n'
    waiting.commit({"scripts/waits/run.sh": script})
    running = waiting.spawn("rehearse", "waits")
    assert running.stderr is not None
    while "in the middle" not in running.stderr.readline():
        pass
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 130
    assert list((waiting.state / "clones").iterdir()) == []
    assert waiting.call("--json").json["leftover_clones"] == []


def test_terminated(waiting: Team, tmp_path: Path) -> None:
    """A run that a shutdown ends is cut off: status and refusals name the command that goes on."""
    running = waiting.spawn("run", "waits")
    wait_for(tmp_path / "here")
    running.terminate()
    running.communicate(timeout=DEADLINE_S)
    status = waiting.call()
    assert "run 1  waits  store/pilot-db  handrail resume 1" in status.out
    answer = waiting.call("plan", "reset-pilot")
    assert (answer.code, "handrail resume 1" in answer.out) == (3, True)
    assert waiting.call("resume", "1").code == 4
    assert waiting.call("resume", "1", "--undo").code == 1
    assert waiting.query("SELECT count(*) FROM sessions") == SESSIONS


# --- undeclared -----------------------------------------------------------------------------------


@pytest.fixture
def nothing(team: Team, tmp_path: Path) -> Team:
    """A directory that has never seen an estate: a script, and a database."""
    at = tmp_path / "nothing"
    (at / "data").mkdir(parents=True)
    shutil.copy(team.database, at / "data" / "app.db")
    script = at / "old_script.sh"
    script.write_text(
        "#!/bin/sh\nset -eu\npython3 -S - <<'END'\nimport os, sqlite3\n"
        'connection = sqlite3.connect(os.environ["SQLITE_DATABASE"])\n'
        'connection.executescript("BEGIN; DROP TABLE readings; COMMIT;")\nEND\n'
    )
    script.chmod(0o755)
    return Team(at, team.keys)


def test_nothing_declared(nothing: Team) -> None:
    """Where nothing is declared, `handrail` says how to begin, and makes nothing."""
    answer = nothing.call()
    assert answer.code == 0
    assert "handrail init" in answer.out
    assert "handrail rehearse ./script.sh --on URL-OR-FILE" in answer.out
    assert {path.name for path in nothing.root.iterdir()} == {"data", "old_script.sh"}


def test_undeclared_script(nothing: Team) -> None:
    """With nothing declared a script is rehearsed on a database file, then put behind Handrail."""
    database = nothing.root / "data/app.db"
    before = database.read_bytes()
    answer = nothing.call("rehearse", "./old_script.sh", "--on", "data/app.db")
    assert answer.code == 0, answer
    assert "drop  table readings  3 rows" in answer.out
    assert "budget" in answer.out
    assert database.read_bytes() == before
    declare = "handrail init --from data/app.db --script ./old_script.sh"
    assert f"next: {declare}" in answer.out
    assert nothing.call(*declare.split()[1:]).code == 0
    assert nothing.call("check").code == 0
    planned = nothing.call("plan", "old-script")
    assert (planned.code, "old-script on store/app" in planned.out) == (3, True)


def test_undeclared_script_runs_and_is_resumed_elsewhere(team: Team) -> None:
    """An undeclared run is found again from its record, in any directory, without its script."""
    script, path = "./old/close.sh", team.root / "old/close.sh"
    on = ("--on", str(team.database))
    team.execute("DELETE FROM readings; UPDATE sessions SET started = NULL")
    team.commit({"old/close.sh": CLOSE})
    assert team.call("rehearse", script, *on).code == 0
    digest = team.call("plan", script, *on, "--json").json["plan"]["digest"]
    assert team.call("approve", digest, "--yes", person=BEN).code == 0
    elsewhere = team.root / "data"
    ran = team.call("run", digest, *on, cwd=elsewhere)
    assert ran.code == 0, ran
    path.unlink()
    lost = team.call("undo", "1", cwd=elsewhere)
    assert (lost.code, "--on" in lost.err) == (2, True)
    other = team.root / "data/other.db"
    shutil.copy(team.database, other)
    wrong = team.call("undo", "1", "--on", str(other), cwd=elsewhere)
    assert (wrong.code, "store.identity" in wrong.err) == (3, True)
    assert team.call("undo", "1", *on, cwd=elsewhere).code == 0
    assert team.query("SELECT count(*) FROM devices WHERE registered") == 5


# --- looking --------------------------------------------------------------------------------------


def test_looking(team: Team) -> None:
    """Status, runs, runs show, explain and log tell the same run, in text."""
    team.make_ready("reset-pilot")
    team.call("run", "reset-pilot")
    team.rehearse("drop-readings")
    status = team.call()
    assert "waiting for somebody:" in status.out
    assert "drop-readings  store/pilot-db  risk critical" in status.out
    assert "reset-pilot  store/pilot-db  confirmed" in status.out
    runs = team.call("runs")
    assert runs.out.startswith(
        "run  began (UTC)       operation    target          outcome    by\n"
    )
    shown = team.call("runs", "show", "1")
    assert "run 1: reset-pilot on store/pilot-db by ana@pilot.example: confirmed" in shown.out
    assert "delete table sessions; update table devices" in shown.out
    explained = team.call("explain", "1")
    assert "second-person: allow" in explained.out
    verified = team.call("log", "verify")
    assert verified.code == 0
    written = len(team.journal_text().splitlines()) - 1
    assert verified.out.startswith(f"ok: {written} records, every chain whole.")
    lines = (status.out + runs.out + shown.out + explained.out).splitlines()
    assert [line for line in lines if len(line) > 100 and str(team.root) not in line] == []


def test_journal_elsewhere(team: Team, tmp_path: Path) -> None:
    """An export is verified on any machine; one changed character, or an older head, is found."""
    team.rehearse("reset-pilot")
    head = team.call("log", "verify", "--json").json["head"]
    export = team.call("log", "export").out
    file = tmp_path / "journal.jsonl"
    file.write_text(export)
    assert team.call("log", "verify", "--file", str(file), "--head", head).code == 0
    assert team.call("log", "verify", "--head", head).code == 0
    assert team.call("log", "verify", "--head", "0" * 64).code == 1
    file.write_text(export.replace("reset-pilot", "reset-pilor", 1))
    broken = team.call("log", "verify", "--file", str(file))
    assert (broken.code, "journal.damaged" in broken.err) == (1, True)
    told = team.call("log", "verify", "--file", str(file), "--json")
    assert (told.code, bool(told.json["problems"])) == (1, True)


def test_journal_with_strange_characters(team: Team, tmp_path: Path) -> None:
    """A reason with line separators in it does not break an export."""
    team.call("plan", "reset-pilot", "--because", "first\u2028second\x85third\x0cend")
    export = team.call("log", "export").out
    file = tmp_path / "journal.jsonl"
    file.write_text(export)
    assert "\u2028" in export
    assert team.call("log", "verify", "--file", str(file)).code == 0
    file.write_text(export[: export.index('"anchors"') + 20])
    cut = team.call("log", "verify", "--file", str(file))
    assert (cut.code, "journal.damaged" in cut.err) == (1, True)


def test_beginning_twice(nothing: Team) -> None:
    """`init` declares nothing twice: not after itself, and not for a second database."""
    shutil.copy(nothing.root / "data/app.db", nothing.root / "data/two.db")
    commands = (("init",), ("init", "--from", "data/app.db"), ("init", "--from", "data/two.db"))
    for words in commands * 2:
        assert nothing.call(*words).code == 0
    checked = nothing.call("check", "--json")
    assert (checked.code, checked.json["errors"]) == (0, [])
    assert nothing.call("init", "--json").json["written"] == []


def test_json(team: Team) -> None:
    """`--json` gives one object with a format number, and the documented keys, on every command."""
    shapes = {
        ("plan", "reset-pilot"): {"format", "verdict", "next", "plan"},
        ("rehearse", "reset-pilot"): {"format", "verdict", "next", "plan"},
        ("check",): {"format", "errors", "warnings"},
        ("adopt", "pilot-db"): {"format", "store", "identity", "version"},
        ("runs",): {"format", "runs"},
        ("log", "verify"): {"format", "records", "head", "problems"},
        (): {
            "format",
            "operations",
            "resources",
            "waiting",
            "unfinished",
            "runs",
            "leftover_clones",
            "schedules",
        },
    }
    for words, keys in shapes.items():
        answer = team.call(*words, "--json")
        assert set(answer.json) >= keys, (words, answer.json.keys())
        assert answer.json["format"] == 1
        assert answer.err == ""
    team.approve(team.decide("reset-pilot"))
    ran = team.call("run", "reset-pilot", "--json").json
    assert set(ran) == {"format", "run", "exit_code"}
    assert set(ran["run"]) == {"run", "outcome", "why", "effects", "breaches", "residue", "report"}
    shown = team.call("runs", "show", "1", "--json").json
    assert set(shown) == {"format", "run", "records"}
    assert {frozenset(record) for record in shown["records"]} == {
        frozenset({"time", "kind", "body"})
    }
    assert set(team.call("explain", "1", "--json").json) == {"format", "verdict", "next", "plan"}
    assert team.call("undo", "1", "--json").json["run"]["outcome"] == "undone"
    lines = team.call("log", "export").out.splitlines()
    assert {json.loads(line)["format"] for line in lines} == {1}
