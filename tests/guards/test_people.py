"""The guards that look at people and at the calendar: second person, typed name, freeze."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from handrail.cli.screen import short
from handrail.guards import BUILT_IN, freeze, second_person, typed_name
from handrail.plans.bounds import bounds_of
from handrail.plans.judging import Case
from handrail.plans.model import Approval, Decision
from handrail.plans.policy import BINDING, Freeze, Policy
from support.builders import (
    ANA,
    BEN,
    CHI,
    make_approval,
    make_case,
    make_facts,
    make_plan,
    make_request,
)

DIGEST = make_plan().digest
GROUP = Policy(approvers={"high": "dba"}, groups={"dba": (ANA, BEN)})


def case_with(*approvals: Approval, policy: Policy | None = None, person: str = ANA) -> Case:
    return make_case(
        facts=make_facts(approvals=approvals),
        policy=policy,
        request=make_request(person=person),
        risk="high",
    )


class TestSecondPerson:
    def test_it_is_required_first(self) -> None:
        """The remedy is the command with the plan's short digest."""
        decision = second_person.judge(case_with())
        assert (decision.verdict, decision.remedy) == (
            "require",
            f"handrail approve {short(DIGEST)}",
        )
        assert decision.because == f"anybody in allowed_signers, not {ANA}"

    def test_another_persons_approval_is_allowed(self) -> None:
        """Who, when and why is shown."""
        decision = second_person.judge(case_with(make_approval(DIGEST, because="test day")))
        assert (decision.verdict, decision.because) == (
            "allow",
            f'{BEN}, 2026-01-31T08:30, "test day"',
        )

    @pytest.mark.parametrize(
        "approval",
        [
            make_approval(DIGEST, ANA),
            make_approval(DIGEST, ANA.upper()),
            make_approval("0" * 64),
            make_approval(DIGEST, expires_at="2026-01-31T09:00:00.000000Z"),
        ],
        ids=["own", "own in capitals", "another plan", "expired"],
    )
    def test_one_that_does_not_count_does_not(self, approval: Approval) -> None:
        """One's own, one over another digest, and one that is over are none."""
        assert second_person.judge(case_with(approval)).verdict == "require"

    def test_the_policy_may_name_a_group(self) -> None:
        """Only its members count; those who can help are named, without the requester."""
        outside = second_person.judge(case_with(make_approval(DIGEST, CHI), policy=GROUP))
        assert (outside.verdict, outside.because) == (
            "require",
            f"one of `dba` ({BEN}), not {ANA}",
        )
        inside = second_person.judge(case_with(make_approval(DIGEST, BEN), policy=GROUP))
        assert inside.verdict == "allow"

    def test_a_group_is_for_its_risk(self) -> None:
        """Where the policy names none for a risk, anybody in allowed_signers counts."""
        policy = Policy(approvers={"critical": "dba"}, groups={"dba": (BEN,)})
        decision = second_person.judge(case_with(make_approval(DIGEST, CHI), policy=policy))
        assert decision.verdict == "allow"

    def test_a_quorum_says_who_has_and_who_may(self) -> None:
        """Each person counts once; who asks is no candidate, whatever the group says."""
        policy = Policy(
            approvers={"high": "dba"}, quorum={"high": 2}, groups={"dba": (ANA, BEN, CHI)}
        )
        twice = [make_approval(DIGEST, BEN, id="a-1"), make_approval(DIGEST, BEN.upper(), id="a-2")]
        waiting = second_person.judge(case_with(*twice, policy=policy))
        assert (waiting.verdict, waiting.because) == (
            "require",
            f"2 of `dba`: {BEN} has; {CHI} may, not {ANA}",
        )
        small = replace(policy, groups={"dba": (ANA, BEN)})
        assert second_person.judge(case_with(*twice, policy=small)).because == (
            f"2 of `dba`: {BEN} has; nobody else is in it, not {ANA}"
        )
        both = case_with(*twice, make_approval(DIGEST, CHI, id="a-3"), policy=policy)
        assert second_person.judge(both).because == (
            f"{BEN}, 2026-01-31T08:30; {CHI}, 2026-01-31T08:30"
        )

    def test_one_that_stands_counts_inside_its_bounds(self) -> None:
        """Its digest is another plan's; what counts is that this one is inside, and until when."""
        plan = make_plan()
        stands = make_approval("0" * 64, bounds=replace(bounds_of(plan), risk="high"))
        allowed = second_person.judge(case_with(stands))
        assert (allowed.verdict, allowed.because) == (
            "allow",
            f"standing approval of {BEN}, until 2026-01-31T10:00",
        )
        beyond = replace(stands, bounds=replace(bounds_of(plan), material="0" * 64))
        assert second_person.judge(case_with(beyond)).verdict == "require"

    def test_who_is_not_known_is_refused(self) -> None:
        """Any approval could be their own."""
        decision = second_person.judge(case_with(make_approval(DIGEST), person=""))
        assert (decision.verdict, decision.remedy.startswith("git config")) == ("refuse", True)


class TestTypedName:
    def test_it_is_required_first(self) -> None:
        """The reason says what is to be typed."""
        decision = typed_name.judge(case_with())
        assert (decision.verdict, decision.because) == (
            "require",
            "the approver types store/pilot-db",
        )
        assert decision.remedy == f"handrail approve {short(DIGEST)}"

    @pytest.mark.parametrize(
        ("approval", "verdict"),
        [
            (make_approval(DIGEST, named_target=True), "allow"),
            (make_approval(DIGEST), "require"),
            (make_approval(DIGEST, ANA, named_target=True), "require"),
            (make_approval("0" * 64, named_target=True), "require"),
        ],
        ids=["typed", "not typed", "typed by the requester", "typed for another plan"],
    )
    def test_an_approval_with_the_name_typed_counts(self, approval: Approval, verdict: str) -> None:
        """Typed by somebody else, over this very digest."""
        assert typed_name.judge(case_with(approval)).verdict == verdict


def judge_freeze(risk: str, **said: Any) -> Decision:
    rest: dict[str, Any] = dict.fromkeys(("start", "end", "first", "last", "because"), "")
    whole = {"risk": "high", "days": (), "zone": "UTC", "place": "policy.yaml:9", **rest, **said}
    return freeze.judge(make_case(policy=Policy(freezes=(Freeze(**whole),)), risk=risk))


class TestFreeze:
    """The facts are of Saturday 31 January 2026, 09:00 UTC."""

    def test_outside_of_every_freeze_is_allowed(self) -> None:
        """A freeze of another day or time does not cover now."""
        for said in ({"days": ("friday",)}, {"start": "09:01"}, {"last": "2026-01-30"}):
            assert judge_freeze("critical", **said).verdict == "allow"
        assert freeze.judge(make_case()).verdict == "allow"

    def test_inside_of_one_is_refused(self) -> None:
        """The reason is the team's, the place is the policy's line, the remedy says until when."""
        decision = judge_freeze("high", end="12:00", because="the fair is on")
        assert (decision.verdict, decision.because) == ("refuse", "the fair is on")
        assert (decision.declared, decision.remedy) == ("policy.yaml:9", "wait until 12:00 UTC")

    def test_a_lower_risk_is_allowed(self) -> None:
        """A freeze names the lowest risk that it is for."""
        assert judge_freeze("low").verdict == "allow"
        assert judge_freeze("high").verdict == "refuse"
        assert judge_freeze("critical").verdict == "refuse"

    def test_a_range_of_dates_says_its_last_day(self) -> None:
        """Whoever is refused learns when it ends."""
        decision = judge_freeze("high", first="2026-01-01", last="2026-02-15")
        assert decision.remedy == "wait until the end of the day UTC on 2026-02-15"


def test_every_guard_has_a_rule_in_the_policy() -> None:
    """No built-in guard is without a risk at which it binds, and no rule is without its guard."""
    assert sorted(guard.name for guard in BUILT_IN) == sorted(BINDING)


def test_a_good_plan_is_allowed_by_every_guard_but_those_for_people() -> None:
    """The builders' plan is well: what a test changes is what it is about."""
    words = {guard.name: guard.judge(make_case()) for guard in BUILT_IN}
    other = {name for name, word in words.items() if word is None or word.verdict != "allow"}
    assert other == {"second-person", "typed-name"}


def test_every_word_that_is_no_yes_says_what_to_do() -> None:
    """A refusal without a way forward is a defect: each has a remedy, or a place to look at."""
    facts = make_facts(
        identity=None,
        measure=None,
        holder="x",
        change=None,
        rehearsal=None,
        proof=None,
        uncommitted=("a",),
    )
    case = make_case(facts=facts)
    words = [word for guard in BUILT_IN if (word := guard.judge(case)) and word.verdict != "allow"]
    assert len(words) >= 7
    assert all(word.remedy or word.declared for word in words)
