"""Verifying: what was done to a journal is found."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.journal import FAULTS, Problem, record_hash, verify, verify_export
from handrail.ports import Record
from handrail.testing.clock import FakeClock
from handrail.testing.journal import MemoryJournal
from support.journals import fill, read


def _journal(*, close: bool = True) -> MemoryJournal:
    journal = MemoryJournal(FakeClock())
    fill(journal, close=close)
    return journal


JOURNAL = _journal()
RECORDS, ANCHORS = read(JOURNAL)
HEAD = ANCHORS[-1].hash
LINES = list(JOURNAL.export())
FIELDS = ("chain", "time", "kind", "body", "previous", "hash")


def _check(lines: list[Record], head: str = HEAD) -> tuple[Problem, ...]:
    """Verify one list of anchors first, then records, as they were put together."""
    return verify(lines[len(ANCHORS) :], lines[: len(ANCHORS)], head=head)


def _faults(problems: tuple[Problem, ...]) -> set[str]:
    return {problem.fault for problem in problems}


def _anchored(*bodies: tuple[str, dict[str, object]]) -> list[Record]:
    """Return sound anchors that say `bodies`: a forger who can write anchors, but knows no head."""
    anchors: list[Record] = []
    for number, (kind, body) in enumerate(bodies, start=1):
        previous = anchors[-1].hash if anchors else "0" * 64
        fields = {"chain": "anchors", "time": "t", "kind": kind, "previous": previous}
        text = json.dumps(body)
        digest = record_hash(sequence=number, body=text, **fields)
        anchors.append(Record(sequence=number, body=text, hash=digest, **fields))
    return anchors


def test_an_untouched_journal_has_no_problem() -> None:
    """A journal as it was written verifies, with the head that it has."""
    assert verify(RECORDS, ANCHORS, head=HEAD) == ()
    assert verify_export(LINES, head=HEAD) == ()


def test_an_open_journal_has_no_problem() -> None:
    """Chains that are still open, and an empty journal, verify."""
    assert verify(*read(_journal(close=False))) == ()
    assert verify_export(MemoryJournal(FakeClock()).export()) == ()


@given(st.data())
def test_any_single_change_is_found(data: st.DataObject) -> None:
    """One other character in one field of one record, or another sequence, is found."""
    everything = [*ANCHORS, *RECORDS]
    at = data.draw(st.integers(0, len(everything) - 1))
    field = data.draw(st.sampled_from((*FIELDS, "sequence")))
    old = getattr(everything[at], field)
    new = data.draw(
        (st.integers() if field == "sequence" else st.text()).filter(lambda n: n != old)
    )
    everything[at] = Record(**{**vars(everything[at]), field: new})
    assert _check(everything) != ()


@given(st.integers(0, len(ANCHORS) + len(RECORDS) - 1))
def test_any_removal_is_found(at: int) -> None:
    """A record or anchor that is not there is found, the last ones too."""
    anchors = [anchor for n, anchor in enumerate(ANCHORS) if n != at]
    records = [record for n, record in enumerate(RECORDS, len(ANCHORS)) if n != at]
    assert verify(records, anchors, head=HEAD) != ()


@given(st.data())
def test_any_swap_is_found(data: st.DataObject) -> None:
    """Two records of one chain that changed places are found."""
    everything = [*ANCHORS, *RECORDS]
    pairs = [
        (a, b)
        for a in range(len(everything))
        for b in range(a)
        if everything[a].chain == everything[b].chain
    ]
    a, b = data.draw(st.sampled_from(pairs))
    everything[a], everything[b] = everything[b], everything[a]
    assert _check(everything) != ()


@given(st.integers(0, len(ANCHORS) - 1), st.integers(0, len(RECORDS)))
def test_any_truncation_is_found(anchors: int, records: int) -> None:
    """A journal that was cut off at any anchor and any record is found by its head."""
    assert verify(RECORDS[:records], ANCHORS[:anchors], head=HEAD) != ()


@given(st.integers(0, len(LINES) - 1))
def test_any_cut_of_an_export_is_found(at: int) -> None:
    """An export that ends early is found without any head."""
    assert verify_export(LINES[:at]) != ()


@given(st.integers(0, len(RECORDS) - 1), st.text())
def test_a_forger_who_recomputes_the_hashes_is_found(at: int, body: str) -> None:
    """Changing a record and every hash after it in its chain does not fit the anchors."""
    forged: list[Record] = []
    for number, record in enumerate(RECORDS):
        new = body if number == at else record.body
        last = forged[-1].hash if forged and forged[-1].chain == record.chain else record.previous
        fields = {"chain": record.chain, "time": record.time, "kind": record.kind}
        digest = record_hash(sequence=record.sequence, body=new, previous=last, **fields)
        forged.append(dataclasses.replace(record, body=new, previous=last, hash=digest))
    assert (verify(forged, ANCHORS) == ()) == (body == RECORDS[at].body)


def test_a_changed_body_names_chain_and_record() -> None:
    """A problem says which record of which chain is wrong, and what is."""
    records = [dataclasses.replace(r, body="{}") if r == RECORDS[1] else r for r in RECORDS]
    (problem,) = verify(records, ANCHORS)
    assert (problem.chain, problem.sequence, problem.fault) == ("run-1", 2, "changed")
    assert str(problem).startswith("run-1 record 2 was changed")


def test_missing_records_are_counted() -> None:
    """A gap is one problem that names the first and last record that are not there."""
    (problem,) = verify([r for r in RECORDS if r not in RECORDS[1:3]], ANCHORS)
    assert problem == Problem("run-1", 2, "missing", "up to 3")


def test_a_closed_chain_that_is_cut_off_is_found_without_a_head() -> None:
    """A closing anchor holds its chain's end."""
    assert _faults(verify(RECORDS[:3] + RECORDS[4:], ANCHORS)) == {"truncated"}


def test_a_chain_that_is_gone_is_found_without_a_head() -> None:
    """An opening anchor without a record says that a chain was removed."""
    problems = verify([r for r in RECORDS if r.chain != "run-3"], ANCHORS)
    assert problems == (Problem("run-3", 1, "missing-chain"),)


def test_a_chain_that_nothing_opens_is_found_once() -> None:
    """Records without an opening anchor are one problem a chain, not one a record."""
    problems = verify(RECORDS, [])
    assert [p.chain for p in problems if p.fault == "unanchored"] == ["run-1", "run-2", "run-3"]


def test_a_record_after_the_close_is_found() -> None:
    """A record behind a closed chain's end was not written by a journal."""
    last = RECORDS[3]
    fields = {"chain": "run-1", "time": "t", "kind": "k", "body": "{}", "previous": last.hash}
    more = Record(sequence=5, hash=record_hash(sequence=5, **fields), **fields)
    assert _faults(verify([*RECORDS[:4], more, *RECORDS[4:]], ANCHORS)) == {"after-close"}


def test_the_end_of_an_open_chain_is_found_by_a_noted_hash() -> None:
    """What no anchor holds yet is held by a hash that was noted elsewhere, and by that alone."""
    records, anchors = read(_journal(close=False))
    cut = [record for record in records if record != records[3]]
    assert verify(cut, anchors) == ()
    assert _faults(verify(cut, anchors, head=records[3].hash)) == {"head"}


def test_a_hash_that_was_noted_long_ago_still_verifies() -> None:
    """A head is any record that must be there: the journal may have grown since."""
    assert verify(RECORDS, ANCHORS, head=ANCHORS[1].hash) == ()


@pytest.mark.parametrize(
    "anchor",
    [
        ("opened", {"chain": "run-1", "format": 2}),
        ("opened", {"chain": "run-1"}),
        ("opened", {"format": 1}),
        ("closed", {"chain": "never", "records": 1, "last": ""}),
        ("closed", {"chain": "run-1", "records": "x", "last": ""}),
        ("unheard", {"chain": "run-1", "format": 1}),
    ],
)
def test_an_unknown_format_is_a_problem(anchor: tuple[str, dict[str, object]]) -> None:
    """An anchor that cannot be understood is said to be so, and nothing breaks."""
    assert "format" in _faults(verify([], _anchored(anchor)))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        "[]",
        "1",
        "null",
        '{"format":2}',
        '{"format":1}',
        "[" * 100_000,
        LINES[0].replace('"sequence":1', '"sequence":"1"'),
        LINES[0].replace('"opened"', "7"),
        LINES[0].replace('"format":1', '"format":2', 1),
    ],
)
def test_a_line_that_is_no_record_is_a_problem(line: str) -> None:
    """A line that cannot be read is named by its number, and the others are still checked."""
    problems = verify_export([*LINES[:3], line, *LINES[3:-1], LINES[-1]])
    assert Problem("", 4, "format") in {dataclasses.replace(p, detail="") for p in problems}


def test_an_export_with_another_count_is_a_problem() -> None:
    """The last line says how many there were."""
    lines = [*LINES[:-1], '{"end":3,"format":1}']
    assert _faults(verify_export(lines)) == {"missing"}


def test_lines_after_the_end_are_a_problem() -> None:
    """Nothing follows an export's end."""
    assert "order" in _faults(verify_export([*LINES, LINES[-2]]))


def test_every_fault_has_words() -> None:
    """Each fault is told in a sentence that begins with the record."""
    for fault in FAULTS:
        assert str(Problem("run-1", 2, fault, "x")) == f"run-1 record 2 {FAULTS[fault]} (x)"
