"""`handrail deploy import` on the command line: files to look at; apps that deploy unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.app_teams import AppTeam, make_app_team
from support.teams import BEN

SPEC = """\
job: {name}
groups: {{web: {{count: 1, tasks: {{web: {{image: "{image}", env: {{DB_PASSWORD: hunter2}}}}}}}}}}
"""
PINNED = f"ghcr.io/team/pay@sha256:{'0' * 64}"


@pytest.fixture
def team(tmp_path: Path) -> AppTeam:
    """A team whose platform runs `pay`, which nobody declared."""
    made = make_app_team(tmp_path)
    spec = made.platform.parse(SPEC.format(name="pay", image=PINNED), "pay.yaml", {})
    made.platform.apply(spec, "", {})
    return made


def _committed(team: AppTeam) -> None:
    team.team.git("add", "--all")
    team.team.git("commit", "-q", "-m", f"take over what runs\n\nReviewed-by: Ben <{BEN}>")


def test_what_runs_is_declared_and_deploys_unchanged(team: AppTeam) -> None:
    """Imported, committed, deployed: nothing to do, because that is what runs."""
    took = team.call("deploy", "import", "--from", "prod")
    assert took.code == 0, took
    assert took.out.startswith("wrote imported/pay.json\nwrote estate/apps-imported-2.yaml\n")
    assert "holds a value of DB_PASSWORD: take it out before you commit it" in took.out
    assert "hunter2" not in took.out + took.err
    assert "next: look at the files, handrail check, git commit" in took.out
    _committed(team)
    assert team.call("check").code == 0
    planned = team.call("deploy", "pay", "--plan")
    assert planned.out.startswith("nothing to do: deploy on app/pay"), planned


def test_twice_is_once(team: AppTeam) -> None:
    """What was taken over is declared, and is left alone the next time."""
    assert team.call("deploy", "import", "--from", "platform/prod").code == 0
    again = team.call("deploy", "import", "--from", "platform/prod", "--json")
    found = json.loads(again.out)
    assert (found["apps"], found["written"]) == ([], [])
    assert {"name": "pay", "why": "app/pay declares it"} in found["left"]


def test_a_folder_may_be_chosen(team: AppTeam) -> None:
    """--into says where specifications go; out of the repository is refused."""
    refused = team.call("deploy", "import", "--from", "prod", "--into", "../out")
    assert (refused.code, "is no folder of the team's repository" in refused.err) == (2, True)
    assert team.call("deploy", "import", "--from", "prod", "--into", "deploy/apps").code == 0
    assert (team.team.root / "deploy" / "apps" / "pay.json").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "import from where?"),
        (("pay", "--from", "prod"), "import from where?"),
        (("--from", "prdo"), "no platform `prdo` that runs apps is declared"),
        (("--rocksteady", "none.json"), "`none.json` cannot be read"),
        (("--from", "prod", "--registry", "x"), "are for --rocksteady FILE"),
    ],
)
def test_a_wrong_call_is_told(team: AppTeam, words: tuple[str, ...], told: str) -> None:
    """Exit code 2, what is wrong, and nothing is written."""
    answer = team.call("deploy", "import", *words)
    assert (answer.code, told in answer.err) == (2, True), answer
    assert not (team.team.root / "imported").exists()


def test_rocksteady_is_taken_over(team: AppTeam, tmp_path: Path) -> None:
    """Its table becomes apps; what its platform cannot read is left alone, with the reason."""
    row = {"repository_name": "team/old", "image_source": "dockerhub"}
    good = 'job "x" {\n}\ngroups: {}'
    table = tmp_path / "apps.json"
    table.write_text(json.dumps([{**row, "name": "old", "job_spec": good}], indent=1))
    answer = team.call("deploy", "import", "--rocksteady", str(table))
    # The platform of this test reads no HCL: the app is left alone, and that is no error.
    assert (answer.code, "left alone:" in answer.out) == (0, True), answer
    assert "nothing is taken over" in answer.out
    table.write_text(json.dumps([{**row, "name": "../x", "job_spec": good}], indent=1))
    refused = team.call("deploy", "import", "--rocksteady", str(table))
    assert (refused.code, f"{table}:2" in refused.err) == (2, True), refused
