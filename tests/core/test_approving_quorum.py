"""Quorum: several people approve, each once, and never the requester."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from handrail.core import observing, records
from handrail.core.deciding import Decided
from handrail.errors import RefusedError
from handrail.plans.canonical import plain
from support.ssh_people import public
from support.teams import ANA, BEN, CHI, Team, make_team, signers
from support.worlds import FakeWorld, make_world

TWO = """\
approval: {max-age: 4h, by: {high: {group: dba, of: 2}, critical: {group: dba, of: 2}}}
groups: {dba: [ben@example.com, chi@example.com, dan@example.com, ana@example.com]}
"""
TWO_REAL = (
    "approval: {by: {high: {group: dba, of: 2}}}\n"
    f"groups: {{dba: [{BEN}, {CHI}, ana@pilot.example]}}\n"
)
DAN = "dan@example.com"
FAKE_BEN, FAKE_CHI = "ben@example.com", "chi@example.com"


@pytest.fixture
def two(tmp_path: Path) -> FakeWorld:
    """A world in which two of `dba` approve."""
    made = make_world(tmp_path / "two", policy=TWO)
    made.keys._owners[Path(DAN)] = (DAN,)
    return made


def because(decided: Decided) -> str:
    """Return what the guard `second-person` says."""
    return next(d.because for d in decided.plan.decisions if d.guard == "second-person")


def test_one_of_two_is_not_enough(two: FakeWorld) -> None:
    """With one approval of two the plan waits, and says who has and who may."""
    decided = two.rehearse()
    assert because(decided) == (
        "2 of `dba`; ben@example.com, chi@example.com, dan@example.com may, not ana@example.com"
    )
    two.approve(decided)
    waiting = two.decide()
    assert waiting.plan.verdict == "require"
    assert because(waiting) == (
        "2 of `dba`: ben@example.com has; chi@example.com, dan@example.com may, not ana@example.com"
    )


def test_two_are_enough_and_both_are_used(two: FakeWorld) -> None:
    """Two people's approvals let it run once, and the run uses up both."""
    decided = two.rehearse()
    for person in (FAKE_BEN, DAN):
        two.approve(decided, person)
    ready = two.decide()
    assert ready.plan.verdict == "allow"
    assert {a.person for a in ready.plan.facts.approvals} == {FAKE_BEN, DAN}
    assert two.begin(ready).outcome == "confirmed"
    assert records.approvals(two.journal, ready.plan.digest) == ()


def test_one_person_counts_once(two: FakeWorld) -> None:
    """Two approvals of one person, by two keys and in capital letters, are one."""
    decided = two.rehearse()
    two.keys._owners[Path("second")] = (FAKE_BEN,)
    two.approve(decided)
    two.approve(decided, "second")
    assert len(two.decide().plan.facts.approvals) == 2
    assert two.decide().plan.verdict == "require"


def test_one_key_is_one_person(two: FakeWorld) -> None:
    """Whoever has two names in the group and one key counts once."""
    decided = two.rehearse()
    two.keys._owners[Path("both")] = (FAKE_BEN, DAN)
    first = two.approve(decided, "both")
    again = replace(first, id="f" * 12, person=DAN)
    target = decided.plan.target.resource
    signature = two.keys.sign(observing.payload(again, target), Path("both"))
    body = plain(replace(again, signature=signature))
    assert isinstance(body, dict)
    two.journal.append(f"approvals-{decided.plan.digest}", "approved", body)
    assert [a.person for a in two.decide().plan.facts.approvals] == [FAKE_BEN]
    assert two.decide().plan.verdict == "require"


def test_requesters_key_under_another_name(two: FakeWorld) -> None:
    """An approval in another's name that the requester's key signed does not count, if recorded."""
    decided = two.rehearse()
    made = two.approve(decided)
    two.keys._owners[Path("shared")] = ("ana@example.com", DAN)
    forged = replace(made, id="e" * 12, person=DAN)
    target = decided.plan.target.resource
    signature = two.keys.sign(observing.payload(forged, target), Path("shared"))
    body = plain(replace(forged, signature=signature))
    assert isinstance(body, dict)
    two.journal.append(f"approvals-{decided.plan.digest}", "approved", body)
    assert [a.person for a in two.decide().plan.facts.approvals] == [FAKE_BEN]


def test_requester_in_the_group(two: FakeWorld) -> None:
    """Who asks is no part of the quorum, also as a member of the group."""
    with pytest.raises(RefusedError) as raised:
        two.approve(two.rehearse(), "ana@example.com")
    assert raised.value.code == "keys.own-run"


def test_each_types_the_name(two: FakeWorld) -> None:
    """At risk critical each of the two types the target's name."""
    two.processes.programs = {"trim.sh": two.program("DROP TABLE devices")}
    decided = two.rehearse()
    for person in (FAKE_BEN, FAKE_CHI):
        assert two.approve(decided, person, typed="pilot-db").named_target
    assert two.decide().plan.verdict == "allow"


def test_one_expires_first(two: FakeWorld) -> None:
    """When the first approval expires, the second is alone, and the plan waits again."""
    decided = two.rehearse()
    two.approve(decided)
    two.clock.advance(2 * 3600)
    two.approve(decided, FAKE_CHI)
    assert two.decide().plan.verdict == "allow"
    two.clock.advance(2 * 3600)
    waiting = two.decide()
    assert [a.person for a in waiting.plan.facts.approvals] == [FAKE_CHI]
    assert waiting.plan.verdict == "require"


def test_group_of_no_name(tmp_path: Path) -> None:
    """Two of anybody: the policy need not name a group."""
    fake = make_world(tmp_path / "fake", policy="approval: {by: {high: {of: 2}}}\n")
    decided = fake.rehearse()
    assert because(decided) == "2 people in allowed_signers, not ana@example.com"
    for person in (FAKE_BEN, FAKE_CHI):
        fake.approve(decided, person)
    assert fake.decide().plan.verdict == "allow"


def test_person_who_left(two: FakeWorld) -> None:
    """When one of two leaves `allowed_signers` after approving, the run refuses."""
    decided = two.rehearse()
    for person in (FAKE_BEN, FAKE_CHI):
        two.approve(decided, person)
    ready = two.decide()
    del two.keys._owners[Path(FAKE_CHI)]
    ended = two.begin(ready)
    assert (ended.outcome, "second-person" in ended.why) == ("refused", True)
    assert two.count() == 20


@pytest.fixture
def team(tmp_path: Path) -> Team:
    """A team with real keys in which two approve."""
    made = make_team(tmp_path / "team", {"policy.yaml": TWO_REAL})
    made.commit({"allowed_signers": signers(made, ANA, BEN, CHI)})
    return made


APPROVE = """\
import sys
from handrail.cli.main import main
sys.stdin.readline()
sys.exit(main(["approve", sys.argv[1], "--yes"]))
"""


def test_two_at_once(team: Team) -> None:
    """Two people who approve in the same moment, in two processes, both count."""
    digest = team.rehearse("reset-pilot").plan.digest
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", APPROVE, digest],
            env=team.environment_of(person),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd=team.root,
        )
        for person in (BEN, CHI)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0, 0]
    ready = team.decide("reset-pilot")
    assert {a.person for a in ready.plan.facts.approvals} == {BEN, CHI}
    assert ready.plan.verdict == "allow"
    assert team.call("run", "reset-pilot").code == 0


def test_of_two_runs_one_gets_all(team: Team) -> None:
    """Of two runs that use a quorum at the same time, one gets all of it and the other none."""
    from handrail.core import approving

    decided = team.rehearse("reset-pilot")
    for person in (BEN, CHI):
        team.approve(decided, person)
    plan = team.decide("reset-pilot").plan
    barrier, won, lost = threading.Barrier(2), [], []

    def use(run: str) -> None:
        world = team.world()
        barrier.wait(20)
        try:
            won.append((run, approving.use(world, plan, run)))
        except RefusedError:
            lost.append(run)

    threads = [threading.Thread(target=use, args=(f"run-{n}",)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(lost) == 1
    ((run, ids),) = won
    chain = f"approvals-{plan.digest}"
    used = records.told_of(team.world().journal, chain, "used")
    assert {one["id"] for one in used if one["run"] == run} == set(ids)
    assert len(ids) == 2


def test_two_keys_of_one_person(team: Team) -> None:
    """A person with two real keys in `allowed_signers` counts once."""
    from support.ssh_people import make_key

    spare = make_key(team.keys, "ben-spare")
    kind, key = public(spare).split()[:2]
    lines = signers(team, ANA, BEN, CHI) + f'{BEN} namespaces="handrail" {kind} {key}\n'
    team.commit({"allowed_signers": lines})
    digest = team.rehearse("reset-pilot").plan.digest
    assert team.call("approve", digest, "--yes", person=BEN).code == 0
    second = team.call("approve", digest, "--yes", "--key", str(spare), person=BEN)
    assert (second.code, "1 of 2 have approved" in second.out) == (0, True)
    waiting = team.call("run", digest)
    assert (waiting.code, f"{BEN} has; {CHI} may" in waiting.out) == (4, True)
    third = team.call("approve", digest, "--yes", person=CHI)
    assert f"next: handrail run {records.short(digest)}" in third.out
