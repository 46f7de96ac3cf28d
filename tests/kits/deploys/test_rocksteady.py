"""Taking over apps from Rocksteady's table: real rows, and hostile ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hcl2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail import kit_wiring
from handrail.errors import DeclarationError, DeclarationErrors, Place, UsageError, render
from handrail.estate.loading import load
from handrail.estate.model import Estate
from handrail.kits.deploys import importing
from handrail.kits.deploys.importing import Import, Target
from handrail.kits.deploys.model import Spec
from handrail.kits.deploys.rocksteady import Wishes, from_rocksteady

TARGET = Target("platform/prod", "production")
ECR = Wishes("123456789012.dkr.ecr.eu-west-1.amazonaws.com")
SECRET = "hunter2-hunter2"
JOBSPECS = Path(__file__).parents[2] / "data" / "jobspecs"
SPEC = """\
job "testapp" {
  datacenters = ["a", "b"]
  group "processes" {
    task "testapp" {
      driver = "docker"
      config {
        image = ""
        command = "bundle"
      }
    }
  }
}
"""
# As Rails writes a row of Rocksteady's table.
ROW: dict[str, Any] = {
    "id": 7,
    "name": "testapp",
    "description": "test description",
    "repository_name": "altmetric/testapp",
    "env_template": None,
    "auto_deploy": False,
    "auto_deploy_branch": "master",
    "job_spec": SPEC,
    "created_at": "2020-05-20T10:40:29.000Z",
    "updated_at": "2020-05-20T10:40:29.000Z",
    "image_source": "ecr",
}


def _read(text: str, name: str) -> Spec:
    """Read a specification's tasks and images, here, without a cluster."""
    try:
        blocks = hcl2.loads(text)
    except Exception as error:
        raise DeclarationError("deploys.spec", "no HCL", at=Place(name, 3)) from error
    images, tasks = {}, []
    ((job, body),) = blocks["job"][0].items()
    for group, inner in _labelled(body.get("group")):
        for task, said in _labelled(inner.get("task")):
            tasks.append(f"{group}/{task}")
            for config in said.get("config", []):
                if "image" in config:
                    images[f"{group}/{task}"] = str(config["image"]).strip('"')
    return Spec(job.strip('"'), {}, images, tuple(tasks))


def _labelled(blocks: Any) -> list[tuple[str, Any]]:
    return [(label.strip('"'), body) for one in blocks or [] for label, body in one.items()]


def _taken(rows: Any, wishes: Wishes = ECR, estate: Estate | None = None) -> Import:
    text = rows if isinstance(rows, str) else json.dumps(rows, indent=1)
    return from_rocksteady(text, "apps.json", TARGET, estate or Estate(), _read, wishes)


def _errors(rows: Any) -> list[str]:
    with pytest.raises(DeclarationErrors) as caught:
        _taken(rows)
    assert SECRET not in render(caught.value)
    return [f"{one.at}: {one.message}" for one in caught.value.errors]


def test_a_row_becomes_an_app() -> None:
    """Specification and image of a row are declared; the image is the newest build of `master`."""
    (app,) = _taken([ROW]).apps
    assert (app.name, app.path, app.text) == ("testapp", "imported/testapp.nomad.hcl", SPEC)
    assert app.settings == {
        "repository": ".",
        "spec": "imported/testapp.nomad.hcl",
        "platform": "platform/prod",
        "environment": "production",
        "images": {
            "testapp": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/altmetric/testapp:latest"
        },
    }
    assert app.notes == ()


def test_an_app_with_a_repository_of_its_own_is_deployed_by_commit() -> None:
    """Where people say which repository, the commit names the image, and its web hook is kept."""
    wishes = Wishes(ECR.registry, "git@git.example:altmetric/{name}.git")
    (app,) = _taken([{**ROW, "auto_deploy": True, "auto_deploy_branch": "main"}], wishes).apps
    image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/altmetric/testapp:{commit}"
    assert app.settings == {
        "repository": "git@git.example:altmetric/testapp.git",
        "spec": "deploy/testapp.nomad.hcl",
        "platform": "platform/prod",
        "environment": "production",
        "branch": "main",
        "images": {"testapp": image},
        "auto": {"branches": ["main"], "secret": {"env": "HANDRAIL_HOOK_TESTAPP"}},
    }
    assert "commit imported/testapp.nomad.hcl as deploy/testapp.nomad.hcl" in app.notes[0]


def test_what_is_written_is_an_estate(tmp_path: Path) -> None:
    """The files that come of it are declarations without a fault."""
    (tmp_path / "estate").mkdir()
    (tmp_path / "estate" / "estate.yaml").write_text(
        "environments: {production: {production: true}}\nplatforms: {prod: {kind: nomad}}\n"
    )
    wishes = Wishes(ECR.registry, "git@git.example:altmetric/{name}.git")
    rows = [{**ROW, "auto_deploy": True}, {**ROW, "name": "other", "image_source": "dockerhub"}]
    importing.write(tmp_path, _taken(rows, wishes), "Rocksteady")
    kinds = {name: keys for kit in kit_wiring.built_in() for name, keys in kit.kinds.items()}
    estate = load(tmp_path, kinds)
    assert {"app/testapp", "app/other"} < set(estate.resources)
    left = _taken(rows, wishes, estate).left
    assert left == (("testapp", "app/testapp is declared"), ("other", "app/other is declared"))


def test_the_job_is_called_as_rocksteady_called_it() -> None:
    """Rocksteady ignored the job's name: it is written into the specification, once."""
    (app,) = _taken([{**ROW, "name": "shop-web"}]).apps
    assert app.text == SPEC.replace('job "testapp"', 'job "shop-web"')
    assert 'task "testapp"' in app.text
    assert app.notes == (
        "shop-web: its specification called the job `testapp`; Rocksteady did not",
    )


def test_a_sidecar_keeps_its_image_and_people_are_told() -> None:
    """Rocksteady overwrote every task's image, which broke sidecars: here it does not."""
    task = """    task "proxy" {
      config {
        image = "envoyproxy/envoy:v1"
      }
    }
"""
    proxy = SPEC.replace('    task "testapp"', f'{task}    task "testapp"')
    (app,) = _taken([{**ROW, "job_spec": proxy}]).apps
    assert list(app.settings["images"]) == ["testapp"]  # type: ignore[call-overload]
    assert app.notes == (
        "testapp: processes/proxy keeps envoyproxy/envoy:v1, as the specification says; Rocksteady"
        " ran 123456789012.dkr.ecr.eu-west-1.amazonaws.com/altmetric/testapp there, too",
    )


def test_where_no_task_names_the_image_all_get_it() -> None:
    """A placeholder in the form was never run: the tasks get what Rocksteady gave them."""
    (app,) = _taken([{**ROW, "job_spec": SPEC.replace('""', '"placeholder:1"')}]).apps
    assert list(app.settings["images"]) == ["testapp"]  # type: ignore[call-overload]
    assert "as in Rocksteady, processes/testapp get it" in app.notes[0]


def test_images_of_docker_hub_are_named_as_they_are() -> None:
    """Without a registry's host, and by their newest tag."""
    row = {**ROW, "image_source": "dockerhub", "repository_name": "library/memcached"}
    (app,) = _taken([row], Wishes()).apps
    assert app.settings["images"] == {"testapp": "library/memcached:latest"}


def test_images_of_ecr_need_a_registry() -> None:
    """The file does not say where ECR is: somebody must."""
    with pytest.raises(UsageError) as caught:
        _taken([ROW], Wishes())
    assert "--registry" in caught.value.hint


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes("http://x"),
        Wishes("../x"),
        Wishes(ECR.registry, "ext::sh -c x"),
        Wishes(ECR.registry, f"https://ana:{SECRET}@git.example/{{name}}"),
    ],
)
def test_unsafe_wishes_are_refused(wishes: Wishes) -> None:
    """A registry is a host, and a repository is one that would be read."""
    with pytest.raises(UsageError) as caught:
        _taken([ROW], wishes)
    assert SECRET not in render(caught.value)


def test_all_apps_are_not_of_one_repository() -> None:
    """`{name}` must stand in the repository where there are several apps."""
    with pytest.raises(UsageError, match="one repository"):
        _taken([ROW, {**ROW, "name": "b"}], Wishes(ECR.registry, "git@git.example:x.git"))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([ROW, {**ROW, "name": "b"}]),
        json.dumps([ROW])[:-1] + ",\n" + json.dumps({**ROW, "name": "b"}) + "\n]\n",
        json.dumps(ROW) + "\n" + json.dumps({**ROW, "name": "b"}),
        "\ufeff" + json.dumps({"apps": [ROW, {**ROW, "name": "b"}]}),
    ],
)
def test_every_way_to_write_the_table_is_read(text: str) -> None:
    """An array, a row a line, or under `apps`."""
    assert [one.name for one in _taken(text).apps] == ["testapp", "b"]


def test_a_specification_that_does_not_parse_leaves_that_app_alone() -> None:
    """The others are taken over, and it is said where it is wrong."""
    rows = [
        {**ROW, "job_spec": 'job "a" {\n]'},
        {**ROW, "name": "b"},
        {**ROW, "name": "c", "job_spec": "x"},
    ]
    found = _taken(rows)
    assert [one.name for one in found.apps] == ["b"]
    assert found.left == (
        ("testapp", "its job_spec (apps.json:2, line 3 of it): no HCL"),
        ("c", "its job_spec (apps.json:28, line 1 of it): it has no `job` block"),
    )


def test_what_is_not_taken_over_is_told() -> None:
    """A template of the environment, and what was deployed by itself, are somebody's work."""
    row = {**ROW, "env_template": f"PASSWORD={SECRET}", "auto_deploy": True}
    (app,) = _taken([row]).apps
    assert app.notes == (
        "testapp: Rocksteady deployed `master` by itself; see `auto:` of apps",
        "testapp: its env_template is not taken over: make it a `template` there",
    )


def test_secrets_are_named_and_not_shown() -> None:
    """A secret in the form is told with its line in the file that is written."""
    spec = SPEC.replace('command = "bundle"', f'DB_PASSWORD = "{SECRET}"')
    (app,) = _taken([{**ROW, "job_spec": spec}]).apps
    told = "imported/testapp.nomad.hcl:8 holds a value of DB_PASSWORD"
    assert app.notes == (f"{told}: take it out before you commit it",)
    assert SECRET not in repr(app)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "../../etc"}, "an app's `name` has lower-case"),
        ({"name": "a/b"}, "an app's `name` has lower-case"),
        ({"name": "a\x1b[2J"}, "an app's `name` has lower-case"),
        ({"name": 7}, "an app's `name` has lower-case"),
        ({"name": "a" * 64}, "an app's `name` has lower-case"),
        ({"job_spec": None}, "`job_spec` is missing"),
        ({"job_spec": " \n"}, "`job_spec` is missing"),
        ({"job_spec": [SPEC]}, "`job_spec` is missing"),
        ({"job_spec": SPEC + "\x1b[31m"}, "`job_spec` has a control character in its line 13"),
        ({"job_spec": "\u202e" + SPEC}, "`job_spec` has a control character in its line 1"),
        ({"job_spec": "x" * 1_100_000}, "`job_spec` is longer than"),
        ({"repository_name": "A b"}, "`repository_name` is missing, or cannot"),
        ({"repository_name": "../x"}, "`repository_name` is missing, or cannot"),
        ({"repository_name": "x:1@evil"}, "`repository_name` is missing, or cannot"),
        ({"repository_name": None}, "`repository_name` is missing, or cannot"),
        ({"image_source": "evil"}, "`image_source` is neither"),
        ({"image_source": ["ecr"]}, "`image_source` is neither"),
        ({"auto_deploy": "yes"}, "`auto_deploy` is neither"),
        ({"auto_deploy": [1]}, "`auto_deploy` is neither"),
        ({"auto_deploy_branch": "a b"}, "`auto_deploy_branch` cannot be"),
        ({"auto_deploy_branch": "-x"}, "`auto_deploy_branch` cannot be"),
        ({"auto_deploy_branch": {"a": 1}}, "`auto_deploy_branch` cannot be"),
        ({"env_template": 7}, "`env_template` is no text"),
    ],
)
def test_what_is_no_row_is_refused_with_its_line(change: dict[str, Any], told: str) -> None:
    """The file and the line where the app begins are told, and nothing is taken over."""
    (error,) = _errors([ROW, {**ROW, "name": "other", **change}])
    assert error.startswith("apps.json:15: ")
    assert told in error


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "apps.json:1: `apps.json` holds no app"),
        ("[]", "apps.json:1: `apps.json` holds no app"),
        ("[\n7]", "apps.json:2: an app is an object"),
        ("[\n{}]", "apps.json:2: an app's `name`"),
        ("[\n{}\n", "apps.json:3: it is not JSON: the list breaks off"),
        ('[\n{"a": \n]', "apps.json:3: it is not JSON: Expecting value"),
        ("[" * 200_000, "apps.json:1: it is not JSON that anybody could mean"),
        ('[{"a":' * 50_000, "apps.json:1: it is not JSON that anybody could mean"),
        ("[1" + "0" * 10_000 + "]", "apps.json:1: it is not JSON that anybody could mean"),
        ("<html>", "apps.json:1: it is not JSON: Expecting value"),
        ('[{} "x"]', "apps.json:1: it is not JSON: the list breaks off"),
        (" " * 17_000_000, "apps.json: `apps.json` is larger than 16 MB"),
    ],
)
def test_what_is_no_table_is_refused(text: str, told: str) -> None:
    """Whatever the file is, its error has a line, and nobody waits for it."""
    assert any(one.startswith(told) for one in _errors(text))


def test_an_app_that_is_there_twice_is_refused() -> None:
    """Which one is meant, nobody knows."""
    assert _errors([ROW, ROW]) == ["apps.json:15: app `testapp` is there twice"]


def test_errors_end() -> None:
    """A thousand wrong apps are not a thousand errors."""
    assert len(_errors([{} for _ in range(1000)])) == 21


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(ROW)), inner),
    )
)
def test_nothing_but_errors_comes_of_anything_else(value: Any) -> None:
    """Whatever JSON it is, apps come of it, or an error with its place."""
    with pytest.raises(DeclarationErrors) as caught:
        _taken([value])  # no name of an app comes of it by chance that has all the rest
    assert all(one.at is not None for one in caught.value.errors)


@pytest.mark.parametrize("path", sorted(JOBSPECS.glob("*.nomad*")), ids=lambda path: path.name)
def test_real_specifications_are_taken_over_unchanged(path: Path) -> None:
    """Nothing of a form's text is lost or changed but the name of its job."""
    text = path.read_text()
    name = _read(text, path.name).job.lower().replace("_", "-")
    (app,) = _taken([{**ROW, "name": name, "job_spec": text}]).apps
    before, after = text.rstrip("\n").split("\n"), app.text.rstrip("\n").split("\n")
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert changed in ([], [f'job "{name}" {{'])
    assert _read(app.text, path.name).tasks == _read(text, path.name).tasks
