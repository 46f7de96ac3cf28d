"""What incidents taught: refused with the incident, what it left open and the way out; counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from handrail.core import alternatives, breaking, lessons
from handrail.core.deciding import Decided
from handrail.errors import RefusedError
from handrail.plans.model import Decision
from support.routers import API_HEALTH, ESTATE, TAUGHT, Routers, make_routers
from support.worlds import ANA, BEN, ILL, WELL, commit

GUARD = "contraindication"
PASSES = "groups: {}\nbreak-glass: {passes: [contraindication, second-person, typed-name]}\n"


@pytest.fixture
def routers(tmp_path: Path) -> Routers:
    return make_routers(tmp_path / "team", taught=TAUGHT)


def refusal(decided: Decided) -> Decision:
    return next(one for one in decided.plan.decisions if one.guard == GUARD)


def only(routers: Routers) -> lessons.Lesson:
    (found,) = lessons.lessons(routers.fake.world(), routers.fake.declared.estate)
    return found


def declare(routers: Routers, taught: str) -> None:
    routers.declare(ESTATE.format(taught=taught, quorum=1))


@pytest.mark.parametrize(
    ("on", "given", "command"),
    [
        ("node/router-3", {}, "handrail detach node/router-3 --alternative"),
        (
            "group/routers",
            {"machine": "i-3"},
            "handrail detach i-3 --on group/routers --alternative",
        ),
    ],
)
def test_refused_with_the_incident_what_it_left_open_and_the_way_out(
    routers: Routers, on: str, given: dict[str, str], command: str
) -> None:
    """Nothing was done; actions that are closed are not told; the remedy is the exact command."""
    found = refusal(routers.decide("detach", on, **given))
    assert (found.verdict, found.remedy) == ("refuse", command)
    assert found.because == (
        "it harms service/router: incident/2021-01-12-oops; still open: let peers forget a "
        "detached machine (ben, https://issues.example/7)"
    )
    assert found.declared.startswith("estate/routers.yaml:")
    assert routers.machines.calls == []


def test_a_dependants_lesson_counts_too(routers: Routers) -> None:
    """What harms who depends on the service on that machine is refused as well."""
    declare(routers, "")
    text = ESTATE.format(taught="", quorum=1).replace("  router-api:\n", f"  router-api:\n{TAUGHT}")
    routers.declare(text)
    assert "it harms service/router-api" in refusal(routers.decide("detach")).because


def test_the_alternative_is_planned_and_waits_for_a_second_person(routers: Routers) -> None:
    """It differs in what the incident names alone, cannot be undone, and is never run by itself."""
    decided = routers.decide("detach")
    found = alternatives.alternative(routers.fake.world(), routers.fake.declared, decided)
    assert found is not None
    assert found.plan.request.parameters == {
        **decided.plan.request.parameters,
        "then": "terminate",
    }
    assert found.plan.request.words == "detach --on node/router-3 -p then=terminate"
    assert found.plan.verdict == "require"
    assert [effect.verb for effect in found.plan.effects or ()] == ["terminate"]
    assert routers.machines.calls == []
    routers.approve(found.plan)
    assert routers.run("detach", then="terminate").outcome == "done"
    assert routers.machines.calls == ["terminate i-3"]


@pytest.mark.parametrize(
    "taught",
    [
        "",
        TAUGHT.replace("        unless: {then: terminate}\n", ""),
        TAUGHT.replace("then: terminate", "no-such: parameter"),
    ],
)
def test_there_is_no_alternative(routers: Routers, taught: str) -> None:
    """Of what nothing speaks against, and of what names none that the operation has."""
    declare(routers, taught)
    decided = routers.decide("detach")
    world, declared = routers.fake.world(), routers.fake.declared
    assert alternatives.alternative(world, declared, decided) is None


def test_an_alternative_that_others_refuse_is_none(routers: Routers) -> None:
    """Two that speak against each other's alternative leave no way."""
    other = TAUGHT.replace("    contraindications:\n", "").replace("terminate", "none")
    declare(routers, TAUGHT + other)
    decided = routers.decide("detach", then="terminate")
    world, declared = routers.fake.world(), routers.fake.declared
    assert alternatives.alternative(world, declared, decided) is None


def test_counted_once_a_plan(routers: Routers) -> None:
    """However often a plan is made, it is refused once; another machine's plan is another."""
    decided = [routers.decide("detach") for _ in range(3)][-1]
    assert (only(routers).refused, only(routers).heeded) == (1, 0)
    routers.decide("detach", "node/router-2")
    assert only(routers).refused == 2
    for _ in range(2):
        alternatives.alternative(routers.fake.world(), routers.fake.declared, decided)
    assert (only(routers).heeded, only(routers).passed) == (1, 0)
    said = refusal(routers.decide("detach", "node/router-1")).because
    assert said.endswith("refused twice before, overridden once")


def test_moved_in_its_file_it_is_the_same_and_of_another_incident_another(routers: Routers) -> None:
    """What is counted is what it says, not where it stands."""
    routers.decide("detach")
    first = TAUGHT.replace("operation: detach", "operation: drain")
    declare(routers, first + TAUGHT.replace("    contraindications:\n", ""))
    counted = lessons.lessons(routers.fake.world(), routers.fake.declared.estate)
    assert [(one.operation, one.refused) for one in counted] == [("drain", 0), ("detach", 1)]
    declare(routers, TAUGHT.replace("oops", "other"))
    assert only(routers).refused == 0


def test_expired_it_is_not_judged(routers: Routers) -> None:
    """From the day after its date."""
    declare(routers, TAUGHT.replace("2027-01-12", "2021-01-12"))
    assert refusal(routers.decide("detach")).verdict == "allow"


@pytest.mark.parametrize(
    ("operation", "would"), [("drain", False), ("detach", True), ("terminate", False)]
)
def test_replayed_on_a_run(routers: Routers, operation: str, would: bool) -> None:
    """It is tried on the recorded plan of the run that it names, also when it has expired."""
    declare(routers, "")
    assert routers.run(operation).outcome == "done"
    taught = TAUGHT.replace("owner: ana", f"replay: {routers.walks[0].number}")
    for text in (taught, taught.replace("2027-01-12", "2021-01-12")):
        declare(routers, text)
        assert only(routers).would_refuse is would
        world, estate = routers.fake.world(), routers.fake.declared.estate
        found = [error.code for error in lessons.errors(world, estate)]
        assert found == ([] if would else ["estate.replay"])


def test_a_run_that_is_not_known_here_says_nothing(routers: Routers) -> None:
    """Another machine's journal may have it: that is no error."""
    declare(routers, TAUGHT.replace("owner: ana", "replay: 412"))
    assert only(routers).would_refuse is None
    assert lessons.errors(routers.fake.world(), routers.fake.declared.estate) == ()


def test_broken_glass_does_not_pass_it_by_default(routers: Routers) -> None:
    """What an incident taught is no matter of waiting for somebody."""
    decided = routers.decide("detach")
    with pytest.raises(RefusedError) as caught:
        breaking.through(routers.fake.world(), decided, "nobody else is awake now")
    assert "does not pass contraindication" in caught.value.message


def test_broken_glass_passes_it_where_the_policy_says_so(routers: Routers) -> None:
    """The lane finds the glass of its own plan and person, uses it once, and it is counted."""
    routers.fake.write("policy.yaml", PASSES)
    commit(routers.fake, 11)
    decided = routers.decide("detach")
    world = routers.fake.world()
    broken = breaking.through(world, decided, "nobody else is awake now")
    assert broken.plan.verdict == "allow"
    walk = routers.walk(broken)
    assert walk.go().outcome == "done"
    assert routers.machines.calls == ["detach i-3"]
    assert (only(routers).passed, only(routers).heeded) == (1, 0)
    found = breaking.find(world, str(walk.number))
    assert found.glass.person == ANA
    again = routers.walk(broken)
    assert again.go().outcome == "failed"
    assert routers.machines.calls == ["detach i-3"]


def test_without_glass_the_lane_refuses(routers: Routers) -> None:
    """A walk that is submitted past the guards does nothing."""
    walk = routers.walk(routers.decide("detach"))
    assert walk.go().outcome == "failed"
    assert routers.machines.calls == []


def test_another_persons_glass_is_none(routers: Routers) -> None:
    """Broken by ben for this plan it does not let ana's run begin."""
    routers.fake.write("policy.yaml", PASSES)
    commit(routers.fake, 11)
    decided = routers.decide("detach")
    glass = breaking.break_glass(
        routers.fake.world(),
        routers.fake.declared.policy,
        replace(decided.plan, request=replace(decided.plan.request, person=BEN)),
        "ben is awake and says so",
    )
    assert glass.person == BEN
    assert routers.walk(decided).go().outcome == "failed"
    assert routers.machines.calls == []


def test_a_dependant_that_is_ill_puts_back_what_was_passed(routers: Routers) -> None:
    """Glass waits for nobody; the watch does not care."""
    routers.fake.write("policy.yaml", PASSES)
    commit(routers.fake, 11)
    routers.fake.checks.set(API_HEALTH, WELL, ILL)
    broken = breaking.through(
        routers.fake.world(), routers.decide("detach"), "nobody else is awake now"
    )
    assert routers.walk(broken).go().outcome == "failed"
    assert routers.machines.calls == ["detach i-3", "attach i-3"]
