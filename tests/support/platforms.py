"""The platforms that keep one contract, each with an app that can be told to be good or bad.

To add one: a class with what `Scene` has, and a line in `SCENES`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from handrail.adapters.supervisor.starting import Started
from handrail.kits.deploys.model import File, Rollout, Spec
from handrail.kits.deploys.ports import Platform
from handrail.testing.platform import FakePlatform
from support.nomad_scene import nomad_scene
from support.supervisor import FILES, free_ports, platform_of, running_supervisor

_LOOKS = 120


class Scene(Protocol):
    """One platform with an app of two instances in its group `web`.

    Attributes:
        platform: the one that is tried.
        job: what its app is called there.
        files: what `text` needs of the app's repository.
        look_s: how long one look waits; many looks are had before a test gives up.
        image_tasks: the tasks of `text_with_images`, as `group/task`.
    """

    platform: Platform
    job: str
    files: Mapping[str, File]
    look_s: float
    image_tasks: tuple[str, str]

    def text(
        self, version: str = "1", *, count: int = 2, is_ill: bool = False, canaries: int = 0
    ) -> str:
        """Return a specification; `version` is seen in it, and an ill one never gets healthy."""

    def text_with_images(self) -> str:
        """Return one, never to be run, with two tasks that have images.

        They are `registry.example/app:1` and `registry.example/sidecar:1`.
        """

    def broken_text(self) -> tuple[str, int]:
        """Return a text that does not parse, and the line that is wrong."""


def spec(scene: Scene, text: str) -> Spec:
    """Return a specification as the deploy act makes it, with its files brought there."""
    parsed = scene.platform.parse(text, "deploy/app.spec", {})
    files = {path: scene.files[path] for path in parsed.files}
    made = scene.platform.with_files(parsed, files)
    scene.platform.stage(made, files)
    return made


def token(scene: Scene) -> str:
    """Return what a compare-and-set compares now."""
    found = scene.platform.current(scene.job)
    return found.token if found else ""


def settled(scene: Scene, deployment: str, *until: str) -> Rollout:
    """Look until a deployment is in one of these states, or over; fail when it never is."""
    seen = None
    for _ in range(_LOOKS):
        seen = scene.platform.rollout(scene.job, deployment, scene.look_s)
        if seen.state in {*until, "healthy", "failed", "reverted"}:
            return seen
    raise AssertionError(f"still {seen}")


def deployed(scene: Scene, text: str, note: Mapping[str, str]) -> str:
    """Deploy and follow until it is healthy; return the deployment."""
    deployment = scene.platform.apply(spec(scene, text), token(scene), note)
    seen = settled(scene, deployment)
    assert seen.state == "healthy", seen
    return deployment


class FakeScene:
    """The platform in memory."""

    job = "shop"
    look_s = 0.0
    image_tasks = ("web/app", "web/sidecar")

    def __init__(self) -> None:
        self.platform: Platform = FakePlatform(looks=2)
        self.files: Mapping[str, File] = {"app.py": File(b"print(1)")}

    def text(
        self, version: str = "1", *, count: int = 2, is_ill: bool = False, canaries: int = 0
    ) -> str:
        fate = "fate: failed" if is_ill else ""
        return f"""
job: shop
{fate}
files: [app.py]
groups:
  web:
    count: {count}
    canaries: {canaries}
    tasks:
      app: {{command: [run, "{version}"]}}
"""

    def text_with_images(self) -> str:
        return """
job: shop
groups:
  web:
    tasks:
      app: {image: "registry.example/app:1"}
      sidecar: {image: "registry.example/sidecar:1"}
"""

    def broken_text(self) -> tuple[str, int]:
        return "job: shop\ngroups: {web: {}\n  x: ]\n", 3


class SupervisorScene:
    """A real supervisord, with a web server of two instances."""

    look_s = 1.0
    image_tasks = ("app/app", "sidecar/sidecar")

    def __init__(self, started: Started, port: int) -> None:
        self.job = "shop"
        self.platform: Platform = platform_of(started)
        self.started = started
        self.files = FILES
        self.port = port

    def text(
        self, version: str = "1", *, count: int = 2, is_ill: bool = False, canaries: int = 0
    ) -> str:
        ill = '{ILL: "1"}' if is_ill else "{}"
        return f"""
app: shop
files: [app.py]
update: {{healthy: 0s, deadline: {4 if is_ill else 60}s, canaries: {canaries}}}
tasks:
  web:
    command: [{sys.executable}, app.py, "{version}"]
    instances: {count}
    port: {self.port}
    environment: {ill}
    check: "http://127.0.0.1:{{port}}/"
"""

    def text_with_images(self) -> str:
        return """
app: shop
tasks:
  app: {command: [podman, run, "{image}"], image: "registry.example/app:1"}
  sidecar: {command: [podman, run, "{image}"], image: "registry.example/sidecar:1"}
"""

    def broken_text(self) -> tuple[str, int]:
        return "app: shop\ntasks:\n  web: {command: [run], instances: many}\n", 3


@contextmanager
def _supervisor(request: pytest.FixtureRequest, folder: Path) -> Iterator[Scene]:
    del request, folder
    with running_supervisor() as started:
        yield SupervisorScene(started, free_ports())


@contextmanager
def _fake(request: pytest.FixtureRequest, folder: Path) -> Iterator[Scene]:
    del request, folder
    yield FakeScene()


Opener = Callable[[pytest.FixtureRequest, Path], AbstractContextManager[Scene]]
SCENES: dict[str, Opener] = {"fake": _fake, "nomad": nomad_scene, "supervisor": _supervisor}
