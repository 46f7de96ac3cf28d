"""Writing: the marks of many walks in one commit, each behind its own fence.

Rules:
- All marks of a moment are one transaction. Where that is refused for one walk, each is written by
  itself, so that it stops nobody else.
- Nobody knows whether they were kept: the chain is read again, and says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from handrail.adapters.embedded.driven import Driven
from handrail.core.walk_journal import are
from handrail.errors import FencedError, JournalError
from handrail.plans.moving import Acting
from handrail.plans.standing import Course
from handrail.plans.walk import Mark
from handrail.plans.walk_records import mark_body
from handrail.ports import Entry, Journal, Record


@dataclass(slots=True)
class Batch:
    """What is about to be written of one walk.

    Attributes:
        walk: it.
        marks: to write, in order.
        course: where the walk stands then.
        doing: what acts then.
        facts: how many of the marks are facts: they stay, when the others are thought of anew.
    """

    walk: Driven
    course: Course
    marks: list[Mark] = field(default_factory=list)
    doing: list[Acting] = field(default_factory=list)
    facts: int = 0


def write(journal: Journal, batches: Sequence[Batch]) -> dict[int, JournalError]:
    """Write all, and let the walks go on; return why not, by run, for those that were refused.

    Raises:
        JournalError: nothing can be written now.
    """
    try:
        records = journal.write([entry for batch in batches for entry in _entries(batch)])
    except JournalError as error:
        if error.code == "journal.unwritable":
            raise
        return _write_each(journal, batches, error)
    at = 0
    for batch in batches:
        _adopt(batch, records[at : at + len(batch.marks)])
        at += len(batch.marks)
    return {}


def _entries(batch: Batch) -> list[Entry]:
    """Return the entries; the first is fenced, and the others follow it in one transaction."""
    chain, after = batch.walk.chain, batch.walk.last
    found = [Entry(chain, mark.kind, mark_body(mark)) for mark in batch.marks]
    found[0] = Entry(chain, found[0].kind, found[0].body, after)
    return found


def _adopt(batch: Batch, records: Sequence[Record]) -> None:
    walk = batch.walk
    walk.course, walk.last, walk.sequence = batch.course, records[-1].hash, records[-1].sequence
    del walk.facts[: batch.facts]


def _write_each(
    journal: Journal, batches: Sequence[Batch], error: JournalError
) -> dict[int, JournalError]:
    found: dict[int, JournalError] = {}
    for batch in batches:
        try:
            _write_one(journal, batch, is_unknown=error.code == "journal.unknown")
        except JournalError as one:
            if one.code in {"journal.unwritable", "journal.unknown"}:
                raise
            found[batch.walk.run] = one
    return found


def _write_one(journal: Journal, batch: Batch, *, is_unknown: bool) -> None:
    entries = _entries(batch)
    if is_unknown:
        kept = tuple(journal.records(batch.walk.chain, batch.walk.sequence))
        if kept:
            if not are(kept, entries):
                raise FencedError("journal.fenced", f"another engine goes on with {kept[0].chain}")
            _adopt(batch, kept)
            return
    _adopt(batch, journal.write(entries))
