"""Taking over what runs on a platform: what is written is what runs, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from handrail import kit_wiring
from handrail.errors import PlatformError, UsageError, render
from handrail.estate.loading import load
from handrail.estate.model import Estate, Resource
from handrail.estate.shapes import NAME
from handrail.kits.deploys import importing
from handrail.kits.deploys.importing import Target
from handrail.kits.deploys.model import DryRun
from handrail.testing.platform import FakePlatform

TARGET = Target("platform/prod", "production")
ESTATE = """\
environments: {production: {production: true}}
platforms: {prod: {kind: nomad, environment: production}}
"""
SPEC = """\
job: {job}
groups: {{web: {{count: 2, tasks: {{app: {{image: "ghcr.io/team/shop:1", env: {env}}}}}}}}}
"""
SECRET = "hunter2-hunter2"


def _runs(platform: FakePlatform, job: str, env: str = "{A: b}") -> None:
    spec = platform.parse(SPEC.format(job=job, env=env), "x.yaml", {})
    platform.apply(spec, "", {})


def _estate(root: Path) -> Estate:
    (root / "estate").mkdir(exist_ok=True)
    (root / "estate" / "estate.yaml").write_text(ESTATE)
    kinds = {name: keys for kit in kit_wiring.built_in() for name, keys in kit.kinds.items()}
    return load(root, kinds)


def _app(estate: Estate, name: str) -> Resource:
    return estate.resources[f"app/{name}"]


def test_what_is_written_is_what_runs(tmp_path: Path) -> None:
    """An app that was taken over is declared, and deploying it as it lies there changes nothing."""
    platform = FakePlatform()
    _runs(platform, "shop")
    found = importing.from_platform(platform, TARGET, _estate(tmp_path))
    written = importing.write(tmp_path, found, "platform/prod")
    assert written == ("imported/shop.json", "estate/apps.yaml")
    app = _app(_estate(tmp_path), "shop")
    assert (app.settings["repository"], app.environment) == (".", "production")
    text = (tmp_path / str(app.settings["spec"])).read_text()
    dry: DryRun = platform.dry_run(platform.parse(text, "shop.json", {}))
    assert (dry.diff, dry.changes) == ((), False)


def test_what_is_declared_is_left_alone(tmp_path: Path) -> None:
    """Twice is once: what the first import declared, the second one leaves."""
    platform = FakePlatform()
    _runs(platform, "shop")
    importing.write(tmp_path, importing.from_platform(platform, TARGET, _estate(tmp_path)), "x")
    _runs(platform, "pay")
    found = importing.from_platform(platform, TARGET, _estate(tmp_path))
    assert [one.name for one in found.apps] == ["pay"]
    assert found.left == (("shop", "app/shop declares it"),)
    assert importing.write(tmp_path, found, "x")[-1] == "estate/apps-imported-2.yaml"
    assert {"app/shop", "app/pay"} < set(_estate(tmp_path).resources)


def test_an_app_that_declares_another_name_of_its_job_is_left_alone(tmp_path: Path) -> None:
    """What counts is the job that an app declares, not how the app is called."""
    platform = FakePlatform()
    _runs(platform, "team/shop")
    importing.write(tmp_path, importing.from_platform(platform, TARGET, _estate(tmp_path)), "x")
    app = _app(_estate(tmp_path), "team-shop")
    assert app.settings["job"] == "team/shop"
    assert importing.from_platform(platform, TARGET, _estate(tmp_path)).apps == ()


def test_jobs_that_would_have_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    """Two jobs whose names come to the same: the second is left alone, and that is said."""
    platform = FakePlatform()
    for job in ("team/shop", "team shop", "///"):
        _runs(platform, f'"{job}"')
    found = importing.from_platform(platform, TARGET, _estate(tmp_path))
    assert [one.name for one in found.apps] == ["team-shop"]
    assert [why for _, why in found.left] == [
        "no app can have its name",
        "there is an app `team-shop` already",
    ]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A file that is there stays, and then none is written."""
    platform = FakePlatform()
    for job in ("pay", "shop"):
        _runs(platform, job)
    found = importing.from_platform(platform, TARGET, _estate(tmp_path))
    (tmp_path / "imported").mkdir()
    (tmp_path / "imported" / "shop.json").write_text("mine")
    with pytest.raises(UsageError) as caught:
        importing.write(tmp_path, found, "x")
    assert caught.value.code == "deploys.import"
    assert (tmp_path / "imported" / "shop.json").read_text() == "mine"
    assert not (tmp_path / "imported" / "pay.json").exists()
    assert not (tmp_path / "estate" / "apps.yaml").exists()


def test_nothing_is_written_out_of_the_repository(tmp_path: Path) -> None:
    """A link out of it is not followed, be it the folder, or where the file would be."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    platform = FakePlatform()
    _runs(platform, "shop")
    found = importing.from_platform(platform, TARGET, _estate(root))
    (root / "imported").symlink_to(outside)
    with pytest.raises(UsageError):
        importing.write(root, found, "x")
    (root / "imported").unlink()
    (root / "imported").mkdir()
    (root / "imported" / "shop.json").symlink_to(outside / "new")
    with pytest.raises(UsageError):
        importing.write(root, found, "x")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("into", ["/etc", "../x", "a/../../b", "", "a\nb"])
def test_a_folder_out_of_the_repository_is_refused(into: str) -> None:
    """--into names a folder of the team's repository."""
    with pytest.raises(UsageError):
        importing.check_into(into)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """Where one file cannot be written, those before it are gone again."""
    platform = FakePlatform()
    for job in ("pay", "shop"):
        _runs(platform, job)
    found = importing.from_platform(platform, TARGET, _estate(tmp_path))
    (tmp_path / "estate" / "estate.yaml").unlink()
    (tmp_path / "estate").rmdir()
    (tmp_path / "estate").write_text("a file, where a folder should be")
    with pytest.raises(UsageError) as caught:
        importing.write(tmp_path, found, "x")
    assert caught.value.code == "deploys.import"
    assert list((tmp_path / "imported").iterdir()) == []


def test_secrets_are_named_and_not_shown(tmp_path: Path) -> None:
    """Whoever commits what was imported is told where a secret stands; references are none."""
    platform = FakePlatform()
    env = (
        f'{{DB_PASSWORD: "{SECRET}", URL: "postgres://ana:{SECRET}@db/x", AWS: AKIA{"A" * 16},'
        ' API_TOKEN: "${vault.token}", OTHER_TOKEN: "{{ key }}", NAME: plain}'
    )
    _runs(platform, "shop", env.replace("${vault.token}", "$${vault.token}"))
    found = importing.from_platform(platform, TARGET, _estate(tmp_path))
    (app,) = found.apps
    assert SECRET in app.text
    lines = app.text.split("\n")
    for wanted, what in (("DB_PASSWORD", "a value of DB_PASSWORD"), ("AKIA", "a key of Amazon")):
        number = next(i for i, line in enumerate(lines, 1) if wanted in line)
        assert f"imported/shop.json:{number} holds {what}: take it out before you commit it" in (
            app.notes
        )
    assert SECRET not in "".join(app.notes)
    assert SECRET not in repr(found)
    assert not any("TOKEN" in note for note in app.notes)


def test_what_a_platform_cannot_read_back_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A specification that would deploy something else than what runs is not written."""
    platform = FakePlatform()
    _runs(platform, "shop")
    other = platform.parse(SPEC.format(job="shop", env="{A: c}"), "x", {})
    monkeypatch.setattr(platform, "parse", lambda *_: other)
    found = importing.from_platform(platform, TARGET, _estate(tmp_path))
    assert (found.apps, found.left) == (
        (),
        (("shop", "its platform reads something else in what it says itself"),),
    )
    assert importing.write(tmp_path, found, "x") == ()


def test_a_platform_that_is_away_is_told(tmp_path: Path) -> None:
    """Nothing is taken over half."""
    platform = FakePlatform()
    _runs(platform, "shop")
    platform.away = 10
    with pytest.raises(PlatformError) as caught:
        importing.from_platform(platform, TARGET, _estate(tmp_path))
    assert render(caught.value)


@given(st.text(max_size=80))
def test_an_app_gets_a_name_that_can_be_declared(job: str) -> None:
    """However a job is called, its app's name is one, or there is none."""
    name = importing.app_name(job)
    assert name == "" or NAME.fullmatch(name)


@given(st.text(max_size=400))
def test_no_text_breaks_the_search_for_secrets(text: str) -> None:
    """Whatever stands in a specification, the search ends, with lines that are there."""
    for told in importing.secrets_in(text, "x"):
        assert 1 <= int(told.split(":")[1].split()[0]) <= text.count("\n") + 1


def test_a_declaration_says_each_app_once() -> None:
    """The file of the estate is YAML without aliases, whatever stands in it."""
    one = importing.Imported("a", {"repository": ".", "images": {"x": "y:{commit}"}}, "p", "t")
    two = importing.Imported("b", one.settings, "p", "t")
    text = importing.declaration(importing.Import((one, two)), "x")
    assert yaml.safe_load(text)["apps"]["b"] == one.settings
