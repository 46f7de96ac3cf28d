"""Make backups: a dump in directory format, or a physical copy of the cluster where that is faster.

Rules:
- A dump and its checksums are read in one exported snapshot, so they say the same.
- A physical copy holds the whole cluster, and no unlogged table: it is made only where the cluster
  holds little else and none of those, the role may replicate, and the same major version's server
  is here. Its checksums are kept only where
  no transaction began or ended meanwhile; else the backup has none.
- Space is looked at first. All is durable on return; after any error the directory is empty.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from handrail.adapters.postgres import notes as noting
from handrail.adapters.postgres.binaries import Binaries, choose
from handrail.adapters.postgres.connecting import (
    LOCK_TIMEOUT_S,
    Address,
    Session,
    one,
    reading,
)
from handrail.adapters.postgres.content import fingerprint
from handrail.adapters.postgres.scratch import sync_folder
from handrail.errors import StoreError
from handrail.plans.facts import Fingerprint
from handrail.ports import Progress

DUMP = "dump"
COPY = "data"
# Below this a dump is as fast, and holds less than a copy of the whole cluster.
PHYSICAL_FROM_BYTES = 64 * 1024 * 1024
PHYSICAL_SHARE = 0.6
POLL_S = 0.1


def make(
    address: Address,
    into: Path,
    environment: Mapping[str, str],
    progress: Progress,
    *,
    physical_from_bytes: int = PHYSICAL_FROM_BYTES,
) -> tuple[str, Fingerprint | None]:
    """Write a backup into the empty directory `into`; return its form and checksums.

    Raises:
        StoreError: it could not be made; `into` is empty again.
    """
    try:
        with reading(address, timeout_s=0) as session:
            major = int(one(session, "SHOW server_version_num")) // 10000
            binaries = choose(major, environment)
            _check_space(session, into)
            if _can_copy(session, binaries, major, physical_from_bytes):
                form, found = "pg_basebackup", _copy(session, address, binaries, into, progress)
            else:
                form, found = "pg_dump", _dump(session, address, binaries, into, progress)
            noting.write(noting.read_notes(session, form), into)
        sync_tree(into)
    except BaseException:
        _empty(into)
        raise
    return form, found


def _check_space(session: Session, into: Path) -> None:
    size = int(one(session, "SELECT pg_database_size(current_database())"))
    free = shutil.disk_usage(into).free
    if free < size:
        raise StoreError(
            "store.disk-full",
            f"a backup may need {size:,} bytes and {into} has {free:,} free",
            hint="free some space, or keep Handrail's state on a larger disk",
        )


def _can_copy(session: Session, binaries: Binaries, major: int, from_bytes: int) -> bool:
    """Return whether a physical copy is possible and faster."""
    if binaries.major != major or not binaries.has("pg_basebackup"):
        return False
    size, everything, replicates, spaces, pooled = session.execute(
        """
        SELECT pg_database_size(current_database()), (SELECT sum(CASE WHEN
                has_database_privilege(d.oid, 'CONNECT')
                OR pg_has_role('pg_read_all_stats', 'USAGE')
                THEN pg_database_size(d.oid) ELSE 1e18 END) FROM pg_database d),
            (SELECT r.rolreplication OR r.rolsuper FROM pg_roles r WHERE r.rolname = session_user)
                AND current_setting('max_wal_senders')::int >= 2,
            EXISTS (SELECT FROM pg_tablespace t WHERE t.spcname NOT IN ('pg_default', 'pg_global'))
                OR EXISTS (SELECT FROM pg_class c WHERE c.relpersistence = 'u'),
            pg_backend_pid() <> %s
        """,
        [session.info.backend_pid],
    ).fetchone() or (0, 0, False, True, True)
    worth = size >= from_bytes and size >= PHYSICAL_SHARE * float(everything)
    return bool(worth and replicates and not spaces and not pooled)


def _dump(
    session: Session, address: Address, binaries: Binaries, into: Path, progress: Progress
) -> Fingerprint:
    snapshot = str(one(session, "SELECT pg_export_snapshot()"))
    size = int(one(session, "SELECT pg_database_size(current_database())"))
    argv = [binaries.program("pg_dump"), "-Fd", "-f", str(into / DUMP), "-j", str(jobs())]
    argv += ["--snapshot", snapshot, "-Z", "1", "--no-password", "--no-sync"]
    argv += [f"--lock-wait-timeout={LOCK_TIMEOUT_S}s"]
    process = Running(argv, address)
    try:
        found = fingerprint(session)
        process.wait(lambda: progress(tree_bytes(into), size))
    finally:
        process.end()
    return found


def _copy(
    session: Session, address: Address, binaries: Binaries, into: Path, progress: Progress
) -> Fingerprint | None:
    before = one(session, "SELECT pg_current_snapshot()::text")
    found = fingerprint(session)
    size = int(one(session, "SELECT sum(pg_database_size(oid)) FROM pg_database"))
    argv = [binaries.program("pg_basebackup"), "-D", str(into / COPY), "-X", "stream", "-c", "fast"]
    argv += ["--no-password", "--no-sync", "--manifest-checksums=CRC32C"]
    process = Running(argv, address)
    try:
        process.wait(lambda: progress(tree_bytes(into), size))
    finally:
        process.end()
    with reading(address) as later:
        after = one(later, "SELECT pg_current_snapshot()::text")
    return found if before == after else None


class Running:
    """One of PostgreSQL's programs at work for us, ended with the block that started it."""

    def __init__(self, argv: Sequence[str], address: Address) -> None:
        self.name = Path(argv[0]).name
        self._address = address
        environment = {k: v for k, v in os.environ.items() if k.startswith("PG") or k == "HOME"}
        environment |= {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "PGAPPNAME": "handrail"}
        environment |= {"PGCONNECT_TIMEOUT": "10", **address.environment()}
        self._process = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def wait(self, tick: Callable[[], object]) -> str:
        """Wait for the end, calling `tick` meanwhile; return what it said on stderr.

        Raises:
            StoreError: it failed.
        """
        said = self._said(tick)
        if self._process.returncode != 0:
            raise StoreError(
                _code(said),
                f"{self.name} failed: {self.shorten(said)}",
                hint="see the message; a role that may read everything has pg_read_all_data",
            )
        return said

    def _said(self, tick: Callable[[], object]) -> str:
        while True:
            try:
                _, said = self._process.communicate(timeout=POLL_S)
            except subprocess.TimeoutExpired:
                tick()
            else:
                tick()
                return said.decode(errors="replace")

    def finish(self, tick: Callable[[], object]) -> tuple[int, str]:
        """Wait for the end; return the exit code and what it said."""
        said = self._said(tick)
        return self._process.returncode, said

    def shorten(self, said: str) -> str:
        """Return the end of a program's words, on one line, without secrets."""
        text = " ".join(said.split())[-600:]
        for secret in self._address.secrets:
            text = text.replace(secret, "***")
        return text

    def end(self) -> None:
        """End it, when it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.communicate()


def _code(said: str) -> str:
    if "No space left on device" in said:
        return "store.disk-full"
    return "store.denied" if "permission denied" in said else "backup.failed"


def jobs() -> int:
    """Return how many parallel jobs this machine is good for."""
    return max(2, min(8, os.cpu_count() or 2))


def tree_bytes(folder: Path) -> int:
    """Return the bytes of all files below, those that vanish meanwhile left out."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(path) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def sync_tree(folder: Path) -> None:
    """Make every file and name below durable."""
    for path, _, names in os.walk(folder):
        for name in names:
            handle = os.open(Path(path) / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(path))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
