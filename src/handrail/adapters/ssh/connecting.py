"""One connection to a node, by the `ssh` program: calls over it, and ports back to this machine.

Rules:
- The host key is one that the estate declares: a known-hosts file is made of these alone, and no
  setting of anybody's turns the check off, adds a key, or takes one from elsewhere.
- Everything else is as the team's own config says: user, port, proxy, agent, identity.
- Nothing about a step stands on a command line, here or there: what is asked comes by standard
  input.
- Over a connection that is gone nothing is asked: no second one is made unseen.
- It ends with this process, however that ends: its far end waits on our standard input.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from handrail.errors import ScriptError

CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 15, 60
ALIVE_S, ALIVE_TIMES = 5, 4
NOISE_LIMIT_BYTES = 64 * 1024
LINE_LIMIT_BYTES = 4096
SAID_LIMIT_BYTES = 8192
_SOCKET_LIMIT_CHARACTERS = 80  # of 108, and ssh adds some of its own
_ALIAS = "handrail-node"
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True)
class Node:
    """Where a step runs.

    Attributes:
        ref: `node/web-1`, for people.
        address: as the team's ssh config knows it.
        user: empty for whom the config says.
        port: 0 for what the config says.
        host_keys: type and key, as in the node's `/etc/ssh/ssh_host_*_key.pub`.
        work: folder there for private folders of steps.
    """

    ref: str
    address: str
    user: str = ""
    port: int = 0
    host_keys: tuple[str, ...] = ()
    work: str = "/var/tmp"  # noqa: S108  private folders are made in it


class CutError(Exception):
    """The connection is gone; what was asked may have been done, or not."""


def quoted(text: str) -> str:
    """Return text as one word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


class Link:
    """A connection that is up, until it is closed or cut."""

    def __init__(self, node: Node, config: Path | None = None) -> None:
        """Connect.

        Args:
            node: whom to.
            config: what `ssh` reads instead of the user's own config.

        Raises:
            ScriptError: the node is not there, is another one, or lets nobody in.
        """
        self.node = node
        self._calls: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        if not shutil.which("ssh"):
            raise ScriptError("node.unreachable", f"{node.ref} needs the program `ssh` here")
        self._folder = _private_folder()
        try:
            self._master = self._connect(config)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    # --- coming and going ----------------------------------------------------------------------

    def _connect(self, config: Path | None) -> subprocess.Popen[bytes]:
        if not self.node.host_keys:
            raise ScriptError(
                "node.host-key",
                f"{self.node.ref} declares no `host-keys`: nobody could tell it from another",
                hint="on the node: cat /etc/ssh/ssh_host_ed25519_key.pub",
            )
        known = self._folder / "known"
        known.write_text("".join(f"{_ALIAS} {key}\n" for key in self.node.host_keys))
        nonce = secrets.token_hex(16)
        said = self._folder / "said"
        with said.open("wb") as file:
            master = _start(
                [
                    *("ssh", *(("-F", str(config)) if config else ())),
                    *_options(_settings(self._folder, known)),
                    *(("-l", self.node.user) if self.node.user else ()),
                    *(("-p", str(self.node.port)) if self.node.port else ()),
                    "--",
                    self.node.address,
                    f"exec sh -c 'echo {nonce}; exec cat >/dev/null'",
                ],
                file,
            )
        try:
            if not _answers(master, nonce):
                _end(master)
                raise self._refused(said)  # noqa: TRY301  whatever is raised, it is ended
        except BaseException:
            _end(master)
            raise
        return master

    def _refused(self, said: Path) -> ScriptError:
        with said.open("rb") as file:
            file.seek(max(0, said.stat().st_size - SAID_LIMIT_BYTES))
            text = file.read().decode(errors="replace")
        ref = self.node.ref
        if "key verification failed" in text.lower():
            shown = _FINGERPRINT.search(text)
            return ScriptError(
                "node.host-key",
                f"what answers at {self.node.address} is not {ref} as declared"
                + (f": its host key is {shown.group()}" if shown else ""),
                hint="was it made anew? then correct its `host-keys`; else tell somebody",
            )
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        last = lines[-1] if lines else "it says nothing that was asked for"
        if "permission denied" in text.lower() or "authentication fail" in text.lower():
            return ScriptError(
                "node.denied",
                f"{ref} lets nobody in: {last}",
                hint="is the key in your agent? ssh-add -l",
            )
        return ScriptError("node.unreachable", f"{ref} cannot be reached: {last}")

    def close(self) -> None:
        """End the connection, and every call over it. Twice equals once."""
        with self._lock:
            calls, self._calls = self._calls, set()
        for process in (*calls, self._master):
            _end(process)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- asking --------------------------------------------------------------------------------

    def forward(self, host: str, port: int, at: int = 0) -> int:
        """Let the node's own port `at` (0 for any that is free) lead to `host:port` here.

        Returns:
            The node's port.

        Raises:
            CutError: the connection is gone.
            ScriptError: the node allows no ports to be forwarded, or not that one.
        """
        done = subprocess.run(
            [
                *("ssh", "-F", "none", "-O", "forward"),
                *("-o", f"ControlPath={self._folder / 'c'}"),
                *("-R", f"127.0.0.1:{at}:{host}:{port}", "--", self.node.address),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            start_new_session=True,
        )
        text = done.stdout.decode(errors="replace").strip()
        if done.returncode == 0 and (at or (text.isascii() and text.isdigit())):
            return at or int(text)
        if self._master.poll() is not None:
            raise CutError
        raise ScriptError(
            "node.unfit",
            f"{self.node.ref} does not let a script reach its guard: no port is forwarded",
            hint="its sshd_config needs `AllowTcpForwarding yes` (or `remote`)",
        )

    @contextlib.contextmanager
    def asking(self, text: bytes) -> Iterator[Call]:
        """Let the node's shell read `text`, and give what it says, line by line."""
        nonce = secrets.token_hex(16)
        whole = f"printf '%s\\n' {nonce}\n".encode() + text
        words = f"exec sh -c 'eval \"$(dd bs=1 count={len(whole)} 2>/dev/null)\"'"
        process = _start(
            [
                *("ssh", "-F", "none", "-T"),
                # Where the control socket is gone ssh would connect anew: it must not.
                *_options({"ProxyCommand": "exit 1", "ControlPath": self._folder / "c"}),
                *_options({"BatchMode": "yes", "StrictHostKeyChecking": "yes"}),
                *("--", self.node.address, words),
            ],
            subprocess.DEVNULL,
        )
        with self._lock:
            self._calls.add(process)
        try:
            call = Call(process)
            call.send([whole])
            if not _answers(process, nonce):
                raise CutError
            yield call
        finally:
            with self._lock:
                self._calls.discard(process)
            _end(process)


class Call:
    """One question to the node, and what it says to it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def send(self, pieces: Iterable[bytes], *, is_last: bool = False) -> None:
        """Write to what the node's shell reads.

        Raises:
            CutError: nobody reads it any more, and nothing was said why.
        """
        file = self._process.stdin
        if file is None:
            raise CutError
        try:
            for piece in pieces:
                file.write(piece)
            file.flush()
            if is_last:
                file.close()
        except OSError:
            with contextlib.suppress(OSError):
                file.close()
            if not is_last:
                raise CutError from None  # else what it says tells why it reads no more

    def line(self) -> str:
        """Return the next line, without its end.

        Raises:
            CutError: there is none; or it is longer than any of ours.
        """
        found = _stdout(self._process).readline(LINE_LIMIT_BYTES)
        if not found.endswith(b"\n"):
            raise CutError
        return found[:-1].decode(errors="replace")

    def bytes(self, count: int) -> bytes:
        """Return exactly so many bytes.

        Raises:
            CutError: there are fewer.
        """
        found = _stdout(self._process).read(count)
        if len(found) < count:
            raise CutError
        return found


def _settings(folder: Path, known: Path) -> dict[str, object]:
    """Return what is not left to anybody's config."""
    return {
        # Who the node is.
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": known,
        "GlobalKnownHostsFile": "/dev/null",
        "KnownHostsCommand": "none",
        "HostKeyAlias": _ALIAS,
        "UpdateHostKeys": "no",
        "VerifyHostKeyDNS": "no",
        "CheckHostIP": "no",
        "NoHostAuthenticationForLocalhost": "no",
        # Nobody is asked, and nothing is lent to the node.
        "BatchMode": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "ClearAllForwardings": "yes",
        "Tunnel": "no",
        "PermitLocalCommand": "no",
        # The connection is ours alone, is one session, and does not hang for ever.
        "ControlMaster": "yes",
        "ControlPath": folder / "c",
        "ControlPersist": "no",
        "RemoteCommand": "none",
        "SessionType": "default",
        "RequestTTY": "no",
        "StdinNull": "no",
        "ForkAfterAuthentication": "no",
        "ConnectTimeout": CONNECT_TIMEOUT_S,
        "ServerAliveInterval": ALIVE_S,
        "ServerAliveCountMax": ALIVE_TIMES,
        "LogLevel": "ERROR",
    }


def _options(settings: dict[str, object]) -> list[str]:
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _private_folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="handrail-"))
    if len(str(made)) > _SOCKET_LIMIT_CHARACTERS:
        made.rmdir()
        made = Path(tempfile.mkdtemp(prefix="handrail-", dir="/tmp"))
    return made


def _start(words: list[str], errors: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start ssh out of the reach of the terminal's Ctrl-C: what that means is decided here."""
    return subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
    )


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        raise CutError
    return process.stdout


def _answers(process: subprocess.Popen[bytes], nonce: str) -> bool:
    """Whether the node's shell says `nonce` in time."""
    timer = threading.Timer(ANSWER_TIMEOUT_S, process.kill)
    timer.daemon = True
    timer.start()
    try:
        return _heard(_stdout(process), nonce)
    finally:
        timer.cancel()


def _heard(file: IO[bytes], nonce: str) -> bool:
    """Read up to the line `nonce`: what a login shell prints of its own comes before it."""
    left = NOISE_LIMIT_BYTES
    while left > 0:
        line = file.readline(left)
        if line.endswith(nonce.encode() + b"\n"):
            return True
        if not line:
            return False
        left -= len(line)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End an ssh of ours, at once: what matters on the node does not hang on it."""
    for file in (process.stdin, process.stdout):
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
