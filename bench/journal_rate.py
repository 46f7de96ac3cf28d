"""How fast the journal takes a step's records, against the bare commit rate of SQLite.

Rules:
- All write rows of the same size to the same disk with WAL and synchronous=FULL, one commit a row.
- `journal-rate` compares with the barest commit there is: one INSERT of one text into a table with
  a number for a key, and SQLite's own settings for the rest.
- Each turn opens the files and closes them, untimed: as each command does, and SQLite removes the
  log with the last one that closes it. `journal-rate-long` is one process that keeps them open for
  thousands of rows, which no command does; it has no bound, and is the least favourable case.
- A turn is an operation of many steps. One of few (22 rows) ends before the journal's log begins
  anew, and has a smaller share, about 0.75 where a bare commit takes 0.2 ms.
- `journal-rate-same-columns` has the journal's columns, key and checkpoints on the bare side, and
  no bound: it tells what the record's shape costs from what Handrail's own work does.
- Interleaved in short turns (A B C, B C A, ...), so that a slow moment of the disk hits all, and
  none has the best place in each turn (the first does); a ratio is the median over the turns.
- The share is smallest where fsync is fastest: the journal's own work is tens of microseconds, and
  longer right after a commit than in a loop without one, for the caches have gone cold.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Protocol

from handrail.adapters.sqlite_journal import SqliteJournal
from handrail.adapters.sqlite_journal_file import CHECKPOINT_PAGES
from handrail.adapters.system import SystemClock
from handrail.ports import Record

BOUND = 0.8
_SQLITES_OWN_PAGES = 1000
_TURNS = 21  # each side is as often first
_ROWS_A_TURN = 100
_BODY = {"step": 3, "name": "scripts/reset_pilot.sh", "target": "store/pilot-db", "note": "x" * 160}


class Side(Protocol):
    """One that writes rows."""

    def append(self) -> object:
        """Write one row, durably; opens the file where it is not open."""

    def shut(self) -> None:
        """Close the file."""


class Ours:
    """The journal itself."""

    def __init__(self, path: Path) -> None:
        self._journal = SqliteJournal(path, SystemClock())
        self.shut = self._journal.shut

    def append(self) -> Record:
        """Write a record as a step does."""
        return self._journal.append("run-1", "done", _BODY)


class Bare:
    """A table in a file of its own, and one row again and again under the next number."""

    def __init__(self, path: Path, table: str, insert: str, *row: object) -> None:
        self._path, self._insert, self._row = path, insert, row
        self._numbers = itertools.count(1)
        self._pages = _SQLITES_OWN_PAGES
        self._connection: sqlite3.Connection | None = None
        self._opened().execute(table)

    def checkpoint_after(self, pages: int) -> Bare:
        """Begin the log anew after so many pages."""
        self._pages = pages
        self.shut()
        return self

    def append(self) -> object:
        """Write the row."""
        return self._opened().execute(self._insert, (next(self._numbers), *self._row))

    def shut(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {self._pages}")
        return self._connection


def main() -> list[dict[str, object]]:
    """Return the journal's appends a second as shares of bare commits a second."""
    # Not /tmp: that is memory on many machines, and fsync costs nothing there.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        turns = _turns(_sides(Path(name)), is_shut_between=True)
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        long = _turns(_sides(Path(name)), is_shut_between=False)
        steady = long[2 * len(long) // 3 :]  # the log of the bare side grows no more
    return [
        _compared("journal-rate", turns, 1, BOUND),
        _compared("journal-rate-long", steady, 1, None),
        _compared("journal-rate-same-columns", turns, 2, None),
    ]


def _sides(folder: Path) -> tuple[Side, ...]:
    """Return the journal, the bare commit, and the bare commit of the journal's columns."""
    journal = Ours(folder / "journal.db")
    record = journal.append()
    row = tuple(vars(record).values())
    text = "x" * sum(len(str(value)) for value in row)
    return (
        journal,
        Bare(
            folder / "bare.db",
            "CREATE TABLE rows (id INTEGER PRIMARY KEY, data TEXT NOT NULL) STRICT",
            "INSERT INTO rows VALUES (?, ?)",
            text,
        ),
        Bare(
            folder / "same.db",
            "CREATE TABLE rows (sequence INTEGER, chain TEXT, time TEXT, kind TEXT, body TEXT,"
            " previous TEXT, hash TEXT, PRIMARY KEY (chain, sequence)) STRICT, WITHOUT ROWID",
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)",
            record.chain,
            *row[2:],
        ).checkpoint_after(CHECKPOINT_PAGES),
    )


def _turns(sides: tuple[Side, ...], *, is_shut_between: bool) -> list[tuple[float, ...]]:
    """Return the rows a second of each side, turn by turn."""
    found = []
    for turn in range(_TURNS):
        rates = [0.0] * len(sides)
        for place in range(len(sides)):
            at = (turn + place) % len(sides)
            rates[at] = _rate(sides[at])
            if is_shut_between:
                sides[at].shut()
        found.append(tuple(rates))
    for side in sides:
        side.shut()
    return found


def _rate(side: Side) -> float:
    side.append()  # opens the file
    began = time.perf_counter()
    for _ in range(_ROWS_A_TURN):
        side.append()
    return _ROWS_A_TURN / (time.perf_counter() - began)


def _compared(
    name: str, turns: list[tuple[float, ...]], other: int, bound: float | None
) -> dict[str, object]:
    rates = [(turn[0], turn[other]) for turn in turns]
    ratio = statistics.median(mine / theirs for mine, theirs in rates)
    mine, theirs = (statistics.median(column) for column in zip(*rates, strict=True))
    detail = f"{mine:,.0f} appends/s, {theirs:,.0f} bare commits/s"
    row: dict[str, object] = {"name": name, "ratio": round(ratio, 3), "bound": bound}
    return row | {"at_least": True, "detail": detail}


if __name__ == "__main__":
    for row in main():
        print(json.dumps(row))
