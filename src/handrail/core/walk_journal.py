"""Walks in the journal: what every engine records and reads in the same way.

Rules:
- A run is recorded with its request in one write: the same request gives the same run.
- A word is refused before it is recorded, by where the run stands once all before it is heard.
- Nothing is remembered here: what is asked is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from handrail.errors import FencedError, JournalError, RefusedError, UsageError
from handrail.plans.canonical import encode_plain, plain
from handrail.plans.hearing import heard, refusal
from handrail.plans.moving import show
from handrail.plans.standing import Course, Standing
from handrail.plans.walk import Mark, Signal, Walk
from handrail.plans.walk_records import (
    SIGNALS,
    check,
    mark_body,
    opened_mark,
    read_mark,
    read_signal,
    read_walk,
    request_chain,
    run_of,
    walk_chain,
)
from handrail.plans.walking import opened, step
from handrail.ports import Clock, Entry, Ids, Journal, Record

LARGEST_WORD_BYTES = 64 * 1024


@dataclass(eq=False, slots=True)
class Recorded:
    """A walk as far as the journal has it.

    Attributes:
        run: its number.
        course: what the journal has of it.
        last: hash of its last record: the fence of the next one.
        sequence: of that record.
        heard: sequence of the last word to any run before this one was submitted.
    """

    run: int
    course: Course
    last: str
    sequence: int
    heard: int = 0

    @property
    def chain(self) -> str:
        """Return the chain of its marks."""
        return walk_chain(self.run)


W = TypeVar("W", bound=Recorded)


def known_run(journal: Journal, request_id: str) -> int | None:
    """Return the run of a request that was recorded; None where there is none."""
    found = journal.last(request_chain(request_id)) if request_id else None
    return None if found is None else int(json.loads(found.body)["run"])


def record(journal: Journal, walk: Walk, request_id: str, into: type[W]) -> W | int:
    """Record a run; return it, or the number of the one that the same request had recorded.

    Raises:
        UsageError: the walk is not sound.
    """
    check(walk)
    known = known_run(journal, request_id)
    if known is not None:
        return known
    last_word = journal.last(SIGNALS)
    word = last_word.sequence if last_word else 0
    mark = opened_mark(walk, word)
    run = journal.open_run()
    entries = [Entry(walk_chain(run), mark.kind, mark_body(mark), "new")]
    if request_id:
        entries.append(Entry(request_chain(request_id), "submitted", {"run": run}, "new"))
    try:
        first = journal.write(entries)[0]
    except FencedError:
        known = known_run(journal, request_id)
        if known is None:
            raise
        return known
    course = step(opened(walk), Mark("opened", "", first.time))
    return into(run, course, first.hash, first.sequence, word)


def load(journal: Journal, run: int, into: type[W]) -> W:
    """Return the walk of a run, as the journal has it.

    Raises:
        UsageError: there is no such run.
        JournalError: its records make no walk.
    """
    records = journal.records(walk_chain(run))
    first = next(records, None)
    if first is None or first.kind != "opened":
        raise UsageError(
            "walk.unknown", f"there is no run {run} over several targets", hint="handrail runs"
        )
    mark = read_mark(first.kind, first.time, first.body)
    word = mark.body.get("heard", 0)
    course = step(opened(read_walk(mark)), Mark("opened", "", first.time))
    number = word if isinstance(word, int) else 0
    found = into(run, course, first.hash, first.sequence, number)
    for one in records:
        follow(found, one)
    return found


def follow(walk: Recorded, one: Record) -> Mark:
    """Count one more record of the walk, and return its mark."""
    mark = read_mark(one.kind, one.time, one.body)
    try:
        walk.course = step(walk.course, mark)
    except JournalError as error:
        where = f"record {one.sequence} of {one.chain}: {error.message}"
        raise JournalError(error.code, where, hint="handrail log verify") from error
    except (KeyError, ValueError, TypeError) as error:
        where = f"record {one.sequence} of {one.chain} makes no sense there: {error!r}"
        raise JournalError("journal.damaged", where, hint="handrail log verify") from error
    walk.last, walk.sequence = one.hash, one.sequence
    return mark


def standing(journal: Journal, clock: Clock, run: int) -> Standing:
    """Return where a run stands; see `ports.Engine`."""
    return show(load(journal, run, Recorded).course, clock.now())


def standings(journal: Journal, clock: Clock, *, ended: bool) -> Iterator[tuple[int, Standing]]:
    """Yield the open runs, or those that have ended; see `ports.Engine`."""
    prefix = walk_chain(0)[:-1]
    chains = journal.open_chains(prefix)
    if ended:
        still = frozenset(chains)
        chains = tuple(chain for chain in journal.chains(prefix) if chain not in still)
    for run in sorted(run_of(chain) for chain in chains):
        yield run, standing(journal, clock, run)


def unheard(journal: Journal, walk: Recorded) -> Iterator[Signal]:
    """Yield the words to a run that no engine has heard yet."""
    for one in journal.records(SIGNALS, walk.heard):
        run, signal = read_signal(one.body)
        if run == walk.run and signal.id not in walk.course.heard:
            yield signal


def course_with_words(journal: Journal, walk: Recorded) -> Course:
    """Return where a run stands once the words that nobody has heard yet are heard."""
    course = walk.course
    for signal in unheard(journal, walk):
        course = step(course, heard(course, signal))
    return course


def add_word(journal: Journal, run: int, signal: Signal) -> Recorded | None:
    """Record a word to a run; return the run as it was, or None where that word was there.

    Raises:
        RefusedError: as `ports.Engine.signal`.
    """
    walk = load(journal, run, Recorded)
    course = course_with_words(journal, walk)
    if signal.id in course.heard:
        return None
    why = refusal(course, signal)
    if not why and len(encode_plain(plain(signal))) > LARGEST_WORD_BYTES:
        why = f"it is longer than {LARGEST_WORD_BYTES:,} bytes"
    if why:
        raise RefusedError(
            "walk.word", f"`{signal.name}` to run {run}: {why}", hint=f"handrail runs show {run}"
        )
    journal.append(SIGNALS, "signal", {"run": run, "signal": plain(signal)})
    walk.course = course
    return walk


def cancelling(journal: Journal, ids: Ids, run: int, person: str, why: str) -> Signal | None:
    """Return the word that cancels a run; None where that means nothing to it."""
    course = course_with_words(journal, load(journal, run, Recorded))
    signal = Signal(ids.new(), "cancel", person, course.layout.walk.digest, {"why": why})
    return None if refusal(course, signal) else signal


def are(records: Sequence[Record], entries: Sequence[Entry]) -> bool:
    """Whether the records are what the entries became."""
    return [(one.kind, one.body) for one in records] == [
        (entry.kind, encode_plain(entry.body)) for entry in entries
    ]
