"""A team with an app in a repository of its own, on the real command line; its platform is a fake.

Rules:
- Commits, signatures, journal and engine are real; so is the clock, which runs few seconds.
- The platform is in memory, and the same for every call in this process.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from handrail import kit_wiring
from handrail.testing.platform import FakePlatform
from support.ssh_people import make_key
from support.teams import ANA, BEN, CHI, Answer, Team, signers

ESTATE = """\
environments:
  production: {production: true}
platforms:
  prod: {kind: nomad, url: "http://127.0.0.1:1", environment: production,
         identity: "fake:fake@memory:fake"}
apps:
  shop:
    repository: ../shop
    spec: deploy/shop.yaml
    platform: platform/prod
    environment: production
    soak: 0s
"""
MORE = """\
  pay: {repository: ../pay, spec: deploy/shop.yaml, platform: platform/prod, soak: 0s}
  search: {repository: ../search, spec: deploy/shop.yaml, platform: platform/prod, soak: 0s}
"""
SPEC = """\
job: {name}
groups:
  web:
    count: 2
    tasks:
      web: {{image: "ghcr.io/team/{name}@sha256:{digest}", version: "{version}"}}
"""


@dataclass
class AppTeam:
    """The team, its app's repository, and the platform."""

    team: Team
    platform: FakePlatform

    def call(self, *words: str, person: str = ANA) -> Answer:
        """Call the command line as a person would."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kit_wiring, "_platform", lambda *_: self.platform)
            return self.team.call(*words, person=person)

    def release(self, version: str, name: str = "shop") -> None:
        """Commit a version of the app, reviewed by Ben."""
        at = self.team.root.parent / name
        if not at.exists():
            at.mkdir()
            self._git(at, "init", "-q", "-b", "main", "--template=")
        (at / "deploy").mkdir(exist_ok=True)
        text = SPEC.format(name=name, version=version, digest="0" * 64)
        (at / "deploy" / "shop.yaml").write_text(text)
        who = ("-c", "user.name=Ana", "-c", f"user.email={ANA}", "-c", "commit.gpgsign=false")
        self._git(at, "add", "--all")
        message = f"{name} {version}\n\nReviewed-by: Ben <{BEN}>"
        self._git(at, *who, "commit", "-q", "-m", message)

    def deploy(self, *words: str) -> Answer:
        """Deploy as Ana, approved by Ben where that is asked for."""
        return self.deploy_by("deploy", *words)

    def deploy_by(self, *words: str) -> Answer:
        """Plan as Ana, approve as Ben where that is asked for, and run."""
        planned = self.call(*words)
        if planned.code != 4:
            return planned
        digest = digest_of(planned)
        approved = self.call("approve", digest, "--yes", person=BEN)
        assert approved.code == 0, approved
        return self.call("run", digest)

    @staticmethod
    def _git(at: Path, *words: str) -> None:
        subprocess.run(["git", *words], cwd=at, check=True, capture_output=True)


def digest_of(answer: Answer) -> str:
    """Return the digest that an answer tells to approve."""
    return answer.out.partition("handrail approve ")[2].split()[0]


def make_app_team(at: Path, *, more: bool = False) -> AppTeam:
    """Return a team in a new directory below `at`, whose app has one commit and runs nowhere."""
    root, keys = at / "team", at / "keys"
    root.mkdir(parents=True)
    keys.mkdir(mode=0o700)
    team = Team(root, keys)
    for person in (ANA, BEN, CHI):
        make_key(keys, person)
    team.git("init", "-q", "-b", "main", "--template=")
    estate = ESTATE + (MORE if more else "")
    files = {"estate/apps.yaml": estate, ".gitignore": ".handrail/\n"}
    team.commit({**files, "allowed_signers": signers(team, ANA, BEN)})
    found = AppTeam(team, FakePlatform())
    for name in ("shop", "pay", "search") if more else ("shop",):
        found.release("1", name)
    return found
