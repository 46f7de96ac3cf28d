"""The journal, checked: whether its chains are as they were written.

Rules:
- Pure: reads records that it is given, from the database or from an export alike.
- One changed, removed, moved or cut-off record is one or more `Problem`s, never an exception.
- What a chain cannot prove of itself is that its last records are all there. A chain that was
  closed can: its closing anchor holds its length and last hash. For a chain that is still open,
  and for the anchors, compare with a hash that was noted elsewhere (`head`).
- The format is specified in docs/reference/journal-format.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from handrail.plans.chain import (
    ANCHORS,
    CLOSED,
    FORMAT,
    GENESIS,
    OPENED,
    REOPENED,
    record_hash,
)
from handrail.ports import Record

__all__ = ["FAULTS", "Problem", "record_hash", "verify", "verify_export"]

# What can be wrong with a record, and what a reader is told.
FAULTS = {
    "changed": "was changed after it was written: its content does not have its hash",
    "missing": "is not there",
    "previous": "does not follow the record before it",
    "order": "is not in its place",
    "truncated": "is not there, and the anchor that closed the chain says that it was",
    "missing-chain": "is not there: the anchors say that the chain was opened, and it has none",
    "unanchored": "belongs to a chain that no anchor opens",
    "not-closing": "is not the one that the anchor says it was",
    "after-close": "was written after the chain was closed",
    "format": "is of a format that this Handrail does not know",
    "head": "is not there, and was noted elsewhere",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a journal.

    Attributes:
        chain: the chain's name; empty where the line cannot be read as a record.
        sequence: of the record; for an export's unreadable line its number from 1; None where no
            single record is meant.
        fault: a key of `FAULTS`.
        detail: what was found, where there is more to say.
    """

    chain: str
    sequence: int | None
    fault: str
    detail: str = ""

    def __str__(self) -> str:
        where = f"{self.chain} record" if self.chain else "line" if self.sequence else "a record"
        number = f" {self.sequence}" if self.sequence else ""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{where}{number} {FAULTS[self.fault]}{detail}"


@dataclass
class _Chain:
    """What is known of a chain while its records pass by.

    Attributes:
        previous: the hash that the next record must follow.
        length: sequence of the last record seen.
        marks: sequence to the hash that an anchor says the record has.
        closed_at: length at which the last anchor closed it; None while it is open.
        sound: whether its format is known; nothing is checked of it otherwise.
    """

    previous: str
    length: int = 0
    marks: dict[int, str] = field(default_factory=dict)
    closed_at: int | None = None
    sound: bool = True


def verify(
    records: Iterable[Record], anchors: Iterable[Record], *, head: str = ""
) -> tuple[Problem, ...]:
    """Return what is wrong with a journal; empty when it is as it was written.

    Args:
        records: all records but the anchors; each chain's in order, chains in any mixture.
        anchors: the chain of chains, in order.
        head: the hash of any record, noted outside of the journal. That record must be there; with
            it stands everything that was written before it in its chain, and every chain that was
            closed before.
    """
    anchors = tuple(anchors)
    chains, problems = _read_anchors(anchors)
    seen = {anchor.hash for anchor in anchors} if head else set()
    for record in records:
        if record.hash == head:
            seen.add(head)
        problems += _follow(record, chains)
    for name, chain in chains.items():
        problems += _check_end(name, chain)
    if head and head not in seen:
        problems.append(Problem("", None, "head", head))
    return tuple(problems)


def _read_anchors(anchors: Iterable[Record]) -> tuple[dict[str, _Chain], list[Problem]]:
    chains: dict[str, _Chain] = {}
    problems: list[Problem] = []
    line = _Chain(GENESIS)
    for anchor in anchors:
        problems += _check_link(anchor, line)
        if not _note(anchor, chains):
            problems.append(Problem(ANCHORS, anchor.sequence, "format"))
    return chains, problems


def _note(anchor: Record, chains: dict[str, _Chain]) -> bool:
    """Put into `chains` what `anchor` says; return whether it could be read."""
    try:
        body = json.loads(anchor.body)
        name = str(body["chain"])
        if anchor.kind == OPENED:
            chain = chains.setdefault(name, _Chain(anchor.hash))
            chain.sound = body["format"] == FORMAT
            return chain.sound
        if anchor.kind not in {CLOSED, REOPENED}:
            return False
        chain = chains[name]
        chain.marks[int(body["records"])] = str(body["last"])
        chain.closed_at = int(body["records"]) if anchor.kind == CLOSED else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return True


def _follow(record: Record, chains: dict[str, _Chain]) -> list[Problem]:
    chain = chains.get(record.chain)
    if chain is None:
        # Named once: the rest of the chain is then checked against itself.
        chains[record.chain] = chain = _Chain(record.previous)
        return [
            Problem(record.chain, record.sequence, "unanchored"),
            *_check_link(record, chain),
        ]
    if not chain.sound:
        return []
    problems = _check_link(record, chain)
    mark = chain.marks.get(record.sequence)
    if mark is not None and mark != record.hash:
        problems.append(Problem(record.chain, record.sequence, "not-closing"))
    return problems


def _check_link(record: Record, chain: _Chain) -> list[Problem]:
    """Compare `record` with what must come next in `chain`, and step on."""
    problems = []
    expected = chain.length + 1
    if _hash_of(record) != record.hash:
        problems.append(Problem(record.chain, record.sequence, "changed"))
    if record.sequence > expected:
        last = record.sequence - 1
        detail = f"up to {last}" if last > expected else ""
        problems.append(Problem(record.chain, expected, "missing", detail))
    elif record.sequence < expected:
        problems.append(Problem(record.chain, record.sequence, "order"))
    elif record.previous != chain.previous:
        problems.append(Problem(record.chain, record.sequence, "previous"))
    chain.previous = record.hash
    chain.length = record.sequence
    return problems


def _hash_of(record: Record) -> str:
    return record_hash(
        chain=record.chain,
        sequence=record.sequence,
        time=record.time,
        kind=record.kind,
        body=record.body,
        previous=record.previous,
    )


def _check_end(name: str, chain: _Chain) -> Iterator[Problem]:
    if not chain.sound:
        return
    promised = max(chain.marks, default=1)
    if chain.length == 0:
        yield Problem(name, 1, "missing-chain")
    elif chain.length < promised:
        yield Problem(name, promised, "truncated")
    elif chain.closed_at is not None and chain.length > chain.closed_at:
        yield Problem(name, chain.length, "after-close")


def verify_export(lines: Iterable[str], *, head: str = "") -> tuple[Problem, ...]:
    """Return what is wrong with an export: as `verify`, and whether its own end is there.

    `Journal.export()` gives such lines, so this is also how a database is checked. Reads the lines
    one by one; a journal need not fit into memory.
    """
    problems: list[Problem] = []
    anchors: list[Record] = []
    records = _records(lines, problems)
    first = None
    for record in records:
        if record.chain != ANCHORS:
            first = record
            break
        anchors.append(record)
    rest = _rest(first, records)
    return (*verify(rest, anchors, head=head), *problems)


def _rest(first: Record | None, records: Iterator[Record]) -> Iterator[Record]:
    if first is not None:
        yield first
        yield from records


def _records(lines: Iterable[str], problems: list[Problem]) -> Iterator[Record]:
    """Yield the records of an export; add what is wrong with its form to `problems`."""
    count = 0
    ended = False
    for number, line in enumerate(lines, start=1):
        if ended:
            problems.append(Problem("", number, "order", "after the export's end"))
        try:
            read = json.loads(line)
            if read["format"] != FORMAT:
                problems.append(Problem("", number, "format"))
                continue
            if "end" in read:
                ended = True
                problems += _check_count(number, read["end"], count)
                continue
            record = _record(read)
        except (ValueError, KeyError, TypeError, RecursionError):
            problems.append(Problem("", number, "format", "not a record"))
            continue
        count += 1
        yield record
    if not ended:
        problems.append(Problem("", count + 1, "missing", "the export has no end"))


def _check_count(number: int, promised: object, count: int) -> Iterator[Problem]:
    if promised != count:
        detail = f"{count} records before it, and it says {promised}"
        yield Problem("", number, "missing", detail)


def _record(read: dict[str, object]) -> Record:
    sequence = read["sequence"]
    if type(sequence) is not int:
        raise TypeError("a sequence is a whole number")
    texts = {name: read[name] for name in ("chain", "time", "kind", "body", "previous", "hash")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("the other fields are text")
    return Record(sequence=sequence, **texts)  # type: ignore[arg-type]  # checked two lines above
