"""A deploy to supervisord whose process is killed, at one effect after another."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.adapters.supervisor.link import Link
from handrail.adapters.supervisor.platform import SupervisorPlatform
from handrail.adapters.supervisor.starting import Started
from handrail.kits.deploys.model import File, Running, Spec
from support.supervisor import platform_of, running_supervisor

DEPLOYER = """
import json, os, signal, sys
from pathlib import Path
from handrail.adapters.probes import Probes
from handrail.adapters.supervisor.platform import SupervisorPlatform
from handrail.adapters.system import SystemClock
from handrail.kits.deploys.model import File, Spec

address, folder, deed, token, body, note, content, last = json.loads(sys.argv[1])
platform = SupervisorPlatform(address, Path(folder), SystemClock(), Probes())
left = [last]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
NAMED = {"os.rename", "os.mkdir", "os.remove", "os.symlink", "os.link", "os.rmdir", "os.chmod"}

def before(event, arguments):
    if event in NAMED or event == "socket.connect" or (event == "open" and arguments[2] & WRITES):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(before)
if deed == "remove":
    platform.remove("shop", token)
else:
    spec = Spec("shop", body)
    platform.stage(spec, {"word": File(content.encode())})
    deployment = platform.apply(spec, token, note)
    while platform.rollout("shop", deployment, 1).state == "going":
        pass
print(last - left[0])
"""
TEXT = """
app: shop
files: [word]
update: {healthy: 0s}
tasks: {web: {command: [tail, -f, word], instances: 2}}
"""
# Every one of them takes seconds; together they are spread over a whole deploy.
EFFECTS = (1, 2, 4, 7, 10, 12, 14, 17, 20, 24, 29, 35, 42, 50)


@pytest.fixture
def started() -> Iterator[Started]:
    with running_supervisor() as made:
        yield made


def _spec(platform: SupervisorPlatform, word: str) -> Spec:
    files = {"word": File(word.encode())}
    return platform.with_files(platform.parse(TEXT, "a.yaml", {}), files)


def _killed(
    started: Started, deed: str, token: str, spec: Spec, run: str, word: str, at: int
) -> int:
    given = [started.address, str(started.folder), deed, token, spec.body, {"run": run}, word, at]
    argv = [sys.executable, "-c", DEPLOYER, json.dumps(given)]
    return subprocess.run(argv, capture_output=True, check=False, timeout=120).returncode


def _recover(platform: SupervisorPlatform, spec: Spec, token: str, run: str, word: str) -> Running:
    """Do the same again, as whoever goes on with a run does."""
    platform.stage(spec, {"word": File(word.encode())})
    deployment = platform.apply(spec, token, {"run": run})
    seen = None
    for _ in range(60):
        seen = platform.rollout("shop", deployment, 1.0)
        if seen.state != "going":
            break
    running = platform.current("shop")
    assert seen is not None
    assert running is not None
    assert (seen.state, running.healthy) == ("healthy", (2, 2)), seen
    return running


def _reads(started: Started) -> set[str]:
    """Return what the processes of supervisord read, each in its own directory."""
    link, found = Link(started.address), set()
    for info in link.call("getAllProcessInfo"):
        found.add(Path(f"/proc/{info['pid']}/cwd/word").read_text())
    return found


def test_a_killed_deploy_is_told_truly_and_gone_on_with(started: Started) -> None:
    """Wherever it was killed, the platform runs the old or the new version, says which, and the
    same once more makes it the new one, whole, without a second version."""
    platform, version = platform_of(started), 0
    before = _recover(platform, _spec(platform, "0"), "", "0", "0")
    for number, effect in enumerate(EFFECTS, start=1):
        word = run = str(number)
        spec = _spec(platform, word)
        assert _killed(started, "deploy", before.token, spec, run, word, effect) == (
            -signal.SIGKILL
        ), effect
        found = platform.current("shop")
        assert found is not None
        assert found.spec in (before.spec, spec)
        assert (found.spec == spec) == (found.note == {"run": run})
        assert (found.spec == spec) or found.token == before.token
        version = int(found.version) if found.spec == spec else 0
        before = _recover(platform, spec, before.token, run, word)
        assert before.spec == spec
        assert not version or int(before.version) == version
        assert not platform.dry_run(spec).changes
        assert _reads(started) == {word}


def test_a_killed_removal_is_gone_on_with(started: Started) -> None:
    """Wherever it was killed, removing once more leaves nothing that runs."""
    platform = platform_of(started)
    for effect in (1, 2, 3, 4, 6, 8):
        word = f"removed {effect}"
        spec = _spec(platform, word)
        running = _recover(platform, spec, "", word, word)
        assert _killed(started, "remove", running.token, spec, "", "", effect) == -signal.SIGKILL
        platform.remove("shop", running.token)
        assert platform.current("shop") is None
        assert Link(started.address).call("getAllProcessInfo") == []
        assert list((started.folder / "conf.d").glob("*.conf")) == []


def test_an_effect_too_far_kills_nothing(started: Started) -> None:
    """The deployer of these tests does a whole deploy where it is left alone."""
    platform = platform_of(started)
    spec = _spec(platform, "1")
    assert _killed(started, "deploy", "", spec, "1", "1", 10**6) == 0
    assert _reads(started) == {"1"}
