"""Benches: what Handrail promises in numbers, as ratios to something measured in the same run.

A module here that has `main() -> list[dict[str, object]]` gives rows of `name`, `ratio`, `bound`
(a number; None for what is only told) and `detail`, with `at_least: True` where the bound is a
lower one. `python -m bench` runs them all, `python -m bench.NAME` one.
"""
