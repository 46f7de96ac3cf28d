"""The life of a server: alone on its state, told to end in the middle of a run, killed, back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.core import backing_up, scheduling
from support.hooks import run_hook
from support.scripts import wait_for
from support.served import Earlier, Served, serving, until
from support.teams import ANA, OPERATION, SESSIONS, Team, make_team

WAITING = """\
#!/usr/bin/env python3
import os, sqlite3, time
connection = sqlite3.connect(os.environ["PILOT_DB"], isolation_level=None)
connection.execute("DELETE FROM sessions")
if "TELL" in os.environ:
    with open(os.environ["TELL"], "w") as file:
        file.write("here\\n")
    while not os.path.exists(os.environ["TELL"] + ".go"):
        time.sleep(0.02)
"""


DUE = 'schedule: {cron: "* * * * *", missed: once, late: 1h}\n'


@pytest.fixture
def waiting(tmp_path: Path) -> Team:
    """A team whose operation `waits` is ready, and goes on when a file is there."""
    team = make_team(tmp_path / "team")
    declared = OPERATION.format(name="waits", undo="restore").replace("COUNTED_IN", "TELL")
    team.commit({"operations/waits.yaml": declared, "scripts/waits/run.sh": WAITING})
    team.make_ready("waits")
    team.environment["TELL"] = str(tmp_path / "here")
    return team


def begin(served: Served, tmp_path: Path) -> None:
    """Begin the run that waits, and wait until its script has acted."""
    reply = served.ask("POST", "/v1/runs", {"operation": "waits"})
    assert (reply.status, reply.json["run"]) == (202, 1), reply.content
    wait_for(tmp_path / "here")


def test_two_servers(tmp_path: Path) -> None:
    """A second server on the same state refuses, says who has it, and the first one goes on."""
    team = make_team(tmp_path / "team")
    with serving(team) as first:
        second = team.spawn("serve", "--listen", "127.0.0.1:0")
        _, err = second.communicate(timeout=30)
        assert second.returncode == 3, err
        assert "server.running" in err
        assert f"process {first.process.pid}" in err
        assert first.ask("GET", "/healthz").status == 200


def test_end_lets_a_run_end(waiting: Team, tmp_path: Path) -> None:
    """Told to end in the middle of a run, a server takes nothing more, and lets the run end."""
    with serving(waiting, "--grace", "60") as served:
        begin(served, tmp_path)
        served.process.send_signal(signal.SIGTERM)
        until(lambda: served.ask("GET", "/readyz", token=None).status == 503)
        refused = served.ask("POST", "/v1/plans", {"operation": "reset-pilot"})
        assert (refused.status, refused.json["code"]) == (503, "api.draining")
        assert served.ask("GET", "/v1/runs/1").status == 200
        (tmp_path / "here.go").touch()
        assert served.process.wait(30) == 0
    assert outcome(waiting) == "confirmed"
    assert waiting.query("SELECT count(*) FROM sessions") == 0


def test_stop_at_the_end(waiting: Team, tmp_path: Path) -> None:
    """A server that is about to end still takes the word to stop what it waits for."""
    with serving(waiting, "--grace", "60") as served:
        begin(served, tmp_path)
        served.process.send_signal(signal.SIGTERM)
        until(lambda: served.ask("GET", "/readyz", token=None).status == 503)
        assert served.ask("POST", "/v1/runs/1/stop", {"then": "undo"}).status == 202
        assert served.process.wait(30) == 0
    assert waiting.query("SELECT count(*) FROM sessions") == SESSIONS


def outcome(team: Team) -> str:
    """Return how run 1 ended, as the journal has it."""
    return str(team.call("runs", "--json").json["runs"][0]["outcome"])


def test_end_without_patience(waiting: Team, tmp_path: Path) -> None:
    """After its grace a server ends what runs as Ctrl-C does: recorded whole, nothing kept."""
    with serving(waiting, "--grace", "0") as served:
        begin(served, tmp_path)
        assert served.end() == 0
    assert outcome(waiting) in {"stopped", "interrupted", "undone"}
    assert waiting.query("SELECT count(*) FROM sessions") == SESSIONS
    assert waiting.call("log", "verify").code == 0
    assert waiting.call("plan", "waits").code != 2


def test_killed_server(waiting: Team, tmp_path: Path) -> None:
    """A run outlives the server that began it, and ends truthfully; the next one knows of it."""
    with serving(waiting) as served:
        begin(served, tmp_path)
        served.end(signal.SIGKILL)
    with serving(waiting) as served:
        assert served.ask("GET", "/v1/runs/1").json["outcome"] == "unfinished (step-started)"
        assert served.ask("POST", "/v1/runs", {"operation": "reset-pilot"}).status == 409
        (tmp_path / "here.go").touch()
        told = served.ask("GET", "/v1/runs/1/events").content.decode()
        assert '"outcome":"confirmed"' in told
    assert waiting.query("SELECT count(*) FROM sessions") == 0


def test_everything_killed(waiting: Team, tmp_path: Path) -> None:
    """Where the run died too, the next server takes it up, and leaves the rest to a person.

    It says `outcome unknown`; told to undo, everything is as it was.
    """
    with serving(waiting) as served:
        begin(served, tmp_path)
        (errand,) = children(served.process.pid)
        os.kill(errand, signal.SIGKILL)
        served.end(signal.SIGKILL)
    with serving(waiting) as served:
        until(lambda: "outcome-unknown" in kinds(served))
        (waiting.root.parent / "here").unlink()
        undone = served.call("resume", "1", "--undo")
        assert (undone.code, "undone: run 1" in undone.out) == (1, True), undone.err
    assert waiting.query("SELECT count(*) FROM sessions") == SESSIONS
    assert waiting.call("log", "verify").code == 0


def kinds(served: Served) -> list[str]:
    """Return the kinds of the records of run 1."""
    found = served.ask("GET", "/v1/runs/1/records").json["records"]
    return [record["kind"] for record in found]


def children(process: int) -> list[int]:
    """Return the processes that a process started."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    found = [int(word) for word in text.split()]
    for task in Path(f"/proc/{process}/task").iterdir():
        found += [int(word) for word in (task / "children").read_text().split()]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("then", ["undo", "stop"])
def test_stop(waiting: Team, tmp_path: Path, then: str) -> None:
    """A run can be stopped from afar: its script ends, and nothing of its copy is kept."""
    with serving(waiting) as served:
        begin(served, tmp_path)
        assert served.ask("POST", "/v1/runs/1/stop", {"then": then}).status == 202
        served.ask("GET", "/v1/runs/1/events")
        assert served.ask("POST", "/v1/runs/1/stop", {"then": then}).status == 409
    assert outcome(waiting) in {"stopped", "interrupted"}
    assert waiting.query("SELECT count(*) FROM sessions") == SESSIONS


def test_looking_away(waiting: Team, tmp_path: Path) -> None:
    """Ctrl-C at the command line leaves the run to the server, says so, and exits with 130."""
    with serving(waiting) as served:
        away = subprocess.Popen(
            [sys.executable, "-m", "handrail", "run", "waits"],
            env=served.environment_of(ANA, "operator"),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wait_for(tmp_path / "here")
        until(lambda: any("/v1/errands/{id}/events" in line for line in served.logged))
        away.send_signal(signal.SIGINT)
        out, _ = away.communicate(timeout=30)
        assert away.returncode == 130, out
        assert "handrail runs show 1" in out
        (tmp_path / "here.go").touch()
        assert '"outcome":"confirmed"' in served.ask("GET", "/v1/runs/1/events").content.decode()


def test_journal_that_cannot_be_written(tmp_path: Path) -> None:
    """With a journal that was moved away nothing begins: 503; moved back, all is as before."""
    team = make_team(tmp_path / "team")
    with serving(team) as served:
        assert served.ask("POST", "/v1/plans", {"operation": "reset-pilot"}).status == 201
        journal = team.state / "journal.db"
        journal.rename(team.state / "elsewhere.db")
        reply = served.ask("POST", "/v1/plans", {"operation": "close-devices"})
        assert (reply.status, reply.json["code"]) == (503, "journal.unwritable")
        assert served.ask("POST", "/v1/runs", {"operation": "reset-pilot"}).status == 503
        (team.state / "elsewhere.db").rename(journal)
        assert served.ask("POST", "/v1/plans", {"operation": "reset-pilot"}).status == 201


def test_listening_where_tokens_would_be_seen(tmp_path: Path) -> None:
    """A server does not listen beyond this machine without TLS, unless a proxy is said to do it."""
    team = make_team(tmp_path / "team")
    for words in (("--listen", "0.0.0.0:0"), ("--listen", "[::]:0")):
        refused = team.spawn("serve", *words)
        _, err = refused.communicate(timeout=30)
        assert (refused.returncode, "unencrypted" in err) == (3, True)
    for words in (("--listen", "nonsense"), ("--listen", "127.0.0.1:99999"), ("--listen", "none")):
        wrong = team.spawn("serve", *words)
        _, err = wrong.communicate(timeout=30)
        assert wrong.returncode == 2, err


def test_port_in_use(tmp_path: Path) -> None:
    """A port that is taken is said, and nothing is left behind."""
    team, other = make_team(tmp_path / "team"), make_team(tmp_path / "other")
    with serving(team) as served:
        second = other.spawn("serve", "--listen", served.url.removeprefix("http://"))
        _, err = second.communicate(timeout=30)
        assert (second.returncode, "cannot listen" in err) == (2, True)


def test_log_is_lines_of_json(tmp_path: Path) -> None:
    """Everything that a server writes is a line of JSON with a time, a level and an event."""
    team = make_team(tmp_path / "team")
    with serving(team) as served:
        served.ask("GET", "/v1/whoami")
        served.ask("GET", "/v1/nothing")
        served.end()
    told = [json.loads(line) for line in served.logged]
    assert {"listening", "request", "signal", "ended"} <= {line["event"] for line in told}
    assert all({"time", "level", "event"} <= set(line) for line in told)


def test_schedule(tmp_path: Path) -> None:
    """What is due is begun by the server, once, as a run of its own that people see."""
    declared = OPERATION.format(name="close-devices", undo="restore") + DUE
    team = make_team(tmp_path / "team", {"operations/close-devices.yaml": declared})
    team.make_ready("close-devices")
    earlier = team.world(clock=Earlier(timedelta(minutes=3)))
    scheduling.tick(earlier, team.declared, lambda _: None)
    with serving(team) as served:
        until(lambda: bool(served.ask("GET", "/v1/runs").json["runs"]))
        told = served.ask("GET", "/v1/runs/1/events").content.decode()
        assert '"outcome":"confirmed"' in told
        assert any('"due"' in line for line in served.logged)
    assert team.executions == 1


def test_backup(tmp_path: Path) -> None:
    """A backup that is due is made and proven by the server, once, and listed by it."""
    team = make_team(tmp_path / "team")
    earlier = team.world(clock=Earlier(timedelta(hours=25)))
    backing_up.tick(earlier, team.declared, lambda _: None)
    journal = team.world().journal

    def kinds() -> list[str]:
        return [record.kind for record in journal.records(backing_up.chain_of("store/pilot-db"))]

    with serving(team) as served:
        until(lambda: "ended" in kinds())
        (listed,) = served.ask("GET", "/v1/schedules").json["backups"]
        assert (listed["last"], listed["overdue"], listed["proven_at"] != "") == (
            "ended",
            False,
            True,
        )
        assert served.ask("GET", "/v1/status").json["schedules"] == []
    assert kinds() == ["declared", "begun", "made", "ended"]


def test_traces(tmp_path: Path) -> None:
    """With an address for traces, requests, runs and their stages are sent there; no secret is."""
    with run_hook() as collector:
        team = make_team(tmp_path / "team")
        team.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        with serving(team) as served:
            served.follow(served.ask("POST", "/v1/rehearsals", {"operation": "reset-pilot"}))
            token = served.token(ANA, "operator")
            served.end()
        sent = b"".join(one.body for one in collector.sent)
    for name in (b"request", b"POST /v1/rehearsals", b"rehearse", b"backup", b"restore", b"undo"):
        assert name in sent
    assert token.rpartition("_")[2].encode() not in sent
