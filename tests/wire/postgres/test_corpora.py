"""The corpora: what each known trick is classified as, and what ordinary clients send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from handrail.wire.postgres.classify import Classifier

HERE = Path(__file__).parent / "corpus"
ENDS = {"held", "harmless", "error"}
FIELDS = {"id", "tries", "setup", "superuser", "sql", "encoding", "hex", "strings", "messages"}
FIELDS |= {"kinds", "end"}
MESSAGES = {"query", "copy", "parse", "bind", "execute", "sync", "flush", "terminate", "startup"}
MESSAGES |= {"call", "cancel", "raw", "length", "hang-up"}


def read(name: str) -> list[dict[str, Any]]:
    """Return the entries of a corpus."""
    entries: list[dict[str, Any]] = yaml.safe_load((HERE / name).read_text("utf-8"))
    return entries


BYPASSES = read("bypasses.yaml")
FALSE_ALARMS = read("false_alarms.yaml")


def texts(entry: dict[str, Any]) -> Iterator[bytes]:
    """Yield what an entry has classified, in order."""
    if "hex" in entry:
        yield bytes.fromhex(entry["hex"])
    sql = entry.get("sql", [])
    for text in [sql] if isinstance(sql, str) else sql:
        yield text.encode()
    for message in entry.get("messages", []):
        text = message.get("query", message.get("parse"))
        if text is not None:
            yield text.encode(message.get("as", "utf-8"))


def kinds(entry: dict[str, Any]) -> list[str]:
    """Return what the statements of an entry are said to be."""
    classifier = Classifier()
    encoding = entry.get("encoding", "UTF8")
    standard = entry.get("strings") != "off"
    return [
        statement.kind
        for text in texts(entry)
        for statement in classifier.of(text, encoding, standard_strings=standard)
    ]


@pytest.mark.parametrize("entry", BYPASSES, ids=lambda entry: entry["id"])
def test_a_trick_is_seen_for_what_it_is(entry: dict[str, Any]) -> None:
    """Each attempt to get round the guard is classified as the corpus says."""
    assert kinds(entry) == entry["kinds"]


@pytest.mark.parametrize("entry", FALSE_ALARMS, ids=lambda entry: entry["id"])
def test_what_only_looks_dangerous_passes(entry: dict[str, Any]) -> None:
    """What ordinary clients send is neither forbidden nor unknown."""
    found = kinds(entry)
    assert found == entry["kinds"]
    assert not {"forbidden", "unknown"} & set(found)


def test_the_corpora_are_whole() -> None:
    """Every entry has a name of its own, and says nothing that no reader of it understands."""
    names = [entry["id"] for entry in (*BYPASSES, *FALSE_ALARMS)]
    assert len(names) == len(set(names))
    assert len(BYPASSES) >= 150
    assert len(FALSE_ALARMS) >= 60
    for entry in BYPASSES:
        assert set(entry) <= FIELDS, entry["id"]
        assert entry["end"] in ENDS, entry["id"]
        assert sum(key in entry for key in ("sql", "hex", "messages")) == 1, entry["id"]
        assert all(MESSAGES & set(message) for message in entry.get("messages", []))


def test_what_is_called_reading_has_nothing_that_a_read_only_transaction_lets_through() -> None:
    """No trick that must be held is left to the server as reading, unless a function hides it."""
    for entry in BYPASSES:
        if entry["end"] == "held" and set(entry["kinds"]) == {"read"}:
            hides = "setup" in entry or "query_to_xml" in str(entry["sql"])
            assert hides, entry["id"]
