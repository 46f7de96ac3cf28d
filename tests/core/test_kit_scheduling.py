"""An operation of a kit that begins by the clock: once, found again, and waiting like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from handrail.core import acts, records, scheduling, taking, walks
from handrail.core.kit_act import Job, Stage
from handrail.core.schedule_records import chain_of
from handrail.core.walk_journal import Recorded, record
from handrail.core.world import Declared, Kit, World
from handrail.errors import Place
from handrail.estate.model import Resource
from handrail.operations.model import Operation, Schedule, Selector, Undo, Watch
from handrail.plans.drafted import Draft
from handrail.plans.effect import Effect
from handrail.plans.facts import Identity
from handrail.plans.model import Request
from handrail.plans.schedule import Due
from handrail.plans.standing import Standing
from handrail.plans.walk import Mark, Walk
from handrail.ports import Engine
from support.simulated import Died, Simulated
from support.worlds import FakeWorld, commit, make_world

NIGHT = datetime(2026, 1, 6, 3, 0, tzinfo=UTC)
ESTATE = "lamps:\n  desk: {}\n"
OPERATION = Operation(
    name="dim",
    argv=("dim",),
    on=Selector("lamp", "desk"),
    undo=Undo("act"),
    watch=Watch(soak_s=0, every_s=1),
    place=Place("kit lamps"),
    kit="lamps",
    act="lamps.dim",
    schedules=(Schedule(cron="0 3 * * *", place=Place("kit lamps")),),
)


@dataclass
class Dim:
    """`KitAct`: dims a lamp."""

    risk: str = "low"
    dimmed: int = 0
    asked: list[str] = field(default_factory=list)

    def draft(self, resource: Resource, request: Request, declared: Declared) -> Draft:
        """Say what would change."""
        del declared
        self.asked.append(request.person)
        return Draft(
            summary="dim the lamp",
            body={},
            effects=(Effect(resource.ref, "update", "light", ""),),
            risk=self.risk,
            risk_because="it gets dark",
            undo="lights it",
            platform=resource.ref,
            identity=Identity("lamps:1", "home"),
            declared_identity="lamps:1@home",
        )

    def apply(self, job: Job) -> Stage:
        """Dim it."""
        del job
        self.dimmed += 1
        return Stage("done")

    def follow(self, job: Job) -> Stage:
        """Look once."""
        del job
        return Stage("done")

    def found(self, job: Job) -> Stage:
        """Tell by the lamp."""
        del job
        return Stage("done" if self.dimmed else "never")

    def undo(self, job: Job) -> Stage:
        """Light it."""
        del job
        return Stage("done")


class Driven(Simulated):
    """A walk that was recorded with its request."""

    def __init__(self, world: World, made: Any, walk: Walk, number: int) -> None:
        self._journal, self._acts, self._walk = world.journal, made, walk
        self._clock = world.clock  # type: ignore[assignment]  # the fake one
        self.number = number
        self.dies = lambda _: False
        self.is_over = lambda: False


@dataclass
class AtOnce:
    """`ports.Engine` that does all of a walk where it is followed."""

    fake: FakeWorld
    dies: bool = False

    def submit(self, walk: Walk, request_id: str) -> int:
        """Record it."""
        found = record(self.fake.journal, walk, request_id, Recorded)
        return found if isinstance(found, int) else found.run

    def follow(self, run: int, told: Callable[[Mark], None]) -> Standing:
        """Go all of it."""
        del told
        if self.dies:
            raise Died("following")
        made = acts.acts(self.fake.world(), self.fake.declared, lambda _: self.fake.talk)
        world = self.fake.world()
        return Driven(world, made, walks.standing(world, run).walk, run).go()

    def close(self) -> None:
        """Do nothing."""


@dataclass
class House:
    """A team whose lamp is dimmed each night."""

    fake: FakeWorld
    act: Dim
    engine: AtOnce

    def tick(self) -> None:
        """Begin what is due."""
        scheduling.tick(self.fake.world(), self.fake.declared, self._begin)

    def _begin(self, due: Due) -> None:
        def engines(world: World) -> Engine:
            del world
            return self.engine  # type: ignore[return-value]  # what is asked of it

        taking.carry_out(self.fake.world(), self.fake.declared, due, self.fake.talk, engines)

    def kinds(self) -> list[str]:
        """Return what the schedule's chain has."""
        return self.fake.kinds(chain_of("dim"))

    def to_night(self) -> None:
        """Let it be three."""
        self.fake.clock.jump((NIGHT - self.fake.clock.now()).total_seconds())


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A team with a lamp."""
    fake, act = make_world(tmp_path / "team"), Dim()
    kit = Kit("lamps", (OPERATION,), {"lamp": {}})
    fake.kits = (replace(kit, acts=lambda _: {"lamps.dim": act}),)
    fake.write("estate/lamps.yaml", ESTATE)
    commit(fake, 7)
    found = House(fake, act, AtOnce(fake))
    found.tick()
    return found


def test_due_operation_of_a_kit_is_run(house: House) -> None:
    """At its time it is planned, judged and run by an engine, and its end is noted."""
    house.to_night()
    house.tick()
    assert house.kinds() == ["declared", "due", "begun", "ended"]
    assert (house.act.dimmed, set(house.act.asked)) == (1, {"schedule"})
    last = house.fake.journal.last(chain_of("dim"))
    assert last is not None
    assert records.body(last)["outcome"] == "confirmed"
    house.tick()
    assert house.act.dimmed == 1


def test_due_operation_of_a_kit_that_waits(house: House) -> None:
    """Where somebody has to approve it, it waits, and nothing is done."""
    house.act.risk = "high"
    house.to_night()
    house.tick()
    assert house.kinds() == ["declared", "due", "waiting"]
    assert house.act.dimmed == 0


def test_due_operation_of_a_kit_whose_process_died(house: House) -> None:
    """Its run is found by what it was asked for as, never begun twice, and its end noted later."""
    house.engine.dies = True
    house.to_night()
    with pytest.raises(Died):
        house.tick()
    assert house.kinds() == ["declared", "due", "begun"]
    house.engine.dies = False
    house.tick()
    assert len(house.fake.journal.chains("walk-")) == 1
    # Another engine goes on with it.
    house.engine.follow(
        int(house.fake.journal.chains("walk-")[0].partition("-")[2]), lambda _: None
    )
    house.tick()
    assert (house.kinds()[-1], house.act.dimmed) == ("ended", 1)
