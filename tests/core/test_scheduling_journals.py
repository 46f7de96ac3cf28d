"""Schedules over every journal: two servers at once, and a record that verifies afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.adapters.file_locks import FileLocks
from handrail.adapters.postgres_journal.journal import PostgresJournal
from handrail.adapters.postgres_journal.link import Link
from handrail.adapters.sqlite_journal import SqliteJournal
from handrail.core import notifying, scheduling, taking
from handrail.core.journal import verify_export
from handrail.core.schedule_records import chain_of
from handrail.core.world import World
from handrail.plans.schedule import Due
from handrail.ports import Journal
from support.journals import journal_database, journal_url
from support.worlds import ROWS, FakeWorld, commit

__all__ = ["journal_database", "journal_url"]

SERVERS, LOOKS = 4, 5
OPERATION = """\
operation: trim
run: ./scripts/trim.sh
on: store/pilot-db
undo: restore
watch: {soak: 0s}
effects: [{insert: table sessions, rows: 5}]
schedule:
  - {name: night, cron: "0 3 * * *", missed: once, expect: 26h}
  - {name: noon, cron: "0 12 * * *", by: "13:00"}
"""
POLICY = (
    "guards: {review: critical, backup-proven: critical, rehearsed: critical, committed: critical,"
    " avoidable: critical, unheld: critical, privilege: critical, production-data: critical}\n"
)


@pytest.fixture(params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, fake: FakeWorld, tmp_path: Path) -> Callable[[], World]:
    """A function that gives another server's world, over one journal and one set of locks."""
    fake.write("operations/trim.yaml", OPERATION)
    fake.write("policy.yaml", POLICY)
    fake.write("notifications.yaml", "to: {a: {slack: {url: {env: A}}}}\n")
    fake.processes.programs = {"trim.sh": fake.program("INSERT INTO sessions (device) VALUES (7)")}
    commit(fake, 2)
    url = request.getfixturevalue("journal_url") if request.param == "postgres" else ""

    def make() -> World:
        journal: SqliteJournal | PostgresJournal
        if url:
            journal = PostgresJournal(Link(url), fake.clock)
        else:
            journal = SqliteJournal(tmp_path / "journal.db", fake.clock)
        request.addfinalizer(journal.shut)
        return replace(fake.world(), journal=journal, locks=FileLocks(tmp_path / "locks"))

    return make


def kinds(journal: Journal) -> list[str]:
    return [record.kind for record in journal.records(chain_of("trim"))]


def look_together(worlds: list[World], fake: FakeWorld) -> list[Due]:
    """Let all servers look at once, again and again, and return all that was handed over."""
    declared = fake.declared
    found: list[Due] = []
    gate = threading.Barrier(len(worlds))
    failed: list[BaseException] = []

    def look(world: World) -> None:
        try:
            for _ in range(LOOKS):
                gate.wait(30)
                scheduling.tick(world, declared, found.append)
                notifying.deliver(world, declared)
        except BaseException as error:  # noqa: BLE001  told below
            failed.append(error)
            gate.abort()

    threads = [threading.Thread(target=look, args=(world,)) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    return found


def test_servers_that_look_at_once_record_and_begin_each_time_once(
    server: Callable[[], World], fake: FakeWorld
) -> None:
    """Whatever the number of servers: one `declared`, one `skipped`, one run, one incident."""
    worlds = [server() for _ in range(SERVERS)]
    journal = worlds[0].journal
    assert look_together(worlds, fake) == []
    assert kinds(journal) == ["declared", "declared"]
    fake.clock.jump(timedelta(days=3).total_seconds())
    handed = look_together(worlds, fake)
    assert kinds(journal).count("skipped") == 2
    assert {(due.schedule.name, due.time.hour) for due in handed} == {("night", 3)}
    for world in worlds:
        for due in handed:
            taking.carry_out(world, fake.declared, due, fake.talk)
    assert kinds(journal)[-3:] == ["due", "begun", "ended"]
    assert fake.count() == ROWS + 1
    queued = journal.chains("notice-")
    assert len(queued) == 3  # two incidents, and noon was missed
    assert verify_export(journal.export()) == ()
    look_together(worlds, fake)
    assert len(journal.chains("notice-")) == 5  # both are resolved
    assert fake.count() == ROWS + 1
