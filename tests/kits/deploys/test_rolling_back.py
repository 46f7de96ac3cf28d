"""Rolling back, scaling and restarting an app."""

from __future__ import annotations

from pathlib import Path

import pytest

from handrail.errors import PlatformError, UsageError
from handrail.kits.deploys import history
from support.apps import Apps, make_apps, section, text
from support.worlds import ANA, BEN


@pytest.fixture
def apps(tmp_path: Path) -> Apps:
    return make_apps(tmp_path / "team")


def test_rollback_puts_back_the_former_version(apps: Apps) -> None:
    """The exact specification of the last confirmed deploy before, with its digests."""
    apps.deployed("1")
    first = apps.platform.current("shop")
    apps.deployed("2")
    decided = apps.decide("rollback")
    assert "~ version: 2 -> 1" in section(decided.plan, "spec")
    assert decided.plan.summary.startswith("roll shop back to ")
    assert apps.run("rollback").outcome == "done"
    found = apps.platform.current("shop")
    assert found is not None
    assert first is not None
    assert found.spec == first.spec
    assert found.note["handrail.of"] == first.note["handrail.run"]


def test_rollback_needs_no_repository_and_no_registry(apps: Apps) -> None:
    """What may be broken just then is not asked."""
    apps.deployed("1")
    apps.deployed("2")
    apps.sources.broken = PlatformError("source.unreachable", "git is away")
    apps.registry.down = "the registry is away"
    assert apps.run("rollback").outcome == "done"
    assert apps.runs() == "1"


def test_rolled_back_twice_goes_two_back(apps: Apps) -> None:
    """Of three versions, two rollbacks give the first, and a third has nothing left."""
    for version in "123":
        apps.deployed(version)
    for version in ("2", "1"):
        assert apps.run("rollback").outcome == "done"
        assert apps.runs() == version
    with pytest.raises(UsageError, match="no version before"):
        apps.decide("rollback")


def test_rollback_passes_over_what_was_put_back(apps: Apps) -> None:
    """A deploy that was undone is nothing to roll back to."""
    apps.deployed("1")
    apps.commit("bad")
    walk = apps.walk()
    walk.go()
    walk.say("undo")
    walk.go()
    apps.deployed("3")
    assert apps.run("rollback").outcome == "done"
    assert apps.runs() == "1"


def test_rollback_after_an_undo_goes_further_back(apps: Apps) -> None:
    """Where an undo has put back version 1, what comes before that is meant: nothing."""
    apps.deployed("1")
    apps.commit("2")
    walk = apps.walk()
    walk.go()
    walk.say("undo")
    walk.go()
    with pytest.raises(UsageError, match="cannot be rolled back"):
        apps.decide("rollback")


def test_rollback_after_a_rollback_and_a_deploy(apps: Apps) -> None:
    """What ran just before is put back: not the version that was rolled back from."""
    apps.deployed("1")
    apps.deployed("bad")
    apps.run("rollback")
    apps.deployed("3")
    assert apps.run("rollback").outcome == "done"
    assert apps.runs() == "1"


def test_rollback_of_what_was_scaled(apps: Apps) -> None:
    """A count is no version: the version before is put back, not the same with another count."""
    apps.deployed("1")
    apps.deployed("2")
    apps.run("scale", count="5")
    assert apps.run("rollback").outcome == "done"
    assert apps.runs() == "1"


def test_undo_of_a_scale_leaves_another_count(apps: Apps) -> None:
    """What somebody else scaled since is left as it is."""
    apps.deployed("1")
    walk = apps.walk(apps.ready("scale", count="5"))
    walk.go()
    running = apps.platform.current("shop")
    assert running is not None
    apps.platform.scale("shop", "web", 7, running.token)
    walk.say("undo")
    walk.go()
    found = apps.platform.current("shop")
    assert found is not None
    assert (found.healthy[1], apps.ends()[-1]) == (7, "undo-failed")


def test_rollback_to_a_run(apps: Apps) -> None:
    """`to` is the number of the run whose version is meant."""
    for version in "123":
        apps.deployed(version)
    assert apps.run("rollback", to=str(apps.walks[0].number)).outcome == "done"
    assert apps.runs() == "1"


@pytest.mark.parametrize("to", ["x", "-1", "0", "99", "1e3", "\uff11", "9" * 40, "1; rm"])
def test_rollback_to_no_run(apps: Apps, to: str) -> None:
    """What is no run's number, or of no deploy of this app, is refused."""
    apps.deployed("1")
    with pytest.raises(UsageError):
        apps.decide("rollback", to=to)


def test_rollback_of_what_was_never_deployed(apps: Apps) -> None:
    """There is nothing to roll back to, and what helps is said."""
    with pytest.raises(UsageError, match="has deployed nothing of it yet") as caught:
        apps.decide("rollback")
    assert caught.value.code == "deploys.nothing"
    assert "--ref" in caught.value.hint


def test_rollback_keeps_who_reviewed_the_commit(apps: Apps) -> None:
    """The commit that runs again was reviewed when it was deployed: that is the fact."""
    apps.deployed("1")
    apps.deployed("2")
    change = apps.decide("rollback").plan.facts.change
    assert change is not None
    assert change.reviewers == (BEN,)


def test_rollback_from_what_somebody_else_deployed(apps: Apps) -> None:
    """Over a foreign version, the last one that Handrail deployed is put back; drift is told."""
    apps.deployed("1")
    apps.known.interfere(text("theirs").replace("${greeting}", "hi"))
    decided = apps.decide("rollback")
    assert "somebody changed it since run 1" in section(decided.plan, "drift")[0]
    apps.run("rollback")
    assert apps.runs() == "1"


def test_scale_sets_one_group(apps: Apps) -> None:
    """The count changes, the commit that runs does not; the plan says what a deploy would do."""
    apps.deployed("1")
    decided = apps.decide("scale", count="5")
    assert section(decided.plan, "spec") == ("~ group web > count: 3 -> 5",)
    assert [(e.verb, e.detail) for e in decided.plan.effects or ()] == [("start", "2 of them")]
    assert apps.run("scale", count="web=5").outcome == "done"
    found = apps.platform.current("shop")
    assert found is not None
    assert found.healthy == (5, 5)
    drift = section(apps.decide().plan, "drift")
    assert drift[0].endswith(f"by {ANA} in run {apps.walks[1].number}")


@pytest.mark.parametrize(
    "count", ["", "x", "-1", "web=", "=3", "db=3", "1.5", "10001", "9" * 30, "web=web=3", "٣"]
)
def test_scale_to_no_count(apps: Apps, count: str) -> None:
    """What is no count, or of no group, is refused."""
    apps.deployed("1")
    with pytest.raises(UsageError):
        apps.decide("scale", count=count)


def test_scale_of_what_does_not_run(apps: Apps) -> None:
    """Nothing that was never deployed, or was removed, is scaled or restarted."""
    for name, more in (("scale", {"count": "2"}), ("restart", {})):
        with pytest.raises(UsageError, match="has deployed nothing"):
            apps.decide(name, **more)
    apps.deployed("1")
    apps.known.drop("shop")
    for name, more in (("scale", {"count": "2"}), ("restart", {})):
        with pytest.raises(UsageError, match="nothing runs as `shop`"):
            apps.decide(name, **more)


def test_scale_below_what_it_can_live_with(apps: Apps) -> None:
    """Fewer instances than `capacity` are refused."""
    estate = (apps.fake.root / "estate/apps.yaml").read_text()
    apps.declare(estate.replace("soak: 10s", "soak: 10s\n    capacity: 2"))
    apps.deployed("1")
    plan = apps.decide("scale", count="1").plan
    assert (plan.verdict, plan.risk) == ("refuse", "high")


def test_restart(apps: Apps) -> None:
    """The same version runs; the plan says how many are restarted, and that nothing is undone."""
    apps.deployed("1")
    plan = apps.decide("restart").plan
    assert [(e.verb, e.name, e.detail) for e in plan.effects or ()] == [
        ("restart", "web", "3 of them")
    ]
    assert plan.undo_said == "the same version runs: there is nothing to put back"
    assert apps.run("restart").outcome == "done"
    assert apps.known.calls[-1] == "restart"


def test_restart_of_what_changed_is_refused(apps: Apps) -> None:
    """Where somebody deployed meanwhile, it is not restarted."""
    apps.deployed("1")
    decided = apps.ready("restart")
    apps.known.interfere(text("theirs").replace("${greeting}", "hi"))
    assert apps.walk(decided).go().outcome == "failed"
    assert "restart" not in apps.known.calls


def test_restart_of_the_only_instance_is_worse(apps: Apps) -> None:
    """One instance that something needs is gone meanwhile: that is a high risk."""
    apps.deployed("1", count=1)
    assert apps.decide("restart").plan.risk == "high"


def test_history(apps: Apps) -> None:
    """What ran when, from which commit, by whom, reviewed and approved by whom; newest first."""
    first = apps.deployed("1")
    second = apps.deployed("2")
    apps.run("rollback")
    world = apps.fake.world()
    told = [
        (one.run, one.operation, one.outcome, one.commit, one.person, one.reviewers)
        for one in history.history(world, "app/shop")
    ]
    one, two, three = (walk.number for walk in apps.walks)
    assert told == [
        (three, "rollback", "confirmed", first.id, ANA, (BEN,)),
        (two, "deploy", "confirmed", second.id, ANA, (BEN,)),
        (one, "deploy", "confirmed", first.id, ANA, (BEN,)),
    ]
    by = [history.approved(world, ran).by for ran in history.history(world, "app/shop")]
    assert by == [(BEN,), (BEN,), ()]
    assert all(one.began < one.ended for one in history.history(world, "app/shop"))


def test_history_of_a_run_under_way(apps: Apps) -> None:
    """A run that has not ended has no outcome; one that was undone is not what is deployed."""
    apps.deployed("1")
    apps.commit("2")
    walk = apps.walk()
    walk.go()
    walk.say("undo")
    walk.go()
    world = apps.fake.world()
    newest = next(history.history(world, "app/shop"))
    assert (newest.outcome, newest.is_deployed) == ("undone", False)
    found = history.saved(world, "app/shop")
    assert found is not None
    assert found.run == apps.walks[0].number
    apps.fake.journal.append(
        "resource-app/shop", "run-begun", {"run": 99, "attempt": 1, "digest": "f" * 64}
    )
    newest = next(history.history(world, "app/shop"))
    assert (newest.run, newest.outcome, newest.plan, newest.change) == (99, "", None, None)
