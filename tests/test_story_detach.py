"""Story 2, the detached instance: by the command line, on AWS's APIs and a real HTTP service.

A router misbehaves; the runbook says to detach it. For who talks to the routers that is poison.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support import aws
from support.aws import GROUP, REGION, AwsServer
from support.teams import ANA, BEN, Answer, Team, make_team

SIZE = 3
ESTATE = """\
environments:
  live: {{production: true}}
platforms:
  aws:
    kind: autoscaling
    url: {{env: AWS_ADDRESS}}
    region: {region}
    environment: live
    soak: {soak}
groups:
  routers: {{platform: platform/aws, name: {group}}}
nodes:
  router-3: {{platform: platform/aws, machine: {machine}}}
services:
  router:
    runs-on: [group/routers]
    quorum: 2
    contraindications:
      - operation: detach
        unless: {{then: terminate}}
        because: incident/2021-01-12-oops
        owner: ana
        expires: 2027-01-12
  router-api:
    needs: [{{service/router: soft}}]
    checks: ["{health}"]
incidents:
  2021-01-12-oops:
    date: 2021-01-12
    actions:
      - {{do: let peers forget a detached machine, owner: ben, link: "https://issues.example/7"}}
"""


class Health:
    """The dependant's own health, over HTTP.

    Attributes:
        asked: how often it was looked at.
        well: how many more looks find it well; None for ever.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.well: int | None = None
        self.url = ""

    def look(self) -> int:
        """Return the status of one look."""
        self.asked += 1
        if self.well is None:
            return 200
        self.well -= 1
        return 200 if self.well >= 0 else 503


@contextmanager
def listening() -> Iterator[Health]:
    """Serve a health page on loopback while it is held."""
    health = Health()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(health.look())
            self.end_headers()

        def log_message(self, format: str, *words: object) -> None:  # noqa: A002  the library's
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    health.url = f"http://127.0.0.1:{server.server_address[1]}/health"
    try:
        yield health
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Story:
    """The team, its routers, and who depends on them."""

    team: Team
    cloud: AwsServer
    health: Health
    machine: str

    def call(self, *words: str, person: str = ANA) -> Answer:
        """Call the command line."""
        return self.team.call(*words, person=person)

    def plan(self, *words: str) -> Any:
        """Call for a plan as JSON."""
        return json.loads(self.call(*words, "--json").out)

    def approve(self, digest: str, person: str = BEN) -> Answer:
        """Approve, naming the target where one has to."""
        name = ("--name", "node/router-3")
        return self.call("approve", digest, "--because", "seen", *name, person=person)


@pytest.fixture(scope="module")
def cloud() -> Iterator[AwsServer]:
    with aws.serving() as server:
        yield server


@pytest.fixture
def story(cloud: AwsServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Story]:
    soak = getattr(request, "param", "2s")
    cloud.reset()
    machine = cloud.make_group(SIZE, least=1)[-1]
    cloud.name(machine, "router-3")
    with listening() as health:
        estate = ESTATE.format(
            region=REGION, group=GROUP, machine=machine, health=health.url, soak=soak
        )
        team = make_team(tmp_path / "team", {"estate/routers.yaml": estate})
        team.environment.update(aws.ENVIRONMENT | {"AWS_ADDRESS": cloud.url})
        made = Story(team, cloud, health, machine)
        adopted = made.call("adopt", "platform/aws")
        assert adopted.code == 0, adopted
        team.commit(message="adopted")
        yield made


def test_the_story(story: Story) -> None:
    """Refused with what is known; its alternative planned, approved, run, and watched."""
    refused = story.call("detach", "node/router-3", "--because", "it drops packets")
    assert refused.code == 3, refused
    text = " ".join(refused.out.split())
    assert "refused: detach on node/router-3" in text
    assert "it harms service/router: incident/2021-01-12-oops" in text
    assert "still open: let peers forget a detached machine (ben, https://issues.example/7)" in text
    assert "next: handrail detach node/router-3 --alternative" in text
    assert story.cloud.states()[story.machine] == "InService"

    words = ("detach", "node/router-3", "--alternative", "--because", "it drops packets")
    planned = story.plan(*words)
    assert planned["verdict"] == "require", planned
    plan = planned["plan"]
    assert plan["request"]["parameters"]["then"] == "terminate"
    assert [effect["verb"] for effect in plan["effects"]] == ["terminate"]
    assert "service/router-api" in {one["resource"] for one in plan["consequences"]}
    assert story.cloud.states()[story.machine] == "InService"

    digest = plan["digest"][:8]
    waiting = story.call("run", digest)
    assert waiting.code == 4, waiting
    own = story.approve(digest, ANA)
    assert own.code == 3, own
    assert story.approve(digest).code == 0
    asked = story.health.asked
    run = story.call("run", digest)
    assert run.code == 0, run
    assert run.out.startswith("confirmed: run"), run
    assert story.health.asked > asked
    assert story.machine not in story.cloud.states()
    assert story.cloud.state(story.machine) in {"shutting-down", "terminated"}
    assert len(story.cloud.members()) == SIZE - 1

    checked = story.call("check").out
    assert "detach harms service/router: refused once, overridden once" in checked
    kept = story.team.journal_text()
    assert aws.SECRET not in kept
    assert story.call("log", "verify", "--json").json["problems"] == []


@pytest.mark.parametrize("story", ["20s"], indirect=True)
def test_a_dependant_that_gets_ill_puts_it_back(story: Story) -> None:
    """Drained, and who talks to the routers gets ill in the soak: undone, without anybody."""
    plan = story.plan("drain", "node/router-3", "--plan", "--because", "it drops packets")
    digest = plan["plan"]["digest"][:8]
    if plan["verdict"] == "require":
        assert story.approve(digest).code == 0
    story.health.well = 1
    run = story.call("run", digest, "--because", "it drops packets")
    assert run.code == 1, run
    assert "service/router-api" in run.out + run.err
    assert "put back" in run.out + run.err
    assert story.health.asked >= 3
    assert story.cloud.states() == dict.fromkeys(story.cloud.members(), "InService")
    assert len(story.cloud.members()) == SIZE


def test_behind_broken_glass(story: Story) -> None:
    """Drained without waiting for anybody, once; reviewed by ben; detached it still is not."""
    why = "nobody else is awake, and it drops everything"
    detached = story.call("detach", "node/router-3", "--break-glass", why)
    assert detached.code == 3, detached
    assert "does not pass contraindication" in detached.err
    run = story.call("drain", "node/router-3", "--break-glass", why)
    assert run.code == 0, run
    assert story.cloud.states()[story.machine] == "Standby"
    number = run.out.partition("run ")[2].partition(".")[0]
    undone = story.call("undo", number)
    assert undone.code == 0, undone
    assert story.cloud.states()[story.machine] == "InService"
    again = story.call("drain", "node/router-3", "--break-glass", why)
    assert again.code == 3, again
    assert "nobody has reviewed that" in again.err
    reviewed = story.call("review", number, "--because", "it was right to do", "--yes", person=BEN)
    assert reviewed.code == 0, reviewed
