"""Confinement as an ordinary user, in a user namespace, proven also where the tests run as root."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import handrail
from support.scripts import PATH, skip

pytestmark = pytest.mark.root

NOBODY = 65534
NETWORK_ONLY = """
import dataclasses, json, os, socket, sys
from pathlib import Path
from handrail.adapters.processes import LocalProcesses
from handrail.ports import Command, Confine
folder, port = Path(sys.argv[1]), int(sys.argv[2])
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(folder / "own" / "socket"))
listener.listen()
command = Command(
    (str(folder / "narrow.sh"), str(port)), folder, {"PATH": os.environ["PATH"]}, 20,
    folder / "narrow.log", reserve_bytes=0,
    confine=Confine(hidden=(folder / "state",), network_only=True),
)
processes = LocalProcesses(grace_s=0.4)
finished = processes.run(command, lambda pid: None, lambda piece: None)
json.dump({
    "finished": dataclasses.asdict(finished), "can": processes.can_confine(),
    "output": (folder / "narrow.log").read_text(),
}, sys.stdout)
"""
NARROW = """#!/bin/bash
echo x > own/narrow && echo writable
ls state
test -S own/socket || echo covered
unshare -Urm sh -c "umount -l own/socket; test -S own/socket" || echo locked
exec 3<>/dev/tcp/127.0.0.1/$1
"""
DRIVER = """
import dataclasses, json, os, sys
from pathlib import Path
from handrail.adapters.processes import LocalProcesses
from handrail.ports import Command, Confine
folder, port = Path(sys.argv[1]), int(sys.argv[2])
command = Command(
    (str(folder / "script.sh"),), folder, {"PATH": os.environ["PATH"]}, 20, folder / "output.log",
    reserve_bytes=0,
    watched=folder,
    confine=Confine(
        writable=(folder / "own",),
        hidden=(folder / "state",),
        replaced=((folder / "srv" / "app.db", folder / "state" / "clone" / "app.db"),),
        sockets=(("127.0.0.1", port),),
    ),
)
processes = LocalProcesses(grace_s=0.4)
finished = processes.run(command, lambda pid: None, lambda piece: None)
json.dump({
    "finished": dataclasses.asdict(finished), "can": processes.can_confine(), "user": os.geteuid(),
    "output": (folder / "output.log").read_text(),
}, sys.stdout)
"""
SCRIPT = """#!/bin/bash
id -u
echo changed > srv/app.db && echo replaced
cat srv/config
ls state
echo x > here || echo read-only
echo x > own/new && echo writable
umount -l /tmp 2>/dev/null || echo locked
unshare -Urm sh -c "umount -l /tmp || mount -o remount,rw,bind $PWD && echo x > $PWD/here" ||
    echo locked twice
exec 3<>/dev/tcp/192.0.2.9/6379
exit 5
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that an ordinary user owns, with this package where that user can read it."""
    folder = Path(tempfile.mkdtemp(prefix="handrail-test-"))
    package = Path(handrail.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, folder / "src" / "handrail", ignore=ignored)
    for name in ("own", "state/clone", "srv"):
        (folder / name).mkdir(parents=True)
    (folder / "srv" / "app.db").write_text("real")
    (folder / "srv" / "config").write_text("neighbour\n")
    (folder / "state" / "clone" / "app.db").write_text("clone")
    (folder / "script.sh").write_text(SCRIPT)
    (folder / "narrow.sh").write_text(NARROW)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.suffix == ".sh" else 0o644)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def _as_ordinary_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def _python() -> str:
    """Return a Python that an ordinary user can execute."""
    names = (sys.executable, "python3", "python3.11", "python3.12", "python3.13")
    usable = [found for name in names if (found := shutil.which(name, path=PATH)) and _runs(found)]
    return usable[0] if usable else skip("an ordinary user can execute no Python 3.11 or newer")


def _runs(python: str) -> bool:
    test = "import sys; sys.exit(sys.version_info < (3, 11))"
    try:
        tried = subprocess.run([python, "-c", test], **_as_ordinary_user(), check=False)
    except PermissionError:
        return False
    return tried.returncode == 0


def _drive(
    place: Path, before: Sequence[str] = (), driver: str = DRIVER, **user: Any
) -> dict[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [*before, _python(), "-c", driver, str(place), port],
            env={"PATH": PATH, "PYTHONPATH": str(place / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            check=True,
            cwd="/",
            **user,
        )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def answer(place: Path) -> dict[str, Any]:
    found = _drive(place, **_as_ordinary_user())
    if found["can"]:
        skip(f"an ordinary user cannot confine scripts here: {found['can']}")
    return found


def test_who(answer: dict[str, Any]) -> None:
    """An ordinary user confines a script, and is in there who they were outside."""
    assert answer["user"] != 0
    assert answer["finished"]["confined"] == ""
    assert answer["finished"]["exit_code"] == 5
    assert answer["output"].splitlines()[0] == str(answer["user"])


def test_files(answer: dict[str, Any], place: Path) -> None:
    """The clone stands in, neighbours are seen, state is not, and the rest cannot be written."""
    said = [line for line in answer["output"].splitlines()[1:] if ": " not in line]
    assert said[:4] == ["replaced", "neighbour", "read-only", "writable"]
    assert (place / "srv" / "app.db").read_text() == "real"
    assert (place / "state" / "clone" / "app.db").read_text() == "changed\n"
    assert (place / "own" / "new").read_text() == "x\n"
    assert not (place / "here").exists()


def test_locked(answer: dict[str, Any]) -> None:
    """The mounts cannot be taken away, also not from a user namespace of the script's own."""
    assert "locked\n" in answer["output"]
    assert "locked twice\n" in answer["output"]


def test_seen(answer: dict[str, Any], place: Path) -> None:
    """What it tried to reach and what it read are told."""
    assert answer["finished"]["traced"] == ""
    assert answer["finished"]["reached"] == ["192.0.2.9:6379"]
    assert f"{place}/srv/config" in answer["finished"]["read"]


def test_not_allowed(place: Path) -> None:
    """Root without the right to make namespaces, as in a container, is told so in one sentence."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can give up the right")
    before = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    (place / "script.sh").write_text("#!/bin/sh\nexit 6\n")
    try:
        found = _drive(place, before)
    finally:
        (place / "script.sh").write_text(SCRIPT)
        (place / "output.log").unlink()
    assert "Operation not permitted" in found["can"]
    assert found["finished"]["exit_code"] == 6
    assert found["finished"]["confined"] == found["can"]


def test_network_only(answer: dict[str, Any], place: Path) -> None:
    """An ordinary user too keeps a script to its guard, with files as they are."""
    del answer  # it skips where this cannot be
    found = _drive(place, driver=NETWORK_ONLY, **_as_ordinary_user())
    said = [line for line in found["output"].splitlines() if ": " not in line]
    assert said == ["writable", "covered", "locked"]
    assert found["finished"]["confined"] == ""
    (reached,) = found["finished"]["reached"]
    assert reached.startswith("127.0.0.1:")
