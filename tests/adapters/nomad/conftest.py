"""A platform on the real cluster of this test process, with nothing on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from handrail.adapters.nomad import NomadPlatform, Where
from support.nomad import NomadAgent


@pytest.fixture
def agent(nomad_agent: NomadAgent) -> Iterator[NomadAgent]:
    """The cluster; nothing runs on it before, or after."""
    nomad_agent.remove_all()
    yield nomad_agent
    nomad_agent.remove_all()


@pytest.fixture
def platform(agent: NomadAgent) -> Iterator[NomadPlatform]:
    """It, as a platform."""
    with closing(NomadPlatform("platform/prod", Where(agent.url))) as made:
        yield made
