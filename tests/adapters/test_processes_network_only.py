"""What a script kept to its guard can do: all that it could, but reach another server."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from handrail.ports import Finished
from support.scripts import Workshop

pytestmark = pytest.mark.root


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="handrail-"))
    yield folder
    shutil.rmtree(folder)


def kept(shop: Workshop, body: str, **reach: Any) -> tuple[Finished, str]:
    """Run a script that may reach its guard alone."""
    return shop.confined(body, network_only=True, **reach)


@contextmanager
def answering(listener: socket.socket) -> Iterator[socket.socket]:
    """A server that answers every connection with `real`."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"real")

    with listener:
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def on_port() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


def at_path(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    return listener


def read(path: str) -> str:
    """Return a command that prints what a socket at `path` says."""
    program = f"import socket as s; c = s.socket(s.AF_UNIX); c.connect({path!r}); print(c.recv(9))"
    return f'{sys.executable} -c "{program}"'


def test_files_are_as_usual(shop: Workshop) -> None:
    """It writes where it may write, the shared folders included, and nothing of that is told."""
    place = Path(f"/tmp/handrail-{os.getpid()}-{shop.folder.name}")
    finished, _ = kept(shop, f"echo a > here; echo b > {place}; echo c > /dev/null")
    try:
        assert (finished.exit_code, finished.confined, finished.reached) == (0, "", ())
        assert (shop.folder / "here").read_text() == "a\n"
        assert place.read_text() == "b\n"
    finally:
        place.unlink()


def test_another_server(shop: Workshop) -> None:
    """A server of this machine, or another machine, does not answer, and the attempt is told."""
    with answering(on_port()) as server:
        port = server.getsockname()[1]
        finished, output = kept(
            shop, f"cat < /dev/tcp/127.0.0.1/{port}; echo x > /dev/tcp/192.0.2.9/6379"
        )
    assert "real" not in output
    assert finished.reached == (f"127.0.0.1:{port}", "192.0.2.9:6379")


def test_the_guard(shop: Workshop) -> None:
    """The guard's own socket answers, and that is not told."""
    with answering(on_port()) as server:
        port = server.getsockname()[1]
        finished, output = kept(
            shop, f"cat < /dev/tcp/127.0.0.1/{port}", sockets=(("127.0.0.1", port),)
        )
    assert (output, finished.reached) == ("real", ())


def test_socket_of_another_server(shop: Workshop, short: Path) -> None:
    """A server's socket file does not answer, wherever it lies, and the attempt is told."""
    with answering(at_path(short / "s")):
        finished, output = kept(shop, read(f"{short}/s"))
    assert "real" not in output
    assert finished.reached == (f"{short}/s",)


def test_hidden_socket_folder(shop: Workshop, short: Path) -> None:
    """A hidden folder is empty: a server that starts later is not found there either."""
    with answering(at_path(short / "s")):
        _, output = kept(shop, f"ls {short}", hidden=(short,))
    assert output == ""


def test_sockets_of_its_own(shop: Workshop, short: Path) -> None:
    """Programs that it starts may talk to each other, and that is not told."""
    program = "import socket as s, sys; a = s.socket(s.AF_UNIX); a.bind(sys.argv[1]); a.listen()\n"
    program += "b = s.socket(s.AF_UNIX); b.connect(sys.argv[1]); print('talked')"
    (shop.folder / "talk.py").write_text(program)
    finished, output = kept(shop, f"{sys.executable} talk.py {short}/own")
    assert (output, finished.reached) == ("talked\n", ())


def test_guard_in_a_hidden_folder(shop: Workshop, short: Path) -> None:
    """The guard's socket may lie in a hidden folder, and answers; its neighbours stay hidden."""
    (short / "guard").mkdir()
    (short / "journal").write_text("secret")
    with answering(at_path(short / "guard" / "s")):
        finished, output = kept(
            shop,
            f"ls {short}; {read(f'{short}/guard/s')}",
            hidden=(short,),
            writable=(short / "guard",),
        )
    assert output == "guard\nb'real'\n"
    assert finished.reached == ()


def test_other_processes(shop: Workshop) -> None:
    """It sees no process but its own: the guard's memory and environment hold the real secrets."""
    _, output = kept(shop, f"ls -d /proc/[0-9]* | wc -l; ls /proc/{os.getpid()}/environ")
    lines = output.splitlines()
    assert int(lines[0]) < 6
    assert "No such file" in lines[1]


def test_no_way_back(shop: Workshop) -> None:
    """No mount, and no namespace of another process, leads out of it."""
    finished, output = kept(
        shop, "nsenter -t 1 -n true; unshare -m true; umount /proc; mount -t tmpfs none /mnt"
    )
    assert finished.exit_code != 0
    assert output.count("\n") >= 3


def test_replaced_folder(shop: Workshop) -> None:
    """A folder is replaced by the guard's copy of it, whatever name the script has for it."""
    real, copy = shop.folder / "tree", shop.folder / "copy"
    real.mkdir()
    copy.mkdir()
    finished, _ = kept(shop, f"echo x > {real}/new; cd tree; ls", replaced=((real, copy),))
    assert finished.exit_code == 0
    assert list(real.iterdir()) == []
    assert (copy / "new").read_text() == "x\n"


def test_replaced_file(shop: Workshop) -> None:
    """A file is replaced by its copy, in a folder whose other files are the real ones."""
    real, copy = shop.folder / "data", shop.folder / "copies"
    (real / "sub").mkdir(parents=True)
    copy.mkdir()
    (real / "app.db").write_text("real")
    (copy / "app.db").write_text("copy")
    (real / "app.db-wal").write_text("the real one's")
    (real / "notes").write_text("a")
    finished, output = kept(
        shop,
        "cd data; cat app.db; ls; echo b >> notes; echo c > sub/new; echo x > app.db; echo > made",
        replaced=((real / "app.db", copy / "app.db"),),
    )
    assert (finished.exit_code, finished.reached) == (0, ())
    assert output.split() == ["copyapp.db", "notes", "sub"]
    assert (real / "app.db").read_text() == "real"
    assert (copy / "app.db").read_text() == "x\n"
    assert (real / "notes").read_text() == "ab\n"
    assert (real / "sub" / "new").read_text() == "c\n"
    assert sorted(path.name for path in copy.iterdir()) == ["app.db", "made"]


def test_replaced_file_beside_what_is_hidden(shop: Workshop) -> None:
    """The file may lie in the script's own folder, with the copy in a hidden one below it."""
    copy = shop.folder / ".state" / "guard" / "copy"
    copy.mkdir(parents=True)
    (shop.folder / ".state" / "journal").write_text("secret")
    (shop.folder / "app.db").write_text("real")
    (copy / "app.db").write_text("copy")
    finished, output = kept(
        shop,
        "cat app.db; ls -A .state; echo x > app.db; echo y > beside",
        replaced=((shop.folder / "app.db", copy / "app.db"),),
        hidden=(shop.folder / ".state",),
        writable=(copy,),
    )
    assert (finished.exit_code, output) == (0, "copyguard\n")
    assert (shop.folder / "app.db").read_text() == "real"
    assert (copy / "app.db").read_text() == "x\n"
