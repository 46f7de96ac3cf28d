"""Secrets never enter a plan, the journal, an error, or the output of a command."""

from __future__ import annotations

import pytest

from support.teams import ESTATE, OPERATION, Team

PASSWORD = "hunter2-correct-horse"
SCRIPT = """\
#!/bin/sh
set -eu
test "${#API_TOKEN}" -eq LENGTH
exec python3 -S "$(dirname "$0")/../lib/sql.py" "DELETE FROM sessions"
"""


@pytest.fixture
def secretive(team: Team) -> Team:
    """A team whose script inherits a secret, and with a store behind a password."""
    declared = OPERATION.format(name="calls", undo="restore")
    estate = ESTATE.replace(
        "objects:",
        "  remote-db:\n    kind: postgres\n    url: {env: REMOTE_URL}\n    environment: pilot\n"
        "    durability: lossy\nobjects:",
    )
    url = f"postgres://ana:{PASSWORD}@127.0.0.1:1/pilot"
    team.environment |= {"REMOTE_URL": url, "API_TOKEN": PASSWORD}
    identity = (team.root / "estate/pilot.yaml").read_text().partition("identity: ")[2]
    identity = identity.splitlines()[0]
    team.commit(
        {
            "estate/pilot.yaml": estate.replace(
                "    kind: sqlite\n", f"    kind: sqlite\n    identity: {identity}\n"
            ),
            "operations/calls.yaml": declared.replace("[COUNTED_IN]", "[API_TOKEN]"),
            "scripts/calls/run.sh": SCRIPT.replace("LENGTH", str(len(PASSWORD))),
            "operations/remote.yaml": "operation: remote\nrun: ./scripts/reset-pilot/run.sh\n"
            "on: store/remote-db\nundo: restore\n",
        }
    )
    return team


def test_inherited_secret(secretive: Team) -> None:
    """A secret that a script inherits is in no record, no plan and no answer of the whole chain."""
    told = [secretive.call(*words) for words in (("plan", "calls"), ("rehearse", "calls"))]
    told += [secretive.call("plan", "calls", "--json"), secretive.call("--json")]
    decided = secretive.decide("calls")
    secretive.approve(decided)
    commands: tuple[tuple[str, ...], ...] = (
        ("run", "calls", "--json"),
        ("runs", "show", "1", "--json"),
        ("runs", "show", "1"),
        ("explain", "1", "--json"),
        ("undo", "1", "--json"),
        ("log", "export"),
    )
    for words in commands:
        answer = secretive.call(*words)
        assert answer.code == 0, answer
        told.append(answer)
    assert not [answer for answer in told if PASSWORD in answer.out + answer.err]
    assert PASSWORD not in secretive.journal_text()
    assert PASSWORD.encode() not in (secretive.state / "journal.db").read_bytes()


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    "words",
    [
        ("plan", "remote"),
        ("rehearse", "remote"),
        ("run", "remote"),
        ("adopt", "remote-db"),
        ("init", "--from", "{url}"),
        ("plan", "./scripts/reset-pilot/run.sh", "--on", "{url}"),
        ("rehearse", "./scripts/reset-pilot/run.sh", "--on", "{url}"),
    ],
)
def test_password_of_a_server_that_is_down(
    secretive: Team, words: tuple[str, ...], as_json: bool
) -> None:
    """The password of a server that does not answer is in no error, plan or record."""
    url = secretive.environment["REMOTE_URL"]
    given = tuple(word.format(url=url) for word in words)
    answer = secretive.call(*given, *(("--json",) if as_json else ()))
    assert answer.code in {1, 3}, answer
    assert PASSWORD not in answer.out + answer.err
    assert PASSWORD not in secretive.journal_text()


def test_secret_by_value(team: Team) -> None:
    """A password written into the estate is refused, and not repeated."""
    estate = team.root / "estate/pilot.yaml"
    estate.write_text(
        estate.read_text().replace("data/pilot.db", f"postgres://ana:{PASSWORD}@db/pilot")
    )
    answer = team.call("check")
    assert answer.code == 2
    assert "estate.secret" in answer.out
    assert PASSWORD not in answer.out + answer.err
