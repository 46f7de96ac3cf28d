"""The guards that look at the target: who it is, who holds it, where it belongs, what is in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from handrail.errors import Place
from handrail.guards import environment, identity, lock, production_data
from handrail.operations.model import Selector
from handrail.plans.facts import Measure, TableMeasure
from support.builders import (
    IDENTITY,
    make_case,
    make_estate,
    make_facts,
    make_operation,
    make_store,
)

OLD = Measure((TableMeasure("readings", 3, "2019-01-15T00:00:00Z"),), 1)
DECLARED = "estate/pilot.yaml:6"
UNDECLARED = make_operation(declared=False)


class TestIdentity:
    def test_the_one_that_was_adopted_is_allowed(self) -> None:
        """Same id, same endpoint: it is the one."""
        decision = identity.judge(make_case())
        assert (decision.verdict, decision.declared) == ("allow", DECLARED)
        assert IDENTITY.endpoint in decision.because

    def test_one_that_does_not_answer_is_refused(self) -> None:
        """Who says nothing proves nothing."""
        decision = identity.judge(make_case(facts=make_facts(identity=None)))
        assert (decision.verdict, decision.declared) == ("refuse", DECLARED)
        assert decision.remedy == "make it reachable, then plan again"

    @pytest.mark.parametrize(
        "found",
        [
            replace(IDENTITY, id="sqlite:another"),
            replace(IDENTITY, endpoint="/srv/data/copy.db"),
        ],
    )
    def test_another_one_is_refused(self, found: object) -> None:
        """A clone shares the id and another server the address: both must be equal."""
        decision = identity.judge(make_case(facts=make_facts(identity=found)))
        assert decision.verdict == "refuse"
        assert str(IDENTITY) in decision.because
        assert str(found) in decision.because
        assert decision.remedy.endswith("handrail adopt store/pilot-db")

    def test_a_clone_is_refused_even_when_it_was_adopted(self) -> None:
        """What a rehearsal made is never a target."""
        clone = replace(IDENTITY, marker="m")
        decision = identity.judge(make_case(facts=make_facts(identity=clone)))
        assert (decision.verdict, decision.because) == (
            "refuse",
            "/srv/data/pilot.db is a clone that a rehearsal made",
        )

    def test_one_that_was_never_adopted_is_refused(self) -> None:
        """The remedy is the command."""
        decision = identity.judge(make_case(estate=make_estate(make_store(identity=""))))
        assert decision.verdict == "refuse"
        assert decision.remedy == "handrail adopt store/pilot-db"

    def test_without_a_declaration_there_is_nothing_to_compare(self) -> None:
        """A script that nobody declared may be planned on whoever answers, but not on a clone."""
        estate = make_estate(make_store(identity=""))
        case = make_case(operation=UNDECLARED, estate=estate)
        assert identity.judge(case).verdict == "allow"
        clone = make_facts(identity=replace(IDENTITY, marker="m"))
        case = make_case(operation=UNDECLARED, estate=estate, facts=clone)
        assert identity.judge(case).verdict == "refuse"


class TestLock:
    def test_a_free_target_is_allowed(self) -> None:
        """Nobody runs on it."""
        assert lock.judge(make_case()).verdict == "allow"

    def test_a_held_target_is_refused(self) -> None:
        """The holder is named."""
        decision = lock.judge(make_case(facts=make_facts(holder="run 411 of ben")))
        assert (decision.verdict, decision.because) == (
            "refuse",
            "run 411 of ben holds store/pilot-db",
        )
        assert decision.remedy == "wait for it: handrail runs"

    def test_a_run_that_was_cut_off_is_refused(self) -> None:
        """Nothing begins on a target in an unknown state; the remedy is the command."""
        decision = lock.judge(make_case(facts=make_facts(unfinished=(411,))))
        assert (decision.verdict, decision.remedy) == ("refuse", "handrail resume 411")


class TestEnvironment:
    def test_the_environment_that_it_is_for_is_allowed(self) -> None:
        """The decision names the environment and the operation's place."""
        decision = environment.judge(make_case())
        assert (decision.verdict, decision.declared) == ("allow", "operations/reset-pilot.yaml:1")
        assert "`pilot`" in decision.because

    @pytest.mark.parametrize("where", ["production", ""])
    def test_another_environment_is_refused(self, where: str) -> None:
        """Also none at all: what belongs nowhere is not the pilot."""
        decision = environment.judge(make_case(estate=make_estate(make_store(environment=where))))
        assert decision.verdict == "refuse"
        assert f"`{where or 'no environment'}`" in decision.because
        assert decision.remedy

    def test_another_store_than_the_one_it_is_for_is_refused(self) -> None:
        """An operation for one store runs on no other."""
        other = make_operation(on=Selector("store", "other-db"))
        decision = environment.judge(make_case(operation=other))
        assert (decision.verdict, decision.because) == (
            "refuse",
            "the operation is for store/other-db alone",
        )
        mine = make_operation(on=Selector("store", "pilot-db"))
        assert environment.judge(make_case(operation=mine)).verdict == "allow"

    def test_a_script_that_nobody_declared_names_no_environment(self) -> None:
        """There is nothing that it could break; other guards look at it."""
        assert environment.judge(make_case(operation=UNDECLARED)).verdict == "allow"


class TestProductionData:
    def test_few_and_young_rows_are_allowed(self) -> None:
        """What looks like a test database is one."""
        decision = production_data.judge(make_case())
        assert (decision.verdict, decision.because) == ("allow", "520 rows, none of them old")

    def test_old_rows_that_nobody_declared_are_refused(self) -> None:
        """The reason says how old, the place is the environment's, the remedy what to write."""
        decision = production_data.judge(make_case(facts=make_facts(measure=OLD)))
        assert decision.verdict == "refuse"
        assert decision.because == "rows are 7 years old; environment `pilot` may hold 30 days"
        assert decision.declared == "estate/pilot.yaml:3"
        assert "holds: [production-data]" in decision.remedy

    @pytest.mark.parametrize(
        "estate",
        [
            make_estate(make_store(holds=("production-data",))),
            make_estate(production=True),
        ],
    )
    def test_what_is_declared_is_allowed_and_guarded_so(self, estate: object) -> None:
        """Declared as real, it is judged as real by all the others."""
        case = make_case(estate=estate, facts=make_facts(measure=OLD))  # type: ignore[arg-type]  # pytest
        decision = production_data.judge(case)
        assert decision.verdict == "allow"
        assert case.plan.target.is_real

    def test_what_nobody_would_miss_is_allowed(self) -> None:
        """A store that is declared lossy may hold old rows."""
        estate = make_estate(make_store(durability="lossy"))
        decision = production_data.judge(make_case(estate=estate, facts=make_facts(measure=OLD)))
        assert decision.verdict == "allow"
        assert "nobody would miss it" in decision.because

    def test_what_cannot_be_measured_is_refused(self) -> None:
        """A fact that cannot be read refuses."""
        decision = production_data.judge(make_case(facts=make_facts(measure=None)))
        assert (decision.verdict, decision.declared) == ("refuse", DECLARED)

    def test_an_undeclared_database_with_old_rows_is_refused(self) -> None:
        """The way on is to declare it."""
        estate = make_estate(make_store(environment="", place=Place("--on")))
        case = make_case(operation=UNDECLARED, estate=estate, facts=make_facts(measure=OLD))
        decision = production_data.judge(case)
        assert (decision.verdict, decision.declared) == ("refuse", "default policy")
        assert decision.remedy == "declare the database: handrail init --from"
