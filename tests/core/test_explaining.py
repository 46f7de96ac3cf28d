"""Explaining: what was decided is told from the record, whatever has changed since."""

from __future__ import annotations

import json

from support.teams import Team


def test_record_alone(team: Team) -> None:
    """After script, estate, policy and database have changed, `explain` says what it said."""
    decided = team.make_ready("reset-pilot")
    team.call("run", "reset-pilot")
    digest = decided.plan.digest[:8]
    asked = [(digest,), (digest, "--json"), ("1",), ("1", "--json")]
    before = [team.call("explain", *words) for words in asked]
    assert {answer.code for answer in before} == {0}
    for name in ("scripts/reset-pilot/run.sh", "operations/reset-pilot.yaml", "allowed_signers"):
        (team.root / name).unlink()
    (team.root / "estate/pilot.yaml").write_text("environments: {}\n")
    (team.root / "policy.yaml").write_text("approval: {max-age: 1s}\n")
    team.database.unlink()
    assert [team.call("explain", *words) for words in asked] == before


def test_every_decision(team: Team) -> None:
    """`explain` prints every guard's decision: verdict, fact, and remedy where one is needed."""
    decided = team.rehearse("drop-readings")
    answer = team.call("explain", decided.plan.digest)
    for decision in decided.plan.decisions:
        assert f"{decision.guard}: {decision.verdict}" in answer.out
        assert decision.because.split()[0] in answer.out
    assert "drop  table readings  3 rows" in answer.out
    recorded = json.loads(team.call("explain", decided.plan.digest, "--json").out)
    assert [d["guard"] for d in recorded["plan"]["decisions"]] == [
        d.guard for d in decided.plan.decisions
    ]


def test_unknown(team: Team) -> None:
    """What was never planned cannot be explained, and an ambiguous beginning says so."""
    assert team.call("explain", "7f3a-91c2").code == 2
    journal = team.world().journal
    for end in ("1", "2"):
        journal.append(f"plans-{'abcde' + end:0<64}", "planned", {})
    answer = team.call("explain", "abcde")
    assert (answer.code, "plan.ambiguous" in answer.err) == (2, True)
