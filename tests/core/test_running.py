"""Running: a plan, once, inside its budget, watched, and undone when it was wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handrail.core import deciding
from handrail.errors import (
    HandrailError,
    JournalError,
    OverBudgetError,
    RefusedError,
    StoreError,
    UsageError,
    WaitingError,
)
from handrail.plans.facts import Backup
from handrail.ports import CheckResult, Finished, Progress, Record
from handrail.testing.journal import MemoryJournal
from handrail.testing.processes import Call
from support.worlds import HEALTH, ILL, ROWS, TRIM, WELL, FakeWorld, make_world

ALL_STAGES = [
    "opened",
    "approved",
    "backup-begun",
    "backup-done",
    "observed-before",
    "step-begun",
    "step-started",
    "step-done",
    "observed-after",
    "measured",
    "watch-begun",
    "health",
    "health",
    "watched",
    "ended",
]


def test_confirmed(fake: FakeWorld) -> None:
    """A run inside its budget and healthy is confirmed, with a record of every stage."""
    outcome = fake.begin()
    assert (outcome.outcome, outcome.exit_code) == ("confirmed", 0)
    assert fake.kinds() == ALL_STAGES
    assert fake.kinds("resource-store/pilot-db") == ["run-begun", "run-ended"]
    assert fake.count() == 5
    assert not (fake.root / ".handrail/runs/1/before").exists()


def test_needs_somebody(fake: FakeWorld) -> None:
    """A plan that nobody approved waits, and one that a guard refuses is refused; no run begins."""
    with pytest.raises(RefusedError):
        fake.begin(fake.decide())
    with pytest.raises(WaitingError) as raised:
        fake.begin(fake.rehearse())
    assert "handrail approve" in raised.value.hint
    assert fake.journal.chains("run-") == ()
    assert fake.count() == ROWS


# --- stale ---------------------------------------------------------------------------------------


def change_script(fake: FakeWorld) -> None:
    fake.write("scripts/trim.sh", "#!/bin/sh\necho more\n")


def change_neighbour(fake: FakeWorld) -> None:
    fake.write("scripts/lib.sh", "echo more\n")


def change_operation(fake: FakeWorld) -> None:
    path = fake.root / "operations/trim.yaml"
    path.write_text(path.read_text().replace("10m", "1s"))


def change_checks(fake: FakeWorld) -> None:
    path = fake.root / "estate/pilot.yaml"
    path.write_text(path.read_text().replace("/health", "/other"))


def change_identity(fake: FakeWorld) -> None:
    fake.store._id = "0" * 32


def move_target(fake: FakeWorld) -> None:
    fake.store._address = "fake:///other"
    fake.shelf.stores["fake:///other"] = fake.store


def make_clone(fake: FakeWorld) -> None:
    fake.store._marker = "a clone"


def take_down(fake: FakeWorld) -> None:
    fake.store.down = "it does not answer"


def let_approval_expire(fake: FakeWorld) -> None:
    fake.clock.advance(4 * 3600)


def let_rehearsal_age(fake: FakeWorld) -> None:
    fake.clock.jump(24 * 3600 + 1)


def dismiss_approver(fake: FakeWorld) -> None:
    fake.keys._owners.clear()


def begin_freeze(fake: FakeWorld) -> None:
    fake.write("policy.yaml", "freezes: [{risk: low, because: holidays}]\n")


@pytest.mark.parametrize(
    "change",
    [
        change_script,
        change_neighbour,
        change_operation,
        change_checks,
        change_identity,
        move_target,
        make_clone,
        take_down,
        let_approval_expire,
        let_rehearsal_age,
        dismiss_approver,
        begin_freeze,
    ],
)
def test_stale(fake: FakeWorld, change: Callable[[FakeWorld], None]) -> None:
    """A plan from which the world has moved is refused; no script runs, and no backup is made."""
    fake.make_ready()
    ready = fake.decide()
    begun = len(fake.processes.runs)
    change(fake)
    declared = fake.declared
    moved = deciding.Decided(
        ready.plan,
        declared.operations["trim"],
        declared.estate.resources["store/pilot-db"],
        declared,
    )
    outcome = fake.begin(moved)
    assert (outcome.outcome, outcome.exit_code) == ("refused", 3)
    assert outcome.why.startswith("nothing was done: ")
    assert len(fake.processes.runs) == begun
    assert fake.kinds() == ["opened", "ended"]
    assert fake.kinds("used") == []
    fake.store.down = ""
    assert fake.shelf.at(fake.store._address).ask("SELECT count(*) FROM sessions", 5) == str(ROWS)


# --- over budget, failing, ill -------------------------------------------------------------------


def grow(fake: FakeWorld, rows: int) -> None:
    """Let the store's users write `rows` more that the script will delete."""
    fake.store.execute(
        f"WITH RECURSIVE n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < {99 + rows})"
        " INSERT INTO sessions SELECT i, 1 FROM n"
    )


@pytest.mark.parametrize(
    ("rows", "outcome", "code", "left"),
    [(2, "confirmed", 0, 5), (3, "over-budget", 5, ROWS + 3)],
)
def test_budget(fake: FakeWorld, rows: int, outcome: str, code: int, left: int) -> None:
    """What the tolerance covers is confirmed; one row more is undone at once."""
    decided = fake.make_ready()
    grow(fake, rows)
    ended = fake.begin(decided)
    assert (ended.outcome, ended.exit_code) == (outcome, code)
    assert fake.count() == left
    assert ended.residue == ()


def test_effect_that_was_not_rehearsed(fake: FakeWorld) -> None:
    """One effect of a kind that rehearsal never saw breaks the budget."""
    decided = fake.make_ready()
    fake.processes.programs = {"trim.sh": fake.program(f"{TRIM}; DROP TABLE devices")}
    ended = fake.begin(decided)
    assert ended.outcome == "over-budget"
    assert [breach.effect.key[1:] for breach in ended.breaches] == [("drop", "table", "devices")]
    assert fake.count("devices") == 3
    assert fake.count() == ROWS


@pytest.mark.parametrize(
    ("choice", "outcome", "left"), [("undo", "undone", ROWS + 9), ("accept", "confirmed", 5)]
)
def test_rows_of_others(fake: FakeWorld, choice: str, outcome: str, left: int) -> None:
    """Rows beyond the budget while others were connected are left to a human, either way."""
    decided = fake.make_ready()
    grow(fake, 9)
    fake.store.connected = ("psql as eva",)
    with pytest.raises(OverBudgetError) as raised:
        fake.begin(decided)
    assert "psql as eva" in raised.value.message
    assert "handrail resume 1 --undo" in raised.value.hint
    assert fake.count() == 5
    assert fake.resume(1, choice).outcome == outcome
    assert fake.count() == left


def test_tables_while_others_are_connected(fake: FakeWorld) -> None:
    """A table dropped beyond the budget is undone at once, whoever else was connected."""
    decided = fake.make_ready()
    fake.store.connected = ("psql as eva",)
    fake.processes.programs = {"trim.sh": fake.program(f"{TRIM}; DROP TABLE devices")}
    assert fake.begin(decided).outcome == "over-budget"


def test_failing_script(fake: FakeWorld) -> None:
    """A script that fails half way is undone."""
    decided = fake.make_ready()
    fake.processes.programs = {"trim.sh": fake.program(TRIM, code=3)}
    ended = fake.begin(decided)
    assert (ended.outcome, ended.exit_code) == ("undone", 1)
    assert "exit 3" in ended.why
    assert fake.count() == ROWS


def test_failing_script_that_changed_nothing(fake: FakeWorld) -> None:
    """A script that fails before it changed anything needs no undo, and the run has failed."""
    decided = fake.make_ready()
    fake.processes.programs = {"trim.sh": fake.program("", code=3)}
    ended = fake.begin(decided)
    assert (ended.outcome, ended.exit_code) == ("failed", 1)
    assert "undo-begun" not in fake.kinds()


def test_script_that_cannot_be_started(fake: FakeWorld) -> None:
    """A script that cannot be started changed nothing, and the run has failed."""
    decided = fake.make_ready()
    fake.processes.programs = {}
    ended = fake.begin(decided)
    assert (ended.outcome, "not-started" in ended.why) == ("failed", True)
    assert b"does not exist" in fake.talk.printed


@pytest.mark.parametrize("ended", ["timeout", "disk-full", "lost"])
def test_script_that_was_ended(fake: FakeWorld, ended: str) -> None:
    """A script that did not end by itself is undone, whatever its exit code says."""
    decided = fake.make_ready()

    def hang(call: Call) -> Finished:
        fake.program(TRIM)(call)
        return Finished(0, ended, 1.0, 0)

    fake.processes.programs = {"trim.sh": hang}
    assert fake.begin(decided).outcome == "undone"
    assert fake.count() == ROWS


def test_script_that_takes_the_store_away(fake: FakeWorld) -> None:
    """Where nobody can say what the script did, it is undone, and a failed undo is said."""
    decided = fake.make_ready()

    def vanish(call: Call) -> int:
        fake.store.down = "it does not answer"
        return 0

    fake.processes.programs = {"trim.sh": vanish}
    ended = fake.begin(decided)
    assert ended.outcome == "failed"
    assert [breach.effect.verb for breach in ended.breaches] == ["unknown"]
    assert "the undo failed: it does not answer" in ended.why
    fake.store.down = ""
    with pytest.raises(RefusedError):  # what it was like when the run ended is not known
        fake.undo()
    assert fake.undo(lose_newer=True).outcome == "undone"


@pytest.mark.parametrize(
    ("seen", "outcome"),
    [
        ([ILL, ILL, WELL], "confirmed"),
        ([WELL, ILL, WELL], "confirmed"),
        ([ILL], "undone"),
        ([WELL, WELL, ILL], "undone"),
        ([*[WELL] * 10, ILL], "undone"),
        ([], "undone"),
    ],
)
def test_watch(fake: FakeWorld, seen: list[CheckResult], outcome: str) -> None:
    """A bad probe or two are forgiven; three in a row, a bad last one, or silence are not."""
    decided = fake.make_ready()
    fake.checks.set(HEALTH, *seen)
    ended = fake.begin(decided)
    assert ended.outcome == outcome
    assert fake.count() == (5 if outcome == "confirmed" else ROWS)


def test_target_that_falls_silent(fake: FakeWorld) -> None:
    """A target that does not answer during the watch is ill, and undone when it is there again."""
    decided = fake.make_ready()

    def fall_silent() -> CheckResult:
        fake.store.down = "it does not answer" if len(fake.checks.asked) < 4 else ""
        return WELL

    fake.checks = Seeing(fake.checks, fall_silent)  # type: ignore[assignment]  # of the same shape
    ended = fake.begin(decided)
    assert "store/pilot-db: answers" in ended.why
    assert ended.outcome == "undone"
    assert fake.count() == ROWS


class Seeing:
    """Checks that call a function for each probe."""

    def __init__(self, checks: Any, see: Callable[[], CheckResult]) -> None:
        self.asked = checks.asked
        self._see = see

    def probe(self, check: Any, timeout_s: float) -> CheckResult:
        self.asked.append(check)
        return self._see()


@pytest.mark.parametrize("jump_s", [-86400, 86400])
def test_clock_jumps_while_watching(fake: FakeWorld, jump_s: int) -> None:
    """The watch takes its whole time, however the wall clock jumps."""
    decided = fake.make_ready()

    def jump() -> CheckResult:
        fake.clock.jump(jump_s)
        return WELL

    fake.checks = Seeing(fake.checks, jump)  # type: ignore[assignment]  # of the same shape
    assert fake.begin(decided).outcome == "confirmed"
    assert len(fake.checks.asked) == 11


# --- Ctrl-C --------------------------------------------------------------------------------------


def interrupt(fake: FakeWorld, sql: str) -> None:
    """Let Ctrl-C come when the script has run `sql`."""

    def run(call: Call) -> int:
        fake.program(sql)(call)
        raise KeyboardInterrupt

    fake.processes.programs = {"trim.sh": run}


@pytest.mark.parametrize(
    ("answers", "outcome", "left"),
    [(["undo"], "interrupted", ROWS), (["stop"], "stopped", 5), ([], "stopped", 5)],
)
def test_interrupted(fake: FakeWorld, answers: list[str], outcome: str, left: int) -> None:
    """Ctrl-C asks whether to stop or undo; where nobody answers, it stops."""
    decided = fake.make_ready()
    interrupt(fake, TRIM)
    fake.talk.answers = answers
    ended = fake.begin(decided)
    assert (ended.outcome, ended.exit_code) == (outcome, 130)
    assert fake.count() == left
    assert len(fake.talk.asked) == 1


def test_stopped_is_undone_later(fake: FakeWorld) -> None:
    """What was left as it is after Ctrl-C can be undone later."""
    decided = fake.make_ready()
    interrupt(fake, TRIM)
    fake.begin(decided)
    assert fake.undo().outcome == "undone"
    assert fake.count() == ROWS


def test_interrupted_before_it_changed_anything(fake: FakeWorld) -> None:
    """Ctrl-C before the first change asks nothing."""
    decided = fake.make_ready()
    interrupt(fake, "")
    ended = fake.begin(decided)
    assert (ended.outcome, fake.talk.asked) == ("stopped", [])


def test_interrupted_while_backing_up(fake: FakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before the script began ends the run, with nothing done and nothing left."""
    decided = fake.make_ready()
    kept = sorted((fake.root / "backups/pilot-db").iterdir())

    def stop(backup_id: str, into: Path, progress: Progress) -> Backup:
        (into / "half").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(fake.store, "backup", stop)
    ended = fake.begin(decided)
    assert (ended.outcome, "before anything was done" in ended.why) == ("stopped", True)
    assert sorted((fake.root / "backups/pilot-db").iterdir()) == kept


def test_interrupted_while_watching(fake: FakeWorld) -> None:
    """Ctrl-C during the watch asks too."""
    decided = fake.make_ready()

    def stop() -> CheckResult:
        raise KeyboardInterrupt

    fake.checks = Seeing(fake.checks, stop)  # type: ignore[assignment]  # of the same shape
    fake.talk.answers = ["undo"]
    assert fake.begin(decided).outcome == "interrupted"
    assert fake.count() == ROWS


def test_interrupted_where_nobody_asks(fake: FakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while measuring leaves a run that says how to go on, and that is resumed."""
    decided = fake.make_ready()

    def stop(before: Path) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fake.store, "effects", stop)
        with pytest.raises(KeyboardInterrupt):
            fake.begin(decided)
    assert ("run", "run 1 is cut off; next: handrail resume 1", False) in fake.talk.ended
    assert fake.resume().outcome == "confirmed"
    assert fake.kinds().count("step-begun") == 1


# --- the journal ---------------------------------------------------------------------------------


class FailingJournal(MemoryJournal):
    """A journal that cannot take records of one kind, as if the disk were full then."""

    kind = ""

    def append(self, chain: str, kind: str, body: Any) -> Record:
        if kind == self.kind:
            raise JournalError("journal.unwritable", "the disk is full")
        return super().append(chain, kind, body)


@pytest.fixture
def failing(fake: FakeWorld) -> FailingJournal:
    """The fake world's journal, which can be told at which kind to fail."""
    journal = FailingJournal(fake.clock)
    fake.journal = journal
    return journal


@pytest.mark.parametrize("kind", ALL_STAGES[1:7])
def test_journal_full_before_the_step(fake: FakeWorld, failing: FailingJournal, kind: str) -> None:
    """Where a record before the script cannot be written, the script does not run; later it may."""
    decided = fake.make_ready()
    ran = len(fake.processes.runs)
    failing.kind = kind
    with pytest.raises(JournalError):
        fake.begin(decided)
    assert fake.count() == ROWS
    failing.kind = ""
    ended = fake.resume()
    # An approval that was marked as used, and not recorded as used by this run, is not used again.
    assert ended.outcome == ("refused" if kind == "approved" else "confirmed")
    assert len(fake.processes.runs) - ran - (kind == "step-started") == (kind != "approved")


def test_journal_full_after_the_step(fake: FakeWorld, failing: FailingJournal) -> None:
    """Where the end of the script cannot be written, its outcome is unknown; it is not rerun."""
    decided = fake.make_ready()
    failing.kind = "step-done"
    with pytest.raises(JournalError):
        fake.begin(decided)
    failing.kind = ""
    ran = len(fake.processes.runs)
    with pytest.raises(WaitingError) as raised:
        fake.resume()
    assert raised.value.code == "run.unknown-outcome"
    assert "delete table sessions" in raised.value.message
    assert fake.resume(choice="undo").outcome == "undone"
    assert fake.count() == ROWS
    assert len(fake.processes.runs) == ran


@pytest.mark.parametrize("kind", ALL_STAGES[8:])
def test_journal_full_later(fake: FakeWorld, failing: FailingJournal, kind: str) -> None:
    """Where a later record cannot be written, the run is resumed, and the script is not rerun."""
    decided = fake.make_ready()
    failing.kind = kind
    with pytest.raises(JournalError):
        fake.begin(decided)
    failing.kind = ""
    ran = len(fake.processes.runs)
    assert fake.resume().outcome == "confirmed"
    assert len(fake.processes.runs) == ran


# --- one at a time, and once ---------------------------------------------------------------------


def test_two_at_once(fake: FakeWorld) -> None:
    """While somebody holds the target, a second run is refused and told who it is."""
    decided = fake.make_ready()
    with fake.locks.hold("store/pilot-db", "eva, reset"), pytest.raises(RefusedError) as raised:
        fake.begin(decided)
    assert "eva, reset" in raised.value.message
    assert fake.count() == ROWS


def test_unfinished(fake: FakeWorld, failing: FailingJournal) -> None:
    """While a run hangs unfinished no other run or undo begins; the refusal says what to do."""
    assert fake.begin().outcome == "confirmed"
    decided = fake.make_ready()
    failing.kind = "backup-begun"
    with pytest.raises(JournalError):
        fake.begin(decided)
    failing.kind = ""
    with pytest.raises(RefusedError) as begun:
        fake.begin(decided)
    with pytest.raises(RefusedError) as undone:
        fake.undo()
    assert begun.value.hint == undone.value.hint == "handrail resume 2"
    assert fake.resume(2).outcome == "confirmed"


def test_approval_counts_once(fake: FakeWorld) -> None:
    """The same ready plan does not run twice."""
    decided = fake.make_ready()
    assert fake.begin(decided).outcome == "confirmed"
    again = fake.begin(decided)
    assert (again.outcome, "used already" in again.why) == ("refused", True)
    assert fake.decide().plan.verdict == "require"


def test_resume_of_an_ended_run(fake: FakeWorld) -> None:
    """A run that has ended has nothing to resume, and nothing is written."""
    fake.begin()
    written = fake.kinds()
    with pytest.raises(UsageError) as raised:
        fake.resume()
    assert raised.value.code == "run.nothing"
    assert fake.kinds() == written


@pytest.mark.parametrize("choice", ["undo", "accept"])
def test_choice_where_nothing_began(fake: FakeWorld, failing: FailingJournal, choice: str) -> None:
    """Neither `--undo` nor `--accept` starts a script that never began."""
    decided = fake.make_ready()
    failing.kind = "backup-begun"
    with pytest.raises(JournalError):
        fake.begin(decided)
    failing.kind = ""
    ran = len(fake.processes.runs)
    if choice == "undo":
        ended = fake.resume(choice=choice)
        assert (ended.outcome, "never began" in ended.why) == ("undone", True)
    else:
        with pytest.raises(UsageError):
            fake.resume(choice=choice)
        assert fake.resume(choice="undo").outcome == "undone"
    assert len(fake.processes.runs) == ran
    assert fake.count() == ROWS


def test_resume_after_the_declaration_went(fake: FakeWorld, failing: FailingJournal) -> None:
    """A run whose operation is not declared any more is still resumed, from its own record."""
    decided = fake.make_ready()
    failing.kind = "step-done"
    with pytest.raises(JournalError):
        fake.begin(decided)
    failing.kind = ""
    (fake.root / "operations/trim.yaml").unlink()
    (fake.root / "scripts/trim.sh").unlink()
    assert fake.resume(choice="undo").outcome == "undone"
    assert fake.count() == ROWS


def test_resume_on_another_store(fake: FakeWorld, failing: FailingJournal) -> None:
    """A run is not resumed on a store that is not the one it ran on."""
    decided = fake.make_ready()
    failing.kind = "step-done"
    with pytest.raises(JournalError):
        fake.begin(decided)
    failing.kind = ""
    fake.store._id = "0" * 32
    fake.store.execute("INSERT INTO sessions VALUES (7, 7)")
    with pytest.raises(RefusedError) as raised:
        fake.resume(choice="undo")
    assert raised.value.code == "store.identity"
    assert fake.count() == 6


# --- undo ----------------------------------------------------------------------------------------


def test_undo(fake: FakeWorld) -> None:
    """A confirmed run is undone once; a second undo changes nothing."""
    fake.begin()
    assert fake.undo().outcome == "undone"
    assert fake.count() == ROWS
    with pytest.raises(UsageError) as raised:
        fake.undo()
    assert raised.value.code == "run.nothing"
    assert fake.count() == ROWS


def test_undo_what_others_wrote_on(fake: FakeWorld) -> None:
    """What others wrote since the run ended is not lost without a word for it."""
    fake.begin()
    fake.store.execute("INSERT INTO sessions VALUES (777, 7)")
    with pytest.raises(RefusedError) as raised:
        fake.undo()
    assert raised.value.code == "store.moved"
    assert "insert table sessions" in raised.value.message
    assert "--lose-newer" in raised.value.hint
    assert fake.count() == 6
    assert fake.kinds() == ALL_STAGES
    assert fake.undo(lose_newer=True).outcome == "undone"
    assert fake.count() == ROWS


def test_undo_where_nobody_remembers(fake: FakeWorld) -> None:
    """Where what the run left is not known any more, others' writes cannot be ruled out."""
    fake.begin()
    for path in (fake.root / ".handrail/runs/1/after").iterdir():
        path.unlink()
    with pytest.raises(RefusedError) as raised:
        fake.undo()
    assert raised.value.code == "store.moved"


def test_undo_without_its_backup(fake: FakeWorld) -> None:
    """An undo whose backup is gone is refused before the run's outcome changes."""
    fake.begin()
    for path in (fake.root / "backups/pilot-db").iterdir():
        (path / "content").unlink()
    with pytest.raises(RefusedError) as raised:
        fake.undo(lose_newer=True)
    assert raised.value.code == "backup.damaged"
    assert fake.kinds() == ALL_STAGES


def test_undo_of_a_run_that_did_nothing(fake: FakeWorld) -> None:
    """A run that was refused has nothing to undo."""
    decided = fake.make_ready()
    change_script(fake)
    fake.begin(decided)
    with pytest.raises(UsageError) as raised:
        fake.undo()
    assert raised.value.code == "run.nothing"


def test_undo_on_another_store(fake: FakeWorld) -> None:
    """An undo does not touch a store that is not the one that the run was on."""
    fake.begin()
    fake.store._id = "0" * 32
    with pytest.raises(RefusedError) as raised:
        fake.undo(lose_newer=True)
    assert raised.value.code == "store.identity"
    assert fake.count() == 5


def test_undo_script(tmp_path: Path) -> None:
    """An undo script runs on the target; what it leaves different is said."""
    fake = make_world(tmp_path / "fake", undo="./scripts/undo.sh")
    back = "INSERT INTO sessions SELECT id + 5, 0 FROM sessions"
    fake.processes.programs = {"trim.sh": fake.program(TRIM), "undo.sh": fake.program(back)}
    decided = fake.rehearse()
    assert decided.plan.facts.rehearsal is not None
    assert decided.plan.facts.rehearsal.residue == ("table sessions",)
    decided = fake.decide(because="nobody minds the rest")
    fake.approve(decided, typed="pilot-db")
    assert fake.begin(fake.decide(because="nobody minds the rest")).outcome == "confirmed"
    ended = fake.undo()
    assert (ended.outcome, ended.residue) == ("undone", ("table sessions",))
    assert fake.count() == 10


def test_undo_script_that_fails(tmp_path: Path) -> None:
    """An undo script that fails leaves a failed run, which may be undone again."""
    fake = make_world(tmp_path / "fake", undo="./scripts/undo.sh")
    back = f"INSERT INTO sessions SELECT value, value % 5 FROM json_each('{[*range(6, 21)]}')"
    good = fake.program(back)
    fake.processes.programs = {"trim.sh": fake.program(TRIM), "undo.sh": good}
    assert fake.begin().outcome == "confirmed"
    fake.processes.programs = {"undo.sh": fake.program("", code=1)}
    assert fake.undo().outcome == "failed"
    fake.processes.programs = {"undo.sh": good}
    assert fake.undo().outcome == "undone"
    assert fake.count() == ROWS


def test_irreversible(tmp_path: Path) -> None:
    """What cannot be undone is not tried: a failed script is left as it is, and so said."""
    fake = make_world(tmp_path / "fake", undo="{irreversible: letters were sent}")
    decided = fake.make_ready(because="it is the first of the month")
    fake.processes.programs = {"trim.sh": fake.program(TRIM, code=1)}
    ended = fake.begin(decided)
    assert (ended.outcome, ended.exit_code) == ("failed", 1)
    assert "letters were sent" in ended.why
    with pytest.raises(RefusedError) as raised:
        fake.undo()
    assert raised.value.code == "run.irreversible"
    assert fake.count() == 5


def test_restore_that_fails(fake: FakeWorld) -> None:
    """An undo that fails is a failed run, said so, and can be asked for again."""
    decided = fake.make_ready()
    fake.processes.programs = {"trim.sh": fake.program(TRIM, code=1)}
    fake.store.unrestorable = "a lock is held"
    ended = fake.begin(decided)
    assert ended.outcome == "failed"
    assert "a lock is held" in ended.why
    fake.store.unrestorable = ""
    assert fake.undo().outcome == "undone"
    assert fake.count() == ROWS


def test_lossy(tmp_path: Path) -> None:
    """A store that nobody would miss is not backed up before a run."""
    fake = make_world(tmp_path / "fake")
    path = fake.root / "estate/pilot.yaml"
    path.write_text(path.read_text().replace("durable", "lossy"))
    assert fake.begin(fake.rehearse()).outcome == "confirmed"
    assert "backup-begun" not in fake.kinds()


def test_disappearing_target_is_an_error(fake: FakeWorld) -> None:
    """What a stage cannot read is a deliberate error, never an empty answer."""
    fake.shelf.stores.clear()
    with pytest.raises(HandrailError):
        fake.rehearse()
    with pytest.raises(StoreError):
        fake.store.identify()
