"""One team and its server, shared by the tests of a process that change nothing of importance."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.served import Served, serving
from support.teams import ANA, BEN, make_team

POLICY = f"""\
approval: {{max-age: 4h}}
groups:
  web: [{ANA}, {BEN}, chi@pilot.example]
  data: [dora@pilot.example, admin@pilot.example]
roles:
  - {{role: approver, groups: web, resources: [store/pilot-*], environments: [pilot]}}
  - {{role: approver, groups: data, resources: [store/other-*]}}
  - {{role: admin, people: [admin@pilot.example]}}
"""


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of a team with roles by resource, whose one plan is `reset-pilot`'s."""
    team = make_team(tmp_path_factory.mktemp("served") / "team", {"policy.yaml": POLICY})
    team.decide("reset-pilot")
    with serving(team, "--rate", "2000") as running:
        yield running
