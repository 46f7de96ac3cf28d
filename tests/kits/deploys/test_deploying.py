"""Deploying an app: planned from its repository, done compare-and-set, watched, put back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from handrail.errors import PlatformError, RefusedError, UsageError
from handrail.kits.deploys.model import DryRun, GroupFate, Running, Spec
from handrail.testing.platform import FakePlatform
from support.apps import REPOSITORY, SHOP_HEALTH, SPEC, Apps, make_apps, section, text
from support.worlds import ANA, BEN, CHI, ILL, WELL


@pytest.fixture
def apps(tmp_path: Path) -> Apps:
    return make_apps(tmp_path / "team")


def test_first_deploy_runs_what_the_repository_says(apps: Apps) -> None:
    """What runs is the commit's specification, its image by digest, with the run noted beside."""
    made = apps.commit("1")
    assert apps.run().outcome == "done"
    found = apps.platform.current("shop")
    assert found is not None
    digest = apps.registry.resolve(f"ghcr.io/team/shop:{made.id}").digest
    assert found.spec.images["web/web"] == f"ghcr.io/team/shop@{digest}"
    assert apps.note()["handrail.commit"] == made.id
    assert apps.note()["handrail.run"] == str(apps.walks[0].number)
    assert apps.ends() == ["confirmed"]


def test_plan_says_it_all(apps: Apps) -> None:
    """Specification, dry run, commits with authors and reviewers, images, health, undo."""
    first = apps.deployed("1")
    second = apps.commit("2")
    plan = apps.decide().plan
    assert plan.summary == f"deploy shop at {second.id[:7]} to platform/prod"
    assert "~ version: 1 -> 2" in section(plan, "spec")
    assert section(plan, "dry run") == ("web: 3 destructive",)
    [head] = section(plan, "commits")
    assert head.endswith(f"Chi: version 2; reviewed by {BEN}")
    assert section(plan, "images")[0].startswith(f"web/web: ghcr.io/team/shop:{second.id} -> sha")
    assert section(plan, "health") == ("version 1 is running, 3 of 3 healthy",)
    assert plan.undo_said == (
        f"puts back version 1, commit {first.id[:7]}, deployed by {ANA} on 2026-01-05"
    )
    assert [(e.verb, e.kind, e.name, e.detail) for e in plan.effects or ()] == [
        ("replace", "instances", "web", "3 of them")
    ]
    assert [(c.resource, c.path) for c in plan.consequences] == [
        ("service/checkout", ("service/shop-web", "service/checkout"))
    ]
    assert plan.risk == "critical"
    assert plan.risk_because == "service/checkout needs it, and all of web goes at once"


def test_planning_changes_nothing(apps: Apps) -> None:
    """Planned twice it is one plan, and the platform was only asked."""
    apps.commit("1")
    assert apps.decide().plan.digest == apps.decide().plan.digest
    assert (apps.known.calls, apps.platform.current("shop")) == ([], None)


def test_deployed_and_planned_again_is_empty(apps: Apps) -> None:
    """What runs already is no effect, no risk, and waits for nobody."""
    apps.deployed("1")
    plan = apps.decide().plan
    assert (plan.effects, plan.risk, plan.verdict) == ((), "none", "allow")
    assert section(plan, "commits")[0].endswith("it runs already")
    assert plan.undo_said == "there is nothing to put back"
    assert apps.run().outcome == "done"
    assert apps.known.calls == ["apply"]


def test_an_older_branch_has_its_own_specification(apps: Apps) -> None:
    """A ref brings the specification that stands there, and its own image."""
    first = apps.commit("1")
    apps.commit("2")
    assert apps.run(ref=first.id[:8]).outcome == "done"
    assert (apps.runs(), apps.note()["handrail.ref"]) == ("1", first.id[:8])


def test_image_for_a_task_alone(apps: Apps) -> None:
    """`--image` sets that task's image, and a sidecar keeps its own."""
    apps.commit("1")
    pushed = apps.registry.push("ghcr.io/team/shop:hotfix")
    proxy = apps.registry.resolve("ghcr.io/team/proxy:1")
    apps.run(images="web=ghcr.io/team/shop:hotfix")
    found = apps.platform.current("shop")
    assert found is not None
    assert found.spec.images == {"web/web": pushed.pinned, "web/sidecar": proxy.pinned}


def test_image_named_after_a_branch(apps: Apps) -> None:
    """`{branch}` is the branch that is deployed; a commit is none, and that is said."""
    estate = (apps.fake.root / "estate/apps.yaml").read_text()
    apps.declare(estate.replace("shop:{commit}", "shop:{branch}"))
    made = apps.commit("1")
    pushed = apps.registry.push("ghcr.io/team/shop:main")
    assert pushed.digest in section(apps.decide().plan, "images")[0]
    with pytest.raises(UsageError, match="named after a branch"):
        apps.decide(ref=made.id)


def test_a_tag_that_moved_is_stale(apps: Apps) -> None:
    """A tag that means another image at the run than when it was approved: nothing is done."""
    apps.commit("1")
    apps.registry.push("ghcr.io/team/shop:main")
    decided = apps.ready(images="web=ghcr.io/team/shop:main")
    apps.registry.push("ghcr.io/team/shop:main")
    stands = apps.walk(decided).go()
    assert (stands.outcome, apps.platform.current("shop")) == ("failed", None)


def test_a_branch_that_moved_is_stale(apps: Apps) -> None:
    """A branch with a newer commit at the run than when it was approved: nothing is done."""
    apps.commit("1")
    decided = apps.ready()
    apps.commit("2")
    stands = apps.walk(decided).go()
    assert (stands.outcome, apps.platform.current("shop")) == ("failed", None)


def test_changed_by_somebody_else_is_stale(apps: Apps) -> None:
    """What somebody deployed between plan and run is not overwritten."""
    apps.deployed("1")
    apps.commit("2")
    decided = apps.ready()
    apps.known.interfere(text("theirs").replace("${greeting}", "hi"))
    assert apps.walk(decided).go().outcome == "failed"
    assert apps.runs() == "theirs"


def test_changed_just_before_it_is_applied_is_refused(apps: Apps) -> None:
    """Between planning anew and applying, compare-and-set is what refuses."""
    apps.deployed("1")
    apps.commit("2")
    decided = apps.ready()

    def hear(name: str) -> None:
        if name == "apply":
            apps.known.hear = lambda _: None
            apps.known.interfere(text("theirs").replace("${greeting}", "hi"))

    apps.known.hear = hear
    assert apps.walk(decided).go().outcome == "failed"
    assert (apps.runs(), apps.ends()) == ("theirs", ["confirmed", "refused"])


def test_drift_is_seen(apps: Apps) -> None:
    """What runs otherwise than it was deployed is told, and since which run."""
    apps.deployed("1")
    apps.known.interfere(text("1", count=5).replace("${greeting}", "hello"))
    plan = apps.decide().plan
    lines = section(plan, "drift")
    assert "somebody changed it since run 1" in lines[0]
    assert any("count: 5 -> 3" in line for line in lines)


def test_ill_is_put_back(apps: Apps) -> None:
    """A version that fails its checks in the soak is put back, with the note of the former."""
    first = apps.deployed("1")
    apps.commit("2")
    apps.fake.checks.set(SHOP_HEALTH, WELL, ILL)
    assert apps.run().outcome == "failed"
    assert (apps.runs(), apps.ends()) == ("1", ["confirmed", "undone"])
    assert apps.note()["handrail.commit"] == first.id
    assert apps.note()["handrail.run"] == f"undo of {apps.walks[1].number}"
    assert "commit" in apps.whys()[1]


@pytest.mark.parametrize("fate", ["failed", "reverted", "stuck"])
def test_rollout_that_goes_wrong_is_put_back(apps: Apps, fate: str) -> None:
    """Failed, put back by the platform itself, or stuck: the former version runs afterwards."""
    apps.deployed("1")
    apps.commit("2")
    apps.known.fates["shop"] = [fate]  # type: ignore[list-item]  # a test's word
    assert apps.run().outcome == "failed"
    assert (apps.runs(), apps.ends()) == ("1", ["confirmed", "undone"])


class Slow(FakePlatform):
    """A platform that puts back by itself, and is healthy so many looks later."""

    ill = 5

    def current(self, job: str) -> Running | None:
        found = super().current(job)
        if found is not None and found.spec.body["version"] == "1" and "rollout" in self.seen:
            self.ill -= 1
            return replace(found, healthy=(3 if self.ill <= 0 else 1, 3))
        return found

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []


def test_what_the_platform_puts_back_is_waited_for(tmp_path: Path) -> None:
    """Put back by the platform itself, it counts as undone once it is healthy."""
    platform = Slow()
    apps = make_apps(tmp_path / "team", platform)
    apps.deployed("1")
    apps.commit("2")
    platform.fates["shop"] = ["reverted"]
    decided = apps.ready()
    platform.hear = platform.seen.append
    apps.walk(decided).go()
    assert (apps.ends()[-1], platform.ill) == ("undone", 0)
    assert "the platform has put back" in apps.whys()[-1]


def test_first_version_that_fails_is_stopped(apps: Apps) -> None:
    """Where nothing ran before, nothing runs afterwards."""
    apps.commit("1")
    apps.known.fates["shop"] = ["failed"]
    decided = apps.ready()
    assert decided.plan.undo_said == "stops it: nothing ran before"
    apps.walk(decided).go()
    assert (apps.platform.current("shop"), apps.ends()) == (None, ["undone"])


def test_canaries_are_watched_and_promoted(apps: Apps) -> None:
    """Canaries that are well for the soak are promoted by the watch, and by nobody else."""
    apps.deployed("1")
    apps.commit("2", canaries=1)
    began = apps.fake.clock.now()
    assert apps.run().outcome == "done"
    assert apps.known.calls.count("promote") == 1
    assert (apps.fake.clock.now() - began).total_seconds() >= 20
    assert apps.runs() == "2"


def test_ill_beside_canaries_is_put_back(apps: Apps) -> None:
    """Something that gets ill while canaries run: they are not promoted."""
    apps.deployed("1")
    apps.commit("2", canaries=1)
    apps.fake.checks.set(SHOP_HEALTH, WELL, ILL)
    assert apps.run().outcome == "failed"
    assert "promote" not in apps.known.calls
    assert apps.known.calls[-2:] == ["halt", "apply"]
    assert apps.runs() == "1"
    assert "beside the canaries" in apps.whys()[1]


def test_undone_by_a_word_twice_equals_once(apps: Apps) -> None:
    """A confirmed deploy is undone by its plan; undone again, nothing more is done."""
    apps.deployed("1")
    apps.commit("2")
    decided = apps.ready()
    walk = apps.walk(decided)
    walk.go()
    walk.say("undo")
    assert walk.go().outcome == "undone"
    assert apps.runs() == "1"
    calls = list(apps.known.calls)
    act = apps.fake.kits[0].acts(apps.fake.world())["deploys.deploy"]
    assert act.undo(apps.job(decided, run=walk.number)).state == "done"
    assert apps.known.calls == calls


def test_undo_leaves_what_others_deployed(apps: Apps) -> None:
    """An undo does not overwrite what somebody deployed since, and says so."""
    apps.deployed("1")
    apps.commit("2")
    walk = apps.walk()
    walk.go()
    apps.known.interfere(text("theirs").replace("${greeting}", "hi"))
    walk.say("undo")
    walk.go()
    assert apps.runs() == "theirs"
    assert apps.ends()[-1] == "undo-failed"
    assert "left as it is" in apps.whys()[-1]


def test_undo_leaves_a_later_deploy(apps: Apps) -> None:
    """Undoing an older run while a newer one runs says by whom, in which run."""
    apps.deployed("1")
    apps.commit("2")
    walk = apps.walk()
    walk.go()
    apps.deployed("3")
    walk.say("undo")
    walk.go()
    assert apps.runs() == "3"
    assert f"by {ANA} in run {apps.walks[-1].number}" in apps.whys()[-1]


def test_undo_of_what_was_stopped(apps: Apps) -> None:
    """What somebody stopped is not started again by an undo."""
    apps.deployed("1")
    apps.commit("2")
    walk = apps.walk()
    walk.go()
    apps.known.drop("shop")
    walk.say("undo")
    walk.go()
    assert apps.platform.current("shop") is None
    assert "somebody else stopped" in apps.whys()[-1]


@pytest.mark.parametrize("call", ["apply", "promote", "halt"])
def test_lost_answer_is_made_good(apps: Apps, call: str) -> None:
    """An answer that is lost after the platform did its work: it is not done twice."""
    apps.deployed("1")
    apps.commit("2", canaries=1)
    apps.known.cut = [call]
    if call == "halt":
        apps.fake.checks.set(SHOP_HEALTH, WELL, ILL)
    apps.run()
    assert apps.runs() == ("1" if call == "halt" else "2")
    assert apps.known.calls.count("apply") == (3 if call == "halt" else 2)


def test_leader_lost_in_mid_deploy(apps: Apps) -> None:
    """A platform without a leader for a while is waited for; what was begun goes on."""
    apps.deployed("1")
    apps.commit("2")
    walk = apps.walk()
    heard: list[str] = []

    def hear(name: str) -> None:
        heard.append(name)
        if name == "rollout" and len(heard) and apps.known.away == 0 and heard.count(name) == 1:
            apps.known.away = 4

    apps.known.hear = hear
    assert walk.go().outcome == "done"
    assert apps.runs() == "2"


def test_leader_lost_while_it_is_put_back(apps: Apps) -> None:
    """An undo waits for a leader, and puts back all the same."""
    apps.deployed("1")
    apps.commit("2")
    apps.known.fates["shop"] = ["failed"]

    def hear(name: str) -> None:
        if name == "halt":
            apps.known.hear = lambda _: None
            apps.known.away = 3

    apps.known.hear = hear
    apps.run()
    assert (apps.runs(), apps.ends()[-1]) == ("1", "undone")


def test_platform_away_for_good(apps: Apps) -> None:
    """A platform that never comes back: the undo ends, and says that it failed."""
    apps.deployed("1")
    apps.commit("2")
    walk = apps.walk()

    def hear(name: str) -> None:
        if name == "rollout":
            apps.known.away = 10_000

    apps.known.hear = hear
    assert walk.go().outcome == "failed"
    assert apps.ends()[-1] == "undo-failed"
    assert "no leader" in apps.whys()[-1]


def test_platform_that_refuses_for_good(apps: Apps) -> None:
    """A platform that lets nobody in when it is applied: nothing was done, and that is told."""
    apps.deployed("1")
    apps.commit("2")
    decided = apps.ready()

    def hear(name: str) -> None:
        if name == "apply":
            raise PlatformError("platform.denied", "the token may not register jobs")

    apps.known.hear = hear
    apps.walk(decided).go()
    assert (apps.runs(), apps.ends()[-1]) == ("1", "undone")
    assert "may not register jobs" in apps.whys()[-1]
    assert "what was there before runs" in apps.whys()[-1]


def test_what_cannot_be_placed_is_refused(apps: Apps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances that find no place refuse the deploy; and are said."""
    apps.commit("1")

    def dry_run(_: Spec) -> DryRun:
        return DryRun((GroupFate("web", {"place": 3}),), ("+ job",), (), ("web: no memory",))

    monkeypatch.setattr(apps.known, "dry_run", dry_run)
    plan = apps.decide().plan
    assert plan.verdict == "refuse"
    assert any(d.guard == "placement" and "no memory" in d.because for d in plan.decisions)


def test_fewer_than_the_app_can_live_with_is_refused(apps: Apps) -> None:
    """A specification with fewer instances than `capacity` is refused."""
    estate = (apps.fake.root / "estate/apps.yaml").read_text()
    apps.declare(estate.replace("soak: 10s", "soak: 10s\n    capacity: 3"))
    apps.commit("1", count=2)
    plan = apps.decide().plan
    assert plan.verdict == "refuse"
    assert any(d.guard == "capacity" and "2 instances" in d.because for d in plan.decisions)
    apps.commit("2", count=3)
    assert apps.decide().plan.verdict == "allow"


def test_a_job_of_another_app_is_not_taken(apps: Apps) -> None:
    """A specification that names another app's job is refused, by its note or its declaration."""
    apps.deployed("1")
    estate = (apps.fake.root / "estate/apps.yaml").read_text()
    other = estate[estate.index("  shop:") : estate.index("services:")]
    other = other.replace("  shop:", "  thief:").replace(
        "service: service/shop-web\n", "job: shop\n"
    )
    apps.declare(estate.replace("services:", f"{other}services:"))
    with pytest.raises(RefusedError, match="is of app/shop, not of app/thief"):
        apps.decide(on="app/thief")
    with pytest.raises(RefusedError, match="is of app/thief"):
        apps.decide(on="app/shop")


def test_a_renamed_app_keeps_its_job(apps: Apps) -> None:
    """What runs was deployed for an app that is called otherwise now: by declaring the job."""
    apps.deployed("1")
    estate = (apps.fake.root / "estate/apps.yaml").read_text().replace("  shop:\n", "  till:\n")
    apps.declare(estate)
    with pytest.raises(RefusedError, match="is of app/shop") as caught:
        apps.decide(on="app/till")
    assert "declare `job: shop`" in caught.value.hint
    apps.declare(estate.replace("soak: 10s", "soak: 10s\n    job: shop"))
    assert apps.decide(on="app/till").plan.effects == ()


# --- what refuses before there is a plan


def test_no_such_ref(apps: Apps) -> None:
    """A ref that does not exist is an error that names near ones."""
    apps.commit("1")
    with pytest.raises(UsageError) as caught:
        apps.decide(ref="mian")
    assert caught.value.code == "source.no-ref"


def test_no_specification(apps: Apps) -> None:
    """A commit without the specification says which file, at which commit."""
    made = apps.sources.commit(REPOSITORY, {"README": "hi"})
    with pytest.raises(Exception, match=f"`{SPEC}` is not in shop's repository at {made.id[:7]}"):
        apps.decide()


def test_specification_that_does_not_parse(apps: Apps) -> None:
    """A specification that does not parse is told with file and line."""
    apps.commit("1")
    apps.sources.commit(REPOSITORY, {SPEC: "job: shop\ngroups: {web: [}\n"})
    with pytest.raises(Exception, match="not YAML") as caught:
        apps.decide()
    assert str(caught.value.at) == f"{SPEC}:2"  # type: ignore[attr-defined]  # of HandrailError


def test_variables_that_are_not_there(apps: Apps) -> None:
    """A declared file of variables that is not committed is an error; so is a bad line in it."""
    apps.commit("1")
    apps.sources.commit(REPOSITORY, {"deploy/production.vars": None})
    with pytest.raises(Exception, match=r"production.vars` is not in"):
        apps.decide()
    apps.sources.commit(REPOSITORY, {"deploy/production.vars": 'a = "b"\ngreeting hello\n'})
    with pytest.raises(Exception, match="no line") as caught:
        apps.decide()
    assert str(caught.value.at) == "deploy/production.vars:2"  # type: ignore[attr-defined]  # the same


@pytest.mark.parametrize("asked", ["nothing=x:1", "web", "=x", "web=", "web=UPPER:1", "web=a b"])
def test_images_that_cannot_be(apps: Apps, asked: str) -> None:
    """An unknown task, or what is no pair or no image's name, is refused."""
    apps.commit("1")
    with pytest.raises(UsageError):
        apps.decide(images=asked)


def test_registry_away(apps: Apps) -> None:
    """A registry that is down or rate-limits is said, and nothing is planned."""
    apps.commit("1")
    apps.registry.down = "too many requests; again at 12:00"
    with pytest.raises(PlatformError, match="again at 12:00"):
        apps.decide()


def test_repository_away(apps: Apps) -> None:
    """A repository that does not answer is said, and nothing is planned."""
    apps.commit("1")
    apps.sources.broken = PlatformError("source.unreachable", "no route to git.example")
    with pytest.raises(PlatformError, match="no route"):
        apps.decide()


def test_forge_away_refuses(apps: Apps) -> None:
    """Where nobody can say who reviewed the commit, the plan is refused."""
    apps.commit("1")
    apps.reviews.broken = PlatformError("platform.unreachable", "the forge is away")
    plan = apps.decide().plan
    assert plan.verdict == "refuse"
    assert any(d.because == "the forge is away" for d in plan.decisions)


def test_nobody_reviewed(apps: Apps) -> None:
    """Ana's own commit that nobody reviewed is refused; with ben's review it is not."""
    apps.deployed("1")
    own = apps.sources.commit(REPOSITORY, {SPEC: text("2")}, author=ANA)
    apps.registry.push(f"ghcr.io/team/shop:{own.id}")
    plan = apps.decide().plan
    assert plan.verdict == "refuse"
    assert any(d.guard == "review" and d.verdict == "refuse" for d in plan.decisions)
    apps.reviews.put(own.id, BEN)
    assert apps.decide().plan.verdict == "require"


def test_wrong_platform_is_refused(apps: Apps) -> None:
    """A platform that is not the one that was adopted is refused."""
    apps.commit("1")
    apps.platform = type(apps.known)("other")
    plan = apps.decide().plan
    assert plan.verdict == "refuse"
    assert any(d.guard == "identity" and d.verdict == "refuse" for d in plan.decisions)


def test_unknown_platform(apps: Apps) -> None:
    """A platform that nobody declared is an error at the app's own line."""
    estate = (apps.fake.root / "estate/apps.yaml").read_text()
    apps.commit("1")
    apps.declare(estate.replace("platform: platform/prod", "platform: platform/none"))
    with pytest.raises(Exception, match="platform/none"):
        apps.decide()


def test_secrets_in_a_specification_are_not_shown(apps: Apps) -> None:
    """What looks like a secret by its name, or a password in an address, is masked in sections."""
    apps.commit("1")
    more = 'API_TOKEN: "hunter2"\nurl: "postgres://shop:hunter3@db/shop"\n'
    apps.sources.commit(REPOSITORY, {SPEC: text("1") + more}, author=CHI)
    apps.registry.push(f"ghcr.io/team/shop:{apps.sources.open(REPOSITORY, 'main').commit.id}")
    plan = apps.decide().plan
    shown = "\n".join(line for one in plan.sections for line in one.lines)
    assert "API_TOKEN" in shown
    assert "hunter" not in shown
    assert section(plan, "secrets") == (
        f"{SPEC}:10 holds a value of API_TOKEN: let it refer to one",
        f"{SPEC}:11 holds an address with a password: let it refer to one",
    )
