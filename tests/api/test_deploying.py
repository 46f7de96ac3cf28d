"""Deploys through a server, on a real supervisord: by people, and by what a web hook tells."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from handrail.kits.deploys import hook_records
from handrail.kits.deploys.hook_signing import sign
from support.app_teams import digest_of
from support.platforms import SupervisorScene
from support.served import ADMIN, Reply, Served, serving, until
from support.ssh_people import make_key
from support.supervisor import SERVER, free_ports, running_supervisor
from support.teams import ANA, BEN, CHI, Team, signers

SECRET = "s" * 40
# Whoever waits here looks often.
WIDE = ("--rate", "100000")
ESTATE = """\
environments:
  test: {{}}
  production: {{production: true}}
platforms:
  here:
    kind: supervisor
    url: "unix://{socket}"
    folder: {folder}
apps:
  shop:
    repository: ../shop
    spec: app.yaml
    platform: platform/here
    environment: {environment}
    soak: 1s
    auto: {{branches: [main], secret: {{env: SHOP_SECRET}}}}
"""
# In `test` whoever knows the app's secret may deploy it; in production somebody else is asked for.
POLICY = """\
guards: {second-person: high, review: high}
"""


@dataclass
class Shop:
    """A team, its app's repository, and where the app answers."""

    team: Team
    scene: SupervisorScene
    repository: Path

    def release(self, version: str, *, is_ill: bool = False) -> str:
        """Commit a version of the app, reviewed by Ben; return the commit."""
        at = self.repository
        (at / "app.py").write_text(SERVER)
        (at / "app.yaml").write_text(self.scene.text(version, is_ill=is_ill))
        who = ("-c", "user.name=Ana", "-c", f"user.email={ANA}", "-c", "commit.gpgsign=false")
        self._git("add", "--all")
        self._git(*who, "commit", "-q", "-m", f"shop {version}\n\nReviewed-by: Ben <{BEN}>")
        return self._git("rev-parse", "HEAD").strip()

    def answers(self) -> str:
        """Return what the first instance of the app answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.scene.port}/", timeout=10) as told:
            return str(told.read().decode())

    def deploy(self, served: Served) -> None:
        """Deploy as Ana, approved by Ben where that is asked for."""
        ran = served.call("deploy", "shop")
        if ran.code == 4:
            digest = digest_of(ran)
            approved = served.call("approve", digest, "--yes", person=BEN, role="approver")
            assert approved.code == 0, approved
            ran = served.call("run", digest)
        assert ran.code == 0, (ran, served.logged)

    def _git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.repository, check=True, capture_output=True, text=True
        )
        return done.stdout


@contextmanager
def shop_at(at: Path, environment: str) -> Iterator[Shop]:
    with running_supervisor() as started:
        scene = SupervisorScene(started, free_ports())
        root, keys = at / "team", at / "keys"
        root.mkdir()
        keys.mkdir(mode=0o700)
        team = Team(root, keys, {"SHOP_SECRET": SECRET})
        for person in (ANA, BEN, CHI):
            make_key(keys, person)
        team.git("init", "-q", "-b", "main", "--template=")
        socket = str(started.address).removeprefix("unix://")
        estate = ESTATE.format(socket=socket, folder=started.folder, environment=environment)
        files = {"estate/apps.yaml": estate, ".gitignore": ".handrail/\n", "policy.yaml": POLICY}
        team.commit({**files, "allowed_signers": signers(team, ANA, BEN)})
        adopted = team.call("adopt", "platform/here")
        assert adopted.code == 0, adopted
        team.commit()
        repository = at / "shop"
        repository.mkdir()
        found = Shop(team, scene, repository)
        found._git("init", "-q", "-b", "main", "--template=")
        found.release("1")
        yield found


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """An app in production that runs nowhere yet."""
    with shop_at(tmp_path, "production") as found:
        yield found


@pytest.fixture
def free(tmp_path: Path) -> Iterator[Shop]:
    """An app in an environment where nobody is asked for."""
    with shop_at(tmp_path, "test") as found:
        yield found


def tell(served: Served, commit: str, **more: Any) -> Reply:
    """Tell the web hook that main was pushed."""
    content = json.dumps({"ref": "refs/heads/main", "commit": commit, **more}).encode()
    header = {"X-Handrail-Signature": sign(SECRET.encode(), content, int(time.time()))}
    return served.ask("POST", "/hooks/deploy/shop", raw=content, token=None, headers=header)


def outcomes(served: Served) -> list[str]:
    """Return how the runs ended, the newest first."""
    return [one["outcome"] for one in served.ask("GET", "/v1/runs").json["runs"]]


def test_the_whole_way_of_a_deploy(shop: Shop) -> None:
    """Waiting, approved where the approver's key lies, confirmed, seen, rolled back, undone."""
    with serving(shop.team, *WIDE) as served:
        shop.deploy(served)
        assert shop.answers() == "1"
        shop.release("2")
        waiting = served.call("deploy", "shop")
        assert (waiting.code, "risk high" in waiting.out) == (4, True), waiting
        assert waiting.out == shop.team.call("deploy", "shop", "--plan").out
        digest = digest_of(waiting)
        assert served.call("run", digest).code == 4
        assert shop.answers() == "1"
        own = served.call("approve", digest, "--yes", role="approver")
        assert own.code == 3
        approved = served.call("approve", digest, "--yes", person=BEN, role="approver")
        assert approved.code == 0, approved
        ran = served.call("run", digest)
        assert (ran.code, "confirmed: run 2. deploy shop at" in ran.out) == (0, True), ran
        assert shop.answers() == "2"
        for words in (("deploy", "status"), ("deploy", "history", "shop"), ("explain", "2")):
            there, here = served.call(*words), shop.team.call(*words)
            assert (there.code, there.out) == (0, here.out), there
        (stands,) = served.call("deploy", "status", "--json").json["apps"]
        assert (stands["app"], stands["word"]) == ("app/shop", "same")
        back = served.call("deploy", "rollback", "shop")
        if back.code == 4:
            digest = digest_of(back)
            served.call("approve", digest, "--yes", person=BEN, role="approver")
            back = served.call("run", digest)
        assert back.code == 0, back
        assert shop.answers() == "1"
        undone = served.call("undo", "3")
        assert (undone.code, "undone: run 3" in undone.out) == (0, True), undone
        assert shop.answers() == "2"
        history = served.ask("GET", "/v1/apps/shop/history").json
        assert [one["run"] for one in history["runs"]][-2:] == [2, 1]
    assert shop.team.call("log", "verify").code == 0


def test_bad_version_through_a_server(shop: Shop) -> None:
    """A version that is ill is put back by its watch, and the command says so: exit 1."""
    with serving(shop.team, *WIDE) as served:
        shop.deploy(served)
        shop.release("2", is_ill=True)
        digest = digest_of(served.call("deploy", "shop"))
        served.call("approve", digest, "--yes", person=BEN, role="approver")
        ran = served.call("run", digest)
        assert (ran.code, "undone: run 2" in ran.out) == (1, True), ran
        assert shop.answers() == "1"


def test_roles_of_apps(shop: Shop) -> None:
    """Who may deploy is told by the app and its environment; who may look, too."""
    roles = (
        "roles:\n"
        f"  - {{role: operator, people: [{ANA}], environments: [test]}}\n"
        f"  - {{role: viewer, people: [{CHI}], resources: [app/shop]}}\n"
        f"  - {{role: operator, people: [{BEN}], resources: [app/shop]}}\n"
        f"  - {{role: admin, people: [{ADMIN}]}}\n"
    )
    shop.team.commit({"policy.yaml": POLICY + roles})
    with serving(shop.team, *WIDE) as served:
        assert served.call("deploy", "shop", "--plan").code == 3
        looking = served.call("deploy", "shop", "--plan", person=CHI, role="viewer")
        assert looking.code == 3
        planned = served.call("deploy", "shop", "--plan", person=BEN)
        assert planned.code in {0, 4}, planned
        assert served.call("deploy", "status", person=CHI, role="viewer").code == 0
        token = served.token(ANA, "operator")
        assert served.ask("GET", "/v1/apps?names=true", token=token).json == {"apps": []}
        history = served.ask("GET", "/v1/apps/shop/history", token=token)
        assert history.status == 403
        named = served.ask("GET", "/v1/apps?names=true", token=served.token(CHI, "viewer"))
        assert [one["app"] for one in named.json["apps"]] == ["app/shop"]


def test_what_is_no_app(shop: Shop) -> None:
    """An app that is not declared, and a target of another kind, are refused with what there is."""
    with serving(shop.team, *WIDE) as served:
        for on in ("shopp", "app/nobody", "platform/here", "../shop", "http://127.0.0.1/"):
            reply = served.ask("POST", "/v1/runs", {"operation": "deploy", "on": on})
            assert reply.status in {404, 422}, (on, reply.content)
            assert outcomes(served) == []
        assert served.ask("GET", "/v1/apps/nobody/history").status == 404
        wrong = {"operation": "deploy", "on": "shop", "kit": "another"}
        assert served.ask("POST", "/v1/plans", wrong).status == 422
        rehearsed = served.ask("POST", "/v1/rehearsals", {"operation": "deploy", "on": "shop"})
        assert rehearsed.status in {202, 409, 422}


def test_push_is_deployed(free: Shop) -> None:
    """A push to a declared branch is deployed at its commit, where nobody is asked for."""
    with serving(free.team, *WIDE) as served:
        reply = tell(served, free.release("2"))
        assert (reply.status, reply.json["state"]) == (202, "begun"), (reply, served.logged)
        assert reply.json["next"] == f"handrail runs show {reply.json['run']}"
        until(lambda: outcomes(served) == ["confirmed"])
        assert free.answers() == "2"
        (line,) = served.ask("GET", "/v1/runs").json["runs"]
        assert line["person"] == "ci@hooks/shop"
        assert tell(served, "f" * 40).json["state"] in {"refused", "taken"}
        metrics = served.ask("GET", "/metrics").content.decode()
        assert 'handrail_app_runs_total{app="shop",outcome="confirmed"} 1.0' in metrics
        assert 'handrail_hooks_total{state="begun"} 1.0' in metrics


def test_push_waits_and_goes_on_once_it_is_approved(shop: Shop) -> None:
    """In production a push becomes a plan that waits; approved, it is deployed by itself."""
    with serving(shop.team, *WIDE) as served:
        shop.deploy(served)
        commit = shop.release("2")
        reply = tell(served, commit, id="build-7")
        said = reply.json
        assert (reply.status, said["state"], said["verdict"]) == (202, "waiting", "require"), said
        assert said["next"] == f"handrail approve {said['plan'][:4]}-{said['plan'][4:8]}"
        assert shop.answers() == "1"
        approved = served.call("approve", said["plan"], "--yes", person=BEN, role="approver")
        assert approved.code == 0, approved
        until(lambda: outcomes(served) == ["confirmed", "confirmed"])
        assert shop.answers() == "2"
        (ran, _) = served.ask("GET", "/v1/apps/shop/history").json["runs"]
        assert (ran["person"], ran["approved_by"]) == ("ci@hooks/shop", [BEN])
        again = tell(served, commit, id="build-7")
        assert (again.status, again.json) == (200, said)


def test_server_killed_while_a_push_is_deployed(free: Shop) -> None:
    """A push whose server is killed in the middle is deployed once, and its end is noted."""
    commit = free.release("2")
    with serving(free.team, *WIDE) as served:
        reply = tell(served, commit, id="build-1")
        assert reply.json["state"] == "begun", reply.json
        served.process.kill()
        served.process.wait()
    world = free.team.world()
    with serving(free.team, *WIDE) as served:
        until(lambda: outcomes(served) == ["confirmed"])
        assert free.answers() == "2"
        assert tell(served, commit, id="build-1").json["run"] == reply.json["run"]

        def is_over() -> bool:
            found = hook_records.find(world, "shop", reply.json["delivery"])
            return found is not None and found.is_over

        until(is_over)
        assert len(outcomes(served)) == 1


@pytest.mark.parametrize("then", ["undo", "stop"])
def test_deploy_that_is_stopped_from_afar(free: Shop, then: str) -> None:
    """A deploy that is watched can be put back at once, or held for somebody to say."""
    path = free.team.root / "estate" / "apps.yaml"
    with serving(free.team, *WIDE) as served:
        free.deploy(served)
        free.team.commit({"estate/apps.yaml": path.read_text().replace("soak: 1s", "soak: 10m")})
        free.release("2")
        begun = served.ask("POST", "/v1/runs", {"operation": "deploy", "on": "shop"})
        assert begun.status == 202, begun.content

        def is_watched() -> bool:
            marks = served.ask("GET", "/v1/runs/2/marks").content.decode()
            return "watching" in marks

        until(is_watched)
        assert free.answers() == "2"
        told = served.ask("POST", "/v1/runs/2/stop", {"then": then})
        assert told.status == 202, told.content
        wanted = {"undo": "undone", "stop": "held"}[then]
        until(lambda: outcomes(served) == [wanted, "confirmed"])
        if then == "stop":
            undone = served.call("resume", "2", "--undo")
            assert undone.code == 0, undone
        assert free.answers() == "1"
        assert outcomes(served) == ["undone", "confirmed"]


def test_verbs_of_the_kit(free: Shop) -> None:
    """Restarting and scaling go through a server, too; importing is for where the repository is."""
    with serving(free.team, *WIDE) as served:
        free.deploy(served)
        for words in (("restart", "shop"), ("scale", "shop", "1")):
            planned = served.call(*words, "--plan")
            assert planned.out == free.team.call(*words, "--plan").out
            ran = served.call(*words)
            assert (ran.code, "confirmed: run" in ran.out) == (0, True), (words, ran)
        assert outcomes(served) == ["confirmed"] * 3
        told = served.call("deploy", "import", "--from", "platform/here")
        assert (told.code, "remote.local-only" in told.err) == (2, True), told
        wrong = served.call("deploy", "shop", "shopp")
        assert (wrong.code, "did you mean `shop`" in wrong.err) == (2, True), wrong
        nobody = served.call("deploy", "status", "shopp")
        assert (nobody.code, "did you mean `app/shop`" in nobody.err) == (2, True), nobody
        glass = served.call("deploy", "shop", "--break-glass", "it burns")
        assert (glass.code, "remote.local-only" in glass.err) == (2, True), glass
        assert served.call("detach", "router-9").code == 2


def test_verb_that_is_an_operation_of_the_teams_own(free: Shop) -> None:
    """`handrail deploy` through a server never means a script that the team calls `deploy`."""
    script = "operation: deploy\nrun: ./deploy.sh\non: app/shop\nundo: {irreversible: x}\n"
    operation = script.replace("on: app/shop", "on: {store: {environment: test}}")
    free.team.commit({"operations/deploy.yaml": operation, "deploy.sh": "#!/bin/sh\n"})
    with serving(free.team, *WIDE) as served:
        told = served.call("deploy", "shop")
        assert (told.code, "the team's own" in told.err) == (2, True), told
        push = tell(served, free.release("2"))
        assert push.json["state"] == "refused", push.json
        assert outcomes(served) == []
