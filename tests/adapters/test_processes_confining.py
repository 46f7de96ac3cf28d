"""What a confined script can do, see and reach: nothing of the real world."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from handrail.errors import ScriptError
from handrail.ports import Confine
from support.scripts import Workshop, after_line, is_alive, require_confinement, skip

pytestmark = pytest.mark.root


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that is neither the script's nor below an emptied one."""
    emptied = [Path(one).resolve() for one in ("/tmp", "/var/tmp", "/run", "/dev/shm")]
    for place in (Path(__file__).parent, Path.home(), Path("/var/lib")):
        if os.access(place, os.W_OK) and not any(place.is_relative_to(one) for one in emptied):
            break
    else:
        skip("there is no folder to write to but the shared ones")
    folder = Path(tempfile.mkdtemp(prefix=".handrail-test-", dir=place))
    yield folder
    shutil.rmtree(folder)


@contextmanager
def answering(answer: bytes, family: int = socket.AF_INET, at: str = "127.0.0.1") -> Iterator[int]:
    """A server that answers every connection with what it read, after `answer`."""
    with socket.socket(family) as listener:
        listener.bind((at, 0))
        listener.listen()
        thread = threading.Thread(target=_serve, args=(listener, answer))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, answer: bytes) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(answer + connection.recv(1000))


def test_confined(shop: Workshop) -> None:
    """A confined run says that it was, and keeps exit code and signal as they are."""
    finished, output = shop.confined("echo hello; exit 3")
    assert (finished.exit_code, finished.confined, finished.traced) == (3, "", "")
    assert output == "hello\n"
    finished, _ = shop.confined("kill -KILL $$")
    assert finished.exit_code == -signal.SIGKILL


def test_read_only(shop: Workshop, outside: Path) -> None:
    """Nothing outside what it may write can be written, and the attempt is told."""
    (outside / "kept").write_text("as it was")
    finished, _ = shop.confined(f"cd {outside}; echo x > new; rm -f kept; chmod 0 {outside}/kept")
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_text() == "as it was"
    assert set(finished.reached) == {f"{outside}/new", f"{outside}/kept"}


def test_writable(shop: Workshop, outside: Path) -> None:
    """What it may write it can, also below an emptied folder, and that is not told."""
    inner = shop.folder / "inner"
    inner.mkdir()
    finished, _ = shop.confined(
        f"echo a > {outside}/new; echo b > {inner}/new", writable=(outside, inner)
    )
    assert (outside / "new").read_text() == "a\n"
    assert (inner / "new").read_text() == "b\n"
    assert finished.reached == ()


def test_own_folder(shop: Workshop) -> None:
    """The script sees its own folder, read-only, although it is below an emptied one."""
    (shop.folder / "part").write_text("echo part of it")
    finished, output = shop.confined(". ./part; touch here")
    assert output.startswith("part of it\n")
    assert not (shop.folder / "here").exists()
    assert finished.exit_code == 1


def test_empty_folders(shop: Workshop) -> None:
    """The shared folders are empty, writable, and gone afterwards."""
    name = f"handrail-{os.getpid()}-{shop.folder.name}"
    finished, output = shop.confined(
        f"for d in /tmp /var/tmp /dev/shm; do touch $d/{name} || exit 1; done; ls /dev/shm"
    )
    assert (finished.exit_code, output) == (0, f"{name}\n")
    assert not any(Path(folder, name).exists() for folder in ("/tmp", "/var/tmp", "/dev/shm"))


def test_hidden(shop: Workshop) -> None:
    """A hidden folder is empty, a hidden file too, and neither can be written."""
    (shop.folder / "state").mkdir()
    (shop.folder / "state" / "journal").write_text("secret")
    (shop.folder / "key").write_text("secret")
    finished, output = shop.confined(
        "cat key state/*; ls state; touch state/x; echo x > key",
        hidden=(shop.folder / "state", shop.folder / "key"),
    )
    assert "secret" not in output
    assert finished.exit_code != 0
    assert (shop.folder / "key").read_text() == "secret"
    assert [path.name for path in (shop.folder / "state").iterdir()] == ["journal"]


def test_writable_in_hidden(shop: Workshop) -> None:
    """A folder that it may write can lie in a hidden one, whose other content stays hidden."""
    clone = shop.folder / "state" / "clones" / "one"
    clone.mkdir(parents=True)
    (shop.folder / "state" / "journal").write_text("secret")
    _, output = shop.confined(
        f"ls state; echo x > {clone}/new", hidden=(shop.folder / "state",), writable=(clone,)
    )
    assert output == "clones\n"
    assert (clone / "new").read_text() == "x\n"


def _two_databases(shop: Workshop) -> tuple[Path, Path]:
    """Return a real database in a folder with neighbours, and its clone, both in WAL mode."""
    real, clone = shop.folder / "srv" / "app.db", shop.folder / "clone" / "app.db"
    for path, rows in ((real, 5), (clone, 3)):
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE readings (n)")
            connection.executemany("INSERT INTO readings VALUES (?)", [(n,) for n in range(rows)])
            connection.commit()
    (real.parent / "config.ini").write_text("mode=real")
    (real.parent / "lib").mkdir()
    (real.parent / "lib" / "db.sh").write_text("echo from lib")
    (real.parent / "current").symlink_to("app.db")
    return real, clone


def _count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM readings").fetchone()[0])


def test_replaced(shop: Workshop) -> None:
    """A script that opens the real database gets the clone, and what it changes is in the clone."""
    real, clone = _two_databases(shop)
    program = f"import sqlite3; c = sqlite3.connect('{real}', isolation_level=None)\n"
    program += "print(c.execute('select count(*) from readings').fetchone()[0])\n"
    program += "c.execute('delete from readings where n = 0')"
    (shop.folder / "change.py").write_text(program)
    _, output = shop.confined(f"{sys.executable} change.py", replaced=((real, clone),))
    assert output == "3\n"
    assert (_count(real), _count(clone)) == (5, 2)


def test_replaced_killed(shop: Workshop) -> None:
    """What a script committed before it was killed is in the clone, though only in its log."""
    real, clone = _two_databases(shop)
    program = f"import sqlite3, os; c = sqlite3.connect('{real}', isolation_level=None)\n"
    program += "c.execute('delete from readings'); os.kill(os.getpid(), 9)"
    (shop.folder / "change.py").write_text(program)
    shop.confined(f"exec {sys.executable} change.py", replaced=((real, clone),))
    assert (_count(real), _count(clone)) == (5, 0)


def test_replaced_shell(shop: Workshop) -> None:
    """The same holds for SQLite's own shell, through a link and from inside the folder."""
    if shutil.which("sqlite3") is None:
        skip("the sqlite3 program is not installed")
    real, clone = _two_databases(shop)
    finished, output = shop.confined(
        "cd srv; sqlite3 current 'delete from readings where n < 2; select count(*) from readings'",
        replaced=((real, clone),),
    )
    assert (finished.exit_code, output) == (0, "1\n")
    assert (_count(real), _count(clone)) == (5, 1)


def test_replaced_removed(shop: Workshop) -> None:
    """A script that deletes the database file and makes a new one does that to the clone."""
    real, clone = _two_databases(shop)
    program = f"import sqlite3, os; os.unlink('{real}'); c = sqlite3.connect('{real}')\n"
    program += "c.execute('create table fresh (n)'); c.commit()"
    (shop.folder / "change.py").write_text(program)
    finished, _ = shop.confined(f"{sys.executable} change.py", replaced=((real, clone),))
    assert finished.exit_code == 0
    assert _count(real) == 5
    with closing(sqlite3.connect(clone)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("fresh",)]


def test_replaced_neighbours(shop: Workshop) -> None:
    """Beside the clone the real neighbours are seen, cannot be written, and leave nothing there."""
    real, clone = _two_databases(shop)
    before = sorted(path.name for path in clone.parent.iterdir())
    finished, output = shop.confined(
        "cat srv/config.ini; . srv/lib/db.sh; echo x > srv/config.ini; rm -r srv/lib",
        replaced=((real, clone),),
    )
    assert output.startswith("mode=realfrom lib\n")
    assert finished.exit_code != 0
    assert (real.parent / "config.ini").read_text() == "mode=real"
    assert (real.parent / "lib" / "db.sh").exists()
    assert sorted(path.name for path in clone.parent.iterdir()) == before


def test_replaced_in_own_folder(shop: Workshop) -> None:
    """The database may lie beside the script, with the clone in a hidden folder below it."""
    real = shop.folder / "app.db"
    clone = shop.folder / ".handrail" / "clones" / "app.db"
    clone.parent.mkdir(parents=True)
    real.write_text("real")
    clone.write_text("clone")
    finished, output = shop.confined(
        "cat app.db; echo changed > app.db; ls -A .handrail",
        replaced=((real, clone),),
        hidden=(shop.folder / ".handrail",),
        writable=(clone.parent,),
        watched=shop.folder,
    )
    assert (finished.exit_code, output) == (0, "cloneclones\n")
    assert (real.read_text(), clone.read_text()) == ("real", "changed\n")


def test_replaced_folder(shop: Workshop) -> None:
    """A replaced folder shows the clone's content, and what is written goes there."""
    real, clone = shop.folder / "data", shop.folder / "copy"
    for folder in (real, clone):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    _, output = shop.confined("cat data/name; echo x > data/new", replaced=((real, clone),))
    assert output == "copy"
    assert not (real / "new").exists()
    assert (clone / "new").exists()


def test_replaced_other_name(shop: Workshop) -> None:
    """A clone of another name cannot stand in, and the script does not run."""
    (shop.folder / "a.db").touch()
    (shop.folder / "b.db").touch()
    with pytest.raises(ScriptError) as raised:
        shop.confined("touch ran", replaced=((shop.folder / "a.db", shop.folder / "b.db"),))
    assert raised.value.code == "script.confine"


def test_network(shop: Workshop) -> None:
    """A server of this machine that is not the store's does not answer, and the attempt is told."""
    with answering(b"real") as port:
        finished, output = shop.confined(f"cat < /dev/tcp/127.0.0.1/{port}")
    assert "real" not in output
    assert finished.reached == (f"127.0.0.1:{port}",)


def test_other_machine(shop: Workshop) -> None:
    """Another machine cannot be reached, and the attempt is told, also one without a connection."""
    finished, _ = shop.confined(
        "echo x > /dev/tcp/192.0.2.9/6379; echo x > /dev/udp/192.0.2.9/53;"
        f'{sys.executable} -c "import socket; s = socket.socket(2, 2); '
        "s.sendto(b'x', ('192.0.2.9', 8125))\""
    )
    assert finished.reached == ("192.0.2.9:6379", "192.0.2.9:8125", "dns 192.0.2.9")


def test_forwarded(shop: Workshop) -> None:
    """The store's own socket is reached, both ways, and that is not told."""
    with answering(b"store says ") as port:
        finished, output = shop.confined(
            f"exec 3<>/dev/tcp/localhost/{port}; echo hello >&3; cat <&3",
            sockets=(("127.0.0.1", port),),
        )
    assert (output, finished.reached) == ("store says hello\n", ())


def test_forwarded_version_6(shop: Workshop) -> None:
    """A store that listens on the loopback of IPv6 alone is reached there."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        skip("there is no IPv6 loopback")
    with answering(b"six ", socket.AF_INET6, "::1") as port:
        finished, output = shop.confined(
            f"exec 3<>/dev/tcp/::1/{port}; echo hello >&3; cat <&3", sockets=(("::1", port),)
        )
    assert (output, finished.reached) == ("six hello\n", ())


def test_much_forwarded(shop: Workshop) -> None:
    """Many bytes pass through whole."""
    body = os.urandom(1024) * 8192
    with answering(body) as port:
        _, output = shop.confined(
            f"exec 3<>/dev/tcp/127.0.0.1/{port}; echo >&3; head -c {len(body)} <&3 | sha256sum",
            sockets=(("127.0.0.1", port),),
        )
    digest = subprocess.run(["sha256sum"], input=body, capture_output=True, check=True).stdout
    assert output == digest.decode()


def test_foreign_address(shop: Workshop) -> None:
    """A socket that cannot exist inside is refused before the script runs."""
    with pytest.raises(ScriptError, match=r"192\.0\.2\.9"):
        shop.confined("touch ran", sockets=(("192.0.2.9", 5432),), writable=(shop.folder,))
    assert not (shop.folder / "ran").exists()


def test_socket_file(shop: Workshop, outside: Path) -> None:
    """A server's socket file does not answer, unless it lies where the script may write."""
    program = f"{sys.executable} -c \"import socket; socket.socket(1).connect('{outside}/s')\""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(outside / "s"))
        server.listen()
        refused, _ = shop.confined(program)
        allowed, _ = shop.confined(program, writable=(outside,))
    assert (refused.exit_code, refused.reached) == (1, (f"{outside}/s",))
    assert (allowed.exit_code, allowed.reached) == (0, ())


def test_processes_outside(shop: Workshop) -> None:
    """A process outside cannot be seen or ended."""
    with subprocess.Popen(["sleep", "1000"]) as victim:
        try:
            _, output = shop.confined(f"kill -KILL {victim.pid}; kill -KILL -1; ls -d /proc/[0-9]*")
            assert victim.poll() is None
            assert f"/proc/{victim.pid}" not in output.splitlines()
        finally:
            victim.kill()


def test_escape(shop: Workshop, outside: Path) -> None:
    """No mount can be taken away or changed, also not from namespaces of the script's own."""
    finished, output = shop.confined(
        f"""
        umount -l /tmp; mount -o remount,rw,bind / ; mount -t tmpfs none {outside}
        unshare -m sh -c 'mount -o remount,rw,bind /; touch {outside}/a'
        unshare -Ur -m sh -c 'umount -l /tmp; mount -o remount,rw,bind /; touch {outside}/b'
        nsenter -t 1 -m touch {outside}/c
        mknod {outside}/disk b 254 0 || mknod /tmp/disk b 254 0
        true 3<> /proc/sys/vm/swappiness && echo opened
        unshare -Urpf --mount-proc bash -c 'true 3<> /proc/sys/vm/swappiness && echo opened'
        unshare -Urm bash -c 'mount -o remount,rw,bind /proc; true 3<> /proc/sys/vm/swappiness' &&
            echo opened
        exit 0
        """
    )
    assert finished.exit_code == 0
    assert "opened" not in output
    assert list(outside.iterdir()) == []


def test_privileges(shop: Workshop) -> None:
    """A confined script has no capability over mounts, devices, kernel, clock or network."""
    _, output = shop.confined("exec grep -E '^(Cap(Eff|Prm|Bnd|Amb)|NoNewPrivs)' /proc/self/status")
    found = dict(line.split(":\t") for line in output.splitlines())
    kept = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 10, 18))
    assert found["NoNewPrivs"] == "1"
    assert all(int(value, 16) & ~kept == 0 for value in found.values() if len(value) > 1)


def test_devices(shop: Workshop) -> None:
    """No disk is among the devices, and those that scripts use work."""
    _, output = shop.confined(
        "head -c 3 /dev/zero | wc -c > /dev/stdout; echo x > /dev/null; find /dev -type b"
    )
    assert output == "3\n"


def test_daemon(shop: Workshop) -> None:
    """A daemon that a confined script leaves behind is named, and ended."""
    finished, _ = shop.confined("setsid sleep 1000 & exit 4")
    assert (finished.exit_code, finished.survivors) == (4, ("sleep",))


def test_timeout(shop: Workshop) -> None:
    """A confined script that hangs and will not end is killed."""
    require_confinement(shop.processes)
    body = "trap '' TERM; while :; do sleep 0.05; done"
    finished, _ = shop.run(body, timeout_s=0.5, confine=Confine())
    assert (finished.ended, finished.exit_code) == ("timeout", -signal.SIGKILL)
    assert not is_alive(shop.pids[0])


def test_lost(shop: Workshop) -> None:
    """When somebody kills what holds the confinement, all in it ends, and nobody claims to know."""
    require_confinement(shop.processes)
    (shop.folder / "own").mkdir()
    confine = Confine(writable=(shop.folder / "own",))

    def kill_launcher() -> None:
        fields = Path(f"/proc/{shop.pids[0]}/stat").read_text().rpartition(") ")[2].split()
        os.kill(int(fields[1]), signal.SIGKILL)

    thread = after_line(shop.folder / "own" / "ready", kill_launcher)
    finished, _ = shop.run("echo yes > own/ready; sleep 1000", confine=confine)
    thread.join()
    assert (finished.ended, finished.exit_code) == ("lost", -1)
    assert not is_alive(shop.pids[0])


def test_kills_parent(shop: Workshop) -> None:
    """A confined script that kills its parent harms nobody."""
    finished, output = shop.confined("kill -KILL $PPID; echo still here; exit 5")
    assert (finished.ended, finished.exit_code, output) == ("exited", 5, "still here\n")


def test_read(shop: Workshop, outside: Path) -> None:
    """Files of the watched folder that it reads, runs or sources are told, and no others."""
    lib = shop.folder / "lib"
    lib.mkdir()
    (lib / "data").write_text("x")
    (lib / "unread").write_text("x")
    (lib / "sourced.sh").write_text("cat lib/data")
    (lib / "link").symlink_to("data")
    (outside / "elsewhere").write_text("x")
    run = lib / "run.sh"
    run.write_text("#!/bin/sh\nexit 0\n")
    run.chmod(0o755)
    finished, _ = shop.confined(
        f". lib/sourced.sh; lib/run.sh; cat {outside}/elsewhere; cat lib/missing",
        watched=shop.folder,
    )
    names = {Path(name).relative_to(shop.folder).as_posix() for name in finished.read}
    assert names == {"script.sh", "lib/sourced.sh", "lib/data", "lib/run.sh"}


def test_lock_file(shop: Workshop) -> None:
    """A file with a name that others know is told; what `mktemp` and the shell make is not."""
    finished, _ = shop.confined(
        "echo $$ > /tmp/pilot.lock; t=$(mktemp); echo x > $t; cat <<< here; d=$(mktemp -d);"
        "echo x > $d/part; mv $d/part $d/whole; rm -r $t $d; rm -f /tmp/other.lock"
    )
    assert finished.reached == ("/tmp/pilot.lock",)


def test_bounded(shop: Workshop) -> None:
    """What is told has a bound, and says when it was met."""
    finished, _ = shop.confined("for n in {1..1200}; do : > /tmp/name$n; done")
    assert len(finished.reached) == 1000
    assert "more than 1,000" in finished.traced


def test_unconfinable_here(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine cannot confine, the script runs, and it is said why it was not."""
    monkeypatch.setattr(shop.processes, "_reason", "this kernel has no namespaces")
    finished, output = shop.run("echo ran", confine=Confine())
    assert output == "ran\n"
    assert finished.confined == "this kernel has no namespaces"
    assert finished.traced == finished.confined
