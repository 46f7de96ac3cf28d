"""Backups by the clock, of real SQLite stores: made once, proven, never removed for a bad one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from handrail.core import backing_up, clones, records
from handrail.core.backing_up import Standing, Task, chain_of
from handrail.core.world import Declared, World
from handrail.errors import StoreError
from handrail.plans.canonical import time_text
from handrail.ports import Store
from handrail.testing.clock import FakeClock
from handrail.testing.talk import QuietTalk
from support.killing import Killer
from support.teams import ANA, ESTATE, Team, make_team

STORE = "store/pilot-db"
RULE = "backups: {to: object/backups, every: 1d, keep: 3, prove: 4d}"
NOTICES = "to: {on-call: {slack: {url: {env: NOWHERE}}}}\n"
HOUR_S, DAY_S = 3600, 86400
# How many writes a backup makes that is proven, too: the last case below sees to it.
WRITES = 7
KILLED_AT = range(1, WRITES + 1) if os.environ.get("HYPOTHESIS_PROFILE") == "torture" else (2, 3, 5)


@dataclass
class House:
    """A team with a database of its own, and a clock that a test sets."""

    team: Team
    clock: FakeClock
    talk: QuietTalk = field(default_factory=QuietTalk)

    @property
    def world(self) -> World:
        return self.team.world(clock=self.clock)

    @property
    def declared(self) -> Declared:
        return self.team.declared

    @property
    def kinds(self) -> list[str]:
        return [record.kind for record in self.world.journal.records(chain_of(STORE))]

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        return list(records.told_of(self.world.journal, chain_of(STORE), kind))

    @property
    def proofs(self) -> list[bool]:
        found = records.told_of(self.world.journal, f"proofs-{STORE}", "proven")
        return [bool(one["equal"]) for one in found]

    @property
    def kept(self) -> list[Path]:
        place = self.team.state / "backups" / "pilot-db"
        return sorted(place.iterdir()) if place.is_dir() else []

    @property
    def standing(self) -> Standing:
        (found,) = backing_up.standings(self.world, self.declared)
        return found

    @property
    def told(self) -> list[str]:
        """Kinds of the notices that are queued, in order."""
        world = self.world
        found = [
            (record.time, records.body(record)["notice"]["kind"])
            for chain in world.journal.chains("notice-")
            for record in world.journal.records(chain)
            if record.kind == "queued"
        ]
        return [kind for _, kind in sorted(found)]

    def tick(self, world: World | None = None) -> list[str]:
        """Look once, make what is due, and return what that came to."""
        world, declared, came_to = world or self.world, self.declared, []

        def begin(task: Task) -> None:
            came_to.append(backing_up.carry_out(world, declared, task, self.talk))

        backing_up.tick(world, declared, begin)
        return came_to

    def days(self, count: float) -> None:
        """Let time pass; what lies on disk gets as old."""
        self.clock.advance(count * DAY_S)
        for path in self.kept:
            age = path.stat().st_mtime - count * DAY_S
            os.utime(path, (age, age))


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A store whose backups were looked at for the first time just now."""
    estate = ESTATE.replace("backups: {to: object/backups}", RULE)
    files = {"estate/pilot.yaml": estate, "notifications.yaml": NOTICES}
    made = House(make_team(tmp_path / "team", files), FakeClock(datetime.now(UTC)))
    assert made.tick() == []
    assert made.kinds == ["declared"]
    return made


class Failing:
    """A real store, of which one method fails or gives something else."""

    def __init__(self, real: Store, **instead: Callable[..., Any]) -> None:
        self._real, self._instead = real, instead

    def __getattr__(self, name: str) -> Any:
        return self._instead.get(name) or getattr(self._real, name)


def failing(house: House, **instead: Callable[..., Any]) -> World:
    world = house.world
    return replace(world, open_store=lambda r: Failing(world.open_store(r), **instead))


def full(*_: object) -> Any:
    raise StoreError("store.failed", "the disk is full")


def test_a_backup_is_made_when_it_is_due_and_the_first_is_proven(house: House) -> None:
    """A day after the first look there is one, restored, compared, and no clone is left."""
    assert house.tick() == []
    house.days(1)
    assert house.tick() == ["ended"]
    assert house.kinds == ["declared", "begun", "made", "ended"]
    assert (len(house.kept), house.proofs) == (1, [True])
    assert clones.leftover(house.world) == ()
    assert list((house.team.state / "rehearsals").iterdir()) == []
    assert (house.tick(), house.tick()) == ([], [])
    found = house.standing
    assert (found.last, found.overdue, found.backup) == ("ended", False, house.kept[0].stem)
    assert found.next_at == house.clock.now() + timedelta(days=1)


def test_a_backup_has_the_store_s_content(house: House) -> None:
    """What is in the database at that time is in the file."""
    with closing(sqlite3.connect(house.team.database)) as database, database:
        database.execute("INSERT INTO devices VALUES (77, 1)")
    house.days(1)
    assert house.tick() == ["ended"]
    (body,) = house.bodies("made")
    with closing(sqlite3.connect(body["backup"]["path"])) as copy:
        assert copy.execute("SELECT count(*) FROM devices WHERE id = 77").fetchone() == (1,)


def test_a_backup_is_proven_before_the_proof_is_too_old(house: House) -> None:
    """With `prove: 4d` the newest proof is at no time older, and not every backup is proven."""
    for _ in range(9):
        house.days(1)
        assert house.tick() == ["ended"]
        proven_at = datetime.fromisoformat(house.standing.proven_at)
        assert house.clock.now() - proven_at <= timedelta(days=3)
    assert [body["proven"] for body in house.bodies("ended")] == [
        True, False, False, True, False, False, True, False, False,
    ]  # fmt: skip


def test_only_as_many_as_declared_are_kept_and_the_proven_one(house: House) -> None:
    """Of nine backups the newest three are left: the newest proven one is among them."""
    for _ in range(9):
        house.days(1)
        house.tick()
    made = [body["backup"]["id"] for body in house.bodies("made")]
    assert {path.stem for path in house.kept} == set(made[-3:])


def test_a_rehearsal_s_backup_counts(house: House) -> None:
    """What a rehearsal made and proved an hour ago is not made again."""
    house.days(0.9)
    proof = {
        "backup": "b" * 12, "made_at": time_text(house.clock.now()),
        "proven_at": time_text(house.clock.now()), "size_bytes": 1, "backup_s": 0.1,
        "restore_s": 0.1, "equal": True,
    }  # fmt: skip
    house.world.journal.append(f"proofs-{STORE}", "proven", proof)
    house.days(0.5)
    assert house.tick() == []
    house.days(0.6)
    assert house.tick() == ["ended"]


def test_many_missed_times_are_one_backup(house: House) -> None:
    """After five days without anybody who looks, one is made, and how many were missed is known."""
    house.days(5.5)
    assert house.tick() == ["ended"]
    assert [body["missed"] for body in house.bodies("begun")] == [4]
    assert house.tick() == []


def test_a_failure_removes_nothing_is_told_once_and_tried_again(house: House) -> None:
    """The good backups stay although they are too many; each hour it is tried, each day told."""
    for _ in range(3):
        house.days(1)
        house.tick()
    good = house.kept
    extra = house.team.state / "backups" / "pilot-db" / "0123456789ab"
    extra.mkdir()
    os.utime(extra, (1, 1))
    house.days(1)
    assert house.tick(failing(house, backup=full)) == ["failed"]
    assert house.tick(failing(house, backup=full)) == []
    for _ in range(3):
        house.clock.advance(HOUR_S)
        assert house.tick(failing(house, backup=full)) == ["failed"]
    assert house.kept == sorted([*good, extra])
    assert (house.told, house.standing.why) == (["failed"], "the disk is full")
    house.clock.advance(HOUR_S)
    assert house.tick() == ["ended"]
    assert extra not in house.kept


def test_a_backup_that_does_not_come_back_equal_counts_for_nothing(house: House) -> None:
    """It is told, removes nothing, leaves no clone, is no newest backup, and is tried next day."""
    house.days(1)
    house.tick()
    (good,) = house.kept
    for _ in range(2):
        house.days(1)
        house.tick()

    def clone(backup: Any, at: Path, marker: str, progress: Any) -> Any:
        made = real.clone(backup, at, marker, progress)
        with closing(sqlite3.connect(made.connection().parts["path"])) as database, database:
            database.execute("DELETE FROM readings")
        return made

    real = house.world.open_store(house.declared.estate.resources[STORE])
    newest = house.standing.backup
    house.days(1)
    assert house.tick(failing(house, clone=clone)) == ["failed"]
    assert house.proofs == [True, False]
    assert "table readings" in house.standing.why
    assert house.standing.backup == newest
    assert good in house.kept
    assert len(house.kept) == 4
    assert clones.leftover(house.world) == ()
    house.clock.advance(2 * HOUR_S)
    assert house.tick() == []
    house.days(1)
    assert house.tick() == ["ended"]
    assert house.proofs == [True, False, True]


def test_a_store_that_is_written_to_meanwhile_is_not_called_unequal(house: House) -> None:
    """Where nobody knows what the backup has to hold, no proof is recorded, and it is kept."""

    def backup(*given: Any) -> Any:
        return replace(real.backup(*given), fingerprint=None)

    def clone(*given: Any) -> Any:
        with closing(sqlite3.connect(house.team.database)) as database, database:
            database.execute("INSERT INTO devices VALUES (78, 1)")
        return real.clone(*given)

    real = house.world.open_store(house.declared.estate.resources[STORE])
    house.days(1)
    assert house.tick(failing(house, backup=backup, clone=clone)) == ["failed"]
    assert "was written to while" in house.standing.why
    assert (house.proofs, [house.standing.backup]) == ([], [path.stem for path in house.kept])
    house.days(1)
    assert house.tick(failing(house, backup=backup)) == ["ended"]
    assert house.proofs == [True]


def test_another_store_than_the_adopted_one_is_not_backed_up(house: House) -> None:
    """A database that was put in its place is no backup of it."""
    with closing(sqlite3.connect(house.team.root / "data" / "other.db")) as other:
        other.execute("CREATE TABLE t (i)")
    (house.team.root / "data" / "other.db").replace(house.team.database)
    house.days(1)
    assert house.tick() == ["failed"]
    assert ("was adopted" in house.standing.why, house.kept) == (True, [])


def test_while_a_run_holds_the_store_it_waits_and_is_skipped_at_the_next_time(
    house: House,
) -> None:
    """On record once, with who holds it; made right after; a whole day later it is skipped."""
    house.days(1)
    with house.world.locks.hold(STORE, "run 7"):
        assert house.tick() == ["postponed"]
        assert (house.tick(), house.kinds) == ([], ["declared", "postponed"])
        assert "is held by run 7" in house.standing.why
        house.days(1)
        assert house.tick() == ["postponed"]
    assert house.kinds == ["declared", "postponed", "skipped", "postponed"]
    assert "skipped" in house.told
    assert house.tick() == ["ended"]


def test_the_store_s_lock_is_held_for_the_backup_alone(house: House) -> None:
    """A run may begin while the backup is restored and compared; not while it is made."""
    held: dict[str, str | None] = {}

    def at(name: str) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            held[name] = house.world.locks.holder(STORE)
            return getattr(real, name)(*given)

        return call

    real = house.world.open_store(house.declared.estate.resources[STORE])
    house.days(1)
    assert house.tick(failing(house, backup=at("backup"), clone=at("clone"))) == ["ended"]
    assert f"backup of {STORE}" in str(held["backup"])
    assert held["clone"] is None


def test_an_overdue_backup_is_an_incident_until_one_is_made(house: House) -> None:
    """Told once when it took a quarter longer than declared, and once that it is back."""
    house.days(1)
    house.tick(failing(house, backup=full))
    assert not house.standing.overdue
    house.clock.advance(6 * HOUR_S)
    for _ in range(3):
        house.tick(failing(house, backup=full))
        house.clock.advance(HOUR_S)
    found = house.standing
    assert found.overdue, found
    assert sorted(house.told) == ["failed", "incident"]
    assert house.tick() == ["ended"]
    assert house.standing.last == "ended"
    house.tick()
    assert sorted(house.told) == ["failed", "incident", "resolved"]


def test_a_clock_that_jumps_silences_nothing_and_repeats_nothing(house: House) -> None:
    """Set back, nothing is made again; a year ahead for a moment, the next day has its own."""
    house.days(1)
    house.tick()
    house.clock.jump(-2 * HOUR_S)
    assert house.tick() == []
    house.clock.jump(2 * HOUR_S)
    house.clock.jump(365 * DAY_S)
    assert house.tick() == ["ended"]
    house.clock.jump(-365 * DAY_S)
    assert house.tick() == []
    house.days(1)
    assert house.tick() == ["ended"]


def test_a_process_that_dies_three_times_is_a_failure(house: House) -> None:
    """Begun and never ended: begun anew, three times; then it is told, and tried in an hour."""
    house.days(1)

    def die(*_: object) -> Any:
        raise SystemError

    for _ in range(3):
        with pytest.raises(SystemError):
            house.tick(failing(house, backup=die))
    assert house.tick() == ["failed"]
    assert house.told == ["failed"]
    house.clock.advance(HOUR_S)
    assert house.tick() == ["ended"]
    assert len(house.kept) == 1


def test_two_that_look_at_once_make_one(house: House) -> None:
    """What is handed to two is made by the first; the second finds nothing to do."""
    house.days(1)
    handed: list[Task] = []
    for _ in range(2):
        backing_up.tick(house.world, house.declared, handed.append)
    came_to = [
        backing_up.carry_out(house.world, house.declared, task, house.talk) for task in handed
    ]
    assert (came_to, len(house.kept)) == (["ended", ""], 1)


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    """A process that forks and kills."""
    made = Killer()
    yield made
    made.end()


def killed_team(root: Path) -> Team:
    """Return a team whose backup has been due for an hour."""
    team = make_team(
        root, {"estate/pilot.yaml": ESTATE.replace("backups: {to: object/backups}", RULE)}
    )
    body = {"time": time_text(datetime.now(UTC) - timedelta(hours=25))}
    team.world().journal.append(chain_of(STORE), "declared", body)
    return team


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", KILLED_AT)
def test_killed_at_any_write_it_is_made_by_the_next_look(
    tmp_path: Path, killer: Killer, at: int, when: str
) -> None:
    """Whatever was left, the next look ends with one good proven backup, and no clone."""
    team = killed_team(tmp_path / "team")
    call: dict[str, Any] = {"environment": team.environment_of(ANA), "cwd": team.root}
    done = killer.run("schedules", "run-due", at=at, when=when, **call)
    assert done["signal"] == 9, done
    again = team.call("schedules", "run-due")
    assert again.code == 0, again
    team.call("schedules", "run-due")
    world = team.world()
    kinds = [record.kind for record in world.journal.records(chain_of(STORE))]
    assert (kinds.count("ended"), kinds[-1]) == (1, "ended"), kinds
    assert kinds.count("begun") <= 2
    assert clones.leftover(world) == ()
    (found,) = team.call("schedules", "--json").json["backups"]
    assert (found["last"], found["overdue"], bool(found["proven_at"])) == ("ended", False, True)
    assert not list((team.state / "backups" / "pilot-db").glob("*.partial"))
    assert team.call("log", "verify").code == 0


def test_the_matrix_is_whole(tmp_path: Path, killer: Killer) -> None:
    """A look that makes and proves a backup makes exactly as many writes as are killed at."""
    team = killed_team(tmp_path / "team")
    call: dict[str, Any] = {"environment": team.environment_of(ANA), "cwd": team.root}
    done = killer.run("schedules", "run-due", at=0, when="before", **call)
    assert (done["code"], done["writes"]) == (0, WRITES), done


def test_the_list_says_next_last_proven_and_overdue(tmp_path: Path) -> None:
    """`handrail schedules`, before `run-due` made it, and after."""
    team = killed_team(tmp_path / "team")
    before = team.call("schedules").out
    assert ("never" in before, "OVERDUE" in before) == (True, False), before
    made = team.call("schedules", "run-due")
    assert (made.code, "made, backup of store/pilot-db." in made.out) == (0, True), made
    assert team.call("schedules", "run-due").out == ""
    after = team.call("schedules").out
    assert ("never" in after, "made" in after) == (False, True), after


def test_where_things_stand_says_what_is_late(tmp_path: Path) -> None:
    """`handrail` alone shows an overdue backup, and a paused schedule with why; else nothing."""
    operation = "operation: reset-pilot\nrun: ./scripts/reset-pilot/run.sh\non: store/pilot-db\n"
    operation += 'undo: restore\nwatch: {soak: 0s}\nschedule: {cron: "0 3 1 1 *"}\n'
    team = make_team(tmp_path / "team", {"operations/reset-pilot.yaml": operation})
    assert team.call("--json").json["schedules"] == []
    assert "by the clock" not in team.call().out
    body = {"time": time_text(datetime.now(UTC) - timedelta(days=2))}
    team.world().journal.append(chain_of(STORE), "declared", body)
    team.call("schedules", "pause", "reset-pilot", "--because", "we move")
    late = team.call("--json").json["schedules"]
    assert [(one["name"], one["state"]) for one in late] == [
        ("reset-pilot", "paused"),
        ("backup of store/pilot-db", "overdue"),
    ]
    out = team.call().out
    for said in ("not as declared", "paused by ana@pilot.example: we move", "overdue since"):
        assert said in out, out


@pytest.mark.parametrize(
    ("rule", "came_to"),
    [
        ("every: 0s", []),
        ("every: 1d, prove: 0s", ["ended"]),
        ("every: 999999d, prove: 999999w", []),
        ("every: 1d, prove: 999999w", ["ended"]),
        ("every: 999999w, keep: 0", []),
    ],
)
def test_an_odd_rule_is_no_defect(house: House, rule: str, came_to: list[str]) -> None:
    """Nothing, and nearly for ever, mean what they say; nothing is made again and again."""
    declared = ESTATE.replace("{to: object/backups}", f"{{to: object/backups, {rule}}}")
    house.team.write({"estate/pilot.yaml": declared})
    house.days(1)
    assert (house.tick(), house.tick()) == (came_to, [])
    assert bool(list(backing_up.standings(house.world, house.declared))) == (rule != "every: 0s")
    house.clock.advance(120)
    assert house.tick() == []


def test_a_failure_under_a_rule_of_nearly_for_ever_is_tried_again_next_day(house: House) -> None:
    """A proof that fails is tried again after a day, however seldom backups are made."""
    rule = "{to: object/backups, every: 4w, prove: 999999w}"
    house.team.write({"estate/pilot.yaml": ESTATE.replace("{to: object/backups}", rule)})
    house.days(28)
    assert house.tick(failing(house, clone=full)) == ["failed"]
    assert house.standing.next_at == house.clock.now() + timedelta(days=1)
    house.days(1)
    assert house.tick() == ["ended"]
