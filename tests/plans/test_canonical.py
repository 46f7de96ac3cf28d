"""Canonical JSON: one value, one text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.plans.canonical import encode, encode_plain, plain, sha256, time_text

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@dataclass(frozen=True)
class Inner:
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Outer:
    when: datetime
    inner: Inner
    names: frozenset[str]


def test_the_text_is_compact_sorted_and_not_escaped() -> None:
    """Keys are sorted, there is no space, and a letter beyond ASCII stays itself."""
    assert encode({"b": [1, True, None], "a": "é"}) == '{"a":"é","b":[1,true,null]}'


@given(VALUES)
def test_the_text_reads_back_as_the_value(value: object) -> None:
    """Nothing is lost: reading the text as JSON gives the value again."""
    assert json.loads(encode(value)) == value


@given(VALUES)
def test_the_text_is_what_json_writes(value: object) -> None:
    """The text is the one that Python's own writer gives, but for lone surrogates."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert json.loads(encode(value)) == json.loads(text)
    if text.isascii():
        assert encode(value) == text


@given(st.dictionaries(st.text(), st.integers()))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    """Equal mappings have equal texts, whatever order their keys were put in."""
    assert encode(value) == encode(dict(reversed(value.items())))


@given(VALUES)
def test_the_text_is_one_line_of_utf_8(value: object) -> None:
    """A text never holds a line end, and can always be written as UTF-8."""
    assert b"\n" not in encode(value).encode()


@given(VALUES)
def test_the_fast_way_gives_the_same_text(value: object) -> None:
    """`encode_plain` is `encode` of `plain`."""
    assert encode_plain(value) == encode(plain(value))


def test_a_lone_surrogate_is_escaped() -> None:
    """A byte of a file name that is not UTF-8 has a text, too."""
    assert encode("a\udcffb") == '"a\\udcffb"'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, b"x", object(), {"a": {2}}])
def test_what_has_no_canonical_text_is_refused(value: object) -> None:
    """NaN, infinity, keys that are not text, bytes and objects have no text."""
    with pytest.raises(TypeError):
        encode(value)


@pytest.mark.parametrize("value", [float("nan"), {1: 2}, {"a": {1: 2}}, b"x", object(), Inner])
def test_what_has_no_plain_form_is_refused(value: object) -> None:
    """`encode_plain` refuses what `encode` refuses, however deep it lies."""
    with pytest.raises(TypeError):
        encode_plain(value)


def test_a_number_is_not_a_float_of_the_same_value() -> None:
    """2 and 2.0 are different in a digest."""
    assert encode(2) == "2"
    assert encode(2.0) == "2.0"


def test_values_become_plain() -> None:
    """Dataclasses, tuples, sets, paths and times become what JSON has."""
    value = Outer(datetime(2026, 1, 5, tzinfo=UTC), Inner((Path("a/b"),)), frozenset("ba"))
    assert plain(value) == {
        "when": "2026-01-05T00:00:00.000000Z",
        "inner": {"paths": ["a/b"]},
        "names": ["a", "b"],
    }


def test_a_time_is_told_in_utc() -> None:
    """One moment has one text, whatever zone it was given in."""
    moment = datetime(2026, 1, 5, 12, tzinfo=timezone(timedelta(hours=3)))
    assert time_text(moment) == time_text(moment.astimezone(UTC)) == "2026-01-05T09:00:00.000000Z"


def test_a_time_without_a_zone_is_refused() -> None:
    """A time that does not say its zone is a defect."""
    with pytest.raises(TypeError):
        time_text(datetime(2026, 1, 5))  # noqa: DTZ001  # the point of the test


def test_a_text_is_hashed_as_utf_8() -> None:
    """`sha256` of a text is that of its UTF-8 bytes."""
    assert sha256("é") == sha256("é".encode())
    assert sha256("").startswith("e3b0c44298fc1c14")
