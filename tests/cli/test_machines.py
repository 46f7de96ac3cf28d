"""Machines by the command line: real declarations, keys, journal and engine; machines in memory."""

from __future__ import annotations

import os
import pty
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from handrail import kit_wiring
from handrail.cli.live import Terminal
from handrail.kits.deploys.model import Machine
from handrail.testing.machines import FakeMachines
from support.ssh_people import make_key
from support.teams import ANA, BEN, CHI, Answer, Team, signers

ESTATE = """\
environments: {lab: {}}
platforms:
  aws: {kind: autoscaling, region: eu-west-1, identity: "fake:fake@memory:fake", soak: 0s}
groups:
  routers: {platform: platform/aws, name: routers-asg}
nodes:
  router-3: {platform: platform/aws, machine: i-3}
services:
  router:
    runs-on: [group/routers]
    contraindications:
      - operation: detach
        unless: {then: terminate}
        because: incident/2021-01-12-oops
incidents:
  2021-01-12-oops:
    date: 2021-01-12
    actions:
      - {do: let peers forget a detached machine, owner: ben, link: "https://tickets.example/212"}
"""


@dataclass
class Routers:
    """A team, and its machines."""

    team: Team
    machines: FakeMachines

    def call(self, *words: str, person: str = ANA) -> Answer:
        """Call the command line as a person would."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kit_wiring, "_machines", lambda *_: self.machines)
            return self.team.call(*words, person=person)


@pytest.fixture
def routers(tmp_path: Path) -> Routers:
    root, keys = tmp_path / "team", tmp_path / "keys"
    root.mkdir()
    keys.mkdir(mode=0o700)
    team = Team(root, keys)
    for person in (ANA, BEN, CHI):
        make_key(keys, person)
    team.git("init", "-q", "-b", "main", "--template=")
    team.commit(
        {
            "estate/routers.yaml": ESTATE,
            ".gitignore": ".handrail/\n",
            "allowed_signers": signers(team, ANA, BEN),
        }
    )
    every = [
        Machine(f"i-{n}", f"router-{n}", "routers-asg", "eu-west-1a", "in-service")
        for n in (1, 2, 3)
    ]
    return Routers(team, FakeMachines(every))


def test_a_detach_is_refused_and_its_alternative_planned(routers: Routers) -> None:
    """Refused with the incident and what is still open; `--alternative` plans, and runs nothing."""
    refused = routers.call("detach", "router-3")
    assert refused.code == 3
    assert "2021-01-12-oops" in refused.out
    assert "let peers forget a detached machine" in " ".join(refused.out.split())
    assert "next: handrail detach node/router-3 --alternative" in refused.out
    safe = routers.call("detach", "router-3", "--alternative", "--because", "its disk is broken")
    assert (safe.code, "terminate router-3 (i-3)" in safe.out) == (4, True)
    assert "next: handrail approve" in safe.out
    assert routers.machines.calls == []
    assert routers.call("runs", "--json").json["runs"] == []


def test_an_alternative_of_nothing(routers: Routers) -> None:
    """What nothing speaks against has no alternative: that is said, and nothing is done."""
    answer = routers.call("drain", "router-3", "--alternative")
    assert (answer.code, "names an alternative" in answer.err) == (2, True)
    assert routers.machines.calls == []


def test_a_machine_that_is_no_declared_node(routers: Routers) -> None:
    """`--on` names the group of a machine that the estate does not; an unknown one is refused."""
    planned = routers.call("drain", "i-2", "--on", "group/routers", "--plan")
    assert (planned.code in {0, 4}, routers.machines.calls) == (True, [])
    unknown = routers.call("drain", "i-9", "--on", "group/routers", "--plan")
    assert (unknown.code, "i-9" in unknown.err) == (2, True)


def test_drained_and_put_back(routers: Routers) -> None:
    """A drain is run, watched and confirmed; `handrail undo` lets the machine take work again."""
    drained = routers.call("drain", "router-3")
    if drained.code == 4:
        digest = drained.out.partition("handrail approve ")[2].split()[0]
        assert routers.call("approve", digest, "--yes", person=BEN).code == 0
        drained = routers.call("run", digest)
    assert (drained.code, "confirmed: run 1" in drained.out) == (0, True)
    assert routers.machines.calls == ["drain i-3"]
    undone = routers.call("undo", "1")
    assert (undone.code, "undone: run 1" in undone.out) == (0, True)


@pytest.mark.parametrize(("pressed", "answered"), [("a", "a"), ("A", "a"), ("q", "q"), ("x", "q")])
def test_one_key_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch, pressed: str, answered: str
) -> None:
    """One key is enough, without Enter; any other key is no."""
    ours, theirs = pty.openpty()
    told: list[bytes] = []

    def person() -> None:
        while b"q: no] " not in b"".join(told):
            told.append(os.read(ours, 1000))
        # What was typed before the terminal is switched is thrown away: typed until it is read.
        while not read.wait(0.05):
            os.write(ours, pressed.encode())

    read, sits = threading.Event(), threading.Thread(target=person)
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(os.dup(theirs)) as typed, os.fdopen(theirs, "w") as shown:
        monkeypatch.setattr(sys, "stdin", typed)
        sits.start()
        try:
            found = Terminal(shown).key("plan it?", {"a": "yes", "q": "no"}, "q")
        finally:
            read.set()
            sits.join()
    os.close(ours)
    assert found == answered
    assert b"plan it?  [a: yes, q: no]" in b"".join(told)


def test_nobody_is_asked_for_a_key_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody sits, the question is not even asked."""
    assert Terminal(sys.stderr).key("plan it?", {"a": "yes"}, "q") == "q"
    assert capsys.readouterr().err == ""
