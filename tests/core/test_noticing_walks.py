"""What is told of waves over many targets: once for all; and that their success counts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from handrail.core import noticing, records, scheduling
from handrail.plans.canonical import plain
from handrail.plans.notice import Notice
from handrail.plans.walk import Lane, Mark, Walk, WalkStep, Wave
from handrail.plans.walk_records import mark_body, opened_mark, walk_chain
from support.worlds import FakeWorld, commit

TARGETS = ("store/a", "store/b")
DIGEST = "5d0c" * 16
WALK = Walk(
    DIGEST,
    "trim on 2 stores",
    "ana@example.com",
    tuple(Lane(target, (WalkStep("run", "run"),)) for target in TARGETS),
    (Wave("rest", TARGETS),),
)
WAITING = {"guard": "second-person", "verdict": "require", "because": "anybody", "binding": True}


@pytest.fixture
def waves(fake: FakeWorld) -> FakeWorld:
    """A team whose `trim` goes in waves, and is expected to be done once a day."""
    text = (fake.root / "operations/trim.yaml").read_text()
    fake.write(
        "operations/trim.yaml", f"{text}waves: {{sizes: [all]}}\nschedule: {{expect: 26h}}\n"
    )
    commit(fake, 2)
    scheduling.tick(fake.world(), fake.declared, lambda due: None)
    return fake


def planned(fake: FakeWorld, digest: str = DIGEST, kind: str = records.FANNED) -> None:
    """Record a plan that waits for another person: of the whole, or of one target."""
    request = {"operation": "trim", "target": "stores/trim on 2 stores", "person": "ana"}
    plan = {
        "digest": digest,
        "risk": "high",
        "request": {**request, "because": ""},
        "decisions": [WAITING],
    }
    body = {"plan": plan} if kind == records.FANNED else plan
    fake.journal.append(records.plan_chain(digest), kind, body)


def write(fake: FakeWorld, *marks: Mark, number: int = 1) -> None:
    for mark in marks:
        fake.journal.append(walk_chain(number), mark.kind, mark_body(mark))


def child(fake: FakeWorld, number: int, outcome: str) -> None:
    """Record one run of the walk."""
    request = {"operation": "trim", "target": "store/a", "person": "ana"}
    opened: Mapping[str, Any] = {"plan": {"request": request}, "walk": 1, "attempt": 1}
    fake.journal.append(f"run-{number}", "opened", opened)
    fake.journal.append(f"run-{number}", "ended", {"outcome": outcome, "why": "exit 1"})
    fake.journal.close(f"run-{number}")


def told(fake: FakeWorld) -> list[Notice]:
    found, _ = noticing.since(fake.world(), fake.declared, {})
    return [*found, *noticing.hanging(fake.world(), fake.declared)]


def test_the_whole_asks_for_an_approval_and_none_of_its_targets_does(waves: FakeWorld) -> None:
    """One notice for two hundred targets."""
    planned(waves)
    for number in range(200):
        planned(waves, f"{number:064x}", "planned")
    (notice,) = told(waves)
    assert (notice.kind, notice.next) == ("waiting", "handrail approve 5d0c-5d0c")


def test_a_walk_that_is_held_is_told_and_so_is_a_question(waves: FakeWorld) -> None:
    """With its reason; it is told again only when it is held again."""
    why = "1 of 2 failed"
    write(waves, opened_mark(WALK, 0), Mark("taken"), Mark("held", body={"why": why}))
    (held,) = told(waves)
    assert (held.kind, held.title, held.text) == ("waiting", "run 1 is held: trim on 2 stores", why)
    assert told(waves) == [held]
    write(waves, Mark("asked", "store/a/run", body={"question": "which size?"}))
    (asked,) = told(waves)
    assert asked.id != held.id
    assert asked.text == "which size?"


@pytest.mark.parametrize(("outcome", "kind"), [("undone", "failed"), ("done", "confirmed")])
def test_how_a_walk_ended_is_told_once_and_not_for_each_run(
    waves: FakeWorld, outcome: str, kind: str
) -> None:
    """Its runs are silent: the walk speaks for them."""
    write(waves, opened_mark(WALK, 0))
    for number in range(2, 12):
        child(waves, number, "failed" if kind == "failed" else "confirmed")
    write(waves, Mark("ended", body={"outcome": outcome, "why": "as it was"}))
    waves.journal.close(walk_chain(1))
    (notice,) = told(waves)
    assert (notice.kind, notice.run, notice.person) == (kind, 1, "ana@example.com")


def test_waves_that_are_done_are_the_success_that_was_expected(waves: FakeWorld) -> None:
    """One target's run is none yet; the whole is."""

    def standing() -> bool:
        scheduling.tick(waves.world(), waves.declared, lambda due: None)
        return next(iter(scheduling.standings(waves.world(), waves.declared))).succeeded

    planned(waves)
    write(waves, opened_mark(WALK, 0))
    child(waves, 2, "confirmed")
    waves.clock.advance(timedelta(hours=1).total_seconds())
    assert not standing()
    write(waves, Mark("ended", body={"outcome": "done", "why": ""}))
    waves.journal.close(walk_chain(1))
    assert standing()


def test_a_walk_is_plain_json(waves: FakeWorld) -> None:
    """What is told of it is made of what the journal holds, and nothing else."""
    write(waves, opened_mark(WALK, 0), Mark("held"))
    (notice,) = told(waves)
    assert isinstance(plain(notice), dict)
    assert notice.text == "run 1 waits for a human"
