"""An app deployed, broken, put back, rolled back, scaled and restarted: the same on every platform.

Rules:
- The repository, registry and forge are those of memory; the platform is each of the contract's.
- Fake time passes where nothing is done; a little real time with it, for what is real.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.errors import RefusedError
from handrail.kits.deploys import history
from handrail.kits.deploys.status import status
from handrail.testing.clock import FakeClock
from support.apps import Apps, killed, make_apps, section
from support.platforms import SCENES, Scene, settled
from support.worlds import BEN, CHI

REPOSITORY = "git@git.example:team/shop.git"
ESTATE = """\
environments:
  production: {{production: true}}
platforms:
  prod: {{kind: nomad, url: "http://127.0.0.1:1", environment: production,
         identity: "{identity}"}}
apps:
  shop:
    repository: git@git.example:team/shop.git
    spec: deploy/app.spec
    platform: platform/prod
    environment: production
    soak: 4s
"""
_REAL_S = 0.3


class SlowClock(FakeClock):
    """Fake time of which a little is real: what runs on its own needs some."""

    def advance(self, seconds: float) -> None:
        time.sleep(min(seconds, _REAL_S))
        super().advance(seconds)


class House:
    """A team whose shop runs on one of the platforms."""

    def __init__(self, scene: Scene, apps: Apps) -> None:
        self.scene, self.apps = scene, apps

    def commit(self, version: str, **more: object) -> str:
        """Commit a version, reviewed by ben; return its id."""
        text = self.scene.text(version, **more)  # type: ignore[arg-type]  # as the test says
        files = {path: file.content.decode() for path, file in self.scene.files.items()}
        files["deploy/app.spec"] = text
        made = self.apps.sources.commit(REPOSITORY, files, author=CHI, subject=version)
        self.apps.reviews.put(made.id, BEN)
        return made.id

    def deployed(self, version: str, **more: object) -> str:
        """Commit a version, deploy it, and see it confirmed."""
        made = self.commit(version, **more)
        stands = self.apps.run()
        assert stands.outcome == "done", (stands, self.apps.whys())
        return made

    def commit_runs(self) -> str:
        """Return the commit that is noted beside what runs."""
        return self.apps.note().get("handrail.commit", "")

    def body(self) -> object:
        """Return what runs."""
        found = self.apps.platform.current(self.scene.job)
        return found.spec.body if found else None


@pytest.fixture(params=sorted(SCENES))
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    with SCENES[request.param](request, tmp_path) as scene:
        identity = scene.platform.identify()
        apps = make_apps(tmp_path / "team", scene.platform, ESTATE.format(identity=identity))
        if request.param != "fake":
            # The one that everything in this world was made with already.
            apps.fake.clock.__class__ = SlowClock
        yield House(scene, apps)


def test_deployed_planned_again_broken_and_put_back(house: House) -> None:
    """A deploy is confirmed, and planned again it is empty; a bad version is put back whole."""
    first = house.deployed("1")
    good = house.body()
    assert house.commit_runs() == first
    assert house.apps.decide().plan.effects == ()
    house.commit("2", is_ill=True)
    decided = house.apps.decide()
    assert decided.plan.effects
    assert f"commit {first[:7]}" in decided.plan.undo_said
    assert house.apps.run().outcome == "failed"
    assert house.apps.ends() == ["confirmed", "undone"], house.apps.whys()
    assert (house.body(), house.commit_runs()) == (good, first)
    [found] = status(house.apps.outside(), house.apps.fake.declared.estate)
    assert (found.word, found.behind) == ("behind", 1)


def test_first_version_that_is_bad_is_stopped(house: House) -> None:
    """Where nothing ran before, nothing runs afterwards; and a good one can follow."""
    house.commit("1", is_ill=True)
    assert house.apps.run().outcome == "failed"
    assert house.apps.ends() == ["undone"], house.apps.whys()
    assert house.body() is None
    house.deployed("2")


def test_rolled_back_scaled_restarted(house: House) -> None:
    """A rollback puts back the exact version; a scale and its undo are another's count."""
    first = house.deployed("1")
    good = house.body()
    house.deployed("2")
    assert house.apps.run("rollback").outcome == "done", house.apps.whys()
    assert (house.body(), house.commit_runs()) == (good, first)
    assert house.apps.run("restart").outcome == "done", house.apps.whys()
    assert house.body() == good
    walk = house.apps.walk(house.apps.ready("scale", count="3"))
    assert walk.go().outcome == "done", house.apps.whys()
    found = house.apps.platform.current(house.scene.job)
    assert found is not None
    assert found.healthy == (3, 3)
    assert section(house.apps.decide("rollback", to=str(house.apps.walks[1].number)).plan, "drift")
    walk.say("undo")
    assert walk.go().outcome == "undone", house.apps.whys()
    assert house.body() == good
    told = [one.operation for one in history.history(house.apps.fake.world(), "app/shop")]
    assert told == ["scale", "restart", "rollback", "deploy", "deploy"]


def test_canaries_are_promoted_by_the_watch(house: House) -> None:
    """Canaries that are well are promoted, and the whole version runs then."""
    house.deployed("1")
    second = house.commit("2", canaries=1)
    assert house.apps.run().outcome == "done", house.apps.whys()
    assert house.commit_runs() == second
    assert house.apps.decide().plan.effects == ()


def test_killed_between_the_platform_and_the_journal(house: House) -> None:
    """The engine dies when the platform has begun and no mark says so: it is found, done once."""
    house.deployed("1")
    second = house.commit("2")
    walk = house.apps.walk()
    stands = killed(walk, 1, lambda mark: mark.kind == "later")
    assert stands.outcome == "done", house.apps.whys()
    assert house.commit_runs() == second
    found = house.apps.platform.current(house.scene.job)
    assert found is not None
    assert found.healthy[0] == found.healthy[1]


def test_changed_by_somebody_else_is_refused_and_left(house: House) -> None:
    """What somebody applied between plan and run is not overwritten; an undo leaves it, too."""
    house.deployed("1")
    house.commit("2")
    decided = house.apps.ready()
    platform, scene = house.apps.platform, house.scene
    running = platform.current(scene.job)
    assert running is not None
    source = house.apps.sources.open(REPOSITORY, "main")
    theirs = platform.parse(scene.text("3"), "theirs.spec", {})
    files = source.files(theirs.files)
    theirs = platform.with_files(theirs, files)
    platform.stage(theirs, files)
    settled(scene, platform.apply(theirs, running.token, {}))
    assert house.apps.walk(decided).go().outcome == "failed"
    assert house.body() == theirs.body
    with pytest.raises(RefusedError):
        platform.apply(theirs, running.token, {"handrail.run": "9"})
    house.apps.walks[0].say("undo")
    house.apps.walks[0].go()
    assert house.body() == theirs.body
    assert house.apps.ends()[-1] == "undo-failed"
