"""What every operation keeps without asking for it, whatever it does and however it is undone.

Over every operation of the example and of the tests' own team: scripts and Python, undone by
restore, by script, or not at all.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from handrail.adapters.processes import LocalProcesses
from handrail.core import running
from handrail.core.deciding import Decided
from handrail.core.outcome import Outcome
from handrail.errors import RefusedError
from handrail.operations.loading import load
from handrail.ports import Command, Finished
from handrail.testing.talk import QuietTalk
from support.examples import STORY_1, make_story_1
from support.killing import Killer
from support.teams import ANA, UNDO, Team, make_team

EXAMPLES = [("story-1", name) for name in load(STORY_1 / "repository")]
CASES = [*EXAMPLES, *(("team", name) for name in (*UNDO, "trim-sessions"))]
BECAUSE = "the contract"
BEFORE_STEP_DONE, AFTER_UNDO_BEGUN, BEFORE_UNDO_DONE = 13, 4, 5


@cache
def made(repository: str, at: Path) -> Team:
    """Return the team of a repository, as nobody has touched it."""
    team = make_team(at / "team") if repository == "team" else make_story_1(at / "demo")
    team.keep("fresh")
    return team


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory for each repository."""
    return {name: tmp_path_factory.mktemp(name) for name in ("team", "story-1")}


class Case:
    """One operation of a team: what a test does with it."""

    def __init__(self, team: Team, operation: str) -> None:
        self.team = team
        self.operation = operation
        self.undo = team.declared.operations[operation].undo.kind
        self.before = team.fingerprint()

    def make_ready(self) -> Decided:
        """Rehearse and approve, once a test process, on the database as it was found."""
        state = f"ready-{self.operation}"
        if state in self.team.kept:
            self.team.put_back(state)
            return self.team.decide(self.operation, because=BECAUSE)
        decided = self.team.make_ready(self.operation, because=BECAUSE)
        self.team.keep(state)
        return decided

    def begin(self, **ports: Any) -> Outcome:
        """Rehearse, approve and run."""
        return running.begin(self.team.world(**ports), self.make_ready(), QuietTalk())

    def is_as_before(self) -> bool:
        """Whether the database holds what it held first."""
        return bool(self.team.fingerprint() == self.before)


@pytest.fixture(params=CASES, ids="/".join)
def case(request: pytest.FixtureRequest, places: dict[str, Path]) -> Case:
    """Each operation, on a database as it was found."""
    repository, operation = request.param
    team = made(repository, places[repository])
    team.put_back("fresh")
    return Case(team, operation)


def test_every_operation_is_here(places: dict[str, Path]) -> None:
    """No operation that the repositories declare is left out of the contract."""
    teams = {name: made(name, at) for name, at in places.items()}
    declared = {(name, o) for name, team in teams.items() for o in team.declared.own_operations}
    assert declared == set(CASES)


def test_planning_changes_nothing(case: Case) -> None:
    """Planning leaves the target's files as they were, byte by byte, also the second time."""
    files = content(case.team.database.parent)
    digests = {case.team.decide(case.operation).plan.digest for _ in range(2)}
    assert len(digests) == 1
    assert content(case.team.database.parent) == files


def test_rehearsing_changes_nothing(case: Case) -> None:
    """Rehearsing leaves the target's files as they were, byte by byte."""
    files = content(case.team.database.parent)
    case.team.rehearse(case.operation)
    assert content(case.team.database.parent) == files


def content(folder: Path) -> dict[str, bytes]:
    """Return the files of the target."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Failing(LocalProcesses):
    """Processes whose programs fail: before they did anything, or when all is done."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self._when = when

    def run(
        self, command: Command, started: Callable[[int], None], output: Callable[[bytes], None]
    ) -> Finished:
        if command.output.name == "undo.log":
            return super().run(command, started, output)
        if self._when == "before":
            started(1)
        else:
            super().run(command, started, output)
        return Finished(1, "exited", 0.1, 0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_failing_restores(case: Case, when: str) -> None:
    """A step that fails leaves the target as it was: nothing of its copy is swapped in."""
    ended = case.begin(processes=Failing(when))
    assert ended.outcome == "failed"
    assert case.is_as_before()


def test_twice_equals_once(case: Case) -> None:
    """The same plan again is refused, and the whole chain again changes nothing more."""
    decided = case.make_ready()
    assert running.begin(case.team.world(), decided, QuietTalk()).outcome == "confirmed"
    once = case.team.fingerprint()
    if decided.plan.facts.approvals:
        again = running.begin(case.team.world(), decided, QuietTalk())
        assert again.outcome == "refused"
        assert case.team.fingerprint() == once
    # A script that fails where its work is done (`DROP TABLE`) is refused: nothing happens.
    with suppress(RefusedError):
        decided = case.team.make_ready(case.operation, because=BECAUSE)
        assert running.begin(case.team.world(), decided, QuietTalk()).effects == ()
    assert case.team.fingerprint() == once


def test_undo_twice_equals_once(case: Case) -> None:
    """An undo puts the target back; another one changes nothing."""
    assert case.begin().outcome == "confirmed"
    after = case.team.fingerprint()
    assert after != case.before
    codes = [case.team.call("undo", "1").code for _ in range(2)]
    if case.undo == "irreversible":
        assert codes == [3, 3]
        assert case.team.fingerprint() == after
    else:
        assert codes == [0, 2]
        assert case.is_as_before()


def kill(case: Case, killer: Killer, words: tuple[str, ...], at: int, when: str) -> None:
    environment = case.team.environment_of(ANA)
    killed = killer.run(*words, environment=environment, cwd=case.team.root, at=at, when=when)
    assert killed["signal"] == signal.SIGKILL, killed


def test_killed_run_is_undone(case: Case, killer: Killer) -> None:
    """A run killed when its script has just ended is put back, or said to be past that."""
    case.make_ready()
    words = ("run", case.operation, "--because", BECAUSE)
    kill(case, killer, words, BEFORE_STEP_DONE - (not approvals(case)) * 2, "before")
    assert case.team.call("resume", "1").code == 4
    answer = case.team.call("resume", "1", "--undo")
    assert answer.code == 1
    if case.undo == "irreversible":
        assert "irreversible" in answer.out
    else:
        assert case.is_as_before()
    assert case.team.call("resume", "1").code == 2


def approvals(case: Case) -> int:
    """Return how many approvals the next run will use."""
    return len(case.team.decide(case.operation, because=BECAUSE).plan.facts.approvals)


@pytest.mark.parametrize(
    ("at", "when"), [(AFTER_UNDO_BEGUN, "after"), (BEFORE_UNDO_DONE, "before")]
)
def test_killed_undo_is_done(case: Case, killer: Killer, at: int, when: str) -> None:
    """An undo killed before or after it did its work is done when it is resumed."""
    assert case.begin().outcome == "confirmed"
    if case.undo == "irreversible":
        assert case.team.call("undo", "1").code == 3  # never begun: nothing to kill
        return
    kill(case, killer, ("undo", "1"), at, when)
    assert case.team.call("resume", "1").code == 1
    assert case.is_as_before()
    assert case.team.call("undo", "1").code == 2
