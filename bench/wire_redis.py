"""What the Redis guard costs, against the server itself, in one run.

Rules:
- The guard runs in a process of its own and holds (`hold`); the client is redis-benchmark, over
  TCP on this machine.
- Slices alternate (`bench.turns`); each is so many requests that it takes about a second direct.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Mapping
from functools import partial

from bench.turns import Row, Turns, measured, row
from support import guard_process, redis_server

REQUESTS = 120_000
KEYS = 1_000_000
# Clients, commands a pipeline, keys, and the least share of the direct rate that is promised.
SHAPES = ((1, 1, 1, None), (50, 1, 1, 0.45), (50, 16, 1, 0.6), (50, 16, KEYS, None))


def main() -> list[Row]:
    """Return the ratios; rows that say why where there is nothing to measure with."""
    program = shutil.which("redis-benchmark")
    if program is None or redis_server.server_program() is None:
        detail = "skipped: no redis-server or redis-benchmark here (Debian: redis-server)"
        return [{"name": "redis GET / direct", "ratio": None, "bound": None, "detail": detail}]
    with redis_server.running() as server:
        with server.client() as client:
            client.set("key:__rand_int__", "xxx")
        direct = {"host": server.host, "port": str(server.port)}
        direct |= {"user": "default", "password": server.password}
        with guard_process.running("redis", server.url, mode="hold") as guard:
            targets = {"direct": direct, "guard": dict(guard.parts)}
            return [_shape(program, targets, *shape) for shape in SHAPES]


def _shape(
    program: str,
    targets: Mapping[str, Mapping[str, str]],
    clients: int,
    pipeline: int,
    keys: int,
    bound: float | None,
) -> Row:
    words = ["-t", "get", "-c", str(clients), "-P", str(pipeline)]
    words += ["-r", str(keys)] if keys > 1 else []
    requests = REQUESTS * (10 if pipeline > 1 else 1) // (3 if clients == 1 else 1)
    turns: Turns = measured(
        {
            name: partial(_rate, program, parts, *words, "-n", str(requests))
            for name, parts in targets.items()
        }
    )
    of_keys = f", {keys:,} keys" if keys > 1 else ""
    name = f"redis GET, {clients} clients, pipeline of {pipeline}{of_keys} / direct"
    return row(name, turns, "direct", bound, "a second")


def _rate(program: str, parts: Mapping[str, str], *words: str) -> float:
    """Return requests a second."""
    argv = [program, "-h", parts["host"], "-p", parts["port"], "--user", parts["user"]]
    argv += ["-a", parts["password"], "--csv", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    rows = list(csv.reader(done.stdout.splitlines()))
    found = [line for line in rows if line and line[0].startswith("GET")]
    if not found:
        raise RuntimeError(f"redis-benchmark: {done.stdout[-300:]}{done.stderr[-300:]}")
    return float(found[-1][1])


if __name__ == "__main__":
    for one in main():
        print(one)
