"""Withdrawal: an approver takes an approval back, signed, before a run has used it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handrail.core import approving, records, withdrawing
from handrail.core.withdrawing import Withdrawal
from handrail.errors import KeysError, RefusedError, UsageError
from support.teams import BEN, CHI, Team, make_team
from support.worlds import FakeWorld

FAKE_BEN, FAKE_CHI = "ben@example.com", "chi@example.com"


def withdraw(fake: FakeWorld, what: str, person: str = FAKE_BEN) -> tuple[Withdrawal, ...]:
    return withdrawing.withdraw(fake.world(person), what, Path(person), "changed my mind")


def test_withdrawn_counts_no_more(fake: FakeWorld) -> None:
    """The plan waits again as soon as the approver has withdrawn."""
    decided = fake.make_ready()
    (said,) = withdraw(fake, decided.plan.digest[:6])
    assert (said.person, said.because) == (FAKE_BEN, "changed my mind")
    assert fake.decide().plan.verdict == "require"


def test_a_run_that_was_about_to_begin_sees_it(fake: FakeWorld) -> None:
    """A plan that was judged before the withdrawal does not run after it."""
    ready = fake.make_ready()
    withdraw(fake, ready.plan.digest)
    ended = fake.begin(ready)
    assert (ended.outcome, "second-person" in ended.why) == ("refused", True)
    assert fake.count() == 20
    assert fake.processes.runs[-1].confine is not None  # the rehearsal's: nothing ran since


def test_by_the_approver_alone(fake: FakeWorld) -> None:
    """Nobody withdraws another person's approval, and the error says whose it is."""
    decided = fake.make_ready()
    with pytest.raises(UsageError) as raised:
        withdraw(fake, decided.plan.digest, FAKE_CHI)
    assert raised.value.code == "approval.none"
    assert raised.value.hint == "it is by ben@example.com, who alone can withdraw it"
    assert fake.decide().plan.verdict == "allow"


def test_by_a_stranger(fake: FakeWorld) -> None:
    """A key that is nobody's withdraws nothing."""
    digest = fake.make_ready().plan.digest
    with pytest.raises(KeysError):
        withdrawing.withdraw(fake.world(FAKE_BEN), digest, Path("stranger"))


@pytest.mark.parametrize("change", [{"person": FAKE_CHI}, {"because": "x"}, {"id": "0" * 12}])
def test_tampered(fake: FakeWorld, change: dict[str, Any]) -> None:
    """A withdrawal of which anything was changed is not taken."""
    digest = fake.make_ready().plan.digest
    world = fake.world(FAKE_BEN)
    (unsigned,) = withdrawing.prepare(world, digest)
    signature = fake.keys.sign(withdrawing.payload(unsigned), Path(FAKE_BEN))
    with pytest.raises((KeysError, UsageError)):
        withdrawing.accept(world, replace(unsigned, signature=signature, **change))
    assert fake.decide().plan.verdict == "allow"


def test_after_the_run(fake: FakeWorld) -> None:
    """What a run has used cannot be withdrawn; the error names the run."""
    ready = fake.make_ready()
    assert fake.begin(ready).outcome == "confirmed"
    with pytest.raises(UsageError) as raised:
        withdraw(fake, ready.plan.digest)
    assert "run 1 has used it" in raised.value.hint


@pytest.mark.parametrize("ended_by", ["withdrawn", "used", "expired"])
def test_its_record_written_again(fake: FakeWorld, ended_by: str) -> None:
    """The record of an approval that has ended gives nothing back when somebody repeats it."""
    ready = fake.make_ready()
    chain = f"approvals-{ready.plan.digest}"
    (approved,) = records.told_of(fake.journal, chain, "approved")
    if ended_by == "withdrawn":
        withdraw(fake, ready.plan.digest)
    else:
        fake.journal.append(chain, ended_by, {"id": approved["id"], "run": "run-9"})
    fake.journal.append(chain, "approved", approved)
    assert fake.decide().plan.facts.approvals == ()
    with pytest.raises(UsageError):
        withdraw(fake, ready.plan.digest)


def test_a_new_one_after_it(fake: FakeWorld) -> None:
    """Who has withdrawn may approve again: that is another approval."""
    ready = fake.make_ready()
    withdraw(fake, ready.plan.digest)
    waiting = fake.decide()
    fake.approve(waiting)
    assert fake.begin(fake.decide()).outcome == "confirmed"


def test_by_its_id(fake: FakeWorld) -> None:
    """An approval is found by the beginning of its own id, too; others of the plan stay."""
    decided = fake.rehearse()
    first = fake.approve(decided)
    fake.approve(decided, FAKE_CHI)
    assert [one.id for one in withdraw(fake, first.id[:8])] == [first.id]
    assert [a.person for a in fake.decide().plan.facts.approvals] == [FAKE_CHI]


def test_of_nothing(fake: FakeWorld) -> None:
    """An empty word means nothing, and not everything."""
    fake.make_ready()
    for what in ("", "-", "ffff"):
        with pytest.raises(UsageError):
            withdraw(fake, what)
    assert fake.decide().plan.verdict == "allow"


def test_at_the_same_moment_as_the_run(tmp_path: Path) -> None:
    """Of a withdrawal and a run in the same moment one wins, and the other is told."""
    team = make_team(tmp_path / "team")
    team.rehearse("reset-pilot")
    for _ in range(4):
        team.approve(team.decide("reset-pilot"))
        plan = team.decide("reset-pilot").plan
        barrier = threading.Barrier(2)
        told: list[str] = []

        def run(plan: Any = plan, barrier: Any = barrier, told: Any = told) -> None:
            barrier.wait(20)
            try:
                approving.use(team.world(), plan, "run-1")
                told.append("used")
            except RefusedError:
                pass

        def take_back(plan: Any = plan, barrier: Any = barrier, told: Any = told) -> None:
            barrier.wait(20)
            try:
                withdrawing.withdraw(team.world(BEN), plan.digest, team.key(BEN))
                told.append("withdrawn")
            except (RefusedError, UsageError):
                pass

        threads = [threading.Thread(target=one) for one in (run, take_back)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(told) == 1
        assert team.decide("reset-pilot").plan.verdict == "require"


def test_on_the_command_line(tmp_path: Path) -> None:
    """`handrail withdraw` takes back one's own, says so, and exits with 2 where there is none."""
    team = make_team(tmp_path / "team")
    digest = team.make_ready("reset-pilot").plan.digest
    other = team.call("withdraw", digest, person=CHI)
    assert (other.code, "keys.not-allowed" in other.err) == (1, True)
    own = team.call("withdraw", records.short(digest), person=BEN)
    assert (own.code, f"of {records.short(digest)}, by {BEN}" in own.out) == (0, True)
    again = team.call("withdraw", digest, person=BEN)
    assert (again.code, "approval.none" in again.err) == (2, True)
    assert team.call("run", "reset-pilot").code == 4
    assert team.call("log", "verify").code == 0


def test_of_a_person_who_left(team: Team) -> None:
    """An approval by somebody who was taken out of `allowed_signers` counts no more."""
    ready = team.make_ready("reset-pilot")
    lines = (team.root / "allowed_signers").read_text().splitlines(keepends=True)
    (team.root / "allowed_signers").write_text("".join(n for n in lines if BEN not in n))
    outcome = team.call("run", "reset-pilot")
    assert outcome.code in {3, 4}
    assert approving.needed(team.decide("reset-pilot").plan)
    assert ready.plan.verdict == "allow"
