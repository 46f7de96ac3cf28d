"""Engines that are killed: over both databases, at random moments, until every run has ended.

`HANDRAIL_KILLS` says how often; the seed and the count are printed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.journals import journal_database, journal_url
from support.walk_killing import Killer, Trial, journal_at

__all__ = ["journal_database", "journal_url"]

_KILLS = int(os.environ.get("HANDRAIL_KILLS", "40"))
_WALKS = 4


@pytest.fixture
def killer() -> Iterator[Killer]:
    found = Killer()
    yield found
    found.end()


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        found: str = request.getfixturevalue("journal_url")
        return found
    return str(tmp_path / "journal.db")


def test_killed_at_any_moment(killer: Killer, address: str, tmp_path: Path) -> None:
    """No done step acts twice, no target has two unknown ones, and every run ends truthfully."""
    seed = int(os.environ.get("HANDRAIL_SEED", time.time_ns() % 2**32))
    kind = "postgres" if "://" in address else "sqlite"
    with journal_at(address) as journal:
        trial = Trial(journal, address, tmp_path, seed)
        print(f"{kind}: seed {seed}")
        while trial.kills < _KILLS // 2:
            trial.submit(_WALKS)
            while trial.speak():
                trial.go_on(killer, is_killed=trial.kills < _KILLS // 2)
        trial.judge()
    print(f"{kind}: {trial.kills} kills, {len(trial.walks)} runs, seed {seed}")


def test_three_processes_over_one_journal(killer: Killer, address: str, tmp_path: Path) -> None:
    """Engines that take up the same runs at once do each step once: the fence decides."""
    others = [Killer(), Killer()]
    with journal_at(address) as journal, ThreadPoolExecutor() as pool:
        trial = Trial(journal, address, tmp_path, seed=7)
        trial.submit(2)
        while trial.speak():
            tuple(pool.map(lambda one: trial.go_on(one, is_killed=False), [killer, *others]))
        trial.judge()
    for other in others:
        other.end()
