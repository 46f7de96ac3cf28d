"""Rehearsing: on a clone, never on the target; measured, undone, destroyed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from handrail.adapters.processes import LocalProcesses
from handrail.core import clones, records
from handrail.errors import RefusedError, StoreError
from handrail.plans.facts import Backup
from handrail.plans.model import Rehearsal
from handrail.ports import Command, Progress, Store
from handrail.testing.processes import Call
from handrail.testing.store import FakeStore
from support.scripts import require_confinement
from support.teams import OPERATION, SCRIPT, SESSIONS, Team
from support.worlds import ADDRESS, ROWS, TRIM, FakeWorld, make_world

REQUIRED = "rehearsal: {confine: require}\n"


class Unconfinable(LocalProcesses):
    """The processes of a machine that cannot confine a script."""

    def can_confine(self) -> str:
        return "user namespaces are switched off"


def rehearsal_of(decided: Any) -> Rehearsal:
    """Return what a plan knows of its rehearsal."""
    found: Rehearsal | None = decided.plan.facts.rehearsal
    assert found is not None
    return found


def clone_chains(fake: FakeWorld) -> list[list[str]]:
    """Return the kinds of every clone's records."""
    return [fake.kinds(chain) for chain in fake.journal.chains("clone-")]


def assert_nothing_left(fake: FakeWorld) -> None:
    """The target is as it was; every clone is gone, and its end is journalled."""
    assert fake.count() == ROWS
    assert list(fake.shelf.stores) == [ADDRESS]
    assert clone_chains(fake) == [["made", "destroyed"]] * len(fake.watched)
    assert list((fake.root / ".handrail/clones").glob("*")) == []
    left = {path.name for path in (fake.root / ".handrail/rehearsals").glob("*/*")}
    assert left <= {"output.log", "undo.log"}
    assert clones.leftover(fake.world()) == ()


# --- the clone -----------------------------------------------------------------------------------


def test_success(fake: FakeWorld) -> None:
    """A rehearsal measures on a clone with a deadline, and leaves the budget of the plan."""
    decided = fake.rehearse()
    assert_nothing_left(fake)
    assert [deadline_s for _, deadline_s in fake.watched] == [4 * 3600]
    assert decided.plan.budget is not None
    assert [(a.verb, a.name, a.rows) for a in decided.plan.budget.allowances] == [
        ("delete", "sessions", ROWS - 5)
    ]
    assert rehearsal_of(decided).proof.equal
    (chain,) = fake.journal.chains("rehearsal-")
    assert fake.kinds(chain)[-1] == "measured"


def test_failing_script(fake: FakeWorld) -> None:
    """A script that fails in rehearsal is refused for real, at the risk of what nobody knows."""
    fake.processes.programs = {"trim.sh": fake.program("", code=4)}
    decided = fake.rehearse()
    assert_nothing_left(fake)
    assert rehearsal_of(decided).exit_code == 4
    assert decided.plan.risk == "critical"
    refusals = {d.guard: d.because for d in decided.plan.decisions if d.verdict == "refuse"}
    assert refusals == {"rehearsed": "it failed in rehearsal (exited, exit 4)"}


@pytest.mark.parametrize("method", ["backup", "clone", "identify"])
@pytest.mark.parametrize("error", [StoreError("store.failed", "no"), KeyboardInterrupt()])
def test_interrupted(
    fake: FakeWorld, monkeypatch: pytest.MonkeyPatch, method: str, error: BaseException
) -> None:
    """However a rehearsal ends early, its clone is destroyed and its end is recorded."""
    decided = fake.decide()

    def fail(*_: object) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(fake.store, method, fail)
        with pytest.raises(type(error)):
            fake.rehearse() if method != "identify" else rehearse_again(fake, decided)
    assert_nothing_left(fake)
    (chain,) = fake.journal.chains("rehearsal-")
    assert fake.kinds(chain)[-1] == "failed"
    assert fake.rehearse().plan.verdict == "require"


def rehearse_again(fake: FakeWorld, decided: Any) -> None:
    from handrail.core.rehearsing import rehearse

    rehearse(fake.world(), decided, fake.talk)


def test_interrupted_script(fake: FakeWorld) -> None:
    """Ctrl-C while the script runs on the clone destroys the clone."""

    def stop(call: Call) -> int:
        fake.program(TRIM)(call)
        raise KeyboardInterrupt

    fake.processes.programs = {"trim.sh": stop}
    with pytest.raises(KeyboardInterrupt):
        fake.rehearse()
    assert_nothing_left(fake)


def test_clone_that_was_left(fake: FakeWorld) -> None:
    """A clone whose rehearsal died with its keeper is destroyed by the next rehearsal."""
    at = fake.root / ".handrail/clones/sqlite-dead"
    at.mkdir(parents=True)
    backup = fake.store.backup("b", make_folder(fake.root / "b"), lambda *_: None)
    fake.store.clone(backup, at, "a" * 32, lambda *_: None)
    observed = make_folder(fake.root / ".handrail/rehearsals/dead/before")
    (observed / "content").write_text("rows of the target")
    fake.journal.append("clone-sqlite-dead", "made", {"at": str(at), "of": "store/pilot-db"})
    assert clones.leftover(fake.world()) == (at,)
    fake.watched.append((at, 0))
    fake.rehearse()
    assert_nothing_left(fake)


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_held_clone_is_left_alone(fake: FakeWorld) -> None:
    """A clone that a living rehearsal holds is not destroyed by another one."""
    at = make_folder(fake.root / ".handrail/clones/sqlite-busy")
    fake.journal.append("clone-sqlite-busy", "made", {"at": str(at), "of": "store/pilot-db"})
    with fake.locks.hold("clone/sqlite-busy", "rehearsal busy"):
        fake.rehearse()
    assert at.exists()
    assert fake.kinds("clone-sqlite-busy") == ["made"]


def test_deadline(team: Team) -> None:
    """At its deadline a clone is destroyed under a script that still runs, and that ends too."""
    add_operation(team, "sleeps", "#!/bin/sh\nsleep 60\n")
    team.commit({"policy.yaml": "rehearsal: {clone-deadline: 1s}\n"})
    with pytest.raises(RefusedError) as raised:
        team.rehearse("sleeps")
    assert raised.value.code == "rehearsal.failed"
    assert "clone-deadline" in raised.value.hint
    journal = team.world().journal
    (chain,) = journal.chains("clone-")
    ends = [r.body for r in journal.records(chain) if r.kind == "destroyed"]
    assert ends == ['{"why":"its deadline passed"}']
    assert list((team.state / "clones").iterdir()) == []


def test_restore_past_the_deadline(fake: FakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a restore writes where the clone was destroyed meanwhile is removed as well."""

    def restore(self: FakeStore, backup: Backup, progress: Progress) -> tuple[str, ...]:
        (at,) = (fake.root / ".handrail/clones").iterdir()
        clones.destroy(fake.world(), at.name, "its deadline passed")
        make_folder(at)
        (at / "pilot.db").write_text("rows of the target")
        return ()

    monkeypatch.setattr(FakeStore, "restore", restore)
    fake.rehearse()
    assert list((fake.root / ".handrail/clones").iterdir()) == []
    assert clone_chains(fake) == [["made", "destroyed", "destroyed"]]


class ItsOwnClone(FakeStore):
    """A store that gives itself, or a copy without the marker, for a clone."""

    def clone(self, backup: Backup, at: Path, marker: str, progress: Progress) -> Store:
        return self


class Unmarked(FakeStore):
    """A store whose clones do not have the marker that they were to get."""

    def clone(self, backup: Backup, at: Path, marker: str, progress: Progress) -> Store:
        return super().clone(backup, at, "another", progress)


@pytest.mark.parametrize("kind", [ItsOwnClone, Unmarked])
def test_clone_that_may_be_the_target(fake: FakeWorld, kind: type[FakeStore]) -> None:
    """Where the clone cannot be told from the target the script does not start."""
    fake.store.__class__ = kind
    with pytest.raises(RefusedError) as raised:
        fake.rehearse()
    assert raised.value.code == "clone.not-distinct"
    assert fake.processes.runs == []
    assert_nothing_left(fake)


def test_clone_as_target(fake: FakeWorld) -> None:
    """A clone is not rehearsed on."""
    fake.store._marker = "a" * 32
    with pytest.raises(RefusedError) as raised:
        fake.rehearse()
    assert raised.value.code == "clone.not-distinct"


# --- the backup ----------------------------------------------------------------------------------


def test_backup_that_does_not_restore(fake: FakeWorld) -> None:
    """A backup that cannot be restored is an error, and is not proven."""
    fake.store.damages = True
    with pytest.raises(StoreError) as raised:
        fake.rehearse()
    assert raised.value.code == "backup.damaged"
    assert records.proof(fake.journal, "store/pilot-db") is None
    assert_nothing_left(fake)


class Forgetful(FakeStore):
    """A store whose clones miss a row."""

    def clone(self, backup: Backup, at: Path, marker: str, progress: Progress) -> Store:
        made = super().clone(backup, at, marker, progress)
        assert isinstance(made, FakeStore)
        made.execute("DELETE FROM sessions WHERE id = 1")
        return made


def test_backup_with_a_hole(fake: FakeWorld) -> None:
    """A backup that restores to other content is an error, and refuses until one is equal."""
    assert fake.rehearse().plan.verdict == "require"
    fake.store.__class__ = Forgetful
    with pytest.raises(StoreError) as raised:
        fake.rehearse()
    assert raised.value.code == "backup.not-restorable"
    assert "table sessions" in raised.value.message
    decisions = {d.guard: d.verdict for d in fake.decide().plan.decisions}
    assert decisions["backup-proven"] == "refuse"
    fake.store.__class__ = FakeStore
    assert fake.rehearse().plan.verdict == "require"


# --- the undo ------------------------------------------------------------------------------------


def test_residue(tmp_path: Path) -> None:
    """What an undo script leaves different is residue; it raises the risk and needs a reason."""
    fake = make_world(tmp_path / "fake", undo="./scripts/undo.sh")
    back = "INSERT INTO sessions VALUES (6, 6), (7, 7)"
    fake.processes.programs = {"trim.sh": fake.program(TRIM), "undo.sh": fake.program(back)}
    decided = fake.rehearse()
    found = rehearsal_of(decided)
    assert found.undone
    assert found.residue == ("table sessions",)
    assert [(e.verb, e.name, e.rows) for e in found.undo_effects] == [("insert", "sessions", 2)]
    assert decided.plan.risk == "critical"
    assert "leaves table sessions different" in decided.plan.risk_because
    assert {d.guard for d in decided.plan.decisions if d.verdict == "refuse"} == {"irreversible"}
    assert_nothing_left(fake)


def test_undo_that_fails(tmp_path: Path) -> None:
    """An undo script that fails in rehearsal is no undo."""
    fake = make_world(tmp_path / "fake", undo="./scripts/undo.sh")
    fake.processes.programs = {"trim.sh": fake.program(TRIM), "undo.sh": fake.program("", 1)}
    decided = fake.rehearse()
    assert not rehearsal_of(decided).undone
    assert "its undo failed in rehearsal" in decided.plan.risk_because


def test_restore_that_fails(fake: FakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore that fails on the clone is no undo, and says why."""

    def fail(self: FakeStore, backup: Backup, progress: Progress) -> tuple[str, ...]:
        raise StoreError("store.failed", "no room")

    monkeypatch.setattr(FakeStore, "restore", fail)
    found = rehearsal_of(fake.rehearse())
    assert (found.undone, found.residue) == (False, ("table sessions", "no room"))


def test_irreversible(tmp_path: Path) -> None:
    """What cannot be undone is not tried, and is critical."""
    fake = make_world(tmp_path / "fake", undo="{irreversible: letters were sent}")
    decided = fake.rehearse()
    assert not rehearsal_of(decided).undone
    assert decided.plan.risk == "critical"
    assert len(fake.processes.runs) == 1


# --- confinement, with real processes and a real database ----------------------------------------


def add_operation(team: Team, name: str, script: str) -> None:
    """Declare an operation with a script of its own, committed."""
    declared = OPERATION.format(name=name, undo="restore")
    team.commit({f"operations/{name}.yaml": declared, f"scripts/{name}/run.sh": script})


def test_confinement_required(tmp_path: Path) -> None:
    """Where the policy requires confinement, a machine that cannot confine rehearses nothing."""
    fake = make_world(tmp_path / "fake", policy=REQUIRED)
    fake.processes.unconfinable = "user namespaces are switched off"
    with pytest.raises(RefusedError) as raised:
        fake.rehearse()
    assert raised.value.code == "script.confine"
    assert fake.processes.runs == []


def test_rehearsed_elsewhere_without_confinement(tmp_path: Path) -> None:
    """A rehearsal that was not confined does not count where that is required."""
    fake = make_world(tmp_path / "fake")
    fake.processes.unconfinable = "user namespaces are switched off"
    assert fake.rehearse().plan.verdict == "require"
    fake.write("policy.yaml", REQUIRED)
    decisions = {d.guard: d.because for d in fake.decide().plan.decisions if d.binding}
    assert decisions["rehearsed"] == "it was not confined: user namespaces are switched off"


def absolute(team: Team) -> str:
    """Return a script that opens the real database by its absolute path, and drops a table."""
    return SCRIPT.format(sql="DROP TABLE readings").replace(
        "exec", f"PILOT_DB={team.database} exec"
    )


def test_absolute_path_confined(team: Team) -> None:
    """A confined script that names the real database by its path gets the clone."""
    require_confinement(LocalProcesses())
    add_operation(team, "absolute", absolute(team))
    before = team.database.read_bytes()
    decided = team.rehearse("absolute")
    assert [(e.verb, e.name) for e in decided.plan.effects or ()] == [("drop", "readings")]
    assert team.database.read_bytes() == before


def test_absolute_path_unconfined(team: Team) -> None:
    """A rehearsal that was not confined, and during which the target changed, is void."""
    add_operation(team, "absolute", absolute(team))
    with pytest.raises(RefusedError) as raised:
        team.rehearse("absolute", team.world(processes=Unconfinable()))
    assert raised.value.code == "rehearsal.touched-target"
    assert "table readings" in raised.value.message
    assert team.decide("absolute").plan.facts.rehearsal is None
    (kept,) = (team.state / "backups/pilot-db").iterdir()
    assert str(kept.parent) in raised.value.hint


def test_unconfined(team: Team) -> None:
    """A rehearsal that could not be confined counts by default, and says so."""
    found = rehearsal_of(team.rehearse("reset-pilot", team.world(processes=Unconfinable())))
    assert found.confined == "user namespaces are switched off"


def test_database_taken_away(team: Team) -> None:
    """A script that removes the database file is measured as what it is, and is undone."""
    add_operation(team, "remove", '#!/bin/sh\nrm "$PILOT_DB"\n')
    decided = team.rehearse("remove")
    assert [(e.verb, e.kind) for e in decided.plan.effects or ()] == [("drop", "database")]
    assert decided.plan.risk == "critical"
    assert rehearsal_of(decided).undone
    assert team.query("SELECT count(*) FROM sessions") == SESSIONS


def test_files_that_the_plan_does_not_cover(team: Team) -> None:
    """A file of the repository that the script reads and the plan does not cover is refused."""
    require_confinement(LocalProcesses())
    script = SCRIPT.format(sql="DELETE FROM sessions").replace(
        "set -eu", "cat notes/list > /dev/null"
    )
    team.write({"notes/list": "1\n"})
    add_operation(team, "reads", script)
    decided = team.rehearse("reads")
    assert rehearsal_of(decided).unlisted == ("notes/list",)
    (refusal,) = [d for d in decided.plan.decisions if d.verdict == "refuse" and d.binding]
    assert refusal.guard == "rehearsed"
    assert refusal.because.startswith("it read notes/list, which the plan does not cover")


def test_looks_the_same(fake: FakeWorld) -> None:
    """No variable that a script gets says whether it is rehearsed or run."""
    fake.begin()
    rehearsed, ran = fake.processes.runs
    assert rehearsed.environment.keys() == ran.environment.keys()
    for command in (rehearsed, ran):
        told = {n: v for n, v in command.environment.items() if n != "DATABASE_URL"}
        assert not {"rehears", "run-"} & {
            w for v in told.values() for w in ("rehears", "run-") if w in v
        }


def test_command(fake: FakeWorld) -> None:
    """A script gets what it needs and nothing else, and a HOME of its own."""
    fake.begin()
    commands: list[Command] = fake.processes.runs
    homes = [command.environment["HOME"] for command in commands]
    assert len(set(homes)) == 2
    assert not any(Path(home).exists() for home in homes)
    assert set(commands[0].environment) == {"HOME", "HANDRAIL_RUN", "DATABASE_URL"}


def test_target_is_only_read(team: Team) -> None:
    """A rehearsal leaves the database file as it was, byte by byte."""
    before = team.database.read_bytes()
    for operation in ("reset-pilot", "close-devices", "drop-readings", "trim-sessions"):
        team.rehearse(operation)
    assert team.database.read_bytes() == before
    assert team.executions == 0
