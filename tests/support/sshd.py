"""A real OpenSSH server for tests, on 127.0.0.1, as the present user, with keys of its own.

Rules:
- Nothing of this user's or this machine's ssh is read or written: config, keys, agent, known hosts.
- Where there is no server program, tests are skipped with a line that says so; with
  `HANDRAIL_REQUIRE=all` they fail.
- Whatever a test left running is ended by the process group of its connection.

As root the server also needs its empty directory, `/run/sshd`, which is made where it is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from handrail.adapters.ssh import Node, SshProcesses

SERVER_FOLDERS = "/usr/sbin:/usr/local/sbin:/sbin"


def server_program() -> str:
    """Return the server's program; skip the test where there is none."""
    path = f"{os.environ.get('PATH', '')}:{SERVER_FOLDERS}"
    found = shutil.which("sshd", path=path)
    if found and shutil.which("ssh") and shutil.which("ssh-keygen"):
        return found
    said = "no sshd here: apt-get install openssh-server"
    if os.environ.get("HANDRAIL_REQUIRE") == "all":
        pytest.fail(said)
    pytest.skip(said)


@dataclass
class Sshd:
    """A running server, and what a client needs to reach it.

    Attributes:
        folder: of its keys and settings.
        config: for `ssh -F`: which identity to show.
        host_key: as an estate declares it.
    """

    folder: Path
    port: int
    config: Path
    host_key: str
    work: Path
    process: subprocess.Popen[bytes]

    def node(self, **changes: object) -> Node:
        """Return the node that this server is."""
        settings: dict[str, object] = {
            "ref": "node/web-1",
            "address": "127.0.0.1",
            "port": self.port,
            "host_keys": (self.host_key,),
            "work": str(self.work),
        }
        return Node(**{**settings, **changes})  # type: ignore[arg-type]  # a test's own

    def processes(self, **changes: object) -> SshProcesses:
        """Return the runner of that node."""
        return SshProcesses(self.node(**changes), self.config, grace_s=1, overtime_s=10)

    def connections(self) -> list[int]:
        """Return the server's processes for connections, one each at least."""
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        return [int(number) for number in found.stdout.split()]

    def cut(self) -> None:
        """Kill every connection at the server's side, as when a cable is pulled."""
        for number in self.connections():
            for one in (*_below(number), number):
                if _name(one).startswith("sshd"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(one, signal.SIGKILL)

    def end(self) -> None:
        """End the server and every connection; what they started goes on."""
        found = self.connections()
        self.process.kill()
        self.process.wait()
        for number in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def left(self) -> list[str]:
        """Return the folders of steps that are still there."""
        return sorted(path.name for path in self.work.iterdir())


def _below(number: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(number)], capture_output=True, text=True, check=False
    )
    return [int(one) for one in found.stdout.split()]


def _name(number: int) -> str:
    try:
        return Path(f"/proc/{number}/comm").read_text()
    except OSError:
        return ""


def run_sshd(shell: str = "", settings: Sequence[str] = ()) -> Iterator[Sshd]:
    """Give a server, and end it with every connection afterwards.

    Args:
        shell: what every command is read by (`ForceCommand`), `dash` for one; empty for the
            user's own.
        settings: lines of `sshd_config` besides.
    """
    program = server_program()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="hrs-"))
    try:
        for name in ("host", "person"):
            make_key(folder / name)
        (folder / "authorized").write_text((folder / "person.pub").read_text())
        port = free_port()
        words = f'ForceCommand {shell} -c "$SSH_ORIGINAL_COMMAND"' if shell else ""
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nUsePAM no\n"
            f"PidFile none\nStrictModes no\nAuthorizedKeysFile {folder}/authorized\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\n"
            f"{words}\n" + "".join(f"{line}\n" for line in settings)
        )
        config = folder / "config"
        config.write_text(f"IdentityFile {folder}/person\nIdentitiesOnly yes\nIdentityAgent none\n")
        work = folder / "work"
        work.mkdir()
        log = (folder / "log").open("wb")
        process = subprocess.Popen(
            [program, "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        key = " ".join((folder / "host.pub").read_text().split()[:2])
        server = Sshd(folder, port, config, key, work, process)
        try:
            wait_until(lambda: answers(port), f"sshd: {(folder / 'log').read_text()}")
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(is_so: Callable[[], object], what: str, most_s: float = 20.0) -> None:
    """Wait for a condition; fail the test with `what` where it does not come."""
    until = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def make_key(path: Path) -> None:
    """Make a key pair without a passphrase."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Echo:
    """A little server on this machine: answers each line with `heard` and that line."""

    port: int
    heard: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def echoing() -> Iterator[Echo]:
    """Give a server that a script may reach through a forward."""
    listener = socket.create_server(("127.0.0.1", 0))
    echo = Echo(listener.getsockname()[1])

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, client.makefile("rwb") as file:
                    for line in file:
                        echo.heard.append(line.strip())
                        file.write(b"heard " + line)
                        file.flush()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield echo
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
