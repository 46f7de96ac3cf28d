"""What every operation on an app keeps: planning changes nothing, failing restores, twice equals
once, undone twice equals once, and killed at each mark it ends truthfully."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from handrail.core.deciding import Decided
from handrail.kits.deploys import declared
from support.apps import ESTATE, SHOP_HEALTH, Apps, killed, make_apps
from support.worlds import ILL, WELL

MARKS = range(1, 11)
SHORT = ESTATE.replace("soak: 10s", "soak: 4s")  # of few marks, each of which is tried


@dataclass(frozen=True)
class Case:
    """One operation, what makes the world ready for it, and what it asks for."""

    prepare: Callable[[Apps], object]
    operation: str
    parameters: dict[str, str]
    changes: bool = True
    is_told: bool = True


def _two(apps: Apps) -> None:
    apps.deployed("1")
    apps.deployed("2")


def _next(apps: Apps, **more: int) -> None:
    apps.deployed("1")
    apps.commit("2", **more)


CASES = {
    "first deploy": Case(lambda apps: apps.commit("1"), "deploy", {}),
    "deploy": Case(_next, "deploy", {}),
    "deploy with canaries": Case(lambda apps: _next(apps, canaries=1), "deploy", {}),
    "deploy of nothing new": Case(lambda apps: apps.deployed("1"), "deploy", {}, changes=False),
    "rollback": Case(_two, "rollback", {}),
    "scale up": Case(lambda apps: apps.deployed("1"), "scale", {"count": "5"}),
    "scale down": Case(lambda apps: apps.deployed("1"), "scale", {"count": "web=1"}),
    "restart": Case(lambda apps: apps.deployed("1"), "restart", {}, changes=False, is_told=False),
}


class House:
    """A team on which one case is tried."""

    def __init__(self, apps: Apps, case: Case) -> None:
        self.apps, self.case = apps, case
        case.prepare(apps)
        self.before = self.seen()

    def seen(self) -> object:
        """Return what runs."""
        found = self.apps.platform.current("shop")
        return found.spec if found else None

    def ready(self) -> Decided:
        """Plan and approve."""
        return self.apps.ready(self.case.operation, **self.case.parameters)


@pytest.fixture(params=CASES)
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    return House(make_apps(tmp_path / "team", estate=SHORT), CASES[request.param])


def test_every_operation_on_apps_is_here() -> None:
    """No operation of the kit that fits an app is left out of the contract."""
    fitting = {one.name for one in declared.OPERATIONS if "app" in one.on.kinds}
    assert fitting == {case.operation for case in CASES.values()}


def test_planning_changes_nothing(house: House) -> None:
    """Planned twice it is one plan; what runs, and what was called, is as before."""
    calls = list(house.apps.known.calls)
    digests = {house.ready().plan.digest for _ in range(2)}
    assert len(digests) == 1
    assert (house.seen(), house.apps.known.calls) == (house.before, calls)


def test_confirmed_and_undone(house: House) -> None:
    """It is confirmed, undone by a word, and undone once more without doing anything."""
    decided = house.ready()
    walk = house.apps.walk(decided)
    assert walk.go().outcome == "done"
    assert (house.seen() != house.before) == house.case.changes
    walk.say("undo")
    assert walk.go().outcome == "undone"
    assert house.seen() == house.before
    calls = list(house.apps.known.calls)
    act = house.apps.fake.kits[0].acts(house.apps.fake.world())[f"deploys.{house.case.operation}"]
    assert act.undo(house.apps.job(decided, run=walk.number)).state == "done"
    assert house.apps.known.calls == calls


def test_never_applied_is_undone_by_nothing(house: House) -> None:
    """Undone though it never began: done, and the platform was not told anything."""
    decided = house.ready()
    calls = list(house.apps.known.calls)
    act = house.apps.fake.kits[0].acts(house.apps.fake.world())[f"deploys.{house.case.operation}"]
    assert act.undo(house.apps.job(decided)).state == "done"
    assert (house.seen(), house.apps.known.calls) == (house.before, calls)


def test_ill_in_its_watch_restores(house: House) -> None:
    """What is ill in the soak is put back."""
    decided = house.ready()
    house.apps.fake.checks.set(SHOP_HEALTH, WELL, ILL)
    assert house.apps.walk(decided).go().outcome == "failed"
    assert (house.seen(), house.apps.ends()[-1]) == (house.before, "undone")


def test_failed_rollout_restores(house: House) -> None:
    """What the platform calls failed is put back."""
    decided = house.ready()
    house.apps.known.fates["shop"] = ["failed"]
    stands = house.apps.walk(decided).go()
    begins = bool(house.case.changes or not house.case.is_told)
    assert stands.outcome == ("failed" if begins else "done")
    assert house.seen() == house.before


@pytest.mark.parametrize("ill", [False, True], ids=["well", "ill"])
@pytest.mark.parametrize("at", MARKS)
def test_killed_at_each_mark(house: House, at: int, ill: bool) -> None:
    """Whichever mark the engine dies before, the next one ends it: done once, or put back once."""
    decided = house.ready()
    if ill:
        house.apps.fake.checks.set(SHOP_HEALTH, WELL, ILL)
    calls = list(house.apps.known.calls)
    walk = house.apps.walk(decided)
    stands = killed(walk, at)
    begun = [call for call in house.apps.known.calls[len(calls) :] if call != "halt"]
    if stands.state == "held":
        # Nothing on a platform tells whether a restart was begun: a human is asked.
        assert not house.case.is_told
        walk.say("accept", {"step": "app/shop/run"})
        assert walk.go().outcome == "done"
        return
    assert stands.outcome == ("failed" if ill else "done"), stands
    if ill:
        assert house.seen() == house.before
        assert house.apps.ends()[-1] == "undone"
    else:
        assert (house.seen() != house.before) == house.case.changes
        assert len(begun) == len(set(begun)), begun
    assert house.apps.ends()[-1] == ("undone" if ill else "confirmed")


@pytest.mark.parametrize("at", range(1, 5))
def test_killed_while_it_is_undone(house: House, at: int) -> None:
    """An undo whose engine dies at one of its marks is done by the next word."""
    walk = house.apps.walk(house.ready())
    assert walk.go().outcome == "done"
    walk.say("undo")
    stands = killed(walk, at)
    for _ in range(2):
        if stands.state != "ended":
            walk.say("undo")
            stands = walk.go()
    assert (stands.outcome, house.seen()) == ("undone", house.before)
