"""Pushes that web hooks told: deployed where nobody is asked for, else waiting; begun once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from handrail.core import acts, approving, noticing, records, walks
from handrail.core.kit_act import Job, Stage, State
from handrail.core.outcome import Outcome
from handrail.core.walk_journal import Recorded, record
from handrail.core.world import Declared, Kit, World
from handrail.errors import HandrailError, PlatformError, RefusedError, UsageError
from handrail.estate.model import Resource
from handrail.kits.deploys import declared, hook_records, hooking
from handrail.kits.deploys.hook_bodies import Push
from handrail.kits.deploys.hook_records import Delivery
from handrail.kits.deploys.hook_signing import Signed
from handrail.plans.canonical import plain, sha256
from handrail.plans.drafted import Draft
from handrail.plans.effect import Effect
from handrail.plans.facts import Identity
from handrail.plans.model import Request
from handrail.plans.standing import Standing
from handrail.plans.walk import Mark, Walk
from handrail.ports import Engine
from handrail.testing.sources import FakeSources
from support.simulated import Died, Simulated
from support.worlds import BEN, FakeWorld, commit, make_world

ESTATE = """\
environments:
  test: {}
  production: {production: true}
platforms:
  here: {kind: supervisor, url: "unix:///tmp/none"}
apps:
  shop:
    repository: shop.git
    spec: shop.ini
    platform: platform/here
    environment: ENVIRONMENT
    auto: {branches: [main], secret: {env: HOOK_SECRET}}
"""
NOTIFY = """\
to:
  team: {webhook: {url: "http://127.0.0.1:1/"}, for: [waiting, refused, confirmed, failed]}
"""
# As the fake calls the first three commits.
A, B, C = (sha256(f"shop.git {number} change")[:40] for number in range(3))


@dataclass
class Shop:
    """`KitAct`: what runs is a commit."""

    risk: str = "low"
    running: str = "0" * 40
    applied: list[str] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    state: State = "done"
    fails: HandrailError | None = None
    dies: Callable[[], None] = lambda: None

    def draft(self, resource: Resource, request: Request, declared: Declared) -> Draft:
        """Say what would change."""
        del declared
        self.asked.append(request)
        if self.fails is not None:
            raise self.fails
        wanted = request.parameters["ref"]
        effect = Effect(resource.ref, "update", "version", wanted)
        return Draft(
            summary=f"deploy {wanted[:7]}",
            body={"commit": wanted, "was": self.running},
            effects=(effect,),
            risk=self.risk,
            risk_because="people use it",
            undo=f"puts back {self.running[:7]}",
            platform="platform/here",
            identity=Identity("here:1", "unix:///tmp/none"),
            declared_identity="here:1@unix:///tmp/none",
            soak_s=0,
        )

    def apply(self, job: Job) -> Stage:
        """Run it."""
        self.dies()
        self.running = str(job.body["commit"])
        self.applied.append(self.running)
        return Stage(self.state, "it does not answer" if self.state == "failed" else "")

    def follow(self, job: Job) -> Stage:
        """Look once."""
        del job
        return Stage("done")

    def found(self, job: Job) -> Stage:
        """Tell by what runs."""
        return Stage("done" if self.running == job.body["commit"] else "never")

    def undo(self, job: Job) -> Stage:
        """Put back what ran."""
        self.running = str(job.body["was"])
        return Stage("done", "put back")


class Driven(Simulated):
    """A walk that was recorded with its request."""

    def __init__(self, world: World, made: Any, walk: Walk, number: int) -> None:
        self._journal, self._clock, self._acts, self._walk = (
            world.journal,
            world.clock,  # type: ignore[assignment]  # the fake one
            made,
            walk,
        )
        self.number = number
        self.dies = lambda _: False
        self.is_over = lambda: False


class AtOnce:
    """`ports.Engine` that does all of a walk where it is followed."""

    def __init__(self, house: House, world: World) -> None:
        self._house, self._world = house, world

    def submit(self, walk: Walk, request_id: str) -> int:
        """Record it."""
        found = record(self._world.journal, walk, request_id, Recorded)
        return found if isinstance(found, int) else found.run

    def follow(self, run: int, told: Callable[[Mark], None]) -> Standing:
        """Go all of it."""
        del told
        fake = self._house.fake
        made = acts.acts(fake.world(), fake.declared, lambda _: fake.talk)
        walk = walks.standing(self._world, run).walk
        stands = Driven(self._world, made, walk, run).go()
        self._world.journal.close(records.walk_chain(run))  # as every engine does at the end
        return stands

    def close(self) -> None:
        """Do nothing."""


@dataclass
class House:
    """A team with one app, and its platform."""

    fake: FakeWorld
    shop: Shop
    sources: FakeSources = field(default_factory=FakeSources)

    def take(self, commit: str = A, by: str = "own", name: str = "", **more: Any) -> str:
        """Take a push to main, which is at that commit from then on."""
        self.sources.move("shop.git", "main", commit)
        push = Push("main", commit, more.get("images", {}))
        content = more.get("content", f"{by} {commit}".encode())
        signed = Signed(by, name or f"id-{commit[:3]}")
        return hook_records.take(self.fake.world(), "shop", signed, push, content)[0]

    def carry(self, name: str) -> Outcome | None:
        """Carry out a push."""
        world = self.fake.world("")
        return hooking.carry_out(world, self.fake.declared, "shop", name, self.engine, self.sources)

    def engine(self, world: World) -> Engine:
        """Return what runs walks."""
        return AtOnce(self, world)  # type: ignore[return-value]  # what is asked of it

    def find(self, name: str) -> Delivery:
        """Return a push as it stands."""
        found = hook_records.find(self.fake.world(), "shop", name)
        assert found is not None
        return found

    def ready(self) -> list[str]:
        """Return what is to be carried out now."""
        return [one.id for one in hooking.ready(self.fake.world())]

    def notices(self) -> list[tuple[str, str, str]]:
        """Return what people outside are to be told."""
        bodies = [
            records.body(one)["notice"]
            for chain in self.fake.journal.chains("notice-")
            for one in self.fake.journal.records(chain)
            if one.kind == "queued"
        ]
        return [(one["kind"], one["title"], one["next"]) for one in bodies]

    def approve(self, digest: str, person: str = BEN) -> None:
        """Approve a plan."""
        plan = records.find_plan(self.fake.journal, digest)
        approving.approve(
            self.fake.world(person), self.fake.declared, plan, Path(person), typed="app/shop"
        )


def make_house(root: Path, environment: str, risk: str) -> House:
    fake, shop = make_world(root), Shop(risk)
    kit = Kit(declared.KIT, declared.OPERATIONS, declared.KINDS)
    fake.kits = (replace(kit, acts=lambda _: {"deploys.deploy": shop}),)
    fake.write("estate/shop.yaml", ESTATE.replace("ENVIRONMENT", environment))
    fake.write("notifications.yaml", NOTIFY)
    commit(fake, 7)
    house = House(fake, shop)
    assert [house.sources.commit("shop.git").id for _ in range(3)] == [A, B, C]
    return house


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A team whose app may be deployed by anybody."""
    return make_house(tmp_path / "team", "test", "low")


@pytest.fixture
def guarded(tmp_path: Path) -> House:
    """A team whose app is in production, where somebody else is asked for."""
    return make_house(tmp_path / "team", "production", "high")


def test_push_that_nobody_is_asked_for(house: House) -> None:
    """It is deployed at its commit, with the images that were built of it, by the hook's person."""
    name = house.take(images={"web": "shop:7", "job": "job:7"})
    outcome = house.carry(name)
    assert outcome is not None
    assert (outcome.outcome, house.shop.running) == ("confirmed", A)
    request = house.shop.asked[0]
    assert request.person == "ci@hooks/shop"
    assert dict(request.parameters) == {"ref": A, "images": "job=job:7,web=shop:7"}
    found = house.find(name)
    assert (found.state, found.run, found.first[0]) == ("ended", outcome.run, "begun")
    assert found.is_over


def test_push_that_somebody_is_asked_for(guarded: House) -> None:
    """It waits, people are told once, and nothing is changed."""
    name = guarded.take()
    assert guarded.carry(name) is None
    found = guarded.find(name)
    assert (found.state, found.first[0]) == ("waiting", "waiting")
    digest = found.body["plan"]
    short = records.short(digest)
    title = f"deploy of shop at {A[:10]} waits"
    assert guarded.notices() == [("waiting", title, f"handrail approve {short}")]
    told, _ = noticing.since(guarded.fake.world(), guarded.fake.declared, {})
    assert [one.kind for one in told] == []
    assert guarded.shop.applied == []
    assert guarded.ready() == []


def test_push_that_was_approved(guarded: House) -> None:
    """Once somebody approved its plan it is begun by itself, with that approval."""
    name = guarded.take()
    guarded.carry(name)
    guarded.approve(guarded.find(name).body["plan"])
    assert guarded.ready() == [name]
    outcome = guarded.carry(name)
    assert outcome is not None
    assert (outcome.outcome, guarded.shop.running) == ("confirmed", A)
    # What was answered first is answered still.
    assert guarded.find(name).first[0] == "waiting"


def test_the_hook_approves_nothing(guarded: House) -> None:
    """The hook's person cannot approve, not even with a key of its own: it is its own run."""
    name = guarded.take()
    guarded.carry(name)
    person = hooking.person_of("shop")
    guarded.fake.keys = type(guarded.fake.keys)({Path(person): (person,)})
    with pytest.raises(HandrailError) as caught:
        guarded.approve(guarded.find(name).body["plan"], person)
    assert caught.value.code == "keys.own-run"


def test_approved_plan_that_is_another_by_now(guarded: House) -> None:
    """An approval of what would not be done any more begins nothing: the new plan waits."""
    name = guarded.take()
    guarded.carry(name)
    first = guarded.find(name).body["plan"]
    guarded.approve(first)
    guarded.shop.running = C
    assert guarded.carry(name) is None
    assert guarded.find(name).state == "waiting"
    assert guarded.find(name).body["plan"] != first
    assert guarded.shop.applied == []


@pytest.mark.parametrize("by", ["own", "github", "gitlab"])
def test_copy_of_a_push(house: House, by: str) -> None:
    """The same delivery again is the one that was taken, for ever."""
    name = house.take(by=by)
    house.carry(name)
    house.fake.clock.jump(400 * 86400)
    assert house.take(by=by) == name
    assert house.carry(name) is None
    assert house.shop.applied == [A]


@pytest.mark.parametrize("by", ["own", "github"])
def test_id_with_another_body(house: House, by: str) -> None:
    """An id that came with another body is refused: one of the two is not what it says."""
    house.take(by=by, name="build-7")
    with pytest.raises(RefusedError) as caught:
        house.take(B, by, "build-7")
    assert caught.value.code == "api.repeated"


def test_copy_of_a_forges_push_under_another_id(house: House) -> None:
    """A forge signs neither id nor time: the same bytes, or the same commit, count once."""
    name = house.take(by="github", name="d-1")
    assert house.take(by="github", name="d-2") == name
    assert house.take(by="github", name="d-3", content=b"other bytes") == name
    # Who signs a time may deploy a commit again: after a rollback, with another image.
    assert house.take(by="own", name="d-4") != name


def test_newer_push_while_one_waits(guarded: House) -> None:
    """What an earlier push waits for is of no use any more; approving it begins nothing."""
    first = guarded.take(A)
    guarded.carry(first)
    digest = guarded.find(first).body["plan"]
    second = guarded.take(B)
    guarded.carry(second)
    assert (guarded.find(first).state, guarded.find(second).state) == ("superseded", "waiting")
    guarded.approve(digest)
    assert guarded.ready() == []
    assert guarded.carry(first) is None
    assert guarded.shop.applied == []


def test_pushes_that_came_together(house: House) -> None:
    """Of several that were taken, the newest is deployed, in whatever order they are looked at."""
    names = [house.take(commit) for commit in (A, B, C)]
    for name in names:
        house.carry(name)
    assert house.shop.applied == [C]
    assert [house.find(name).state for name in names] == ["superseded", "superseded", "ended"]


def test_app_that_is_busy(house: House) -> None:
    """A push waits for the run before it, without a process, and without a record each look."""
    house.fake.journal.append("resource-app/shop", "run-begun", {"run": 99})
    name = house.take()
    assert house.ready() == []
    assert house.carry(name) is None
    assert house.find(name).state == "postponed"
    for _ in range(50):
        house.fake.clock.jump(100)
        assert house.ready() == []
    house.fake.journal.append("resource-app/shop", "run-ended", {"run": 99})
    assert house.ready() == [name]
    assert house.carry(name) is not None


def test_only_one_process_carries_it_out(house: House) -> None:
    """While another process is at it, nothing is done, and nothing is recorded."""
    name = house.take()
    with house.fake.locks.hold(hooking.lock_of("shop"), "another"):
        assert house.ready() == []
        assert house.carry(name) is None
    assert house.find(name).attempts == 0


def test_what_cannot_be_planned(house: House) -> None:
    """It is refused once, with why, and people are told; a copy of it does nothing."""
    house.shop.fails = UsageError("source.no-ref", "no such commit", hint="git log")
    name = house.take()
    assert house.carry(name) is None
    found = house.find(name)
    assert (found.state, found.body["code"]) == ("refused", "source.no-ref")
    assert [kind for kind, _, _ in house.notices()] == ["refused"]
    house.shop.fails = None
    assert house.carry(house.take()) is None
    assert house.shop.applied == []


def test_registry_that_is_down(house: House) -> None:
    """What may pass is tried again after a while, three times; then it is refused."""
    error = PlatformError("image.unreachable", "the registry is down")
    error.is_passing = True
    house.shop.fails = error
    name = house.take()
    for attempt in (1, 2, 3):
        assert house.carry(name) is None
        assert (house.find(name).state, house.find(name).attempts) == ("postponed", attempt)
        assert house.ready() == []
        house.fake.clock.jump(61)
        assert house.ready() == [name]
    house.carry(name)
    assert house.find(name).state == "refused"
    assert "the registry is down" in house.find(name).body["why"]
    assert house.ready() == []


def test_registry_that_comes_back(house: House) -> None:
    """Where it is up again at the second try, the push is deployed."""
    error = PlatformError("image.unreachable", "the registry is down")
    error.is_passing = True
    house.shop.fails = error
    name = house.take()
    house.carry(name)
    house.shop.fails = None
    house.fake.clock.jump(61)
    assert house.carry(name) is not None


def test_died_before_it_was_planned(house: House) -> None:
    """What was taken when the process died is begun by the next look."""
    name = house.take()
    assert house.ready() == [name]
    assert house.carry(name) is not None
    assert house.shop.applied == [A]


def test_died_again_and_again(house: House) -> None:
    """A push that ends each process that begins it is refused after three of them."""

    def die() -> None:
        raise Died("planning")

    name = house.take()
    draft, house.shop.draft = house.shop.draft, lambda *_: die()  # type: ignore[method-assign,assignment]
    for _ in range(3):
        with pytest.raises(Died):
            house.carry(name)
        house.fake.clock.jump(61)
    assert house.carry(name) is None
    assert house.find(name).state == "refused"
    house.shop.draft = draft  # type: ignore[method-assign]


def test_died_between_begun_and_its_record(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was submitted is found again by its request: it is never begun twice."""
    name = house.take()

    def die(self: AtOnce, run: int, told: Callable[[Mark], None]) -> Standing:
        raise Died(str(run))

    append = house.fake.journal.append

    def lose(chain: str, kind: str, body: Any) -> Any:
        if kind == "begun":
            raise Died("begun")
        return append(chain, kind, body)

    monkeypatch.setattr(house.fake.journal, "append", lose)
    with pytest.raises(Died):
        house.carry(name)
    monkeypatch.setattr(house.fake.journal, "append", append)
    assert house.find(name).state == "tried"
    house.fake.clock.jump(61)
    assert house.carry(name) is None
    found = house.find(name)
    assert (found.state, len(house.fake.journal.chains("walk-"))) == ("begun", 1)
    # Its engine goes on with it; the look after that sees that it has ended.
    house.engine(house.fake.world()).follow(found.run, lambda _: None)
    assert house.ready() == []
    assert house.find(name).state == "ended"
    assert house.shop.applied == [A]


def test_ill_push_is_put_back(house: House) -> None:
    """How its run ended is noted; nothing tries it again."""

    ill = Shop(state="failed")
    kit = house.fake.kits[0]
    house.fake.kits = (replace(kit, acts=lambda _: {"deploys.deploy": ill}),)
    name = house.take()
    outcome = house.carry(name)
    assert outcome is not None
    assert (outcome.outcome, ill.running) == ("undone", "0" * 40)
    assert house.find(name).body["outcome"] == "undone"
    assert house.ready() == []


def test_app_that_declares_no_hook(house: House) -> None:
    """Only an app with `auto` has a web hook; its secret is declared by reference alone."""
    assert hooking.auto_of(None) is None
    resources = house.fake.declared.estate.resources
    assert hooking.auto_of(resources["platform/here"]) is None
    found = hooking.auto_of(resources["app/shop"])
    assert found is not None
    assert (found.branches, str(found.secret), found.tokens) == (("main",), "$HOOK_SECRET", False)
    text = ESTATE.replace("{env: HOOK_SECRET}", "a-secret-by-value-in-git")
    house.fake.write("estate/shop.yaml", text.replace("ENVIRONMENT", "test"))
    with pytest.raises(HandrailError, match="by reference"):
        _ = house.fake.declared


def _bodies(house: House) -> Iterator[object]:
    for chain in house.fake.journal.chains("hook"):
        for one in house.fake.journal.records(chain):
            yield plain(records.body(one))


def test_records_hold_no_body(house: House) -> None:
    """Of what was sent the journal has the commit, the branch and a digest, and nothing else."""
    house.take(content=b"the whole body, with mail addresses")
    assert "mail" not in str(list(_bodies(house)))


def told(house: House) -> list[tuple[str, str, str, int]]:
    """Return what the journal has to tell people outside, in order."""
    found, _ = noticing.since(house.fake.world(), house.fake.declared, {})
    return [(one.kind, one.title, one.resource, one.run) for one in found]


def test_a_deploy_is_told_when_it_begins_and_when_it_is_confirmed(house: House) -> None:
    """Each with its app, so that a destination may be for some apps alone."""
    house.carry(house.take())
    assert told(house) == [
        ("begun", "run 1 has begun: deploy on app/shop", "app/shop", 1),
        ("confirmed", "run 1 is confirmed: deploy on app/shop", "app/shop", 1),
    ]
    found, _ = noticing.since(house.fake.world(), house.fake.declared, {})
    assert (found[0].text, found[0].environment) == (f"deploy {A[:7]}", "test")
    assert found[0].person == found[1].person == "ci@hooks/shop"


def test_a_deploy_that_is_put_back_is_told_as_such(house: House) -> None:
    """Who is told of what failed is told of it, too; why is what the watch saw."""
    ill = Shop(state="failed")
    kit = house.fake.kits[0]
    house.fake.kits = (replace(kit, acts=lambda _: {"deploys.deploy": ill}),)
    house.carry(house.take())
    assert told(house)[-1] == ("undone", "run 1 was undone: deploy on app/shop", "app/shop", 1)
    found, _ = noticing.since(house.fake.world(), house.fake.declared, {})
    assert "put back" in found[-1].text
    (team,) = house.fake.declared.notifications.to.values()
    assert [team.wants(one) for one in found] == [False, True]


def test_who_wants_to_know_what_has_begun(house: House) -> None:
    """`begun` is told to those who name it, and by default to nobody."""
    text = NOTIFY.replace(", for: [waiting, refused, confirmed, failed]", "")
    house.fake.write(
        "notifications.yaml", f"{text}  all: {{slack: {{url: {{env: X}}}}, for: begun}}\n"
    )
    house.carry(house.take())
    found, _ = noticing.since(house.fake.world(), house.fake.declared, {})
    notifications = house.fake.declared.notifications
    assert [notifications.routed(one) for one in found] == [("all",), ()]


def test_pushes_of_a_forge_in_another_order(house: House) -> None:
    """A forge's push that came late is not deployed over what was pushed after it."""
    late = house.take(A, by="github")
    house.sources.move("shop.git", "main", C)
    assert house.carry(late) is None
    assert (house.find(late).state, house.find(late).body["by"]) == ("superseded", C)
    # Who signs a time may mean an older commit of the branch.
    meant = house.take(B)
    house.sources.move("shop.git", "main", C)
    assert house.carry(meant) is not None
    assert house.shop.applied == [B]


@pytest.mark.parametrize("by", ["own", "github"])
def test_commit_that_is_not_on_the_branch(house: House, by: str) -> None:
    """Whoever may deploy a branch may not deploy what is beside it, nor what is nowhere."""
    other = house.sources.commit("shop.git", branch="feature", after=B).id
    for told_of, code in ((other, "deploys.hook"), ("f" * 40, "source.no-ref")):
        name = house.take(told_of, by=by)
        house.sources.move("shop.git", "main", C)
        assert house.carry(name) is None
        assert (house.find(name).state, house.find(name).body["code"]) == ("refused", code)
    assert house.shop.applied == []


def test_tag_that_is_called_as_the_branch(house: House) -> None:
    """A tag of the branch's name is not the branch."""
    house.sources.tag("shop.git", "main", A)
    name = house.take(C, by="github")
    assert house.carry(name) is not None
    assert house.shop.applied == [C]


def test_operation_of_the_teams_own(house: House) -> None:
    """A script that a team calls `deploy` is begun by no web hook, whatever it is for."""
    text = "operation: deploy\nrun: ./scripts/trim.sh\non: store/pilot-db\nundo: restore\n"
    text += "parameters: {ref: {type: text}}\n"
    house.fake.write("operations/deploy.yaml", text)
    name = house.take()
    assert house.carry(name) is None
    found = house.find(name)
    assert (found.state, found.body["code"]) == ("refused", "operations.target")
    assert "the team's own" in found.body["why"]
