"""A team with machines, on fakes: a group of routers, a service that runs on it, and dependants.

Rules:
- Everything is well until a test says otherwise: each operation would be planned and confirmed.
- What runs walks is the simulated engine, in fake time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from handrail.core import acts, approving, deciding, kit_running, records
from handrail.core.deciding import Decided
from handrail.core.kit_act import Job, KitAct
from handrail.core.world import Kit
from handrail.estate.model import Resource
from handrail.kits.deploys import declared as kit
from handrail.kits.deploys.model import Machine
from handrail.kits.deploys.operations import acts as kit_acts
from handrail.kits.deploys.outside import Outside
from handrail.kits.deploys.ports import Platform, Registry, Reviews
from handrail.plans.model import Plan
from handrail.plans.standing import Standing
from handrail.testing.machines import FakeMachines
from handrail.testing.sources import FakeSources
from support.simulated import Simulated
from support.worlds import ANA, BEN, CHI, WELL, FakeWorld, commit, make_world

GROUP = "routers-asg"
SIZE, LEAST, MOST = 3, 1, 5
API_HEALTH = {"http": "http://router-api.internal/health"}
ROUTER_HEALTH = {"http": "http://router.internal/health"}
INCIDENT = "incident/2021-01-12-oops"
TAUGHT = """\
    contraindications:
      - operation: detach
        unless: {then: terminate}
        because: incident/2021-01-12-oops
        owner: ana
        expires: 2027-01-12
"""
ESTATE = """\
environments:
  live: {{production: true}}
platforms:
  aws: {{kind: autoscaling, region: eu-west-1, environment: live, soak: 6s,
        identity: "fake:fake@memory:fake"}}
groups:
  routers: {{platform: platform/aws, name: routers-asg}}
nodes:
  router-1: {{platform: platform/aws, machine: i-1}}
  router-2: {{platform: platform/aws}}
  router-3: {{platform: platform/aws, machine: i-3}}
  alone: {{}}
services:
  router:
    runs-on: [group/routers]
    quorum: {quorum}
    checks: ["http://router.internal/health"]
{taught}
  router-api:
    needs: [service/router]
    checks: ["http://router-api.internal/health"]
incidents:
  2021-01-12-oops:
    date: 2021-01-12
    actions:
      - {{do: let peers forget a detached machine, owner: ben, link: "https://issues.example/7"}}
      - {{do: write it down, owner: ben, open: false}}
"""


def machine(number: int, zone: str, state: str = "in-service", **apps: int) -> Machine:
    """Return one of the routers."""
    return Machine(f"i-{number}", f"router-{number}", GROUP, zone, state, apps)


@dataclass
class Routers:
    """The team, and what a test does with it."""

    fake: FakeWorld
    machines: FakeMachines
    walks: list[Simulated] = field(default_factory=list)

    def outside(self) -> Outside:
        """Return the kit's ports."""
        return Outside(
            self.fake.world(),
            _no_platform,
            lambda _: self.machines,
            FakeSources(),
            _no_registry,
            _no_reviews,
        )

    def act(self, operation: str) -> KitAct:
        """Return how an operation is done."""
        return kit_acts(self.outside())[f"deploys.{operation}"]

    def declare(self, estate: str) -> None:
        """Declare another estate."""
        self.fake.write("estate/routers.yaml", estate)
        commit(self.fake, 9)

    def decide(self, operation: str, on: str = "node/router-3", **parameters: str) -> Decided:
        """Plan as Ana."""
        return deciding.decide(
            self.fake.world(),
            self.fake.declared,
            operation,
            on=on,
            parameters=parameters,
            because="it misbehaves",
        )

    def ready(self, operation: str, on: str = "node/router-3", **parameters: str) -> Decided:
        """Plan, and approve where somebody must."""
        found = self.decide(operation, on, **parameters)
        if found.plan.verdict == "require":
            self.approve(found.plan)
        return self.decide(operation, on, **parameters)

    def approve(self, plan: Plan, person: str = BEN) -> None:
        """Approve a plan."""
        world = self.fake.world(person)
        approving.approve(world, self.fake.declared, plan, Path(person), typed=plan.target.resource)

    def walk(self, decided: Decided) -> Simulated:
        """Submit what was planned."""
        made = acts.acts(self.fake.world(), self.fake.declared, lambda _: self.fake.talk)
        walk = kit_running.walk_of(decided.plan, ANA)
        found = Simulated(self.fake.journal, self.fake.clock, made, walk)
        self.walks.append(found)
        return found

    def run(self, operation: str, on: str = "node/router-3", **parameters: str) -> Standing:
        """Plan, approve and run."""
        return self.walk(self.ready(operation, on, **parameters)).go()

    def ends(self, ref: str = "node/router-3") -> list[str]:
        """Return how the runs on a resource ended."""
        found = self.fake.journal.records(f"resource-{ref}")
        return [records.body(one)["outcome"] for one in found if one.kind == "run-ended"]

    def seen(self) -> object:
        """Return what the group wants, and where each machine is."""
        group = self.machines.group(GROUP)
        every = [(one.id, one.group, one.state) for one in self.machines.machines()]
        return group.desired, every

    def job(self, decided: Decided, before: dict[str, object] | None = None) -> Job:
        """Return the job of a plan, to be given to its act by hand."""
        estate = decided.declared.estate
        return Job(decided.resource, decided.plan.body, 7, ANA, before or {}, estate=estate)


def make_routers(root: Path, *, taught: str = "", quorum: int = 1) -> Routers:
    """Return a team whose three routers are well, over two zones."""
    fake = make_world(root)
    every = [machine(1, "a", shop=2), machine(2, "b"), machine(3, "b", shop=1)]
    made = Routers(fake, FakeMachines(every, {GROUP: (LEAST, MOST)}))
    fake.kits = (Kit(kit.KIT, kit.OPERATIONS, kit.KINDS, acts=lambda _: kit_acts(made.outside())),)
    for check in (API_HEALTH, ROUTER_HEALTH):
        fake.checks.set(check, WELL)
    made.declare(ESTATE.format(taught=taught, quorum=quorum))
    fake.write("policy.yaml", f"approval: {{max-age: 4h}}\ngroups: {{ops: [{BEN}, {CHI}]}}\n")
    commit(fake, 10)
    return made


def _no_platform(_: Resource) -> Platform:
    raise AssertionError("no apps are run here")


def _no_registry(_: Resource) -> Registry:
    raise AssertionError("there are no apps here")


def _no_reviews(_: Resource) -> Reviews | None:
    return None
