"""Several stores that one script changes: one plan, one budget, one report, each told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from handrail.core import commanding
from handrail.core.commanding import Asked
from handrail.core.together import KIND, Together, joined_connection
from handrail.errors import DeclarationErrors, RefusedError, StoreError, WaitingError
from handrail.plans.effect import Effect
from handrail.plans.facts import Identity
from handrail.plans.holding import Limits, Report, Stop
from handrail.ports import Connection
from handrail.testing.processes import Call, Program
from handrail.testing.store import FakeStore
from support.worlds import ID, ROWS, TRIM, FakeWorld, commit, make_world

PILOT, CACHE, BOTH = "store/pilot-db", "store/cache", "store/pilot-db+cache"
CACHE_ID, CACHE_ADDRESS = "7e1f" * 8, "fake:///cache"
CACHE_ESTATE = f"""\
environments:
  live: {{production: true}}
stores:
  cache:
    kind: sqlite
    url: cache.db
    environment: live
    durability: lossy
    holds: [personal-data]
    identity: fake:{CACHE_ID}@{CACHE_ADDRESS}
services:
  web:
    needs: [store/cache]
"""
OPERATION = """\
operation: trim
run: ./scripts/trim.sh
on: store/pilot-db
also: [store/cache]
undo: restore
environment: {CACHE: cache.url}
watch: {soak: 1m, every: 1m}
"""
EMPTY = "DELETE FROM entries"


@pytest.fixture
def both(tmp_path: Path) -> FakeWorld:
    """A team whose script changes its database and a cache beside it."""
    fake = make_world(tmp_path / "fake")
    fake.write("estate/cache.yaml", CACHE_ESTATE)
    fake.write("operations/trim.yaml", OPERATION)
    commit(fake, 2)
    cache = fake.more["cache"] = FakeStore(CACHE, CACHE_ADDRESS, fake.shelf)
    cache.adopt(CACHE_ID)
    cache.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY)")
    cache.execute("INSERT INTO entries VALUES (1), (2), (3)")
    fake.processes.programs = {"trim.sh": program(fake, TRIM, EMPTY)}
    return fake


def program(fake: FakeWorld, pilot: str, cache: str, code: int = 0) -> Program:
    def run(call: Call) -> int:
        environment = call.command.environment
        fake.shelf.at(environment["DATABASE_URL"]).execute(pilot)
        fake.shelf.at(environment["CACHE"]).execute(cache)
        return code

    return run


def entries(fake: FakeWorld) -> int:
    return int(fake.more["cache"].ask("SELECT count(*) FROM entries", 5.0))


def test_plan(both: FakeWorld) -> None:
    """A plan is on all of them, by the strictest of what is declared of each."""
    plan = both.rehearse().plan
    target = plan.target
    assert target.resource == BOTH
    assert (target.environment, target.production, target.durability) == ("live", True, "durable")
    assert target.holds == ("production-data", "personal-data")
    assert target.declared_identity == f"fake:{ID} + fake:{CACHE_ID}@fake:///pilot + fake:///cache"
    assert {(e.resource, e.verb, e.name, e.rows) for e in plan.effects or ()} == {
        (PILOT, "delete", "sessions", 15),
        (CACHE, "delete", "entries", 3),
    }
    assert plan.budget is not None
    assert {a.resource for a in plan.budget.allowances} == {PILOT, CACHE}
    assert "service/web" in {c.resource for c in plan.consequences}
    assert [d.guard for d in plan.decisions if d.verdict == "refuse" and d.binding] == []


def test_rehearsal_touches_neither(both: FakeWorld) -> None:
    """A rehearsal runs on a clone of each; nothing changes in either, and nothing is left."""
    both.rehearse()
    assert (both.count(), entries(both)) == (ROWS, 3)
    assert list(both.shelf.stores) == ["fake:///pilot", "fake:///cache"]
    assert list((both.root / ".handrail" / "clones").iterdir()) == []


def test_run_and_undo(both: FakeWorld) -> None:
    """A run changes all of them, and its undo puts all back."""
    outcome = both.begin()
    assert outcome.outcome == "confirmed", outcome
    assert (both.count(), entries(both)) == (5, 0)
    for ref in (BOTH, PILOT, CACHE):
        assert both.kinds(f"resource-{ref}") == ["run-begun", "run-ended"]
    assert both.undo().outcome == "undone"
    assert (both.count(), entries(both)) == (ROWS, 3)


def test_beyond_in_one(both: FakeWorld) -> None:
    """What goes beyond the budget in one of them undoes all."""
    decided = both.make_ready()
    both.processes.programs = {"trim.sh": program(both, TRIM, f"{EMPTY}; CREATE TABLE x (a)")}
    outcome = both.begin(decided)
    assert [(b.effect.resource, b.effect.name) for b in outcome.breaches] == [(CACHE, "x")]
    assert (both.count(), entries(both)) == (ROWS, 3)


def test_moved_since(both: FakeWorld) -> None:
    """A table of any of them that has grown since voids the rehearsal, and says which."""
    both.rehearse()
    both.more["cache"].execute(
        "WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
        " INSERT INTO entries SELECT i FROM n"
    )
    plan = both.decide().plan
    assert any("table entries had 3 rows" in d.because for d in plan.decisions)


@pytest.mark.parametrize("ref", [BOTH, PILOT, CACHE])
def test_locked(both: FakeWorld, ref: str) -> None:
    """Whoever holds any of them holds the run up."""
    decided = both.make_ready()
    with both.locks.hold(ref, "somebody"), pytest.raises((RefusedError, WaitingError)):
        both.begin(decided)
    assert both.begin(decided).outcome == "confirmed"


def test_unfinished_run_on_one(both: FakeWorld) -> None:
    """A run on one of them that was cut off has to be resumed first."""
    decided = both.make_ready()
    both.journal.append(f"resource-{CACHE}", "run-begun", {"run": 7})
    with pytest.raises(RefusedError, match="run 7"):
        both.begin(decided)


def test_unknown_store(both: FakeWorld) -> None:
    """A store that is not declared is told with its place."""
    both.write("operations/trim.yaml", OPERATION.replace("store/cache", "store/cahce"))
    with pytest.raises(DeclarationErrors, match="also touches unknown store `store/cahce`"):
        _ = both.declared


def test_resumed(both: FakeWorld) -> None:
    """A run on several stores that was cut off is found again under its names."""
    decided = both.make_ready()

    def killed(_: Call) -> int:
        raise SystemExit

    both.processes.programs = {"trim.sh": killed}
    with pytest.raises(SystemExit):
        both.begin(decided)
    with pytest.raises(WaitingError):
        both.resume()
    assert both.resume(choice="undo").outcome == "undone"
    assert both.decide().plan.facts.unfinished == ()


# --- held -----------------------------------------------------------------------------------------

DELETED = Effect(PILOT, "delete", "table", "sessions", 15)
STOP = Stop("would delete 15 rows", "DELETE FROM sessions", DELETED)


def command(both: FakeWorld, mode: str) -> commanding.Guarded:
    """Run the script as somebody's command behind guards of both."""
    stores = Together(BOTH, [both.store, both.more["cache"]])

    def run(call: Call) -> int:
        environment = call.command.environment
        both.shelf.at(environment["DATABASE_URL"]).execute(TRIM)
        return 0

    both.processes.programs = {"trim.sh": run}
    asked = Asked(("trim.sh",), both.root, Limits("observe" if mode == "observe" else "hold"))
    return commanding.run(both.world(), stores, asked, both.talk)


def test_reports_are_told_apart(both: FakeWorld) -> None:
    """Each store has its own report, and its own effects."""
    guarded = command(both, "observe")
    assert [report.resource for report in guarded.reports] == [PILOT, CACHE]
    assert guarded.effects == (DELETED,)


def test_one_report_of_a_run(both: FakeWorld) -> None:
    """The report of a run says of each store how it was held."""
    outcome = both.begin()
    assert outcome.report is not None
    assert outcome.report.resource == BOTH
    assert outcome.report.how == f"{PILOT} observed only; {CACHE} observed only"


def test_no_copy_is_swapped_in_after_a_stop(both: FakeWorld) -> None:
    """Where one store's guard stopped the command, nothing is swapped into another."""
    both.guards.copies = frozenset({"hold"})
    both.guards.report["hold"] = Report(PILOT, "copied and swapped in", stop=STOP)
    guarded = command(both, "hold")
    assert guarded.exit_code == 5
    assert [report.stop for report in guarded.reports] == [STOP, None]
    assert both.count() == ROWS


# --- the store itself ----------------------------------------------------------------------------


@pytest.fixture
def stores(both: FakeWorld) -> Together:
    """Both stores as one."""
    return Together(BOTH, [both.store, both.more["cache"]])


def test_identity(stores: Together, tmp_path: Path) -> None:
    """It is a clone only where each part is a clone of the same rehearsal."""
    (tmp_path / "backup").mkdir()
    (tmp_path / "clone").mkdir()
    backup = stores.backup("b", tmp_path / "backup", nothing)
    clone = stores.clone(backup, tmp_path / "clone", "mark", nothing)
    assert stores.identify() == Identity(
        f"fake:{ID} + fake:{CACHE_ID}", "fake:///pilot + fake:///cache", "fake 1, fake 1"
    )
    assert clone.identify().marker == "mark"
    assert isinstance(clone, Together)
    mixed = Together(BOTH, [clone.parts[0], stores.parts[1]])
    assert mixed.identify().marker not in {"", "mark"}
    stores.discard(tmp_path / "clone")
    stores.discard(tmp_path / "clone")
    assert not (tmp_path / "clone").exists()


def nothing(done: int, total: int | None) -> None:
    """Show no progress."""


def test_backup_may_be_moved(stores: Together, tmp_path: Path, both: FakeWorld) -> None:
    """A backup is restored from wherever it lies by then, and its fingerprint is of all."""
    first, then = tmp_path / "first", tmp_path / "then"
    first.mkdir()
    backup = stores.backup("b", first, nothing)
    assert backup.form == KIND
    assert backup.fingerprint == stores.fingerprint()
    first.rename(then)
    both.more["cache"].execute(EMPTY)
    both.store.execute(TRIM)
    assert backup.fingerprint is not None
    assert stores.fingerprint().differences(backup.fingerprint) == (
        f"table {CACHE} entries",
        f"table {PILOT} sessions",
    )
    stores.restore(replace(backup, path=str(then)), nothing)
    assert (both.count(), entries(both)) == (ROWS, 3)


def test_damaged_backup(stores: Together, tmp_path: Path) -> None:
    """A backup without the list of its parts is damaged."""
    found = stores.backup("b", tmp_path, nothing)
    (tmp_path / "parts.json").unlink()
    with pytest.raises(StoreError) as raised:
        stores.restore(found, nothing)
    assert raised.value.code == "backup.damaged"


def test_facts_of_all(stores: Together, both: FakeWorld) -> None:
    """Others, hindrances and tables are those of all, with the store's name where it is needed."""
    both.more["cache"].unrestorable = "no rights"
    both.store.connected = ("psql as ana",)
    assert stores.can_restore() == f"{CACHE}: no rights"
    assert stores.others() == ("psql as ana",)
    assert {table.name for table in stores.measure().tables} == {
        f"{PILOT} sessions",
        f"{PILOT} devices",
        f"{CACHE} entries",
    }


def test_connection() -> None:
    """The first one's variables win, another's are added; its parts have its name before them."""
    first = Connection(
        {"URL": "1", "PGHOST": "a"}, {"url": "1"}, (("h", 1),), (Path("/a"),), ("s",)
    )
    other = Connection({"URL": "2", "REDIS": "2"}, {"url": "2"}, (("h", 2),), (Path("/a"),), ("t",))
    found = joined_connection([("store/a", first), ("store/b", other)])
    assert found.environment == {"URL": "1", "PGHOST": "a", "REDIS": "2"}
    assert found.parts == {"url": "1", "a.url": "1", "b.url": "2"}
    assert (found.sockets, found.paths, found.secrets) == (
        (("h", 1), ("h", 2)),
        (Path("/a"),),
        ("s", "t"),
    )


def test_observed(stores: Together, both: FakeWorld, tmp_path: Path) -> None:
    """What was done to each is told with its own name."""
    stores.observe(tmp_path)
    both.more["cache"].execute(EMPTY)
    assert stores.effects(tmp_path) == (Effect(CACHE, "delete", "table", "entries", 3),)
