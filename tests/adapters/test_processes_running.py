"""Hostile and clumsy scripts, run for real."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.adapters.processes import LocalProcesses
from handrail.adapters.processes.launcher import kernel
from handrail.errors import ScriptError
from support.scripts import DEADLINE_S, PATH, Workshop, after_line, is_alive, wait_for


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_hangs(shop: Workshop) -> None:
    """A script that hangs is ended at its deadline, with what it started."""
    finished, _ = shop.run("sleep 1000 & echo $! > child; wait", timeout_s=0.5)
    assert (finished.ended, finished.exit_code) == ("timeout", -signal.SIGTERM)
    assert not is_alive(int((shop.folder / "child").read_text()))


def test_ignores_term(shop: Workshop) -> None:
    """A script that ignores being asked to end is killed after the grace."""
    finished, _ = shop.run("trap '' TERM; while :; do sleep 0.05; done", timeout_s=0.3)
    assert (finished.ended, finished.exit_code) == ("timeout", -signal.SIGKILL)


def test_ends_in_order(shop: Workshop) -> None:
    """A script that is asked to end may still say something and choose its exit code."""
    finished, output = shop.run("trap 'echo tidy; exit 7' TERM; sleep 9 & wait", timeout_s=0.3)
    assert (finished.ended, finished.exit_code, output) == ("timeout", 7, "tidy\n")


def test_daemon(shop: Workshop) -> None:
    """A daemon in a session and with an environment of its own is named, and ended."""
    finished, _ = shop.run(
        "(setsid env -i /bin/sh -c 'echo $$ > daemon; exec sleep 1000' >/dev/null 2>&1 &) &\n"
        "until [ -s daemon ]; do sleep 0.01; done; exit 4"
    )
    assert finished.exit_code == 4
    assert finished.survivors == ("sleep",)
    assert not is_alive(int((shop.folder / "daemon").read_text()))


def test_stubborn_daemon(shop: Workshop) -> None:
    """A daemon that ignores being asked to end is killed."""
    finished, _ = shop.run(
        "(setsid bash -c 'trap \"\" TERM HUP; echo $$ > daemon; while :; do sleep 0.05; done' &)\n"
        "until [ -s daemon ]; do sleep 0.01; done"
    )
    assert "bash" in finished.survivors
    assert not is_alive(int((shop.folder / "daemon").read_text()))


def test_brief_child(shop: Workshop) -> None:
    """A child that ends by itself in a moment, as a `tee`, is no survivor and loses no output."""
    finished, output = shop.run("exec > >(sleep 0.05; cat) 2>&1; echo last words")
    assert finished.survivors == ()
    assert output == "last words\n"


def test_kills_parent(shop: Workshop) -> None:
    """A script that kills its parent does not harm us, and its exit code is still learned."""
    finished, output = shop.run("kill -KILL $PPID; sleep 0.1; echo still here; exit 5")
    assert (finished.ended, finished.exit_code) == ("exited", 5)
    assert output == "still here\n"


def test_kills_parent_and_forks(shop: Workshop) -> None:
    """What a script that killed its parent leaves behind is found all the same."""
    finished, _ = shop.run("kill -KILL $PPID; (setsid sleep 1000 & echo $! > daemon); sleep 0.1")
    assert finished.survivors == ("sleep",)
    assert not is_alive(int((shop.folder / "daemon").read_text()))


def test_no_zombies(shop: Workshop) -> None:
    """After a script that killed its parent no dead process waits for us."""
    shop.run("kill -KILL $PPID; (sleep 0.01 &); (setsid sleep 1000 &); sleep 0.1")
    assert dead_children() == []


def dead_children() -> list[str]:
    """Return the children of this process that have ended and were not waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                found.append(stat.parent.name)
    return found


def test_kills_its_group(shop: Workshop) -> None:
    """A script that ends its whole process group ends itself alone."""
    finished, _ = shop.run("kill -TERM 0; sleep 5")
    assert finished.exit_code == -signal.SIGTERM


def test_endless_output(shop: Workshop) -> None:
    """Two gigabytes of output cost no memory and no disk."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    finished, output = shop.run("yes | head -c 2G", output_limit_bytes=1024 * 1024)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert finished.output_bytes == 2 * 1024**3
    assert len(output) < 1024 * 1024 + 100
    assert grown_kib < 64 * 1024


def test_slow_reader(shop: Workshop) -> None:
    """A callback that stands still loses live pieces, told in place, and no kept byte."""
    pieces: list[bytes] = []
    size = 40 * 1024 * 1024

    def stand_still(piece: bytes) -> None:
        if not pieces:
            wait_for(shop.folder / "done")
        pieces.append(piece)

    script = shop.script(f"head -c {size} /dev/zero; echo yes > done")
    finished = shop.processes.run(shop.command(script), lambda _: None, stand_still)
    assert finished.output_bytes == shop.output.stat().st_size == size
    assert b"bytes not shown]" in b"".join(pieces)
    assert sum(map(len, pieces)) < size


def test_failing_reader(shop: Workshop) -> None:
    """What the callback raises is raised, after everything has ended."""

    def fail(_: bytes) -> None:
        raise ValueError("terminal gone")

    script = shop.script("echo $$ > pid; echo hello; sleep 1000")
    with pytest.raises(ValueError, match="terminal gone"):
        shop.processes.run(shop.command(script), lambda _: None, fail)
    assert not is_alive(int((shop.folder / "pid").read_text()))


def test_closes_output(shop: Workshop) -> None:
    """A script that closes its output early is waited for all the same."""
    finished, output = shop.run("echo first; exec >&- 2>&-; sleep 0.2; exit 6")
    assert (finished.exit_code, output) == (6, "first\n")


def test_output_kept_open(shop: Workshop) -> None:
    """A child that keeps the output open does not hold us when the script has ended."""
    finished, output = shop.run("sleep 1000 & echo done")
    assert (finished.ended, finished.exit_code, output) == ("exited", 0, "done\n")
    assert finished.survivors == ("sleep",)
    assert finished.duration_s < DEADLINE_S


def test_interleaved(shop: Workshop) -> None:
    """Output and errors are kept in the order in which they came."""
    _, output = shop.run("for i in 1 2 3; do echo out $i; echo err $i >&2; done")
    assert output.split("\n")[:4] == ["out 1", "err 1", "out 2", "err 2"]


def test_disk_reserve(shop: Workshop) -> None:
    """A script that fills the disk beyond the reserve is ended, and it is said why."""
    status = os.statvfs(shop.folder)
    reserve = status.f_bavail * status.f_frsize - 64 * 1024 * 1024
    finished, _ = shop.run(
        "fallocate -l 512M big || head -c 512M /dev/zero > big; sleep 1000", reserve_bytes=reserve
    )
    (shop.folder / "big").unlink(missing_ok=True)
    assert finished.ended == "disk-full"


def test_no_reserve(shop: Workshop) -> None:
    """Where the disk is too full already, the script does not begin."""
    with pytest.raises(ScriptError, match="bytes free"):
        shop.run("touch ran", reserve_bytes=2**62)
    assert not (shop.folder / "ran").exists()


def test_interrupt(shop: Workshop) -> None:
    """Ctrl-C is passed on to the script, and raised when everything has ended."""
    body = "trap 'echo caught; exit 9' INT; echo $$ > pid; while :; do sleep 0.05; done"
    script = shop.script(body)
    with _interrupted_when(shop.folder / "pid"), pytest.raises(KeyboardInterrupt):
        shop.processes.run(shop.command(script), lambda _: None, lambda _: None)
    assert shop.output.read_text() == "caught\n"
    assert not is_alive(int((shop.folder / "pid").read_text()))


def test_interrupt_ignored(shop: Workshop) -> None:
    """A script that ignores Ctrl-C is killed after the grace."""
    script = shop.script("trap '' INT TERM; echo $$ > pid; while :; do sleep 0.05; done")
    with _interrupted_when(shop.folder / "pid"), pytest.raises(KeyboardInterrupt):
        shop.processes.run(shop.command(script), lambda _: None, lambda _: None)
    assert not is_alive(int((shop.folder / "pid").read_text()))


@contextlib.contextmanager
def _interrupted_when(path: Path) -> Iterator[None]:
    main = threading.main_thread().ident
    assert main is not None
    thread = after_line(path, lambda: signal.pthread_kill(main, signal.SIGINT))
    yield
    thread.join()


def test_terminal_signal(shop: Workshop) -> None:
    """A script is in a session of its own, so a terminal's Ctrl-C cannot reach it by itself."""
    _, output = shop.run("cut -d ' ' -f 6 /proc/$$/stat")
    assert int(output) != os.getsid(0)


def test_environment(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is exactly the one that was given."""
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    script = shop.folder / "show"
    script.symlink_to("/usr/bin/env")
    command = shop.command(script, environment={"GIVEN": "yes", "ODD": "a\udce4b"})
    shop.processes.run(command, lambda _: None, lambda _: None)
    lines = sorted(shop.output.read_bytes().splitlines())
    assert lines == [b"GIVEN=yes", b"HANDRAIL_RUN=test", b"ODD=a\xe4b", b"PATH=" + PATH.encode()]


def test_descriptors(shop: Workshop) -> None:
    """A script has descriptors 0, 1 and 2 and no other, whatever we hold open."""
    ours = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(ours, True)
    try:
        _, output = shop.run("for n in {0..99}; do [ -e /proc/$$/fd/$n ] && echo $n; done")
    finally:
        os.close(ours)
    assert output.split() == ["0", "1", "2"]


def test_input(shop: Workshop) -> None:
    """A script that reads finds nothing, at once."""
    finished, output = shop.run('read -r line; echo "$? [$line]"')
    assert (finished.exit_code, output) == (0, "1 []\n")


def test_signals(shop: Workshop) -> None:
    """A script begins with the default signals, not with those of Python."""
    _, output = shop.run("exec grep -E 'Sig(Ign|Blk)' /proc/self/status")
    # 32 and 33 are the C library's own, and nobody can set them.
    ignored = {
        line.split()[0]: int(line.split()[1], 16) & ~(0b11 << 31) for line in output.splitlines()
    }
    assert ignored == {"SigBlk:": 0, "SigIgn:": 0}


def test_not_executable(shop: Workshop) -> None:
    """A script without the right to be executed is refused with the command that gives it."""
    script = shop.script("exit 0")
    script.chmod(0o644)
    with pytest.raises(ScriptError, match="is not executable") as raised:
        shop.processes.run(shop.command(script), shop.pids.append, lambda _: None)
    assert raised.value.hint == f"chmod +x {script}"
    assert shop.pids == []


def test_folder(shop: Workshop) -> None:
    """A folder is not a script."""
    (shop.folder / "folder").mkdir()
    with pytest.raises(ScriptError, match="is a folder"):
        shop.processes.run(shop.command(shop.folder / "folder"), print, print)


def test_below_a_file(shop: Workshop) -> None:
    """A path that leads through a file is a script that does not exist."""
    script = shop.script("exit 0")
    with pytest.raises(ScriptError, match="does not exist"):
        shop.processes.run(shop.command(script / "below"), print, print)


def test_no_first_line(shop: Workshop) -> None:
    """A script that does not name its interpreter is refused with the line to add."""
    script = shop.script("exit 0", shebang="# no interpreter")
    with pytest.raises(ScriptError, match="neither a program") as raised:
        shop.processes.run(shop.command(script), lambda _: None, print)
    assert "#!/bin/sh" in raised.value.hint


def test_missing_interpreter(shop: Workshop) -> None:
    """A script whose interpreter is missing is refused with the interpreter's name."""
    script = shop.script("exit 0", shebang="#!/opt/no/such/python")
    with pytest.raises(ScriptError, match="`/opt/no/such/python`, which is missing"):
        shop.processes.run(shop.command(script), lambda _: None, print)


def test_line_of_windows(shop: Workshop) -> None:
    """A carriage return after the interpreter's name, which nobody sees, is told."""
    script = shop.script("exit 0", shebang="#!/bin/sh\r")
    with pytest.raises(ScriptError, match="ends as on Windows"):
        shop.processes.run(shop.command(script), lambda _: None, print)


def test_missing_folder(shop: Workshop) -> None:
    """A working directory that does not exist is an error of the start."""
    with pytest.raises(ScriptError, match="does not exist"):
        shop.run("exit 0", cwd=shop.folder / "nowhere")


def test_output_is_a_link(shop: Workshop) -> None:
    """Output is not written through a link that somebody put in its place."""
    victim = shop.folder / "victim"
    victim.write_text("precious")
    shop.output.symlink_to(victim)
    with pytest.raises(ScriptError, match="cannot be kept"):
        shop.processes.run(shop.command(shop.script("echo x")), print, print)
    assert victim.read_text() == "precious"


def test_long_parameters(shop: Workshop) -> None:
    """Parameters that the kernel does not take are an error of the start."""
    with pytest.raises(ScriptError) as raised:
        shop.run("exit 0", environment={"BIG": "x" * 4 * 1024 * 1024})
    assert "too long" in raised.value.hint


def test_subreaper_restored(shop: Workshop) -> None:
    """Being the parent of orphans lasts as long as a run, and no longer."""
    shop.run("exit 0")
    assert not kernel.is_subreaper()


def test_started_before(shop: Workshop) -> None:
    """While the process id is being told, the script has not done anything."""

    def look(_pid: int) -> None:
        assert not (shop.folder / "ran").exists()

    shop.processes.run(shop.command(shop.script("touch ran")), look, print)
    assert (shop.folder / "ran").exists()


DRIVER = """
import os, sys
from pathlib import Path
from handrail.adapters.processes import LocalProcesses
from handrail.ports import Command
folder = Path(sys.argv[1])
command = Command(
    (str(folder / "script.sh"),), folder,
    {"PATH": os.environ["PATH"], "HANDRAIL_RUN": sys.argv[2]}, 60, folder / "output.log",
)
if sys.argv[3] == "before":
    LocalProcesses().run(command, lambda pid: os.kill(os.getpid(), 9), print)
LocalProcesses().run(command, lambda pid: None, print)
"""


def _driver(shop: Workshop, token: str, when: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(shop.folder), token, when], env={"PATH": PATH}
    )


def test_leftovers(shop: Workshop) -> None:
    """What a killed Handrail left running is found by its token, and ended with its children."""
    token = f"leftover-{os.getpid()}-{shop.folder.name}"
    shop.script("env -i sleep 1000 & echo $! > child; echo $$ > pid; wait")
    driver = _driver(shop, token, "during")
    script = int(wait_for(shop.folder / "pid"))
    child = int(wait_for(shop.folder / "child"))
    while Path(f"/proc/{child}/comm").read_text() != "sleep\n":
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    assert is_alive(script)
    names = LocalProcesses(grace_s=0.4).end_leftovers(token)
    assert set(names) == {"script.sh", "sleep"}
    assert not is_alive(script)
    assert not is_alive(child)


def test_killed_before(shop: Workshop) -> None:
    """A Handrail that is killed while it journals the process id leaves nothing that ever runs."""
    token = f"before-{os.getpid()}-{shop.folder.name}"
    shop.script("touch ran")
    assert _driver(shop, token, "before").wait() == -signal.SIGKILL
    assert LocalProcesses(grace_s=0.4).end_leftovers(token) == ()
    assert not (shop.folder / "ran").exists()


def test_find_program() -> None:
    """A program on the search path is found with its whole path."""
    found = LocalProcesses().find_program("sh")
    assert found is not None
    assert found.is_absolute()
