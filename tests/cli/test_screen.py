"""The screen: what a plan looks like, in lines that fit, with nothing that moves a cursor."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from handrail.cli import screen
from handrail.guards import BUILT_IN
from handrail.operations.model import Undo
from handrail.plans.deeds import next_deeds
from handrail.plans.effect import VERBS, Effect
from handrail.plans.judging import judge
from handrail.plans.model import Breach, Decision, Plan
from support.builders import (
    BEN,
    IDENTITY,
    STORE,
    make_approval,
    make_case,
    make_effect,
    make_estate,
    make_facts,
    make_operation,
    make_plan,
    make_rehearsal,
    make_service,
    make_store,
)

CONTROLS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
HOSTILE = "a\nrefused: \x1b[2J\u202e\x9b31m\r\u200bz"


def judged(**changed: Any) -> Plan:
    return judge(make_case(**changed), BUILT_IN)


def shown(**changed: Any) -> str:
    return "\n".join(screen.plan_lines(judged(**changed))) + "\n"


DROPPED = make_facts(
    rehearsal=make_rehearsal(
        make_effect("drop", "readings", 2_913_402),
        make_effect("delete", "sessions", 214),
        Effect(STORE, "alter", "column", "devices.id", detail="now integer, was text"),
        reached=("10.0.3.9:6379", "/tmp/pilot.lock"),
    )
)
DEPENDANTS = make_estate(
    make_store(holds=("production-data",)),
    make_service("ml-export", STORE),
    make_service("pilot-api", "service/ml-export?"),
)


def test_a_plan_that_nobody_rehearsed_is_refused() -> None:
    """Where, what, why it is so bad, every refusal with its place, and what is next."""
    facts = make_facts(rehearsal=None, proof=None, others=("psql as ana from 10.0.3.2",))
    assert shown(facts=facts) == snapshot("""\
refused: reset-pilot on store/pilot-db                                       risk critical

  where   SQLite 3.40.1, 5d0c at /srv/data/pilot.db, the one that was adopted
          520 rows in 2 tables, 8.2 KB; declared as environment `pilot`
          1 other connected: psql as ana from 10.0.3.2
  what    unknown: ./scripts/reset_pilot.sh has not been rehearsed as it is now (ccccccc, changed 2
          h ago by ana@example.org)
  risk    critical: nobody knows what it does to durable store/pilot-db

  x  backup-proven  no backup of store/pilot-db has ever been restored           estate/pilot.yaml:6
  x  rehearsed      not at this version                                operations/reset-pilot.yaml:1
  .  second-person  anybody in allowed_signers, not ana@example.org                   default policy
  .  typed-name     the approver types store/pilot-db                                 default policy
  ok identity, lock, environment, production-data, contraindication, freeze, committed, review,
     irreversible

next: handrail rehearse reset-pilot
""")


def test_a_rehearsed_plan_waits_for_a_second_person() -> None:
    """Effects worst first and in numbers, what they mean for others, and whom to ask."""
    assert shown(facts=DROPPED, estate=DEPENDANTS) == snapshot("""\
waiting: reset-pilot on store/pilot-db                                       risk critical

  where   SQLite 3.40.1, 5d0c at /srv/data/pilot.db, the one that was adopted
          520 rows in 2 tables, 8.2 KB; declared as environment `pilot`
          last proven backup 60 min ago: restored in 0.20 s
  what    ./scripts/reset_pilot.sh (ccccccc, changed 2 h ago by ana@example.org), measured in
          rehearsal
  risk    critical: drop table readings of 2,913,402 rows, real data

reset-pilot would, on store/pilot-db:
  drop    table readings     2,913,402 rows
  delete  table sessions           214 rows
  alter   column devices.id                  now integer, was text
also reached: 10.0.3.9:6379 (not declared), /tmp/pilot.lock (not declared)
and so:
  service/ml-export  stops     needs store/pilot-db (hard)
  service/pilot-api  degraded  through service/ml-export (soft)

  .  second-person  anybody in allowed_signers, not ana@example.org                   default policy
  .  typed-name     the approver types store/pilot-db                                 default policy
  ok identity, lock, environment, production-data, contraindication, freeze, backup-proven,
     rehearsed, committed, review, irreversible, avoidable, unheld, privilege

next: handrail approve fd1d-b946
""")


def test_an_approved_plan_of_risk_high_is_ready() -> None:
    """Everything is still shown; the next command is the run."""
    facts = make_facts(approvals=(make_approval(make_plan().digest),))
    assert shown(facts=facts) == snapshot("""\
ready: reset-pilot on store/pilot-db                                             risk high

  where   SQLite 3.40.1, 5d0c at /srv/data/pilot.db, the one that was adopted
          520 rows in 2 tables, 8.2 KB; declared as environment `pilot`
          last proven backup 60 min ago: restored in 0.20 s
  what    ./scripts/reset_pilot.sh (ccccccc, changed 2 h ago by ana@example.org), measured in
          rehearsal
  risk    high: delete table sessions of 500 rows, durable data

reset-pilot would, on store/pilot-db:
  delete  table sessions  500 rows

  ok identity, lock, environment, production-data, contraindication, freeze, backup-proven,
     rehearsed, committed, review, irreversible, avoidable, unheld, privilege, second-person

next: handrail run 3c86-44ad
""")


def test_an_approved_plan_of_risk_critical_is_ready() -> None:
    """The name was typed by the approver."""
    plan = make_plan(facts=DROPPED, estate=DEPENDANTS)
    approval = make_approval(plan.digest, named_target=True, because="test day")
    facts = replace(DROPPED, approvals=(approval,))
    lines = shown(facts=facts, estate=DEPENDANTS).splitlines()
    assert lines[0] == snapshot(
        "ready: reset-pilot on store/pilot-db                                         risk critical"
    )
    assert lines[-1] == f"next: handrail run {screen.short(plan.digest)}"


def test_a_plan_of_risk_low_prints_three_lines() -> None:
    """Silence costs nothing: what, how much, and the command."""
    facts = make_facts(rehearsal=make_rehearsal(make_effect("insert", rows=1200)))
    assert shown(facts=facts) == snapshot("""\
ready: reset-pilot on store/pilot-db                                              risk low
  insert table sessions 1,200 rows
next: handrail run 6a50-73d1
""")


def test_a_plan_of_risk_none_prints_three_lines() -> None:
    """A script that changed nothing asks for nothing."""
    facts = make_facts(rehearsal=replace(make_rehearsal(), effects=()))
    assert shown(facts=facts) == snapshot("""\
ready: reset-pilot on store/pilot-db                                             risk none
  it changed nothing in rehearsal
next: handrail run 9c11-71fc
""")


def test_a_target_that_does_not_answer_is_told_with_its_reason() -> None:
    """What could not be read stands where the server would stand, and refuses."""
    facts = make_facts(
        identity=None, measure=None, rehearsal=None, unreadable=(("identity", "no such host"),)
    )
    assert shown(facts=facts).partition("\n\n")[2].partition("\n\n")[0] == snapshot("""\
  where   store/pilot-db, which cannot be read: identity: no such host
  what    unknown: ./scripts/reset_pilot.sh has not been rehearsed as it is now (ccccccc, changed 2
          h ago by ana@example.org)
  risk    critical: nobody knows what it does to durable store/pilot-db\
""")


def test_what_is_next_is_in_an_order_that_works() -> None:
    """The rehearsal first, and no approval of a digest that the rehearsal changes."""
    facts = make_facts(rehearsal=None, uncommitted=("a",))
    deeds = next_deeds(judged(facts=facts))
    assert deeds[0] == "handrail rehearse reset-pilot"
    assert not any(deed.startswith("handrail approve") for deed in deeds)


def test_every_decision_is_explained() -> None:
    """Verdict, fact, place and remedy of each, also of those that do not bind."""
    lines = screen.explanation_lines(
        [
            Decision("review", "refuse", "nobody reviewed it", "policy.yaml:3", "let somebody"),
            Decision("freeze", "allow", "no freeze covers now", "default policy", binding=False),
        ]
    )
    assert "\n".join(lines) == snapshot("""\
  x  review: refuse
       because   nobody reviewed it
       declared  policy.yaml:3
       remedy    let somebody
  ok freeze: allow   (does not bind at this risk)
       because   no freeze covers now
       declared  default policy\
""")


def test_a_breach_says_what_was_allowed() -> None:
    """Beside what was done stands the budget, or that it was not in the rehearsal."""
    plan = make_plan()
    assert plan.budget is not None
    over = Breach(make_effect(rows=1217), plan.budget.allowances[0])
    new = Breach(make_effect("drop", "devices", 20), None)
    assert "\n".join(screen.breach_lines([over, new])) == snapshot("""\
  delete  table sessions  1,217 rows  budget 500, tolerance 5
  drop    table devices      20 rows  not in rehearsal\
""")


WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
EFFECTS = st.builds(
    Effect,
    resource=st.just(STORE),
    verb=st.sampled_from(VERBS),
    kind=st.sampled_from(["table", "column"]),
    name=st.text(min_size=1, max_size=200),
    rows=st.none() | st.integers(0, 10**15),
    detail=st.text(max_size=200),
)


@given(st.lists(EFFECTS, max_size=15), st.lists(WORDS, max_size=4), st.sampled_from(["", "x"]))
def test_lines_fit_and_hold_no_control_character(
    effects: list[Effect], words: list[str], why: str
) -> None:
    """Whatever somebody calls things: 100 columns, and nothing that moves a cursor."""
    reached = tuple(word.replace(" ", "") for word in words)
    facts = make_facts(
        rehearsal=replace(
            make_rehearsal(residue=tuple(words), reached=reached), effects=tuple(effects)
        ),
        others=tuple(words),
        unreadable=((why, " ".join(words)),) if why else (),
    )
    for line in "\n".join(screen.plan_lines(judged(facts=facts))).split("\n"):
        assert not any(unicodedata.category(c) in CONTROLS for c in line if c != "\t")
        # A word is never broken: what somebody copies stays whole.
        assert len(line) <= screen.WIDTH or len(max(line.split(" "), key=len)) > 60


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=5))
def test_a_table_fits_whatever_is_in_it(rows: list[tuple[str, str, str]]) -> None:
    """The longest cells lose their middles; every row keeps its line."""
    lines = screen.columns(rows, right=(1,))
    assert len(lines) == len(rows)
    assert all(len(line) <= screen.WIDTH for line in lines)


def test_what_is_too_long_for_a_table_keeps_both_its_ends() -> None:
    """A name is known by its beginning and its end; the amount beside it stays whole."""
    (line,) = screen.effect_lines([make_effect("drop", "a" * 100 + "z" * 100, 2_913_402)])
    assert line.startswith("  drop  table aaaa")
    assert "aa..zz" in line
    assert line.endswith("z  2,913,402 rows")


def test_a_name_with_line_ends_is_one_line() -> None:
    """A table cannot put a line of its own onto the screen."""
    facts = make_facts(rehearsal=make_rehearsal(make_effect("drop", HOSTILE, 5)))
    lines = shown(facts=facts)
    assert not any("\n" in line for line in screen.effect_lines([make_effect("drop", HOSTILE, 5)]))
    assert [line for line in lines.split("\n") if line.startswith("refused")] == []


def test_no_control_character_reaches_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither as text nor as JSON, and JSON still says what it was."""
    screen.write(HOSTILE)
    text = capsys.readouterr().out
    screen.write_json({"name": HOSTILE + "\x7f\U000e0001"})
    written = capsys.readouterr().out
    assert all(line.isprintable() for line in (text + written).split("\n"))
    assert json.loads(written) == {"name": HOSTILE + "\x7f\U000e0001"}


def test_json_of_any_bytes_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    """A file name that is no UTF-8 does not end the command."""
    screen.write_json({"file": "\udcff"})
    assert json.loads(capsys.readouterr().out) == {"file": "\udcff"}


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("2026-01-31T08:59:00Z", "just now"),
        ("2026-01-31T08:00:00Z", "60 min ago"),
        ("2026-01-31T07:00:00Z", "2 h ago"),
        ("2026-01-28T09:00:00Z", "on 2026-01-28"),
        ("2026-02-28T09:00:00Z", "on 2026-02-28"),
        ("2026-01-31T07:00:00", "2026-01-31T07:00:00"),
        ("yesterday", "yesterday"),
    ],
)
def test_a_time_is_relative_when_it_is_near(then: str, said: str) -> None:
    """Near ones in hours or minutes, far and future ones by date, others as they came."""
    assert screen.ago(then, "2026-01-31T09:00:00Z") == said


def test_an_irreversible_operation_says_so() -> None:
    """The risk's reason begins with it."""
    operation = make_operation(undo=Undo("irreversible", reason="the mails are sent"))
    risk = next(
        line for line in shown(operation=operation).split("\n") if line.startswith("  risk")
    )
    assert risk == snapshot(
        "  risk    critical: it cannot be undone; delete table sessions of 500 rows, durable data"
    )


def test_long_titles_wrap() -> None:
    """A script with a name of 90 characters still shows its risk."""
    facts = make_facts(identity=replace(IDENTITY, version=""), approvals=(make_approval("d", BEN),))
    plan = judged(facts=facts)
    request = replace(plan.request, operation="x" * 90)
    lines = "\n".join(screen.plan_lines(replace(plan, request=request))).split("\n")
    assert "risk high" in lines[2]
    assert all(len(line) <= screen.WIDTH for line in lines[:3])
