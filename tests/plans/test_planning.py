"""Planning: same inputs, same digest; and every input that an approver signs changes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.estate.graph import Dependant
from handrail.estate.model import Check
from handrail.operations.model import DeclaredEffect, Undo, Watch
from handrail.plans.effect import VERBS, Effect
from handrail.plans.facts import Identity, Measure, TableMeasure
from handrail.plans.model import LastChange
from handrail.plans.planning import consequences, rehearsal_key, target_of, watched_checks
from handrail.plans.policy import Policy
from support.builders import (
    BEN,
    IDENTITY,
    MEASURE,
    STORE,
    make_approval,
    make_effect,
    make_estate,
    make_facts,
    make_operation,
    make_plan,
    make_proof,
    make_rehearsal,
    make_request,
    make_service,
    make_store,
)

EFFECTS = st.builds(
    Effect,
    resource=st.just(STORE),
    verb=st.sampled_from(VERBS),
    kind=st.sampled_from(["table", "column", "index", "role"]),
    name=st.text(min_size=1, max_size=8),
    rows=st.none() | st.integers(0, 10**9),
    net=st.none() | st.integers(0, 10**9),
)
SOME_EFFECTS = st.lists(EFFECTS, max_size=8, unique_by=lambda effect: effect.key)


@given(SOME_EFFECTS, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_same_inputs_same_plan(effects: list[Effect], parameters: dict[str, str]) -> None:
    """Planning twice gives equal plans: nothing but the arguments is read."""

    def plan() -> object:
        facts = make_facts(rehearsal=make_rehearsal(*effects))
        return make_plan(facts=facts, request=make_request(parameters=dict(parameters)))

    assert plan() == plan()


@given(st.permutations([make_effect(verb, rows=5) for verb in VERBS]))
def test_the_order_in_which_effects_were_measured_does_not_matter(effects: list[Effect]) -> None:
    """The same effects in any order have one digest, and are shown in one order."""
    plan = make_plan(facts=make_facts(rehearsal=make_rehearsal(*effects)))
    assert plan.effects is not None
    assert [effect.verb for effect in plan.effects] == list(VERBS)
    first = make_plan(
        facts=make_facts(rehearsal=make_rehearsal(*(make_effect(v, rows=5) for v in VERBS)))
    )
    assert plan.digest == first.digest


def changed_estate(**changed: Any) -> dict[str, Any]:
    return {"estate": make_estate(make_store(**changed))}


def changed_facts(**changed: Any) -> dict[str, Any]:
    return {"facts": make_facts(**changed)}


def changed_operation(**changed: Any) -> dict[str, Any]:
    return {"operation": make_operation(**changed)}


SIGNED = {
    "an effect's rows": changed_facts(rehearsal=make_rehearsal(make_effect(rows=501))),
    "an effect's verb": changed_facts(rehearsal=make_rehearsal(make_effect("update"))),
    "an effect's name": changed_facts(rehearsal=make_rehearsal(make_effect(name="devices"))),
    "one more effect": changed_facts(rehearsal=make_rehearsal(make_effect(), make_effect("drop"))),
    "no rehearsal": changed_facts(rehearsal=None),
    "the identity": changed_facts(identity=replace(IDENTITY, id="sqlite:5d0d")),
    "the endpoint": changed_facts(identity=replace(IDENTITY, endpoint="/srv/data/other.db")),
    "an identity that cannot be read": changed_facts(identity=None),
    "the commit": changed_facts(commit="b" * 40),
    "the material": {"material": "d"},
    "a parameter": {"request": make_request(parameters={"days": "1"})},
    "the tolerance": {"policy": Policy(tolerance=0.02)},
    "the tolerance in rows": {"policy": Policy(tolerance_rows=50)},
    "an argument": changed_operation(argv=("./scripts/reset_pilot.sh", "--all")),
    "the timeout": changed_operation(timeout_s=1),
    "the undo": changed_operation(undo=Undo("script", ("./scripts/undo.sh",))),
    "irreversible": changed_operation(undo=Undo("irreversible", reason="sent")),
    "the soak time": changed_operation(watch=Watch(soak_s=61)),
    "the time between probes": changed_operation(watch=Watch(every_s=6)),
    "a check of its own": changed_operation(watch=Watch(checks=(Check("tcp", ("a:1",)),))),
    "a check of the target": changed_estate(checks=(Check("tcp", ("a:1",)),)),
    "the mapping of variables": changed_operation(environment={"PILOT_DB": "path"}),
    "an inherited variable": changed_operation(inherit=("PROXY",)),
}


@pytest.mark.parametrize("changed", SIGNED.values(), ids=SIGNED)
def test_what_is_signed_changes_the_digest(changed: dict[str, Any]) -> None:
    """An approval is for this and nothing else: each such change asks for a new one."""
    assert make_plan(**changed).digest != make_plan().digest


MOMENTARY = {
    "the rows of the moment": changed_facts(
        measure=Measure((TableMeasure("sessions", 512), TableMeasure("devices", 20)), 9000)
    ),
    "why it is done": {"request": make_request(because="test day")},
    "who asks": {"request": make_request(person=BEN)},
    "the time": changed_facts(now="2026-01-31T10:00:00.000000Z"),
    "who is connected": changed_facts(others=("psql as ana",)),
    "who holds it": changed_facts(holder="run 411"),
    "the version of the server": changed_facts(identity=replace(IDENTITY, version="SQLite 3.45.0")),
    "a newer proof": changed_facts(proof=make_proof(backup="b-2")),
    "an approval": changed_facts(approvals=(make_approval("d"),)),
    "who changed the script": changed_facts(change=LastChange("c", BEN, (), "2026")),
    "what a rehearsal printed": changed_facts(rehearsal=make_rehearsal(output_bytes=5)),
    "a summary": changed_operation(summary="Empty it"),
}


@pytest.mark.parametrize("changed", MOMENTARY.values(), ids=MOMENTARY)
def test_what_is_of_the_moment_does_not_change_the_digest(changed: dict[str, Any]) -> None:
    """An approval stays good while rows come and go, and whatever somebody says about it."""
    assert make_plan(**changed).digest == make_plan().digest


CHECKS = [
    Check("http", ("http://a",)),
    Check("http", ("http://a",), expect="ok"),
    Check("http", ("http://a",), expect="OK"),
    Check("sql", ("select 1",), store="store/a"),
    Check("sql", ("select 1",), store="store/b"),
    Check("command", ("./check", "a b")),
    Check("command", ("./check", "a", "b")),
    Check("command", ("./check a b",)),
]


def test_everything_of_a_check_is_in_the_digest() -> None:
    """What a check expects, whom it asks and how its words are split: no two have one digest."""
    plans = [make_plan(operation=make_operation(watch=Watch(checks=(one,)))) for one in CHECKS]
    assert len({plan.digest for plan in plans}) == len(CHECKS)


def test_a_check_of_a_dependant_is_in_the_digest() -> None:
    """What is watched is signed, also where it is declared at somebody else."""
    before, after = (
        make_plan(estate=make_estate(make_store(), make_service("api", STORE, checks=checks)))
        for checks in ((), (Check("http", ("http://api",)),))
    )
    assert before.digest != after.digest
    assert after.watched == ("service/api: http http://api",)


def test_each_check_is_watched_once() -> None:
    """The operation's own, the target's, those named and those of every dependant, in order."""
    check, other = Check("tcp", ("a:1",)), Check("tcp", ("a:2",))
    estate = make_estate(
        make_store(checks=(check,)),
        make_service("api", STORE, checks=(check, check)),
        make_service("far", checks=(other,)),
    )
    watch = Watch(checks=(check, other), services=("service/far", "service/api", STORE))
    operation = make_operation(watch=watch)
    assert watched_checks(operation, estate.resources[STORE], estate) == (
        (STORE, check),
        (STORE, other),
        ("service/far", other),
        ("service/api", check),
    )


def test_a_parameter_stays_one_word() -> None:
    """A value with spaces or braces fills its place in an argument, and the program is fixed."""
    operation = make_operation(argv=("./{who}.sh", "--for={who}", "{who}"))
    request = make_request(parameters={"who": "a b; rm -rf /", "day": "1"})
    plan = make_plan(operation=operation, request=request)
    assert plan.steps[0].argv == ("./{who}.sh", "--for=a b; rm -rf /", "a b; rm -rf /")


def test_without_a_rehearsal_the_declared_effects_count() -> None:
    """They are the plan's effects and its budget, and the plan says where they are from."""
    operation = make_operation(effects=(DeclaredEffect("delete", "table", "sessions", 5),))
    plan = make_plan(operation=operation, facts=make_facts(rehearsal=None))
    assert (plan.effects, plan.effects_from) == ((make_effect(rows=5),), "declaration")
    assert plan.budget is not None
    assert plan.budget.source == "declaration"


def test_a_rehearsal_is_believed_before_a_declaration() -> None:
    """What was measured counts, whatever somebody wrote down."""
    operation = make_operation(effects=(DeclaredEffect("delete", "table", "sessions", 5),))
    plan = make_plan(operation=operation)
    assert (plan.effects, plan.effects_from) == ((make_effect(rows=500),), "rehearsal")


def test_without_either_nothing_is_known() -> None:
    """Then there is no budget, and the risk is as high as the target allows."""
    plan = make_plan(facts=make_facts(rehearsal=None))
    assert (plan.effects, plan.effects_from, plan.budget) == (None, "nothing", None)
    assert plan.risk == "critical"


def test_a_rehearsal_is_of_one_script_on_one_target() -> None:
    """Its key changes with script, parameters, undo, identity and endpoint, not with the time."""
    plan = make_plan()
    key = rehearsal_key(plan.steps, plan.material, {}, IDENTITY)
    assert plan.key == key
    assert make_plan(**changed_facts(now="2027-01-01T00:00:00.000000Z")).key == key
    others = [
        make_plan(material="d"),
        make_plan(request=make_request(parameters={"a": "b"})),
        make_plan(**changed_operation(undo=Undo("script", ("u",)))),
        make_plan(**changed_facts(identity=Identity("sqlite:6", IDENTITY.endpoint))),
        make_plan(**changed_facts(identity=Identity(IDENTITY.id, "/elsewhere"))),
    ]
    assert len({key, *(other.key for other in others)}) == 6


def test_a_target_that_does_not_answer_has_no_key() -> None:
    """Nothing was rehearsed on nobody."""
    assert make_plan(facts=make_facts(identity=None)).key == ""


TOUCHED = (
    Dependant("service/a", (STORE, "service/a"), hard=True),
    Dependant("service/b", (STORE, "service/b"), hard=False),
)


@pytest.mark.parametrize(
    ("effects", "outcomes"),
    [
        (None, ["stops", "degraded"]),
        ((make_effect("drop"),), ["stops", "degraded"]),
        ((make_effect("truncate"),), ["stops", "degraded"]),
        ((make_effect("unknown", rows=None),), ["stops", "degraded"]),
        ((make_effect("delete"),), ["affected", "affected"]),
        ((make_effect("alter", rows=None),), ["affected", "affected"]),
        ((make_effect("update"),), []),
        ((make_effect("insert"),), []),
        ((make_effect("drop", rows=0),), []),
        ((), []),
    ],
)
def test_what_effects_mean_for_others(
    effects: tuple[Effect, ...] | None, outcomes: list[str]
) -> None:
    """What is gone stops or degrades others, what is less affects them, the rest does nothing."""
    found = consequences(TOUCHED, effects)
    assert [consequence.outcome for consequence in found] == outcomes


def test_consequences_have_the_path_that_leads_to_them() -> None:
    """Each names its resource, the way, and whether every need on it is hard."""
    estate = make_estate(
        make_store(), make_service("a", STORE), make_service("b", "service/a?"), make_service("c")
    )
    plan = make_plan(estate=estate, facts=make_facts(rehearsal=None))
    assert [(c.resource, c.outcome, c.path, c.hard) for c in plan.consequences] == [
        ("service/a", "stops", (STORE, "service/a"), True),
        ("service/b", "degraded", (STORE, "service/a", "service/b"), False),
    ]


def seems(measure: Measure | None, policy: Policy | None = None, **environment: Any) -> str:
    estate = make_estate(**environment)
    facts = make_facts(measure=measure)
    return target_of(estate.resources[STORE], estate, policy or Policy(), facts).seems_real


def table(oldest: str | None = None, rows: int = 1) -> Measure:
    return Measure((TableMeasure("readings", rows, oldest), TableMeasure("empty", 0)), 1)


def test_old_rows_look_real() -> None:
    """Data older than its environment allows is told in years, however few rows there are."""
    said = seems(table("2019-01-15T00:00:00Z"))
    assert said == "rows are 7 years old; environment `pilot` may hold 30 days"
    assert seems(table("2026-01-30T00:00:00Z")) == ""


def test_more_rows_than_allowed_look_real() -> None:
    """An environment's ceiling counts, in rows of all tables together."""
    assert (
        seems(table(rows=1001), max_rows=1000) == "1,001 rows; environment `pilot` may hold 1,000"
    )
    assert seems(table(rows=1000), max_rows=1000) == ""


def test_a_time_without_a_zone_is_taken_as_utc() -> None:
    """A naive column does not stop the judging."""
    assert seems(table("2019-01-15T00:00:00")) != ""


def test_the_policy_says_how_old_data_may_be_where_an_environment_does_not() -> None:
    """Without a bound of its own, an environment has the policy's."""
    old = table("2026-01-20T00:00:00Z")
    assert seems(old, max_age_s=None) == ""
    assert seems(old, Policy(data_age_s=86400), max_age_s=None) != ""


def test_what_cannot_be_measured_does_not_look_like_anything() -> None:
    """The guard refuses it for that; nothing is guessed here."""
    assert seems(None) == ""
    assert seems(MEASURE) == ""
