"""One operation over many targets on the command line: real processes, databases, keys, engine."""

from __future__ import annotations

import io
import json
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from handrail.cli.live import Terminal
from support.fleets import CLOSE, NAME, NAMES, Fleet, make_fleet
from support.killing import Killer
from support.scripts import wait_for
from support.teams import ANA, BEN, SESSIONS

DEADLINE_S = 60
SLOW = CLOSE + (
    'told = os.environ.get("REFUSES", "")\n'
    'if real and told and pathlib.Path(told + ".slow").exists():\n'
    "    import time\n"
    '    pathlib.Path(told + ".begun").write_text("here\\n")\n'
    "    time.sleep(60)\n"
)
ALL, NONE = dict.fromkeys(NAMES, SESSIONS), dict.fromkeys(NAMES, 0)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A fleet that is rehearsed and approved, made once a test process."""
    fleet = make_fleet(
        tmp_path_factory.mktemp("fleet") / "team", more={f"scripts/{NAME}/close.py": SLOW}
    )
    fleet.team.keep("fresh")
    fleet.digest = fleet.ready()
    fleet.team.keep("ready")
    return fleet


@pytest.fixture
def fresh(made: Fleet) -> Fleet:
    """A fleet of which nothing is rehearsed."""
    made.team.put_back("fresh")
    made.forget()
    return made


@pytest.fixture
def fleet(made: Fleet) -> Fleet:
    """A fleet that may run."""
    made.team.put_back("ready")
    made.forget()
    return made


@pytest.fixture(scope="session")
def killer() -> Iterator[Killer]:
    """The process that runs command lines and kills them."""
    killer = Killer()
    yield killer
    killer.end()


def test_the_way_over_all_targets(fresh: Fleet) -> None:
    """Refused, rehearsed, waiting, approved, confirmed, undone: each says what is next."""
    refused = fresh.call("run", NAME)
    assert (refused.code, f"next: handrail rehearse {NAME} --on all" in refused.out) == (3, True)
    rehearsed = fresh.call("rehearse", NAME, "--on", "all")
    assert rehearsed.code == 0
    assert "delete  table sessions  80 rows  on all" in rehearsed.out
    assert "canary 1  1  store/edge-c" in rehearsed.out
    digest = next(w for w in rehearsed.out.split() if w.count("-") == 1 and len(w) == 9)
    assert f"next: handrail approve {digest}" in rehearsed.out
    assert fresh.call("run", digest).code == 4
    approved = fresh.call("approve", digest, "--yes", person=BEN)
    assert (approved.code, "canary 1  1  store/edge-c" in approved.out) == (0, True)
    assert f"handrail run {digest}" in fresh.call().out
    ran = fresh.call("run", digest)
    assert (ran.code, "confirmed: run 1" in ran.out) == (0, True)
    assert (fresh.sessions(), fresh.executions) == (NONE, 4)
    undone = fresh.call("undo", "1")
    assert (undone.code, "undone: run 1" in undone.out) == (0, True)
    assert fresh.sessions() == ALL
    assert fresh.call("undo", "1").code == 3
    assert fresh.call("log", "verify").code == 0


def test_held_and_run_again(fleet: Fleet) -> None:
    """A failed target holds; exactly it and what never began go again; the rest is left alone."""
    fleet.refuse("edge-a")
    held = fleet.call("run", fleet.digest)
    assert (held.code, "next: handrail resume 1 --rerun" in held.out) == (4, True)
    assert "failed     store/edge-a" in held.out
    assert fleet.sessions()["edge-a"] == SESSIONS
    done = [name for name, count in fleet.sessions().items() if count == 0]
    assert "held" in fleet.call().out
    assert fleet.call("runs", "show", "1").code == 0
    fleet.refuse()
    before = fleet.executions
    again = fleet.call("resume", "1", "--rerun")
    assert (again.code, fleet.sessions()) == (0, NONE)
    assert fleet.executions - before == len(NAMES) - len(done)
    assert fleet.call("resume", "1").code == 2


def test_held_and_undone(fleet: Fleet) -> None:
    """A held walk is put back as far as it went, and what never began has no run at all."""
    fleet.refuse("edge-c")
    assert fleet.call("run", fleet.digest).code == 4
    assert fleet.executions == 1
    undone = fleet.call("resume", "1", "--undo")
    assert (undone.code, "not begun  3" in undone.out) == (0, True)
    assert fleet.sessions() == ALL
    runs = fleet.call("runs", "--json").json["runs"]
    assert [(one["run"], one["target"]) for one in runs] == [(2, "store/edge-c"), (1, "4 stores")]


def test_held_and_left(fleet: Fleet) -> None:
    """A held walk can be ended as it stands, and taken as done for one target."""
    fleet.refuse("edge-c")
    assert fleet.call("run", fleet.digest).code == 4
    fleet.refuse()
    assert fleet.call("resume", "1", "--accept", "--on", "edge-z").code == 2
    accepted = fleet.call("resume", "1", "--accept", "--on", "edge-c")
    assert accepted.code == 0
    assert fleet.sessions() == NONE | {"edge-c": SESSIONS}


def test_left_as_it_stands(fleet: Fleet) -> None:
    """`--leave` ends it, and nothing more begins."""
    fleet.refuse("edge-c")
    assert fleet.call("run", fleet.digest).code == 4
    assert fleet.call("resume", "1", "--leave").code == 1
    assert "not ended" not in fleet.call().out
    assert fleet.executions == 1


def test_its_json(fleet: Fleet) -> None:
    """A plan, a run and a walk have one documented object each."""
    planned = fleet.call("plan", NAME, "--json").json
    assert (planned["format"], planned["verdict"]) == (1, "allow")
    assert [wave["targets"] for wave in planned["fan_out"]["waves"]] == [
        ["store/edge-c"],
        ["store/edge-a", "store/edge-b", "store/edge-d"],
    ]
    ran = fleet.call("run", fleet.digest, "--json").json
    assert (ran["exit_code"], ran["walk"]["state"], ran["walk"]["outcome"]) == (
        0,
        "ended",
        "confirmed",
    )
    shown = fleet.call("runs", "show", "1", "--json").json
    assert [lane["word"] for lane in shown["walk"]["lanes"]] == ["done"] * 4
    assert shown["marks"][0]["kind"] == "wave-begun"
    explained = fleet.call("explain", "1")
    assert explained.out.startswith(f"plan {fleet.digest[:4]}-{fleet.digest[4:8]}")
    assert "ok identity: allow" in explained.out
    child = fleet.call("runs", "show", str(shown["walk"]["lanes"][0]["run"]), "--json").json
    assert child["records"][0]["body"]["walk"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", NAME, "--on", "all", "--except", "edge-z"), "`edge-z` is none of the targets"),
        (("plan", NAME, "--on", "edge-a", "--except", "edge-b"), "--except leaves targets out"),
        (("plan", f"./scripts/{NAME}/run.sh", "--on", "all"), "only a declared one"),
        (("plan", "clos-sessions", "--on", "all"), "did you mean"),
        (("resume", "99", "--rerun"), "there is no run 99"),
        (("undo", "99"), "there is no run 99"),
        (("run", NAME, "--on", "all", "--break-glass", "now"), "glass"),
    ],
)
def test_wrong_words(fresh: Fleet, words: tuple[str, ...], said: str) -> None:
    """A wrong word is told, changes nothing, and is exit code 2."""
    before = fresh.team.journal_text()
    answer = fresh.call(*words)
    assert (answer.code, said in answer.err) == (2, True), answer.err
    assert fresh.team.journal_text() == before


def test_one_target_of_many(fleet: Fleet) -> None:
    """With --on, an operation with waves runs on one target as every other does."""
    planned = fleet.call("plan", NAME, "--on", "store/edge-a", "--json").json
    assert planned["plan"]["request"]["target"] == "store/edge-a"


def test_tampered_walk(fleet: Fleet) -> None:
    """A mark that was changed afterwards is named by its walk and record."""
    assert fleet.call("run", fleet.digest).code == 0
    with closing(sqlite3.connect(fleet.team.state / "journal.db")) as connection:
        connection.execute("DROP TRIGGER IF EXISTS records_fixed")
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(
            "UPDATE records SET body = replace(body, 'edge-c', 'edge-d') "
            "WHERE chain = 'walk-1' AND kind = 'done' AND body LIKE '%edge-c%'"
        )
        connection.commit()
    verified = fleet.call("log", "verify")
    assert (verified.code, "walk-1 record" in verified.out + verified.err) == (1, True)


def test_ctrl_c_pauses(fleet: Fleet) -> None:
    """Ctrl-C ends the scripts under way and begins nothing new; `resume` goes on, each once."""
    (fleet.told / "refuses.slow").write_text("")
    process = fleet.team.spawn("run", fleet.digest)
    try:
        wait_for(fleet.told / "refuses.begun")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 130, out + err
    assert "held: run 1" in out
    assert fleet.sessions() == ALL
    (fleet.told / "refuses.slow").unlink()
    resumed = fleet.call("resume", "1")
    assert (resumed.code, fleet.sessions()) == (0, NONE)
    assert fleet.call("log", "verify").code == 0


@pytest.mark.parametrize("at", [4, 9, 13, 17, 21, 26, 31, 40])
def test_killed_at_each_record(fleet: Fleet, killer: Killer, at: int) -> None:
    """A run killed at any record comes to a truthful end, and no script has run twice."""
    killed = killer.run(
        *("run", fleet.digest),
        environment=fleet.team.environment_of(ANA),
        cwd=fleet.team.root,
        at=at,
        when="after",
    )
    assert killed["signal"] == signal.SIGKILL, killed
    if not json.loads(fleet.call("runs", "--json").out)["runs"]:
        assert fleet.executions == 0  # it died before there was a run
        return
    for _ in range(len(NAMES)):
        answer = fleet.call("resume", "1")
        if answer.code == 4:
            found = fleet.call("runs", "show", "1", "--json").json["walk"]["lanes"]
            unknown = [lane["target"] for lane in found if lane["word"] == "unknown"]
            assert unknown, answer.out
            answer = fleet.call("resume", "1", "--rerun", "--on", unknown[0])
        if answer.code == 0:
            break
    assert fleet.call("runs", "show", "1", "--json").json["walk"]["outcome"] == "confirmed"
    assert fleet.sessions() == NONE
    assert fleet.call("log", "verify").code == 0
    assert fleet.call("undo", "1").code == 0
    assert fleet.sessions() == ALL


def test_undo_killed_is_done(fleet: Fleet, killer: Killer) -> None:
    """An undo that was killed is done when the walk is resumed."""
    assert fleet.call("run", fleet.digest).code == 0
    killed = killer.run(
        *("undo", "1"),
        environment=fleet.team.environment_of(ANA),
        cwd=fleet.team.root,
        at=8,
        when="after",
    )
    assert killed["signal"] == signal.SIGKILL, killed
    fleet.call("resume", "1")
    assert fleet.call("runs", "show", "1", "--json").json["walk"]["outcome"] == "undone"
    assert fleet.sessions() == ALL


def test_screen_is_bounded(fresh: Fleet, tmp_path: Path) -> None:
    """However many targets there are, a plan fits on a screen, and no line is too long."""
    names = [f"edge-{number:03}" for number in range(60)]
    many = make_fleet(tmp_path / "many", names, waves="waves: {sizes: [1, 10%, all]}\n")
    answer = many.call("plan", NAME)
    lines = answer.out.splitlines()
    assert answer.code == 3
    assert len(lines) < 30
    assert max(map(len, lines)) <= 100
    assert "and 57 more" in answer.out


class Screen(io.StringIO):
    """A terminal that keeps what was written to it."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """Return what stands on it, as a terminal that knows two sequences shows it."""
        shown: list[str] = []
        for piece in re.split(r"(\r\x1b\[\d+A\x1b\[J|\n)", self.getvalue()):
            if lifted := re.fullmatch(r"\r\x1b\[(\d+)A\x1b\[J", piece):
                del shown[len(shown) - int(lifted[1]) :]
            elif piece != "\n" and piece:
                shown.append(piece)
        return shown


def test_what_goes_on_stands_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on is rewritten below what has ended; nothing of it is left behind."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen()
    terminal = Terminal(screen)
    terminal.below(["  ..  store/a", "  [#  ]"])
    terminal.end("run", "store/a")
    terminal.below(["  [###]"])
    assert screen.lines() == ["  ok  run       store/a", "  [###]"]
    terminal.below(())
    assert screen.lines() == ["  ok  run       store/a"]
