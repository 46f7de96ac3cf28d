"""Standing approvals: one signature for every run inside its bounds, until the first breach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handrail.core import (
    observing,
    records,
    rehearsing,
    running,
    scheduling,
    standing,
    taking,
    withdrawing,
)
from handrail.core.schedule_records import chain_of
from handrail.errors import RefusedError, UsageError, WaitingError
from handrail.plans.bounds import bounds_of
from handrail.plans.canonical import plain
from handrail.plans.model import Allowance, Approval, Budget
from handrail.plans.schedule import Due
from support.worlds import OPERATION, TRIM, FakeWorld, commit, make_world

FAKE_BEN, FAKE_CHI = "ben@example.com", "chi@example.com"
DAY_S = 86400
REFILL = (
    "INSERT INTO sessions SELECT max_id + n, 1 FROM (SELECT coalesce(max(id), 0) max_id FROM "
    "sessions), (WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows}) "
    "SELECT n FROM c)"
)


def stand(fake: FakeWorld, days: int = 30, **options: Any) -> Approval:
    """Rehearse, and let Ben approve what was measured for so many days."""
    return fake.approve(fake.rehearse(), standing_s=days * DAY_S, **options)


def because(fake: FakeWorld) -> str:
    decided = fake.decide()
    return next(d.because for d in decided.plan.decisions if d.guard == "second-person")


def refill(fake: FakeWorld, rows: int) -> None:
    fake.store.execute(REFILL.format(rows=rows))


def ends(fake: FakeWorld) -> list[str]:
    """Return why standing approvals have ended, in order."""
    chains = fake.journal.chains(standing.PREFIX)
    return [str(e["why"]) for c in chains for e in records.told_of(fake.journal, c, "ended")]


def test_it_covers_run_after_run(fake: FakeWorld) -> None:
    """The same runs again without another signature; the guard says whose stands, until when."""
    approval = stand(fake)
    for number in (1, 2, 3):
        assert because(fake).startswith("standing approval of ben@example.com, until 2026-02-04")
        assert fake.begin(fake.decide()).outcome == "confirmed"
        refill(fake, 15)
        assert len(standing.living(fake.world())[0].uses) == number
    assert standing.living(fake.world())[0].approval == approval
    assert ends(fake) == []


def test_it_survives_a_new_rehearsal(fake: FakeWorld) -> None:
    """A day later the rehearsal is made anew, and what it shows is inside the bounds: it stands."""
    stand(fake)
    fake.clock.advance(DAY_S + 60)
    assert fake.rehearse().plan.verdict == "allow"
    assert fake.begin(fake.decide()).outcome == "confirmed"


def test_less_is_inside(fake: FakeWorld) -> None:
    """A rehearsal that shows less narrows nothing: the signed bounds hold, not the last budget."""
    stand(fake)  # 15 rows and a tolerance of 2
    for rows in (3, 15, 17, 3, 16):
        fake.processes.programs = {"trim.sh": fake.program(f"{TRIM} AND id <= {5 + rows}")}
        fake.clock.advance(DAY_S + 60)
        decided = fake.rehearse()
        # 16 and 17 rows would get 2 more as tolerance: together that is beyond what was signed.
        if rows + 2 > 17:
            break
        assert decided.plan.verdict == "allow", rows
    assert ends(fake) == []


def test_growth_in_small_steps_ends(fake: FakeWorld) -> None:
    """Budgets that creep, each within the tolerance of the last, do not carry the bounds along."""
    fake.store.execute("DELETE FROM sessions WHERE id > 10")
    stand(fake)  # 5 rows, 7 with the tolerance
    for rows in range(6, 12):
        refill(fake, 1)
        decided = fake.rehearse()
        assert decided.plan.verdict == "require", rows
    assert ends(fake) == ["it would delete 8 rows of table sessions, and 7 rows were approved"]


def test_shrunk_again_it_stays_ended(fake: FakeWorld) -> None:
    """A rehearsal that goes beyond ends it for good: the next one, inside again, asks again."""
    stand(fake)
    refill(fake, 5)
    assert fake.rehearse().plan.verdict == "require"
    fake.store.execute("DELETE FROM sessions WHERE id > 20")
    again = fake.rehearse()
    assert again.plan.budget is not None
    assert again.plan.budget.allowances[0].rows == 15
    assert again.plan.verdict == "require"
    assert standing.living(fake.world()) == ()


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("scripts/trim.sh", "#!/bin/sh\n# other\n", "its script has changed"),
        (
            "operations/trim.yaml",
            OPERATION.format(undo="restore").replace("10m", "1m"),
            "what is declared of it has changed",
        ),
        (
            "operations/trim.yaml",
            OPERATION.format(undo="./scripts/undo.sh"),
            "what is declared of it has changed",
        ),
        (
            "operations/trim.yaml",
            OPERATION.format(undo="restore") + "inherit: [FORCE]\n",
            "what is declared of it has changed",
        ),
    ],
    ids=["script", "watch", "undo", "variables"],
)
def test_another_script_ends_it(fake: FakeWorld, file: str, text: str, why: str) -> None:
    """What is not the script or the declaration that was approved ends it, also once put back."""
    stand(fake)
    before = (fake.root / file).read_text()
    fake.write(file, text)
    commit(fake, 2)
    assert fake.rehearse().plan.verdict != "allow"
    # An undo script is part of what runs.
    assert ends(fake) in ([why], ["its script has changed"])
    fake.write(file, before)
    commit(fake, 3)
    fake.rehearse()
    assert fake.decide().plan.verdict == "require"


def test_looking_at_a_plan_ends_nothing(fake: FakeWorld) -> None:
    """A plan of a changed script is not covered; only rehearsing or running it is a breach."""
    stand(fake)
    before = (fake.root / "scripts/trim.sh").read_text()
    fake.write("scripts/trim.sh", "#!/bin/sh\n# an experiment\n")
    assert fake.decide().plan.verdict == "refuse"
    fake.write("scripts/trim.sh", before)
    assert fake.decide().plan.verdict == "allow"


def test_run_with_a_stale_rehearsal_ends_it(fake: FakeWorld) -> None:
    """Asked to run when the rehearsal counts no more, it ends; and a new rehearsal asks again."""
    stand(fake)
    fake.clock.advance(DAY_S + 60)
    with pytest.raises(RefusedError):
        running.begin(fake.world(), fake.decide(), fake.talk)
    assert ends(fake) == ["the rehearsal is 24 h old; 24 h count"]
    assert fake.rehearse().plan.verdict == "require"


def test_drift_ends_it(tmp_path: Path) -> None:
    """Data that has moved further than the policy allows is a breach when it is to run."""
    fake = make_world(tmp_path / "fake", policy="rehearsal: {drift: 0%, drift-rows: 1}\n")
    stand(fake)
    refill(fake, 2)
    with pytest.raises(RefusedError):
        running.begin(fake.world(), fake.decide(), fake.talk)
    assert ends(fake) == ["table sessions had 20 rows when rehearsed and has 22 now"]


def test_over_budget_ends_it(fake: FakeWorld) -> None:
    """A run that does more than its budget ends it, and the next one waits for somebody."""
    stand(fake)
    ready = fake.decide()
    fake.processes.programs = {"trim.sh": fake.program("DELETE FROM sessions")}
    assert fake.begin(ready).outcome == "over-budget"
    assert ends(fake) == ["run 1 ended over-budget"]
    fake.processes.programs = {"trim.sh": fake.program(TRIM)}
    assert fake.rehearse().plan.verdict == "require"


@pytest.mark.parametrize("code", [1, 2])
def test_failed_run_ends_it(fake: FakeWorld, code: int) -> None:
    """A run that fails is the first breach."""
    stand(fake)
    ready = fake.decide()
    fake.processes.programs = {"trim.sh": fake.program(TRIM, code=code)}
    assert fake.begin(ready).outcome in {"undone", "failed"}
    assert len(ends(fake)) == 1


def test_night_after_night(fake: FakeWorld) -> None:
    """A schedule runs by what stands, and rehearses when it must; a breach waits for somebody."""
    night = 'schedule: {cron: "0 3 * * *", rehearse: true}\n'
    fake.write("operations/trim.yaml", OPERATION.format(undo="restore") + night)
    commit(fake)
    stand(fake)

    def tick() -> None:
        scheduling.tick(fake.world(), fake.declared, carry)

    def carry(due: Due) -> None:
        taking.carry_out(fake.world(), fake.declared, due, fake.talk)

    tick()
    fake.clock.advance(18 * 3600)
    for _ in range(3):
        tick()
        refill(fake, 15)
        fake.clock.advance(DAY_S)
    assert [o["outcome"] for o in outcomes(fake)] == ["confirmed"] * 3
    fake.store.execute("INSERT INTO sessions SELECT id + 1000, 1 FROM sessions")
    tick()
    assert [o["outcome"] for o in outcomes(fake)] == ["confirmed"] * 3
    assert len(ends(fake)) == 1
    assert fake.count() == 40


def outcomes(fake: FakeWorld) -> tuple[dict[str, Any], ...]:
    return records.told_of(fake.journal, chain_of("trim"), "ended")


# --- other things than what was approved ----------------------------------------------------------


def test_other_parameters_are_not_covered(fake: FakeWorld) -> None:
    """Other parameters are another thing: they wait, and what stands goes on standing."""
    declared = OPERATION.format(undo="restore") + "parameters: {days: {type: int, default: 30}}\n"
    fake.write("operations/trim.yaml", declared)
    commit(fake, 2)
    stand(fake)
    assert fake.rehearse(parameters={"days": "1"}).plan.verdict == "require"
    assert fake.decide(parameters={"days": "30"}).plan.verdict == "allow"
    assert ends(fake) == []


def test_replay_for_another_endpoint(fake: FakeWorld) -> None:
    """Its record covers no other server, wherever somebody writes it."""
    approval = stand(fake)
    assert approval.bounds is not None
    moved = replace(approval.bounds, endpoint="fake:///elsewhere")
    plan = fake.decide().plan
    forged = replace(approval, bounds=moved, id="f" * 12)
    assert observing.verified(fake.world(), [forged], "", plan.facts.now) == ()
    assert plan.facts.identity is not None
    elsewhere = replace(plan.facts.identity, endpoint="x")
    there = replace(plan, facts=replace(plan.facts, identity=elsewhere))
    assert standing.covering(fake.world(), there) == ()
    assert standing.covering(fake.world(), plan) == (approval,)


def test_one_for_a_run_is_none_that_stands(fake: FakeWorld) -> None:
    """Bounds put into the record of an approval for one run break its signature."""
    decided = fake.rehearse()
    once = fake.approve(decided)
    forged = replace(once, bounds=bounds_of(decided.plan))
    body = plain(forged)
    assert isinstance(body, dict)
    assert forged.bounds is not None
    fake.journal.append(standing.chain_of(forged.bounds), "approved", body)
    fake.begin(fake.decide())
    refill(fake, 15)
    assert fake.decide().plan.verdict == "require"


def test_one_that_stands_is_none_for_a_run(fake: FakeWorld) -> None:
    """Its record, without its bounds, is no approval of the digest, either."""
    decided = fake.rehearse()
    stands = fake.approve(decided, standing_s=DAY_S)
    standing.end_after(fake.world(), fake.decide().plan, 9, "failed")
    body = plain(replace(stands, bounds=None))
    assert isinstance(body, dict)
    fake.journal.append(f"approvals-{decided.plan.digest}", "approved", body)
    assert fake.decide().plan.verdict == "require"


# --- time, people, policy -------------------------------------------------------------------------


def test_expires(fake: FakeWorld) -> None:
    """It stands until its time, is noted as ended, and a clock set back does not revive it."""
    stand(fake, days=2)
    for _ in range(2):
        fake.clock.advance(DAY_S - 60)
        fake.rehearse()
    assert fake.decide().plan.verdict == "allow"
    fake.clock.advance(300)
    assert fake.decide().plan.verdict == "require"
    fake.clock.jump(-600)
    assert fake.decide().plan.verdict == "require"
    assert ends(fake) == ["expired"]


def test_clock_set_back_before_anybody_looked(fake: FakeWorld) -> None:
    """When the journal has seen a later time than its end, it is over, whatever the clock says."""
    stand(fake, days=1)
    fake.clock.advance(DAY_S + 60)
    fake.journal.append("something-else", "happened", {})
    fake.clock.jump(-DAY_S)
    assert fake.decide().plan.verdict == "require"


def test_withdrawn(fake: FakeWorld) -> None:
    """Its approver withdraws it by its id or by the plan's digest; it covers nothing more."""
    approval = stand(fake)
    ready = fake.decide()
    (said,) = withdrawing.withdraw(fake.world(FAKE_BEN), approval.id, Path(FAKE_BEN))
    assert said.id == approval.id
    ended = fake.begin(ready)
    assert (ended.outcome, fake.count()) == ("refused", 20)
    assert fake.decide().plan.verdict == "require"


def test_approver_who_left(fake: FakeWorld) -> None:
    """It stands while its signature verifies: not for somebody who left the team."""
    stand(fake)
    owners = fake.keys._owners.pop(Path(FAKE_BEN))
    assert fake.decide().plan.verdict == "require"
    fake.keys._owners[Path(FAKE_BEN)] = owners
    assert fake.decide().plan.verdict == "allow"


def test_for_the_approver_it_counts_not(fake: FakeWorld) -> None:
    """Ben's approval covers no run that Ben asks for."""
    stand(fake)
    from handrail.core import deciding

    own = deciding.decide(fake.world(FAKE_BEN), fake.declared, "trim")
    assert own.plan.verdict == "require"
    with pytest.raises(WaitingError):
        running.begin(fake.world(FAKE_BEN), own, fake.talk)
    assert fake.decide().plan.verdict == "allow"


def test_not_at_risk_critical(fake: FakeWorld) -> None:
    """What is critical is approved run by run, unless the policy says otherwise."""
    fake.processes.programs = {"trim.sh": fake.program("DROP TABLE devices")}
    with pytest.raises(UsageError) as raised:
        stand(fake, typed="pilot-db")
    assert raised.value.code == "approval.standing"


def test_at_risk_critical_where_the_policy_says_so(tmp_path: Path) -> None:
    """With `risk: critical` it may, and the name that was typed counts for each run."""
    policy = "approval: {standing: {risk: critical, max-age: 2d}}\n"
    fake = make_world(tmp_path / "fake", policy=policy)
    fake.processes.programs = {"trim.sh": fake.program("DROP TABLE devices")}
    with pytest.raises(UsageError, match="2 d"):
        stand(fake, days=3, typed="pilot-db")
    assert stand(fake, days=2, typed="pilot-db").named_target
    assert fake.decide().plan.verdict == "allow"
    fake.write("policy.yaml", "approval: {max-age: 4h}\n")
    assert fake.decide().plan.verdict != "allow"


def test_policy_that_was_tightened(fake: FakeWorld) -> None:
    """A policy that lets approvals stand for less time from now on holds for those that stand."""
    stand(fake, days=30)
    fake.clock.advance(DAY_S - 60)
    fake.write("policy.yaml", "approval: {standing: {max-age: 12h}}\n")
    commit(fake)
    assert fake.decide().plan.verdict == "require"


def test_two_of_a_group_with_one_standing(tmp_path: Path) -> None:
    """Of a quorum of two, one may stand and the other be given for the run."""
    policy = (
        "approval: {by: {high: {group: dba, of: 2}}}\n"
        "groups: {dba: [ben@example.com, chi@example.com]}\n"
    )
    fake = make_world(tmp_path / "fake", policy=policy)
    stand(fake)
    waiting = fake.decide()
    assert waiting.plan.verdict == "require"
    fake.approve(waiting, FAKE_CHI)
    assert fake.begin(fake.decide()).outcome == "confirmed"
    refill(fake, 15)
    assert "ben@example.com has; chi@example.com may" in because(fake)


def test_not_before_it_was_rehearsed(fake: FakeWorld) -> None:
    """What nobody has measured cannot be approved for more than one run."""
    fake.write("policy.yaml", "guards: {rehearsed: critical, backup-proven: critical}\n")
    fake.write(
        "operations/trim.yaml",
        OPERATION.format(undo="restore") + "effects: [{delete: table sessions, rows: 20}]\n",
    )
    commit(fake, 2)
    waiting = fake.decide()
    assert waiting.plan.verdict == "require"
    with pytest.raises(UsageError, match="only what was rehearsed"):
        fake.approve(waiting, standing_s=DAY_S)


def test_rehearsal_returns_the_plan_that_counts(fake: FakeWorld) -> None:
    """What `rehearse` returns is judged with what still stands."""
    stand(fake)
    decided = rehearsing.rehearse(fake.world(), fake.decide(), fake.talk)
    assert decided.plan.verdict == "allow"


@pytest.mark.parametrize(
    ("mine", "approved", "is_more"),
    [
        (Allowance("s", "delete", "table", "t", 5, 1), (5, 1), False),
        (Allowance("s", "delete", "table", "t", 4, 2), (5, 1), False),
        (Allowance("s", "delete", "table", "t", 5, 2), (5, 1), True),
        (Allowance("s", "delete", "table", "t", None), (5, 1), True),
        (Allowance("s", "delete", "table", "t", 5), (None, 0), False),
        (Allowance("s", "delete", "table", "u", 1), (5, 1), True),
        (Allowance("s", "drop", "table", "t", 1), (5, 1), True),
        (Allowance("r", "delete", "table", "t", 1), (5, 1), True),
    ],
)
def test_budgets_are_compared_whole(
    fake: FakeWorld, mine: Allowance, approved: tuple[int | None, int], is_more: bool
) -> None:
    """Rows and tolerance together; another table, verb or store; any number is more than some."""
    from handrail.plans.bounds import breach

    plan = fake.rehearse().plan
    most = Budget((Allowance("s", "delete", "table", "t", *approved),), "rehearsal")
    bounds = replace(bounds_of(plan), budget=most)
    assert bool(breach(bounds, replace(plan, budget=Budget((mine,), "rehearsal")))) == is_more
