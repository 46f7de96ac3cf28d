"""Risk: from effects, target and reversibility, with the one reason that set it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from handrail.plans.effect import Effect
from handrail.plans.model import Target
from handrail.plans.planning import steps_of
from handrail.plans.risk import derive
from support.builders import STORE, make_effect, make_operation, make_rehearsal

TARGET = Target(STORE, "sqlite", "pilot", False, "durable", (), "", "estate/pilot.yaml:6")
REAL = replace(TARGET, holds=("production-data",))
LOSSY = replace(TARGET, durability="lossy")
STEPS = steps_of(make_operation(), STORE, {})
STUCK = tuple(replace(step, undo="irreversible") for step in STEPS)
ROLE = Effect(STORE, "alter", "role", "app")


def risk(target: Target, *effects: Effect) -> str:
    return derive(target, STEPS, effects, None)[0]


@pytest.mark.parametrize(
    ("target", "effect", "expected"),
    [
        (TARGET, make_effect("drop"), "high"),
        (REAL, make_effect("drop"), "critical"),
        (LOSSY, make_effect("drop"), "low"),
        (REAL, make_effect("drop", rows=0), "high"),
        (REAL, make_effect("delete", rows=1), "high"),
        (LOSSY, make_effect("delete"), "low"),
        (REAL, make_effect("insert"), "low"),
        (REAL, make_effect("create", rows=None), "low"),
        (TARGET, make_effect("unknown", rows=None), "critical"),
        (TARGET, Effect(STORE, "unknown", "index", "i"), "critical"),
        (LOSSY, Effect(STORE, "unknown", "index", "i"), "high"),
        (LOSSY, ROLE, "high"),
        (TARGET, replace(ROLE, verb="drop"), "critical"),
    ],
)
def test_an_effect_on_a_target_has_a_risk(target: Target, effect: Effect, expected: str) -> None:
    """What is lost, where, and whether anybody would miss it make the level."""
    assert risk(target, effect) == expected


def test_the_worst_effect_sets_the_risk() -> None:
    """Ten harmless ones do not make one bad one better."""
    harmless = [make_effect("insert", f"t{i}") for i in range(10)]
    assert risk(REAL, *harmless, make_effect("drop", "z")) == "critical"


def test_nothing_done_is_no_risk() -> None:
    """A script that changed nothing in rehearsal has risk none, even if it could not be undone."""


@pytest.mark.parametrize(("target", "expected"), [(TARGET, "critical"), (LOSSY, "high")])
def test_what_nobody_knows_is_as_bad_as_it_can_be(target: Target, expected: str) -> None:
    """Without a rehearsal or a declaration the risk is the target's highest."""
    level, because = derive(target, STEPS, None, None)
    assert level == expected
    assert because.startswith("nobody knows what it does")


def test_what_cannot_be_put_back_is_high_at_least() -> None:
    """A script that changed nothing in its store may still have sent a mail."""
    assert derive(REAL, STUCK, (), None)[0] == "high"


def test_what_cannot_be_put_back_is_one_level_worse() -> None:
    """Irreversible, an undo that failed, and an undo that leaves something: each, and not twice."""
    delete = (make_effect(),)
    rehearsals = [make_rehearsal(undone=False), make_rehearsal(residue=("table a",))]
    assert derive(TARGET, STEPS, delete, None)[0] == "high"
    assert derive(TARGET, STUCK, delete, None)[0] == "critical"
    assert [derive(TARGET, STEPS, delete, r)[0] for r in rehearsals] == ["critical", "critical"]
    assert derive(LOSSY, STUCK, delete, rehearsals[0])[0] == "high"


def test_the_reason_names_the_worst_effect_with_its_amount() -> None:
    """The reader gets the one thing that made it so."""
    found = derive(REAL, STEPS, (make_effect("drop", "readings", 2_913_402),), None)
    assert found == ("critical", "drop table readings of 2,913,402 rows, real data")


def test_the_reason_says_when_it_cannot_be_undone() -> None:
    """What raised the level comes first."""
    level, because = derive(TARGET, STUCK, (make_effect(),), None)
    assert because.startswith("it cannot be undone; ")
    assert level == "critical"
