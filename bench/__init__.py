"""Benches: what Handrail promises in numbers, as ratios to something measured in the same run.

A module here that has `main() -> list[dict[str, object]]` gives rows of `name`, `ratio`, `bound`
(a number; None for what is only told) and `detail`, with `at_least: True` where the bound is a
lower one. `python -m bench` runs them all, `python -m bench.NAME` one.
"""

import sys
from pathlib import Path

# The servers and the guard's process that the tests use are measured too.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
