"""A server of our own, to be thrown away: started, stopped and removed with all its files.

Rules:
- `.handrail-clone` is written, durable, before anything else is made: a directory without it is
  not ours and is never removed; one with it can be cleaned after a kill at any moment.
- It listens on 127.0.0.1 alone, at a random port; its users have random passwords that stand
  neither in a file nor on a command line. No Unix socket: its path may be longer than one can be.
- As root the server runs as `nobody`: a script could tell it to write any file.
- A server for one purpose (`passing`) dies with this process, however that ends.
- A process is ended only when its working directory is the server's: a number in a file proves
  nothing.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from handrail.adapters.redis.connecting import Address, connected
from handrail.adapters.redis.programs import Program
from handrail.errors import StoreError

RECORD = ".handrail-clone"
DATA = "data"
START_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 20.0
_HOST = "127.0.0.1"
_LOG = "redis.log"
_TRIES = 4
# Servers that die with us; they are waited for when they are stopped.
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
_SETTINGS = {
    "bind": _HOST,
    "protected-mode": "yes",
    "daemonize": "yes",
    "supervised": "no",
    "dir": ".",
    "logfile": _LOG,
    "pidfile": "redis.pid",
    "save": "",
    "appendonly": "no",
    "appendfsync": "no",
    "aof-use-rdb-preamble": "yes",
    "auto-aof-rewrite-percentage": "0",
    "stop-writes-on-bgsave-error": "no",
    "tcp-keepalive": "300",
    "always-show-logo": "no",
}
# Known from 7.0 on.
_NEW_SETTINGS = {"aof-timestamp-enabled": "yes", "enable-debug-command": "no"}


@dataclass(frozen=True)
class Scratch:
    """A running server of our own.

    Attributes:
        folder: where its files are; it works there.
        admin: how we reach it, and nobody else.
    """

    folder: Path
    admin: Address


def claim(at: Path, marker: str) -> Path:
    """Make the empty directory `at` a server's, and return the folder for its files."""
    at.mkdir(mode=0o700, exist_ok=True)
    if any(at.iterdir()):
        raise StoreError(
            "clone.not-distinct",
            f"`{at}` is not an empty directory",
            hint="give a new, empty directory for the clone",
        )
    at.chmod(0o700)
    record = at / RECORD
    descriptor = os.open(record, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(f"{marker}\n")
        stream.flush()
        os.fsync(stream.fileno())
    folder = at / DATA
    folder.mkdir(mode=0o700)
    user = _server_user()
    if user is not None:
        os.chown(folder, user, -1)
    return folder


def place_data(source: Path, folder: Path, name: str) -> None:
    """Put a copy of the file `source` where the server of `folder` will read it."""
    target = folder / name
    shutil.copyfile(source, target)
    target.chmod(0o600)
    user = _server_user()
    if user is not None:
        os.chown(target, user, -1)


@contextmanager
def passing(at: Path, program: Program, data: Path | None, databases: int) -> Iterator[Scratch]:
    """Run a server with the RDB file `data` in the new directory `at`, for the time of a `with`."""
    at.mkdir(mode=0o700)
    try:
        folder = claim(at, "passing")
        if data is not None:
            place_data(data, folder, "dump.rdb")
        settings = {"dbfilename": "dump.rdb", "databases": str(databases)}
        yield start(folder, program, settings, dies_with_us=True)
    finally:
        discard(at)


def start(
    folder: Path,
    program: Program,
    settings: Mapping[str, str],
    lines: Sequence[str] = (),
    *,
    dies_with_us: bool = False,
) -> Scratch:
    """Start a server in `folder` and return it once it has loaded its data.

    Args:
        folder: made by `claim`.
        program: to run.
        settings: over the usual ones.
        lines: more of its configuration, such as users.
        dies_with_us: it ends when this process does, where `setpriv` is to be had.

    Raises:
        StoreError: it did not start; with the last lines of its log.
    """
    name, password = f"handrail-{secrets.token_hex(4)}", secrets.token_hex(24)
    users = [f"user {name} on >{password} ~* &* +@all", *lines]
    if not any(line.startswith("user default ") for line in lines):
        users.append("user default off")
    wanted = {**_SETTINGS, **(_NEW_SETTINGS if program.version >= (7, 0) else {}), **settings}
    for _ in range(_TRIES):
        port = _free_port()
        text = [f"{key} {_quoted(value)}" for key, value in {**wanted, "port": str(port)}.items()]
        _begin(folder, program, "\n".join([*text, *users, ""]), dies_with_us=dies_with_us)
        admin = Address("redis", _HOST, port, "", name, password, 0)
        if _answers(folder, admin):
            return Scratch(folder, admin)
    raise StoreError(
        "clone.failed",
        f"the clone's server did not start: {last_words(folder)}",
        hint="see the message; `discard` removes what is there",
    )


def _begin(folder: Path, program: Program, configuration: str, *, dies_with_us: bool) -> None:
    """Give the server its configuration by stdin: passwords stand in no file."""
    keeper = shutil.which("setpriv") if dies_with_us else None
    argv = [keeper, "--pdeathsig", "KILL", program.path, "-"] if keeper else [program.path, "-"]
    if keeper:
        # A daemon is nobody's child: no death would reach it.
        configuration = configuration.replace('daemonize "yes"', 'daemonize "no"')
    user = _server_user()
    process = subprocess.Popen(
        argv,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        user=user,
        group=pwd.getpwuid(user).pw_gid if user is not None else None,
        extra_groups=[] if user is not None else None,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with suppress(BrokenPipeError), process.stdin as given:  # type: ignore[union-attr]
        given.write(configuration.encode())
    if keeper:
        _CHILDREN[process.pid] = process
    else:
        process.wait()


def _answers(folder: Path, admin: Address) -> bool:
    """Wait until the server of `folder` has loaded its data; False when it has ended instead."""
    deadline = time.monotonic() + START_TIMEOUT_S
    has_run = False
    begun = time.monotonic()
    while time.monotonic() < deadline:
        runs = bool(list(inside(folder)))
        has_run = has_run or runs
        if (has_run or time.monotonic() > begun + STOP_TIMEOUT_S) and not runs:
            return False
        try:
            with connected(admin) as session:
                if session.info("persistence").get("loading") == "0":
                    return True
        except StoreError as error:
            # Nobody there yet, or still loading; another server at this port knows no such user.
            if error.code == "store.denied":
                return False
        time.sleep(0.01)
    return False


def last_words(folder: Path) -> str:
    """Return the last lines of a server's log that are more than chatter."""
    try:
        lines = (folder / _LOG).read_text(errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    marked = [line.partition(" # ")[2] for line in lines if " # " in line]
    return " / ".join(marked[-3:] or lines[-3:])


def _free_port() -> int:
    with socket.socket() as one_of_many:
        one_of_many.bind((_HOST, 0))
        return int(one_of_many.getsockname()[1])


def _server_user() -> int | None:
    """Return whom a server runs as when we are root; None when it runs as ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return None


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def inside(folder: Path) -> Iterator[int]:
    """Yield the processes that work in `folder`, this one never."""
    root = str(folder.resolve())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            cwd = str((entry / "cwd").readlink()).removesuffix(" (deleted)")
        except OSError:
            continue
        if cwd == root or cwd.startswith(root + "/"):
            yield int(entry.name)


def stop(folder: Path) -> None:
    """End what works in `folder`, and wait until it has ended; nothing where nothing does."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while left := list(inside(folder)):
        for pid in left:
            _kill(pid)
            if pid in _CHILDREN:
                _CHILDREN.pop(pid).wait()
        if time.monotonic() > deadline:
            raise StoreError(
                "clone.failed",
                f"a server in {folder} could not be ended: process {left[0]}",
                hint="end it by hand; then discard again",
            )
        time.sleep(0.005)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def discard(at: Path) -> None:
    """End the server that was made in `at`, and remove every byte. Twice equals once.

    Raises:
        StoreError: `at` has files, and none of them says that it is a clone.
    """
    if not os.path.lexists(at):
        return
    if at.is_symlink() or not at.is_dir():
        raise _not_a_clone(at)
    if not (at / RECORD).is_file():
        if any(at.iterdir()):
            raise _not_a_clone(at)
        at.rmdir()
        return
    stop(at / DATA)
    # The record goes last: whoever is killed here finds it again.
    for path in at.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != RECORD:
            path.unlink()
    (at / RECORD).unlink()
    at.rmdir()


def _not_a_clone(at: Path) -> StoreError:
    return StoreError(
        "store.not-a-store",
        f"`{at}` is not a clone that Handrail made, and is not removed",
        hint="look into it, and remove it by hand if nobody needs it",
    )


def flush(path: Path) -> None:
    """Make what is written to a file, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
