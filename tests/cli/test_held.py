"""What a person reads of a guard: before a run, when it stopped one, and afterwards."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from inline_snapshot import snapshot

from handrail.cli import held, run
from handrail.cli.call import Call
from handrail.core.outcome import Outcome
from handrail.plans.effect import Effect
from handrail.plans.holding import Event, Report, Stop
from handrail.plans.model import Allowance
from support.builders import STORE, make_facts, make_plan, make_rehearsal

DELETED = Effect(STORE, "delete", "table", "sessions", 217)
ALLOWED = Allowance(STORE, "delete", "table", "sessions", 214, 2)
STOP = Stop(
    "would delete table sessions 217 rows; budget 214, tolerance 2",
    "DELETE FROM sessions WHERE pilot = $1",
    DELETED,
    ALLOWED,
    kept=2,
)


def shown(stop: Stop, *effects: Effect) -> str:
    report = Report(STORE, "before COMMIT", effects, stop)
    outcome = Outcome(412, "over-budget", "", effects, report=report)
    options: Any = SimpleNamespace(json=False)
    return "\n".join(run._lines(Call(options), outcome, make_plan())) + "\n"


def test_stopped() -> None:
    """What, how much of it, the statement, what was kept, and the way back."""
    assert shown(STOP, replace(DELETED, rows=3)) == snapshot("""\
stopped before COMMIT: ./scripts/reset_pilot.sh would have deleted more than it did in rehearsal

  table sessions    217 deleted so far; budget 214, tolerance 2
  statement         DELETE FROM sessions WHERE pilot = $1
  state             nothing of this transaction was kept; 2 earlier ones were: handrail runs show
                    412

  delete  table sessions  3 rows

next: handrail undo 412     puts back what was kept, or
      handrail rehearse reset-pilot     if that is what you meant
""")


def test_stopped_with_nothing_kept() -> None:
    """Where nothing was kept there is nothing to undo, and it is not proposed."""
    assert shown(replace(STOP, kept=0, statement="")) == snapshot("""\
stopped before COMMIT: ./scripts/reset_pilot.sh would have deleted more than it did in rehearsal

  table sessions    217 deleted so far; budget 214, tolerance 2
  state             nothing that it did was kept

next: handrail rehearse reset-pilot     if that is what you meant
""")


def test_stopped_at_what_was_not_rehearsed() -> None:
    """What the rehearsal did not do at all is said so."""
    stop = replace(STOP, effect=replace(DELETED, verb="drop", rows=None), allowed=None, kept=1)
    assert shown(stop, DELETED).startswith(
        "stopped before COMMIT: ./scripts/reset_pilot.sh would have dropped table sessions, which"
    )


def test_stopped_for_another_reason() -> None:
    """A reason that is not an amount is given as the guard gives it."""
    stop = Stop("the original was written meanwhile", "")
    assert shown(stop).startswith(
        "stopped before COMMIT: ./scripts/reset_pilot.sh: the original was written meanwhile\n"
    )


@pytest.mark.parametrize("text", ["\x1b[2J" * 90, "SELECT " + "x, " * 90])
def test_fits(text: str) -> None:
    """However long or hostile a statement or a name is, the lines fit and move no cursor."""
    stop = replace(STOP, statement=text, effect=replace(DELETED, name=text))
    lines = held.stop_lines(stop, "before COMMIT", "reset.sh", "its budget allows", "")
    assert max(map(len, "\n".join(lines[2:]).split("\n"))) <= 100
    assert "\x1b" not in "".join(lines)


def test_before_a_run() -> None:
    """A plan says how its run will be held, and what of it could only be undone."""
    rehearsal = make_rehearsal(
        how="before COMMIT",
        unheld=("VACUUM sessions", "CALL purge()", "REINDEX TABLE CONCURRENTLY s", "VACUUM b"),
        role_because="drop table readings needs an owner",
    )
    plan = make_plan(facts=make_facts(rehearsal=rehearsal, avoidable="no namespaces here"))
    assert "\n".join(held.plan_lines(plan)) + "\n" == snapshot("""\
held: before COMMIT, by the gate alone: drop table readings needs an owner
can only be undone: VACUUM sessions; CALL purge(); REINDEX TABLE CONCURRENTLY s; and 1 more
it could go round the guard: no namespaces here
""")


@pytest.mark.parametrize(
    ("how", "role", "said"),
    [
        ("before COMMIT", "limited", "held: before COMMIT, by privilege and gate"),
        ("observed only", "own", "held: not at all; what it does can only be undone"),
    ],
)
def test_how(how: str, role: str, said: str) -> None:
    """Held by privilege, by the gate alone, or not at all: a plan says which."""
    plan = make_plan(facts=make_facts(rehearsal=make_rehearsal(how=how, role=role)))
    assert held.plan_lines(plan)[0].strip() == said


def test_after_a_command() -> None:
    """Each store with how it was held, what took effect as it ran, and every way round tried."""
    events = tuple(Event("bypass", f"tried to reach 10.0.0.{n}:5432") for n in range(14))
    report = Report(
        STORE, "before COMMIT", unheld=("VACUUM",), events=events, avoidable="no namespaces here"
    )
    assert "\n".join(held.report_lines([report])) + "\n" == snapshot("""\
store/pilot-db: each transaction was held before its COMMIT
it could have gone round the guard: no namespaces here
took effect as it ran: VACUUM
    bypass  tried to reach 10.0.0.0:5432
    bypass  tried to reach 10.0.0.1:5432
    bypass  tried to reach 10.0.0.2:5432
    bypass  tried to reach 10.0.0.3:5432
    bypass  tried to reach 10.0.0.4:5432
    bypass  tried to reach 10.0.0.5:5432
    bypass  tried to reach 10.0.0.6:5432
    bypass  tried to reach 10.0.0.7:5432
    bypass  tried to reach 10.0.0.8:5432
    bypass  tried to reach 10.0.0.9:5432
    bypass  tried to reach 10.0.0.10:5432
    bypass  tried to reach 10.0.0.11:5432
    and 2 more: --json shows all
""")
