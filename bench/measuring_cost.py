"""What observing and reading effects costs, against the script's own time, on pgbench-like work.

Rules:
- The script is pgbench with its own transactions; `HANDRAIL_BENCH_TRANSACTIONS` sets how many.
- Everything that Handrail adds counts: observing before, reading after, and on a clone the record
  of row events and the comparison of contents.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg

from bench.rehearsal_clone import Row, server, timed
from handrail.adapters.postgres import PostgresStore
from handrail.adapters.postgres.scratch import Cluster
from handrail.plans.effect import Effect
from handrail.ports import Store

SCALE = 10
BOUND = 0.10


def main() -> list[dict[str, object]]:
    """Return the share that measuring adds, on a shared server and on a clone."""
    with server() as (cluster, folder):
        with psycopg.connect(cluster.address().url(), autocommit=True) as session:
            session.execute("CREATE DATABASE pilot")
        store = PostgresStore("store/bench", cluster.address("pilot").url())
        pgbench(cluster, store, "-i", "-s", str(SCALE), "-q")
        for name in ("backup", "shared", "cloned"):
            (folder / name).mkdir()
        backup = store.backup("b1", folder / "backup", lambda _done, _total: None)
        found = [_cost("on a shared server", cluster, store, folder / "shared")]
        clone = store.clone(backup, folder / "at", "m", lambda _done, _total: None)
        try:
            found.append(_cost("on a clone", cluster, clone, folder / "cloned"))
        finally:
            store.discard(folder / "at")
    return found


def pgbench(cluster: Cluster, store: Store, *options: str) -> None:
    """Run pgbench against a store."""
    environment = {**store.connection().environment, "PATH": "/usr/bin:/bin"}
    argv = [cluster.binaries.program("pgbench"), *options]
    subprocess.run(argv, env=environment, check=True, capture_output=True)


def _cost(name: str, cluster: Cluster, store: Store, before: Path) -> Row:
    transactions = os.environ.get("HANDRAIL_BENCH_TRANSACTIONS", "60000")
    observing_s = timed(lambda: store.observe(before))
    script_s = timed(lambda: pgbench(cluster, store, "-n", "-c", "2", "-t", transactions))
    found: list[Effect] = []
    reading_s = timed(lambda: found.extend(store.effects(before)))
    events = sum(effect.rows or 0 for effect in found)
    detail = f"script {script_s:.2f} s with {events:,} row events, observe {observing_s:.2f} s"
    return {
        "name": f"observe and effects {name} / pgbench",
        "ratio": (observing_s + reading_s) / script_s,
        "bound": BOUND,
        "detail": f"{detail}, effects {reading_s:.2f} s",
    }


if __name__ == "__main__":
    for row in main():
        print(row)
