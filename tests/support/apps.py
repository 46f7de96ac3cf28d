"""A team with apps, on fakes: a platform, repositories, a registry and a forge, and their world.

Rules:
- Everything is well until a test says otherwise: `deploy` would be planned, approved and confirmed.
- What runs walks is the simulated engine, in fake time: it dies where a test says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from handrail.core import acts, approving, deciding, kit_running, records
from handrail.core.deciding import Decided
from handrail.core.kit_act import Job
from handrail.core.world import Kit
from handrail.errors import PlatformError
from handrail.estate.model import Resource
from handrail.kits.deploys import declared as kit
from handrail.kits.deploys.model import Commit
from handrail.kits.deploys.operations import acts as kit_acts
from handrail.kits.deploys.ordering import order
from handrail.kits.deploys.outside import Outside
from handrail.kits.deploys.ports import Machines, Platform
from handrail.plans.model import Plan, Section
from handrail.plans.standing import Standing
from handrail.plans.walk import Mark
from handrail.testing.platform import FakePlatform
from handrail.testing.registry import FakeRegistry
from handrail.testing.sources import FakeReviews, FakeSources
from support.simulated import Died, Simulated
from support.worlds import ANA, BEN, CHI, WELL, FakeWorld, commit, make_world

REPOSITORY = "git@git.example:team/shop.git"
SHOP_HEALTH = {"http": "http://shop.internal/health"}
SPEC = "deploy/shop.yaml"
ESTATE = """\
environments:
  production: {production: true}
platforms:
  prod: {kind: nomad, url: "http://127.0.0.1:1", environment: production,
         identity: "fake:fake@memory:fake"}
apps:
  shop:
    repository: git@git.example:team/shop.git
    spec: deploy/shop.yaml
    variables: deploy/{environment}.vars
    platform: platform/prod
    environment: production
    images: {web: "ghcr.io/team/shop:{commit}"}
    service: service/shop-web
    checks: ["http://shop.internal/health"]
    soak: 10s
services:
  shop-web: {}
  checkout: {needs: [service/shop-web]}
"""
TEXT = """\
job: shop
version: "{version}"
groups:
  web:
    count: {count}
    canaries: {canaries}
    tasks:
      web: {{image: "ghcr.io/team/shop:latest"}}
      sidecar: {{image: "ghcr.io/team/proxy:1", words: "${{greeting}}"}}
"""


def text(version: str, *, count: int = 3, canaries: int = 0) -> str:
    """Return a specification of the shop."""
    return TEXT.format(version=version, count=count, canaries=canaries)


@dataclass
class Apps:
    """The team, and what a test does with it."""

    fake: FakeWorld
    platform: Platform
    sources: FakeSources = field(default_factory=FakeSources)
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    reviews: FakeReviews = field(default_factory=FakeReviews)
    forge: bool = True
    walks: list[Simulated] = field(default_factory=list)

    @property
    def known(self) -> FakePlatform:
        """The platform, where it is the one in memory."""
        assert isinstance(self.platform, FakePlatform)
        return self.platform

    def outside(self) -> Outside:
        """Return the kit's ports."""
        return Outside(
            self.fake.world(),
            lambda _: self.platform,
            _no_machines,
            self.sources,
            lambda _: self.registry,
            lambda _: self.reviews if self.forge else None,
        )

    def resource(self, name: str = "shop") -> Resource:
        """Return an app as it is declared."""
        return self.fake.declared.estate.resources[f"app/{name}"]

    def declare(self, estate: str) -> None:
        """Declare another estate."""
        self.fake.write("estate/apps.yaml", estate)
        commit(self.fake, 9)

    def commit(self, version: str, *, count: int = 3, canaries: int = 0, **more: object) -> Commit:
        """Commit a version of the shop, push its image, and let ben review it."""
        files = {SPEC: text(version, count=count, canaries=canaries)}
        files["deploy/production.vars"] = 'greeting = "hello"  # to everybody\n'
        made = self.sources.commit(
            REPOSITORY,
            files,
            author=CHI,
            subject=f"version {version}",
            **more,  # type: ignore[arg-type]  # as the test says
        )
        self.registry.push(f"ghcr.io/team/shop:{made.id}")
        self.reviews.put(made.id, BEN)
        return made

    def decide(self, operation: str = "deploy", on: str = "app/shop", **parameters: str) -> Decided:
        """Plan as Ana."""
        return deciding.decide(
            self.fake.world(), self.fake.declared, operation, on=on, parameters=parameters
        )

    def ready(self, operation: str = "deploy", **parameters: str) -> Decided:
        """Plan, and approve where somebody must."""
        found = self.decide(operation, **parameters)
        if found.plan.verdict == "require":
            self.approve(found.plan)
        return self.decide(operation, **parameters)

    def approve(self, plan: Plan, person: str = BEN) -> None:
        """Approve a plan."""
        world = self.fake.world(person)
        approving.approve(world, self.fake.declared, plan, Path(person), typed=plan.target.resource)

    def walk(self, decided: Decided | None = None) -> Simulated:
        """Submit what was planned; a deploy made ready now where none is given."""
        plan = (decided or self.ready()).plan
        made = acts.acts(self.fake.world(), self.fake.declared, lambda _: self.fake.talk)
        walk = Simulated(self.fake.journal, self.fake.clock, made, kit_running.walk_of(plan, ANA))
        self.walks.append(walk)
        return walk

    def run(self, operation: str = "deploy", **parameters: str) -> Standing:
        """Plan, approve and run."""
        return self.walk(self.ready(operation, **parameters)).go()

    def deployed(self, version: str, **more: object) -> Commit:
        """Commit a version, deploy it, and see it confirmed."""
        made = self.commit(version, **more)  # type: ignore[arg-type]  # as the test says
        stands = self.run()
        assert stands.outcome == "done", stands
        return made

    def runs(self) -> str:
        """Return which version of the shop runs; empty for none."""
        found = self.platform.current("shop")
        return str(found.spec.body["version"]) if found else ""

    def note(self) -> Mapping[str, str]:
        """Return what is written down beside what runs."""
        found = self.platform.current("shop")
        return found.note if found else {}

    def ends(self, ref: str = "app/shop") -> list[str]:
        """Return how the runs on an app ended."""
        found = self.fake.journal.records(f"resource-{ref}")
        return [records.body(one)["outcome"] for one in found if one.kind == "run-ended"]

    def whys(self) -> list[str]:
        """Return what was said of each end."""
        found = self.fake.journal.records("resource-app/shop")
        return [records.body(one)["why"] for one in found if one.kind == "run-ended"]

    def job(
        self, decided: Decided, before: Mapping[str, object] | None = None, run: int = 7
    ) -> Job:
        """Return the job of a plan, to be given to its act by hand."""
        return Job(
            decided.resource,
            decided.plan.body,
            run,
            ANA,
            before or {},
            estate=decided.declared.estate,
        )


def _no_machines(_: Resource) -> Machines:
    raise PlatformError("platform.unsupported", "it has no machines")


def make_apps(root: Path, platform: Platform | None = None, estate: str = ESTATE) -> Apps:
    """Return a team whose shop was never deployed."""
    fake = make_world(root)
    made = Apps(fake, platform or FakePlatform())
    fake.kits = (
        Kit(
            kit.KIT, kit.OPERATIONS, kit.KINDS, acts=lambda _: kit_acts(made.outside()), order=order
        ),
    )
    fake.checks.set(SHOP_HEALTH, WELL)
    made.registry.push("ghcr.io/team/proxy:1")
    made.declare(estate)
    return made


def section(plan: Plan, title: str) -> tuple[str, ...]:
    """Return the lines of a section; none where it is not there."""
    found: tuple[Section, ...] = tuple(one for one in plan.sections if one.title == title)
    return found[0].lines if found else ()


def killed(walk: Simulated, at: int, where: Callable[[Mark], bool] = lambda _: True) -> Standing:
    """Let the engine die before its so many-th mark (of those `where`), and another go on."""
    count = 0

    def dies(mark: Mark) -> bool:
        nonlocal count
        count += where(mark)
        return where(mark) and count == at

    walk.dies = dies
    try:
        return walk.go()
    except Died:
        walk.dies = lambda _: False
        return walk.go()
