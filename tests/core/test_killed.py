"""`kill -9` at every write of the journal: what is told afterwards is true, and nothing is lost.

Each case kills a real command line right before or right after one write, looks at what the journal
then says, and goes on with the real command line as a person would.
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handrail.core import records
from support.killing import Killer
from support.scripts import is_alive
from support.teams import ANA, OPERATION, SESSIONS, Answer, Team, make_team

OPERATION_NAME = "reset-pilot"
# How many writes each command makes: `test_matrix_is_whole` sees to it that none is left out.
RUN, REHEARSE, UNDO, RESUME, RESUME_UNDO, RESUME_ACCEPT = 22, 13, 8, 16, 11, 12
BEFORE_STEP_BEGUN, BEFORE_STEP_DONE = 11, 13
COMMANDS = {
    "fresh": (("rehearse", OPERATION_NAME), REHEARSE, 0),
    "ready": (("run", OPERATION_NAME), RUN, 0),
    "ran": (("undo", "1"), UNDO, 0),
    "prepared": (("resume", "1"), RESUME, 0),
    "unknown-undo": (("resume", "1", "--undo"), RESUME_UNDO, 1),
    "unknown-accept": (("resume", "1", "--accept"), RESUME_ACCEPT, 0),
}
DEADLINE_S = 20.0
HALF = """\
#!/usr/bin/env python3
import os, sqlite3, time
connection = sqlite3.connect(os.environ["PILOT_DB"], isolation_level=None)
connection.execute("DELETE FROM sessions WHERE id <= 10")
print("half", flush=True)
time.sleep(float(os.environ.get("WAIT_S", "0")))
connection.execute("DELETE FROM sessions")
"""


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory, killer: Killer) -> Team:
    """A team with a snapshot of each state that a command is killed from."""
    team = make_team(tmp_path_factory.mktemp("killed") / "team")
    team.keep("fresh")
    team.make_ready(OPERATION_NAME)
    team.keep("ready")
    for state, at in (("prepared", BEFORE_STEP_BEGUN), ("unknown-undo", BEFORE_STEP_DONE)):
        team.put_back("ready")
        kill(team, killer, ("run", OPERATION_NAME), at, "before")
        team.keep(state)
    team.keep("unknown-accept")
    team.put_back("ready")
    ran = team.call("run", OPERATION_NAME)
    assert ran.code == 0, ran
    team.keep("ran")
    return team


def kill(team: Team, killer: Killer, words: tuple[str, ...], at: int, when: str) -> dict[str, Any]:
    """Run a command line as Ana, and kill it there."""
    environment = team.environment_of(ANA)
    return killer.run(*words, environment=environment, cwd=team.root, at=at, when=when)


def kinds(team: Team) -> list[str]:
    """Return the kinds of run 1's records."""
    return [record.kind for record in team.world().journal.records("run-1")]


def is_original(team: Team) -> bool:
    """Whether the database holds what it held first."""
    return content(team) == (SESSIONS, 5)


def is_reset(team: Team) -> bool:
    """Whether the database holds what the script leaves."""
    return content(team) == (0, 0)


def content(team: Team) -> tuple[int, int]:
    return (
        team.query("SELECT count(*) FROM sessions"),
        team.query("SELECT count(*) FROM devices WHERE registered"),
    )


def assert_over(team: Team) -> None:
    """Nothing hangs: no lock, no unfinished run, a whole journal."""
    world = team.world()
    assert world.locks.holder("store/pilot-db") is None
    assert records.unfinished(world.journal, "store/pilot-db") == ()
    assert team.call("log", "verify").code == 0
    assert team.call("--json").json["unfinished"] == []
    assert [path.name for path in (team.state / "runs").glob("*/before")] == []
    assert list((team.state / "homes").glob("*")) == []


@pytest.mark.parametrize("state", COMMANDS)
def test_matrix_is_whole(state: str, kept: Team, killer: Killer) -> None:
    """Each command makes as many writes as the matrix kills it at."""
    words, writes, code = COMMANDS[state]
    kept.put_back(state)
    ended = kill(kept, killer, words, 0, "never")
    assert (ended["code"], ended["writes"]) == (code, writes), ended["err"]
    wait_for_keepers(kept)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, RUN + 1))
def test_run(at: int, when: str, kept: Team, killer: Killer) -> None:
    """A run killed at any write is told apart as never begun, done or unknown, and runs once."""
    kept.put_back("ready")
    assert kill(kept, killer, ("run", OPERATION_NAME), at, when)["signal"] == signal.SIGKILL
    assert kept.world().locks.holder("store/pilot-db") is None
    assert kept.call("log", "verify").code == 0
    told = kinds(kept)
    if not told:
        assert is_original(kept)
        assert kept.call("run", OPERATION_NAME).code == 0
    elif (at, when) == (RUN, "after"):
        assert kept.call("resume", "1").code == 2
    elif "step-started" not in told:
        go_on_where_nothing_began(kept, told)
    elif "step-done" not in told:
        decide_what_nobody_knows(kept, "--undo" if when == "before" else "--accept")
    else:
        assert kept.call("resume", "1").code == 0
    assert_over(kept)
    assert kept.executions <= 1
    assert is_reset(kept) or kept.executions == 0 or (at, when) == (BEFORE_STEP_DONE, "before")
    assert kept.call("resume", "1").code == 2
    assert_approval_is_used_up(kept)


def go_on_where_nothing_began(team: Team, told: list[str]) -> None:
    """Resume: it is confirmed; or nothing is done, where nobody knows who used the approval."""
    assert is_original(team)
    assert team.executions == 0
    was_used = "used" in team.world().journal.chains()
    answer = team.call("resume", "1")
    if was_used and "approved" not in told:
        assert answer.code == 3
        assert "nothing was done" in answer.out
        assert is_original(team)
        again = team.decide(OPERATION_NAME)
        assert again.plan.verdict == "require"
        team.approve(again)
        assert team.call("run", OPERATION_NAME).code == 0
        return
    assert answer.code == 0, answer
    assert is_reset(team)
    assert team.executions == 1


def decide_what_nobody_knows(team: Team, choice: str) -> None:
    """Resume asks, changes nothing by asking, and does what it is told; the script never again."""
    was, ran = content(team), team.executions
    for _ in range(2):
        asked = team.call("resume", "1")
        assert asked.code == 4
        assert "cut off while its script ran" in asked.err
        changed = "so far: delete table sessions; update table devices"
        assert (changed if was != (SESSIONS, 5) else "changed nothing so far") in asked.err
        assert (content(team), team.executions) == (was, ran)
    told = team.call("resume", "1", choice)
    assert told.code == (1 if choice == "--undo" else 0), told
    assert is_original(team) if choice == "--undo" else content(team) == was
    assert team.executions == ran


def assert_approval_is_used_up(team: Team) -> None:
    """What was approved for one run is not run again."""
    runs = len(records.runs(team.world().journal))
    answer = team.call("run", OPERATION_NAME)
    assert answer.code == 4, answer
    assert "second-person" in answer.out
    assert len(records.runs(team.world().journal)) == runs


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, UNDO + 1))
def test_undo(at: int, when: str, kept: Team, killer: Killer) -> None:
    """An undo killed at any write is done when it was asked for, and never half."""
    kept.put_back("ran")
    assert kill(kept, killer, ("undo", "1"), at, when)["signal"] == signal.SIGKILL
    told = kinds(kept)
    if "undo-asked" not in told:
        assert kept.call("undo", "1").code == 0
    elif (at, when) != (UNDO, "after"):
        resumed = kept.call("resume", "1")
        assert resumed.code == 1, resumed
        assert resumed.out.startswith("undone: run 1")
    assert is_original(kept)
    assert_over(kept)
    assert kept.call("undo", "1").code == 2
    assert kept.executions == 1


@pytest.mark.parametrize("at", range(1, RESUME + 1))
def test_resume(at: int, kept: Team, killer: Killer) -> None:
    """A resume killed after any write is resumed like the run itself, and runs the script once."""
    kept.put_back("prepared")
    assert kill(kept, killer, ("resume", "1"), at, "after")["signal"] == signal.SIGKILL
    told = kinds(kept)
    if "step-started" not in told:
        go_on_where_nothing_began(kept, told)
    elif "step-done" not in told:
        decide_what_nobody_knows(kept, "--accept")
    elif at < RESUME:
        assert kept.call("resume", "1").code == 0
        assert is_reset(kept)
    assert_over(kept)
    assert kept.executions <= 1
    assert_approval_is_used_up(kept)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, RESUME_UNDO + 1))
def test_resume_to_undo(at: int, when: str, kept: Team, killer: Killer) -> None:
    """A resume that was told to undo, killed at any write, needs to be told once at most."""
    kept.put_back("unknown-undo")
    words = ("resume", "1", "--undo")
    assert kill(kept, killer, words, at, when)["signal"] == signal.SIGKILL
    finish(kept, "--undo", 1, is_last=(at, when) == (RESUME_UNDO, "after"))
    assert is_original(kept)
    assert kept.executions == 1


@pytest.mark.parametrize("at", range(1, RESUME_ACCEPT + 1))
def test_resume_to_accept(at: int, kept: Team, killer: Killer) -> None:
    """A resume that was told to accept, killed after any write, needs to be told once at most."""
    kept.put_back("unknown-accept")
    words = ("resume", "1", "--accept")
    assert kill(kept, killer, words, at, "after")["signal"] == signal.SIGKILL
    finish(kept, "--accept", 0, is_last=at == RESUME_ACCEPT)
    assert is_reset(kept)
    assert kept.executions == 1


def finish(team: Team, choice: str, code: int, *, is_last: bool) -> None:
    """Resume a killed resume; say what is wanted only where it was not recorded."""
    was_told = "told" in kinds(team)
    answer = team.call("resume", "1")
    if is_last:
        assert answer.code == 2
    elif was_told:
        assert answer.code == code, answer
    else:
        assert answer.code == 4
        assert team.call("resume", "1", choice).code == code
    assert_over(team)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, REHEARSE + 1))
def test_rehearsal(at: int, when: str, kept: Team, killer: Killer) -> None:
    """A rehearsal killed at any write leaves the target as it was, and no byte of its clone."""
    kept.put_back("fresh")
    was = hashlib.sha256(kept.database.read_bytes()).hexdigest()
    words = ("rehearse", OPERATION_NAME)
    assert kill(kept, killer, words, at, when)["signal"] == signal.SIGKILL
    wait_for_keepers(kept)
    assert_no_copies(kept)
    assert hashlib.sha256(kept.database.read_bytes()).hexdigest() == was
    assert kept.call("log", "verify").code == 0
    if when == "after" or clones_left(kept) or partial_backups(kept):
        again = kept.call(*words)
        assert again.code == 0, again
    assert clones_left(kept) == []
    assert partial_backups(kept) == []
    assert kept.executions == 0


def partial_backups(team: Team) -> list[Path]:
    """Return what a crash left of a backup in the making."""
    return list((team.state / "backups").rglob("*.partial"))


def assert_no_copies(team: Team) -> None:
    """Beside backups and journal, the state directory holds nothing of the target's data."""
    assert list((team.state / "clones").glob("*")) == []
    assert list((team.state / "homes").glob("*")) == []
    kept = {path.name for path in (team.state / "rehearsals").glob("*/*")}
    assert kept <= {"output.log", "undo.log"}


def clones_left(team: Team) -> list[str]:
    """Return the clones that the journal has as made and not as destroyed."""
    journal = team.world().journal
    last = {chain: journal.last(chain) for chain in journal.chains("clone-")}
    return [chain for chain, record in last.items() if record and record.kind != "destroyed"]


def wait_for_keepers(team: Team) -> None:
    """Wait until every process that works in this team's repository has ended."""
    deadline = time.monotonic() + DEADLINE_S
    while found := list(processes_of(team)):
        assert time.monotonic() < deadline, [argv for _, argv in found]
        time.sleep(0.02)


def processes_of(team: Team) -> Iterator[tuple[int, str]]:
    """Yield the processes whose arguments name this team's repository."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            argv = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{team.root}" in argv and is_alive(int(folder.name)):
            yield int(folder.name), argv


@pytest.fixture
def half(team: Team) -> Team:
    """A team whose script waits in the middle of its work, rehearsed and approved."""
    operation = OPERATION.format(name="half", undo="restore")
    operation = operation.replace("[COUNTED_IN]", "[WAIT_S]")
    team.commit({"operations/half.yaml": operation, "scripts/half/run.sh": HALF})
    team.make_ready("half")
    team.environment["WAIT_S"] = "60"
    return team


@pytest.mark.parametrize(("choice", "code"), [("--undo", 1), ("--accept", 0)])
def test_run_killed_in_the_middle(half: Team, killer: Killer, choice: str, code: int) -> None:
    """A run killed while its script works has done nothing; what the script left is ended."""
    assert kill(half, killer, ("run", "half"), 0, "output")["signal"] == signal.SIGKILL
    asked: Answer = half.call("resume", "1")
    assert asked.code == 4
    assert "it has changed nothing so far" in asked.err
    assert list(processes_of(half)) == []
    assert half.call("resume", "1", choice).code == code
    assert half.query("SELECT count(*) FROM sessions") == SESSIONS
    assert_over(half)


def test_rehearsal_killed_in_the_middle(half: Team, killer: Killer) -> None:
    """A rehearsal killed while its script works leaves no process of it, and no clone."""
    assert kill(half, killer, ("rehearse", "half"), 0, "output")["signal"] == signal.SIGKILL
    wait_for_keepers(half)
    assert_no_copies(half)
    assert clones_left(half) == []
    assert half.query("SELECT count(*) FROM sessions") == SESSIONS
