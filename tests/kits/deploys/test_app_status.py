"""How every app stands: saved, running, and its branch."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from handrail.errors import PlatformError
from handrail.estate.model import Estate
from handrail.kits.deploys.status import AppStatus, status
from support.apps import ESTATE, REPOSITORY, Apps, make_apps, text
from support.worlds import ANA


@pytest.fixture
def apps(tmp_path: Path) -> Apps:
    return make_apps(tmp_path / "team")


def shop(apps: Apps) -> AppStatus:
    """Return how the shop stands."""
    [found] = status(apps.outside(), apps.fake.declared.estate)
    return found


def test_same(apps: Apps) -> None:
    """What runs is what was deployed, and the branch has nothing newer."""
    made = apps.deployed("1")
    found = shop(apps)
    assert (found.word, found.behind, found.drift) == ("same", 0, ())
    assert found.head == made
    assert found.why == f"as run {apps.walks[0].number} deployed it"


def test_behind(apps: Apps) -> None:
    """A branch with newer commits than the deployed one is told with their number."""
    apps.deployed("1")
    apps.commit("2")
    assert (shop(apps).word, shop(apps).why) == ("behind", "main has 1 newer commit")
    apps.commit("3")
    assert (shop(apps).behind, shop(apps).why) == (2, "main has 2 newer commits")


def test_drifted(apps: Apps) -> None:
    """What runs otherwise than it was deployed is worse than to be behind."""
    apps.deployed("1")
    apps.commit("2")
    apps.known.interfere(text("theirs").replace("${greeting}", "hi"))
    found = shop(apps)
    assert found.word == "drifted"
    assert any("theirs" in line for line in found.drift)
    assert "somebody changed it since run 1" in found.why


def test_drifted_by_a_scale(apps: Apps) -> None:
    """What somebody scaled through Handrail is told by whom."""
    apps.deployed("1")
    apps.run("scale", count="5")
    assert shop(apps).word == "drifted"
    assert shop(apps).why.endswith(f"by {ANA} in run {apps.walks[1].number}")


def test_stopped(apps: Apps) -> None:
    """What was deployed and does not run any more has drifted."""
    apps.deployed("1")
    apps.known.drop("shop")
    assert (shop(apps).word, shop(apps).drift) == ("drifted", ("nothing runs any more",))


def test_never_deployed(apps: Apps) -> None:
    """An app that runs nowhere, or runs by somebody else's doing, was never deployed."""
    assert (shop(apps).word, shop(apps).why) == ("never deployed", "nothing runs")
    apps.known.interfere(text("theirs").replace("${greeting}", "hi"))
    assert (shop(apps).word, shop(apps).why) == (
        "never deployed",
        "it runs, and Handrail did not deploy it",
    )


def test_deployed_but_not_on_the_branch(apps: Apps) -> None:
    """A deployed commit that the branch does not lead to is said so."""
    made = apps.commit("1")
    other = apps.sources.commit(REPOSITORY, {"a": "b"}, branch="fix", after=made.id)
    apps.registry.push(f"ghcr.io/team/shop:{other.id}")
    apps.run(ref="fix")
    apps.commit("2")
    assert shop(apps).word in {"same", "behind"}


def test_platform_away_hides_nobody(apps: Apps) -> None:
    """An app whose platform is away says so; its branch is told all the same, and so are others."""
    made = apps.commit("1")
    apps.known.hear = _raise
    found = shop(apps)
    assert (found.word, found.why, found.head) == ("away", "nobody is in", made)


def _raise(_: str) -> None:
    raise PlatformError("platform.denied", "nobody is in")


def test_repository_away(apps: Apps) -> None:
    """An app whose repository is away is still compared with what runs."""
    apps.deployed("1")
    apps.sources.broken = PlatformError("source.unreachable", "git is away")
    found = shop(apps)
    assert (found.word, found.head, found.head_why) == ("same", None, "git is away")
    assert "git is away" in found.why


def test_wrong_declarations_hide_nobody(apps: Apps) -> None:
    """An app on an undeclared platform, or without an environment, is away; the other is told."""
    apps.deployed("1")
    bare = "  bare: {repository: r@h:x, spec: 's-{environment}', platform: platform/prod}\n"
    apps.declare(ESTATE.replace("services:", f"{bare}services:"))
    estate = apps.fake.declared.estate
    settings = {**estate.resources["app/shop"].settings, "platform": "platform/none"}
    lost = replace(estate.resources["app/shop"], name="lost", settings=settings)
    estate = Estate(estate.environments, {**estate.resources, lost.ref: lost})
    found = {one.ref: one for one in status(apps.outside(), estate)}
    assert {ref: one.word for ref, one in found.items()} == {
        "app/shop": "same",
        "app/lost": "away",
        "app/bare": "away",
    }
    assert "platform/none" in found["app/lost"].why
    assert "no environment" in found["app/bare"].why


def test_asked_at_once_and_once_a_branch(apps: Apps) -> None:
    """Forty apps are asked at the same time, and one branch of one repository once."""
    apps.commit("1")
    more = "".join(
        f"  shop-{n}: {{repository: '{REPOSITORY}', spec: s.yaml, platform: platform/prod}}\n"
        for n in range(39)
    )
    apps.declare(ESTATE.replace("services:", f"{more}services:"))
    together = threading.Barrier(40, timeout=30)

    def hear(name: str) -> None:
        if name == "current":
            together.wait()  # broken, and an error, unless all forty are here

    apps.known.hear = hear
    opened = len(apps.sources.opened)
    found = status(apps.outside(), apps.fake.declared.estate)
    assert len(found) == 40
    assert {one.word for one in found} == {"never deployed"}
    assert len(apps.sources.opened) == opened + 1
