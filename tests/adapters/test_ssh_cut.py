"""A connection that is cut, and a process that is killed: what ran on the node is not lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.errors import ScriptError, WaitingError
from handrail.ports import Finished, Forward
from support.node_scene import Scene, make_scene
from support.scripts import is_alive
from support.sshd import Sshd, echoing, run_sshd, wait_until


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    yield from run_sshd()


@pytest.fixture
def scene(sshd: Sshd, tmp_path: Path) -> Iterator[Scene]:
    found = make_scene(sshd, tmp_path)
    yield found
    found.processes.forget((found.mark,))
    assert sshd.left() == []


def collect(scene: Scene) -> Finished | None:
    scene.shown.clear()
    return scene.processes.collect(scene.mark, scene.output, 20, scene.shown.append)


def test_cut_and_resumed(scene: Scene, sshd: Sshd) -> None:
    """After a cut the output goes on where it stopped, each byte once, and the end is known."""
    body = f"seq 1 5000; {scene.waiting}; seq 5001 10000; exit 6"
    with scene.running(body) as ended:
        scene.wait_told()
        wait_until(lambda: b"\n5000\n" in b"".join(scene.shown), "nothing was shown")
        sshd.cut()
        scene.open_gate()
    assert isinstance(ended[0], Finished), ended
    assert (ended[0].exit_code, ended[0].ended) == (6, "exited")
    assert scene.kept == "".join(f"{n}\n" for n in range(1, 10001))
    assert b"".join(scene.shown).decode() == scene.kept
    assert len(scene.pids) == 1


def test_cut_again_and_again(scene: Scene, sshd: Sshd) -> None:
    """However often it is cut, the script runs once."""
    body = f"for n in 1 2 3 4 5 6 7 8; do echo $n; echo $n >>{scene.told}; sleep 0.3; done"
    with scene.running(body) as ended:
        for lines in (2, 4, 6):
            scene.wait_told(lines)
            sshd.cut()
    assert isinstance(ended[0], Finished), ended
    assert scene.kept.split() == scene.wait_told(8) == list("12345678")


def test_tethered(scene: Scene, sshd: Sshd) -> None:
    """A rehearsal's script does not go on without who rehearses: a cut ends it."""
    body = f"echo here; echo $$ >>{scene.told}; while :; do sleep 0.1; done"
    with scene.running(body, tethered=True) as ended:
        wait_until(lambda: scene.shown == [b"here\n"], "nothing was shown")
        sshd.cut()
    assert isinstance(ended[0], Finished), ended
    assert ended[0].ended == "interrupted"
    assert not is_alive(int(scene.wait_told()[0]))


def test_guard_again(scene: Scene, sshd: Sshd) -> None:
    """After a cut the port that the script knows leads to this machine again."""
    with echoing() as echo:
        ask = "exec 3<>/dev/tcp/127.0.0.1/$PORT && echo $1 >&3 && read -r said <&3 && echo $said"
        scene.write("ask.sh", ask, "#!/bin/bash\n")
        # After the cut it is refused until the connection is there again.
        again = "until ./ask.sh two 2>/dev/null; do sleep 0.1; done"
        forwards = (Forward("@port@", "127.0.0.1", echo.port),)
        with scene.running(
            f"./ask.sh one; {scene.waiting}; {again}",
            forwards=forwards,
            environment={"PORT": "@port@"},
        ) as ended:
            scene.wait_told()
            sshd.cut()
            scene.open_gate()
        assert isinstance(ended[0], Finished), ended
        assert scene.kept == "heard one\nheard two\n"


def test_gone_for_good(tmp_path: Path) -> None:
    """A node that stays away is waited for, and then nobody claims to know how it ended."""
    for away in run_sshd():
        scene = make_scene(away, tmp_path)
        scene.processes = type(scene.processes)(away.node(), away.config, overtime_s=2)
        with scene.running(scene.waiting, timeout_s=2) as ended:
            scene.wait_told()
            away.end()
        assert isinstance(ended[0], WaitingError), ended
        assert ended[0].code == "node.lost"
        with pytest.raises(ScriptError) as caught:
            collect(scene)
        assert caught.value.code == "node.unreachable"
        scene.open_gate()


KILLED = """
import sys
from pathlib import Path
from handrail.adapters.ssh import Node, SshProcesses
from handrail.ports import Command
root, output, config, work, port, key, digest, mark = sys.argv[1:]
node = Node("node/web-1", "127.0.0.1", "", int(port), (key,), work)
command = Command(
    (f"{root}/scripts/step.sh",), Path(root), {"HANDRAIL_RUN": mark}, 30, Path(output),
    reserve_bytes=1024, files=(("scripts/step.sh", digest),),
)
SshProcesses(node, Path(config)).run(command, lambda _: None, lambda _: None)
"""


def kill_in_mid_step(scene: Scene, body: str) -> None:
    """Run a script from a process of its own, and kill that with SIGKILL once the script told."""
    command = scene.command(body)
    sshd = scene.sshd
    words = [
        *(sys.executable, "-c", KILLED, str(scene.root), f"{scene.output}.lost", str(sshd.config)),
        *(str(sshd.work), str(sshd.port), sshd.host_key, dict(command.files)["scripts/step.sh"]),
        scene.mark,
    ]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        scene.wait_told()
    finally:
        process.kill()
        process.wait()


def test_killed_and_collected(scene: Scene) -> None:
    """Killed in mid-step, the next process gets what the node kept: all output, and the status."""
    kill_in_mid_step(scene, f"echo before; {scene.waiting}; echo after; exit 9")
    scene.open_gate()
    wait_until(lambda: list(scene.sshd.work.glob("*/status")), "the keeper noted nothing")
    finished = collect(scene)
    assert finished is not None
    assert (finished.exit_code, finished.ended) == (9, "exited")
    assert scene.kept == b"".join(scene.shown).decode() == "before\nafter\n"
    assert collect(scene) == finished


def test_killed_and_followed(scene: Scene) -> None:
    """Killed in mid-step, the next process follows what still runs to its end."""
    kill_in_mid_step(scene, f"echo before; {scene.waiting}; echo after")
    import threading

    found: list[Finished | None] = []
    thread = threading.Thread(target=lambda: found.append(collect(scene)))
    thread.start()
    wait_until(lambda: scene.shown == [b"before\n"], "nothing was shown")
    scene.open_gate()
    thread.join(30)
    assert found[0] is not None
    assert (found[0].exit_code, scene.kept) == (0, "before\nafter\n")


def test_killed_and_ended(scene: Scene) -> None:
    """Killed in mid-step, the next process can end what still runs, and is told its name."""
    kill_in_mid_step(scene, f"echo $$ >>{scene.told}; exec sleep 300")
    (pid,) = map(int, scene.wait_told())
    assert "sleep" in scene.processes.end_leftovers(scene.mark)
    assert not is_alive(pid)
    assert scene.sshd.left() == []
    assert collect(scene) is None


def test_no_connection_is_left(scene: Scene) -> None:
    """A killed process leaves no ssh of its own behind, here or there."""
    kill_in_mid_step(scene, f"{scene.waiting}")
    wait_until(lambda: scene.sshd.connections() == [], "a connection is left")
    scene.open_gate()


def test_keeper_killed(scene: Scene) -> None:
    """Where even the keeper was killed nobody knows: that is said, and what is left is ended."""
    kill_in_mid_step(scene, f"echo $$ >>{scene.told}; exec sleep 300")
    (folder,) = scene.sshd.work.iterdir()
    os.kill(int((folder / "began").read_text().split()[0]), signal.SIGKILL)
    assert collect(scene) is None
    (pid,) = map(int, scene.wait_told())
    assert is_alive(pid)
    assert scene.processes.end_leftovers(scene.mark) == ("sleep",)
    assert not is_alive(pid)


def test_rebooted(scene: Scene) -> None:
    """After a reboot of the node nobody knows, and no stranger with an old number is touched."""
    kill_in_mid_step(scene, scene.waiting)
    (folder,) = scene.sshd.work.iterdir()
    scene.open_gate()
    wait_until((folder / "status").exists, "the keeper noted nothing")
    (folder / "status").unlink()
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as stranger:
        (folder / "began").write_text(f"{stranger.pid} 1 another-boot\n")
        (folder / "script").write_text(f"{stranger.pid} 1\n")
        assert collect(scene) is None
        assert scene.processes.end_leftovers(scene.mark) == ()
        assert stranger.poll() is None
        stranger.kill()


def test_folder_gone(scene: Scene) -> None:
    """Where the folder is gone nobody knows how it ended."""
    kill_in_mid_step(scene, f"{scene.waiting}; exit 3")
    (folder,) = scene.sshd.work.iterdir()
    shutil.rmtree(folder)
    scene.open_gate()
    assert collect(scene) is None


def test_never_began(scene: Scene, sshd: Sshd) -> None:
    """Once somebody was told that a script never began, it never begins."""
    from handrail.adapters.ssh.connecting import Link
    from handrail.adapters.ssh.packing import Place, pack, verb

    command = scene.command(f"echo ran >>{scene.told}")
    place = Place(scene.mark, f"{sshd.work}/handrail-{scene.mark}-00000000", 1)
    node = sshd.node()
    settings = {"reserve_kib": 1, "program_path": "scripts/step.sh"}
    with Link(node, sshd.config) as link:
        with link.asking(verb(node, scene.mark, "prepare", settings, place)) as call:
            call.send([pack(command, place, {})], is_last=True)
            assert call.line() == "ready"
        with link.asking(verb(node, scene.mark, "launch", {}, place)) as launch:
            assert launch.line().startswith("process ")
            follow = verb(node, scene.mark, "follow", {"have": 0}, place)
            with link.asking(follow) as other:
                assert other.line() == "fail never"
            launch.send([b"go\n"])
            assert launch.line() == "fail never"
    assert not scene.told.exists()
