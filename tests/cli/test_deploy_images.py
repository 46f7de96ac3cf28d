"""Deploying images of a real registry: by digest, for the named task, with hidden credentials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.app_teams import AppTeam, digest_of, make_app_team
from support.image_registry import PASSWORD, USER, ImageRegistry, running_registry
from support.teams import ANA, BEN, Answer

ESTATE = """\
environments:
  production: {{production: true}}
platforms:
  prod: {{kind: nomad, url: "http://127.0.0.1:1", environment: production,
         identity: "fake:fake@memory:fake"}}
apps:
  shop:
    repository: ../shop
    spec: deploy/images.yaml
    platform: platform/prod
    environment: production
    images: {{app: "{host}/team/shop:{{branch}}-latest"}}
    registry-token: {{env: REGISTRY_LOGIN}}
    registry-realm: "{realm}"
    soak: 0s
"""
SPEC = """\
job: shop
groups:
  web:
    count: 2
    tasks:
      app: {{image: "{host}/team/shop:whatever"}}
      sidecar: {{image: "{host}/open/proxy:1"}}
      other: {{image: "127.0.0.1:1/x/y:1"}}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[ImageRegistry]:
    """A registry that gives out tokens, with a version of the app and of a sidecar."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with running_registry(folder, "token") as running:
        running.push("team/shop", "main-latest", content="1")
        running.push("team/shop", "hotfix", content="hotfix")
        running.push("open/proxy", "1", content="proxy")
        yield running


@pytest.fixture
def team(registry: ImageRegistry, tmp_path: Path) -> AppTeam:
    """A team whose app declares an image there, and opens it by a variable."""
    made = make_app_team(tmp_path)
    made.team.environment["REGISTRY_LOGIN"] = f"{USER}:{PASSWORD}"
    deploy = tmp_path / "shop" / "deploy"
    (deploy / "images.yaml").write_text(SPEC.format(host=registry.host))
    made.release("1")
    declared = ESTATE.format(host=registry.host, realm=registry.realms[0])
    made.team.commit({"estate/apps.yaml": declared})
    return made


def _images(team: AppTeam) -> dict[str, str]:
    found = team.platform.current("shop")
    assert found is not None
    return dict(found.spec.images)


def _approved(team: AppTeam, planned: Answer) -> str:
    digest = digest_of(planned)
    assert team.call("approve", digest, "--yes", person=BEN).code == 0
    return digest


def test_a_deploy_runs_what_was_planned_by_digest(team: AppTeam, registry: ImageRegistry) -> None:
    """Declared tag and sidecar become digests; what is not to be had stays, with a warning."""
    planned = team.call("deploy", "shop", "--plan", "--json")
    assert "web/other keeps 127.0.0.1:1/x/y:1: registry 127.0.0.1:1 is not asked" in planned.out
    assert PASSWORD not in planned.out + planned.err
    assert team.deploy("shop").code == 0
    found = _images(team)
    shop = registry.push("team/shop", "main-latest", content="1")
    proxy = registry.push("open/proxy", "1", content="proxy")
    assert found == {
        "web/app": f"{registry.host}/team/shop@{shop.digest}",
        "web/sidecar": f"{registry.host}/open/proxy@{proxy.digest}",
        "web/other": "127.0.0.1:1/x/y:1",
    }


def test_an_image_is_set_for_the_named_task_alone(team: AppTeam, registry: ImageRegistry) -> None:
    """`--image app=:hotfix` changes that task, and neither sidecar nor the other one."""
    assert team.deploy("shop").code == 0
    before = _images(team)
    assert team.deploy("shop", "--image", "app=:hotfix").code == 0
    hotfix = registry.push("team/shop", "hotfix", content="hotfix")
    assert _images(team) == {**before, "web/app": f"{registry.host}/team/shop@{hotfix.digest}"}


def test_a_tag_that_moved_after_the_plan_is_not_run(team: AppTeam, registry: ImageRegistry) -> None:
    """What was approved is not there any more by that tag: refused, and planned anew."""
    assert team.deploy("shop").code == 0
    before = _images(team)
    registry.push("team/shop", "main-latest", content="2")
    planned = team.call("deploy", "shop")
    assert planned.code == 4, planned
    digest = _approved(team, planned)
    registry.push("team/shop", "main-latest", content="3")
    ran = team.call("run", digest)
    assert (ran.code, "plan.stale" in ran.err) == (3, True), ran
    assert _images(team) == before


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("app=:hotfxi", "did you mean `hotfix`?"),
        ("ap=:hotfix", "did you mean `app`?"),
        ("app=127.0.0.1:1/x:1", "must be declared under `images`"),
        ("app=http://x/y", "is not an image's name"),
    ],
)
def test_an_image_that_cannot_be_is_told(team: AppTeam, image: str, told: str) -> None:
    """Unknown tag or task, a registry that is not declared, no name: told, and nothing runs."""
    answer = team.call("deploy", "shop", "--image", image)
    assert (answer.code in {1, 2}, told in answer.err) == (True, True), answer
    assert team.platform.current("shop") is None


def test_a_password_that_is_wrong_is_told_and_not_shown(team: AppTeam) -> None:
    """The registry lets nobody in, and the error holds no password."""
    team.team.environment["REGISTRY_LOGIN"] = f"{USER}:wrong-{PASSWORD}"
    answer = team.call("deploy", "shop", person=ANA)
    assert (answer.code, "lets nobody in" in answer.err) == (1, True), answer
    assert PASSWORD not in answer.out + answer.err


def test_images_by_branch_and_age(team: AppTeam, registry: ImageRegistry) -> None:
    """What a task could be given: tags of a branch, the newest first, and how to deploy one."""
    registry.push("team/shop", "feature-x-2", content="later")
    listed = team.call("deploy", "images", "shop", "--json").json["images"]["app"]
    assert {one["tag"] for one in listed} == {"main-latest", "hotfix", "feature-x-2"}
    told = team.call("deploy", "images", "shop", "--ref", "feature/x")
    assert told.code == 0, told
    assert "feature-x-2" in told.out
    assert "hotfix" not in told.out
    assert "next: handrail deploy shop --image app=:feature-x-2 --plan" in told.out
    assert PASSWORD not in told.out
    assert "there is no such image" in team.call("deploy", "images", "shop", "--ref", "nope").out
