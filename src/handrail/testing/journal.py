"""A journal in memory, with the same chains, anchors and hashes as the real one."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from handrail.core.chaining import (
    Draft,
    Request,
    Tail,
    Together,
    appending,
    refuse_filled,
    writing,
)
from handrail.errors import JournalError
from handrail.plans.canonical import encode
from handrail.plans.chain import ANCHORS, CLOSED, FORMAT, USED
from handrail.ports import Clock, Entry, Record


class MemoryJournal:
    """`ports.Journal` that is gone with the test.

    Attributes:
        fails: set it, and every write raises `journal.unwritable`, as on a full disk.
    """

    def __init__(self, clock: Clock, *, secrets: Collection[str] = ()) -> None:
        """Begin empty; no body may hold one of `secrets`."""
        self.fails = False
        self._clock = clock
        self._secrets = secrets
        self._chains: dict[str, list[Record]] = {}
        self._closed: set[str] = set()
        self._runs = 0
        self._together = Together(self._commit)
        self._written = threading.Condition()

    def append(self, chain: str, kind: str, body: Mapping[str, Any]) -> Record:
        """Keep one record; see `ports.Journal`."""
        return self._together.make(appending(chain, kind, body))

    def write(self, entries: Sequence[Entry]) -> tuple[Record, ...]:
        """Keep all of `entries`, or none; see `ports.Journal`."""
        return self._together.make(writing(entries))

    def close(self, chain: str) -> None:
        """Anchor the end of `chain`; see `ports.Journal`."""
        if chain in self._chains and chain not in self._closed:
            self._together.make(lambda draft: draft.close(chain))

    def open_run(self) -> int:
        """Return a new run number; see `ports.Journal`."""
        self._refuse_failing()
        with self._together.lock:
            self._runs += 1
            return self._runs

    def single_use(self, key: str) -> bool:
        """Mark `key` as used; see `ports.Journal`."""
        return self._together.make(lambda draft: draft.use(key))

    def records(self, chain: str, after: int = 0) -> Iterator[Record]:
        """Yield a chain's records as they are now."""
        yield from tuple(self._chains.get(chain, ())[after:])

    def open_chains(self, prefix: str) -> tuple[str, ...]:
        """Return the chains that are not closed; see `ports.Journal`."""
        return tuple(name for name in self.chains(prefix) if name not in self._closed)

    def open_ends(self, prefix: str) -> tuple[Record, ...]:
        """Return the last records of open chains; see `ports.Journal`."""
        return tuple(self._chains[name][-1] for name in self.open_chains(prefix))

    def wait(self, chain: str, after: int, timeout_s: float) -> bool:
        """Wait, in real time, for a record of another thread; see `ports.Journal`."""
        with self._written:
            return self._written.wait_for(
                lambda: len(self._chains.get(chain, ())) > after, max(timeout_s, 0)
            )

    def chains(self, prefix: str = "") -> tuple[str, ...]:
        """Return the names of chains; see `ports.Journal`."""
        return tuple(n for n in tuple(self._chains) if n != ANCHORS and n.startswith(prefix))

    def last(self, chain: str) -> Record | None:
        """Return a chain's last record."""
        records = self._chains.get(chain)
        return records[-1] if records else None

    def anchors(self) -> Iterator[Record]:
        """Yield the chain of chains."""
        yield from self.records(ANCHORS)

    def export(self) -> Iterator[str]:
        """Yield the journal's lines; see `ports.Journal`."""
        names = (ANCHORS, *sorted(name for name in self._chains if name != ANCHORS))
        records = [record for name in names for record in self._chains.get(name, ())]
        yield from (encode({"format": FORMAT, **vars(record)}) for record in records)
        yield encode({"end": len(records), "format": FORMAT})

    def take_over(self, records: Sequence[Record], runs: int) -> None:
        """Keep another journal's records; see `ports.Journal`."""
        self._refuse_failing()
        with self._together.lock:
            if self._chains:
                raise refuse_filled()
            for record in records:
                self._chains.setdefault(record.chain, []).append(record)
            for anchor in self._chains.get(ANCHORS, ()):
                change = self._closed.add if anchor.kind == CLOSED else self._closed.discard
                change(json.loads(anchor.body)["chain"])
            self._runs = max(self._runs, runs)

    def tail(self, chain: str) -> Tail | None:
        """Return what `chain` ends in; for a draft."""
        last = self.last(chain)
        return None if last is None else Tail(last.sequence, last.hash)

    def is_open(self, chain: str) -> bool:
        """Whether `chain` is open; for a draft."""
        return chain not in self._closed

    def is_used(self, body: str) -> bool:
        """Whether a record of `used` has this body; for a draft."""
        return any(record.body == body for record in self._chains.get(USED, ()))

    def _commit(self, requests: Sequence[Request[Any]]) -> None:
        self._refuse_failing()
        for request in requests:
            draft = Draft(self, self._clock, self._secrets)
            request.draw_on(draft)
            with self._written:
                for record in draft.records:
                    self._chains.setdefault(record.chain, []).append(record)
                self._closed -= draft.tails.keys()
                self._closed |= draft.closed
                self._written.notify_all()

    def _refuse_failing(self) -> None:
        if self.fails:
            raise JournalError("journal.unwritable", "the journal was told to fail")
