"""Approving: another person signs the digest, once, for a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from handrail.core import approving, observing, records
from handrail.core.deciding import Decided
from handrail.errors import KeysError, RefusedError, UsageError
from handrail.plans.canonical import plain, time_text
from handrail.plans.model import Approval
from support.teams import ANA, BEN, CHI, Team, make_team, signers
from support.worlds import FakeWorld, make_world

FOUR_HOURS_S = 4 * 3600
BY_DBA = (
    "approval: {max-age: 4h, by: {high: dba, critical: dba}}\ngroups: {dba: [chi@example.com]}\n"
)


def test_own_run(fake: FakeWorld) -> None:
    """Nobody approves what they asked for."""
    with pytest.raises(RefusedError) as raised:
        fake.approve(fake.rehearse(), "ana@example.com")
    assert raised.value.code == "keys.own-run"


def test_shared_key(fake: FakeWorld) -> None:
    """A key that is the requester's too is the requester's, whoever else has it."""
    decided = fake.rehearse()
    fake.keys._owners[Path("shared")] = ("ben@example.com", "ana@example.com")
    with pytest.raises(RefusedError) as raised:
        fake.approve(decided, "shared")
    assert raised.value.code == "keys.own-run"


def test_unknown_key(fake: FakeWorld) -> None:
    """A key that belongs to nobody approves nothing."""
    with pytest.raises(KeysError) as raised:
        fake.approve(fake.rehearse(), "stranger")
    assert raised.value.code == "keys.not-allowed"


def test_group(tmp_path: Path) -> None:
    """Where the policy names a group, only its members approve, and the refusal names them."""
    fake = make_world(tmp_path / "fake", policy=BY_DBA)
    decided = fake.rehearse()
    with pytest.raises(RefusedError) as raised:
        fake.approve(decided)
    assert raised.value.hint == "ask one of chi@example.com"
    assert fake.approve(decided, "chi@example.com").groups == ("dba",)
    assert fake.decide().plan.verdict == "allow"


def test_refused_plan(fake: FakeWorld) -> None:
    """A plan that a guard refuses cannot be approved around it."""
    with pytest.raises(RefusedError) as raised:
        fake.approve(fake.decide())
    assert raised.value.code == "plan.refused"


def test_unneeded(fake: FakeWorld) -> None:
    """A plan that waits for nobody is not approved."""
    fake.processes.programs = {"trim.sh": fake.program("")}
    with pytest.raises(UsageError) as raised:
        fake.approve(fake.rehearse())
    assert raised.value.code == "approval.unneeded"


@pytest.fixture
def critical(fake: FakeWorld) -> Decided:
    """A plan that drops a table of real data."""
    fake.processes.programs = {"trim.sh": fake.program("DROP TABLE devices")}
    decided = fake.rehearse()
    assert decided.plan.risk == "critical"
    return decided


@pytest.mark.parametrize("typed", ["", "y", "store/pilot-d", "pilot-db "])
def test_name_that_was_not_typed(fake: FakeWorld, critical: Decided, typed: str) -> None:
    """At risk critical an approval needs the target's name, exactly."""
    with pytest.raises(UsageError) as raised:
        fake.approve(critical, typed=typed)
    assert raised.value.code == "approval.name"
    assert fake.decide().plan.facts.approvals == ()


@pytest.mark.parametrize("typed", ["store/pilot-db", "pilot-db"])
def test_name_that_was_typed(fake: FakeWorld, critical: Decided, typed: str) -> None:
    """The target's name, with its kind or without, is enough."""
    assert fake.approve(critical, typed=typed).named_target
    assert fake.decide().plan.verdict == "allow"


# --- time ----------------------------------------------------------------------------------------


def test_expires(fake: FakeWorld) -> None:
    """An approval counts for the policy's time, and not a moment longer."""
    fake.approve(fake.rehearse())
    fake.clock.advance(FOUR_HOURS_S - 1)
    assert fake.decide().plan.verdict == "allow"
    fake.clock.advance(1)
    assert fake.decide().plan.verdict == "require"


def test_clock_set_forward(fake: FakeWorld) -> None:
    """A wall clock that jumps ahead ends an approval early, never late."""
    fake.approve(fake.rehearse())
    fake.clock.jump(FOUR_HOURS_S)
    assert fake.decide().plan.verdict == "require"


def test_clock_set_back_does_not_revive(fake: FakeWorld) -> None:
    """An approval that was seen expired stays so when the clock is set back."""
    fake.approve(fake.rehearse())
    fake.clock.advance(FOUR_HOURS_S)
    assert fake.decide().plan.verdict == "require"
    fake.clock.jump(-FOUR_HOURS_S)
    assert fake.decide().plan.verdict == "require"


def test_clock_set_back_before_it_was_made(fake: FakeWorld) -> None:
    """An approval that is still to come does not count."""
    fake.approve(fake.rehearse())
    fake.clock.jump(-60)
    assert fake.decide().plan.facts.approvals == ()


def test_rehearsal_expires(fake: FakeWorld) -> None:
    """A rehearsal counts for its time, however the clock jumps, and none from the future does."""
    fake.rehearse()
    for jump_s, verdict in ((86400, "require"), (1, "refuse"), (-86400 - 600, "refuse")):
        fake.clock.jump(jump_s)
        assert fake.decide().plan.verdict == verdict


# --- once ----------------------------------------------------------------------------------------


def test_one_of_two_wins(team: Team) -> None:
    """Of two runs that use one approval at the same time, one gets it."""
    decided = team.make_ready("reset-pilot")
    barrier = threading.Barrier(2)
    won: list[str] = []
    lost: list[str] = []

    def use(run: str) -> None:
        world = team.world()
        barrier.wait(20)
        try:
            approving.use(world, decided.plan, run)
        except RefusedError:
            lost.append(run)
        else:
            won.append(run)

    threads = [threading.Thread(target=use, args=(f"run-{number}",)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (len(won), len(lost)) == (1, 1)
    assert team.decide("reset-pilot").plan.verdict == "require"


def test_use_cut_off_leaves_no_trap(fake: FakeWorld) -> None:
    """An approval used by a run that died at once is refused once, and then a new one counts."""
    decided = fake.make_ready()
    fake.journal.single_use(f"approval {decided.plan.facts.approvals[0].id}")
    assert fake.begin(fake.decide()).outcome == "refused"
    waiting = fake.decide()
    assert waiting.plan.verdict == "require"
    fake.approve(waiting)
    assert fake.begin(fake.decide()).outcome == "confirmed"


# --- signatures, with real keys ------------------------------------------------------------------


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Team, Decided, Approval]:
    """A team with an approved plan."""
    team = make_team(tmp_path_factory.mktemp("approved") / "team")
    decided = team.rehearse("drop-readings")
    approval = team.approve(decided, because="test day")
    return team, decided, approval


def counts(team: Team, decided: Decided, approval: Approval) -> bool:
    """Whether an approval counts, wherever it came from."""
    world = team.world()
    now = time_text(world.clock.now())
    return bool(observing.verified(world, [approval], decided.plan.target.resource, now))


def test_real_approval(waiting: tuple[Team, Decided, Approval]) -> None:
    """What was approved counts, for the plan that is made anew."""
    team, decided, approval = waiting
    assert (approval.person, approval.because) == (BEN, "test day")
    assert counts(team, decided, approval)
    assert team.decide("drop-readings").plan.verdict == "allow"


@pytest.mark.parametrize(
    "tamper",
    [
        lambda a: replace(a, because="another reason"),
        lambda a: replace(a, expires_at=f"9{a.expires_at[1:]}"),
        lambda a: replace(a, made_at=f"1{a.made_at[1:]}"),
        lambda a: replace(a, named_target=False),
        lambda a: replace(a, digest="0" * 64),
        lambda a: replace(a, id="0" * 12),
        lambda a: replace(a, person=ANA),
        lambda a: replace(a, person=CHI),
        lambda a: replace(a, signature=a.signature.replace("A", "B", 1)),
        lambda a: replace(a, signature=""),
    ],
)
def test_tampered(
    waiting: tuple[Team, Decided, Approval], tamper: Callable[[Approval], Approval]
) -> None:
    """An approval of which anything was changed does not count."""
    team, decided, approval = waiting
    assert not counts(team, decided, tamper(approval))


def test_tampered_in_the_journal(team: Team) -> None:
    """A record that somebody wrote by hand into the journal approves nothing."""
    decided = team.rehearse("reset-pilot")
    approval = team.approve(decided)
    forged = replace(approval, id="f" * 12, digest=decided.plan.digest, because="forged")
    team.world().journal.append("approvals-" + "0" * 64, "approved", as_body(forged))
    team.world().journal.append(f"approvals-{decided.plan.digest}", "approved", as_body(forged))
    found = team.decide("reset-pilot").plan.facts.approvals
    assert [one.id for one in found] == [approval.id]
    assert len(records.approvals(team.world().journal, decided.plan.digest)) == 2


def as_body(approval: Approval) -> dict[str, object]:
    body = plain(approval)
    assert isinstance(body, dict)
    return body


def test_signature_over_another_plan(team: Team) -> None:
    """A signature over one plan, put under another, does not count there."""
    first = team.rehearse("reset-pilot")
    second = team.rehearse("trim-sessions")
    approval = team.approve(first)
    moved = replace(approval, digest=second.plan.digest)
    team.world().journal.append(f"approvals-{second.plan.digest}", "approved", as_body(moved))
    assert team.decide("trim-sessions").plan.verdict == "require"
    assert team.decide("reset-pilot").plan.verdict == "allow"


def test_key_taken_away(team: Team) -> None:
    """An approval by a key that is no longer in `allowed_signers` does not count."""
    decided = team.rehearse("reset-pilot")
    approval = team.approve(decided)
    assert counts(team, decided, approval)
    team.write({"allowed_signers": signers(team, ANA)})
    assert not counts(team, decided, approval)


def test_key_of_nobody(team: Team) -> None:
    """Somebody who is not in `allowed_signers` approves nothing, and it says where to add them."""
    decided = team.rehearse("reset-pilot")
    with pytest.raises(KeysError) as raised:
        team.approve(decided, CHI)
    assert raised.value.code == "keys.not-allowed"
    assert team.decide("reset-pilot").plan.verdict == "require"
