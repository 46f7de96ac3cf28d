"""The activities that read and write the journal for the workflows of walks.

Rules:
- Marks are written behind the fence that the workflow knows. An attempt that is made again finds
  what the first one wrote, and says the same.
- What passes (a full disk, a server away) is tried again for as long as it takes, and said.
- Words are told in their order, each with where it stands: none is left out, none told twice.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from handrail.adapters.temporal.crossing import PIECE_BYTES, Plain, mark_in, mark_out, pack
from handrail.core.walk_journal import are
from handrail.errors import FencedError, JournalError, render
from handrail.plans.canonical import plain
from handrail.plans.walk import Mark
from handrail.plans.walk_records import SIGNALS, mark_body, read_mark, read_signal, walk_chain
from handrail.ports import Entry, Journal, Record

T = TypeVar("T")
_PASSING = frozenset({"journal.unwritable", "journal.unknown"})
_MARKS, _MARKS_BYTES = 2_000, 768 * 1024
_WORDS_BYTES = 256 * 1024
_REMEMBERED = 4
# How often somebody is told that an activity is tried again: the first time, then every so often.
_SAID_EVERY = 30


class Book:
    """A journal, as the workflows of its walks see it."""

    def __init__(self, journal: Journal, say: Callable[[str], None]) -> None:
        """Open nothing yet; `say` is told what people ought to know."""
        self._journal = journal
        self.say = say
        self._packed: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        # Steps that ended here, and whose marks are not known to be written.
        self.unwritten: set[tuple[int, int, str]] = set()

    def activities(self) -> list[Callable[..., Any]]:
        """Return what a worker is given."""
        kinds = {
            "opened": self.opened,
            "marks": self.marks,
            "words": self.words,
            "write": self.write,
            "close": self.close,
        }
        return [activity.defn(name=name)(self._careful(do)) for name, do in kinds.items()]

    def _careful(self, do: Callable[[Plain], T]) -> Callable[[Plain], T]:
        """Return `do`, with its errors in Temporal's words: worth another attempt, or not."""

        @wraps(do)
        def careful(told: Plain) -> T:
            try:
                return do(told)
            except JournalError as error:
                is_passing = error.code in _PASSING
                if not is_passing or activity.info().attempt % _SAID_EVERY == 1:
                    self.say(f"run {told.get('run')}: {render(error)}")
                raise ApplicationError(
                    error.message, type=error.code, non_retryable=not is_passing
                ) from error

        # Temporal reads what to make of arguments from here.
        careful.__annotations__ = {"told": dict, "return": None}
        del careful.__wrapped__
        return careful

    def opened(self, told: Plain) -> bytes:
        """Return a piece of the record that opened a walk, packed; an empty one at its end."""
        run, offset = int(told["run"]), int(told["offset"])
        with self._lock:
            packed = self._packed.get(run) or self._pack(run)
            self._packed[run] = packed
            self._packed.move_to_end(run)
            while len(self._packed) > _REMEMBERED:
                self._packed.popitem(last=False)
        return packed[offset : offset + PIECE_BYTES]

    def _pack(self, run: int) -> bytes:
        record = next(self._journal.records(walk_chain(run)), None)
        if record is None or record.kind != "opened":
            raise JournalError("journal.damaged", f"there is no run {run} in this journal")
        mark = read_mark(record.kind, record.time, record.body)
        return pack(
            {
                "body": mark.body,
                "time": record.time,
                "hash": record.hash,
                "sequence": record.sequence,
            }
        )

    def marks(self, told: Plain) -> bytes:
        """Return the next marks of a walk, packed, with where the last one stands."""
        found, size_bytes, last = list[Plain](), 0, None
        for record in self._journal.records(walk_chain(told["run"]), told["after"]):
            size_bytes += len(record.body)
            if found and (len(found) >= _MARKS or size_bytes > _MARKS_BYTES):
                break
            found.append(mark_out(read_mark(record.kind, record.time, record.body)))
            last = record
        if last is None:
            return pack({"marks": []})
        return pack({"marks": found, "hash": last.hash, "sequence": last.sequence})

    def words(self, told: Plain) -> Plain:
        """Return the words to a run beyond a place in the chain of all words."""
        found, size_bytes, sequence, more = list[Any](), 0, int(told["after"]), False
        for record in self._journal.records(SIGNALS, sequence):
            try:
                run, signal = read_signal(record.body)
            except JournalError as error:
                self.say(f"record {record.sequence} of {SIGNALS}: {error.message}")
                run, signal = -1, None
            if run == told["run"]:
                size_bytes += len(record.body)
                if found and size_bytes > _WORDS_BYTES:
                    more = True
                    break
                found.append(plain(signal))
            sequence = record.sequence
        return {"words": found, "sequence": sequence, "more": more}

    def write(self, told: Plain) -> Plain:
        """Write marks behind the fence; return where the chain stands, or why it is let go of."""
        run, marks = int(told["run"]), [mark_in(one) for one in told["marks"]]
        chain = walk_chain(run)
        entries = [Entry(chain, mark.kind, mark_body(mark)) for mark in marks]
        entries[0] = Entry(chain, entries[0].kind, entries[0].body, told["after"])
        try:
            records: Sequence[Record] = self._journal.write(entries)
        except FencedError as error:
            records = tuple(self._journal.records(chain, told["sequence"]))[: len(entries)]
            if not are(records, entries):
                self.say(f"run {run} is let go: {error.message}")
                return {"why": f"let go: {error.message}"}
        return {"hash": records[-1].hash, "sequence": records[-1].sequence}

    def close(self, told: Plain) -> None:
        """Anchor the end of a walk's chain; twice equals once."""
        self._journal.close(walk_chain(told["run"]))

    def has_mark(self, run: int, sequence: int, step: str) -> bool:
        """Whether a step has a mark beyond a place in its walk's chain."""
        records = self._journal.records(walk_chain(run), sequence)
        return any(_mark(record).step == step for record in records)


def _mark(record: Record) -> Mark:
    return read_mark(record.kind, record.time, record.body)
