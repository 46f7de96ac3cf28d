"""Budgets and effects: what a run may do, what goes beyond, and the order of effects."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from handrail.operations.model import DeclaredEffect
from handrail.plans.budget import breaches, from_declaration, from_effects
from handrail.plans.effect import VERBS, Effect, worst_first
from handrail.plans.model import Allowance, Breach, Budget
from support.builders import STORE, make_effect

ROWS = st.none() | st.integers(0, 10**9)
EFFECTS = st.builds(
    Effect,
    resource=st.sampled_from([STORE, "store/other"]),
    verb=st.sampled_from(VERBS),
    kind=st.sampled_from(["table", "column", "role"]),
    name=st.sampled_from(["a", "b", "c"]),
    rows=ROWS,
    net=ROWS,
    detail=st.sampled_from(["", "now integer"]),
)
# One effect a key, as every store gives them.
SOME = st.lists(EFFECTS, max_size=10, unique_by=lambda effect: effect.key)
RELATIVE = st.floats(0, 1)


@given(st.lists(EFFECTS, max_size=10), st.randoms())
def test_worst_first_is_a_total_order(effects: list[Effect], random: object) -> None:
    """However effects come, they leave in one order: shuffling before does not show after."""
    shuffled = list(effects)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert worst_first(shuffled) == worst_first(effects)
    assert sorted(shuffled, key=repr) == sorted(worst_first(effects), key=repr)


@given(st.lists(EFFECTS, max_size=10))
def test_sorting_twice_is_sorting_once(effects: list[Effect]) -> None:
    """What is in order stays as it is."""
    assert worst_first(worst_first(effects)) == worst_first(effects)


def test_the_worst_is_by_verb_then_by_rows_then_by_name() -> None:
    """A dropped table of few rows is worse than a million deleted ones."""
    found = worst_first(
        [
            make_effect("delete", "b", 5),
            make_effect("delete", "a", 5),
            make_effect("delete", "c", 10**6),
            make_effect("drop", "z", 1),
            make_effect("unknown", "y", None),
        ]
    )
    assert [effect.name for effect in found] == ["y", "z", "c", "a", "b"]


@given(SOME, RELATIVE, st.integers(0, 1000))
def test_a_rehearsal_fits_into_its_own_budget(
    effects: list[Effect], relative: float, absolute: int
) -> None:
    """Doing just what was rehearsed breaks nothing, but for what nobody could read."""
    budget = from_effects(effects, relative=relative, absolute=absolute)
    found = breaches(budget, effects)
    assert {breach.effect for breach in found} == {e for e in effects if e.verb == "unknown"}


@given(SOME, RELATIVE, st.integers(0, 1000))
def test_one_row_beyond_the_tolerance_is_a_breach(
    effects: list[Effect], relative: float, absolute: int
) -> None:
    """The last row that is allowed is allowed, and the next one is not."""
    budget = from_effects(effects, relative=relative, absolute=absolute)
    for allowance in budget.allowances:
        if allowance.rows is None:
            continue
        most = allowance.rows + allowance.tolerance
        effect = Effect(
            allowance.resource, allowance.verb, allowance.kind, allowance.name, rows=most
        )
        assert breaches(budget, [effect]) == ()
        over = replace(effect, rows=most + 1)
        assert breaches(budget, [over]) == (Breach(over, allowance),)


@given(SOME, EFFECTS)
def test_what_was_not_rehearsed_may_not_be_done(effects: list[Effect], other: Effect) -> None:
    """An effect without an allowance is a breach, unless it touched no row."""
    assume(other.key not in {effect.key for effect in effects})
    budget = from_effects(effects, relative=1, absolute=1000)
    expected = () if other.rows == 0 and other.verb != "unknown" else (Breach(other, None),)
    assert breaches(budget, [other]) == expected


@given(SOME, ROWS)
def test_what_nobody_can_read_is_always_a_breach(effects: list[Effect], rows: int | None) -> None:
    """`unknown` is in no budget, not even in one that was made of it."""
    unknown = make_effect("unknown", rows=rows)
    budget = from_effects([*effects, unknown], relative=1, absolute=10**6)
    assert unknown in {breach.effect for breach in breaches(budget, [unknown])}


@pytest.mark.parametrize(
    ("rows", "relative", "absolute", "tolerance"),
    [
        (1000, 0.01, 2, 10),
        (1001, 0.01, 2, 11),
        (100, 0.01, 2, 2),
        (0, 1.0, 1000, 0),
        (None, 1.0, 1000, 0),
        (50, 0, 0, 0),
    ],
)
def test_the_tolerance_is_the_larger_of_both_and_nothing_grows_from_nothing(
    rows: int | None, relative: float, absolute: int, tolerance: int
) -> None:
    """A share is rounded up; where no row was touched, none may be."""
    budget = from_effects([make_effect(rows=rows)], relative=relative, absolute=absolute)
    assert budget.allowances[0].tolerance == tolerance


def test_a_budget_knows_where_it_is_from() -> None:
    """Measured or declared: a reader of the plan can tell."""
    declared = DeclaredEffect("drop", "view", "v", None)
    assert from_effects([], relative=0, absolute=0) == Budget((), "rehearsal")
    assert from_declaration(STORE, [declared]) == Budget(
        (Allowance(STORE, "drop", "view", "v", None),), "declaration"
    )


def test_a_declaration_without_rows_allows_any_number_of_them() -> None:
    """It names what may be done; who wants a bound writes one."""
    budget = from_declaration(STORE, [DeclaredEffect("delete", "table", "sessions", None)])
    assert breaches(budget, [make_effect(rows=10**9)]) == ()
    assert breaches(budget, [make_effect("truncate", rows=1)]) != ()


def test_an_effect_on_another_resource_is_another_effect() -> None:
    """What may be done to one store may not be done to its neighbour."""
    budget = from_effects([make_effect()], relative=1, absolute=10)
    elsewhere = replace(make_effect(), resource="store/other")
    assert breaches(budget, [elsewhere]) == (Breach(elsewhere, None),)


def test_an_empty_budget_allows_nothing() -> None:
    """A rehearsal that changed nothing allows no change."""
    budget = from_effects([], relative=1, absolute=1000)
    assert breaches(budget, []) == ()
    assert breaches(budget, [make_effect(rows=1)]) == (Breach(make_effect(rows=1), None),)
