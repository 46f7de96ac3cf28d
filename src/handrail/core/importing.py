"""Importing: an export written into an empty journal, record by record as it was.

Rules:
- Only an export that verifies is imported, and only into a journal without any record: hashes,
  times and anchors stay what they are, so a head that was noted elsewhere holds on.
- All of it is one transaction: a journal is imported, or as empty as before.
- The order of writing is found again from the anchors: what closes a chain comes after its records.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence

from handrail.core.journal import verify_export
from handrail.errors import JournalError
from handrail.plans.chain import ANCHORS, OPENED
from handrail.ports import Journal, Record

_NUMBERED = re.compile(r"(?:run|walk)-([0-9]{1,15})")
_SHOWN = 20


def import_(journal: Journal, lines: Sequence[str], *, head: str = "") -> int:
    """Write the export `lines` into `journal`; return the number of records.

    Raises:
        JournalError: the export does not verify, or the journal has records.
    """
    problems = verify_export(lines, head=head)
    if problems:
        said = "\n".join(f"  {problem}" for problem in problems[:_SHOWN])
        raise JournalError(
            "journal.damaged",
            f"the export is not imported; {len(problems)} things are wrong with it:\n{said}",
            hint="export it again, from a journal that verifies",
        )
    records = tuple(in_order(_record(line) for line in lines[:-1]))
    journal.take_over(records, _last_number(records))
    return len(records)


def in_order(records: Iterator[Record]) -> Iterator[Record]:
    """Yield the records of an export that verifies so that each may be written after the last."""
    anchors: list[Record] = []
    chains: dict[str, deque[Record]] = {}
    for record in records:
        if record.chain == ANCHORS:
            anchors.append(record)
        else:
            chains.setdefault(record.chain, deque()).append(record)
    for anchor in anchors:
        if anchor.kind != OPENED:
            body = json.loads(anchor.body)
            waiting = chains[body["chain"]]
            while waiting and waiting[0].sequence <= body["records"]:
                yield waiting.popleft()
        yield anchor
    for waiting in chains.values():
        yield from waiting


def _record(line: str) -> Record:
    read = json.loads(line)
    del read["format"]
    return Record(**read)


def _last_number(records: Sequence[Record]) -> int:
    """Return the highest number of a run: the next one must be beyond it."""
    found = (_NUMBERED.fullmatch(record.chain) for record in records)
    return max((int(one[1]) for one in found if one), default=0)
