"""Fan-outs: which target goes in which wave, what is signed, and what stands for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.operations.model import Waves
from handrail.plans.fan_out import FanOut, bounds_of, draft, is_sound, walk_of, waves_of
from handrail.plans.judging import judge
from handrail.plans.model import Decision, Plan
from handrail.plans.walk_records import check
from support.builders import ANA, make_case, make_effect

WORDS = "reset-pilot --on all"
SIZES = st.one_of(
    st.integers(1, 40).map(str),
    st.integers(1, 99).map(lambda n: f"{n}%"),
    st.integers(1, 999).map(lambda n: f"{n / 10:.1f} %"),
)
ALL_WAVES = st.builds(
    Waves,
    sizes=st.lists(SIZES, max_size=5).map(lambda sizes: (*sizes, "all")),
    soak_s=st.integers(0, 100).map(lambda s: (s,)),
)


def targets_of(count: int) -> list[str]:
    return [f"store/edge-{number}" for number in range(count)]


@given(st.integers(1, 60), ALL_WAVES, st.data())
def test_each_target_is_in_one_wave(count: int, waves: Waves, data: st.DataObject) -> None:
    """Whatever the sizes, each target is in exactly one wave, no wave is empty."""
    targets = targets_of(count)
    first = data.draw(st.lists(st.sampled_from(targets), unique=True, max_size=5))
    found = waves_of(targets, replace(waves, first=tuple(first)))
    placed = [target for wave in found for target in wave.targets]
    assert sorted(placed) == sorted(targets)
    assert placed[: len(first)] == first
    assert [t for t in placed if t not in first] == [t for t in targets if t not in first]
    assert all(wave.targets for wave in found)
    assert found[-1].soak_s == 0
    assert all(wave.soak_s == waves.soak_s[0] for wave in found[:-1])


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        (("1", "10%", "all"), 30, [1, 3, 26]),
        (("1", "10%", "all"), 31, [1, 4, 26]),
        (("1", "10%", "all"), 1, [1]),
        (("1", "10%", "all"), 2, [1, 1]),
        (("0.1%", "all"), 1000, [1, 999]),
        (("33%", "33%", "all"), 3, [1, 1, 1]),
        (("50", "all"), 10, [10]),
        (("all",), 4, [4]),
    ],
)
def test_sizes(sizes: tuple[str, ...], count: int, expected: list[int]) -> None:
    """A percentage is of all targets, rounded up; `all` is the rest; empty waves are left out."""
    found = waves_of(targets_of(count), Waves(sizes=sizes))
    assert [len(wave.targets) for wave in found] == expected


def test_a_soak_for_each_pause() -> None:
    """Where each pause has a soak of its own, each wave has that of the pause after it."""
    waves = Waves(sizes=("1", "1", "all"), soak_s=(60, 3600))
    assert [wave.soak_s for wave in waves_of(targets_of(4), waves)] == [60, 3600, 0]


def plan_of(name: str, **changed: Any) -> Plan:
    """Return a judged plan on one of several stores."""
    case = make_case()
    plan = case.plan
    ref = f"store/{name}"
    request = replace(plan.request, target=ref, words=f"reset-pilot --on {ref}")
    target = replace(plan.target, resource=ref)
    return replace(plan, digest=name.ljust(64, "0"), request=request, target=target, **changed)


def fan_out_of(plans: Sequence[Plan], waves: Waves | None = None) -> FanOut:
    groups = [{"site": plan.target.resource[-1]} for plan in plans]
    return draft(plans, groups, waves or Waves(), WORDS)


A, B = plan_of("a"), plan_of("b")


@pytest.mark.parametrize(
    "other",
    [
        fan_out_of([A]),
        fan_out_of([B, A]),
        fan_out_of([A, plan_of("c")]),
        fan_out_of([A, replace(B, digest="f" * 64)]),
        fan_out_of([A, B], Waves(sizes=("all",))),
        fan_out_of([A, B], Waves(soak_s=(60,))),
        fan_out_of([A, B], Waves(at_once=1)),
        fan_out_of([A, B], Waves(failures=1)),
        fan_out_of([A, B], Waves(failures_per={"site": 1})),
        fan_out_of([A, B], Waves(at_once_per={"site": 1})),
        fan_out_of([A, B], Waves(then="undo")),
        fan_out_of([A, B], Waves(first=("store/b",))),
        draft([A, B], [{"site": "x"}, {"site": "x"}], Waves(), WORDS),
    ],
)
def test_what_is_signed(other: FanOut) -> None:
    """Another target, plan, wave, soak, bound, group or order is another digest."""
    assert other.digest != fan_out_of([A, B]).digest


def test_same_inputs_same_digest() -> None:
    """The same plans and waves have one digest, whatever their guards say by now."""
    refused = replace(A, decisions=(Decision("freeze", "refuse", "now"),))
    assert fan_out_of([refused, B]).digest == fan_out_of([A, B]).digest


def test_a_record_that_was_changed() -> None:
    """A fan-out with another child, wave or bound than its digest says is not sound."""
    made = fan_out_of([A, B])
    assert is_sound(made)
    other = replace(made.children[0], digest="f" * 64)
    assert not is_sound(replace(made, children=(other, *made.children[1:])))
    assert not is_sound(replace(made, waves=made.waves[:1]))
    assert not is_sound(replace(made, bounds=replace(made.bounds, failures=9)))


def test_its_verdict_is_the_strictest() -> None:
    """One target that is refused refuses all; one that waits lets all wait."""
    waits = replace(B, decisions=(Decision("second-person", "require", "ben"),))
    refuses = replace(B, decisions=(Decision("freeze", "refuse", "friday"),))
    allows = replace(A, decisions=(Decision("freeze", "allow", "no freeze"),))
    assert fan_out_of([allows, allows]).verdict == "allow"
    assert fan_out_of([allows, waits]).verdict == "require"
    assert fan_out_of([waits, allows, refuses]).verdict == "refuse"


def test_its_risk_is_the_worst() -> None:
    """The risk is that of the riskiest target, which is named."""
    made = fan_out_of([replace(A, risk="low"), replace(B, risk="critical", risk_because="much")])
    assert (made.plan.risk, made.plan.risk_because) == ("critical", "store/b: much")


def test_effects_are_added_up() -> None:
    """Alike effects are one line, with the rows of all and on how many targets."""
    one = replace(A, effects=(make_effect(rows=3), make_effect("drop", "old", None)))
    two = replace(B, effects=(make_effect(rows=4),))
    told = [(t.verb, t.name, t.rows, t.targets) for t in fan_out_of([one, two]).totals]
    assert told == [("drop", "old", None, 1), ("delete", "sessions", 7, 2)]


def test_what_nobody_knows_is_named() -> None:
    """A target that was not rehearsed is named, and what all would do is then not known."""
    made = fan_out_of([A, replace(B, effects=None)])
    assert made.unknown == ("store/b",)
    assert made.plan.effects is None


def test_what_guards_say_is_taken_together() -> None:
    """What a guard says alike of several is said once, with its targets and the fan-out's words."""

    def waiting(plan: Plan) -> Plan:
        name, short = plan.target.resource, f"{plan.digest[:4]}-{plan.digest[4:8]}"
        rehearse = f"handrail rehearse {plan.request.asked}"
        said = (
            Decision("rehearsed", "refuse", f"not {name}", remedy=rehearse),
            Decision("typed-name", "require", f"type {name}", remedy=f"handrail approve {short}"),
            Decision("lock", "allow", f"nobody else runs on {name}"),
            Decision("review", "refuse", "silent", binding=False),
        )
        return replace(plan, decisions=said)

    made = fan_out_of([waiting(A), waiting(B)])
    short = f"{made.digest[:4]}-{made.digest[4:8]}"
    assert [(s.decision.guard, s.decision.remedy, s.targets) for s in made.said] == [
        ("rehearsed", f"handrail rehearse {WORDS}", ("store/a", "store/b")),
        ("typed-name", f"handrail approve {short}", ("store/a", "store/b")),
    ]
    assert made.said[1].decision.because == "type reset-pilot on 2 stores"


def test_its_name_cannot_be_left_out() -> None:
    """What an approver types is the fan-out's name: never empty, never one of the targets."""
    names = fan_out_of([A, B]).plan.target.resource
    assert names.partition("/")[2] == "reset-pilot on 2 stores"
    assert fan_out_of([A]).title == "reset-pilot on 1 store"


def test_its_walk_is_sound() -> None:
    """The walk has a lane for each target, its groups, its bounds, and one step that is checked."""
    stuck = replace(B, steps=tuple(replace(s, undo="irreversible") for s in B.steps))
    waves = Waves(at_once=3, at_once_per={"site": 1}, failures=2, then="undo")
    made = fan_out_of([A, stuck], waves)
    walk = walk_of(made, ANA)
    check(walk)
    assert (walk.digest, walk.bounds, walk.person) == (made.digest, bounds_of(waves), ANA)
    told = [(lane.target, lane.groups, lane.steps[0].undo) for lane in walk.lanes]
    assert told == [("store/a", {"site": "a"}, True), ("store/b", {"site": "b"}, False)]
    assert {step.recovery for lane in walk.lanes for step in lane.steps} == {"check"}


def test_judged_plans_are_needed() -> None:
    """The plan that stands for all has every guard's decision, the strictest first."""
    case = make_case()
    judged = judge(case, ())
    made = fan_out_of([replace(judged, decisions=(Decision("a", "allow", ""),)), A])
    assert made.plan.decisions
