"""One operation over many targets, stage by stage: on fakes, with a simulated engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from handrail.core import acts, approving, fanning, records, running, walks, withdrawing
from handrail.core.fanning import Fanned
from handrail.core.recalling import recorded
from handrail.errors import RefusedError, UsageError
from handrail.plans.canonical import plain
from handrail.plans.fan_out import walk_of
from handrail.plans.model import Approval
from handrail.plans.walk import Mark
from handrail.ports import Act, ActCall, Acted, Finished
from handrail.testing.processes import Call
from handrail.testing.store import FakeStore
from handrail.testing.talk import QuietTalk
from support.simulated import Died, Simulated
from support.worlds import (
    ANA,
    BEN,
    CHI,
    HEALTH,
    ILL,
    ROWS,
    TABLES,
    TRIM,
    WELL,
    FakeWorld,
    commit,
    make_world,
)

NAMES = ("a", "b", "c")
LEFT = 5
ESTATE = """\
environments:
  pilot: {{}}
stores:
{stores}objects:
  backups: {{path: backups}}
sites:
  s1: {{}}
services:
  pilot-api:
    needs: [store/a]
    checks: ["{health}"]
"""
STORE = """\
  {name}:
    kind: sqlite
    url: {name}.db
    environment: pilot
    site: site/s1
    holds: [production-data]
    identity: fake:{id}@fake:///{name}
    backups: {{to: object/backups, keep: 2}}
"""
OPERATION = """\
operation: trim
run: ./scripts/trim.sh
on: {{store: {{environment: pilot}}}}
undo: {undo}
watch: {{soak: {soak}, every: 1m}}
waves: {{sizes: [1, all], at-once: 1{more}}}
"""


@dataclass
class Fleet:
    """Three stores in a world of fakes."""

    fake: FakeWorld

    def plan(self, person: str = ANA, **options: Any) -> Fanned:
        """Plan on all of them."""
        world, declared = self.fake.world(person), self.fake.declared
        return fanning.plan(world, declared, "trim", because="the test day", **options)

    def rehearse(self) -> Fanned:
        """Rehearse on all of them."""
        made, failed = fanning.rehearse(
            self.fake.world(), self.plan(), lambda _: QuietTalk(), all_of_them=True
        )
        assert not failed
        return made

    def approve(self, fanned: Fanned, person: str = BEN) -> Approval:
        """Approve all of it, once."""
        plan = fanned.fan_out.plan
        world = self.fake.world(person)
        return approving.approve(
            world, self.fake.declared, plan, Path(person), typed=fanned.fan_out.title
        )

    def ready(self) -> Fanned:
        """Rehearse, approve and plan again."""
        self.approve(self.rehearse())
        return self.plan()

    @property
    def acts(self) -> Mapping[str, Act]:
        """What steps are done by."""
        return acts.acts(self.fake.world(), self.fake.declared, lambda _: self.fake.talk)

    def walk(self, fanned: Fanned | None = None) -> Simulated:
        """Submit what is planned; made ready just now when nothing is given."""
        walk = walk_of((fanned or self.ready()).fan_out, ANA)
        return Simulated(self.fake.journal, self.fake.clock, self.acts, walk)

    def counts(self) -> list[int]:
        """Return how many sessions each store has."""
        stores = [self.fake.more[name] for name in NAMES]
        return [int(store.ask("SELECT count(*) FROM sessions", 5.0)) for store in stores]

    def fail_on(self, *names: str) -> None:
        """Let the script fail on those stores from now on, when it has done its work."""
        good = self.fake.program(TRIM)

        def run(call: Call) -> int | Finished:
            code = good(call)
            url = call.command.environment["DATABASE_URL"]
            return 3 if url in {f"fake:///{name}" for name in names} else code

        self.fake.processes.programs = {**self.fake.processes.programs, "trim.sh": run}


def make_fleet(root: Path, *, soak: str = "0s", undo: str = "restore", more: str = "") -> Fleet:
    fake = make_world(root)
    for number, name in enumerate(NAMES):
        store = fake.more[name] = FakeStore(f"store/{name}", f"fake:///{name}", fake.shelf)
        store.adopt(str(number) * 32)
        store.execute(TABLES)
    stores = "".join(STORE.format(name=n, id=str(i) * 32) for i, n in enumerate(NAMES))
    fake.write("estate/pilot.yaml", ESTATE.format(stores=stores, health=HEALTH["http"]))
    fake.write("operations/trim.yaml", OPERATION.format(undo=undo, soak=soak, more=more))
    commit(fake, 2)
    return Fleet(fake)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Three stores of which nothing is rehearsed."""
    return make_fleet(tmp_path / "fleet")


def test_nothing_is_rehearsed_yet(fleet: Fleet) -> None:
    """Each target is planned by itself; what nobody rehearsed refuses all, with its remedy."""
    fan_out = fleet.plan().fan_out
    assert [child.target for child in fan_out.children] == ["store/a", "store/b", "store/c"]
    assert fan_out.verdict == "refuse"
    remedies = {said.decision.guard: said.decision.remedy for said in fan_out.said}
    assert remedies["rehearsed"] == "handrail rehearse trim --on all"


def test_all_is_one_value(fleet: Fleet) -> None:
    """Planned twice it has one digest, and is found by it: as a fan-out, and as a plan."""
    first, second = fleet.rehearse(), fleet.plan()
    digest = first.fan_out.digest
    assert second.fan_out.digest == digest
    journal = fleet.fake.journal
    assert records.find_fan_out(journal, digest[:8]) == second.fan_out
    assert records.find_plan(journal, digest[:8]) == second.fan_out.plan
    for part in ("", digest[0], digest[:3], digest + "0", f"{digest[:8]}*"):
        with pytest.raises(UsageError, match="no plan begins with"):
            records.find_plan(journal, part)
    child = second.children[0].plan.digest
    assert records.find_fan_out(journal, child) is None
    assert [one.digest for one in records.plans(journal)].count(digest) == 1


def test_one_approval_counts_for_all(fleet: Fleet) -> None:
    """One signature over the fan-out lets every child run, and is used by that walk alone."""
    fanned = fleet.ready()
    assert fanned.fan_out.verdict == "allow"
    stands = fleet.walk(fanned).go()
    assert (stands.outcome, fleet.counts()) == ("done", [LEFT] * 3)
    assert fleet.plan().fan_out.verdict == "require"
    assert records.approvals(fleet.fake.journal, fanned.fan_out.digest) == ()
    again = fleet.walk(fanned)
    assert again.go().state == "held"
    assert again.told("failed") == ["store/a"]


def test_nobody_approves_their_own(fleet: Fleet) -> None:
    """Whoever asked for it cannot approve it, nor run what they approved themselves."""
    fanned = fleet.rehearse()
    with pytest.raises(RefusedError, match="nobody approves their own"):
        fleet.approve(fanned, ANA)
    fleet.approve(fanned, BEN)
    assert fleet.plan(BEN).fan_out.verdict == "require"
    assert fleet.plan(ANA).fan_out.verdict == "allow"


def test_an_approval_is_for_its_fan_out(fleet: Fleet) -> None:
    """One target less is another fan-out, which nobody has approved; nor is a child alone."""
    fanned = fleet.ready()
    assert fleet.plan(without=["c"]).fan_out.verdict == "require"
    child = fanned.children[0].plan
    assert fleet.fake.decide("trim", on=child.request.target).plan.verdict == "require"


def test_forged_record(fleet: Fleet) -> None:
    """A later record under an approved digest that holds another plan covers nothing at all."""
    fanned = fleet.ready()
    forged = plain(replace(fanned.fan_out, children=fanned.fan_out.children[1:]))
    assert isinstance(forged, dict)
    chain = records.plan_chain(fanned.fan_out.digest)
    fleet.fake.journal.append(chain, records.FANNED, forged)
    walk = fleet.walk(fanned)
    assert walk.go().state == "held"
    assert (walk.told("failed"), fleet.counts()) == (["store/a"], [ROWS] * 3)


def test_withdrawn_person(fleet: Fleet) -> None:
    """Who is no longer in `allowed_signers` counts for no lane that begins after that."""
    walk = fleet.walk()
    walk.dies = lambda mark: mark.kind == "wave-begun" and mark.body["number"] == 1
    with pytest.raises(Died):
        walk.go()
    del fleet.fake.keys._owners[Path(BEN)]  # as if the file had been edited
    walk.dies = lambda _: False
    assert walk.go().state == "held"
    assert walk.told("done") == ["store/a"]
    assert fleet.counts() == [LEFT, ROWS, ROWS]


@pytest.mark.parametrize("again", [False, True])
def test_withdrawn_approval(fleet: Fleet, *, again: bool) -> None:
    """What its approver has withdrawn covers no lane; nor when somebody writes its record again."""
    ready = fleet.ready()
    digest, journal = ready.fan_out.digest, fleet.fake.journal
    (said,) = withdrawing.withdraw(fleet.fake.world(BEN), digest, Path(BEN))
    if again:
        (record,) = records.told_of(journal, f"approvals-{digest}", "approved")
        journal.append(f"approvals-{digest}", "approved", record)
    walk = fleet.walk(ready)
    assert walk.go().state == "held"
    assert (said.digest, fleet.counts()) == (digest, [ROWS] * 3)


def test_two_of_a_group(fleet: Fleet) -> None:
    """A fan-out wants as many people as one run; their approvals count for each child."""
    policy = "approval: {by: {high: {of: 2}, critical: {of: 2}}}\n"
    fleet.fake.write("policy.yaml", policy)
    commit(fleet.fake)
    fanned = fleet.rehearse()
    fleet.approve(fanned)
    assert fleet.plan().fan_out.plan.verdict == "require"
    fleet.approve(fanned, CHI)
    walk = fleet.walk(fleet.plan())
    assert walk.go().outcome == "done"
    assert fleet.counts() == [LEFT] * 3


def test_waves_may_take_longer_than_an_approval(fleet: Fleet) -> None:
    """What the walk has taken with its first child lasts as long as the walk does."""
    walk = fleet.walk()
    walk.dies = lambda mark: mark.kind == "wave-begun" and mark.body["number"] == 1
    with pytest.raises(Died):
        walk.go()
    fleet.fake.clock.advance(4 * 3600 + 1)
    walk.dies = lambda _: False
    assert walk.go().outcome == "done"
    assert fleet.counts() == [LEFT] * 3


def test_approval_that_expired_before(fleet: Fleet) -> None:
    """A walk whose first child begins after the approval is over runs nothing."""
    walk = fleet.walk()
    fleet.fake.clock.advance(4 * 3600 + 1)
    assert walk.go().state == "held"
    assert (walk.told("failed"), fleet.counts()) == (["store/a"], [ROWS] * 3)


def test_stale_child(fleet: Fleet) -> None:
    """A target whose plan is another one by now is refused in its lane: nothing is done there."""
    walk = fleet.walk()
    fleet.fake.more["a"].execute("DELETE FROM sessions WHERE id > 10")
    fleet.fake.rehearse("trim", on="store/a")
    stands = walk.go()
    assert stands.state == "held"
    assert walk.told("failed") == ["store/a"]
    assert "another now than the one that was approved" in walks.lanes(stands)[0].why
    assert fleet.counts() == [10, ROWS, ROWS]


def test_stale_fan_out(fleet: Fleet) -> None:
    """A recorded fan-out is made anew as it was, or refused with the target that moved."""
    fanned = fleet.ready()
    world, declared = fleet.fake.world(), fleet.fake.declared
    made = fanning.anew(world, declared, fanned.fan_out, person=ANA)
    assert made.fan_out.digest == fanned.fan_out.digest
    fleet.fake.more["b"].execute("DELETE FROM sessions WHERE id > 10")
    fleet.fake.rehearse("trim", on="store/b")
    with pytest.raises(RefusedError, match="the plan of store/b is another now"):
        fanning.anew(world, declared, fanned.fan_out, person=ANA)


def test_without(fleet: Fleet) -> None:
    """What is left out is in no wave; the words that ask for it again say so."""
    fan_out = fleet.plan(without=["store/a", "b"]).fan_out
    assert [child.target for child in fan_out.children] == ["store/c"]
    assert fan_out.plan.request.words == "trim --on all --except b --except store/a"
    with pytest.raises(UsageError, match="`x` is none of the targets"):
        fleet.plan(without=["x"])
    with pytest.raises(UsageError, match="has no target left"):
        fleet.plan(without=["a", "b", "c"])


def test_unreadable_target(fleet: Fleet) -> None:
    """A target that does not answer is among them, and refuses."""
    fleet.ready()
    fleet.fake.more["b"].down = "no route"
    fan_out = fleet.plan().fan_out
    assert [child.target for child in fan_out.children if child.verdict == "refuse"] == ["store/b"]
    assert fan_out.verdict == "refuse"


def test_a_script_nobody_declared(fleet: Fleet) -> None:
    """Only a declared operation goes over many targets."""
    with pytest.raises(UsageError, match="only a declared one"):
        fanning.plan(fleet.fake.world(), fleet.fake.declared, "./scripts/trim.sh")


def test_rehearsal_that_is_not_possible(fleet: Fleet) -> None:
    """One target on which no rehearsal is possible is named; the others are rehearsed."""
    fleet.fake.more["b"].down = "no route"
    planned = fleet.plan()
    made, failed = fanning.rehearse(fleet.fake.world(), planned, lambda _: QuietTalk())
    assert [target for target, _ in failed] == ["store/b"]
    assert [c.plan.facts.rehearsal is not None for c in made.children] == [True, False, True]


def test_failed_lane_holds(fleet: Fleet) -> None:
    """A failed target stops the walk; what failed and what never began go again, exactly these."""
    walk = fleet.walk()
    fleet.fail_on("b")
    stands = walk.go()
    assert (stands.state, fleet.counts()) == ("held", [LEFT, ROWS, ROWS])
    assert [lane.word for lane in walks.lanes(stands)] == ["done", "failed", "not begun"]
    assert walks.next_commands(7, stands)[0][0] == "handrail resume 7 --rerun"
    fleet.fail_on()
    runs = len(fleet.fake.processes.runs)
    walk.say("rerun")
    assert walk.go().outcome == "done"
    assert (len(fleet.fake.processes.runs) - runs, fleet.counts()) == (2, [LEFT] * 3)


def test_then_undo(tmp_path: Path) -> None:
    """With `then: undo`, a failure puts back what was done, in reverse order, and no more."""
    fleet = make_fleet(tmp_path / "fleet", more=", then: undo")
    walk = fleet.walk()
    fleet.fail_on("c")
    stands = walk.go()
    assert (stands.outcome, fleet.counts()) == ("undone", [ROWS] * 3)
    assert walk.told("undo-begun") == ["store/c", "store/b", "store/a"]


def test_undone_twice_equals_once(fleet: Fleet) -> None:
    """A walk that has ended is undone in reverse order; its acts, asked again, change nothing."""
    walk = fleet.walk()
    assert walk.go().outcome == "done"
    walk.say("undo")
    assert walk.go().outcome == "undone"
    assert walk.told("undo-begun") == ["store/c", "store/b", "store/a"]
    assert fleet.counts() == [ROWS] * 3
    called = call_of(walk, "store/a")
    assert fleet.acts["run"].undo(called).outcome == "done"
    assert fleet.counts() == [ROWS] * 3


def test_undo_of_one_that_was_undone_alone(fleet: Fleet) -> None:
    """A child that somebody has undone by its own number is not undone again, and is no failure."""
    walk = fleet.walk()
    walk.go()
    number = walks.child_of(fleet.fake.world(), walk.number, "store/b")
    assert number is not None
    decided = recorded(fleet.fake.world(), fleet.fake.declared, number, None)
    running.undo(fleet.fake.world(), number, decided, QuietTalk())
    walk.say("undo")
    assert walk.go().outcome == "undone"
    assert fleet.counts() == [ROWS] * 3


def test_irreversible(tmp_path: Path) -> None:
    """What cannot be undone is said so, and is no reason to leave the others."""
    fleet = make_fleet(tmp_path / "fleet", undo="{irreversible: the mails are sent}")
    walk = fleet.walk()
    assert walk.go().outcome == "done"
    walk.say("undo")
    assert walk.go().outcome == "failed"
    assert walk.told("undo-failed") == ["store/c", "store/b", "store/a"]
    assert fleet.counts() == [LEFT] * 3


def call_of(walk: Simulated, target: str, **more: Any) -> ActCall:
    """Return how an engine calls an act for a target of a walk."""
    lane = next(lane for lane in walk.course.layout.lanes if lane.target == target)
    return ActCall(walk.number, target, "run", lane.steps[0].body, **more)


def test_watch_goes_round_by_round(tmp_path: Path) -> None:
    """During a soak nothing waits: each round is a call, and the last one confirms the child."""
    fleet = make_fleet(tmp_path / "fleet", soak="3m")
    walk = fleet.walk()
    run = fleet.acts["run"]
    acted = run.do(call_of(walk, "store/a"))
    rounds = [acted]
    while acted.outcome == "later":
        fleet.fake.clock.advance(60)
        acted = run.do(call_of(walk, "store/a", before=acted.body))
        rounds.append(acted)
    assert [one.outcome for one in rounds] == ["later", "later", "later", "done"]
    assert fleet.fake.kinds(f"run-{acted.body['run']}")[-1] == "ended"


@pytest.mark.parametrize("jump_s", [-86400, 86400])
def test_clock_that_jumps(tmp_path: Path, jump_s: int) -> None:
    """A clock set back or forward neither cuts the watch short nor lets it go on for ever."""
    fleet = make_fleet(tmp_path / "fleet", soak="10m")
    walk = fleet.walk()
    run = fleet.acts["run"]
    acted = run.do(call_of(walk, "store/a"))
    fleet.fake.clock.jump(jump_s)
    rounds = 0
    while acted.outcome == "later":
        rounds += 1
        fleet.fake.clock.advance(60)
        acted = run.do(call_of(walk, "store/a", before=acted.body))
    assert acted.outcome == "done"
    assert 8 <= rounds <= 11


def test_ill_lane_is_undone(tmp_path: Path) -> None:
    """A target that is ill during its watch is put back, and its lane has failed."""
    fleet = make_fleet(tmp_path / "fleet", soak="5m")
    walk = fleet.walk()
    run = fleet.acts["run"]
    acted = run.do(call_of(walk, "store/a"))
    assert fleet.counts()[0] == LEFT
    fleet.fake.checks.set(HEALTH, ILL)
    while acted.outcome == "later":
        fleet.fake.clock.advance(60)
        acted = run.do(call_of(walk, "store/a", before=acted.body))
    assert (acted.outcome, acted.body["outcome"], fleet.counts()[0]) == ("failed", "undone", ROWS)
    fleet.fake.checks.set(HEALTH, WELL)
    again = run.do(call_of(walk, "store/a", attempt=2, before=acted.body))
    assert (again.outcome, fleet.counts()[0]) == ("later", LEFT)
    assert again.body["run"] != acted.body["run"]


def test_lost_marks_of_a_watch(tmp_path: Path) -> None:
    """A child that soaks is found so by whoever takes the walk up, and watched anew."""
    fleet = make_fleet(tmp_path / "fleet", soak="5m")
    walk = fleet.walk()
    run = fleet.acts["run"]
    number = run.do(call_of(walk, "store/a")).body["run"]
    found = run.check(call_of(walk, "store/a"))
    assert (found.outcome, found.body["run"], found.body["soaked_s"]) == ("later", number, 0.0)


def test_check_tells_what_became_of_it(fleet: Fleet) -> None:
    """Never begun, done, failed: the child's own records tell, and checking changes nothing."""
    walk = fleet.walk()
    run = fleet.acts["run"]
    assert run.check(call_of(walk, "store/a")).outcome == "never"
    fleet.fail_on("b")
    for target, outcome in (("store/a", "done"), ("store/b", "failed")):
        assert run.do(call_of(walk, target)).outcome == outcome
        assert run.check(call_of(walk, target)).outcome == outcome
        assert run.check(call_of(walk, target, attempt=2)).outcome == "never"
        assert run.do(call_of(walk, target)).outcome == outcome


class Interrupted(Exception):  # noqa: N818  no error of the script's
    """The process that ran the script is gone."""


def cut_off(fleet: Fleet, walk: Simulated) -> None:
    """Let the engine die while the script of the first lane runs, which has done its work."""
    good = fleet.fake.processes.programs["trim.sh"]

    def dying(call: Call) -> int:
        good(call)
        raise KeyboardInterrupt

    fleet.fake.processes.programs = {**fleet.fake.processes.programs, "trim.sh": dying}
    keep = fleet.fake.journal.append

    def forget(chain: str, kind: str, body: Mapping[str, Any]) -> Any:
        if chain.startswith("run-") and kind == "step-done":
            raise Interrupted
        return keep(chain, kind, body)

    fleet.fake.journal.append = forget  # type: ignore[method-assign]  # a dead process writes nothing
    with pytest.raises(Interrupted):
        fleet.acts["run"].do(call_of(walk, "store/a"))
    fleet.fake.journal.append = keep  # type: ignore[method-assign]  # the next one does
    fleet.fake.processes.programs = {**fleet.fake.processes.programs, "trim.sh": good}


def test_unknown_outcome(fleet: Fleet) -> None:
    """A child cut off while its script ran is unknown; it is put back before it goes again."""
    walk = fleet.walk()
    cut_off(fleet, walk)
    run = fleet.acts["run"]
    assert run.check(call_of(walk, "store/a")).outcome == "unknown"
    again: Acted = run.do(call_of(walk, "store/a", attempt=2))
    assert (again.outcome, fleet.counts()[0]) == ("done", LEFT)
    first, second = 2, again.body["run"]
    assert records.body(one_of(fleet, first, "ended"))["outcome"] == "undone"
    assert records.body(one_of(fleet, second, "ended"))["outcome"] == "confirmed"


def one_of(fleet: Fleet, number: int, kind: str) -> Any:
    """Return the last record of a kind in a run's chain."""
    found = [r for r in fleet.fake.journal.records(f"run-{number}") if r.kind == kind]
    return found[-1]


def test_undo_of_an_unknown_one(fleet: Fleet) -> None:
    """Undoing the walk also puts back what nobody knows of."""
    walk = fleet.walk()
    cut_off(fleet, walk)
    assert fleet.acts["run"].undo(call_of(walk, "store/a")).outcome == "done"
    assert fleet.counts() == [ROWS] * 3


def test_let_go(fleet: Fleet) -> None:
    """A child that was let go of before it had changed anything goes again when the walk does."""
    walk = fleet.walk()

    def stopped(_: Call) -> Finished:
        return Finished(-2, "interrupted", 0.1, 0)

    good = fleet.fake.processes.programs["trim.sh"]
    fleet.fake.processes.programs = {**fleet.fake.processes.programs, "trim.sh": stopped}
    run = fleet.acts["run"]
    acted = run.do(call_of(walk, "store/a", is_over=lambda: True))
    assert (acted.outcome, fleet.fake.talk.asked) == ("later", [])
    fleet.fake.processes.programs = {**fleet.fake.processes.programs, "trim.sh": good}
    again = run.do(call_of(walk, "store/a", before=acted.body))
    assert (again.outcome, fleet.counts()[0]) == ("done", LEFT)


def test_each_child_is_told_its_walk(fleet: Fleet) -> None:
    """A child is an ordinary run that says which walk it is part of."""
    walk = fleet.walk()
    walk.go()
    for target in ("store/a", "store/b", "store/c"):
        number = walks.child_of(fleet.fake.world(), walk.number, target)
        assert number is not None
        opened = records.body(one_of(fleet, number, "opened"))
        assert (opened["walk"], opened["attempt"]) == (walk.number, 1)
    assert walks.children(fleet.fake.world(), [walk.number]) == {2, 3, 4}


@pytest.mark.parametrize("at", range(1, 12))
def test_engine_dies_at_each_mark(fleet: Fleet, at: int) -> None:
    """Whichever mark the engine dies before, the next one brings the walk to its end, each once."""
    walk = fleet.walk()
    runs = len(fleet.fake.processes.runs)
    count = 0

    def dies(mark: Mark) -> bool:
        nonlocal count
        count += mark.kind != "taken"
        return count == at

    walk.dies = dies
    try:
        stands = walk.go()
    except Died:
        walk.dies = lambda _: False
        stands = walk.go()
    assert (stands.outcome, fleet.counts()) == ("done", [LEFT] * 3)
    assert len(fleet.fake.processes.runs) - runs == 3


@pytest.mark.parametrize("name", NAMES)
def test_failing_at_each_lane_restores(tmp_path: Path, name: str) -> None:
    """Whichever target fails, it is as it was; the walk's undo puts back the others."""
    fleet = make_fleet(tmp_path / "fleet")
    walk = fleet.walk()
    fleet.fail_on(name)
    assert walk.go().state == "held"
    assert fleet.counts()[NAMES.index(name)] == ROWS
    walk.say("undo")
    assert walk.go().outcome == "undone"
    assert fleet.counts() == [ROWS] * 3
