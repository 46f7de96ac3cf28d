"""A node of a real Nomad cluster is drained and let back, by the command line."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from handrail.adapters.nomad import NomadMachines, Where
from support.nomad import NomadAgent
from support.teams import BEN, make_team

ESTATE = """\
platforms:
  prod:
    kind: nomad
    url: {url}
    soak: 1s
nodes:
  only: {{platform: platform/prod, machine: {machine}}}
groups:
  default: {{platform: platform/prod}}
services:
  web: {{runs-on: [group/default]}}
"""


def test_drained_confirmed_and_undone(nomad_agent: NomadAgent, tmp_path: Path) -> None:
    """The only node of its pool: what runs there would stop, which needs a second person."""
    with closing(NomadMachines("platform/prod", Where(nomad_agent.url))) as machines:
        (machine,) = machines.machines()
        machines.undrain(machine.id)
        estate = ESTATE.format(url=nomad_agent.url, machine=machine.id)
        team = make_team(tmp_path / "team", {"estate/nomad.yaml": estate})
        adopted = team.call("adopt", "platform/prod")
        assert adopted.code == 0, adopted
        team.commit(message="adopted")
        planned = team.call("drain", "only", "--plan", "--json").json
        assert planned["verdict"] == "require", planned
        plan = planned["plan"]
        assert plan["risk_because"].startswith("service/web would stop: 0 of 1 machines are left")
        digest = plan["digest"][:8]
        approved = team.call("approve", digest, "--yes", person=BEN)
        assert approved.code == 0, approved
        run = team.call("run", digest)
        assert run.code == 0, run
        assert machines.machines()[0].state == "ineligible"
        number = run.out.partition("run ")[2].partition(".")[0]
        undone = team.call("undo", number)
        assert undone.code == 0, undone
        assert machines.machines()[0].state == "in-service"
        detached = team.call("detach", "only", "--plan")
        assert detached.code == 1
        assert "neither starts nor ends machines" in detached.err
