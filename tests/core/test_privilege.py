"""The script once more as a limited role: used where it does the same, and else said why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from handrail.plans.effect import Effect
from handrail.plans.holding import Report
from handrail.plans.model import Rehearsal
from handrail.testing.processes import Call
from handrail.testing.store import FakeStore
from support.worlds import ROWS, TRIM, FakeWorld, make_world

STORE = "store/pilot-db"
DELETED = Effect(STORE, "delete", "table", "sessions", 15)
OWN = Report(STORE, "before COMMIT", (DELETED,))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeWorld:
    """A world whose store has roles, and whose policy tries the limited one."""
    monkeypatch.setattr(FakeStore, "kind", "postgres")
    made = make_world(tmp_path / "fake", policy="guard: {role: auto}\n")
    made.guards.report["measure"] = OWN
    made.guards.report["measure limited"] = replace(OWN, role="limited")
    return made


def rehearsed(fake: FakeWorld) -> Rehearsal:
    rehearsal = fake.rehearse().plan.facts.rehearsal
    assert rehearsal is not None
    return rehearsal


def test_limited(fake: FakeWorld) -> None:
    """Where it does the same as a limited role, the run has that role."""
    rehearsal = rehearsed(fake)
    assert (rehearsal.role, rehearsal.role_because) == ("limited", "")
    tried = fake.guards.opened[-1]
    assert (tried.mode, tried.role) == ("measure", "limited")
    assert tried.budget is not None
    assert [(a.verb, a.name, a.rows) for a in tried.budget.allowances] == [
        ("delete", "sessions", 15)
    ]
    fake.begin()
    assert fake.guards.opened[-1].role == "limited"


def test_rehearsed_twice_on_the_same(fake: FakeWorld) -> None:
    """The second time begins where the first one did."""
    found: list[str] = []

    def counting(call: Call) -> int:
        store = fake.shelf.at(call.command.environment["DATABASE_URL"])
        found.append(store.ask("SELECT count(*) FROM sessions", 5.0))
        return fake.program(TRIM)(call)

    fake.processes.programs = {"trim.sh": counting}
    assert rehearsed(fake).role == "limited"
    assert found == [str(ROWS), str(ROWS)]


def test_undo_that_leaves_something(tmp_path: Path, fake: FakeWorld) -> None:
    """Where the undo leaves something different, the clone is put back before the second time."""
    made = make_world(tmp_path / "scripted", undo="./scripts/undo.sh", policy="guard: {role: auto}")
    made.guards.report = fake.guards.report
    rehearsal = rehearsed(made)
    assert rehearsal.residue == ("table sessions",)
    assert rehearsal.role == "limited"


def otherwise(fake: FakeWorld, sql: str, code: int = 0) -> None:
    """Let the second execution do something else."""
    programs = iter([fake.program(TRIM), fake.program(sql, code)])

    def one_after_the_other(call: Call) -> int:
        return next(programs)(call)

    fake.processes.programs = {"trim.sh": one_after_the_other}


@pytest.mark.parametrize(
    ("sql", "code", "because"),
    [
        ("", 0, "it would delete table sessions 0 rows, not 15"),
        ("DELETE FROM sessions WHERE id > 6", 0, "it would delete table sessions 14 rows, not 15"),
        (f"{TRIM}; DELETE FROM devices", 0, "it would delete table devices 3 rows, not 0"),
        (TRIM, 1, "it ended with exit 1"),
    ],
)
def test_otherwise(fake: FakeWorld, sql: str, code: int, because: str) -> None:
    """Where a limited role does otherwise, the run has the store's own, and the plan says why."""
    otherwise(fake, sql, code)
    rehearsal = rehearsed(fake)
    assert (rehearsal.role, rehearsal.role_because) == ("own", f"as a limited role {because}")


def test_shapes_need_an_owner(fake: FakeWorld) -> None:
    """What changes shapes is not tried as a limited role."""
    fake.processes.programs = {"trim.sh": fake.program("DROP TABLE devices")}
    assert rehearsed(fake).role_because == "drop table devices needs an owner"
    assert [limits.role for limits in fake.guards.opened] == ["own"]


def test_failed(fake: FakeWorld) -> None:
    """What failed in rehearsal is not tried again."""
    fake.processes.programs = {"trim.sh": fake.program(TRIM, code=1)}
    assert rehearsed(fake).role_because == "it failed in rehearsal"


def test_no_limited_role(fake: FakeWorld) -> None:
    """A guard that cannot make a limited role is told by what it reports."""
    fake.guards.report["measure limited"] = OWN
    assert rehearsed(fake).role_because == "the guard has no limited role here"


def test_kind_without_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of store that has no roles is said to have none."""
    monkeypatch.setattr(FakeStore, "kind", "sqlite")
    made = make_world(tmp_path / "fake", policy="guard: {role: auto}\n")
    assert "has no roles" in rehearsed(made).role_because


@pytest.mark.parametrize(("said", "verdict"), [("limited", "refuse"), ("auto", "require")])
def test_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, verdict: str) -> None:
    """A policy that wants the limited role refuses what cannot have it; `auto` says so alone."""
    monkeypatch.setattr(FakeStore, "kind", "postgres")
    made = make_world(tmp_path / "fake", policy=f"guard: {{role: {said}}}\n")
    plan = made.rehearse().plan
    assert plan.verdict == verdict
    assert any("no limited role" in d.because for d in plan.decisions if d.guard == "privilege")
