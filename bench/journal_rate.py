"""How fast the journal takes a step's records, against the bare commit rate of SQLite.

Rules:
- All write rows of the same size to the same disk with WAL and synchronous=FULL, one commit a row.
- `journal-rate` compares with the barest commit there is: one INSERT of one text into a table with
  a number for a key. `journal-rate-same-columns` has the journal's columns and key on the bare
  side, and no bound: it tells what the record's shape costs from what Handrail's own work does.
- Interleaved in short turns (A B C A B C ...), so that a slow moment of the disk hits all; a ratio
  is the median over the turns.
- The share is smallest where fsync is fastest: the journal's own work is tens of microseconds.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from handrail.adapters.sqlite_journal import SqliteJournal
from handrail.adapters.system import SystemClock

BOUND = 0.8
_TURNS = 20
_ROWS_A_TURN = 100
_BODY = {"step": 3, "name": "scripts/reset_pilot.sh", "target": "store/pilot-db", "note": "x" * 160}


def main() -> list[dict[str, object]]:
    """Return the journal's appends a second as shares of bare commits a second."""
    # Not /tmp: that is memory on many machines, and fsync costs nothing there.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        journal = SqliteJournal(Path(name) / "journal.db", SystemClock())
        row = tuple(vars(journal.append("run-1", "done", _BODY)).values())
        bare, same = _bare(Path(name) / "bare.db"), _same(Path(name) / "same.db")
        text = "x" * sum(len(str(value)) for value in row)
        numbers = itertools.count(1)
        turns = [
            (
                _rate(lambda: journal.append("run-1", "done", _BODY)),
                _rate(lambda: bare.execute("INSERT INTO rows (data) VALUES (?)", (text,))),
                _rate(lambda: _insert(same, (row[0], next(numbers), *row[2:]))),
            )
            for _ in range(_TURNS)
        ]
        for open_one in (journal.shut, bare.close, same.close):
            open_one()
    return [
        _compared("journal-rate", [(turn[0], turn[1]) for turn in turns], f">= {BOUND}"),
        _compared("journal-rate-same-columns", [(turn[0], turn[2]) for turn in turns], "none"),
    ]


def _compared(name: str, rates: list[tuple[float, float]], bound: str) -> dict[str, object]:
    ratio = statistics.median(mine / theirs for mine, theirs in rates)
    mine, theirs = (statistics.median(column) for column in zip(*rates, strict=True))
    detail = f"{mine:,.0f} appends/s, {theirs:,.0f} bare commits/s"
    return {"name": name, "ratio": round(ratio, 3), "bound": bound, "detail": detail}


def _bare(path: Path) -> sqlite3.Connection:
    connection = _connect(path)
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, data TEXT NOT NULL) STRICT")
    return connection


def _same(path: Path) -> sqlite3.Connection:
    connection = _connect(path)
    connection.execute(
        "CREATE TABLE rows (chain TEXT, sequence INTEGER, time TEXT, kind TEXT, body TEXT,"
        " previous TEXT, hash TEXT, PRIMARY KEY (chain, sequence)) STRICT, WITHOUT ROWID"
    )
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _insert(bare: sqlite3.Connection, row: tuple[object, ...]) -> None:
    bare.execute("BEGIN IMMEDIATE")
    bare.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    bare.execute("COMMIT")


def _rate(write: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(_ROWS_A_TURN):
        write()
    return _ROWS_A_TURN / (time.perf_counter() - began)


if __name__ == "__main__":
    for row in main():
        print(json.dumps(row))
