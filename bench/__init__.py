"""Benches: what Handrail promises in numbers, as ratios to something measured in the same run.

A module here has `main() -> list[dict[str, object]]`: rows of `name`, `ratio`, `bound` (a number),
`detail`, and `at_least: True` where the bound is a lower one. `python -m bench` runs them all.
"""
