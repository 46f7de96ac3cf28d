"""Torture: other projects' own test suites, run through the guard and compared with a direct run.

`python -m scripts.torture [--short] [SUITE ...]`, from the top folder; `make torture` does it.
"""
