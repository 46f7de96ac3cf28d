"""Errors: every code is documented, used, and rendered so that a terminal is safe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from handrail import errors
from handrail.errors import (
    CODES,
    DeclarationError,
    DeclarationErrors,
    HandrailError,
    OverBudgetError,
    Place,
    RefusedError,
    UsageError,
    WaitingError,
    render,
    sanitise,
)

SOURCE = Path(errors.__file__).parent
AREAS = sorted({code.partition(".")[0] for code in CODES})


def test_every_code_is_raised_somewhere() -> None:
    """A code that nothing raises is a promise that nothing keeps."""
    text = "".join(p.read_text("utf-8") for p in SOURCE.rglob("*.py") if p.name != "errors.py")
    assert [code for code in CODES if f'"{code}"' not in text] == []


def test_every_code_that_is_raised_is_documented() -> None:
    """Whatever the source calls an error stands in the table that the reference is made from."""
    raised = re.compile(r'Error\(\s*"([a-z]+(?:\.[a-z-]+)?)"')
    found = {code for p in SOURCE.rglob("*.py") for code in raised.findall(p.read_text("utf-8"))}
    assert len(found) > 30
    assert sorted(found - set(CODES)) == []


def test_every_code_has_a_sentence() -> None:
    """It ends with a full stop and is no copy of another."""
    assert all(sentence.endswith(".") for sentence in CODES.values())
    assert len(set(CODES.values())) == len(CODES)


def test_an_undocumented_code_cannot_be_raised() -> None:
    """The mistake shows when the error is made, not when somebody looks for it."""
    with pytest.raises(AssertionError, match=re.escape("estate.nonsense")):
        HandrailError("estate.nonsense", "x")


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (HandrailError, 1),
        (UsageError, 2),
        (DeclarationError, 2),
        (RefusedError, 3),
        (WaitingError, 4),
        (OverBudgetError, 5),
    ],
)
def test_the_class_decides_the_exit_code(kind: type[HandrailError], exit_code: int) -> None:
    """Nothing else does."""
    assert kind("internal", "x").exit_code == exit_code


def test_an_error_is_shown_with_its_place_and_what_to_do() -> None:
    """Code and message, the place under it, and the hint after a line of its own."""
    error = DeclarationError(
        "estate.unknown-store",
        "operation `reset-pilot` targets unknown store `pilot-bd`",
        at=Place("operations/reset-pilot.yaml", 4),
        hint="did you mean `pilot-db`?",
    )
    assert render(error) == snapshot("""\
error[estate.unknown-store]: operation `reset-pilot` targets unknown store `pilot-bd`
  --> operations/reset-pilot.yaml:4

hint: did you mean `pilot-db`?\
""")
    assert error.as_json() == snapshot(
        {
            "code": "estate.unknown-store",
            "message": "operation `reset-pilot` targets unknown store `pilot-bd`",
            "file": "operations/reset-pilot.yaml",
            "line": 4,
            "hint": "did you mean `pilot-db`?",
        }
    )


def test_several_errors_are_shown_one_after_the_other() -> None:
    """Each whole, in the order in which they were found."""
    found = DeclarationErrors(
        DeclarationError("estate.syntax", f"problem {i}", at=Place("a.yaml", i)) for i in (1, 2)
    )
    assert render(found) == snapshot("""\
error[estate.syntax]: problem 1
  --> a.yaml:1

error[estate.syntax]: problem 2
  --> a.yaml:2\
""")
    assert found.exit_code == 2


def test_a_message_of_several_lines_cannot_forge_one_of_ours() -> None:
    """A server's answer keeps its lines, and they stay inside of the error."""
    error = HandrailError("store.failed", "one\nerror[plan.refused]: two\n  --> x:1", hint="a\nb")
    assert render(error) == snapshot("""\
error[store.failed]: one
       error[plan.refused]: two
         --> x:1

hint: a
       b\
""")


@given(st.text())
def test_nothing_that_moves_a_cursor_is_left(text: str) -> None:
    """Whatever comes from outside: no control, format, surrogate or separator but the tab."""
    shown = sanitise(text).replace("\t", "")
    assert sanitise(shown) == shown
    assert not re.search(
        r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", shown
    )


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_what_can_be_read_stays(text: str) -> None:
    """Letters of any language, signs and spaces are left alone."""
    assert sanitise(text) == text


def test_line_ends_stay_where_they_are_wanted() -> None:
    """They are shown as text elsewhere."""
    assert sanitise("a\nb\r", keep_lines=True) == "a\nb\\r"
    assert sanitise("a\nb") == "a\\nb"
