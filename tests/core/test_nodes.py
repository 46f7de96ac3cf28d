"""A run whose script is on a node: found out about there, whatever became of this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handrail.core import deciding, recalling, rehearsing, running, scripts
from handrail.core.outcome import Outcome
from handrail.core.world import World
from handrail.errors import DeclarationErrors, RefusedError, ScriptError, WaitingError
from handrail.ports import Command, Connection, Finished
from handrail.testing.processes import Call, FakeProcesses
from support.worlds import ESTATE, OPERATION, TRIM, FakeWorld, make_world

KEY = "ssh-ed25519 " + "A" * 68
NODES = f"nodes:\n  web-1: {{address: web-1.internal, host-keys: [{KEY}]}}\n  old: {{}}\n"
AWAY = ScriptError("node.unreachable", "node/web-1 cannot be reached")


class Team:
    """A world of fakes whose scripts run on a node."""

    def __init__(self, fake: FakeWorld) -> None:
        self.fake = fake
        self.node = FakeProcesses(fake.processes.programs, "on node/web-1 it is not confined")
        self.opened: list[str] = []
        fake.store.kind = "postgres"
        fake.write("estate/pilot.yaml", ESTATE.replace("kind: sqlite", "kind: postgres") + NODES)
        fake.write(
            "operations/trim.yaml", OPERATION.format(undo="restore") + "runs-on: node/web-1\n"
        )

    def world(self) -> World:
        def open_node(node: Any) -> FakeProcesses:
            self.opened.append(node.ref)
            return self.node

        return replace(self.fake.world(), open_node=open_node)

    def ready(self) -> deciding.Decided:
        world, declared = self.world(), self.fake.declared
        decided = deciding.decide(world, declared, "trim")
        decided = rehearsing.rehearse(world, decided, self.fake.talk)
        if decided.plan.verdict == "require":
            self.fake.approve(decided, typed=decided.plan.target.resource)
        return deciding.decide(world, declared, "trim")

    def begin(self) -> Outcome | None:
        return running.begin(self.world(), self.ready(), self.fake.talk)

    def resume(self, choice: str = "") -> Outcome | None:
        decided = recalling.recorded(self.world(), self.fake.declared, 1, None)
        return running.resume(self.world(), 1, decided, self.fake.talk, choice=choice)

    def mark(self) -> str:
        return scripts.mark_of(self.world(), "run-1")

    def lose(self, sql: str = TRIM) -> None:
        """Let the node go away in the middle of the run's script."""
        rehearsed = self.node.programs["trim.sh"]

        def program(call: Call) -> int:
            if self.fake.kinds("run-1"):
                self.fake.store.execute(sql)
                raise WaitingError("node.lost", "node/web-1 does not answer any more")
            code = rehearsed(call)
            assert isinstance(code, int)
            return code

        self.node.programs = {**self.node.programs, "trim.sh": program}
        with pytest.raises(WaitingError) as caught:
            self.begin()
        assert caught.value.code == "run.unknown-outcome"
        assert "handrail resume 1" in caught.value.hint
        assert self.fake.kinds()[-1] == "node-lost"


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(make_world(tmp_path / "repository"))


def test_runs_there(team: Team) -> None:
    """Rehearsal and run are on the node, and what it kept of both is forgotten afterwards."""
    outcome = team.begin()
    assert outcome is not None
    assert outcome.outcome == "confirmed"
    assert set(team.opened) == {"node/web-1"}
    assert team.fake.processes.runs == []
    assert len(team.node.runs) == 2
    assert team.mark() in team.node.forgotten
    assert team.node.forgotten.index(team.mark()) > 0


def test_what_it_takes_along(team: Team) -> None:
    """The files of the plan go there, and nothing that is only true on this machine."""
    plan = team.ready().plan
    command: Command = team.node.runs[0]
    assert command.files == plan.material.files
    assert not {"HOME", "PATH", "USER"} & set(command.environment)
    assert command.environment["HANDRAIL_RUN"]


def test_ports_are_marks() -> None:
    """Each port in the environment is a mark until the node's own is known, and nothing else is."""
    real = Connection(
        environment={
            "PGHOST": "127.0.0.1",
            "PGPORT": "5432",
            "DATABASE_URL": "postgres://u:5432@127.0.0.1:5432/d5432?x=127.0.0.1:54321",
            "PGPASSWORD": "5432",
        },
        parts={"port": "5432", "cache.port": "6379", "url": "redis://127.0.0.1:6379/0"},
        sockets=(("127.0.0.1", 5432), ("127.0.0.1", 6379)),
    )
    there, forwards = scripts._from_afar(real)
    first, second = (forward.mark for forward in forwards)
    assert there.environment == {
        "PGHOST": "127.0.0.1",
        "PGPORT": first,
        "DATABASE_URL": f"postgres://u:5432@127.0.0.1:{first}/d5432?x=127.0.0.1:54321",
        "PGPASSWORD": "5432",
    }
    assert there.parts == {
        "port": first,
        "cache.port": second,
        "url": f"redis://127.0.0.1:{second}/0",
    }


def test_away_before(team: Team) -> None:
    """A node that is away when the run begins: nothing is done, not even a backup."""
    decided = team.ready()
    team.node.away = AWAY
    outcome = running.begin(team.world(), decided, team.fake.talk)
    assert outcome is not None
    assert outcome.outcome == "refused"
    assert "backup-begun" not in team.fake.kinds()
    with pytest.raises(ScriptError, match="cannot be reached"):
        rehearsing.rehearse(team.world(), decided, team.fake.talk)


def test_lost_and_collected(team: Team) -> None:
    """What the node kept is collected when the run is resumed, and the run goes on to its end."""
    team.lose()
    team.node.collected[team.mark()] = Finished(0, "exited", 2.0, 7)
    outcome = team.resume()
    assert outcome is not None
    assert outcome.outcome == "confirmed"
    assert "outcome-unknown" not in team.fake.kinds()
    assert team.fake.count() == 5


def test_lost_and_failed(team: Team) -> None:
    """A status other than 0 that the node kept is a failure like any: what it did is undone."""
    team.lose()
    team.node.collected[team.mark()] = Finished(3, "exited", 2.0, 7)
    outcome = team.resume()
    assert outcome is not None
    assert outcome.outcome == "undone"
    assert "exit 3" in outcome.why
    assert team.fake.count() == 20


def test_lost_and_nobody_knows(team: Team) -> None:
    """Where the node knows nothing either, a person is asked, as on this machine."""
    team.lose()
    with pytest.raises(WaitingError, match="cut off while its script ran"):
        team.resume()
    assert team.fake.kinds()[-1] == "outcome-unknown"


CHOICES: dict[str, tuple[str, int]] = {"undo": ("undone", 20), "accept": ("confirmed", 5)}


@pytest.mark.parametrize("choice", CHOICES)
def test_lost_and_still_away(team: Team, choice: str) -> None:
    """While the node is away resume says so, and changes nothing; a person need not wait for it."""
    team.lose()
    team.node.away = AWAY
    for _ in range(2):
        with pytest.raises(WaitingError, match="cannot be reached"):
            team.resume()
    assert team.fake.count() == 5
    outcome = team.resume(choice)
    assert outcome is not None
    assert (outcome.outcome, team.fake.count()) == CHOICES[choice]


def test_told_to_undo(team: Team) -> None:
    """Told to undo, nobody waits for the script: it is ended."""
    team.lose()
    team.node.leftovers[team.mark()] = ("sleep",)
    team.node.collected[team.mark()] = Finished(0, "exited", 2.0, 7)
    outcome = team.resume("undo")
    assert outcome is not None
    assert outcome.outcome == "undone"
    assert team.node.collected
    assert team.node.leftovers == {}


def test_node_not_declared_any_more(team: Team) -> None:
    """A run is asked about where it ran, and not on this machine when the node is gone."""
    team.lose()
    team.fake.write("estate/pilot.yaml", ESTATE.replace("kind: sqlite", "kind: postgres"))
    team.fake.write("operations/trim.yaml", OPERATION.format(undo="restore"))
    with pytest.raises((ScriptError, WaitingError), match="node/web-1 is not declared any more"):
        team.resume()
    assert team.fake.processes.runs == []


def test_digest(team: Team) -> None:
    """Where a script runs, and how that node is told, is part of what is approved."""
    digests, keys = set(), set()
    there = OPERATION.format(undo="restore")
    second = NODES.replace("old: {}", f"web-2: {{address: web-2, host-keys: [{KEY}]}}")
    for nodes, operation in (
        (NODES, there),
        (NODES, there + "runs-on: node/web-1\n"),
        (NODES.replace("AAAA]", "AAAB]"), there + "runs-on: node/web-1\n"),
        (NODES.replace("web-1.internal", "elsewhere"), there + "runs-on: node/web-1\n"),
        (second, there + "runs-on: node/web-2\n"),
    ):
        estate = ESTATE.replace("kind: sqlite", "kind: postgres") + nodes
        team.fake.write("estate/pilot.yaml", estate)
        team.fake.write("operations/trim.yaml", operation)
        plan = deciding.decide(team.world(), team.fake.declared, "trim").plan
        digests.add(plan.digest)
        keys.add(plan.key)
    assert (len(digests), len(keys)) == (5, 3)


MISTAKES = {
    "node/web-9": ("estate.unknown-resource", "unknown `node/web-9`"),
    "object/backups": ("operations.node", "`object/backups` is no node"),
    "node/old": ("operations.node", "declares no `host-keys`"),
}


@pytest.mark.parametrize("ref", MISTAKES)
def test_mistakes(team: Team, ref: str) -> None:
    """An operation on what is no node, or none that can be told, is told with its file."""
    text = OPERATION.format(undo="restore") + f"runs-on: {ref}\n"
    team.fake.write("operations/trim.yaml", text)
    with pytest.raises(DeclarationErrors) as caught:
        _ = team.fake.declared
    code, said = MISTAKES[ref]
    found = [(e.code, e.message, e.at.file if e.at else "") for e in caught.value.errors]
    assert any(c == code and said in m and f == "operations/trim.yaml" for c, m, f in found), found


def test_file_of_this_machine(team: Team) -> None:
    """A store in files of this machine is not for a script elsewhere."""
    team.fake.write("estate/pilot.yaml", ESTATE + NODES)
    with pytest.raises(DeclarationErrors, match="in files of this machine"):
        _ = team.fake.declared


HOSTS = ["-oProxyCommand=id", "a b", "a;id", "$(id)", "host\n"]


@pytest.mark.parametrize("address", HOSTS)
def test_hostile_address(team: Team, address: str) -> None:
    """An address that ssh could take for an option, or a shell for a command, is no address."""
    nodes = f"nodes:\n  web-1: {{address: {address!r}, host-keys: [{KEY}]}}\n"
    nodes = nodes.replace("'", '"')
    team.fake.write("estate/pilot.yaml", ESTATE.replace("kind: sqlite", "kind: postgres") + nodes)
    with pytest.raises(DeclarationErrors, match="a host's name or address"):
        _ = team.fake.declared


def test_policy_that_requires_confinement(team: Team) -> None:
    """Where rehearsals must be confined, none is on a node."""
    team.fake.write("policy.yaml", "rehearsal: {confine: require}\n")
    with pytest.raises(RefusedError, match="requires confined rehearsals"):
        team.ready()
    assert team.node.runs == []
