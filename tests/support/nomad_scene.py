"""An app on a real Nomad cluster, for the contract of platforms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from handrail.adapters.nomad import NomadPlatform, Where
from handrail.kits.deploys.model import File
from handrail.kits.deploys.ports import Platform
from support.nomad import NomadAgent, raw_job


class NomadScene:
    """A cluster of one agent, and nothing on it."""

    job = "shop"
    look_s = 1.0
    image_tasks = ("web/app", "web/sidecar")

    def __init__(self, agent: NomadAgent) -> None:
        self.platform: Platform = NomadPlatform("platform/prod", Where(agent.url, agent.token))
        self.files: Mapping[str, File] = {}

    def text(
        self, version: str = "1", *, count: int = 2, is_ill: bool = False, canaries: int = 0
    ) -> str:
        command = f"exit {len(version) + 1}" if is_ill else "sleep 600"
        return raw_job(
            self.job,
            f": {version}; {command}",
            count=count,
            canary=canaries,
            max_parallel=2,
            min_healthy_time="1s",
            healthy_deadline="8s",
            progress_deadline="10s",
        )

    def text_with_images(self) -> str:
        task = 'task "%s" {\n driver = "docker"\n config {\n image = "registry.example/%s:1"\n}\n}'
        tasks = "\n".join(task % (name, name) for name in ("app", "sidecar"))
        return f'job "{self.job}" {{\n group "web" {{\n{tasks}\n}}\n}}\n'

    def broken_text(self) -> tuple[str, int]:
        return f'job "{self.job}" {{\n  group "web" {{\n    count = = 2\n  }}\n}}\n', 3


@contextmanager
def nomad_scene(request: pytest.FixtureRequest, folder: Path) -> Iterator[NomadScene]:
    """Give a scene on the cluster of this test process."""
    del folder
    agent: NomadAgent = request.getfixturevalue("nomad_agent")
    agent.remove_all()
    yield NomadScene(agent)
    agent.remove_all()
