"""The law of the guard: a run does what its rehearsal did, and one row more is stopped at COMMIT.

Rules:
- Databases and scripts are random, and each example has copies of one database: rehearsal, run,
  the same script past the guard, and runs whose budget lacks one row.
- What is compared is what lies in the tables afterwards, row by row; never what the guard says
  alone.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from handrail.adapters.postgres import gate
from handrail.plans.effect import Effect
from handrail.plans.holding import Limits, Report
from handrail.plans.model import Allowance, Budget
from handrail.ports import Store
from handrail.wire import postgres
from handrail.wire.postgres.listening import PostgresGuard
from handrail.wire.postgres.tables import Plain
from support.guarding import Database, Guarded, exactly
from support.postgres_server import OWNER, Server, has_decoding, server_binaries
from support.random_schemas import Case, cases
from support.store_contract import MARKER, quiet

pytestmark = pytest.mark.postgres

NUMBERS = itertools.count()
# Databases are made and dropped for each example; what is found once is found again.
lawful = settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    derandomize=os.environ.get("HYPOTHESIS_PROFILE") != "torture",
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
exact = pytest.mark.skipif(not has_decoding(), reason="no test_decoding here: nothing to compare")
TAKEN = ("delete", "update", "truncate", "drop", "replace", "rewrite")
GIVEN = ("insert", "update", "rewrite", "alter", "create", "replace")
_RELATIONS = """
SELECT c.oid, CASE n.nspname WHEN 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END
        || quote_ident(c.relname), c.oid::regclass::text,
    (SELECT string_agg(a.attname || a.atttypid, ' ' ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    c.relpersistence = 'p'
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^(pg_|information_schema)'"""


@dataclass(frozen=True)
class Held:
    """What a table holds: its name, its columns, how often each row is there, and its kind."""

    name: str
    columns: str
    rows: Counter[str]
    is_logged: bool


class Copy(Database):
    """A copy of a database, which serves as its clone."""

    def __init__(self, template: Database, folder: Path) -> None:
        self.server = template.server
        self.name = f"{template.name}x{next(NUMBERS)}"
        self.store = self.server.store(self.name)
        self._folder = folder / self.name
        self._folder.mkdir()
        self._observed = 0
        self.server.execute(
            f"CREATE DATABASE {self.name} OWNER {OWNER} TEMPLATE {template.name} STRATEGY file_copy"
        )


@contextmanager
def original(server: Server, folder: Path, schema: str) -> Iterator[Database]:
    """Give a database, from which copies may be made until it is run on."""
    at = folder / f"original-{next(NUMBERS)}"
    at.mkdir()
    made = Database(server, at, schema)
    try:
        yield made
    finally:
        made.drop()


@contextmanager
def copy_of(template: Database, folder: Path) -> Iterator[Database]:
    """Give a copy."""
    made = Copy(template, folder)
    try:
        yield made
    finally:
        made.drop()


def contents(url: str) -> dict[int, Held]:
    """Return what every table holds, by object id."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("SET search_path = pg_catalog")
        found = session.execute(_RELATIONS.encode()).fetchall()
        return {
            int(oid): Held(name, columns or "", Counter(_rows(session, spelled)), is_logged)
            for oid, name, spelled, columns, is_logged in found
        }


def _rows(session: psycopg.Connection[tuple[object, ...]], spelled: str) -> list[str]:
    query = f"SELECT x::text FROM ONLY {spelled} x"
    return [str(row) for (row,) in session.execute(query.encode())]


def holds(database: Database) -> dict[int, Held]:
    """Return what the tables of a database hold."""
    return contents(database.server.url(database.name))


def by_name(held: Mapping[int, Held]) -> dict[str, Held]:
    """Return the same, whatever their ids."""
    return {one.name: one for one in held.values()}


def run(database: Database, script: str, limits: Limits) -> tuple[Report, str]:
    """Run a script by psql behind a guard; return its report, and what psql said."""
    with database.guarded(limits) as guarded:
        done = guarded.psql(script)
        return guarded.settle(), done.stdout + done.stderr


def run_past(database: Database, script: str) -> None:
    """Run a script by psql past the guard."""
    environment = {**database.store.connection().environment, "PATH": "/usr/bin:/bin"}
    binaries = server_binaries()
    assert binaries is not None
    argv = [binaries.program("psql"), "-X", "-q", "-f", "-"]
    subprocess.run(argv, env=environment, input=script.encode(), capture_output=True, check=False)


def amounts(effects: tuple[Effect, ...]) -> dict[tuple[str, str, str], int | None]:
    """Return rows by verb, kind and name."""
    return {(e.verb, e.kind, e.name): e.rows for e in effects}


def lacking(budget: Budget, allowance: Allowance) -> Budget:
    """Return a budget with one row less."""
    assert allowance.rows
    fewer = replace(allowance, rows=allowance.rows - 1)
    return replace(
        budget,
        allowances=tuple(fewer if one == allowance else one for one in budget.allowances),
    )


def check_within(before: dict[int, Held], after: dict[int, Held], budget: Budget) -> None:
    """Fail where rows are gone, or new, that the budget does not cover."""
    for oid, held in before.items():
        now = after.get(oid)
        names = {held.name, now.name if now else held.name}
        if now is None:
            assert held.rows.total() <= _allowed(budget, names, TAKEN), f"{held.name} is gone"
        elif now.columns == held.columns:
            gone, new = held.rows - now.rows, now.rows - held.rows
            assert gone.total() <= _allowed(budget, names, TAKEN), f"{held.name} lost {gone}"
            assert new.total() <= _allowed(budget, names, GIVEN), f"{held.name} gained {new}"
        else:
            lost = held.rows.total() - now.rows.total()
            assert lost <= _allowed(budget, names, TAKEN), f"{held.name} lost {lost} rows"


def _allowed(budget: Budget, names: set[str], verbs: tuple[str, ...]) -> float:
    ours = [a for a in budget.allowances if a.name in names and a.verb in verbs]
    # An allowance without rows is one for any number of them (a view refreshed, a table made).
    return sum(float("inf") if a.rows is None else a.rows for a in ours)


@lawful
@given(case=cases(), chosen=st.integers(0, 99))
def test_a_run_does_what_its_rehearsal_did(
    postgres_server: Server,
    tmp_path_factory: pytest.TempPathFactory,
    case: Case,
    chosen: int,
) -> None:
    """A budget of exactly what was counted lets the run pass; with one row less it is stopped."""
    folder = tmp_path_factory.mktemp("law")
    note(case.script)
    with ExitStack() as stack:
        real = stack.enter_context(original(postgres_server, folder, case.schema))
        clone, other, short = (stack.enter_context(copy_of(real, folder)) for _ in range(3))
        before = holds(real)
        rehearsed, said = run(clone, case.script, Limits("measure"))
        after = holds(clone)
        note(f"{said}\n{rehearsed.effects}")
        budget = exactly(rehearsed.effects)
        run_past(other, case.script)
        assert by_name(holds(other)) == by_name(after), "the guard has changed what was done"

        held = Limits("hold", budget, rehearsed.trace, rehearsed.unheld)
        done, repeated = run(real, case.script, held)
        assert done.stop is None, done.stop
        assert amounts(done.effects) == amounts(rehearsed.effects)
        assert repeated == said
        assert by_name(holds(real)) == by_name(after)
        event("nothing was done" if after == before else "something was done")
        if rehearsed.unheld:
            event("unheld")
            return
        check_within(before, after, budget)
        limited = [allowance for allowance in budget.allowances if allowance.rows]
        if not limited:
            return
        event("one row less")
        fewer = lacking(budget, limited[chosen % len(limited)])
        stopped, _ = run(short, case.script, Limits("hold", fewer, rehearsed.trace))
        assert stopped.stop is not None
        assert stopped.stop.effect is not None
        assert stopped.stop.effect.key == _key(limited[chosen % len(limited)])
        check_within(before, holds(short), fewer)
        check_within(before, holds(short), exactly(stopped.effects))


@lawful
@given(case=cases(unheld=False))
def test_plain_tables_change_no_count(
    postgres_server: Server,
    tmp_path_factory: pytest.TempPathFactory,
    case: Case,
) -> None:
    """Leaving the gate out where tags are all that was done counts what the gate would count."""
    folder = tmp_path_factory.mktemp("plain")
    note(case.script)
    with ExitStack() as stack:
        real = stack.enter_context(original(postgres_server, folder, case.schema))
        gated = stack.enter_context(copy_of(real, folder))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PostgresGuard, "_plain_tables", lambda _: Plain({}, {}, reads_hold=True))
            always, said = run(gated, case.script, Limits("measure"))
        sometimes, repeated = run(real, case.script, Limits("measure"))
        assert amounts(sometimes.effects) == amounts(always.effects)
        assert by_name(holds(real)) == by_name(holds(gated))
        assert repeated == said


@pytest.fixture(scope="module")
def clone(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A real clone of an empty database."""
    folder = tmp_path_factory.mktemp("clone")
    name = postgres_server.make_database()
    store = postgres_server.store(name)
    (folder / "backup").mkdir()
    backup = store.backup("b1", folder / "backup", quiet)
    try:
        yield store.clone(backup, folder / "at", MARKER, quiet)
    finally:
        store.discard(folder / "at")
        postgres_server.drop_database(name)


@contextmanager
def filled(store: Store, schema: str) -> Iterator[str]:
    """Give the address of a store with a random schema in it, which goes again."""
    url = store.connection().parts["url"]
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(schema.encode())
    try:
        yield url
    finally:
        with psycopg.connect(url, autocommit=True) as session:
            session.execute("SET client_min_messages = error; DROP OWNED BY CURRENT_USER CASCADE")
            session.execute("CREATE SCHEMA IF NOT EXISTS public")


@exact
@lawful
@given(case=cases(unheld=False))
def test_nothing_is_counted_as_less_than_it_was(
    clone: Store,
    postgres_server: Server,
    tmp_path_factory: pytest.TempPathFactory,
    case: Case,
) -> None:
    """On a clone the guard counts every row event of its log, and no other where nothing of a
    transaction was taken back.
    """
    folder = tmp_path_factory.mktemp("decoded")
    note(case.script)
    with filled(clone, case.schema) as url:
        before = contents(url)
        (folder / "before").mkdir()
        clone.observe(folder / "before")
        look = gate.looker(clone.resource, folder / "before", url)
        (folder / "guard").mkdir()
        with postgres.guarded(
            clone, Limits("measure"), folder / "guard", lambda _: None, look
        ) as guard:
            guarded = Guarded(guard, clone)
            note(guarded.psql(case.script).stderr)
            counted = amounts(guarded.settle().effects)
        decoded = clone.effects(folder / "before")
        after = contents(url)
    note(f"{counted}\n{decoded}")
    for oid, table in before.items():
        kept = after.get(oid)
        # The rows of these are counted otherwise: those that they had before; or not in the log.
        moved = kept is None or kept.name != table.name or _was_emptied(decoded, table.name)
        if moved or not (table.is_logged and kept and kept.is_logged):
            continue
        for verb in ("delete", "update", "insert"):
            real = _rows_of(amounts(decoded), verb, table.name)
            seen = _rows_of(counted, verb, table.name)
            assert seen >= real if case.takes_back else seen == real, (verb, table.name)


def _was_emptied(effects: tuple[Effect, ...], name: str) -> bool:
    return any(e.name == name and e.verb in {"truncate", "rewrite"} for e in effects)


def _rows_of(counted: Mapping[tuple[str, str, str], int | None], verb: str, name: str) -> int:
    return counted.get((verb, "table", name)) or 0


def _key(allowance: Allowance) -> tuple[str, str, str, str]:
    return (allowance.resource, allowance.verb, allowance.kind, allowance.name)
