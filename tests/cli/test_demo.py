"""`handrail demo deploy`, whole: a real supervisord, real repositories, keys and processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("supervisor")
DEADLINE_S = 300


def environment(tmp: Path) -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("HANDRAIL_", "GIT_"))}
    return {**kept, "TMPDIR": str(tmp), "PYTHONUNBUFFERED": "1"}


def below(folder: Path) -> list[int]:
    """Return the processes that were started with something in `folder`."""
    found = []
    for at in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = at.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words:
            found.append(int(at.parent.name))
    return found


def until(happens: Callable[[], bool]) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: it is not, in a long time.
    """
    deadline = time.monotonic() + DEADLINE_S
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path: a socket lies in it."""
    return tmp_path_factory.mktemp("d")


def test_the_deploy_story(short: Path) -> None:
    """A bad version is put back by the watch, a good one confirmed and rolled back; nothing stays.

    What the shop answers is asked over HTTP after each.
    """
    told = subprocess.run(
        [sys.executable, "-m", "handrail", "demo", "deploy"],
        env=environment(short),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    seen = [line[:13] for line in told.stdout.splitlines() if line.startswith('{"version"')]
    assert seen == [f'{{"version": {number}' for number in (1, 1, 3, 1)]
    assert "undone: run 2. ill: service/till" in told.stdout
    assert "confirmed: run 4. roll shop back" in told.stdout
    assert "every chain whole" in told.stdout
    assert list(short.iterdir()) == []
    assert below(short) == []


def test_ctrl_c_ends_all_that_it_started(short: Path) -> None:
    """Ctrl-C in mid-story ends supervisord and the shop, and removes the folder: exit 130."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "handrail", "demo", "deploy"],
        env=environment(short),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until(lambda: any(short.glob("*/run/supervisor.sock")))
        os.killpg(demo.pid, signal.SIGINT)
        _, said = demo.communicate(timeout=DEADLINE_S)
    finally:
        demo.kill()
    assert demo.returncode == 130, said
    assert list(short.iterdir()) == []
    assert below(short) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """`--keep` makes its folder, and takes none that somebody has."""
    (tmp_path / "mine").mkdir()
    told = subprocess.run(
        [sys.executable, "-m", "handrail", "demo", "deploy", "--keep", str(tmp_path / "mine")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.returncode, "is there already" in told.stderr) == (2, True)
    assert list((tmp_path / "mine").iterdir()) == []
