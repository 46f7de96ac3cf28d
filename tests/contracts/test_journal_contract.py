"""The contract of every journal: the real one and its fake."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest

from handrail.adapters.postgres_journal.journal import PostgresJournal
from handrail.adapters.postgres_journal.link import Link
from handrail.adapters.sqlite_journal import SqliteJournal
from handrail.core.importing import import_
from handrail.core.journal import verify, verify_export
from handrail.errors import FencedError, JournalError
from handrail.ports import Clock, Entry, Journal
from handrail.testing.clock import FakeClock
from handrail.testing.journal import MemoryJournal
from support.journals import fill, journal_database, journal_url, read

__all__ = ["journal_database", "journal_url"]


class Make(Protocol):
    def __call__(self, clock: Clock, secrets: Collection[str] = ()) -> Journal: ...


@pytest.fixture(params=["sqlite", "postgres", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "memory":
        return lambda clock, secrets=(): MemoryJournal(clock, secrets=secrets)
    url = request.getfixturevalue("journal_url") if request.param == "postgres" else ""

    def build(clock: Clock, secrets: Collection[str] = ()) -> Journal:
        journal: SqliteJournal | PostgresJournal
        if url:
            journal = PostgresJournal(Link(url), clock, secrets=secrets)
        else:
            journal = SqliteJournal(tmp_path / ".handrail" / "journal.db", clock, secrets=secrets)
        request.addfinalizer(journal.shut)
        return journal

    return build


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def journal(make: Make, clock: FakeClock) -> Journal:
    return make(clock)


def test_an_empty_journal_has_nothing(journal: Journal) -> None:
    """A journal that was never written to has no chain, record or anchor, and verifies."""
    assert journal.chains() == ()
    assert journal.last("run-1") is None
    assert list(journal.records("run-1")) == list(journal.anchors()) == []
    assert verify_export(journal.export()) == ()


def test_what_was_appended_is_read_back(journal: Journal) -> None:
    """Records come back in order, as they were returned."""
    written = [journal.append("run-1", kind, {"step": 1}) for kind in ("begun", "done")]
    assert list(journal.records("run-1")) == written
    assert journal.last("run-1") == written[1]
    assert [record.sequence for record in written] == [1, 2]
    assert written[1].previous == written[0].hash


def test_a_body_is_canonical(journal: Journal) -> None:
    """Whatever values a body is made of, its text is canonical JSON."""
    body = {"b": (Path("x"),), "a": datetime(2026, 1, 5, tzinfo=UTC), "é": None}
    text = '{"a":"2026-01-05T00:00:00.000000Z","b":["x"],"é":null}'
    assert journal.append("run-1", "begun", body).body == text


def test_a_chain_begins_at_its_anchor(journal: Journal) -> None:
    """The first record follows the anchor that opened its chain, which follows the one before."""
    first, other = (journal.append(chain, "begun", {}) for chain in ("run-1", "run-2"))
    anchors = list(journal.anchors())
    assert [first.previous, other.previous] == [anchor.hash for anchor in anchors]
    assert [json.loads(anchor.body)["chain"] for anchor in anchors] == ["run-1", "run-2"]
    assert anchors[0].previous == "0" * 64
    assert anchors[1].previous == anchors[0].hash


def test_closing_anchors_the_end(journal: Journal) -> None:
    """A closed chain's anchor has its length and last hash."""
    journal.append("run-1", "begun", {})
    last = journal.append("run-1", "done", {})
    journal.close("run-1")
    *_, anchor = journal.anchors()
    assert anchor.kind == "closed"
    assert json.loads(anchor.body) == {"chain": "run-1", "last": last.hash, "records": 2}


def test_closing_twice_equals_once(journal: Journal) -> None:
    """A second close writes nothing; nor does closing what does not exist."""
    journal.append("run-1", "begun", {})
    journal.close("run-1")
    journal.close("run-1")
    journal.close("run-2")
    assert [anchor.kind for anchor in journal.anchors()] == ["opened", "closed"]


def test_a_closed_chain_opens_again(journal: Journal) -> None:
    """An append to a closed chain says so in the anchors, and the chain goes on unbroken."""
    before = journal.append("run-1", "done", {})
    journal.close("run-1")
    after = journal.append("run-1", "undone", {})
    journal.append("run-1", "undone", {})
    assert after.previous == before.hash
    assert [anchor.kind for anchor in journal.anchors()] == ["opened", "closed", "reopened"]
    assert verify(*read(journal)) == ()


def test_what_a_journal_writes_verifies(journal: Journal) -> None:
    """Chains that are opened, closed, reopened and mixed verify, with their head."""
    fill(journal)
    journal.single_use("approval 1")
    *_, head = journal.anchors()
    assert verify(*read(journal), head=head.hash) == ()
    assert verify_export(journal.export(), head=head.hash) == ()


def test_chains_come_in_the_order_of_their_opening(journal: Journal) -> None:
    """Chains are listed as they were opened, by the beginning of their name."""
    for chain in ("run-2", "plan-a", "run-1", "run-2"):
        journal.append(chain, "begun", {})
    assert journal.chains() == ("run-2", "plan-a", "run-1")
    assert journal.chains("run-") == ("run-2", "run-1")
    assert journal.chains("%") == ()


def test_run_numbers_are_never_given_twice(journal: Journal) -> None:
    """Run numbers count from 1."""
    assert [journal.open_run() for _ in range(3)] == [1, 2, 3]


def test_a_key_is_used_once(journal: Journal) -> None:
    """The first use of a key is allowed and recorded, the second is not."""
    assert journal.single_use("approval 1")
    assert not journal.single_use("approval 1")
    assert journal.single_use("approval 2")
    assert [json.loads(r.body)["key"] for r in journal.records("used")] == [
        "approval 1",
        "approval 2",
    ]


def test_a_clock_that_goes_back_breaks_nothing(journal: Journal, clock: FakeClock) -> None:
    """Times may go back; the sequence does not, and the chain verifies."""
    first = journal.append("run-1", "begun", {})
    clock.jump(-3600)
    second = journal.append("run-1", "done", {})
    assert second.time < first.time
    assert second.sequence == 2
    assert verify(*read(journal)) == ()


def test_names_that_look_like_something_else_are_names(journal: Journal) -> None:
    """A chain's name may have quotes, slashes, letters of any language and a JSON look."""
    for chain in ("store/pilot-db", "it's", '"}', "größe", "$.chain"):
        journal.append(chain, "begun", {})
        journal.close(chain)
        journal.append(chain, "done", {})
    assert len(journal.chains()) == 5
    assert verify(*read(journal)) == ()


@pytest.mark.parametrize("secret", ["hunter2hunter2", 'quo"te\\and\nline'])
def test_a_body_with_a_secret_is_refused(make: Make, clock: FakeClock, secret: str) -> None:
    """A record that would hold a secret is not written, and the error does not hold it either."""
    secrets: list[str] = []
    journal = make(clock, secrets)
    journal.append("run-1", "begun", {"said": secret})
    secrets += ["short", secret]
    with pytest.raises(JournalError) as caught:
        journal.append("run-1", "done", {"deep": [f"psql: {secret} refused"]})
    assert secret not in f"{caught.value} {caught.value.hint}"
    journal.append("run-1", "done", {"short": "short"})
    assert [record.sequence for record in journal.records("run-1")] == [1, 2]


@pytest.mark.parametrize("chain", ["anchors", "used", "", "a\nb", "\x1b[2J"])
def test_a_name_that_no_chain_can_have_is_a_defect(journal: Journal, chain: str) -> None:
    """The journal's own chains, and names that would break a line, are refused."""
    with pytest.raises(AssertionError):
        journal.append(chain, "begun", {})
    assert journal.chains() == ()


def test_a_body_that_is_not_json_is_a_defect(journal: Journal) -> None:
    """What has no canonical text is refused before anything is written."""
    with pytest.raises(TypeError):
        journal.append("run-1", "begun", {"x": object()})
    assert journal.chains() == ()


def test_several_chains_are_written_at_once(journal: Journal) -> None:
    """One write opens, continues and reopens chains, and its records come back in its order."""
    old = journal.append("run-1", "begun", {})
    journal.close("run-1")
    entries = [Entry("walk-2", "opened", {}), Entry("run-1", "done", {}), Entry("walk-2", "b", {})]
    written = journal.write(entries)
    assert [(record.chain, record.sequence) for record in written] == [
        ("walk-2", 1),
        ("run-1", 2),
        ("walk-2", 2),
    ]
    assert written[1].previous == old.hash
    assert [anchor.kind for anchor in journal.anchors()][2:] == ["opened", "reopened"]
    assert verify(*read(journal)) == ()


def test_a_write_of_nothing_writes_nothing(journal: Journal) -> None:
    """No entries are no records."""
    assert journal.write([]) == ()
    assert list(journal.anchors()) == []


def test_a_fence_lets_the_one_writer_through(journal: Journal) -> None:
    """Entries behind the last record of their chain, and of a chain that is new, are written."""
    first, second = journal.write([Entry("walk-1", kind, {}, "new") for kind in ("opened", "x")])
    (third,) = journal.write([Entry("walk-1", "y", {}, second.hash)])
    fourth, fifth = journal.write([Entry("walk-1", kind, {}, third.hash) for kind in ("z", "w")])
    assert [r.sequence for r in (first, second, third, fourth, fifth)] == [1, 2, 3, 4, 5]
    assert verify(*read(journal)) == ()


@pytest.mark.parametrize("after", ["new", "0" * 64, "first"])
def test_a_fence_stops_whoever_was_overtaken(journal: Journal, after: str) -> None:
    """A chain that has gone on since refuses the whole write, for the other chains too."""
    first = journal.append("walk-1", "opened", {})
    last = journal.append("walk-1", "taken", {})
    fence = first.hash if after == "first" else after
    before = list(journal.export())
    with pytest.raises(FencedError) as caught:
        journal.write([Entry("run-7", "begun", {}), Entry("walk-1", "begun", {}, fence)])
    assert caught.value.code == "journal.fenced"
    assert list(journal.export()) == before
    assert journal.write([Entry("walk-1", "begun", {}, last.hash)])[0].sequence == 3


def test_a_fence_needs_its_chain(journal: Journal) -> None:
    """A chain that is not there has no record to follow."""
    with pytest.raises(FencedError):
        journal.write([Entry("walk-1", "begun", {}, "0" * 64)])
    assert journal.chains() == ()


def test_a_fence_outlives_a_close(journal: Journal) -> None:
    """Closing a chain does not move its last record: its writer may go on, and reopens it."""
    last = journal.append("walk-1", "ended", {})
    journal.close("walk-1")
    with pytest.raises(FencedError):
        journal.write([Entry("walk-1", "opened", {}, "new")])
    journal.write([Entry("walk-1", "signal", {}, last.hash)])
    assert [anchor.kind for anchor in journal.anchors()] == ["opened", "closed", "reopened"]


def test_a_write_that_is_refused_leaves_nothing(make: Make, clock: FakeClock) -> None:
    """A secret in the last of several entries keeps all of them out."""
    journal = make(clock, ["hunter2hunter2"])
    with pytest.raises(JournalError):
        journal.write([Entry("a", "x", {}), Entry("b", "x", {"said": "hunter2hunter2"})])
    for entry in (Entry("used", "x", {}), Entry("a", "\n", {})):
        with pytest.raises(AssertionError):
            journal.write([Entry("a", "x", {}), entry])
    assert list(journal.anchors()) == []


def test_records_beyond_a_sequence(journal: Journal) -> None:
    """A reader that knows a chain up to some record gets what came after it."""
    written = [journal.append("run-1", "said", {"n": n}) for n in range(4)]
    assert list(journal.records("run-1", 2)) == written[2:]
    assert list(journal.records("run-1", 4)) == list(journal.records("run-2", 0)) == []


def test_open_chains_are_those_that_are_not_closed(journal: Journal) -> None:
    """Open chains are listed oldest first; one that is opened again keeps its place."""
    for chain in ("walk-3", "walk-1", "plan-a", "walk-2"):
        journal.append(chain, "opened", {})
    journal.close("walk-1")
    journal.close("walk-3")
    assert journal.open_chains("walk-") == ("walk-2",)
    journal.append("walk-3", "signal", {})
    assert journal.open_chains("walk-") == ("walk-3", "walk-2")
    assert journal.open_chains("") == ("walk-3", "plan-a", "walk-2")
    assert journal.open_chains("%") == journal.open_chains("walk_") == ()


def test_the_ends_of_open_chains_come_at_once(journal: Journal) -> None:
    """What each open chain ends in is found without asking for each of them."""
    assert journal.open_ends("") == ()
    for chain in ("walk-3", "walk-1", "plan-a", "walk-2"):
        journal.append(chain, "opened", {"of": chain})
        journal.append(chain, "taken", {})
    journal.close("walk-1")
    ends = journal.open_ends("walk-")
    assert [(end.chain, end.sequence, end.kind) for end in ends] == [
        ("walk-3", 2, "taken"),
        ("walk-2", 2, "taken"),
    ]
    assert ends == tuple(journal.last(chain) for chain in journal.open_chains("walk-"))


def test_waiting_ends_when_time_is_up(journal: Journal) -> None:
    """A chain that does not go on is waited for no longer than was said."""
    journal.append("signals", "signal", {})
    assert not journal.wait("signals", 1, 0.01)
    assert not journal.wait("none", 0, 0)
    assert not journal.wait("none", 0, -1)
    assert journal.wait("signals", 0, 0)


def test_waiting_ends_with_a_record(journal: Journal) -> None:
    """A record of another thread ends the waiting, long before time is up."""
    seen: list[bool] = []
    waiting = threading.Thread(target=lambda: seen.append(journal.wait("signals", 1, 50)))
    journal.append("signals", "signal", {})
    began = time.monotonic()
    waiting.start()
    journal.append("signals", "signal", {})
    waiting.join()
    assert seen == [True]
    assert time.monotonic() - began < 25


def test_threads_write_at_once(journal: Journal) -> None:
    """Writes of many threads are all kept, each whole, and each thread gets its own records."""
    got: dict[int, list[int]] = {}

    def work(number: int) -> None:
        mine = []
        for n in range(10):
            entries = [
                Entry(f"walk-{number}", "begun", {"n": n}),
                Entry("all", "x", {"of": number}),
            ]
            own, _ = journal.write(entries)
            mine.append(own.sequence)
        got[number] = mine

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {number: list(range(1, 11)) for number in range(5)}
    assert len(list(journal.records("all"))) == 50
    assert verify(*read(journal)) == ()


def test_of_two_writers_one_goes_on(make: Make, clock: FakeClock) -> None:
    """Of threads that write behind one record at once, exactly one is let through."""
    journal = make(clock)
    last = journal.append("walk-1", "opened", {})
    fenced: list[int] = []

    def take(number: int) -> None:
        try:
            journal.write([Entry("walk-1", "taken", {"by": number}, last.hash)])
        except FencedError:
            fenced.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fenced) == 5
    assert [record.sequence for record in journal.records("walk-1")] == [1, 2]


def _exported(clock: FakeClock) -> list[str]:
    """Return the export of a journal with chains of every kind."""
    other = MemoryJournal(clock)
    fill(other)
    other.single_use("approval 1")
    other.append("walk-9", "opened", {"text": "größe \u2028"})
    other.append("run-3", "undone", {})
    return list(other.export())


def test_an_export_is_imported_as_it_was(journal: Journal, clock: FakeClock) -> None:
    """Another journal's export comes back line by line, and the journal goes on where it ended."""
    lines = _exported(clock)
    assert import_(journal, lines) == len(lines) - 1
    assert list(journal.export()) == lines
    assert journal.open_chains("") == ("run-3", "used", "walk-9")
    assert not journal.single_use("approval 1")
    assert journal.open_run() == 10
    journal.append("run-1", "undone", {})
    (last,) = journal.write([Entry("walk-9", "done", {})])
    assert last.sequence == 2
    assert verify_export(journal.export()) == ()


def test_only_an_empty_journal_takes_an_export(journal: Journal, clock: FakeClock) -> None:
    """A journal with a record of its own is left as it is."""
    journal.append("run-1", "begun", {})
    before = list(journal.export())
    with pytest.raises(JournalError, match="only into an empty one"):
        import_(journal, _exported(clock))
    assert list(journal.export()) == before


def test_an_empty_export_is_imported(journal: Journal, clock: FakeClock) -> None:
    """A journal without records is as empty as before, and counts its runs from 1."""
    assert import_(journal, list(MemoryJournal(clock).export())) == 0
    assert journal.open_run() == 1


@pytest.mark.parametrize("damage", ["cut", "changed", "none"])
def test_a_damaged_export_is_not_imported(journal: Journal, clock: FakeClock, damage: str) -> None:
    """An export that does not verify, or is not what was noted, leaves the journal empty."""
    lines = _exported(clock)
    damaged = {
        "cut": lines[:-2],
        "changed": [line.replace("größe", "grösse") for line in lines],
        "none": [],
    }[damage]
    with pytest.raises(JournalError) as caught:
        import_(journal, damaged)
    assert caught.value.code == "journal.damaged"
    with pytest.raises(JournalError):
        import_(journal, lines, head="0" * 64)
    assert list(journal.anchors()) == []
    assert journal.open_run() == 1


def test_what_does_not_follow_is_not_taken_over(make: Make, clock: FakeClock) -> None:
    """Records that no export holds in this order are refused, all of them."""
    other = MemoryJournal(clock)
    for n in range(3):
        other.append("run-1", "done", {"n": n})
    records = [*other.anchors(), *other.records("run-1")]
    journal = make(clock)
    if isinstance(journal, MemoryJournal):
        return  # the fake believes whoever asks it
    with pytest.raises(JournalError):
        journal.take_over([*records[:2], records[3]], 0)
    assert list(journal.anchors()) == []
