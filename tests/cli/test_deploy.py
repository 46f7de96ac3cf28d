"""Deploying by the command line: real commits, keys, journal and engine; a platform in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.app_teams import AppTeam, digest_of, make_app_team
from support.teams import BEN


@pytest.fixture
def team(tmp_path: Path) -> AppTeam:
    """A team whose app runs nowhere yet."""
    return make_app_team(tmp_path)


@pytest.fixture
def running(team: AppTeam) -> AppTeam:
    """A team whose app runs at its first version."""
    assert team.deploy("shop").code == 0
    return team


def test_the_way_of_a_deploy(team: AppTeam) -> None:
    """Confirmed, nothing new, waiting, approved, confirmed: each says what comes next."""
    first = team.call("deploy", "shop")
    assert (first.code, "confirmed: run 1. deploy shop at" in first.out) == (0, True)
    assert "handrail undo 1" in first.out
    assert "ok  watch     healthy" in first.err
    again = team.call("deploy", "shop")
    assert (again.code, len(again.out.splitlines())) == (0, 3)
    assert again.out.startswith("nothing to do: deploy on app/shop")
    team.release("2")
    waiting = team.call("deploy", "shop")
    assert (waiting.code, "risk high" in waiting.out) == (4, True)
    assert "reviewed by ben@pilot.example" in waiting.out
    assert "version: 1 -> 2" in waiting.out
    digest = digest_of(waiting)
    assert team.call("run", digest).code == 4
    assert team.call("approve", digest, "--yes", person=BEN).code == 0
    ran = team.call("run", digest)
    assert (ran.code, "confirmed: run 2" in ran.out) == (0, True)
    assert team.call("log", "verify").code == 0


def test_a_plan_alone(team: AppTeam) -> None:
    """`--plan` says what a deploy would do, and runs nothing."""
    planned = team.call("deploy", "shop", "--plan")
    assert (planned.code, "next: handrail run" in planned.out) == (0, True)
    assert (team.platform.jobs(), team.call("runs", "--json").json["runs"]) == ((), [])


def test_a_bad_version_is_put_back(running: AppTeam) -> None:
    """A version that fails on its platform is undone at once: exit 1, and the old one runs."""
    before = running.platform.current("shop")
    running.release("2")
    running.platform.fates["shop"] = ["failed"]
    ran = running.deploy("shop")
    assert (ran.code, "undone: run 2. its instances fail" in ran.out) == (1, True)
    after = running.platform.current("shop")
    assert before is not None
    assert after is not None
    assert after.spec == before.spec
    assert [one["outcome"] for one in running.call("runs", "--json").json["runs"]] == [
        "undone",
        "confirmed",
    ]


def test_undone_by_its_number(running: AppTeam) -> None:
    """`handrail undo` puts back what ran before a deploy; of the first one, nothing."""
    undone = running.call("undo", "1")
    assert (undone.code, "undone: run 1" in undone.out) == (0, True)
    assert running.platform.current("shop") is None
    assert running.call("undo", "1").code == 3


def test_status_and_history(running: AppTeam) -> None:
    """Saved, running and branch of every app; each run with who asked and who approved."""
    (same,) = running.call("deploy", "status", "--json").json["apps"]
    assert (same["app"], same["word"], same["saved"]["run"]) == ("app/shop", "same", 1)
    assert same["saved"]["commit"] == same["running"]["commit"] == same["branch"]["head"]
    running.release("2")
    behind = running.call("deploy", "status")
    assert (behind.code, "shop: main has 1 newer commit" in behind.out) == (0, True)
    assert running.deploy("shop").code == 0
    told = running.call("deploy", "history", "shop", "--json").json["runs"]
    assert [(one["run"], one["outcome"], one["approved_by"]) for one in told] == [
        (2, "confirmed", [BEN]),
        (1, "confirmed", []),
    ]
    assert BEN in running.call("deploy", "history", "app/shop").out


def test_drift_is_seen(running: AppTeam) -> None:
    """What somebody changed past Handrail is told by status, with the lines that differ."""
    running.platform.interfere("job: shop\ngroups: {web: {count: 9, tasks: {web: {image: a}}}}\n")
    told = running.call("deploy", "status")
    assert "drifted" in told.out
    assert "count: 9 -> 2" in told.out


def test_rolled_back(running: AppTeam) -> None:
    """`deploy rollback` puts back the version before, planned and approved as every deploy."""
    running.release("2")
    assert running.deploy("shop").code == 0
    back = running.deploy("rollback", "shop")
    assert (back.code, "confirmed: run 3" in back.out) == (0, True)
    current = running.platform.current("shop")
    assert current is not None
    assert "'version': '1'" in str(current.spec.body)
    assert running.call("deploy", "rollback", "shop", "--to", "99").code == 2


def test_restarted_and_scaled(running: AppTeam) -> None:
    """`restart` and `scale` are the operations of those names, on the app."""
    restarted = running.deploy_by("restart", "shop")
    assert (restarted.code, "confirmed" in restarted.out) == (0, True)
    scaled = running.deploy_by("scale", "shop", "web=3")
    assert (scaled.code, "confirmed" in scaled.out) == (0, True)
    current = running.platform.current("shop")
    assert current is not None
    assert current.healthy == (3, 3)


def test_several_apps_go_in_waves(tmp_path: Path) -> None:
    """Apps by name, or all but some, are one fan-out: what is left out is not touched."""
    team = make_app_team(tmp_path, more=True)
    assert "on 2 apps together:" in team.call("deploy", "shop", "pay", "--plan").out
    some = team.call("deploy", "shop", "pay")
    assert some.code == 0, some
    assert team.platform.jobs() == ("pay", "shop")
    left = team.call("deploy", "--all", "--except", "search", "--plan", "--json").json
    assert [one["target"] for one in left["fan_out"]["children"]] == ["app/shop", "app/pay"]
    assert team.call("deploy", "status", "search", "--json").json["apps"][0]["running"] is None


def test_adopted(team: AppTeam) -> None:
    """A platform that was never adopted refuses, says the command, and is then known by it."""
    file = team.team.root / "estate" / "apps.yaml"
    lines = ["platforms:", "  prod:", "    kind: nomad", "    environment: production"]
    rest = file.read_text().partition("apps:")[2]
    declared = "\n".join(["environments: {production: {production: true}}", *lines, "apps:"])
    team.team.commit({"estate/apps.yaml": declared + rest})
    refused = team.call("deploy", "shop")
    assert (refused.code, "next: handrail adopt platform/prod" in refused.out) == (3, True)
    adopted = team.call("adopt", "platform/prod", "--json")
    assert adopted.json["platform"] == "platform/prod"
    assert "identity: fake:fake@memory:fake" in file.read_text()
    team.team.commit()
    assert team.call("deploy", "shop").code == 0
    assert team.call("adopt", "platform/prd").code == 2


def test_completed(tmp_path: Path) -> None:
    """What may follow a verb is what is declared for it."""
    team = make_app_team(tmp_path, more=True)
    assert team.call("complete", "deploy", "s").out.split() == ["shop", "search", "status"]
    assert team.call("complete", "restart", "p").out.split() == ["pay"]
    assert team.call("complete", "--", "drain", "x", "--on", "p").out.split() == ["platform/prod"]
    assert team.call("complete", "--", "deploy", "shop", "--ref", "").out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("deploy",), "which app?"),
        (("deploy", "shpo"), "did you mean `shop`?"),
        (("deploy", "shop", "shpo"), "no app `shpo` is declared"),
        (("deploy", "shop", "--all"), "either apps by name, or --all"),
        (("deploy", "shop", "--except", "pay"), "--except leaves apps out of all"),
        (("deploy", "shop", "--image", "web"), "`web` is not TASK=IMAGE"),
        (("deploy", "shop", "--image", "web=a,b=c"), "is not TASK=IMAGE"),
        (("deploy", "shop", "--image", "wbe=ghcr.io/team/shop@sha256:" + "0" * 64), "wbe"),
        (("deploy", "shop", "--to", "3"), "--to is not for `handrail deploy`"),
        (("deploy", "status", "--ref", "x"), "--ref is not for `handrail deploy status`"),
        (("deploy", "status", "shpo"), "did you mean `shop`?"),
        (("deploy", "history"), "which app? one is needed"),
        (("deploy", "rollback"), "which app? one is needed"),
        (("deploy", "rollback", "shop", "pay"), "which app? one is needed"),
        (("deploy", "shop", "--plan", "--break-glass", "fire"), "no glass to break"),
        (("deploy", "shop", "--ref", "no-such-branch"), "no-such-branch"),
        (("deploy", "shop", "--ref", "--upload-pack=x"), "usage"),
        (("deploy", "import"), "--from PLATFORM"),
        (("scale", "shop", "many"), "`many` is no number"),
        (("scale", "shop", "-3"), "usage"),
        (("restart", "shpo"), "did you mean `shop`?"),
        (("drain", "router-9"), "no node or group or platform `router-9`"),
    ],
)
def test_a_wrong_call(team: AppTeam, words: tuple[str, ...], said: str) -> None:
    """A wrong call exits with 2, says what is wrong, and does nothing."""
    answer = team.call(*words)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert team.platform.calls == []


def test_a_teams_own_operation_of_that_name(team: AppTeam) -> None:
    """A team whose own script is called `deploy` keeps it; the verb says how it is run."""
    operation = "operation: deploy\nrun: ./deploy.sh\non: store/pilot-db\nundo: restore\n"
    stores = "stores: {pilot-db: {kind: sqlite, url: data/pilot.db}}\n"
    team.team.write({"operations/deploy.yaml": operation, "deploy.sh": "#!/bin/sh\n"})
    team.team.write({"estate/stores.yaml": stores})
    answer = team.call("deploy", "shop")
    assert (answer.code, "is an operation of your own here" in answer.err) == (2, True)
    assert "handrail run deploy" in answer.err
