"""Teams and killers for the tests of the stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.killing import Killer
from support.teams import Team, make_team
from support.worlds import FakeWorld, make_world


@pytest.fixture
def team(tmp_path: Path) -> Team:
    """A team that has rehearsed nothing yet."""
    return make_team(tmp_path / "team")


@pytest.fixture(scope="session")
def killer() -> Iterator[Killer]:
    """The process that runs command lines and kills them."""
    killer = Killer()
    yield killer
    killer.end()


@pytest.fixture
def fake(tmp_path: Path) -> FakeWorld:
    """A world of fakes in which everything is well."""
    return make_world(tmp_path / "fake")
