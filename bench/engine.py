"""What the engine costs: a step, a fan-out, taking up after a kill, and a run that waits.

Rules:
- A step of nothing, one after the other on one target, against the barest commit there is (SQLite
  FULL), or against the same row in PostgreSQL; paired turns on the same disk, the median counts.
- A fan-out is 500 targets with two steps of nothing, ten at once: all of its time is overhead.
- Recovery is a new process's engine over 10,000 open runs of a killed one: most wait for their
  approval, one in a hundred was cut off in a step; until the first of those acts again.
- DBOS is installed into an environment of its own in a cache folder, and runs there; where it
  cannot be had, its rows say so. It gets the same folder for its SQLite file.
"""

from __future__ import annotations

import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from bench.journal_rate import Bare
from bench.rehearsal_clone import server
from bench.turns import Row
from handrail.adapters.embedded import EmbeddedEngine
from handrail.adapters.file_locks import FileLocks
from handrail.adapters.postgres_journal.journal import PostgresJournal
from handrail.adapters.postgres_journal.link import Link
from handrail.adapters.sqlite_journal import SqliteJournal
from handrail.adapters.system import RandomIds, SystemClock
from handrail.plans.walk import Bounds, Lane, Mark, Walk, WalkStep, Wave
from handrail.plans.walk_records import mark_body, opened_mark, walk_chain
from handrail.ports import ActCall, Acted, Entry, Journal

BOUND_STEP = 1.3
BOUND_FAN_OUT_S = 0.6
BOUND_DBOS_STEP = 0.5
BOUND_DBOS_FAN_OUT = 0.1
BOUND_RECOVERY_S = 1.0
BOUND_WAITING_BYTES = 1_000
TARGETS, STEPS, RUNS = 500, 200, 10_000
DBOS = "dbos==3.4.0"
_TURNS, _TURNS_OF_A_PEER = 9, 3
_ROW = "x" * 400


class Nothing:
    """An act that does nothing, at once."""

    def do(self, _: ActCall) -> Acted:
        """Do nothing."""
        return Acted("done")

    check = undo = do


class Told(Nothing):
    """The same, and says when."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[float] = queue.SimpleQueue()

    def do(self, _: ActCall) -> Acted:
        """Say that it was called."""
        self.calls.put(time.perf_counter())
        return Acted("done")


def main() -> list[Row]:
    """Return every ratio."""
    # Not /tmp: that is memory on many machines, and fsync costs nothing there.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        folder = Path(name)
        rows = [*_sqlite(folder), *_waiting(folder)]
    return [*rows, *_postgres()]


def _sqlite(folder: Path) -> list[Row]:
    bare = Bare(
        folder / "bare.db",
        "CREATE TABLE rows (id INTEGER PRIMARY KEY, data TEXT NOT NULL) STRICT",
        "INSERT INTO rows VALUES (?, ?)",
        _ROW,
    )
    with _engine(SqliteJournal(folder / "journal.db", SystemClock()), folder) as engine:
        found = _turns(
            {
                "step": lambda: _walked_s(engine, _lane()) / STEPS,
                "bare": lambda: _rows_s(bare.append),
                "fan-out": lambda: _walked_s(engine, _fan_out()),
            }
        )
        peer = _turns(
            {
                "step": lambda: _walked_s(engine, _lane()) / STEPS,
                "fan-out": lambda: _walked_s(engine, _fan_out()),
            }
            | _dbos(folder),
            _TURNS_OF_A_PEER,
        )
    bare.shut()
    return [
        _ratio("engine-step-sqlite", found, "step", "bare", BOUND_STEP),
        _seconds("engine-fan-out-sqlite", found["fan-out"], BOUND_FAN_OUT_S),
        _ratio("engine-step-over-dbos", peer, "step", "dbos-step", BOUND_DBOS_STEP),
        _ratio("engine-fan-out-over-dbos", peer, "fan-out", "dbos-fan-out", BOUND_DBOS_FAN_OUT),
    ]


def _postgres() -> list[Row]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".bench-")))
        url = stack.enter_context(_postgres_url())
        link = Link(url)
        stack.callback(link.close)
        bare = stack.enter_context(_postgres_row(url))
        engine = stack.enter_context(_engine(PostgresJournal(link, SystemClock()), folder))
        found = _turns(
            {
                "step": lambda: _walked_s(engine, _lane()) / STEPS,
                "bare": lambda: _rows_s(bare),
                "fan-out": lambda: _walked_s(engine, _fan_out()),
            }
        )
    return [
        _ratio("engine-step-postgres", found, "step", "bare", BOUND_STEP),
        _seconds("engine-fan-out-postgres", found["fan-out"], None),
    ]


@contextmanager
def _postgres_url() -> Iterator[str]:
    """Give a database of a server that writes to its disk at each COMMIT."""
    with server(fsync="on", synchronous_commit="on") as (cluster, _):
        yield cluster.address("postgres").url()


@contextmanager
def _postgres_row(url: str) -> Iterator[Callable[[], object]]:
    """Give what commits one row."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE TABLE bare (id bigserial PRIMARY KEY, data text NOT NULL)")
        yield lambda: session.execute("INSERT INTO bare (data) VALUES (%s)", (_ROW,), prepare=True)


@contextmanager
def _engine(journal: Journal, folder: Path) -> Iterator[EmbeddedEngine]:
    locks = FileLocks(folder / "locks")
    engine = EmbeddedEngine(journal, SystemClock(), RandomIds(), locks, {"nothing": Nothing()})
    try:
        yield engine
    finally:
        engine.close()
        if isinstance(journal, SqliteJournal):
            journal.shut()


def _lane() -> Walk:
    """Return one target with many steps."""
    steps = tuple(WalkStep(f"s{n}", "nothing") for n in range(STEPS))
    return Walk("d" * 64, "", "ana", (Lane("store/a", steps),), (Wave("all", ("store/a",)),))


def _fan_out() -> Walk:
    """Return many targets with two steps."""
    steps = (WalkStep("run", "nothing"), WalkStep("watch", "nothing"))
    lanes = tuple(Lane(f"store/{n}", steps) for n in range(TARGETS))
    targets = tuple(lane.target for lane in lanes)
    return Walk("d" * 64, "", "ana", lanes, (Wave("all", targets),), Bounds(at_once=10))


def _walked_s(engine: EmbeddedEngine, walk: Walk) -> float:
    began = time.perf_counter()
    found = engine.follow(engine.submit(walk, ""), _nobody)
    assert found.outcome == "done", found
    return time.perf_counter() - began


def _nobody(_: Mark) -> None:
    """Tell nobody."""


def _rows_s(append: Callable[[], object]) -> float:
    append()
    began = time.perf_counter()
    for _ in range(STEPS):
        append()
    return (time.perf_counter() - began) / STEPS


def _turns(sides: dict[str, Callable[[], float]], turns: int = _TURNS) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(turns):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            found[name].append(sides[name]())
    return found


def _ratio(
    name: str, found: dict[str, list[float]], mine: str, other: str, bound: float | None
) -> Row:
    if other not in found:
        return {"name": name, "ratio": None, "bound": None, "detail": f"skipped: no {DBOS}"}
    ratio = statistics.median(a / b for a, b in zip(found[mine], found[other], strict=True))
    ms = [f"{n} {statistics.median(found[n]) * 1e3:,.2f} ms" for n in (mine, other)]
    return {"name": name, "ratio": round(ratio, 3), "bound": bound, "detail": ", ".join(ms)}


def _seconds(name: str, found: list[float], bound: float | None) -> Row:
    """Return the row of what is bound in seconds; the ratio is seconds."""
    median = statistics.median(found)
    detail = f"{median:.3f} s for {TARGETS} targets x 2 steps, best {min(found):.3f} s"
    return {"name": name, "ratio": round(median, 3), "bound": bound, "detail": detail}


def _waiting(folder: Path) -> list[Row]:
    """Return what recovery and a waiting run cost."""
    journal = SqliteJournal(folder / "many.db", SystemClock())
    _fill(journal)
    journal.shut()
    act = Told()
    locks = FileLocks(folder / "locks-many")
    engine = EmbeddedEngine(journal, SystemClock(), RandomIds(), locks, {"nothing": act})
    began = time.perf_counter()
    engine.recover()
    recovered_s = act.calls.get(timeout=60) - began
    engine.close()
    waiting = _waiting_bytes(journal, folder)
    journal.shut()
    return [
        {
            "name": "engine-recovery",
            "ratio": round(recovered_s, 3),
            "bound": BOUND_RECOVERY_S,
            "detail": f"{recovered_s:.3f} s to the first resumed step of {RUNS:,} open runs",
        },
        {
            "name": "engine-waiting-memory",
            "ratio": round(waiting),
            "bound": BOUND_WAITING_BYTES,
            "detail": f"{waiting:.0f} bytes for each of {RUNS:,} waiting runs",
        },
    ]


def _fill(journal: SqliteJournal) -> None:
    """Record runs as a killed engine left them."""
    step = WalkStep("run", "nothing", recovery="retry")
    lanes = (Lane("store/a", (step,)),)
    waiting = Walk("d" * 64, "", "ana", lanes, (Wave("all", ("store/a",)),), awaits=("approval",))
    cut_off = Walk("d" * 64, "", "ana", lanes, (Wave("all", ("store/a",)),))
    begun = [Mark("wave-begun", body={"number": 0}), Mark("begun", "store/a/run")]
    entries = []
    for number in range(RUNS):
        is_cut_off = number % 100 == 99
        marks = [opened_mark(cut_off, 0), *begun] if is_cut_off else [opened_mark(waiting, 0)]
        chain = walk_chain(number + 1)
        entries += [Entry(chain, mark.kind, mark_body(mark)) for mark in marks]
    journal.write(entries)


def _waiting_bytes(journal: Journal, folder: Path) -> float:
    locks = FileLocks(folder / "locks-many")
    engine = EmbeddedEngine(journal, SystemClock(), RandomIds(), locks, {"nothing": Nothing()})
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    count = engine.recover()
    while engine.is_busy():
        time.sleep(0.01)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    engine.close()
    return (after - before) / count


def _dbos(folder: Path) -> dict[str, Callable[[], float]]:
    """Return DBOS's step and its fan-out by child workflows; nothing where it cannot be had."""
    python = _dbos_python()
    if python is None:
        return {}

    def measured(what: str) -> float:
        argv = [str(python), str(Path(__file__).with_name("engine_dbos.py")), what]
        environment = {**os.environ, "DBOS_FILE": str(folder / "dbos.db")}
        done = subprocess.run(
            [*argv, str(TARGETS), str(STEPS)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
        )
        return float(json.loads(done.stdout.splitlines()[-1])["seconds"])

    return {
        "dbos-step": lambda: measured("step"),
        "dbos-fan-out": lambda: measured("fan-out"),
    }


def _dbos_python() -> Path | None:
    """Return the Python of an environment with DBOS, made where it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "handrail" / "bench" / DBOS.replace("==", "-")
    python = folder / "bin" / "python"
    try:
        if not (folder / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", DBOS], check=True)
            (folder / "installed").touch()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no {DBOS}: {error}", file=sys.stderr)
        return None
    return python


if __name__ == "__main__":
    for row in main():
        print(json.dumps(row))
