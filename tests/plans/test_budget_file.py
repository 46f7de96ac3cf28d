"""A budget in a file: read as it was meant, refused with its line, written to be read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.errors import DeclarationErrors
from handrail.plans import budget_file
from handrail.plans.effect import VERBS, Effect
from handrail.plans.model import Allowance

STORE, OTHER = "store/pilot-db", "store/cache"
TEXT = """\
format: 1
allow:
  - {verb: delete, kind: table, name: sessions, rows: 214, tolerance: 2}
  - {verb: create, kind: index, name: sessions_at}
unheld: [VACUUM sessions]
"""


def test_read() -> None:
    """Each line is an allowance of the only store; without rows, of any number."""
    found = budget_file.read(TEXT, "b.yaml", (STORE,))
    assert found.budget.allowances == (
        Allowance(STORE, "delete", "table", "sessions", 214, 2),
        Allowance(STORE, "create", "index", "sessions_at", None),
    )
    assert found.unheld == ("VACUUM sessions",)


def test_json() -> None:
    """JSON is read as YAML is."""
    text = (
        '{"format": 1, "allow": [{"verb": "delete", "kind": "key", "name": "session:*",'
        f' "rows": 5, "store": "{OTHER}"}}]}}'
    )
    found = budget_file.read(text, "b.json", (STORE, OTHER))
    assert found.budget.allowances == (Allowance(OTHER, "delete", "key", "session:*", 5),)


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("", "empty", 1),
        ("format: 2\nallow: []\n", "expected one of `1`", 1),
        ("format: 1\n", "`allow` is missing", 1),
        ("format: 1\nallow:\n - {verb: shred, kind: table, name: t}\n", "`shred`", 3),
        ("format: 1\nallow:\n - {verb: unknown, kind: table, name: t}\n", "`unknown`", 3),
        ("format: 1\nallow:\n - {verb: delete, kind: table, name: t, rows: many}\n", "whole", 3),
        ("format: 1\nallow:\n - {verb: delete, kind: t, name: t, row: 1}\n", "unknown key", 3),
        ("format: 1\nallow:\n - {verb: delete, kind: t, name: t, store: store/x}\n", "store/x", 3),
        ("format: 1\nallow: [\n", "not YAML", 3),
    ],
)
def test_wrong(text: str, said: str, line: int) -> None:
    """What is wrong is said with the file and the line."""
    with pytest.raises(DeclarationErrors) as raised:
        budget_file.read(text, "b.yaml", (STORE,))
    error = raised.value.errors[0]
    assert said in error.message
    assert error.at is not None
    assert (error.at.file, error.at.line) == ("b.yaml", line)


def test_which_store() -> None:
    """Of several stores, an allowance names one."""
    with pytest.raises(DeclarationErrors, match="which store is meant"):
        budget_file.read(TEXT, "b.yaml", (STORE, OTHER))


@given(
    st.lists(
        st.builds(
            Effect,
            st.sampled_from([STORE, OTHER]),
            st.sampled_from([verb for verb in VERBS if verb != "unknown"]),
            st.sampled_from(["table", "key", "file"]),
            st.text(
                st.characters(blacklist_categories=("Cs", "Cc", "Cn", "Co")), min_size=1, max_size=9
            ),
            st.none() | st.integers(0, 10**12),
        ),
        max_size=6,
    ),
    st.lists(st.sampled_from(["VACUUM", "CALL p($1)", 'DROP INDEX CONCURRENTLY "a: b"'])),
)
def test_reads_back(effects: list[Effect], unheld: list[str]) -> None:
    """What is written is read back the same, whatever the names are."""
    found = budget_file.read(budget_file.write(effects, unheld), "b", (STORE, OTHER))
    assert found.budget.allowances == tuple(
        Allowance(e.resource, e.verb, e.kind, e.name, e.rows) for e in effects
    )
    assert found.unheld == tuple(unheld)
