"""Laws of approvals: what bounds cover, and what has ended stays so, whatever is written again."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from handrail.core import records
from handrail.plans import quorum
from handrail.plans.bounds import bounds_of, breach, is_for
from handrail.plans.canonical import plain
from handrail.plans.model import Allowance, Budget
from handrail.plans.policy import Policy
from handrail.testing.clock import FakeClock
from handrail.testing.journal import MemoryJournal
from support.builders import ANA, BEN, CHI, make_approval, make_facts, make_plan, make_request

PLAN = make_plan()
ROWS = st.none() | st.integers(0, 5)
ALLOWANCES = st.builds(
    Allowance,
    st.just("store/a"),
    st.sampled_from(["delete", "drop"]),
    st.just("table"),
    st.sampled_from(["t", "u"]),
    ROWS,
    st.integers(0, 3),
)
BUDGETS = st.lists(ALLOWANCES, max_size=4, unique_by=lambda one: (one.verb, one.name)).map(
    lambda found: Budget(tuple(found), "rehearsal")
)


def most(budget: Budget, verb: str, name: str) -> float:
    """Return how many rows a budget allows of an effect: infinitely many without a number."""
    for one in budget.allowances:
        if (one.verb, one.name) == (verb, name):
            return float("inf") if one.rows is None else one.rows + one.tolerance
    return -1.0


@given(approved=BUDGETS, asked=BUDGETS)
def test_what_is_covered_may_do_no_more_than_was_signed(approved: Budget, asked: Budget) -> None:
    """A plan inside the bounds has no effect of which it may do more than the bounds say."""
    bounds = replace(bounds_of(PLAN), budget=approved)
    is_inside = not breach(bounds, replace(PLAN, budget=asked))
    no_more = all(
        most(asked, one.verb, one.name) <= most(approved, one.verb, one.name)
        for one in asked.allowances
    )
    assert is_inside == no_more


def test_a_plan_is_inside_its_own_bounds() -> None:
    """What was approved covers what was shown."""
    bounds = bounds_of(PLAN)
    assert is_for(bounds, PLAN)
    assert breach(bounds, PLAN) == ""
    other = make_plan(request=make_request(parameters={"days": "3"}))
    assert not is_for(bounds, other)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["approved", "used", "ended", "withdrawn", "expired"]),
        st.sampled_from(["a", "b", "c"]),
    ),
    max_size=12,
)


@given(events=EVENTS)
def test_what_has_ended_stays_so(events: list[tuple[str, str]]) -> None:
    """An approval counts when it was given and never ended, in whatever order records stand."""
    journal = MemoryJournal(FakeClock())
    for kind, name in events:
        body = plain(make_approval("0" * 64, id=name)) if kind == "approved" else {"id": name}
        assert isinstance(body, dict)
        journal.append("approvals-" + "0" * 64, kind, body)
    given_ones = {name for kind, name in events if kind == "approved"}
    over = {name for kind, name in events if kind != "approved"}
    found = {one.id for one in records.approvals(journal, "0" * 64)}
    assert found == given_ones - over


PEOPLE = st.lists(st.sampled_from([ANA, BEN, CHI, BEN.upper(), ANA.title(), "dan@x"]), max_size=6)


@given(people=PEOPLE, of=st.integers(1, 3), grouped=st.booleans())
def test_as_many_people_as_are_wanted(people: list[str], of: int, *, grouped: bool) -> None:
    """Enough is when so many different people, of the group and not the requester, approved."""
    plan = make_plan()
    approvals = [make_approval(plan.digest, who, id=f"a-{n}") for n, who in enumerate(people)]
    plan = replace(plan, facts=make_facts(approvals=tuple(approvals)))
    group = (ANA, BEN, CHI)
    policy = Policy(
        approvers={plan.risk: "dba"} if grouped else {},
        quorum={plan.risk: of},
        groups={"dba": group},
    )
    may = {who for who in people if not grouped or who in group}
    different = {who.casefold() for who in may} - {ANA.casefold()}
    assert quorum.lacking(plan, policy) == max(0, of - len(different))
