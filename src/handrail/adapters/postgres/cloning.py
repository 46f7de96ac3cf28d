"""Make a clone: restore a backup into a scratch cluster that shares nothing with the original.

Rules:
- The roles of the original are there by name and with their rights, but none has a password, and
  none but the script's can log in; the script's role has the original's name and a password that
  is used once.
- Default settings of roles and databases, and those of the server's files that change what a
  statement does, are the original's: without them a script can hit another schema.
- Other databases of a dumped cluster are there as empty shells, so that dropping one is seen.
- Foreign servers point nowhere, subscriptions are off: a clone calls nobody.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from handrail.adapters.postgres import notes as noting
from handrail.adapters.postgres import scratch
from handrail.adapters.postgres.backups import COPY, DUMP, Running, jobs, tree_bytes
from handrail.adapters.postgres.binaries import Binaries, choose
from handrail.adapters.postgres.catalog import Item, read_cluster
from handrail.adapters.postgres.connecting import (
    Address,
    Session,
    administering,
    one,
    reading,
    rows,
)
from handrail.adapters.postgres.notes import Notes
from handrail.adapters.postgres.scratch import Cluster, Place
from handrail.errors import StoreError
from handrail.ports import Progress

# Errors of pg_restore that a newer one makes on an older server, and that lose nothing.
HARMLESS = ('unrecognized configuration parameter "transaction_timeout"',)
# While a dump is read in: whatever goes wrong, the clone is made anew.
LOADING = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "maintenance_work_mem": "256MB",
}
HBA = "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True)
class Clone:
    """A running clone: how we reach it, how a script does, and its cluster as it was made."""

    cluster: Cluster
    notes: Notes
    script: Address
    baseline: tuple[Item, ...] = ()


def make(
    backup: Path, at: Path, marker: str, environment: Mapping[str, str], progress: Progress
) -> Clone:
    """Restore the backup in the folder `backup` into a new cluster in `at`.

    Raises:
        StoreError: it could not be made. What there is of it is removed by `discard`.
    """
    notes = noting.read(backup)
    binaries = choose(notes.major, environment)
    place = scratch.prepare(at)
    if notes.form == "pg_basebackup":
        _check_files(backup / COPY / "PG_VERSION")
        cluster = _from_copy(backup / COPY, notes, place, binaries, marker, progress)
    else:
        _check_files(backup / DUMP / "toc.dat")
        cluster = _from_dump(backup / DUMP, notes, place, binaries, marker, progress)
    with administering(cluster.address(notes.database)) as session:
        _cut_off(session)
        session.execute("ANALYZE" if notes.form == "pg_dump" else _unanalysed(session))
    script = _open_for_script(cluster, notes)
    with reading(cluster.address()) as session:
        baseline = read_cluster(session, notes.salt)
    return Clone(cluster, notes, script, baseline)


def _check_files(needed: Path) -> None:
    if not needed.is_file():
        raise StoreError(
            "backup.damaged",
            f"the backup in {needed.parent} is not complete: {needed.name} is missing",
            hint="use another backup; they lie beside it",
        )


def _from_dump(
    dump: Path,
    notes: Notes,
    place: Place,
    binaries: Binaries,
    marker: str,
    progress: Progress,
) -> Cluster:
    superuser, password = scratch.create(place, binaries)
    _configure(place.data, notes, binaries)
    port = scratch.start(place, place.data, binaries, LOADING)
    cluster = Cluster(place, place.data, binaries, superuser, password, port)
    with administering(cluster.address()) as session:
        _check_extensions(session, notes)
        _make_roles(session, notes, binaries.major)
        _make_databases(session, notes, binaries.major)
    fill(dump, cluster.address(notes.database), binaries, progress)
    with administering(cluster.address()) as session:
        for setting in notes.settings:
            if setting.name not in noting.PRELOADS:
                session.execute(noting.apply_setting(setting, setting.database))
        for statement in noting.apply_grants(notes, notes.database):
            session.execute(statement)
    scratch.stop(place.data, cleanly=True)
    port = scratch.start(place, place.data, binaries, {"handrail.clone": marker})
    return Cluster(place, place.data, binaries, superuser, password, port)


def _check_extensions(session: Session, notes: Notes) -> None:
    here = {
        name for (name,) in rows(session, "SELECT name FROM pg_catalog.pg_available_extensions")
    }
    missing = sorted(set(notes.extensions) - here)
    if missing:
        raise StoreError(
            "store.tools-missing",
            f"extensions of the database are not on this machine: {', '.join(missing)}",
            hint=f"install them for PostgreSQL {notes.major} here, then try again",
        )


def _make_roles(session: Session, notes: Notes, major: int) -> None:
    for role in notes.roles:
        session.execute(noting.create_role(role))
    for role in notes.roles:
        for statement in noting.grant_memberships(role, major):
            session.execute(statement)


def _make_databases(session: Session, notes: Notes, major: int) -> None:
    for name, owner in notes.databases:
        query = sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER {} STRATEGY file_copy")
        session.execute(query.format(sql.Identifier(name), sql.Identifier(owner)))
    if notes.database in {"postgres", "template1"}:
        session.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
                sql.Identifier(notes.database), sql.Identifier(str(notes.properties["owner"]))
            )
        )
    else:
        session.execute(noting.create_database(notes, notes.database, major))


def fill(dump: Path, target: Address, binaries: Binaries, progress: Progress) -> None:
    """Restore a dump into the empty database `target`.

    Raises:
        StoreError: anything of it could not be restored.
    """
    argv = [binaries.program("pg_restore"), "-j", str(jobs()), "--no-password"]
    # libpq does not read PGDATABASE for pg_restore: without -d it writes SQL to stdout.
    argv += ["-d", target.database, str(dump)]
    total = tree_bytes(dump)
    process = Running(argv, target)
    try:
        code, said = process.finish(lambda: progress(0, total))
    finally:
        process.end()
    wrong = [line for line in said.splitlines() if "error:" in line]
    wrong = [line for line in wrong if not any(text in line for text in HARMLESS)]
    if wrong or (code != 0 and "errors ignored on restore" not in said):
        raise StoreError(
            "backup.not-restorable",
            f"pg_restore failed: {process.shorten(' '.join(wrong) or said)}",
            hint="this backup does not count; make another, or install what the message names",
        )
    progress(total, total)


def _from_copy(
    copy: Path,
    notes: Notes,
    place: Place,
    binaries: Binaries,
    marker: str,
    progress: Progress,
) -> Cluster:
    if binaries.major != notes.major:
        raise StoreError(
            "store.tools-missing",
            f"a physical copy of PostgreSQL {notes.major} needs that server on this machine",
            hint=f"apt install postgresql-{notes.major}, or set HANDRAIL_POSTGRES_BIN",
        )
    total = tree_bytes(copy)
    scratch.own_folder(place, place.data)
    copy_tree(copy, place, place.data)
    progress(total, total)
    _forget_original(place.data)
    _configure(place.data, notes, binaries)
    scratch.hand_over(place, place.data)
    superuser, password = _enter(place, binaries)
    port = scratch.start(place, place.data, binaries, {"handrail.clone": marker})
    cluster = Cluster(place, place.data, binaries, superuser, password, port)
    with administering(cluster.address()) as session:
        _check_extensions(session, notes)
    with administering(cluster.address(notes.database)) as session:
        _mend_collation(session)
    return cluster


def copy_tree(source: Path, place: Place, target: Path, *, without: str = "") -> None:
    """Copy all below `source` into the folder `target`; share blocks where the disk can.

    A running server removes files meanwhile; its log says so to the copy.
    """
    names = [str(path) for path in source.iterdir() if path.name != without]
    argv = ["cp", "-a", "--reflink=auto", "-t", str(target), "--", *names]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    gone = ("No such file or directory", "file vanished")
    if done.returncode != 0 and not all(said.endswith(gone) for said in done.stderr.splitlines()):
        full = "No space left" in done.stderr
        raise StoreError(
            "store.disk-full" if full else "clone.failed",
            f"copying the files failed: {done.stderr.strip()[-300:]}",
            hint="see the message; what was copied goes with `discard`",
        )
    scratch.hand_over(place, target)


def _forget_original(data: Path) -> None:
    """Remove what would make the copy follow, archive, load or open what the original does."""
    for name in ("standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts"):
        (data / name).unlink(missing_ok=True)
    for name in ("postgresql.conf", "postgresql.auto.conf", "pg_ident.conf"):
        (data / name).write_text("")
    (data / "pg_hba.conf").write_text(HBA)
    for slot in (data / "pg_replslot").iterdir():
        shutil.rmtree(slot)


def _configure(data: Path, notes: Notes, binaries: Binaries) -> None:
    """Write the settings of the original that change what a statement does."""
    if binaries.major != notes.major:
        return
    lines = [f"{k} = '{v.replace(chr(39), chr(39) * 2)}'" for k, v in notes.configuration.items()]
    with (data / "postgresql.conf").open("a") as file:
        file.write("\n" + "\n".join(lines) + "\n")


def _enter(place: Place, binaries: Binaries) -> tuple[str, str]:
    """Make a superuser of ours in a stopped copy, and take every other login away."""
    superuser, password = f"handrail_{secrets.token_hex(4)}", secrets.token_hex(16)
    statements = (
        "SET synchronous_commit = on;",
        "UPDATE pg_catalog.pg_authid SET rolpassword = NULL, rolcanlogin = false;",
        "UPDATE pg_catalog.pg_subscription SET subenabled = false;",
        "UPDATE pg_catalog.pg_database SET datallowconn = true WHERE datname = 'postgres';",
        f"CREATE ROLE {superuser} SUPERUSER LOGIN PASSWORD '{password}';",
    )
    options = [f"-c{name}={value}" for name, value in scratch.SETTINGS.items()]
    argv = [binaries.program("postgres"), "--single", "-D", str(place.data), *options]
    argv += ["-csearch_path=pg_catalog", "-cevent_triggers=off"][: 1 + (binaries.major > 16)]  # noqa: PLR2004 - where it came
    # One line is one statement to a server in single-user mode.
    scratch.run_as(place, [*argv, "template1"], text="\n".join(statements) + "\n")
    return superuser, password


def _mend_collation(session: Session) -> None:
    """Make text indexes anew when this machine sorts otherwise than the original's."""
    other = one(
        session,
        "SELECT datcollversion <> pg_catalog.pg_database_collation_actual_version(oid)"
        " FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
    )
    if other:
        name = sql.Identifier(str(one(session, "SELECT pg_catalog.current_database()")))
        session.execute(sql.SQL("REINDEX DATABASE {}").format(name))
        session.execute(sql.SQL("ALTER DATABASE {} REFRESH COLLATION VERSION").format(name))


def _cut_off(session: Session) -> None:
    """Point every foreign server at nothing."""
    found = rows(
        session,
        "SELECT s.srvname, o FROM pg_catalog.pg_foreign_server s LEFT JOIN LATERAL"
        " pg_catalog.unnest(s.srvoptions) o ON true JOIN pg_catalog.pg_foreign_data_wrapper w"
        " ON w.oid = s.srvfdw WHERE w.fdwname IN ('postgres_fdw', 'dblink_fdw')",
    )
    has: dict[str, set[str]] = {}
    for server, option in found:
        has.setdefault(server, set()).add(str(option or "").partition("=")[0])
    for server, options in has.items():
        changes = [f"{'SET' if 'host' in options else 'ADD'} host '127.0.0.1'"]
        changes += [f"{'SET' if 'port' in options else 'ADD'} port '1'"]
        changes += [f"DROP {name}" for name in ("hostaddr", "service") if name in options]
        query = sql.SQL("ALTER SERVER {} OPTIONS ({})")
        session.execute(query.format(sql.Identifier(server), noting.words(", ".join(changes))))


def _unanalysed(session: Session) -> sql.Composed:
    """Return an ANALYZE of the tables that have no statistics; of nothing where all have."""
    found = rows(
        session,
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
        " ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm') AND c.reltuples < 0"
        " AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'",
    )
    names = [sql.Identifier(schema, table) for schema, table in found]
    if not names:
        return sql.Composed([sql.SQL("SELECT 1")])
    return sql.SQL("ANALYZE {}").format(sql.SQL(", ").join(names))


def _open_for_script(cluster: Cluster, notes: Notes) -> Address:
    """Let the script's role in, with a password of its own, and return its address."""
    password = secrets.token_hex(16)
    with administering(cluster.address()) as session:
        session.execute(
            sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
                sql.Identifier(notes.user), sql.Literal(password)
            )
        )
    ours = cluster.address(notes.database).parameters
    return Address({**ours, "user": notes.user, "password": password})
