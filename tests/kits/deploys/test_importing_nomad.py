"""Taking over what runs on a real cluster: every specification that people really run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from handrail.adapters.nomad import NomadPlatform, Where
from handrail.errors import DeclarationError
from handrail.estate.model import Estate
from handrail.kits.deploys import importing, rocksteady
from handrail.kits.deploys.importing import Target
from support.nomad import NomadAgent

JOBSPECS = Path(__file__).parents[2] / "data" / "jobspecs"
MOST_OF_THEM = 14
TARGET = Target("platform/prod", "production")
# What the specifications declare without a default.
VALUES = {
    "token": "a-token",
    "secret_key": "a-key",
    "hyperkitty_api_key": "another-key",
    "mailman_user": "mailman",
    "mailman_pass": "a-word",
    "root_username": "root",
    "root_password": "another-word",
    "minio_storage_size": "12",
}


@pytest.fixture
def platform(nomad_agent: NomadAgent) -> Iterator[NomadPlatform]:
    """The cluster of this test process, with nothing on it before, or after."""
    nomad_agent.remove_all()
    with closing(NomadPlatform("platform/prod", Where(nomad_agent.url))) as made:
        yield made
    nomad_agent.remove_all()


def test_what_runs_on_a_cluster_is_taken_over_whole(
    platform: NomadPlatform, tmp_path: Path
) -> None:
    """Each job that runs becomes a file; read back, nothing would change."""
    jobs = set()
    for path in sorted(JOBSPECS.glob("*.nomad*")):
        try:
            spec = platform.parse(path.read_text(), path.name, VALUES)
            before = platform.current(spec.job)  # several are of one name
            platform.apply(spec, before.token if before else "", {})
        except DeclarationError:
            continue  # what this version of Nomad would not run, it does not run
        jobs.add(spec.job)
    assert len(jobs) >= MOST_OF_THEM
    found = importing.from_platform(platform, TARGET, Estate())
    assert found.left == ()
    assert {one.settings.get("job", one.name) for one in found.apps} == jobs
    importing.write(tmp_path, found, "platform/prod")
    for one in found.apps:
        spec = platform.parse((tmp_path / one.path).read_text(), one.path, {})
        running = platform.current(spec.job)
        assert running is not None
        assert running.spec == spec
        assert platform.dry_run(spec).diff == ()


def test_a_form_of_rocksteady_deploys_as_it_did(platform: NomadPlatform) -> None:
    """The form's text, read by the cluster, is the job that Rocksteady ran, under its name."""
    text = (JOBSPECS / "rocksteady.nomad.hcl").read_text()
    row = {"name": "deployer", "repository_name": "powerrhino/rocksteady", "job_spec": text}
    table = json.dumps([{**row, "image_source": "dockerhub"}])
    found = rocksteady.from_rocksteady(
        table, "apps.json", TARGET, Estate(), lambda spec, name: platform.parse(spec, name, {})
    )
    (app,) = found.apps
    assert app.settings["images"] == {"server": "powerrhino/rocksteady:latest"}
    spec = platform.parse(app.text, app.path, {})
    assert (spec.job, spec.tasks) == ("deployer", ("servers/server",))
    assert platform.dry_run(spec).changes
