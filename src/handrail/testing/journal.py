"""A journal in memory, with the same chains, anchors and hashes as the real one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from handrail.errors import JournalError
from handrail.plans.canonical import encode, encode_plain, time_text
from handrail.plans.chain import (
    ANCHORS,
    CLOSED,
    FORMAT,
    GENESIS,
    OPENED,
    REOPENED,
    RESERVED,
    USED,
    ended_body,
    is_name,
    leaks,
    opened_body,
    record_hash,
    used_body,
)
from handrail.ports import Clock, Record


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
        self._chains: dict[str, list[Record]] = {ANCHORS: []}
        self._closed: set[str] = set()
        self._runs = 0

    def append(self, chain: str, kind: str, body: Mapping[str, Any]) -> Record:
        """Keep one record; see `ports.Journal`."""
        if chain in RESERVED:
            raise AssertionError(f"the chain {chain!r} is written by the journal itself")
        self._refuse_failing()
        return self._append(chain, kind, encode_plain(body))

    def close(self, chain: str) -> None:
        """Anchor the end of `chain`; see `ports.Journal`."""
        records = self._chains.get(chain)
        if records and chain not in self._closed:
            self._refuse_failing()
            self._add(ANCHORS, CLOSED, ended_body(chain, len(records), records[-1].hash), GENESIS)
            self._closed.add(chain)

    def open_run(self) -> int:
        """Return a new run number; see `ports.Journal`."""
        self._refuse_failing()
        self._runs += 1
        return self._runs

    def single_use(self, key: str) -> bool:
        """Mark `key` as used; see `ports.Journal`."""
        self._refuse_failing()
        body = used_body(key)
        if any(record.body == body for record in self._chains.get(USED, ())):
            return False
        self._append(USED, "used", body)
        return True

    def records(self, chain: str) -> Iterator[Record]:
        """Yield a chain's records as they are now."""
        yield from tuple(self._chains.get(chain, ()))

    def chains(self, prefix: str = "") -> tuple[str, ...]:
        """Return the names of chains; see `ports.Journal`."""
        return tuple(n for n in self._chains if n != ANCHORS and n.startswith(prefix))

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
        records = [record for name in names for record in self._chains[name]]
        yield from (encode({"format": FORMAT, **vars(record)}) for record in records)
        yield encode({"end": len(records), "format": FORMAT})

    def _append(self, chain: str, kind: str, body: str) -> Record:
        self._refuse_unfit(chain, kind, body)
        last = self.last(chain)
        if last is None:
            opened = self._add(ANCHORS, OPENED, opened_body(chain), GENESIS)
            return self._add(chain, kind, body, opened.hash)
        if chain in self._closed:
            self._add(ANCHORS, REOPENED, ended_body(chain, last.sequence, last.hash), GENESIS)
            self._closed.discard(chain)
        return self._add(chain, kind, body, last.hash)

    def _add(self, chain: str, kind: str, body: str, first_follows: str) -> Record:
        records = self._chains.setdefault(chain, [])
        previous = records[-1].hash if records else first_follows
        sequence, time = len(records) + 1, time_text(self._clock.now())
        digest = record_hash(
            chain=chain, sequence=sequence, time=time, kind=kind, body=body, previous=previous
        )
        records.append(Record(chain, sequence, time, kind, body, previous, digest))
        return records[-1]

    def _refuse_unfit(self, chain: str, kind: str, body: str) -> None:
        if not (is_name(chain) and is_name(kind)):
            raise AssertionError(f"{chain!r} or {kind!r} cannot be a chain's or a record's name")
        if leaks(body, self._secrets):
            raise JournalError("internal", f"a record `{kind}` of `{chain}` would hold a secret")

    def _refuse_failing(self) -> None:
        if self.fails:
            raise JournalError("journal.unwritable", "the journal was told to fail")
