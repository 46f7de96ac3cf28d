"""How long a clone takes, against one-job `pg_dump | pg_restore` and a plain copy, in one run.

Rules:
- `HANDRAIL_BENCH_GB` sets the size of the database; the default is small enough for any machine.
- The clone's time is from a finished backup to a server that answers, as in a rehearsal.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from handrail.adapters.postgres import PostgresStore, scratch
from handrail.adapters.postgres.binaries import installed
from handrail.adapters.postgres.scratch import Cluster

Row = dict[str, object]
ROWS_OF_ONE_GB = 4_200_000
SETTINGS = {"autovacuum": "off", "shared_buffers": "256MB", "max_wal_size": "8GB"}


@contextmanager
def server(**more: str) -> Iterator[tuple[Cluster, Path]]:
    """Give a server of our own and a folder beside it; both go afterwards.

    Args:
        more: settings besides the usual ones.
    """
    binaries = installed(os.environ)[0]
    folder = Path(tempfile.mkdtemp(prefix="handrail-bench-"))
    try:
        place = scratch.prepare(folder / "server")
        superuser, password = scratch.create(place, binaries)
        port = scratch.start(place, place.data, binaries, {**SETTINGS, **more})
        yield Cluster(place, place.data, binaries, superuser, password, port), folder
    finally:
        scratch.discard(folder / "server")
        shutil.rmtree(folder, ignore_errors=True)


def fill(cluster: Cluster, size_gb: float) -> None:
    """Make a database `pilot` of about that size: rows, a key, and two more indexes."""
    with psycopg.connect(cluster.address().url(), autocommit=True) as session:
        session.execute("CREATE DATABASE pilot")
    with psycopg.connect(cluster.address("pilot").url(), autocommit=True) as session:
        session.execute(
            "CREATE TABLE readings (id bigint PRIMARY KEY, device int, taken_at timestamptz,"
            " value double precision, note text)"
        )
        session.execute(
            "INSERT INTO readings SELECT i, mod(i, 1000), '2020-01-01'::timestamptz + i * interval"
            " '1 s', random(), repeat(md5(i::text), 3) FROM generate_series(1, %s) i",
            [int(size_gb * ROWS_OF_ONE_GB)],
        )
        session.execute("CREATE INDEX ON readings (device)")
        session.execute("CREATE INDEX ON readings (taken_at)")
        session.execute("VACUUM ANALYZE")
        session.execute("CHECKPOINT")


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that `work` took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def pipe(cluster: Cluster) -> None:
    """Restore the database into another of the same server, by one job."""
    with psycopg.connect(cluster.address().url(), autocommit=True) as session:
        session.execute("CREATE DATABASE piped")
    environment = {**cluster.address("pilot").environment(), "PATH": "/usr/bin:/bin"}
    dump = subprocess.Popen(
        [cluster.binaries.program("pg_dump"), "-Fc", "-Z0"],
        env=environment,
        stdout=subprocess.PIPE,
    )
    subprocess.run(
        [cluster.binaries.program("pg_restore"), "-d", "piped"],
        env=environment,
        stdin=dump.stdout,
        check=True,
    )
    if dump.wait() != 0:
        raise RuntimeError("pg_dump failed")


def main() -> list[dict[str, object]]:
    """Return the ratios; the bound of a copied clone is a third of the pipe's time."""
    size_gb = float(os.environ.get("HANDRAIL_BENCH_GB", "0.25"))
    found: list[Row] = []
    with server() as (cluster, folder):
        fill(cluster, size_gb)
        piped_s = timed(lambda: pipe(cluster))
        with psycopg.connect(cluster.address().url(), autocommit=True) as session:
            session.execute("DROP DATABASE piped")
            session.execute("CHECKPOINT")
        for form, from_bytes in (("pg_basebackup", 0), ("pg_dump", 2**60)):
            found += _clone(cluster, folder / form, from_bytes, piped_s, form)
        found.append(_plain_copy(cluster, folder, piped_s, found))
    return found


def _clone(cluster: Cluster, folder: Path, from_bytes: int, piped_s: float, form: str) -> list[Row]:
    store = PostgresStore(
        "store/bench", cluster.address("pilot").url(), physical_from_bytes=from_bytes
    )
    (folder / "backup").mkdir(parents=True)
    made = []
    backup_s = timed(
        lambda: made.append(store.backup("b1", folder / "backup", lambda _done, _total: None))
    )
    if made[0].form != form:
        raise RuntimeError(f"the backup is {made[0].form}, not {form}")
    clone_s = timed(lambda: store.clone(made[0], folder / "at", "m", lambda _done, _total: None))
    store.discard(folder / "at")
    shutil.rmtree(folder)
    physical = form == "pg_basebackup"
    detail = f"clone {clone_s:.2f} s, backup {backup_s:.2f} s, pipe {piped_s:.2f} s"
    name = f"clone from {form} / pg_dump | pg_restore"
    bound = 1 / 3 if physical else None
    return [{"name": name, "ratio": clone_s / piped_s, "bound": bound, "detail": detail}]


def _plain_copy(cluster: Cluster, folder: Path, piped_s: float, found: list[Row]) -> Row:
    copied_s = timed(
        lambda: subprocess.run(["cp", "-a", str(cluster.data), str(folder / "plain")], check=True)
    )
    ratio = float(str(found[0]["ratio"])) * piped_s / copied_s
    name = "clone from pg_basebackup / cp of the same files"
    return {"name": name, "ratio": ratio, "bound": None, "detail": f"cp {copied_s:.2f} s"}


if __name__ == "__main__":
    for row in main():
        print(row)
