"""What differs between two specifications is told line by line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from handrail.kits.deploys.differing import differences
from handrail.plans.canonical import encode

BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=2), inside, max_size=3)
    ),
    max_leaves=8,
)


def test_each_difference_has_a_line() -> None:
    """What is added, gone and another stands there with its path."""
    before = {"web": {"command": ["a"], "instances": 1, "user": "www"}}
    after = {"web": {"command": ["b", "c"], "environment": {"A": "1"}, "instances": 1}}
    assert differences(before, after) == (
        '~ web > command: ["a"] -> ["b","c"]',
        "+ web > environment > A: 1",
        "- web > user: www",
    )


def test_members_of_a_list_are_told_apart_by_their_names() -> None:
    """A group that came first does not make every other one look changed."""
    before = {"Groups": [{"Name": "web", "Count": 1}]}
    after = {"Groups": [{"Name": "cache", "Count": 1}, {"Name": "web", "Count": 2}]}
    assert differences(before, after) == (
        "+ Groups > cache > Count: 1",
        "+ Groups > cache > Name: cache",
        "~ Groups > web > Count: 1 -> 2",
    )


def test_two_long_values_never_look_the_same() -> None:
    """Where what differs was cut off, the two sides carry a mark that differs."""
    (line,) = differences({"a": "x" * 500 + "1"}, {"a": "x" * 500 + "2"})
    before, _, after = line.removeprefix("~ a: ").partition(" -> ")
    assert before != after
    assert len(line) < 300


def test_text_and_number_of_the_same_look_are_told_apart() -> None:
    """`1` and `"1"` mean different things to a platform."""
    (line,) = differences({"a": 1}, {"a": "1"})
    before, _, after = line.removeprefix("~ a: ").partition(" -> ")
    assert before != after


@given(BODIES)
def test_equal_bodies_have_no_line(body: object) -> None:
    """What is the same says nothing."""
    assert differences(body, body) == ()


@given(
    st.dictionaries(st.text(max_size=2), BODIES, min_size=1),
    st.dictionaries(st.text(max_size=2), BODIES, min_size=1),
)
def test_no_difference_is_silent(before: dict[str, object], after: dict[str, object]) -> None:
    """Two bodies that are not the same have a line."""
    lines = differences(before, after)
    assert bool(lines) == (encode(before) != encode(after))


def test_a_list_is_told_from_a_mapping() -> None:
    """A member of a list is not a key of the same look."""
    assert differences({"a": [{}]}, {"a": {"0": {}}}) == ("+ a > 0: {}", "- a > 0: {}")
