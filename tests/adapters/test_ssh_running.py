"""A script on a node: taken there, run there, told of, and nothing of it left."""

from __future__ import annotations

import contextlib
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.errors import ScriptError
from handrail.ports import Forward
from support.node_scene import Scene, make_scene
from support.scripts import is_alive
from support.sshd import Sshd, echoing, run_sshd, wait_until

MIB = 1024 * 1024
SECRET = "s3cr3t-in-no-list-of-processes"
PROGRAMS = "sh bash tar dd wc tail head mkfifo env date grep sed cat df mkdir mv rm sleep tr"


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    yield from run_sshd()


@pytest.fixture
def scene(sshd: Sshd, tmp_path: Path) -> Iterator[Scene]:
    found = make_scene(sshd, tmp_path)
    yield found
    found.processes.forget((found.mark,))
    assert sshd.left() == []


def test_runs(scene: Scene) -> None:
    """A script runs on the node; its output and exit code come back, its start is told first."""
    finished = scene.run("echo hello; echo oops >&2; exit 3")
    assert (finished.exit_code, finished.ended) == (3, "exited")
    assert scene.kept == "hello\noops\n"
    assert b"".join(scene.shown) == b"hello\noops\n"
    assert finished.output_bytes == 11
    assert len(scene.pids) == 1
    assert stat.S_IMODE(scene.output.stat().st_mode) == 0o600
    assert finished.confined == "on node/web-1 a script is not confined"


def test_private(scene: Scene, sshd: Sshd) -> None:
    """Its folder on the node is for nobody else, until it is forgotten."""
    scene.run("stat -c '%a %n' .. ../home . step.sh ../* 2>/dev/null; pwd; echo $HOME")
    (kept,) = sshd.work.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert kept.name.startswith(f"handrail-{scene.mark}-")
    assert f"{kept}/files\n{kept}/home\n" in scene.kept
    assert not (kept / "start").exists()
    scene.processes.forget((scene.mark,))
    assert sshd.left() == []


def test_forgets_its_own_alone(scene: Scene, sshd: Sshd, tmp_path: Path) -> None:
    """Another run's folder, and a link that somebody put there, stay as they are."""
    (tmp_path / "precious").mkdir()
    other = sshd.work / "handrail-ffff-0000"
    other.mkdir()
    link = sshd.work / f"handrail-{scene.mark}-link"
    link.symlink_to(tmp_path / "precious")
    scene.run("true")
    scene.processes.forget((scene.mark,))
    assert sorted(sshd.left()) == sorted([other.name, link.name])
    other.rmdir()
    link.unlink()


def test_files(scene: Scene) -> None:
    """The files of the plan are there, with whether they may be executed, and no others."""
    scene.write("lib/deep/tool.sh", "echo tool")
    (scene.root / "lib/data.txt").write_text("data\n")
    command = scene.command("lib/deep/tool.sh; cat lib/data.txt; test -x lib/data.txt || echo -x")
    (scene.root / "unplanned").write_text("x")
    scene.processes.run(command, scene.pids.append, scene.shown.append)
    assert scene.kept == "tool\ndata\n-x\n"


def test_changed_since(scene: Scene, sshd: Sshd) -> None:
    """A file that is not as it was planned with is not taken along: nothing begins."""
    command = scene.command("true")
    scene.write("scripts/step.sh", "echo another")
    with pytest.raises(ScriptError, match="changed since it was planned"):
        scene.processes.run(command, scene.pids.append, scene.shown.append)
    assert scene.pids == []


HOSTILE = ["a b", "$(touch pwned)", "-rf", "'; touch pwned; '", 'q"q', "*", "ünï", "`id`", " lead"]


def test_hostile_names(scene: Scene) -> None:
    """Names and arguments that a shell would take for more are names and arguments."""
    for name in HOSTILE:
        scene.write(f"odd/{name}", "true")
    body = 'for a in "$@"; do test -x "odd/$a" && echo "$a"; done; ls -A | tr "\\n" " "'
    command = scene.command(body)
    argv = (*command.argv, *HOSTILE)
    finished = scene.run(argv=argv)
    assert finished.exit_code == 0
    assert scene.kept.splitlines() == [*HOSTILE, "odd scripts "]


@pytest.mark.parametrize("name", ["line\nend", "back\\slash", "escape\x1b[2J"])
def test_refused_names(scene: Scene, name: str) -> None:
    """A name that the node could read as another one is refused before anything is sent."""
    scene.write(f"odd/{name}", "true")
    with pytest.raises(ScriptError, match="cannot be taken to a node"):
        scene.run("true")
    assert scene.pids == []


def test_environment(scene: Scene) -> None:
    """The script has what it was given, what the node says, and nothing else of anybody's."""
    given = {"PGPASSWORD": "p%w d:/@?#'\n$HOME", "EMPTY": "", "UMLAUT": "ü"}
    scene.run("env -0 | sort -z | tr '\\0' '\\1'", environment=given)
    pairs = (one.partition("=") for one in scene.kept.split("\1") if one)
    found = {name: value for name, _, value in pairs}
    assert {name: found[name] for name in given} == given
    usual = {"HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "PWD", "_"}
    assert set(found) - usual - set(given) - {"SHLVL", "OLDPWD"} == {"HANDRAIL_RUN"}
    assert found["HANDRAIL_RUN"] == scene.mark


def test_no_secret_in_ps(scene: Scene) -> None:
    """Nothing of the environment stands on any command line, here or on the node, at any time."""
    seen: list[str] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(path.read_bytes().decode(errors="replace"))
                except OSError:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    with scene.running(scene.waiting + "; echo $TOKEN", environment={"TOKEN": SECRET}):
        scene.wait_told()
        (kept,) = scene.sshd.work.iterdir()
        files = [path for path in kept.rglob("*") if path.is_file()]
        assert [path for path in files if SECRET in path.read_text(errors="replace")] == []
        scene.open_gate()
    is_over.set()
    watcher.join()
    assert scene.kept == f"{SECRET}\n"
    assert any("step.sh" in line for line in seen)
    assert [line for line in seen if SECRET in line] == []


def test_live(scene: Scene) -> None:
    """Output is shown while the script runs."""
    with scene.running(f"echo first; {scene.waiting}; echo last"):
        wait_until(lambda: b"first" in b"".join(scene.shown), "nothing was shown")
        assert b"last" not in b"".join(scene.shown)
        scene.open_gate()
    assert scene.kept == "first\nlast\n"


def test_much_output(scene: Scene, sshd: Sshd) -> None:
    """Of 64 MiB the first and the last are kept, here and there no more than the limit."""
    limit = 2 * MIB
    most: list[int] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            found = [*sshd.work.glob("*/output"), *sshd.work.glob("*/tail.*")]
            most.append(sum(path.stat().st_size for path in found if path.exists()))

    watcher = threading.Thread(target=look)
    watcher.start()
    body = "echo begin; head -c 67108864 /dev/zero | tr '\\0' x; echo; echo end"
    finished = scene.run(body, output_limit_bytes=limit)
    is_over.set()
    watcher.join()
    assert (finished.exit_code, finished.output_bytes) == (0, 64 * MIB + len("begin\n\nend\n"))
    assert max(most) <= limit
    kept = scene.output.read_bytes()
    assert limit * 0.7 < len(kept) < limit + 100
    assert kept.startswith(b"begin\nx")
    assert kept.endswith(b"x\nend\n")
    assert kept.count(b"bytes left out here]") == 1


def test_hostile_output(scene: Scene) -> None:
    """What looks like the node's own words, or is no text, is output like any other."""
    words = "printf 'end\\nexit 0\\nout 5\\n\\0\\377\\033[2Jfail gone\\nlost-keeper\\n'; exit 7"
    finished = scene.run(words)
    assert (finished.exit_code, finished.ended) == (7, "exited")
    expected = b"end\nexit 0\nout 5\n\0\xff\x1b[2Jfail gone\nlost-keeper\n"
    assert scene.output.read_bytes() == expected


def test_timeout(scene: Scene) -> None:
    """At its time's end the whole group is ended, also who ignores every polite signal."""
    stubborn = f"trap '' HUP TERM INT; echo $$ >>{scene.told}; while :; do sleep 0.2; done"
    scene.write("stubborn.sh", stubborn)
    body = f"./stubborn.sh & ./stubborn.sh & {stubborn}"
    finished = scene.run(body, timeout_s=2)
    assert finished.ended == "timeout"
    pids = [int(line) for line in scene.wait_told(3)]
    assert [pid for pid in pids if is_alive(pid)] == []


def test_leftovers(scene: Scene) -> None:
    """What a script leaves behind is named and ended, also in a session of its own."""
    scene.write("daemon.sh", f"echo $$ >>{scene.told}; exec sleep 300")
    waits = f"while [ $(cat {scene.told} | wc -l) -lt 2 ]; do sleep 0.02; done"
    body = f"touch {scene.told}; setsid ./daemon.sh >/dev/null 2>&1 & ./daemon.sh & {waits}; exit 0"
    finished = scene.run(body)
    assert (finished.exit_code, finished.ended) == (0, "exited")
    assert finished.survivors == ("sleep", "sleep")
    assert [pid for pid in map(int, scene.wait_told(2)) if is_alive(pid)] == []


def test_let_go(scene: Scene) -> None:
    """Once somebody lets go of it, the script is ended there, and told as interrupted."""
    body = f"echo $$ >>{scene.told}; while :; do sleep 0.1; done"
    with scene.running(body, is_over=scene.gate.exists) as ended:
        told = scene.wait_told()
        scene.open_gate()
    assert ended[0].ended == "interrupted"
    assert not is_alive(int(told[0]))


def test_forward(scene: Scene) -> None:
    """The script reaches a port of this machine by one of the node's own, and that alone."""
    with echoing() as echo:
        mark = "@handrail-port-0@"
        body = (
            "exec 3<>/dev/tcp/127.0.0.1/$PORT; echo hi >&3; read -r said <&3; echo $said; echo $URL"
        )
        scene.write("scripts/step.sh", body, "#!/bin/bash\n")
        scene.run(
            environment={"PORT": mark, "URL": f"db://u:p@127.0.0.1:{mark}/x"},
            forwards=(Forward(mark, "127.0.0.1", echo.port),),
        )
        lines = scene.kept.splitlines()
        assert lines[0] == "heard hi"
        port = lines[1].removeprefix("db://u:p@127.0.0.1:").removesuffix("/x")
        assert port.isdigit()
        assert int(port) != echo.port


def test_two_at_once(scene: Scene, sshd: Sshd, tmp_path: Path) -> None:
    """Two scripts on one node know nothing of each other, and one's end does not end the other."""
    (tmp_path / "other").mkdir()
    other = make_scene(sshd, tmp_path / "other")
    with scene.running(f"{scene.waiting}; echo one"):
        scene.wait_told()
        assert other.run("echo two").exit_code == 0
        other.processes.forget((other.mark,))
        scene.open_gate()
    assert (scene.kept, other.kept) == ("one\n", "two\n")


def test_disk_full(scene: Scene) -> None:
    """Where the node's disk takes no more output, the script is ended, and that is said."""
    # A limit on the size of files stands for a full disk: the shell of this connection sets it.
    limited = 'ForceCommand ulimit -f 128; eval "$SSH_ORIGINAL_COMMAND"'
    for full in run_sshd(settings=[limited]):
        narrow = Scene(scene.root, full, full.processes())
        body = f"echo $$ >>{scene.told}; while :; do printf '%01000d' 7; done"
        finished = narrow.run(body)
        assert finished.ended == "disk-full"
        assert 0 < narrow.output.stat().st_size <= 256 * 1024
        assert not is_alive(int(scene.wait_told()[0]))
        narrow.processes.forget((narrow.mark,))
        assert full.left() == []


def test_too_little_room(scene: Scene) -> None:
    """A node with less room than is kept free is told before anything is sent."""
    with pytest.raises(ScriptError, match="KiB free"):
        scene.run("true", reserve_bytes=2**60)
    assert scene.pids == []


def test_no_folder(sshd: Sshd, tmp_path: Path) -> None:
    """A node without the declared folder is told so."""
    scene = make_scene(sshd, tmp_path, work="/nonexistent/place")
    with pytest.raises(ScriptError, match="no private folder can be made in /nonexistent/place"):
        scene.run("true")


def _tools(folder: Path, words: str, sh: str) -> Path:
    """Make a search path with these programs alone."""
    folder.mkdir()
    for name in words.split():
        found = shutil.which(sh if name == "sh" else name)
        assert found, name
        (folder / name).symlink_to(found)
    return folder


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("more", ["setsid sha256sum", ""])
def test_plain_node(shell: str, more: str, tmp_path: Path) -> None:
    """Any POSIX shell will do, without `setsid` and `sha256sum` too: run, left over, timed out."""
    tools = _tools(tmp_path / "tools", f"{PROGRAMS} {more}", shell)
    for sshd in run_sshd(settings=[f"SetEnv PATH={tools}"]):
        scene = make_scene(sshd, tmp_path)
        finished = scene.run("sleep 300 & echo hello; exit 4")
        assert (finished.exit_code, finished.survivors, scene.kept) == (4, ("sleep",), "hello\n")
        body = f"echo $$ >>{scene.told}; trap '' TERM; while :; do sleep 0.1; done"
        assert scene.run(body, timeout_s=1).ended == "timeout"
        assert not is_alive(int(scene.wait_told()[0]))
        scene.processes.forget((scene.mark,))
        assert sshd.left() == []


def test_program_missing(tmp_path: Path) -> None:
    """A node without a program that is needed is told which."""
    tools = _tools(tmp_path / "tools", PROGRAMS.replace(" tar", ""), "dash")
    for sshd in run_sshd(settings=[f"SetEnv PATH={tools}"]):
        with pytest.raises(ScriptError, match="it has no program `tar`"):
            make_scene(sshd, tmp_path).run("true")


def test_noisy_login(tmp_path: Path) -> None:
    """What a login shell prints of its own is not taken for the node's word, or for output."""
    noisy = 'ForceCommand echo ready; echo end; eval "$SSH_ORIGINAL_COMMAND"'
    for sshd in run_sshd(settings=[noisy]):
        scene = make_scene(sshd, tmp_path)
        assert scene.run("echo hello").exit_code == 0
        assert scene.kept == "hello\n"
        scene.processes.forget((scene.mark,))


def test_no_interpreter(scene: Scene) -> None:
    """A script that the node cannot read has failed, and says why."""
    scene.write("scripts/step.sh", "true", "#!/nonexistent/interpreter\n")
    finished = scene.run()
    assert finished.exit_code in {126, 127}
    assert "not found" in scene.kept or "bad interpreter" in scene.kept


def test_journal_first(scene: Scene, sshd: Sshd) -> None:
    """A script whose start could not be journalled never begins."""

    def fail(_: int) -> None:
        raise RuntimeError("no journal")

    command = scene.command(f"echo ran >>{scene.told}")
    with pytest.raises(RuntimeError, match="no journal"):
        scene.processes.run(command, fail, scene.shown.append)
    (folder,) = sshd.work.iterdir()
    wait_until(lambda: _working_in(folder) == [], "a keeper waits still")
    assert scene.processes.collect(scene.mark, scene.output, 5, scene.shown.append) is None
    assert not scene.told.exists()


def _working_in(folder: Path) -> list[str]:
    """Return the processes whose working directory is below a folder."""
    links = (path for path in Path("/proc").glob("[0-9]*/cwd"))
    found = []
    for link in links:
        with contextlib.suppress(OSError):
            if link.readlink().is_relative_to(folder):
                found.append(link.parent.name)
    return found
