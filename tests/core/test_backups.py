"""Backups: whole before they have a name, encrypted where that is declared, kept while needed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from handrail.core import backups
from handrail.errors import KeysError
from handrail.testing.talk import QuietTalk
from support.killing import Killer
from support.teams import ANA, ESTATE, OPERATION, SESSIONS, Team, make_team
from support.worlds import FakeWorld

SECRET = "a reading that nobody else may see"
DAY_S = 86400


def kept(fake: FakeWorld) -> set[str]:
    """Return the ids of the backups that are there."""
    return {path.stem for path in (fake.root / "backups/pilot-db").iterdir()}


def make(fake: FakeWorld, days_ago: float) -> str:
    """Make a backup as if it were so many days ago."""
    world, declared = fake.world(), fake.declared
    resource = declared.estate.resources["store/pilot-db"]
    backup = backups.make(world, declared, resource, fake.store, QuietTalk())
    age(fake, backup.id, days_ago)
    return backup.id


def age(fake: FakeWorld, backup_id: str, days_ago: float) -> None:
    when = fake.clock.now().timestamp() - days_ago * DAY_S
    os.utime(fake.root / "backups/pilot-db" / backup_id, (when, when))


def prune(fake: FakeWorld) -> set[str]:
    """Remove what is not kept; return what went."""
    declared = fake.declared
    resource = declared.estate.resources["store/pilot-db"]
    return set(backups.prune(fake.world(), declared, resource))


def rehearsed_backup(fake: FakeWorld) -> str:
    """Rehearse, and return the id of the backup that this proved."""
    rehearsal = fake.rehearse().plan.facts.rehearsal
    assert rehearsal is not None
    return rehearsal.proof.backup


def test_prune(fake: FakeWorld) -> None:
    """Of old backups the newest are kept, as many as are declared."""
    ids = [make(fake, days) for days in (9, 8, 7, 6)]
    assert prune(fake) == set(ids[:2])
    assert kept(fake) == set(ids[2:])


def test_prune_keeps_the_newest_proven(fake: FakeWorld) -> None:
    """The newest backup that was proven is kept, however old, and however many bad ones follow."""
    proven = rehearsed_backup(fake)
    age(fake, proven, 30)
    for days in (9, 8, 7):
        make(fake, days)
    body = next(fake.journal.records("proofs-store/pilot-db")).body
    bad = body.replace('"equal":true', '"equal":false').replace(proven, "b" * 12)
    assert bad != body
    import json

    fake.journal.append("proofs-store/pilot-db", "proven", json.loads(bad))
    prune(fake)
    assert proven in kept(fake)
    assert len(kept(fake)) == 3


def test_prune_keeps_what_a_run_is_undone_from(fake: FakeWorld) -> None:
    """The backup of a run is kept for as long as the policy says that it can be undone."""
    fake.begin()
    rehearsed_backup(fake)
    (undoable,) = [r for r in fake.journal.records("run-1") if r.kind == "backup-done"]
    for days in (0.3, 0.2, 0.1):
        make(fake, days)
    own = next(name for name in kept(fake) if name in undoable.body)
    age(fake, own, 0.99)
    prune(fake)
    assert own in kept(fake)
    age(fake, own, 1.01)
    prune(fake)
    assert own not in kept(fake)


def test_prune_keeps_what_a_cut_off_run_needs(fake: FakeWorld) -> None:
    """The backup of a run that was cut off is kept until the run is resumed, however long."""
    decided = fake.make_ready()

    def cut_off(call: object) -> int:
        raise SystemError

    fake.processes.programs = {"trim.sh": cut_off}
    with pytest.raises(SystemError):
        fake.begin(decided)
    (needed,) = [r for r in fake.journal.records("run-1") if r.kind == "backup-done"]
    own = next(name for name in kept(fake) if name in needed.body)
    age(fake, own, 30)
    for days in (9, 8, 7):
        make(fake, days)
    prune(fake)
    assert own in kept(fake)
    assert fake.resume(choice="undo").outcome == "undone"


def test_partial(fake: FakeWorld) -> None:
    """What a crash left of a backup goes with the next one, unless that is still being made."""
    place = fake.root / "backups/pilot-db"
    for name in ("dead.partial", "busy.partial"):
        (place / name).mkdir(parents=True)
        (place / name / "content").write_text(SECRET)
    (place / ".dead.age.partial").write_text("half")
    with fake.locks.hold("backup/busy", "backup of store/pilot-db"):
        made = make(fake, 0)
    assert {path.name for path in place.iterdir()} == {made, "busy.partial"}


# --- encrypted, with real keys and a real database ----------------------------------------------


@pytest.fixture(scope="module")
def sealing(tmp_path_factory: pytest.TempPathFactory) -> Team:
    """A team whose backups are encrypted."""
    root = tmp_path_factory.mktemp("sealed")
    identity = pyrage.x25519.Identity.generate()
    (root / "identity").write_text(f"{identity}\n")
    estate = ESTATE.replace(
        "    path: .handrail/backups\n",
        f"    path: .handrail/backups\n    recipients: [{identity.to_public()}]\n",
    )
    team = make_team(root / "team", {"estate/pilot.yaml": estate})
    team.environment["HANDRAIL_AGE_IDENTITY"] = str(root / "identity")
    team.execute(f"INSERT INTO readings VALUES (99, '{SECRET}', NULL)")
    waiting = OPERATION.format(name="waits", undo="restore")
    team.commit(
        {
            "operations/waits.yaml": waiting,
            "scripts/waits/run.sh": "#!/bin/sh\necho here\nsleep 60\n",
        }
    )
    team.keep("fresh")
    return team


@pytest.fixture
def sealed(sealing: Team) -> Iterator[Team]:
    """That team, as it was first."""
    sealing.put_back("fresh")
    yield sealing
    assert plain_text(sealing) == []


def plain_text(team: Team) -> list[Path]:
    """Return the files of Handrail's own directory that hold the secret in the clear."""
    files = [path for path in team.state.rglob("*") if path.is_file()]
    return [path for path in files if SECRET.encode() in path.read_bytes()]


def test_sealed(sealed: Team) -> None:
    """With recipients declared, rehearsal, run and undo work, and nothing is left in the clear."""
    sealed.make_ready("reset-pilot")
    assert plain_text(sealed) == []
    assert sealed.call("run", "reset-pilot").code == 0
    assert plain_text(sealed) == []
    sealed.execute("INSERT INTO sessions VALUES (77, 7, NULL)")
    moved = sealed.call("undo", "1")
    assert (moved.code, "insert table sessions" in moved.err) == (3, True)
    assert plain_text(sealed) == []
    sealed.execute("DELETE FROM sessions")
    assert sealed.query("SELECT count(*) FROM sessions") == 0
    assert sealed.call("undo", "1").code == 0
    assert sealed.query("SELECT count(*) FROM sessions") == SESSIONS
    names = {path.suffix for path in (sealed.state / "backups/pilot-db").iterdir()}
    assert names == {".age"}


def test_sealed_without_a_key(sealed: Team) -> None:
    """Where no key opens the backup, the rehearsal says so, and proves nothing."""
    world = sealed.world()
    identity = sealed.environment.pop("HANDRAIL_AGE_IDENTITY")
    try:
        with pytest.raises(KeysError) as raised:
            sealed.rehearse("reset-pilot")
    finally:
        sealed.environment["HANDRAIL_AGE_IDENTITY"] = identity
    assert raised.value.code == "keys.seal"
    assert world.journal.last("proofs-store/pilot-db") is None


def test_sealed_and_killed(sealed: Team, killer: Killer) -> None:
    """A rehearsal killed while its backup is open leaves nothing of it in the clear."""
    killed = killer.run(
        "rehearse",
        "waits",
        environment=sealed.environment_of(ANA),
        cwd=sealed.root,
        at=0,
        when="output",
    )
    assert killed["signal"] == signal.SIGKILL
    deadline = time.monotonic() + 20
    while plain_text_or_racing(sealed):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def plain_text_or_racing(team: Team) -> bool:
    """Whether there is plain text, or files are just being removed."""
    try:
        return bool(plain_text(team))
    except OSError:
        return True
