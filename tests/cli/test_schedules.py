"""`handrail schedules` and `handrail notify`, on the real wiring; and killed at each record."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handrail.core import records
from handrail.core.schedule_records import chain_of
from handrail.plans.canonical import time_text
from support.hooks import Hook, run_hook
from support.killing import Killer
from support.teams import ANA, SCRIPT, Team, make_team

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
POLICY = (
    "guards: {review: critical, backup-proven: critical, rehearsed: critical, committed: critical,"
    " avoidable: critical, unheld: critical, privilege: critical, production-data: critical}\n"
)
TOLD = """\
to:
  on-call:
    webhook: {url: {env: HOOK_URL}, secret: {env: HOOK_SECRET}}
"""
# How many writes a look makes that begins one run: the last case below sees to it.
WRITES = 26
# All of them in torture; else those at which something else is known of the time than before.
KILLED_AT = (
    range(1, WRITES + 1)
    if os.environ.get("HYPOTHESIS_PROFILE") == "torture"
    else (2, 4, 5, 6, WRITES - 6)
)


def operation(cron: str, more: str = "") -> str:
    return f"""\
operation: add-reading
run: ./scripts/add-reading/run.sh
on: store/pilot-db
environment: {{PILOT_DB: path}}
inherit: [COUNTED_IN]
uses: [scripts/lib]
undo: restore
watch: {{soak: 0s}}
effects: [{{insert: table readings, rows: 1}}]
schedule: {{cron: "{cron}", late: 6h{more}}}
"""


def lately() -> str:
    """Return a cron expression that was due half an hour ago, and is not again for a day."""
    then = datetime.now(UTC) - timedelta(minutes=30)
    return f"{then.minute} {then.hour} * * *"


def make(root: Path, more: str = "", told: str = "") -> Team:
    """Return a team with a schedule that was first seen two hours ago."""
    cron = lately()
    files = {
        "operations/add-reading.yaml": operation(cron, more),
        "scripts/add-reading/run.sh": SCRIPT.format(sql="INSERT INTO readings (value) VALUES (1)"),
        "policy.yaml": POLICY,
    }
    team = make_team(root, files | ({"notifications.yaml": told} if told else {}))
    body = {
        "schedule": f"{cron} UTC",
        "time": time_text(datetime.now(UTC) - timedelta(hours=2)),
    }
    team.world().journal.append(chain_of("add-reading"), "declared", body)
    return team


def kinds(team: Team) -> list[str]:
    found = team.world().journal.records(chain_of("add-reading"))
    return [record.kind for record in found]


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A web hook on loopback."""
    with run_hook() as server:
        yield server


def test_what_is_due_is_run_once_and_listed(tmp_path: Path) -> None:
    """`run-due` runs it, says how it ended, and the second one finds nothing to do."""
    team = make(tmp_path / "team")
    ran = team.call("schedules", "run-due")
    assert (ran.code, "confirmed: run 1, add-reading" in ran.out) == (0, True), ran
    again = team.call("schedules", "run-due")
    assert (again.code, again.out) == (0, "")
    assert team.query("select count(*) from readings") == 4
    listed = team.call("schedules")
    assert "confirmed, run 1" in listed.out
    (found,) = team.call("schedules", "--json").json["schedules"]
    assert (found["last"], found["run"], found["zone"]) == ("confirmed", 1, "UTC")


def test_a_paused_schedule_says_who_and_why(tmp_path: Path) -> None:
    """Without a reason nothing is paused; paused, nothing runs; resumed, nothing is made up for."""
    team = make(tmp_path / "team")
    unsaid = team.call("schedules", "pause", "add-reading")
    assert (unsaid.code, "say why" in unsaid.err) == (2, True)
    paused = team.call("schedules", "pause", "add-reading", "--because", "we move", "--for", "2d")
    assert paused.code == 0
    assert team.call("schedules", "run-due").out == ""
    assert "add-reading is paused by ana@pilot.example until" in team.call("schedules").out
    assert team.call("schedules", "resume", "add-reading").code == 0
    assert team.call("schedules", "run-due").out == ""
    assert team.executions == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pause",), "which operation?"),
        (("pause", "add-readng", "--because", "x"), "did you mean `add-reading`?"),
        (("pause", "add-reading", "--because", "x", "--for", "soon"), "no time such as"),
        (("pause", "add-reading", "--because", "x", "--for", "0h"), "no time such as"),
        (("resume", "add-reading"), "is not paused"),
        (("resume", "reset-pilot"), "no operation `reset-pilot` has a schedule"),
        (("begin",), "invalid choice"),
    ],
)
def test_a_wrong_call_changes_nothing(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """Exit code 2, and what to do instead."""
    team = make(tmp_path / "team")
    answer = team.call("schedules", *words)
    assert (answer.code, said in answer.err) == (2, True), answer
    assert kinds(team) == ["declared"]


def test_who_is_told_hears_by_a_signed_hook_and_no_secret_is_kept(
    tmp_path: Path, hook: Hook
) -> None:
    """A refused time is told; neither address nor key is in the journal, nor on the screen."""
    team = make(tmp_path / "team", told=TOLD)
    team.environment |= {"HOOK_URL": hook.url, "HOOK_SECRET": SECRET}
    tried = team.call("notify", "test", "on-call")
    assert (tried.code, len(hook.sent)) == (0, 1), tried
    team.call("notify", "deliver")
    team.write({"policy.yaml": "guards: {backup-proven: none}\n"})
    ran = team.call("schedules", "run-due")
    assert (ran.code, ran.out.startswith("refused")) == (3, True), ran
    sent = json.loads(hook.sent[-1].body)
    assert (sent["type"], len(hook.sent)) == ("handrail.refused", 2)
    assert "webhook-signature" in {name.lower() for name in hook.sent[-1].headers}
    hook.answers = [500]
    team.call("schedules", "run-due")
    shown = team.call("notify").out + team.call("notify", "--json").out + team.journal_text()
    for secret in (SECRET, "s3cret-in-the-address"):
        assert secret not in shown + ran.out + ran.err + tried.out


def test_a_destination_whose_secret_is_not_set_says_which(tmp_path: Path) -> None:
    """The variable's name, and where it is declared."""
    team = make(tmp_path / "team", told=TOLD)
    tried = team.call("notify", "test", "on-call")
    assert (tried.code, "$HOOK_URL" in tried.err, "notifications.yaml:3" in tried.err) == (
        1,
        True,
        True,
    )
    unknown = team.call("notify", "test", "oncall")
    assert (unknown.code, "`on-call`" in unknown.err) == (2, True)


def test_without_a_word_it_says_how_to_begin(tmp_path: Path) -> None:
    """No schedule and nobody to tell is no error."""
    team = make_team(tmp_path / "team")
    assert "no operation has a schedule" in team.call("schedules").out
    assert "nobody outside is told" in team.call("notify").out
    assert team.call("schedules", "run-due").code == 0


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Team:
    """A team with a due time, to be killed again and again."""
    team = make(tmp_path_factory.mktemp("schedules") / "team", more="", told=TOLD)
    team.environment |= {"HOOK_URL": "http://127.0.0.1:9/", "HOOK_SECRET": SECRET}
    team.keep("due")
    return team


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    """The process that runs command lines and kills them."""
    made = Killer()
    yield made
    made.end()


@pytest.mark.parametrize("at", KILLED_AT)
def test_killed_at_any_write_it_is_begun_once(killed: Team, killer: Killer, at: int) -> None:
    """Cron calls again: there is one run, the script ran once at most, and the record says so."""
    killed.put_back("due")
    call = {"environment": killed.environment_of(ANA), "cwd": killed.root}
    died = killer.run("schedules", "run-due", at=at, when="after", **call)  # type: ignore[arg-type]
    assert died["signal"] == 9, died
    for _ in range(2):
        killed.call("schedules", "run-due")
    journal = killed.world().journal
    (run,) = journal.chains("run-")
    last = kinds(killed)[-1]
    assert last in {"begun", "ended"}, kinds(killed)
    if last == "begun":
        killed.call("resume", run.partition("-")[2], "--undo")
        killed.call("schedules", "run-due")
        assert kinds(killed)[-1] == "ended"
    assert killed.executions <= 1
    ended = journal.last(run)
    assert ended is not None
    outcome = records.body(ended)["outcome"]
    assert killed.query("select count(*) from readings") == (4 if outcome == "confirmed" else 3)


def test_the_matrix_is_whole(killed: Team, killer: Killer) -> None:
    """No write of such a look is left out of the cases above."""
    killed.put_back("due")
    call = {"environment": killed.environment_of(ANA), "cwd": killed.root}
    done = killer.run("schedules", "run-due", at=0, when="before", **call)  # type: ignore[arg-type]
    assert (done["code"], done["writes"]) == (0, WRITES), done
