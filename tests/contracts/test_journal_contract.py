"""The contract of every journal: the real one and its fake."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest

from handrail.adapters.sqlite_journal import SqliteJournal
from handrail.core.journal import verify, verify_export
from handrail.errors import JournalError
from handrail.ports import Clock, Journal
from handrail.testing.clock import FakeClock
from handrail.testing.journal import MemoryJournal
from support.journals import fill, read


class Make(Protocol):
    def __call__(self, clock: Clock, secrets: Collection[str] = ()) -> Journal: ...


@pytest.fixture(params=["sqlite", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def build(clock: Clock, secrets: Collection[str] = ()) -> Journal:
        if request.param == "memory":
            return MemoryJournal(clock, secrets=secrets)
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
