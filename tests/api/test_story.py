"""The way of one operation through a server: the same words, screens and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.served import ADMIN, Served, serving, until
from support.teams import ANA, BEN, CHI, OPERATION, Team, make_team

SCHEDULE = 'schedule: {cron: "0 3 1 1 *", zone: Europe/Berlin, expect: 400d}\n'


@pytest.fixture
def team(tmp_path: Path) -> Team:
    """A team that has rehearsed nothing yet."""
    return make_team(tmp_path / "team")


def test_the_way_of_one_operation(team: Team) -> None:
    """Refused, rehearsed, waiting, approved on the approver's machine, confirmed, undone.

    Exit codes 3, 0, 4, 0, 0 and 0; each screen says the command that is next, as it does without a
    server.
    """
    with serving(team) as served:
        refused = served.call("run", "drop-readings")
        assert (refused.code, "next: handrail rehearse drop-readings" in refused.out) == (3, True)
        rehearsed = served.call("rehearse", "drop-readings")
        assert (rehearsed.code, "drop  table readings  3 rows" in rehearsed.out) == (0, True)
        assert "fingerprint equal" in rehearsed.err
        digest = next(w for w in rehearsed.out.split() if w.count("-") == 1 and len(w) == 9)
        waiting = served.call("run", digest)
        assert (waiting.code, f"next: handrail approve {digest}" in waiting.out) == (4, True)
        own = served.call("approve", digest, "--yes", "--name", "store/pilot-db", role="approver")
        assert (own.code, "keys.own-run" in own.err) == (3, True)
        by_ben = {"person": BEN, "role": "approver"}
        unnamed = served.call("approve", digest, "--yes", **by_ben)
        assert (unnamed.code, "usage.not-interactive" in unnamed.err) == (2, True)
        approved = served.call("approve", digest, "--yes", "--name", "store/pilot-db", **by_ben)
        assert (approved.code, f"next: handrail run {digest}" in approved.out) == (0, True)
        assert f"handrail run {digest}" in served.call().out
        ran = served.call("run", digest)
        assert (ran.code, "confirmed: run 1" in ran.out, "handrail undo 1" in ran.out) == (
            0,
            True,
            True,
        )
        assert served.call("undo", "1").code == 0
        assert team.query("SELECT count(*) FROM readings") == 3
        # What was journalled is the person of the token, and nobody of the server's.
        shown = served.call("runs", "show", "1", "--json").json
        assert shown["records"][0]["body"]["person"] == ANA
        told = team.call("runs", "show", "1")
        assert told.out.splitlines()[0] == served.call("runs", "show", "1").out.splitlines()[0]


def test_screens_are_the_same(team: Team) -> None:
    """What looks prints the same with a server as without, and so does every mistake."""
    team.make_ready("reset-pilot")
    team.call("run", "reset-pilot")
    digest = team.decide("reset-pilot").plan.digest[:8]
    with serving(team) as served:
        for words in (
            (),
            ("--json",),
            ("runs",),
            ("runs", "--json"),
            ("runs", "show", "1", "--json"),
            ("explain", "1"),
            ("explain", digest),
            ("explain", "1", "--json"),
            ("check",),
            ("check", "--json"),
            ("plan", "reset-pilot", "--on", "no-such"),
            ("runs", "show", "7"),
            ("explain", "7"),
            ("undo", "7"),
            ("resume", "7"),
            ("run", "reset-pilot", "-p", "days=3"),
            ("approve", "7f3a-91c2"),
            ("release", "5d0c", "--yes"),
        ):
            here, there = team.call(*words), served.call(*words, role="approver")
            assert (there.code, there.out) == (here.code, here.out), (words, there.err)
            # The hint may say that only what is declared can be reached.
            code = here.err.partition("]")[0]
            assert there.err.partition("]")[0] == code, words
        here, there = team.call("log", "verify"), served.call("log", "verify", role="admin")
        assert (here.code, there.code) == (0, 0)
        assert "every chain whole" in there.out


def test_approval_signed_by_another_key(team: Team) -> None:
    """An approval counts only with a signature by a key of the token's own person."""
    digest = team.rehearse("reset-pilot").plan.digest
    with serving(team) as served:
        own = str(team.key(ANA))
        forged = served.call(
            "approve", digest[:8], "--yes", "--key", own, person=BEN, role="approver"
        )
        assert (forged.code, "keys.own-run" in forged.err) == (3, True)
        stranger = served.call("approve", digest[:8], "--yes", person=CHI, role="approver")
        assert stranger.code == 1
        assert "keys." in stranger.err
    assert not list(team.world().journal.records(f"approvals-{digest}"))


def test_draft_that_was_changed(team: Team) -> None:
    """An approval that is not just what was prepared a moment ago is refused; so is a replay."""
    from dataclasses import replace

    from handrail.core import observing
    from handrail.core.records import decode
    from handrail.plans.canonical import plain
    from handrail.plans.model import Approval

    plan = team.rehearse("reset-pilot").plan
    with serving(team) as served:
        token = served.token(BEN, "approver")
        path = f"/v1/plans/{plan.digest}"
        said = served.ask("POST", f"{path}/approval-drafts", {"because": "x"}, token=token).json
        draft = decode(said["approval"], Approval)

        def post(approval: Approval) -> int:
            payload = observing.payload(approval, plan.target.resource)
            signature = team.world().keys.sign(payload, team.key(BEN))
            body = plain(replace(approval, signature=signature))
            reply = served.ask("POST", f"{path}/approvals", {"approval": body}, token=token)
            return reply.status

        for changed in (
            replace(draft, expires_at="2099-01-01T00:00:00.000000Z"),
            replace(draft, made_at="2020-01-01T00:00:00.000000Z"),
            replace(draft, groups=("dba",)),
            replace(draft, person=ANA),
            replace(draft, digest="0" * 64),
            replace(draft, id="0"),
        ):
            assert post(changed) in {403, 409}, changed
        assert post(draft) == 201
        assert post(draft) == 409


def test_choice_of_many_for_one(team: Team) -> None:
    """What only a run over many targets can be told is refused for one of one target."""
    team.make_ready("close-devices")
    team.call("run", "close-devices")
    with serving(team) as served:
        for choice in ("rerun", "leave"):
            reply = served.ask("POST", "/v1/runs/1/resume", {"choice": choice})
            ended = served.follow(reply)
            assert (ended["exit_code"], ended["problem"]["code"]) == (2, "usage")


@pytest.mark.parametrize("words", [("init",), ("adopt", "store/pilot-db"), ("serve",), ("guard",)])
def test_local_only(team: Team, words: tuple[str, ...], served: Served) -> None:
    """What works on one machine alone says so, and does nothing."""
    answer = served.call(*words)
    assert (answer.code, "remote.local-only" in answer.err) == (2, True)


def test_tokens_through_the_server(team: Team) -> None:
    """An admin makes, lists and revokes tokens from afar; the secret is printed this once."""
    with serving(team) as served:
        made = served.call(
            "tokens",
            "create",
            "--person",
            ANA,
            "--role",
            "viewer",
            "--json",
            person=ADMIN,
            role="admin",
        ).json
        assert served.ask("GET", "/v1/whoami", token=made["secret"]).json["person"] == ANA
        listed = served.call("tokens", "list", "--json", person=ADMIN, role="admin")
        assert made["secret"] not in listed.out
        gone = served.call("tokens", "revoke", made["token"]["id"], person=ADMIN, role="admin")
        assert gone.code == 0
        assert served.ask("GET", "/v1/whoami", token=made["secret"]).status == 401


def test_key_again(team: Team) -> None:
    """A request that is sent again with its key gets the first answer: one run, not two."""
    team.make_ready("close-devices")
    with serving(team) as served:
        key = {"Idempotency-Key": "test-key-1"}
        body = {"operation": "close-devices"}
        first = served.ask("POST", "/v1/runs", body, headers=key)
        served.follow(first)
        again = served.ask("POST", "/v1/runs", body, headers=key)
        assert (again.status, again.json["id"]) == (202, first.json["id"])
        other = served.ask("POST", "/v1/runs", {"operation": "reset-pilot"}, headers=key)
        assert (other.status, other.json["code"]) == (409, "api.repeated")
        assert served.ask("POST", "/v1/runs", body, headers={"Idempotency-Key": "x"}).status == 400
    assert team.executions == 1


def test_events_of_a_run(team: Team) -> None:
    """A run's records are streamed as they are written, to its end, whoever ran it."""
    team.make_ready("close-devices")
    team.call("run", "close-devices")
    with serving(team) as served:
        told = served.ask("GET", "/v1/runs/1/events").content.decode()
        lines = [line for line in told.splitlines() if line.startswith("data: ")]
        kinds = [json.loads(line[6:])["kind"] for line in lines]
        assert (kinds[0], kinds[-1]) == ("opened", "ended")


def test_socket(team: Team, tmp_path: Path) -> None:
    """A server's socket in the file system is for its user alone, and the command line uses it."""
    path = tmp_path / "api.sock"
    with serving(team, "--socket", str(path)) as served:
        assert path.stat().st_mode & 0o777 == 0o600
        environment = served.environment_of(ANA, "viewer") | {"HANDRAIL_URL": f"unix:{path}"}
        told = subprocess.run(
            [sys.executable, "-m", "handrail", "runs"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.stdout.startswith("no runs yet"), told.stderr
    assert not path.exists()


def test_schedules(tmp_path: Path) -> None:
    """Schedules are listed, paused and resumed as they are without a server."""
    declared = OPERATION.format(name="close-devices", undo="restore") + SCHEDULE
    team = make_team(tmp_path / "team", {"operations/close-devices.yaml": declared})
    with serving(team) as served:
        for chain in ("schedule-close-devices", "backups-store/pilot-db"):
            until(lambda chain=chain: team.world().journal.last(chain) is not None)  # type: ignore[misc]
        for words in (
            ("schedules",),
            ("schedules", "--json"),
            ("schedules", "pause", "close-devices"),
            ("schedules", "pause", "reset-pilot", "--because", "x"),
            ("schedules", "resume", "close-devices"),
        ):
            here, there = team.call(*words), served.call(*words)
            assert (there.code, there.out) == (here.code, here.out), (words, there.err)
        paused = served.call("schedules", "pause", "close-devices", "--because", "we move")
        assert (paused.code, "close-devices is paused until" in paused.out) == (0, True), paused.err
        assert "is paused by ana@pilot.example: we move" in team.call("schedules").out
        assert served.call("schedules").out == team.call("schedules").out
        assert served.call("schedules", "resume", "close-devices").code == 0
        assert served.call("schedules", "run-due").code == 2


def test_contraindications_are_told(team: Team) -> None:
    """`check` tells through a server what operations harm whom, as it does without one."""
    harmed = """\
services:
  ledger:
    needs: [store/pilot-db]
    contraindications:
      - {operation: reset-pilot, because: incident/oops, owner: ana, expires: 2999-01-01, replay: 9}
incidents:
  oops: {date: 2021-01-12, actions: [{do: keep the ledger apart, owner: ben}]}
"""
    team.commit({"estate/ledger.yaml": harmed})
    assert team.call("plan", "reset-pilot").code == 3  # so that it is counted
    with serving(team) as served:
        for words in (("check",), ("check", "--json")):
            here, there = team.call(*words), served.call(*words, role="viewer")
            assert (there.code, there.out) == (here.code, here.out), (words, there.err)
        told = served.call("check", role="viewer").out
        assert "still open: keep the ledger apart" in told
        assert "looked after by ana" in told
