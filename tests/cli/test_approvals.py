"""The commands about approvals, as people call them: approve, approvals, withdraw, run, review."""

from __future__ import annotations

from pathlib import Path

import pytest
from inline_snapshot import snapshot

from handrail.core import records
from support.teams import ANA, BEN, CHI, SESSIONS, Team, make_team, signers

REFILL = "INSERT INTO sessions SELECT n, 1, '2026-01-01' FROM (WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20) SELECT n FROM c)"  # noqa: E501


@pytest.fixture
def team(tmp_path: Path) -> Team:
    """A team of three with a rehearsed plan."""
    made = make_team(tmp_path / "team")
    made.commit({"allowed_signers": signers(made, ANA, BEN, CHI)})
    made.rehearse("reset-pilot")
    return made


def digest(team: Team) -> str:
    return records.short(team.decide("reset-pilot").plan.digest)


def test_nothing_counts(team: Team) -> None:
    """Without an approval the list says so."""
    answer = team.call("approvals")
    assert (answer.code, answer.out) == (0, "no approval counts now.\n")


def test_standing(team: Team) -> None:
    """It is given for 30 days, listed with what it covers, used run after run, and withdrawn."""
    given = team.call(
        "approve", digest(team), "--yes", "--standing", "30d", "--because", "weekly", person=BEN
    )
    assert given.code == 0
    assert "for every run of reset-pilot on store/pilot-db that stays" in " ".join(
        given.out.split()
    )
    for _ in range(2):
        assert team.call("run", "reset-pilot").code == 0
        team.execute(f"{REFILL}; UPDATE devices SET registered = 1")
    (name,) = [one["approval"]["id"] for one in team.call("approvals", "--json").json["standing"]]
    listed = team.call("approvals").out
    # A path is as long as it is: its line may be broken.
    place = listed.split("  at      ")[1].split("\n  covers")[0]
    assert " ".join(place.split()) == f"{team.database}, risk high at most"
    hidden = listed.replace(place, "PATH").replace(name, "ID")
    until = next(w for w in hidden.split("until ")[1].split("\n") if w)
    assert hidden.replace(until, "TIME") == snapshot("""\
standing ID: reset-pilot on store/pilot-db
  at      PATH
  covers  delete table sessions 22 rows; update table devices 7 rows; undo restore
  by      ben@pilot.example, until TIME
  used 2 times, last by run 2; to end it: handrail withdraw ID
""")
    assert max(map(len, hidden.splitlines())) <= 100
    assert team.call("withdraw", name, person=BEN).code == 0
    assert team.call("run", "reset-pilot").code == 4


def test_standing_ends_with_a_changed_script(team: Team) -> None:
    """Asked to run another script, it ends; put back, the run waits for somebody again."""
    team.call("approve", digest(team), "--yes", "--standing", "1d", person=BEN)
    script = "scripts/reset-pilot/run.sh"
    before = (team.root / script).read_text()
    team.commit({script: before + "# changed\n"})
    assert team.call("run", "reset-pilot").code == 3
    team.commit({script: before})
    assert team.call("run", "reset-pilot").code in {3, 4}
    team.rehearse("reset-pilot")
    waiting = team.call("run", "reset-pilot")
    assert (waiting.code, "handrail approve" in waiting.out) == (4, True)


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1y", "99999999d", "30d; rm"])
def test_no_duration(team: Team, text: str) -> None:
    """A time that is none is a usage error, and nothing is signed."""
    answer = team.call("approve", digest(team), "--yes", "--standing", text, person=BEN)
    assert answer.code == 2
    assert team.call("approvals").out == "no approval counts now.\n"


def test_both_kinds_are_listed(team: Team) -> None:
    """Those for one run come first, with who gave them and why."""
    team.call("approve", digest(team), "--yes", "--because", "test day", person=CHI)
    team.call("approve", digest(team), "--yes", "--standing", "12h", person=BEN)
    out = team.call("approvals").out
    assert out.startswith(f"for one run:\n  {digest(team)}  {CHI}  until ")
    assert "test day" in out
    assert f"  by      {BEN}, until " in out
    found = team.call("approvals", "--json").json
    assert [len(found[kind]) for kind in ("once", "standing")] == [1, 1]


def test_break_glass_through_an_incident(team: Team) -> None:
    """Behind broken glass a run that waits for people runs, is shown until reviewed, and only then
    can it be broken again."""
    why = "the pilot is down"
    ran = team.call("run", "reset-pilot", "--break-glass", why)
    assert (ran.code, "confirmed: run 1" in ran.out) == (0, True)
    team.execute(f"{REFILL}; UPDATE devices SET registered = 1")
    team.rehearse("reset-pilot")
    denied = team.call("run", "reset-pilot", "--break-glass", why, person=CHI)
    assert (denied.code, "break-glass.unreviewed" in denied.err) == (3, True)
    wordless = team.call("review", "1", "--yes", "--because", "fine", person=BEN)
    assert wordless.code == 2
    shown = team.call("review", "1", "--because", "the right rows, nothing else", person=BEN)
    assert (shown.code, f'because: "{why}"' in shown.out) == (2, True)
    assert "usage.not-interactive" in shown.err
    reviewed = team.call(
        "review", "1", "--yes", "--json", "--because", "the right rows, nothing else", person=BEN
    )
    assert reviewed.json["glass"]["review"]["person"] == BEN
    assert team.call("run", "reset-pilot", "--break-glass", why, person=CHI).code == 0
    assert team.query("SELECT count(*) FROM sessions") == SESSIONS - 20


def test_break_glass_does_not_pass_facts(tmp_path: Path) -> None:
    """What nobody has rehearsed is refused behind broken glass, too, and no glass is broken."""
    team = make_team(tmp_path / "team")
    answer = team.call("run", "reset-pilot", "--break-glass", "now!")
    assert (answer.code, "does not pass" in answer.err) == (3, True)
    assert "glass" not in team.call().out


@pytest.mark.parametrize("words", [(), ("1", "size"), ("1", "size", "3", "--refuse"), ("x",)])
def test_answer_called_wrongly(team: Team, words: tuple[str, ...]) -> None:
    """An answer is a value or a refusal, for a run that is a number."""
    assert team.call("answer", *words).code == 2


def test_answer_of_nothing(team: Team) -> None:
    """A run that asks nothing says so; an answer to it is an error."""
    assert team.call("answer", "9").out == "run 9 asks nothing now.\n"
    answer = team.call("answer", "9", "size", "3", person=BEN)
    assert (answer.code, "question.unknown" in answer.err) == (2, True)


def test_break_glass_over_several_targets(team: Team) -> None:
    """The glass is broken for one target at a time; what is over several is refused before."""
    declared = (team.root / "operations/reset-pilot.yaml").read_text()
    waves = declared.replace("on: store/pilot-db", "on: {store: {environment: pilot}}")
    team.commit({"operations/reset-pilot.yaml": waves + "waves: {sizes: [all]}\n"})
    answer = team.call("run", "reset-pilot", "--break-glass", "now!")
    assert (answer.code, "break-glass.denied" in answer.err) == (2, True), answer.err
    assert "glass" not in team.call().out


def test_whoever_breaks_the_glass_has_said_why(team: Team) -> None:
    """What cannot be undone wants a reason; the reason for breaking the glass is one."""
    team.call("rehearse", "purge-readings")
    assert "say why it must be" in team.call("run", "purge-readings").out
    ran = team.call("run", "purge-readings", "--break-glass", "the law wants them gone today")
    assert ran.code == 0, ran.out + ran.err
    assert team.query("SELECT count(*) FROM readings") == 1
