"""Machines are drained, detached, ended and scaled; put back where they can be; on fakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from handrail.errors import HandrailError, PlatformError, RefusedError
from handrail.kits.deploys.model import MachineGroup
from handrail.plans.model import Consequence, Plan
from handrail.testing.machines import FakeMachines
from support.apps import killed
from support.routers import API_HEALTH, GROUP, SIZE, Routers, machine, make_routers
from support.worlds import ILL, WELL

CASES: dict[str, tuple[str, str, dict[str, str]]] = {
    "drain": ("drain", "node/router-3", {}),
    "drain of a group's": ("drain", "group/routers", {"machine": "i-3"}),
    "drain of a platform's": ("drain", "platform/aws", {"machine": "router-3"}),
    "detach": ("detach", "node/router-3", {}),
    "detach with another": ("detach", "node/router-3", {"replace": "true"}),
    "detach and end": ("detach", "node/router-3", {"then": "terminate"}),
    "terminate": ("terminate", "node/router-3", {}),
    "terminate for good": ("terminate", "node/router-3", {"replace": "false"}),
    "scale up": ("scale", "group/routers", {"count": "4"}),
    "scale down": ("scale", "group/routers", {"count": "2"}),
}
IRREVERSIBLE = {"detach and end", "terminate", "terminate for good"}
REVERSIBLE = [name for name in CASES if name not in IRREVERSIBLE]


@pytest.fixture
def routers(tmp_path: Path) -> Routers:
    return make_routers(tmp_path / "team")


@pytest.mark.parametrize("name", CASES)
def test_planning_changes_nothing(routers: Routers, name: str) -> None:
    """Planned twice it is one plan, and no machine was told anything."""
    operation, on, given = CASES[name]
    before = routers.seen()
    digests = {routers.decide(operation, on, **given).plan.digest for _ in range(2)}
    assert len(digests) == 1
    assert (routers.seen(), routers.machines.calls) == (before, [])


@pytest.mark.parametrize("name", CASES)
def test_confirmed(routers: Routers, name: str) -> None:
    """Approved and run it is confirmed; planned again, where it is there, nothing is left to do."""
    operation, on, given = CASES[name]
    stands = routers.run(operation, on, **given)
    assert stands.outcome == "done", stands
    assert routers.ends(on) == ["confirmed"]
    assert len(routers.machines.calls) == 1
    known = {one.id for one in routers.machines.group(GROUP).machines}
    if on == "node/router-3" and "i-3" not in known:
        return
    again = routers.decide(operation, on, **given).plan
    assert (again.effects, again.risk) == ((), "none")


@pytest.mark.parametrize("name", REVERSIBLE)
def test_undone(routers: Routers, name: str) -> None:
    """By a word it is put back; undone once more nothing is done."""
    operation, on, given = CASES[name]
    decided = routers.ready(operation, on, **given)
    walk = routers.walk(decided)
    assert walk.go().outcome == "done"
    walk.say("undo")
    assert walk.go().outcome == "undone"
    routers.machines.machines()
    group = routers.machines.group(GROUP)
    members = {one.id: one.state for one in group.machines}
    assert members.get("i-1") == "in-service"
    assert group.desired == (SIZE + 1 if name == "detach with another" else SIZE)
    if operation != "scale":
        assert members["i-3"] == "in-service"
    calls = list(routers.machines.calls)
    assert routers.act(operation).undo(routers.job(decided)).state == "done"
    assert routers.machines.calls == calls


@pytest.mark.parametrize("name", sorted(IRREVERSIBLE))
def test_what_ends_a_machine_says_that_nothing_brings_it_back(routers: Routers, name: str) -> None:
    """Of risk high at least, and never undone."""
    operation, on, given = CASES[name]
    decided = routers.ready(operation, on, **given)
    assert decided.plan.risk in {"high", "critical"}
    assert decided.plan.steps[0].undo == "irreversible"
    assert "is gone" in decided.plan.undo_said
    assert routers.walk(decided).go().outcome == "done"
    assert routers.act(operation).undo(routers.job(decided)).state == "failed"


@pytest.mark.parametrize("name", REVERSIBLE)
def test_never_applied_is_undone_by_nothing(routers: Routers, name: str) -> None:
    """Undone though it never began: done, and no machine was told anything."""
    operation, on, given = CASES[name]
    decided = routers.decide(operation, on, **given)
    assert routers.act(operation).undo(routers.job(decided)).state == "done"
    assert routers.act(operation).found(routers.job(decided)).state == "never"
    assert routers.machines.calls == []


def test_a_dependant_that_gets_ill_undoes_it(routers: Routers) -> None:
    """Not what was drained but who depends on it is ill: it takes work again."""
    routers.fake.checks.set(API_HEALTH, WELL, ILL)
    before = routers.seen()
    assert routers.run("drain").outcome == "failed"
    assert routers.ends() == ["undone"]
    assert routers.seen() == before
    assert routers.machines.calls == ["drain i-3", "undrain i-3"]


@pytest.mark.parametrize("name", ["drain", "detach with another", "terminate", "scale down"])
@pytest.mark.parametrize("at", range(1, 6))
def test_killed_at_each_mark(routers: Routers, name: str, at: int) -> None:
    """Whichever mark the engine dies before, the next one ends it, having done it once."""
    operation, on, given = CASES[name]
    stands = killed(routers.walk(routers.ready(operation, on, **given)), at)
    assert stands.outcome == "done", stands
    assert len(routers.machines.calls) == 1
    assert routers.ends(on)[-1] == "confirmed"


@pytest.mark.parametrize("name", CASES)
def test_a_lost_answer_is_made_good(routers: Routers, name: str) -> None:
    """The platform did it and its answer was lost: it is asked again, and does nothing twice."""
    operation, on, given = CASES[name]
    routers.machines.cut.append({"scale": "resize"}.get(operation, operation))
    if given.get("then") == "terminate":
        routers.machines.cut = ["terminate"]
    assert routers.run(operation, on, **given).outcome == "done"
    assert len(routers.machines.calls) == 1


@pytest.mark.parametrize("name", CASES)
def test_what_somebody_else_changed_is_refused(routers: Routers, name: str) -> None:
    """Between plan and run: it is another plan now, and nothing is done."""
    operation, on, given = CASES[name]
    decided = routers.ready(operation, on, **given)
    routers.machines.interfere("i-3")
    routers.machines.interfere(GROUP)
    assert routers.walk(decided).go().outcome == "failed"
    assert routers.machines.calls == []
    with pytest.raises(RefusedError) as caught:
        routers.act(operation).apply(routers.job(decided))
    assert caught.value.code == "platform.moved"


def test_a_machine_that_stays_drained_in_part_is_let_back(routers: Routers) -> None:
    """What does not move away in time is no reason to leave it half drained."""
    routers.machines.stuck.add("i-3")
    assert routers.run("drain", deadline="1m").outcome == "failed"
    assert routers.machines.calls == ["drain i-3", "undrain i-3"]


def test_who_is_touched_and_what_it_means(routers: Routers) -> None:
    """The service on the group is touched; its dependants are affected, and watched."""
    plan = routers.decide("drain").plan
    assert plan.target.touches == ("group/routers", "service/router")
    path = ("node/router-3", "group/routers", "service/router")
    assert plan.consequences == (
        Consequence("service/router", "affected", path),
        Consequence("service/router-api", "affected", ("service/router", "service/router-api")),
    )
    assert [one.partition(":")[0] for one in plan.watched] == [
        "service/router",
        "service/router-api",
    ]
    assert [(e.verb, e.name, e.detail) for e in plan.effects or ()] == [
        ("move", "router-3", "to others; it takes no more")
    ]
    assert plan.soak_s == 6
    assert lines(plan, "capacity") == (
        "service/router: 2 of 3 machines are left; it lives with 1: affected",
    )


@pytest.mark.parametrize("operation", ["drain", "terminate"])
def test_a_wave_goes_on_after_its_first_lane(routers: Routers, operation: str) -> None:
    """What was approved of the next machine is the same plan once the first one is done ..."""
    planned = routers.decide(operation, "node/router-2").plan
    assert routers.run(operation).outcome == "done"
    assert routers.decide(operation, "node/router-2").plan.digest == planned.digest


def test_a_wave_stops_before_a_service_does(tmp_path: Path) -> None:
    """... unless something would stop that was not to: then it is another plan."""
    routers = make_routers(tmp_path / "team", quorum=2)
    planned = routers.decide("drain", "node/router-2").plan
    assert routers.run("drain").outcome == "done"
    again = routers.decide("drain", "node/router-2").plan
    assert again.digest != planned.digest
    assert again.risk == "critical"


def lines(plan: Plan, title: str) -> tuple[str, ...]:
    return next(one.lines for one in plan.sections if one.title == title)


def test_below_its_quorum_it_stops(tmp_path: Path) -> None:
    """The service and who needs it would stop: critical in production, whatever undo there is."""
    routers = make_routers(tmp_path / "team", quorum=3)
    plan = routers.decide("drain").plan
    assert {c.resource: c.outcome for c in plan.consequences} == {
        "service/router": "stops",
        "service/router-api": "stops",
    }
    assert plan.risk == "critical"
    assert plan.risk_because.startswith("service/router would stop: 2 of 3 machines are left")


def test_the_last_of_its_zone(routers: Routers) -> None:
    """It would be degraded, and the zone is said."""
    plan = routers.decide("detach", "node/router-1").plan
    assert plan.risk == "high"
    assert "none in a" in plan.risk_because


def test_a_group_is_left_as_many_as_it_takes(tmp_path: Path) -> None:
    """What would be fewer than its minimum is refused; with another in its place it is not."""
    routers = make_routers(tmp_path / "team")
    routers.machines.resize(GROUP, 1, routers.machines.group(GROUP).token)
    routers.seen()
    left = routers.machines.group(GROUP).machines[0]
    given = {"machine": left.id}
    plan = routers.decide("detach", "group/routers", **given).plan
    assert plan.verdict == "refuse"
    assert "capacity" in [d.guard for d in plan.decisions if d.verdict == "refuse"]
    plan = routers.decide("detach", "group/routers", replace="true", **given).plan
    assert "capacity" not in [d.guard for d in plan.decisions if d.verdict == "refuse"]


def test_no_room_to_come_back(routers: Routers) -> None:
    """Detached with another in its place from a full group, it cannot be put back: that is said."""
    routers.machines.resize(GROUP, 5, routers.machines.group(GROUP).token)
    routers.seen()
    plan = routers.decide("detach", replace="true").plan
    assert plan.steps[0].undo == "irreversible"
    assert "5 at most" in plan.undo_said


def test_what_is_ill_counts_for_nobody_and_is_touched_all_the_same(routers: Routers) -> None:
    """Of a machine that is down nothing is lost, and contraindications are judged."""
    routers.machines.__init__(  # type: ignore[misc]  # other machines
        [machine(1, "a"), machine(2, "b"), machine(3, "b", "down")], {GROUP: (1, 5)}
    )
    plan = routers.decide("detach").plan
    assert "service/router" in plan.target.touches
    assert [c.outcome for c in plan.consequences if c.resource == "service/router"] == []


@pytest.mark.parametrize(
    ("operation", "on", "given", "code"),
    [
        ("drain", "node/alone", {}, "operations.target"),
        ("drain", "node/router-3", {"machine": "i-3"}, "operations.parameter"),
        ("drain", "node/router-3", {"deadline": "soon"}, "operations.parameter"),
        ("drain", "node/router-3", {"deadline": "2h"}, "operations.parameter"),
        ("drain", "node/router-3", {"deadline": "0s"}, "operations.parameter"),
        ("drain", "group/routers", {}, "deploys.unknown-machine"),
        ("drain", "group/routers", {"machine": "i-33"}, "deploys.unknown-machine"),
        ("scale", "group/routers", {"count": "many"}, "operations.parameter"),
        ("scale", "group/routers", {"count": "-1"}, "operations.parameter"),
        ("scale", "group/routers", {"count": "9"}, "operations.parameter"),
        ("scale", "group/routers", {"count": "99999999999999999999"}, "operations.parameter"),
        ("scale", "group/routers", {"count": "\u0664"}, "operations.parameter"),
    ],
)
def test_wrong_calls(
    routers: Routers, operation: str, on: str, given: dict[str, str], code: str
) -> None:
    """Each is an error that says what is known, and nothing is done."""
    with pytest.raises(HandrailError) as caught:
        routers.decide(operation, on, **given)
    assert caught.value.code == code
    assert caught.value.hint or operation == "scale"
    assert routers.machines.calls == []


@pytest.mark.parametrize(
    "make",
    [
        lambda r: r.machines.interfere("i-3"),
        lambda r: r.machines.detach(GROUP, "i-3", r.machines.group(GROUP).token, replace=False),
    ],
)
def test_found_says_what_it_does_not_know(
    routers: Routers, make: Callable[[Routers], object]
) -> None:
    """Of a machine that somebody else took away nobody knows what became of a drain."""
    decided = routers.decide("drain")
    make(routers)
    state = routers.act("drain").found(routers.job(decided)).state
    found = next(one for one in routers.machines.machines() if one.id == "i-3")
    assert state == ("never" if found.group else "unknown")


@pytest.mark.parametrize(
    ("operation", "on", "given"),
    [
        ("detach", "node/router-3", {}),
        ("detach", "node/router-3", {"then": "terminate"}),
        ("terminate", "node/router-3", {}),
        ("scale", "group/routers", {"count": "2"}),
    ],
)
def test_a_platform_that_keeps_no_groups_says_so(
    routers: Routers, operation: str, on: str, given: dict[str, str]
) -> None:
    """Of a pool of nodes nothing is detached, ended or scaled; it is said when it is planned."""
    routers.machines = Pool(routers.machines.machines(), {GROUP: (SIZE, SIZE)})
    with pytest.raises(PlatformError) as caught:
        routers.decide(operation, on, **given)
    assert caught.value.code == "platform.unsupported"
    assert routers.decide("drain").plan.verdict != "refuse"


class Pool(FakeMachines):
    """Machines in a pool, whose size nobody keeps."""

    def group(self, name: str) -> MachineGroup:
        """Return it without a token."""
        return replace(super().group(name), token="")
