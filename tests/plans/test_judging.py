"""Judging: every guard speaks, in one order, and what fails refuses."""

from __future__ import annotations

from dataclasses import dataclass

from handrail.plans.judging import Case, judge
from handrail.plans.model import Decision, Verdict
from handrail.plans.policy import Policy
from support.builders import make_case, make_facts


@dataclass(frozen=True)
class Says:
    """A guard with one word."""

    name: str
    verdict: Verdict | None = "allow"

    def judge(self, case: Case) -> Decision | None:
        del case
        return None if self.verdict is None else Decision(self.name, self.verdict, "so")


@dataclass(frozen=True)
class Fails:
    """A guard with a defect."""

    name: str = "broken"

    def judge(self, case: Case) -> Decision:
        raise RuntimeError(f"no {case.plan.target.resource}")


def test_a_guard_that_raises_refuses() -> None:
    """What cannot be judged is not allowed, and the reason is shown."""
    plan = judge(make_case(), [Fails(), Says("a")])
    assert plan.verdict == "refuse"
    assert plan.decisions[0].because == "the guard itself failed: RuntimeError('no store/pilot-db')"


def test_a_fact_that_cannot_be_read_refuses() -> None:
    """No policy can turn that down: each such fact refuses on its own, with its reason."""
    facts = make_facts(unreadable=(("measure", "permission denied"), ("commit", "no git")))
    plan = judge(make_case(facts=facts), [])
    assert plan.verdict == "refuse"
    assert [(d.guard, d.because, d.binding) for d in plan.decisions] == [
        ("fact measure", "permission denied", True),
        ("fact commit", "no git", True),
    ]


def test_refusals_come_first_then_requirements_then_the_rest() -> None:
    """What stops the plan is read first; within the same, the order of the guards stays."""
    guards = [Says("a"), Says("b", "require"), Says("c", "refuse"), Says("d", "refuse"), Says("e")]
    plan = judge(make_case(), guards)
    assert [decision.guard for decision in plan.decisions] == ["c", "d", "b", "a", "e"]


def test_a_guard_that_does_not_bind_is_heard_and_stops_nothing() -> None:
    """It speaks after the others, is marked, and its refusal does not count."""
    policy = Policy(binding={"quiet": "critical"})
    case = make_case(policy=policy, risk="high")
    plan = judge(case, [Says("quiet", "refuse"), Says("loud")])
    assert [(d.guard, d.binding) for d in plan.decisions] == [("loud", True), ("quiet", False)]
    assert plan.verdict == "allow"


def test_the_strictest_binding_word_is_the_verdict() -> None:
    """Refuse is stricter than require, and require than allow."""
    assert judge(make_case(), [Says("a")]).verdict == "allow"
    assert judge(make_case(), [Says("a"), Says("b", "require")]).verdict == "require"
    both = [Says("a", "require"), Says("b", "refuse")]
    assert judge(make_case(), both).verdict == "refuse"


def test_a_guard_may_have_nothing_to_say() -> None:
    """None is no decision."""
    assert judge(make_case(), [Says("a", None)]).decisions == ()


def test_a_decision_says_where_its_rule_stands() -> None:
    """The guard's own word, else the line of the policy, else the default."""
    policy = Policy(where={"a": "policy.yaml:3"}, file="policy.yaml")
    plan = judge(make_case(policy=policy), [Says("a"), Says("b")])
    assert [decision.declared for decision in plan.decisions] == ["policy.yaml:3", "policy.yaml"]
    assert judge(make_case(), [Says("a")]).decisions[0].declared == "default policy"


def test_judging_changes_nothing_but_the_decisions() -> None:
    """The digest, the facts and the rest of the plan stay what they were; twice is once."""
    case = make_case()
    once = judge(case, [Says("a", "refuse")])
    again = judge(Case(once, case.operation, case.estate, case.policy), [Says("a", "refuse")])
    assert once == again
    assert once.digest == case.plan.digest
