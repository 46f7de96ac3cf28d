"""An operation of a kit, run as a lane of a walk: on fakes, with a simulated engine.

The kit here is a small one of its own: it sets the colour of a lamp, compare-and-set.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from handrail.core import acts, approving, deciding, fanning, kit_running, records, walks
from handrail.core.deciding import Decided
from handrail.core.kit_act import Job, Stage
from handrail.core.world import Declared, Kit
from handrail.errors import Place, PlatformError, RefusedError, UsageError
from handrail.estate.model import Resource
from handrail.operations.model import Operation, Parameter, Selector, Undo, Watch
from handrail.plans.drafted import Draft
from handrail.plans.effect import Effect
from handrail.plans.facts import Identity
from handrail.plans.fan_out import walk_of
from handrail.plans.model import Decision, Plan, Request, Section
from handrail.plans.walk import Mark
from support.simulated import Died, Simulated
from support.worlds import ANA, BEN, ILL, WELL, FakeWorld, commit, make_world

LAMP_HEALTH = {"http": "http://lamp.internal/health"}
ROOM_HEALTH = {"http": "http://room.internal/health"}
ESTATE = """\
environments:
  home: {production: true}
lamps:
  desk:
    environment: home
    checks: ["http://lamp.internal/health"]
  door: {environment: home}
services:
  room:
    needs: [lamp/desk]
    checks: ["http://room.internal/health"]
"""


@dataclass
class Lamps:
    """The world outside: each lamp's colour and a serial that grows with each change."""

    colours: dict[str, tuple[str, int]] = field(
        default_factory=lambda: {"desk": ("white", 1), "door": ("white", 1)}
    )
    looks: list[str] = field(default_factory=lambda: ["done"])
    applied: int = 0
    undone: int = 0
    away: int = 0
    blind: int = 0
    broken: str = ""

    def set(self, name: str, colour: str, serial: int) -> None:
        """Compare and set."""
        if self.colours[name][1] != serial:
            raise RefusedError("platform.moved", f"somebody else changed {name}")
        self.colours[name] = (colour, serial + 1)


class Light:
    """`KitAct`: sets a lamp's colour."""

    def __init__(self, lamps: Lamps) -> None:
        self.lamps = lamps
        self.refuses = False
        self.irreversible = ""
        self.risk = "high"

    def draft(self, resource: Resource, request: Request, declared: Declared) -> Draft:
        """Say what would change."""
        del declared
        colour, serial = self.lamps.colours[resource.name]
        wanted = request.parameters["colour"]
        if wanted == "nonsense":
            raise UsageError("usage", "there is no such colour")
        effect = Effect(resource.ref, "update", "colour", wanted, detail=f"was {colour}")
        return Draft(
            summary=f"light {resource.name} {wanted}",
            body={"colour": wanted, "was": colour, "serial": serial},
            effects=() if wanted == colour else (effect,),
            risk="none" if wanted == colour else self.risk,
            risk_because="people see it",
            undo="" if self.irreversible else f"puts back {colour}",
            irreversible=self.irreversible,
            sections=(Section("colours", (f"{colour} -> {wanted}",)),),
            platform="lamp/desk",
            identity=Identity("lamps:1", "home"),
            declared_identity="lamps:1@home",
            said=(Decision("lamps", "refuse", "the fuse is out"),) if self.refuses else (),
        )

    def apply(self, job: Job) -> Stage:
        """Set it."""
        if self.lamps.broken == "apply":
            raise ZeroDivisionError("a defect")
        if self.lamps.broken == "die":
            self.lamps.broken = ""
            raise KeyboardInterrupt
        serial = job.body["serial"]
        assert isinstance(serial, int)
        self.lamps.set(job.resource.name, str(job.body["colour"]), serial)
        self.lamps.applied += 1
        return Stage("going", "warming up", {"serial": serial + 1}, again_s=2.0)

    def follow(self, job: Job) -> Stage:
        """Look once."""
        if self.lamps.broken == "follow":
            raise PlatformError("platform.denied", "the key is another now")
        if self.lamps.away:
            self.lamps.away -= 1
            error = PlatformError("platform.unreachable", "no leader")
            error.is_passing = True
            raise error
        looks = self.lamps.looks
        state = looks.pop(0) if len(looks) > 1 else looks[0]
        return Stage(state, f"it is {state}", job.before)  # type: ignore[arg-type]  # a test's word

    def found(self, job: Job) -> Stage:
        """Tell by the serial."""
        if self.lamps.blind:
            self.lamps.blind -= 1
            raise PlatformError("platform.unreachable", "no leader")
        serial = job.body["serial"]
        assert isinstance(serial, int)
        now = self.lamps.colours[job.resource.name]
        if now == (job.body["colour"], serial + 1):
            return Stage("going", "", {"serial": serial + 1})
        return Stage("never") if now[1] == serial else Stage("unknown", "another colour")

    def undo(self, job: Job) -> Stage:
        """Put back what was there."""
        if self.lamps.broken == "undo":
            raise PlatformError("platform.denied", "the key is another now")
        serial, was = job.body["serial"], str(job.body["was"])
        assert isinstance(serial, int)
        colour, now = self.lamps.colours[job.resource.name]
        if now == serial or (colour, now) == (was, serial + 2):
            return Stage("done", f"it is {was} again")
        self.lamps.set(job.resource.name, was, serial + 1)
        self.lamps.undone += 1
        return Stage("done", f"it is {was} again")


OPERATION = Operation(
    name="light",
    argv=("light",),
    on=Selector("lamp"),
    undo=Undo("act"),
    watch=Watch(soak_s=60, every_s=20),
    place=Place("kit lamps"),
    parameters=(Parameter("colour", "text", "red"),),
    timeout_s=30,
    kit="lamps",
    act="lamps.light",
)


@dataclass
class House:
    """A team with two lamps."""

    fake: FakeWorld
    lamps: Lamps
    light: Light

    def decide(self, on: str = "desk", person: str = ANA, **parameters: str) -> Decided:
        """Plan as a person."""
        world = self.fake.world(person)
        return deciding.decide(
            world, self.fake.declared, "light", on=on, parameters=dict(parameters)
        )

    def approve(self, plan: Plan, person: str = BEN) -> None:
        """Approve it."""
        typed = plan.target.resource if plan.target.kind == "lamp" else ""
        world = self.fake.world(person)
        approving.approve(
            world, self.fake.declared, plan, Path(person), typed=typed or plan.target.resource
        )

    def ready(self, **parameters: str) -> Decided:
        """Plan, approve, and plan again."""
        self.approve(self.decide(**parameters).plan)
        return self.decide(**parameters)

    def walk(self, decided: Decided | None = None) -> Simulated:
        """Submit what was planned."""
        plan = (decided or self.ready()).plan
        return self.submit(kit_running.walk_of(plan, ANA))

    def submit(self, walk: object) -> Simulated:
        """Submit a walk."""
        made = acts.acts(self.fake.world(), self.fake.declared, lambda _: self.fake.talk)
        return Simulated(self.fake.journal, self.fake.clock, made, walk)  # type: ignore[arg-type]

    def ends(self, lamp: str = "desk") -> list[str]:
        """Return how the runs on a lamp ended."""
        found = self.fake.journal.records(f"resource-lamp/{lamp}")
        return [records.body(one)["outcome"] for one in found if one.kind == "run-ended"]


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A team whose lamps are well."""
    fake = make_world(tmp_path / "team")
    lamps = Lamps()
    light = Light(lamps)
    kit = Kit("lamps", (OPERATION,), {"lamp": {}}, acts=lambda _: {"lamps.light": light})
    fake.kits = (kit,)
    fake.write("estate/lamps.yaml", ESTATE)
    commit(fake, 7)
    fake.checks.set(LAMP_HEALTH, WELL)
    fake.checks.set(ROOM_HEALTH, WELL)
    return House(fake, lamps, light)


def test_plan_says_what_the_kit_drafted(house: House) -> None:
    """A kit's plan has its effects, sections and undo; what needs the target is a consequence."""
    plan = house.decide().plan
    assert (plan.verdict, plan.risk, plan.undo_said) == ("require", "high", "puts back white")
    assert [effect.verb for effect in plan.effects or ()] == ["update"]
    assert [(one.resource, one.outcome) for one in plan.consequences] == [
        ("service/room", "affected")
    ]
    assert plan.watched == (
        "lamp/desk: http http://lamp.internal/health",
        "service/room: http http://room.internal/health",
    )
    guards = {decision.guard for decision in plan.decisions}
    assert not guards & {"rehearsed", "backup-proven", "production-data", "review"}
    assert house.lamps == Lamps(), "planning changed something"


def test_same_world_same_digest(house: House) -> None:
    """Planned twice, it is one plan; what the digest covers makes another."""
    digest = house.decide().plan.digest
    assert house.decide().plan.digest == digest
    assert house.decide(colour="blue").plan.digest != digest
    house.lamps.colours["desk"] = ("white", 2)
    assert house.decide().plan.digest != digest


def test_kit_refuses_by_itself(house: House) -> None:
    """What the kit itself refuses stops the plan, and no approval can be given."""
    house.light.refuses = True
    plan = house.decide().plan
    assert plan.verdict == "refuse"
    assert any(d.because == "the fuse is out" for d in plan.decisions)


def test_irreversible_is_worse(house: House) -> None:
    """What a kit cannot undo is one level worse, and says why."""
    house.light.irreversible = "a bulb is not unburnt"
    plan = house.decide().plan
    assert plan.risk == "critical"
    assert plan.undo_said == "it cannot be undone: a bulb is not unburnt"
    assert any(d.guard == "irreversible" and d.verdict == "refuse" for d in plan.decisions)


def test_confirmed_after_its_watch(house: House) -> None:
    """It is applied once, followed, watched for the soak, and confirmed."""
    began = house.fake.clock.now()
    walk = house.walk()
    stands = walk.go()
    assert (stands.state, stands.outcome) == ("ended", "done")
    assert house.lamps.colours["desk"] == ("red", 2)
    assert (house.lamps.applied, house.ends()) == (1, ["confirmed"])
    assert (house.fake.clock.now() - began).total_seconds() >= 60
    assert ROOM_HEALTH in house.fake.checks.asked


def test_not_approved_is_not_done(house: House) -> None:
    """A walk of a plan that nobody approved does nothing."""
    stands = house.walk(house.decide()).go()
    assert stands.outcome == "failed"
    assert (house.lamps.applied, house.lamps.colours["desk"]) == (0, ("white", 1))


def test_an_approval_counts_for_one_walk(house: House) -> None:
    """What one walk has used, another cannot use again."""
    decided = house.ready()
    first, second = house.walk(decided), house.walk(decided)
    assert first.go().outcome == "done"
    house.lamps.colours["desk"] = ("white", 1)  # as if it had never been
    assert second.go().outcome == "failed"
    assert house.lamps.applied == 1


def test_moved_world_is_refused(house: House) -> None:
    """Where the world moved since the approval, nothing is done."""
    decided = house.ready()
    house.lamps.colours["desk"] = ("green", 5)
    stands = house.walk(decided).go()
    assert stands.outcome == "failed"
    assert house.lamps.colours["desk"] == ("green", 5)


def test_ill_is_put_back(house: House) -> None:
    """What is ill in its watch is put back at once."""
    house.fake.checks.set(ROOM_HEALTH, WELL, ILL)
    stands = house.walk().go()
    assert (stands.outcome, walks.outcome(stands)) == ("failed", "undone")
    assert walks.next_commands(1, stands) == ()
    assert house.lamps.colours["desk"][0] == "white"
    assert house.ends() == ["undone"]


def test_failed_rollout_is_put_back(house: House) -> None:
    """What the platform calls failed is put back."""
    house.lamps.looks = ["going", "failed"]
    house.walk().go()
    assert (house.lamps.colours["desk"][0], house.ends()) == ("white", ["undone"])


def test_stuck_is_put_back(house: House) -> None:
    """What never gets healthy is put back when its time is over."""
    house.lamps.looks = ["going"]
    began = house.fake.clock.now()
    house.walk().go()
    assert (house.lamps.colours["desk"][0], house.ends()) == ("white", ["undone"])
    assert 30 <= (house.fake.clock.now() - began).total_seconds() <= 40


def test_lost_leader_is_waited_for(house: House) -> None:
    """A platform that is away for a while is looked at again."""
    house.lamps.away = 3
    assert house.walk().go().outcome == "done"


def test_nothing_to_do_needs_nobody(house: House) -> None:
    """A plan that would change nothing waits for nobody."""
    plan = house.decide(colour="white").plan
    assert (plan.risk, plan.verdict, plan.consequences) == ("none", "allow", ())


def test_undone_by_a_word(house: House) -> None:
    """A confirmed run is undone by the same act; twice equals once."""
    walk = house.walk()
    walk.go()
    walk.say("undo")
    assert walk.go().outcome == "undone"
    assert (house.lamps.colours["desk"], house.lamps.undone) == (("white", 3), 1)


def _marks(house: House) -> int:
    walk = house.walk()
    walk.go()
    return len(walk.marks)


@pytest.mark.parametrize("ill", [False, True])
@pytest.mark.parametrize("at", range(1, 16))
def test_killed_at_each_mark(house: House, at: int, ill: bool) -> None:
    """Whichever mark the engine dies before, the next one ends it truthfully, applied once."""
    if ill:
        house.fake.checks.set(ROOM_HEALTH, WELL, ILL)
    walk = house.walk()
    count = 0

    def dies(mark: Mark) -> bool:
        nonlocal count
        count += 1
        return count == at

    walk.dies = dies
    try:
        stands = walk.go()
    except Died:
        walk.dies = lambda _: False
        stands = walk.go()
    assert house.lamps.applied == 1
    if ill:
        assert (stands.outcome, house.lamps.colours["desk"][0]) == ("failed", "white")
        assert house.lamps.undone == 1
    else:
        assert (stands.outcome, house.lamps.colours["desk"]) == ("done", ("red", 2))


def test_one_run_at_a_time(house: House) -> None:
    """While a run is watched, a second plan on the same target is refused by the lock."""
    first = house.walk()
    first.dies = lambda mark: mark.kind == "later" and house.lamps.applied == 1
    with pytest.raises(Died):
        first.go()
    decided = house.decide(colour="blue")
    assert any(d.guard == "lock" and d.verdict == "refuse" for d in decided.plan.decisions)


def test_several_in_waves(house: House) -> None:
    """One approval over several targets; each is a lane of its own, and all are put back."""
    world = house.fake.world()
    fanned = fanning.plan(world, house.fake.declared, "light", parameters={"colour": "blue"})
    assert fanned.fan_out.title == "light on 2 lamps"
    assert fanned.fan_out.verdict == "require"
    approving.approve(
        house.fake.world(BEN),
        house.fake.declared,
        fanned.fan_out.plan,
        Path(BEN),
        typed=fanned.fan_out.title,
    )
    again = fanning.plan(world, house.fake.declared, "light", parameters={"colour": "blue"})
    assert again.fan_out.digest == fanned.fan_out.digest
    walk = house.submit(walk_of(again.fan_out, ANA))
    assert walk.go().outcome == "done"
    assert {colour for colour, _ in house.lamps.colours.values()} == {"blue"}
    walk.say("undo")
    assert walk.go().outcome == "undone"
    assert {colour for colour, _ in house.lamps.colours.values()} == {"white"}


def test_declaration_that_went(house: House) -> None:
    """What is not declared any more cannot be gone on with, and says so."""
    walk = house.walk()
    house.fake.kits = (replace(house.fake.kits[0], operations=()),)
    made = acts.acts(house.fake.world(), house.fake.declared, lambda _: house.fake.talk)
    walk._acts = made
    assert walk.go().outcome == "failed"
    assert house.lamps.applied == 0


def test_kit_that_cannot_say(house: House) -> None:
    """What a kit cannot plan is an error, and no plan."""
    with pytest.raises(UsageError, match="no such colour"):
        house.decide(colour="nonsense")


def test_act_that_nobody_has(house: House) -> None:
    """An operation whose kit is not installed says so."""
    house.fake.kits = (replace(house.fake.kits[0], acts=lambda _: {}),)
    with pytest.raises(UsageError, match="no kit"):
        house.decide()


def test_kit_says_the_order(house: House) -> None:
    """Several targets go in the order that their kit gives."""
    house.fake.kits = (replace(house.fake.kits[0], order=lambda _, refs: tuple(reversed(refs))),)
    fanned = fanning.plan(house.fake.world(), house.fake.declared, "light")
    assert [child.target for child in fanned.fan_out.children] == ["lamp/door", "lamp/desk"]


@pytest.mark.parametrize("looks", [1, 3])
def test_away_while_it_recovers(house: House, looks: int) -> None:
    """An engine that comes back while the platform is away asks it again, and nobody else."""
    walk = house.walk()
    walk.dies = lambda mark: mark.kind == "later"
    with pytest.raises(Died):
        walk.go()
    walk.dies = lambda _: False
    house.lamps.blind = looks
    assert walk.go().outcome == "done"
    assert house.lamps.applied == 1


def test_away_for_ever(house: House) -> None:
    """A platform that never tells what became of it ends the run as unknown, and lets go."""
    walk = house.walk()
    walk.dies = lambda mark: mark.kind == "later"
    with pytest.raises(Died):
        walk.go()
    walk.dies = lambda _: False
    house.lamps.blind = 1_000
    stands = walk.go()
    assert stands.outcome == "failed"
    assert "nobody knows" in next(iter(stands.steps.values())).why
    assert house.ends() == ["failed"]


def test_denied_while_followed(house: House) -> None:
    """A platform that lets nobody in any more is silence: it is put back."""
    house.lamps.broken = "follow"
    assert house.walk().go().outcome == "failed"
    assert (house.lamps.colours["desk"][0], house.ends()) == ("white", ["undone"])


def test_undo_that_fails(house: House) -> None:
    """What cannot be put back is said to be so, and the target is let go."""
    house.fake.checks.set(ROOM_HEALTH, WELL, ILL)
    house.lamps.broken = "undo"
    stands = house.walk().go()
    assert "NOT put back" in next(iter(stands.steps.values())).why
    assert house.ends() == ["undo-failed"]
    assert not records.unfinished(house.fake.journal, "lamp/desk")


def test_defect_lets_go(house: House) -> None:
    """A defect of a kit ends its run, and the target does not stay held by it."""
    house.lamps.broken = "apply"
    assert house.walk().go().outcome == "failed"
    assert house.ends() == ["failed"]
    house.lamps.broken = ""
    assert all(d.guard != "lock" or d.verdict == "allow" for d in house.decide().plan.decisions)


def test_another_plan_is_not_done(house: House) -> None:
    """Where nobody had to approve, what is done is still what was planned, and nothing else."""
    house.light.risk = "low"
    decided = house.decide()
    assert decided.plan.verdict == "allow"
    house.lamps.colours["desk"] = ("green", 1)  # what undo would put back is another now
    assert house.walk(decided).go().outcome == "failed"
    assert (house.lamps.applied, house.lamps.colours["desk"]) == (0, ("green", 1))


def test_killed_before_it_acts(house: House) -> None:
    """An engine that dies right before it acts has begun one run, and the next one does it."""
    walk = house.walk()
    house.lamps.broken = "die"
    with pytest.raises(KeyboardInterrupt):
        walk.go()
    assert walk.go().outcome == "done"
    told = [one.kind for one in house.fake.journal.records("resource-lamp/desk")]
    assert (told, house.lamps.applied) == (["run-begun", "run-ended"], 1)
