"""Servers that tests share: one a test process; and how long generated tests look for mistakes.

`HYPOTHESIS_PROFILE=torture` gives every generated test forty times its examples.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import is_hypothesis_test, settings

from support.nomad import NomadAgent, running_agent
from support.postgres_server import Server, run_server

TORTURE_TIMES = 40
_SETTINGS = "_hypothesis_internal_use_settings"
settings.register_profile("torture", deadline=None, print_blob=True)
if os.environ.get("HYPOTHESIS_PROFILE"):
    settings.load_profile(os.environ["HYPOTHESIS_PROFILE"])


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """In torture, multiply the examples of tests, also of those that say how many they want."""
    if os.environ.get("HYPOTHESIS_PROFILE") != "torture":
        return
    for item in items:
        test = getattr(item, "obj", None)
        if not is_hypothesis_test(test):
            continue
        # There is no public way to change what a test was decorated with.
        own = vars(test).get(_SETTINGS) or settings()
        more = settings(own, max_examples=own.max_examples * TORTURE_TIMES, deadline=None)
        setattr(test, _SETTINGS, more)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A real PostgreSQL server of this test process alone."""
    yield from run_server()


@pytest.fixture(scope="session")
def nomad_agent() -> Iterator[NomadAgent]:
    """A real Nomad cluster of this test process alone."""
    with running_agent() as agent:
        yield agent
