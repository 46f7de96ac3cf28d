"""Any command behind guards: what it finds, what it is held to, and what is told afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from handrail.core import commanding, records
from handrail.core.commanding import Asked, Guarded
from handrail.core.guarding import Part
from handrail.core.world import World
from handrail.errors import ScriptError, StoreError, UsageError
from handrail.plans.effect import Effect
from handrail.plans.holding import Event, Limits, Report, Stop
from handrail.ports import Connection, Finished
from handrail.testing.guards import FakeGuard
from handrail.testing.processes import Call
from support.worlds import ROWS, TRIM, FakeWorld

STORE = "store/pilot-db"
DELETED = Effect(STORE, "delete", "table", "sessions", 15)
CHAIN = "guard-"


def run(fake: FakeWorld, *, environment: dict[str, str] | None = None, **asked: Any) -> Guarded:
    """Run `trim.sh` behind a guard of the pilot's database."""
    wanted = Asked(("trim.sh", "--all"), fake.root, Limits())
    world: World = replace(fake.world(), environment=environment or {})
    return commanding.run(world, fake.store, replace(wanted, **asked), fake.talk)


def kinds(fake: FakeWorld) -> list[str]:
    """Return the kinds of records of the one guarded command."""
    (chain,) = fake.journal.chains(CHAIN)
    return fake.kinds(chain)


def test_observed(fake: FakeWorld) -> None:
    """A command runs as it is, and what it did is told and journalled."""
    guarded = run(fake)
    assert (guarded.exit_code, guarded.effects) == (0, (DELETED,))
    assert fake.processes.runs[-1].argv == ("/fake/bin/trim.sh", "--all")
    assert fake.processes.runs[-1].cwd == fake.root
    assert kinds(fake) == ["opened", "ended"]
    assert list((fake.root / ".handrail" / "guards").iterdir()) == []


def test_arguments_are_not_journalled(fake: FakeWorld) -> None:
    """The journal names the command without its arguments: they may hold anything."""
    run(fake, argv=("trim.sh", "hunter2"))
    (chain,) = fake.journal.chains(CHAIN)
    assert not any("hunter2" in record.body for record in fake.journal.records(chain))


def test_kept_to_its_guard(fake: FakeWorld) -> None:
    """It reaches nothing but its guard, unless somebody opens the network, which is then told."""
    run(fake)
    confine = fake.processes.runs[-1].confine
    assert confine is not None
    assert confine.network_only
    guarded = run(fake, open_network=True)
    assert fake.processes.runs[-1].confine is None
    assert guarded.reports[0].avoidable


@pytest.mark.parametrize(
    ("finished", "code"),
    [
        (Finished(0, "exited", 1.0, 0), 0),
        (Finished(3, "exited", 1.0, 0), 1),
        (Finished(-9, "exited", 1.0, 0), 1),
        (Finished(0, "disk-full", 1.0, 0), 1),
    ],
)
def test_exit_codes(fake: FakeWorld, finished: Finished, code: int) -> None:
    """Ended well is 0, everything else 1."""
    fake.processes.programs = {"trim.sh": lambda _: finished}
    assert run(fake).exit_code == code


def test_stopped(fake: FakeWorld) -> None:
    """A command that its guard stopped gives 5, whatever it says itself."""
    stop = Stop("would delete 15 rows of table sessions", "DELETE FROM sessions")
    fake.guards.report["hold"] = Report(STORE, "before COMMIT", stop=stop)
    fake.processes.programs = {"trim.sh": fake.program("")}
    guarded = run(fake, limits=Limits("hold"))
    assert (guarded.exit_code, guarded.stop) == (5, stop)


def test_interrupted(fake: FakeWorld) -> None:
    """Ctrl-C ends the command, and the report is told all the same."""

    def interrupted(call: Call) -> int:
        fake.program(TRIM)(call)
        raise KeyboardInterrupt

    fake.processes.programs = {"trim.sh": interrupted}
    guarded = run(fake)
    assert (guarded.exit_code, guarded.effects) == (130, (DELETED,))


def test_events(fake: FakeWorld) -> None:
    """What the guard sees, and what the cage sees, is journalled and reported."""
    event = Event("diverged", "not in the rehearsal")
    fake.guards.report["observe"] = Report(STORE, "observed only", events=(event,))
    fake.processes.programs = {
        "trim.sh": lambda _: Finished(0, "exited", 1.0, 0, reached=("10.0.0.1:5432",))
    }
    guarded = run(fake, argv=("trim.sh", "postgres://a:b@other/db"))
    assert [e.kind for e in guarded.reports[0].events] == ["diverged", "bypass"]
    assert kinds(fake) == ["opened", "guard-event", "guard-event", "guard-event", "ended"]


def test_what_a_killed_guard_left(fake: FakeWorld) -> None:
    """What a killed guard worked with goes with the next one; what a living one has stays."""
    guards = fake.root / ".handrail" / "guards"
    for name in ("dead", "living"):
        (guards / name / "before").mkdir(parents=True)
    with fake.locks.hold("guard/living", "somebody"):
        run(fake)
    assert [path.name for path in guards.iterdir()] == ["living"]


def test_no_program(fake: FakeWorld) -> None:
    """A command that is not there is an error, and nothing stays open."""
    with pytest.raises(ScriptError, match="no program `nothing`"):
        run(fake, argv=("nothing",))
    assert kinds(fake) == ["opened", "failed"]


def test_store_that_does_not_answer(fake: FakeWorld) -> None:
    """Without the store, or without a guard of it, nothing is run."""
    fake.guards.refused = "no"
    with pytest.raises(StoreError):
        run(fake)
    assert fake.processes.runs == []


@pytest.fixture
def copied(fake: FakeWorld) -> FakeWorld:
    """A world whose store gives a command a copy."""
    fake.guards.copies = frozenset({"hold"})
    fake.guards.report["hold"] = Report(STORE, "copied and swapped in", (DELETED,), kept=1)
    return fake


@pytest.mark.parametrize(("code", "left"), [(0, 5), (1, ROWS)])
def test_copy(copied: FakeWorld, code: int, left: int) -> None:
    """A copy is swapped in where the command ended well, and thrown away where it did not."""
    copied.processes.programs = {"trim.sh": copied.program(TRIM, code)}
    run(copied, limits=Limits("hold"))
    assert copied.count() == left


# --- the environment -----------------------------------------------------------------------------


class Pointing:
    """A store, or its guard, that is nothing but a connection."""

    def __init__(self, kind: str, connection: Connection) -> None:
        self.kind, self.resource = kind, f"store/{kind}"
        self._connection = connection

    def connection(self) -> Connection:
        return self._connection


def part(kind: str, real: str, guard: str, *secrets: str) -> Part:
    """Return a store at `real` with a guard at `guard`."""
    store: Any = Pointing(kind, Connection({}, {"url": real}, secrets=secrets))
    own: Any = Pointing(kind, Connection({}, {"url": guard}))
    return Part(store, own)


POSTGRES = part(
    "postgres",
    "postgres://app:hunter2@db:5432/pilot",
    "postgres://g:s@127.0.0.1:6000/pilot",
    "hunter2",
)
REDIS = part("redis", "redis://cache:6379/0", "redis://g:s@127.0.0.1:6001/0")


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("HOME", "/home/ana", "/home/ana"),
        ("PGOPTIONS", "-c search_path=a", "-c search_path=a"),
        ("PGHOST", "db", None),
        ("PGHOSTADDR", "10.0.3.7", None),
        ("PGSERVICE", "pilot", None),
        ("PGSSLROOTCERT", "/etc/ssl/ca.pem", None),
        ("PGPASSFILE", "/home/ana/.pgpass", None),
        ("REDISCLI_AUTH", "x", None),
        ("HANDRAIL_JOURNAL", "postgres://team:other@elsewhere/journal", None),
        ("REDIS_URL", "redis://cache", None),
        ("CACHE", "redis://cache:6379", "redis://cache:6379"),
        ("CACHE_0", "redis://:x@cache/0", "redis://g:s@127.0.0.1:6001/0"),
        ("APP_DB", "postgres://app:hunter2@db:5432/pilot", "postgres://g:s@127.0.0.1:6000/pilot"),
        ("OTHER_ROLE", "postgresql://ana@db/pilot", "postgresql://g:s@127.0.0.1:6000/pilot"),
        (
            "ALCHEMY",
            "postgresql+psycopg://x@db/pilot",
            "postgresql+psycopg://g:s@127.0.0.1:6000/pilot",
        ),
        ("ELSEWHERE", "postgres://ana@other/pilot", "postgres://ana@other/pilot"),
        ("OTHER_DB", "postgres://ana@db/other", "postgres://ana@db/other"),
        ("DB_PASSWORD", "hunter2", None),
        ("SETTINGS", '{"password": "hunter2"}', None),
    ],
)
def test_environment(name: str, value: str, found: str | None) -> None:
    """What points at a guarded store points at its guard; what leads round it is not there."""
    assert commanding.inherited({name: value}, [POSTGRES, REDIS]).get(name) == found


def test_secret_among_the_arguments(fake: FakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret of the store on the command line is refused before anything is done."""
    secret = Connection({}, {"url": "x"}, secrets=("hunter2",))
    monkeypatch.setattr(type(fake.store), "connection", lambda _: secret)
    with pytest.raises(UsageError, match="a secret of store/pilot-db"):
        run(fake, argv=("trim.sh", "--url=postgres://app:hunter2@db/pilot"))
    assert fake.processes.runs == []


# --- undeclared stores ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "address", "taken", "ref"),
    [
        ("postgres", "postgres://app@db/pilot?sslmode=require", (), "store/pilot"),
        ("redis", "redis://:pw@cache:6379", (), "store/cache"),
        ("redis", "redis://cache/0", ("store/redis",), "store/redis-2"),
        ("files", "/srv/up loads/", (), "store/up-loads"),
        ("files", "/", (), "store/files"),
    ],
)
def test_undeclared(kind: str, address: str, taken: tuple[str, ...], ref: str) -> None:
    """A store that nobody declared has a name of its own, with no secret in it."""
    resource = commanding.undeclared(kind, address, taken)
    assert resource.ref == ref
    assert resource.store is not None
    assert resource.store.kind == kind


def test_last_record(fake: FakeWorld) -> None:
    """The last record has everything that the report has."""
    run(fake)
    (chain,) = fake.journal.chains(CHAIN)
    last = fake.journal.last(chain)
    assert last is not None
    assert records.decode(records.body(last), Guarded).effects == (DELETED,)


def test_part_is_a_copy() -> None:
    """A guard whose path is another one than the store's gives a copy."""
    store: Any = Pointing("files", Connection({}, {"path": "/srv/a"}))
    copy: Any = Pointing("files", Connection({}, {"path": "/srv/.a-copy"}))
    assert Part(store, FakeGuard(copy, Report("store/a", ""))).is_copy
    assert not Part(store, FakeGuard(store, Report("store/a", ""))).is_copy
