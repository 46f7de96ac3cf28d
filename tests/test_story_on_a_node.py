"""Story 1 on a node: the same script, run over SSH, behind the same guard.

The server, the node and this machine are one machine; the script reaches its database by the port
that leads back to the guard, and by no password of the database's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.postgres_server import Server, server_binaries
from support.sshd import Sshd, make_key, run_sshd, wait_until
from support.story_guarded import (
    COMPLETE,
    DEVICES,
    NEW,
    OLD,
    PURGES_ALL,
    SESSIONS,
    Story,
    declarations,
    make_story,
)

FULL = (SESSIONS, DEVICES, OLD + NEW)
FIRST = (0, 0, OLD + NEW)
DONE = (0, 0, NEW)
UNREGISTER = "UPDATE devices SET registered ="


@dataclass
class OnNode(Story):
    """The story with its script on a node."""

    sshd: Sshd | None = None

    def environment(
        self, who: str = "ana", more: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        assert self.sshd is not None
        return {"HANDRAIL_SSH_CONFIG": str(self.sshd.config), **super().environment(who, more)}

    def estate(self, host_key: str) -> str:
        assert self.sshd is not None
        return (
            f"nodes:\n  web-1:\n    address: 127.0.0.1\n    port: {self.sshd.port}\n"
            f"    host-keys: [{json.dumps(host_key)}]\n    work: {self.sshd.work}\n"
        )

    def declare_there(self, body: str = "", undo: str = "restore") -> None:
        """Declare the operation to run on the node; `body` is its script, where it is another."""
        assert self.sshd is not None
        operation = declarations("database")["operations/reset-pilot.yaml"]
        operation = operation.replace("undo: restore", f"undo: {undo}") + "runs-on: node/web-1\n"
        files = {
            "estate/nodes.yaml": self.estate(self.sshd.host_key),
            "operations/reset-pilot.yaml": operation,
        }
        if body:
            files["scripts/reset_pilot.sh"] = f"#!/bin/bash\n{body}\n"
        self.declare("database", files=files)


@pytest.fixture
def sshd() -> Iterator[Sshd]:
    binaries = server_binaries()
    folder = f"{binaries.folder}:" if binaries else ""
    yield from run_sshd(settings=[f"SetEnv PATH={folder}/usr/bin:/bin"])


@pytest.fixture
def pilot(postgres_server: Server, sshd: Sshd, tmp_path: Path) -> OnNode:
    made = make_story(tmp_path, server=postgres_server)
    return OnNode(made.root, made.uploads, made.url, sshd=sshd)


@pytest.mark.postgres
def test_confirmed(pilot: OnNode, sshd: Sshd) -> None:
    """Rehearsed and run there, behind the guard; the plan says where; nothing is left there."""
    pilot.declare_there()
    plan = pilot.make_ready()
    assert plan["runs_on"] == "node/web-1"
    assert plan["facts"]["rehearsal"]["confined"] == "on node/web-1 a script is not confined"
    screen = pilot.call("plan", "reset-pilot").screen
    assert "its script runs on node/web-1, and is not confined there" in screen
    answer = pilot.call("run", "reset-pilot")
    assert answer.code == 0, answer.screen
    assert COMPLETE in answer.screen
    assert pilot.tables == DONE
    assert sshd.left() == []
    assert pilot.call("log", "verify", "--json").json["problems"] == []


@pytest.mark.postgres
def test_held_to_its_budget(pilot: OnNode) -> None:
    """There too the second transaction is refused before COMMIT; undo takes the first back."""
    pilot.declare_there()
    pilot.make_ready()
    pilot.query(PURGES_ALL)
    answer = pilot.call("run", "reset-pilot")
    assert answer.code == 5, answer.screen
    assert pilot.tables == FIRST
    assert "refused: would delete table readings 620 rows; budget 580" in answer.err
    # It is not confined there: rows too many may be somebody else's, and a person decides.
    assert "handrail resume 1 --undo" in answer.err
    undone = pilot.call("resume", "1", "--undo")
    assert undone.code == 1, undone.screen
    assert pilot.tables == FULL


@pytest.mark.postgres
def test_killed_and_resumed(pilot: OnNode, sshd: Sshd, tmp_path: Path) -> None:
    """kill -9 of handrail in mid-step: resume collects how the script ended, and goes on."""
    enabled, told, gate = (tmp_path / name for name in ("enabled", "told", "gate"))
    pilot.declare_there(
        'psql -qXAt -c "select clear_sessions()"\n'
        f"[ ! -e {enabled} ] || {{ echo >{told}; until [ -e {gate} ]; do sleep 0.1; done; }}\n"
        f'echo "{COMPLETE}"'
    )
    pilot.make_ready()
    enabled.touch()
    process = pilot.spawn("run", "reset-pilot")
    try:
        wait_until(told.exists, "the script did not begin", 60)
    finally:
        process.kill()
        process.communicate()
    gate.touch()
    wait_until(lambda: list(sshd.work.glob("*/status")), "the keeper noted nothing")
    answer = pilot.call("resume", "1")
    assert answer.code == 0, answer.screen
    assert answer.out.startswith("confirmed: run 1")
    assert COMPLETE in answer.screen
    assert pilot.tables == FIRST
    assert sshd.left() == []


@pytest.mark.postgres
def test_another_node(pilot: OnNode, sshd: Sshd, tmp_path: Path) -> None:
    """A node with another host key is refused before anything was done to the store."""
    pilot.declare_there()
    make_key(tmp_path / "other")
    key = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    pilot.make_ready()
    pilot.write({"estate/nodes.yaml": pilot.estate(key)})
    pilot.commit("another node")
    # What was rehearsed and approved was for the node that was declared then.
    answer = pilot.call("run", "reset-pilot")
    assert answer.code in {3, 4}, answer.screen
    rehearsed = pilot.call("rehearse", "reset-pilot")
    assert rehearsed.code == 1, rehearsed.screen
    assert "error[node.host-key]" in rehearsed.err
    assert pilot.tables == FULL
    assert sshd.left() == []


@pytest.mark.postgres
def test_undo_script(pilot: OnNode) -> None:
    """An undo script runs on the same node, behind a guard of its own."""
    pilot.write({"undo/undo.sh": f'#!/bin/bash\necho on $PWD\npsql -qXAt -c "{UNREGISTER} true"\n'})
    pilot.declare_there(f'psql -qXAt -c "{UNREGISTER} false"', undo="./undo/undo.sh")
    pilot.make_ready()
    assert pilot.call("run", "reset-pilot").code == 0
    assert pilot.tables == (SESSIONS, 0, OLD + NEW)
    undone = pilot.call("undo", "1")
    assert undone.code == 0, undone.screen
    assert pilot.tables == FULL
    assert pilot.sshd is not None
    assert (
        f"on {pilot.sshd.work}/handrail-" in (pilot.root / ".handrail/runs/1/undo.log").read_text()
    )
