"""Breaking the glass: a run that waits for nobody, is told to everybody, and is reviewed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from handrail.core import breaking, records
from handrail.core.breaking import Break
from handrail.core.deciding import Decided
from handrail.errors import JournalError, KeysError, RefusedError, UsageError
from handrail.plans.canonical import plain
from handrail.plans.model import BrokenGlass, Decision
from support.scripts import wait_for
from support.teams import ANA, BEN, CHI, OPERATION, Team, make_team, signers
from support.worlds import FakeWorld, commit, make_world

FAKE_ANA, FAKE_BEN, FAKE_CHI = "ana@example.com", "ben@example.com", "chi@example.com"
WHY = "the disk is full, and it is 3 o'clock"
FOUND = "I looked: the rows were the right ones"


def break_glass(fake: FakeWorld, person: str = FAKE_ANA, why: str = WHY) -> Decided:
    """Break the glass for the plan as it is now."""
    from handrail.core import deciding

    world = fake.world(person)
    return breaking.through(world, deciding.decide(world, fake.declared, "trim"), why)


def review(fake: FakeWorld, what: str, person: str = FAKE_BEN, because: str = FOUND) -> Break:
    return breaking.review(fake.world(person), fake.declared, what, Path(person), because)


def said(decided: Decided, guard: str) -> Decision:
    return next(d for d in decided.plan.decisions if d.guard == guard)


def test_it_runs_without_anybody(fake: FakeWorld) -> None:
    """A rehearsed plan runs without an approval, and every guard that was passed says so."""
    fake.rehearse()
    decided = break_glass(fake)
    assert decided.plan.verdict == "allow"
    assert said(decided, "second-person").because == (
        f'glass broken by ana@example.com, "{WHY}"; else: anybody in allowed_signers, not '
        "ana@example.com"
    )
    assert fake.begin(decided).outcome == "confirmed"


def test_it_is_journalled_before_it_acts(fake: FakeWorld) -> None:
    """Who, why, for what and past which guards stands in the journal before the run is opened."""
    fake.rehearse()
    decided = break_glass(fake)
    (broken,) = breaking.breaks(fake.world())
    assert (broken.operation, broken.target, broken.risk) == ("trim", "store/pilot-db", "high")
    assert (broken.glass.person, broken.glass.because) == (FAKE_ANA, WHY)
    assert broken.passed == (("second-person", "anybody in allowed_signers, not ana@example.com"),)
    assert fake.journal.chains("run-") == ()
    fake.begin(decided)
    (opened,) = records.told_of(fake.journal, "run-1", "opened")
    assert opened["plan"]["facts"]["glass"]["id"] == broken.glass.id


def test_without_a_journal_nothing_runs(fake: FakeWorld) -> None:
    """When the break cannot be recorded, there is none."""
    fake.rehearse()
    decided = fake.decide()
    fake.journal.fails = True
    with pytest.raises(JournalError):
        breaking.through(fake.world(), decided, WHY)
    fake.journal.fails = False
    assert fake.decide().plan.verdict == "require"
    assert breaking.breaks(fake.world()) == ()


def test_typed_name_and_freeze(tmp_path: Path) -> None:
    """It passes the typed name, and a freeze, which is a word of people, too."""
    policy = "freezes: [{risk: high, because: the fair is on}]\n"
    fake = make_world(tmp_path / "fake", policy=policy)
    fake.processes.programs = {"trim.sh": fake.program("DROP TABLE devices")}
    assert fake.rehearse().plan.verdict == "refuse"
    decided = break_glass(fake)
    passed = {guard for guard, _ in breaking.breaks(fake.world())[0].passed}
    assert passed == {"second-person", "typed-name", "freeze"}
    assert fake.begin(decided).outcome == "confirmed"


def test_review_of_the_script(fake: FakeWorld) -> None:
    """It passes the guard `review`: an own script, read by nobody."""
    from handrail.ports import Change

    own = Change("9" * 40, FAKE_ANA, (), "2026-01-01T00:00:00.000000Z")
    files = [p.relative_to(fake.root).as_posix() for p in fake.root.rglob("*") if p.is_file()]
    fake.repository.put(own, *files)
    assert fake.rehearse().plan.verdict == "refuse"
    assert break_glass(fake).plan.verdict == "allow"


def be_late(fake: FakeWorld) -> None:
    fake.clock.advance(2 * 86400)


def leave_uncommitted(fake: FakeWorld) -> None:
    fake.repository.dirty.add("policy.yaml")


def be_another(fake: FakeWorld) -> None:
    estate = (fake.root / "estate/pilot.yaml").read_text()
    fake.write("estate/pilot.yaml", estate.replace("fake:5d0c", "fake:0000"))
    commit(fake)
    fake.rehearse()


def be_cut_off(fake: FakeWorld) -> None:
    fake.journal.append("resource-store/pilot-db", "run-begun", {"run": 7})


@pytest.mark.parametrize(
    ("guard", "spoil"),
    [
        ("rehearsed", be_late),
        ("committed", leave_uncommitted),
        ("identity", be_another),
        ("lock", be_cut_off),
    ],
)
def test_what_it_does_not_pass(
    fake: FakeWorld, guard: str, spoil: Callable[[FakeWorld], None]
) -> None:
    """Facts are not people: what refuses because of one refuses, and no glass is broken."""
    fake.rehearse()
    spoil(fake)
    with pytest.raises(RefusedError, match=f"does not pass {guard}"):
        break_glass(fake)
    assert breaking.breaks(fake.world()) == ()


def test_forged_passes(fake: FakeWorld) -> None:
    """A glass that says it passes more than can be passed passes no more."""
    decided = fake.decide()
    glass = BrokenGlass("f" * 8, FAKE_ANA, WHY, decided.plan.facts.now, decided.plan.digest, ())
    from handrail.plans.judging import Case, judge

    forged = replace(glass, passes=("rehearsed", "backup-proven", "second-person"))
    plan = replace(decided.plan, facts=replace(decided.plan.facts, glass=forged))
    case = Case(plan, decided.operation, decided.declared.estate, decided.declared.policy)
    judged = {d.guard: d.verdict for d in judge(case, fake.world().guards).decisions}
    assert (judged["rehearsed"], judged["second-person"]) == ("refuse", "allow")


def test_unrecorded_glass_breaks_nothing(fake: FakeWorld) -> None:
    """A plan that says its glass is broken, where the journal does not, is refused at the run."""
    decided = fake.rehearse()
    glass = BrokenGlass(
        "f" * 8, FAKE_ANA, WHY, decided.plan.facts.now, decided.plan.digest, ("second-person",)
    )
    plan = replace(decided.plan, facts=replace(decided.plan.facts, glass=glass))
    allowed = replace(plan, decisions=tuple(replace(d, verdict="allow") for d in plan.decisions))
    ended = fake.begin(replace(decided, plan=allowed))
    assert (ended.outcome, fake.count()) == ("refused", 20)


def test_unneeded(fake: FakeWorld) -> None:
    """What may run anyway is not run behind broken glass."""
    fake.make_ready()
    with pytest.raises(UsageError) as raised:
        break_glass(fake)
    assert raised.value.code == "break-glass.unneeded"


@pytest.mark.parametrize("why", ["", "  ", "\n"])
def test_no_reason(fake: FakeWorld, why: str) -> None:
    """Without a reason there is no emergency."""
    fake.rehearse()
    with pytest.raises(UsageError):
        break_glass(fake, why=why)


def test_one_break_is_for_one_run(fake: FakeWorld) -> None:
    """The same plan does not run a second time behind the same glass."""
    fake.rehearse()
    decided = break_glass(fake)
    assert fake.begin(decided).outcome == "confirmed"
    fake.store.execute("INSERT INTO sessions SELECT id + 100, 1 FROM sessions LIMIT 15")
    again = fake.begin(decided)
    assert (again.outcome, "broken for another run" in again.why) == ("refused", True)


# --- until it is reviewed -------------------------------------------------------------------------


def test_nobody_breaks_it_again(fake: FakeWorld) -> None:
    """Until somebody has reviewed it, nobody can break it again, and the error says what to do."""
    fake.rehearse()
    fake.begin(break_glass(fake))
    fake.store.execute("INSERT INTO sessions SELECT id + 100, 1 FROM sessions LIMIT 15")
    fake.clock.advance(60)
    fake.rehearse()
    for person in (FAKE_ANA, FAKE_CHI):
        with pytest.raises(RefusedError) as raised:
            break_glass(fake, person)
        assert raised.value.code == "break-glass.unreviewed"
        assert raised.value.hint.startswith("handrail review ")
    review(fake, "1")
    assert break_glass(fake, FAKE_CHI).plan.verdict == "allow"


def test_per_person(tmp_path: Path) -> None:
    """Where the policy says so, it keeps from it only whoever did it."""
    fake = make_world(tmp_path / "fake", policy="break-glass: {blocks: person}\n")
    fake.rehearse()
    break_glass(fake)
    with pytest.raises(RefusedError):
        break_glass(fake)
    with pytest.raises(RefusedError):
        break_glass(fake, FAKE_ANA.upper())
    assert break_glass(fake, FAKE_BEN).plan.verdict == "allow"


@pytest.mark.parametrize(
    ("person", "error"),
    [(FAKE_ANA, RefusedError), ("stranger", KeysError), ("shared", RefusedError)],
)
def test_who_reviews(fake: FakeWorld, person: str, error: type[Exception]) -> None:
    """Not the one who broke it, under no name, and no stranger."""
    fake.keys._owners[Path("shared")] = (FAKE_CHI, FAKE_ANA)
    fake.rehearse()
    fake.begin(break_glass(fake))
    with pytest.raises(error):
        review(fake, "1", person)
    assert breaking.breaks(fake.world())[0].review is None


def test_reviewers_of_a_group(tmp_path: Path) -> None:
    """The policy may name who reviews."""
    policy = "break-glass: {reviewed-by: leads}\ngroups: {leads: [chi@example.com]}\n"
    fake = make_world(tmp_path / "fake", policy=policy)
    fake.rehearse()
    fake.begin(break_glass(fake))
    with pytest.raises(RefusedError, match="not in `leads`"):
        review(fake, "1")
    found = review(fake, "1", FAKE_CHI).review
    assert found is not None
    assert found.person == FAKE_CHI


@pytest.mark.parametrize("because", ["", "ok", "looks good"])
def test_review_without_words(fake: FakeWorld, because: str) -> None:
    """A review says in words what was found."""
    fake.rehearse()
    fake.begin(break_glass(fake))
    with pytest.raises(UsageError):
        review(fake, "1", because=because)


def test_review_twice(fake: FakeWorld) -> None:
    """The first review counts; a second is told who was first."""
    fake.rehearse()
    fake.begin(break_glass(fake))
    review(fake, "1")
    with pytest.raises(UsageError, match="has reviewed this"):
        review(fake, "1", FAKE_CHI)


@pytest.mark.parametrize("what", ["2", "ffff", "", "x"])
def test_review_of_nothing(fake: FakeWorld, what: str) -> None:
    """A run without broken glass, or none, is not reviewed."""
    fake.rehearse()
    break_glass(fake)
    fake.approve(fake.decide())
    with pytest.raises(UsageError) as raised:
        review(fake, what)
    assert raised.value.code == "break-glass.nothing"


def test_break_without_a_run(fake: FakeWorld) -> None:
    """A break whose process died before the run is reviewed by its id."""
    fake.rehearse()
    decided = break_glass(fake)
    assert decided.plan.facts.glass is not None
    assert review(fake, decided.plan.facts.glass.id).review is not None


def test_forged_review(fake: FakeWorld) -> None:
    """A review that somebody wrote by hand into the journal opens nothing."""
    fake.rehearse()
    decided = break_glass(fake)
    world = fake.world(FAKE_BEN)
    assert decided.plan.facts.glass is not None
    name = decided.plan.facts.glass.id
    broken, unsigned = breaking.prepare(world, fake.declared, name, FOUND)
    own = fake.keys.sign(breaking.review_payload(broken, unsigned), Path(FAKE_ANA))
    good = fake.keys.sign(breaking.review_payload(broken, unsigned), Path(FAKE_BEN))
    for forged in (
        replace(unsigned, signature=own),
        replace(unsigned, signature=good, because="something else entirely"),
        replace(unsigned, signature=own, person=FAKE_ANA),
        replace(unsigned, signature=""),
    ):
        body = plain(forged)
        assert isinstance(body, dict)
        fake.journal.append(breaking.CHAIN, "reviewed", body)
    with pytest.raises(RefusedError):
        break_glass(fake, FAKE_CHI)
    breaking.accept(world, fake.declared, name, replace(unsigned, signature=good))
    assert break_glass(fake, FAKE_CHI).plan.verdict == "allow"


def test_reviewer_who_left_later(fake: FakeWorld) -> None:
    """A review of long ago still counts when its author has left; one of just now does not."""
    fake.rehearse()
    break_glass(fake)
    review(fake, breaking.breaks(fake.world())[0].glass.id)
    owners = fake.keys._owners.pop(Path(FAKE_BEN))
    with pytest.raises(RefusedError):
        break_glass(fake)
    fake.keys._owners[Path(FAKE_BEN)] = owners
    second = break_glass(fake)
    assert second.plan.facts.glass is not None
    review(fake, second.plan.facts.glass.id, FAKE_CHI)
    del fake.keys._owners[Path(FAKE_BEN)]
    assert break_glass(fake).plan.verdict == "allow"


# --- what the policy says -------------------------------------------------------------------------


def test_switched_off(tmp_path: Path) -> None:
    """A policy may allow it to nobody."""
    fake = make_world(tmp_path / "fake", policy="break-glass: {allowed: false}\n")
    fake.rehearse()
    with pytest.raises(RefusedError) as raised:
        break_glass(fake)
    assert raised.value.code == "break-glass.denied"
    assert raised.value.hint.startswith("handrail approve ")


def test_of_a_group(tmp_path: Path) -> None:
    """A policy may allow it to a group."""
    policy = "break-glass: {by: dba}\ngroups: {dba: [ben@example.com]}\n"
    fake = make_world(tmp_path / "fake", policy=policy)
    fake.rehearse()
    with pytest.raises(RefusedError, match="not in `dba`"):
        break_glass(fake)
    assert break_glass(fake, FAKE_BEN).plan.verdict == "allow"


def test_fewer_guards(tmp_path: Path) -> None:
    """A policy may let it pass fewer guards."""
    policy = "break-glass: {passes: [freeze]}\n"
    fake = make_world(tmp_path / "fake", policy=policy)
    fake.rehearse()
    with pytest.raises(RefusedError, match="does not pass second-person"):
        break_glass(fake)


def test_nobody_known(fake: FakeWorld) -> None:
    """Somebody has to answer for it: whoever is not known cannot."""
    fake.rehearse()
    with pytest.raises(RefusedError):
        break_glass(fake, "")


# --- on the command line, in processes -----------------------------------------------------------


@pytest.fixture
def team(tmp_path: Path) -> Team:
    """A team of three."""
    made = make_team(tmp_path / "team")
    made.commit({"allowed_signers": signers(made, ANA, BEN, CHI)})
    return made


def test_it_is_loud_from_run_to_review(team: Team) -> None:
    """The run, the status and the review say who broke the glass, why, and what is left to do."""
    team.rehearse("reset-pilot")
    ran = team.call("run", "reset-pilot", "--break-glass", WHY)
    assert ran.code == 0
    assert f'GLASS     broken by {ANA}: "{WHY}"' in ran.err
    assert "cannot be again until it is reviewed by somebody but ana@pilot.example" in ran.out
    assert 'next: handrail review 1 --because "what was found"' in ran.out
    status = team.call()
    assert "glass was broken, and nobody has reviewed it:" in status.out
    again = team.call("run", "reset-pilot", "--break-glass", WHY)
    assert again.code == 3
    own = team.call("review", "1", "--yes", "--because", FOUND)
    assert (own.code, "keys.own-run" in own.err) == (3, True)
    done = team.call("review", "1", "--yes", "--because", FOUND, person=BEN)
    assert (done.code, f"reviewed by {BEN}" in done.out) == (0, True)
    assert "passed:\n  second-person  anybody in allowed_signers" in done.out
    assert "glass was broken" not in team.call().out
    assert team.call("log", "verify").code == 0


BREAK = """\
import sys
from handrail.cli.main import main
sys.stdin.readline()
sys.exit(main(["run", "reset-pilot", "--break-glass", "we are in a hurry"]))
"""


def test_two_at_once(team: Team) -> None:
    """Of two people who break it in the same moment, one does, and one run begins."""
    team.rehearse("reset-pilot")
    people = (ANA, CHI)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BREAK],
            env=team.environment_of(person),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=team.root,
        )
        for person in people
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
    assert sorted(process.wait(60) for process in processes) == [0, 3]
    assert len(breaking.breaks(team.world())) == 1
    assert team.executions <= 1


def test_killed_behind_broken_glass(team: Team) -> None:
    """A run behind broken glass that is cut off goes on behind the same glass, and no other run."""
    waiting = team.root / "data" / "waiting"
    script = (
        '#!/bin/sh\nset -eu\nif [ -e "$WAIT" ]; then echo here >"$WAIT"; sleep 60; fi\n'
        'exec python3 -S "$(dirname "$0")/../lib/sql.py" "DELETE FROM sessions"\n'
    )
    declared = OPERATION.format(name="slow", undo="restore").replace("COUNTED_IN", "WAIT")
    team.environment["WAIT"] = str(waiting)
    team.commit({"operations/slow.yaml": declared, "scripts/slow/run.sh": script})
    team.rehearse("slow")
    waiting.touch()
    with team.spawn("run", "slow", "--break-glass", WHY) as ran:
        wait_for(waiting)
        ran.kill()
        ran.communicate(timeout=60)
    waiting.unlink()
    assert [one.review for one in breaking.breaks(team.world())] == [None]
    undone = team.call("resume", "1", "--undo")
    assert "undone: run 1" in undone.out, undone.out + undone.err
    assert team.call("run", "slow", "--break-glass", WHY).code == 3
    assert team.call("review", "1", "--yes", "--because", FOUND, person=BEN).code == 0
    assert team.call("run", "slow", "--break-glass", WHY).code == 0
