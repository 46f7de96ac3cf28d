"""A script behind a guard: what it is held to, and what comes of what the guard says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from handrail.core import guarding, records
from handrail.errors import JournalError
from handrail.plans.effect import Effect
from handrail.plans.holding import Event, Limits, Report, Stop
from handrail.plans.model import Plan
from handrail.ports import Connection, Finished, Record
from handrail.testing.journal import MemoryJournal
from handrail.testing.processes import Call
from support.worlds import ROWS, TRIM, FakeWorld, make_world

STORE = "store/pilot-db"
DELETED = Effect(STORE, "delete", "table", "sessions", 15)
COUNTED = Report(STORE, "before COMMIT", (DELETED,), trace=("DELETE FROM sessions WHERE id > $1",))
MORE = Effect(STORE, "delete", "table", "sessions", 217)
STOPPED = Stop("would delete 217 rows of table sessions; budget 15", "DELETE FROM sessions", MORE)


def run_records(fake: FakeWorld, kind: str) -> list[dict[str, object]]:
    return [records.body(r) for r in fake.journal.records("run-1") if r.kind == kind]


def test_rehearsal_measures_behind_a_guard(fake: FakeWorld) -> None:
    """A rehearsal's script runs behind a guard that only measures, and its trace is kept."""
    fake.guards.report["measure"] = replace(COUNTED, unheld=("VACUUM sessions",))
    rehearsal = fake.rehearse().plan.facts.rehearsal
    assert [limits.mode for limits in fake.guards.opened] == ["measure"]
    assert rehearsal is not None
    assert rehearsal.trace == COUNTED.trace
    assert rehearsal.unheld == ("VACUUM sessions",)
    assert (rehearsal.how, rehearsal.counted) == ("before COMMIT", (DELETED,))


def test_budget_is_what_the_guard_counted(fake: FakeWorld) -> None:
    """The budget has the guard's rows, while the effects shown are the store's."""
    gross = replace(DELETED, rows=400)
    fake.guards.report["measure"] = replace(COUNTED, effects=(gross,))
    plan = fake.rehearse().plan
    assert plan.budget is not None
    assert [a.rows for a in plan.budget.allowances] == [400]
    assert plan.effects is not None
    assert [effect.rows for effect in plan.effects] == [15]


def test_run_is_held(fake: FakeWorld) -> None:
    """A script is held to the budget, the trace and the unheld statements of its rehearsal."""
    fake.guards.report["measure"] = replace(COUNTED, unheld=("VACUUM sessions",))
    plan = fake.make_ready().plan
    fake.begin(fake.decide())
    held = fake.guards.opened[-1]
    assert held == Limits("hold", plan.budget, COUNTED.trace, ("VACUUM sessions",))


def test_policy_sets_the_limits(tmp_path: Path) -> None:
    """What happens at a divergence, and how long a statement is held, is the policy's."""
    fake = make_world(tmp_path / "fake", policy="guard: {divergence: refuse, hold: 5s}\n")
    fake.begin()
    held = fake.guards.opened[-1]
    assert (held.divergence, held.hold_s) == ("refuse", 5)


def test_without_a_budget(tmp_path: Path) -> None:
    """Without a budget nothing is refused, and everything is counted all the same."""
    fake = make_world(tmp_path / "fake")
    plan = replace(fake.decide().plan, budget=None)
    assert guarding.limits_of(plan, fake.declared.policy).mode == "measure"


def test_stopped_before_commit(fake: FakeWorld) -> None:
    """A run that its guard stopped is over budget, says why, and needs no undo."""
    fake.make_ready()
    fake.guards.report["hold"] = replace(COUNTED, effects=(), stop=STOPPED)
    fake.processes.programs = {"trim.sh": fake.program("", code=1)}
    outcome = fake.begin(fake.decide())
    assert (outcome.outcome, outcome.exit_code) == ("over-budget", 5)
    assert STOPPED.what in outcome.why
    assert outcome.report is not None
    assert outcome.report.stop == STOPPED
    assert "undo-begun" not in fake.kinds()
    assert fake.kinds()[-1] == "ended"


def test_what_was_kept_can_be_undone(fake: FakeWorld) -> None:
    """What earlier transactions of a stopped run kept stays, and `undo` puts it back."""
    fake.make_ready()
    one = replace(DELETED, rows=1)
    stop = replace(STOPPED, kept=1)
    fake.guards.report["hold"] = replace(COUNTED, effects=(one,), stop=stop, kept=1)
    fake.processes.programs = {"trim.sh": fake.program("DELETE FROM sessions WHERE id = 1", 1)}
    outcome = fake.begin(fake.decide())
    assert outcome.effects == (one,)
    assert fake.count() == ROWS - 1
    assert fake.undo().outcome == "undone"
    assert fake.count() == ROWS


def test_stopped_and_beyond(fake: FakeWorld) -> None:
    """Where more took effect than the budget although the guard stopped it, it is undone."""
    fake.make_ready()
    fake.guards.report["hold"] = replace(COUNTED, effects=(), stop=STOPPED, unheld=("CALL p()",))
    fake.processes.programs = {"trim.sh": fake.program("DROP TABLE devices", 1)}
    outcome = fake.begin(fake.decide())
    assert outcome.outcome == "over-budget"
    assert [breach.effect.verb for breach in outcome.breaches] == ["drop"]
    assert "undo-done" in fake.kinds()
    assert fake.count("devices") == 3


def test_rows_of_others_do_not_count(fake: FakeWorld) -> None:
    """Where the guard counted the script's own rows, what others wrote holds nobody up."""
    fake.make_ready()
    fake.guards.report["hold"] = COUNTED
    fake.store.connected = ("psql as ana from 10.0.3.2",)
    fake.processes.programs = {"trim.sh": fake.program(f"{TRIM}; INSERT INTO devices VALUES (9,1)")}
    outcome = fake.begin(fake.decide())
    assert outcome.outcome == "confirmed"
    assert outcome.effects == (DELETED,)


@pytest.mark.parametrize(
    "report",
    [
        replace(COUNTED, how="observed only"),
        replace(COUNTED, unheld=("VACUUM",)),
        replace(COUNTED, avoidable="no namespaces"),
    ],
)
def test_all_that_is_seen_counts(fake: FakeWorld, report: Report) -> None:
    """Where something may have passed the guard uncounted, the store's own numbers are held."""
    fake.make_ready()
    fake.guards.report["hold"] = report
    fake.processes.programs = {"trim.sh": fake.program(f"{TRIM}; INSERT INTO devices VALUES (9,1)")}
    outcome = fake.begin(fake.decide())
    assert outcome.outcome == "over-budget"
    assert [breach.effect.name for breach in outcome.breaches] == ["devices"]


def test_shapes_are_the_stores(fake: FakeWorld) -> None:
    """A table that was dropped unseen by an exact guard is a breach all the same."""
    fake.make_ready()
    fake.guards.report["hold"] = COUNTED
    fake.processes.programs = {"trim.sh": fake.program(f"{TRIM}; DROP TABLE devices")}
    outcome = fake.begin(fake.decide())
    assert [breach.effect.verb for breach in outcome.breaches] == ["drop"]
    assert fake.count("devices") == 3


def test_no_guard(fake: FakeWorld) -> None:
    """Where no guard can be had nothing is run, and that is said."""
    fake.make_ready()
    fake.guards.refused = "the role may not be made"
    begun = len(fake.processes.runs)
    outcome = fake.begin(fake.decide())
    assert (outcome.outcome, outcome.why) == (
        "refused",
        "nothing was done: the role may not be made",
    )
    assert len(fake.processes.runs) == begun


def test_events(fake: FakeWorld) -> None:
    """Each event of a guard, and each address that the script tried, is journalled and told."""
    fake.make_ready()
    event = Event("diverged", "not in the rehearsal: DELETE FROM devices")
    fake.guards.report["hold"] = replace(COUNTED, events=(event,))

    def reaching(call: Call) -> Finished:
        fake.program(TRIM)(call)
        return Finished(0, "exited", 1.0, 0, reached=("10.0.3.7:5432",))

    fake.processes.programs = {"trim.sh": reaching}
    outcome = fake.begin(fake.decide())
    kinds = [body["event"] for body in run_records(fake, "guard-event")]
    assert kinds == [
        {"kind": "diverged", "text": event.text},
        {"kind": "bypass", "text": "tried to reach 10.0.3.7:5432"},
    ]
    assert outcome.report is not None
    assert [e.kind for e in outcome.report.events] == ["diverged", "bypass"]
    assert ("guard", f"diverged: {event.text}", False) in fake.talk.ended


def test_event_that_cannot_be_journalled(fake: FakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that cannot be journalled cuts the run off, after the script has ended."""
    fake.make_ready()
    append = MemoryJournal.append

    def failing(journal: MemoryJournal, chain: str, kind: str, body: dict[str, object]) -> Record:
        if kind == "guard-event":
            raise JournalError("journal.unwritable", "the disk is full")
        return append(journal, chain, kind, body)

    fake.guards.report["hold"] = replace(COUNTED, events=(Event("unheld", "VACUUM"),))
    monkeypatch.setattr(MemoryJournal, "append", failing)
    with pytest.raises(JournalError):
        fake.begin(fake.decide())
    assert fake.kinds()[-1] == "step-started"


# --- copies --------------------------------------------------------------------------------------


@pytest.fixture
def copied(fake: FakeWorld) -> FakeWorld:
    """A team whose store gives a run's script a copy."""
    fake.make_ready()
    fake.guards.copies = frozenset({"hold"})
    fake.guards.report["hold"] = Report(STORE, "copied and swapped in", (DELETED,), kept=1)
    return fake


def test_copy_is_swapped_in(copied: FakeWorld) -> None:
    """A script that ended well on a copy has its copy swapped in."""
    assert copied.begin(copied.decide()).outcome == "confirmed"
    assert copied.count() == 5


def test_copy_of_a_failed_script(copied: FakeWorld) -> None:
    """Nothing of a script that failed on a copy takes effect, so there is nothing to undo."""
    copied.processes.programs = {"trim.sh": copied.program(TRIM, code=3)}
    outcome = copied.begin(copied.decide())
    assert (outcome.outcome, outcome.why) == (
        "failed",
        "the script ended with exit 3, and changed nothing",
    )
    assert copied.count() == ROWS


def test_copy_of_an_interrupted_script(copied: FakeWorld) -> None:
    """Nothing of a script that was interrupted on a copy takes effect."""

    def interrupted(call: Call) -> int:
        copied.program(TRIM)(call)
        raise KeyboardInterrupt

    copied.processes.programs = {"trim.sh": interrupted}
    assert copied.begin(copied.decide()).outcome == "stopped"
    assert copied.count() == ROWS


def test_copy_that_cannot_be_settled(copied: FakeWorld) -> None:
    """A copy that cannot be swapped in is a failure, and not a script that changed nothing."""
    copied.guards.unsettled = "the original was written meanwhile"
    outcome = copied.begin(copied.decide())
    assert outcome.outcome == "failed"
    assert "not-settled" in outcome.why
    assert copied.count() == ROWS
    assert outcome.report is not None
    assert "the original was written meanwhile" in outcome.report.events[-1].text


def test_stopped_copy_and_others(copied: FakeWorld) -> None:
    """Where a copy was thrown away, what is seen is told, and not undone: it may be others'."""
    stop = Stop("would overwrite what others wrote", "")
    copied.guards.report["hold"] = Report(STORE, "copied and swapped in", stop=stop)

    def past_its_copy(_: Call) -> int:
        copied.store.execute("DELETE FROM devices")
        return 0

    copied.processes.programs = {"trim.sh": past_its_copy}
    outcome = copied.begin(copied.decide())
    assert (outcome.outcome, outcome.breaches) == ("over-budget", ())
    assert [effect.name for effect in outcome.effects or ()] == ["devices"]
    assert copied.count("devices") == 0
    assert copied.undo().outcome == "undone"
    assert copied.count("devices") == 3


def test_past_its_copy(copied: FakeWorld) -> None:
    """A script that was seen to go past its copy is held to all that is seen."""
    event = Event("bypass", "it wrote to the original")
    copied.guards.report["hold"] = Report(
        STORE, "copied and swapped in", (DELETED,), events=(event,), kept=1
    )
    copied.processes.programs = {"trim.sh": copied.program(f"{TRIM}; DELETE FROM devices")}
    outcome = copied.begin(copied.decide())
    assert outcome.report is not None
    assert outcome.report.avoidable == "it went past its copy"
    assert [breach.effect.name for breach in outcome.breaches] == ["devices"]


def test_made_beside_the_copy(tmp_path: Path) -> None:
    """What a script made beside the copy of a file is carried to where it thought to make it."""
    real, copy = tmp_path / "data", tmp_path / "copy"
    for folder in (real, copy):
        folder.mkdir()
        (folder / "app.db").write_text(folder.name)
    (real / "kept").write_text("real")
    for name in ("made", "kept", "app.db-wal"):
        (copy / name).write_text("copy")
    guarding.carry_back(
        Connection({}, {"path": f"{real}/app.db"}), Connection({}, {"path": f"{copy}/app.db"})
    )
    assert {path.name: path.read_text() for path in real.iterdir()} == {
        "app.db": "data",
        "kept": "real",
        "made": "copy",
    }
    assert (copy / "app.db-wal").exists()


# --- undo scripts --------------------------------------------------------------------------------


def put_back(fake: FakeWorld) -> None:
    fill = f"""
        WITH RECURSIVE n (i) AS (SELECT 6 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
        INSERT INTO sessions SELECT i, i % 5 FROM n
    """
    fake.processes.programs = {
        "trim.sh": fake.program(TRIM),
        "undo.sh": fake.program(fill),
    }


def plan_of(fake: FakeWorld) -> Plan:
    return fake.make_ready().plan


def test_undo_script_has_its_own_budget(tmp_path: Path) -> None:
    """An undo script is held to what it did in rehearsal, and the digest covers that."""
    fake = make_world(tmp_path / "fake", undo="./scripts/undo.sh")
    put_back(fake)
    plan = plan_of(fake)
    assert plan.undo_budget is not None
    assert [(a.verb, a.name, a.rows) for a in plan.undo_budget.allowances] == [
        ("insert", "sessions", 15)
    ]
    fake.begin(fake.decide())
    fake.undo()
    assert fake.guards.opened[-1].budget == plan.undo_budget
    assert fake.count() == ROWS


def test_undo_script_that_is_stopped(tmp_path: Path) -> None:
    """An undo script that its guard stops has failed, and says why."""
    fake = make_world(tmp_path / "fake", undo="./scripts/undo.sh")
    put_back(fake)
    fake.begin()
    fake.guards.report["hold"] = replace(COUNTED, stop=STOPPED)
    outcome = fake.undo()
    assert outcome.outcome == "failed"
    assert "the undo script was stopped" in outcome.why
    assert STOPPED.what in outcome.why


# --- the cage ------------------------------------------------------------------------------------


def test_cage(fake: FakeWorld) -> None:
    """A run's script is kept to its guard in the network alone, and cannot see the journal."""
    fake.begin()
    confine = fake.processes.runs[-1].confine
    assert confine is not None
    assert confine.network_only
    assert confine.hidden == (fake.root / ".handrail",)
    assert fake.processes.runs[-1].watched is None


def test_avoidable(fake: FakeWorld) -> None:
    """On a machine that cannot confine, the plan and the report say that the guard is avoidable."""
    fake.processes.unconfinable = "no namespaces here"
    decided = fake.make_ready()
    assert decided.plan.facts.avoidable == "no namespaces here"
    fake.guards.report["hold"] = COUNTED
    outcome = fake.begin(decided)
    assert outcome.report is not None
    assert outcome.report.avoidable == "no namespaces here"


@pytest.mark.parametrize(("said", "verdict"), [("refuse", "refuse"), ("require", "require")])
def test_policy_on_avoidable(tmp_path: Path, said: str, verdict: str) -> None:
    """A policy may refuse what is avoidable, or ask for another person's approval."""
    fake = make_world(tmp_path / "fake", policy=f"guard: {{avoidable: {said}}}\n")
    fake.processes.unconfinable = "no namespaces here"
    plan = fake.rehearse().plan
    decision = next(d for d in plan.decisions if d.guard == "avoidable")
    assert (decision.verdict, plan.verdict) == (verdict, verdict)
    assert "no namespaces here" in decision.because


def test_policy_on_unheld(tmp_path: Path) -> None:
    """A policy may refuse statements that take effect as they run."""
    fake = make_world(tmp_path / "fake", policy="guard: {unheld: refuse}\n")
    fake.guards.report["measure"] = replace(COUNTED, unheld=("VACUUM sessions",))
    plan = fake.rehearse().plan
    assert plan.verdict == "refuse"
    assert any("VACUUM sessions" in d.because for d in plan.decisions if d.guard == "unheld")
