"""What people sign against a server: withdrawals, reviews, answers, by keys that stay at home."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from handrail.core import asking, breaking
from support.served import Served, serving
from support.teams import ANA, BEN, CHI, OPERATION, Team, make_team, signers

QUESTION = "questions:\n  size: {type: int, text: How many sessions to keep?, default: 5}\n"
KEEP = """\
#!/bin/sh
set -eu
size=$(handrail-ask size)
exec python3 -S "$(dirname "$0")/../lib/sql.py" "DELETE FROM sessions WHERE id > $size"
"""
APPROVER = {"person": BEN, "role": "approver"}


@pytest.fixture
def team(tmp_path: Path) -> Team:
    """A team with a script that asks."""
    made = make_team(tmp_path / "team")
    made.commit(
        {
            "operations/keep.yaml": OPERATION.format(name="keep", undo="restore") + QUESTION,
            "scripts/keep/run.sh": KEEP,
            "allowed_signers": signers(made, ANA, BEN, CHI),
        }
    )
    return made


def test_withdrawal(team: Team) -> None:
    """An approver lists and withdraws through the server; another's cannot be withdrawn."""
    digest = team.make_ready("reset-pilot").plan.digest
    with serving(team) as served:
        listed = served.call("approvals")
        assert listed.out == team.call("approvals").out
        assert digest[:4] in listed.out
        other = served.call("withdraw", digest, person=CHI, role="approver")
        assert (other.code, "approval.none" in other.err) == (2, True)
        done = served.call("withdraw", digest[:8], **APPROVER)
        assert (done.code, f"by {BEN}" in done.out) == (0, True)
        assert served.call("run", "reset-pilot").code == 4


def test_standing_approval_is_withdrawn_by_its_id(team: Team) -> None:
    """What stands is signed, listed and ended through the server."""
    digest = team.rehearse("reset-pilot").plan.digest
    with serving(team) as served:
        given = served.call("approve", digest, "--yes", "--standing", "2d", **APPROVER)
        assert given.code == 0, given.err
        (name,) = [
            one["approval"]["id"] for one in served.call("approvals", "--json").json["standing"]
        ]
        assert served.call("run", "reset-pilot").code == 0
        assert "used once by run 1" in served.call("approvals").out
        assert served.call("withdraw", name, **APPROVER).code == 0
        assert served.call("approvals").out == "no approval counts now.\n"


def test_review(team: Team) -> None:
    """Glass that was broken on the server's machine is shown and reviewed from anywhere else."""
    team.rehearse("reset-pilot")
    assert team.call("run", "reset-pilot", "--break-glass", "the pilot is down").code == 0
    with serving(team) as served:
        assert "glass was broken" in served.call().out
        words = ("--yes", "--because", "the right rows, and no other")
        own = served.call("review", "1", *words, role="approver")
        assert (own.code, "keys.own-run" in own.err) == (3, True)
        done = served.call("review", "1", *words, **APPROVER)
        assert (done.code, f"reviewed by {BEN}" in done.out) == (0, True), done.err
        assert "glass was broken" not in served.call().out
    assert breaking.breaks(team.world())[0].review is not None


def test_answer(team: Team) -> None:
    """A run that the server does asks; a person elsewhere sees it, and answers."""
    team.make_ready("keep")
    with serving(team) as served, begun(served, "run", "keep") as ran:
        wait_for(lambda: bool(asking.open_questions(team.world())))
        assert "How many sessions to keep?" in served.call().out
        assert "handrail answer 1 size ..." in served.call("answer", "1").out
        wrong = served.call("answer", "1", "size", "many")
        assert (wrong.code, "question.answer" in wrong.err) == (2, True)
        done = served.call("answer", "1", "size", "7", **APPROVER)
        assert (done.code, f"answered with 7, says {BEN}" in done.out) == (0, True), done.err
        out, _ = ran.communicate(timeout=60)
        assert ran.returncode == 0, out
    assert team.query("SELECT count(*) FROM sessions") == 7


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that another process brings about."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def begun(served: Served, *words: str) -> subprocess.Popen[str]:
    """Begin a command against the server."""
    return subprocess.Popen(
        [sys.executable, "-m", "handrail", *words],
        env=served.environment_of(ANA, "operator"),
        cwd=served.team.root.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
