"""The page that specifies the journal's format is true."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs" / "reference" / "journal-format.md").read_text("utf-8")
SAMPLE = HERE / "data" / "journal-1" / "export.jsonl"


@pytest.mark.skipif(shutil.which("jq") is None, reason="the example needs jq")
def test_the_example_checks_a_record() -> None:
    """The page's own commands print a record's hash twice: computed, and as it was written."""
    (script,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        ["sh", "-eu", "-c", script], cwd=SAMPLE.parent, capture_output=True, text=True, check=True
    )
    computed, written = done.stdout.split()
    assert computed == written
    assert re.fullmatch("[0-9a-f]{64}", computed)


def test_the_seven_lines_are_what_is_hashed() -> None:
    """The page lists the hashed lines in the order in which the example prints them."""
    (lines,) = re.findall(r"```text\n(handrail-journal.*?)```", PAGE, re.DOTALL)
    names = [line.lower() for line in lines.split()[2:]]
    assert names == re.findall(r"\\\(\.(\w+)\)", PAGE)
