"""A cluster of our own, to be thrown away: made, started, stopped and removed with all its files.

Rules:
- `.handrail-clone` is written, durable, before anything else is made: a directory without it is not
  ours and is never removed; one with it can be cleaned after a kill at any moment.
- It is reached over a private socket directory and 127.0.0.1, always by password; its superuser
  has a random name. Nothing in it calls out, archives or replicates.
- As root the server runs as `nobody`, or else `postgres`: PostgreSQL refuses root, and a clone that
  runs as `postgres` could write the files of a real server on this machine. Where that user cannot
  reach `at`, the files lie in the run directory, which belongs to that user alone.
- A process is ended only when its working directory lies inside: a number in a file proves nothing.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from handrail.adapters.postgres.binaries import Binaries
from handrail.adapters.postgres.connecting import Address
from handrail.errors import StoreError

RECORD = ".handrail-clone"
RUN_NAME = re.compile(r"handrail-[0-9a-f]{12}")
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 20
RUN_FOLDER_LIMIT = 50

# On the command line, where no file of the original and no ALTER SYSTEM of a script overrides them.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "wal_level": "logical",
    "max_wal_senders": "4",
    "max_replication_slots": "16",
    "max_wal_size": "4GB",
    "track_counts": "on",
    "archive_mode": "off",
    "archive_command": "",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "restore_command": "",
    "hot_standby": "on",
    "max_logical_replication_workers": "0",
    "shared_preload_libraries": "",
    "ssl": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "huge_pages": "off",
    "shared_buffers": "128MB",
    "dynamic_shared_memory_type": "posix",
    "unix_socket_permissions": "0700",
    "unix_socket_group": "",
    "external_pid_file": "",
    "hba_file": "pg_hba.conf",
    "ident_file": "pg_ident.conf",
    "cluster_name": "handrail",
}


@dataclass(frozen=True)
class Place:
    """Where a scratch cluster's files are.

    Attributes:
        at: the directory that it was made in, with the record.
        run: a short private directory for sockets.
        home: where `data` and the rest lie: `at`, or `run`.
        user: user id that the server runs as; None for our own.
    """

    at: Path
    run: Path
    home: Path
    user: int | None

    @property
    def data(self) -> Path:
        """The cluster's data directory."""
        return self.home / "data"


@dataclass(frozen=True)
class Cluster:
    """A running scratch cluster and the superuser that only we know."""

    place: Place
    data: Path
    binaries: Binaries
    superuser: str
    password: str
    port: int
    by_network: bool = True

    def address(self, database: str = "postgres") -> Address:
        """Return where we reach it."""
        return Address(
            {
                "host": "127.0.0.1" if self.by_network else str(self.place.run),
                "port": str(self.port),
                "user": self.superuser,
                "password": self.password,
                "dbname": database,
                "passfile": os.devnull,
                "sslmode": "disable",
                "gssencmode": "disable",
            }
        )


def prepare(at: Path) -> Place:
    """Claim the empty directory `at` for a scratch cluster, and return where its files go."""
    at.mkdir(mode=0o700, exist_ok=True)
    at.chmod(0o700)
    run = _run_folder() / f"handrail-{secrets.token_hex(6)}"
    user = _server_user()
    home = at if user is None or _can_pass(at.parent) else run
    record = {"format": 1, "run": str(run), "home": str(home)}
    write_durably(at / RECORD, json.dumps(record).encode())
    run.mkdir(mode=0o700)
    if user is not None:
        for path in {run, home}:
            os.chown(path, user, -1)
    return Place(at, run, home, user)


def _run_folder() -> Path:
    """Return a folder with a short name: the path of a socket has at most 107 bytes."""
    chosen = Path(tempfile.gettempdir())
    return chosen if len(str(chosen)) <= RUN_FOLDER_LIMIT else Path("/tmp")  # noqa: S108 - made private, 0700


def _server_user() -> int | None:
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "postgres"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise StoreError(
        "clone.failed",
        "PostgreSQL does not run as root, and there is no user `nobody` or `postgres`",
        hint="run Handrail as an ordinary user",
    )


def _can_pass(folder: Path) -> bool:
    real = folder.resolve()
    return all(path.stat().st_mode & 0o001 for path in (real, *real.parents))


def write_durably(path: Path, content: bytes) -> None:
    """Write a small file so that it is there after a power cut."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def run_as(
    place: Place, argv: Sequence[str], *, text: str | None = None, cwd: Path | None = None
) -> str:
    """Run a program as the server's user inside the cluster's files, and return its output.

    Raises:
        StoreError: it failed; with the last lines of what it said.
    """
    done = subprocess.run(
        argv,
        cwd=cwd or place.data,
        env=plain_environment(),
        user=place.user,
        extra_groups=[] if place.user is not None else None,
        input=text,
        stdin=None if text is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-500:]
        raise StoreError(
            "clone.failed",
            f"{Path(argv[0]).name} failed: {said}",
            hint="see the message; the clone was not made",
        )
    return done.stdout


def plain_environment() -> dict[str, str]:
    """Return an environment in which PostgreSQL's programs say the same on every machine."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def create(place: Place, binaries: Binaries) -> tuple[str, str]:
    """Make a new cluster in `place.data`; return its superuser and password."""
    superuser, password = f"handrail_{secrets.token_hex(4)}", secrets.token_hex(16)
    own_folder(place, place.data)
    secret = place.home / "password"
    secret.touch(mode=0o600)
    if place.user is not None:
        os.chown(secret, place.user, -1)
    secret.write_text(password + "\n")
    options = ["--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "--no-instructions"]
    options += ["--encoding=UTF8", "--locale=C", f"--username={superuser}"]
    try:
        run_as(place, [binaries.program("initdb"), "-D", str(place.data), *options])
    finally:
        secret.unlink()
    return superuser, password


def own_folder(place: Place, path: Path) -> None:
    """Make an empty private folder that belongs to the server's user."""
    path.mkdir(mode=0o700)
    if place.user is not None:
        os.chown(path, place.user, -1)


def hand_over(place: Place, folder: Path) -> None:
    """Give all files below `folder` to the server's user."""
    if place.user is None:
        return
    for path, _, names in os.walk(folder):
        os.chown(path, place.user, -1)
        for name in names:
            os.chown(Path(path) / name, place.user, -1, follow_symlinks=False)


def start(
    place: Place,
    data: Path,
    binaries: Binaries,
    settings: Mapping[str, str],
    *,
    by_network: bool = True,
) -> int:
    """Start the cluster in `data` and return its port.

    Raises:
        StoreError: it did not start; with the last lines of its log.
    """
    for _ in range(3):
        port = _free_port()
        wanted = {**SETTINGS, "unix_socket_directories": str(place.run), "port": str(port)}
        wanted["listen_addresses"] = "127.0.0.1" if by_network else ""
        if _started(place, data, binaries, {**wanted, **settings}):
            return port
    raise StoreError(
        "clone.failed",
        f"the clone's server did not start: {_last_words(data)}",
        hint="see the message; `discard` removes what is there",
    )


def _started(place: Place, data: Path, binaries: Binaries, settings: Mapping[str, str]) -> bool:
    options = " ".join(shlex.quote(f"--{name}={value}") for name, value in settings.items())
    argv = [binaries.program("pg_ctl"), "start", "-s", "-w", "-t", str(START_TIMEOUT_S)]
    argv += ["-D", str(data), "-l", str(data / "handrail.log"), "-o", options]
    # Its own session, and no pipe of ours: the server outlives this process.
    done = subprocess.run(
        argv,
        cwd=data,
        env=plain_environment(),
        user=place.user,
        extra_groups=[] if place.user is not None else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )
    return done.returncode == 0


def _last_words(data: Path) -> str:
    try:
        lines = (data / "handrail.log").read_text(errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    return " / ".join(lines[-4:])


def _free_port() -> int:
    with socket.socket() as one_of_many:
        one_of_many.bind(("127.0.0.1", 0))
        return int(one_of_many.getsockname()[1])


def stop(data: Path, *, cleanly: bool = False) -> None:
    """End the server of `data`, and wait until it has ended; nothing where none runs.

    `cleanly` writes everything first: the server is to be started again.
    """
    for leader in _leaders(data):
        _signal(leader, signal.SIGINT if cleanly else signal.SIGQUIT)
    _wait_gone(data, timeout_s=600 if cleanly else STOP_TIMEOUT_S)


def _leaders(data: Path) -> Iterator[int]:
    """Yield the postmaster that `data` names, when that process really works there."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return
    if pid in set(inside(data)):
        yield pid


def inside(*folders: Path) -> Iterator[int]:
    """Yield the processes whose working directory is in one of `folders`, this one never."""
    roots = [str(folder.resolve()) for folder in folders]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            cwd = str((entry / "cwd").readlink()).removesuffix(" (deleted)")
        except OSError:
            continue
        if any(cwd == root or cwd.startswith(root + "/") for root in roots):
            yield int(entry.name)


def _wait_gone(*folders: Path, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Wait for the processes inside to end; end them by force after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while left := [pid for pid in inside(*folders) if not _reaped(pid)]:
        if time.monotonic() > deadline:
            for pid in left:
                _signal(pid, signal.SIGKILL)
            deadline += STOP_TIMEOUT_S
        time.sleep(0.01)


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def discard(at: Path) -> None:
    """End everything of the clone in `at`, and remove every byte. Twice equals once.

    Raises:
        StoreError: `at` has files, and none of them says that it is a clone.
    """
    if not at.is_dir():
        return
    folders = [at, *_recorded_run(at)]
    # Servers, and what they or a killed maker started: all of it works in these directories.
    working = [folder / name for folder in folders for name in ("data", "before")]
    for data in working:
        stop(data)
    for pid in inside(*working):
        _signal(pid, signal.SIGKILL)
    _wait_gone(*working)
    # The record goes last: whoever is killed here finds it again.
    for folder in folders[1:]:
        shutil.rmtree(folder, ignore_errors=True)
    for path in at.iterdir():
        if path.name != RECORD:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (at / RECORD).unlink(missing_ok=True)
    at.rmdir()


def _recorded_run(at: Path) -> list[Path]:
    """Return the run directory that the record names, if it is one; refuse what is no clone."""
    try:
        run = Path(json.loads((at / RECORD).read_text())["run"])
    except FileNotFoundError:
        if any(at.iterdir()):
            raise StoreError(
                "store.not-a-store",
                f"{at} is not a clone that Handrail made",
                hint="nothing was removed; remove it by hand if you are sure",
            ) from None
        return []
    except (OSError, ValueError, KeyError, TypeError):
        return []  # cut off while it was written: nothing had been made yet
    is_ours = RUN_NAME.fullmatch(run.name) and run.parent in {_run_folder(), Path("/tmp")}  # noqa: S108
    return [run] if is_ours and run.is_dir() and not run.is_symlink() else []
