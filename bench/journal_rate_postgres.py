"""How fast the journal in PostgreSQL takes a step's records, against the bare commit there.

Rules:
- One server that writes to its disk at each COMMIT, as production does; both sides send prepared
  statements over TCP on this machine, one transaction each.
- `journal-rate-postgres` is the time of a record as a share of that of the barest commit there is:
  one INSERT of one text of the record's size into a table with a number for a key.
- `journal-rate-postgres-cheap` has a server that waits for no disk, where Handrail's own work is
  nearly all there is; it has no bound.
- `journal-threads-postgres` is eight threads of one process that write at once, against one of
  them: what they write together is one transaction.
- Short turns, interleaved, so that a slow moment of the disk hits both; a ratio is the median.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import psycopg

from bench.rehearsal_clone import server
from bench.turns import Row
from handrail.adapters.postgres_journal.journal import PostgresJournal
from handrail.adapters.postgres_journal.link import Link
from handrail.adapters.system import SystemClock

BOUND = 1.3
_TURNS = 20
_ROWS_A_TURN = 100
_THREADS = 8
_BODY = {"step": 3, "name": "scripts/reset_pilot.sh", "target": "store/pilot-db", "note": "x" * 160}


def main() -> list[Row]:
    """Return the journal's time a record as shares of a bare commit's."""
    return [
        *_measured("journal-rate-postgres", "on", BOUND),
        *_measured("journal-rate-postgres-cheap", "off", None),
    ]


def _measured(name: str, fsync: str, bound: float | None) -> list[Row]:
    with server(fsync=fsync, full_page_writes="on") as (cluster, _):
        url = cluster.address().url()
        journal = PostgresJournal(Link(url), SystemClock())
        record = journal.append("run-1", "begun", _BODY)
        text = "x" * sum(len(str(value)) for value in vars(record).values())
        with psycopg.connect(url, autocommit=True) as session:
            session.prepare_threshold = 1
            session.execute(
                "CREATE TABLE bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, data text)"
            )

            def bare() -> object:
                return session.execute("INSERT INTO bare (data) VALUES (%s)", (text,))

            rows = [_compared(name, lambda: journal.append("run-1", "done", _BODY), bare, bound)]
        if bound is not None:
            rows.append(_together(journal))
        journal.shut()
    return rows


def _compared(
    name: str, mine: Callable[[], object], bare: Callable[[], object], bound: float | None
) -> Row:
    turns = []
    for turn in range(_TURNS):
        order = (mine, bare) if turn % 2 else (bare, mine)
        found = {work: _duration_us(work) for work in order}
        turns.append((found[mine], found[bare]))
    ratio = statistics.median(own / other for own, other in turns)
    own, other = (statistics.median(column) for column in zip(*turns, strict=True))
    detail = f"{own:,.0f} us a record, {other:,.0f} us a bare commit"
    return {"name": name, "ratio": round(ratio, 3), "bound": bound, "detail": detail}


def _duration_us(work: Callable[[], object]) -> float:
    work()
    began = time.perf_counter()
    for _ in range(_ROWS_A_TURN):
        work()
    return (time.perf_counter() - began) / _ROWS_A_TURN * 1e6


def _together(journal: PostgresJournal) -> Row:
    """Return how much faster eight threads are than one."""

    def write(chain: str) -> None:
        for _ in range(_ROWS_A_TURN):
            journal.append(chain, "done", _BODY)

    def rate(count: int) -> float:
        threads = [
            threading.Thread(target=write, args=(f"run-{number}",)) for number in range(count)
        ]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return count * _ROWS_A_TURN / (time.perf_counter() - began)

    rate(_THREADS)
    pairs = [(rate(_THREADS), rate(1)) for _ in range(5)]
    ratio = statistics.median(many / one for many, one in pairs)
    many, one = (statistics.median(column) for column in zip(*pairs, strict=True))
    detail = f"{many:,.0f} records/s of {_THREADS} threads, {one:,.0f} of one"
    row: Row = {"name": "journal-threads-postgres", "ratio": round(ratio, 2), "bound": None}
    return row | {"detail": detail}
