"""Put a database back: restore beside it, then swap the two names in one transaction.

Rules:
- What was there stays, as `<name>_before_<short>`; nothing is overwritten, so an error leaves the
  store as it was.
- Both renames commit together: after a kill the database is the old one or the new one. What a cut
  off attempt left is found by its name and made anew.
- A second restore of the same backup that finds it done (equal checksums) does nothing.
- Of the cluster nothing is put back: what differs there (roles, settings, databases) is returned.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from psycopg import sql

from handrail.adapters.postgres import cloning
from handrail.adapters.postgres import notes as noting
from handrail.adapters.postgres.backups import DUMP, Running, jobs
from handrail.adapters.postgres.binaries import choose
from handrail.adapters.postgres.catalog import Item, read_cluster
from handrail.adapters.postgres.connecting import (
    Address,
    Session,
    administering,
    administrative,
    one,
    reading,
    rows,
)
from handrail.adapters.postgres.content import fingerprint
from handrail.adapters.postgres.diffing import differences
from handrail.adapters.postgres.notes import Notes
from handrail.adapters.postgres.scratch import discard
from handrail.errors import StoreError
from handrail.plans.facts import Backup
from handrail.ports import Progress

LEAVE_TIMEOUT_S = 10.0
NAME_BYTES = 63


def restore(
    address: Address,
    backup: Backup,
    environment: Mapping[str, str],
    progress: Progress,
    baseline: tuple[Item, ...] | None = None,
) -> tuple[str, ...]:
    """Put the database at `address` back to `backup`; return what of the cluster differs.

    `baseline` is what the cluster is compared to: by default what it was when backed up.

    Raises:
        StoreError: it could not be done; the database is as it was.
    """
    folder = Path(backup.path)
    notes = noting.read(folder)
    name = address.database or notes.database
    admin = administrative(address.on(name))
    short = hashlib.sha256(backup.id.encode()).hexdigest()[:8]
    new = _suffixed(name, f"_handrail_{short}")
    _reopen(admin, name, notes)
    if not _is_done(admin, address.on(name), backup, short):
        with _dump_of(folder, notes, environment, progress) as dump:
            _restore_beside(admin, address.on(new), dump, notes, environment, progress)
        _swap(admin, name, new, short)
    return _residue(admin, notes, {name, new}, short, baseline)


def _suffixed(name: str, suffix: str) -> str:
    """Return `name` with `suffix`, shortened to what PostgreSQL takes as a name."""
    kept = name.encode()[: NAME_BYTES - len(suffix)].decode(errors="ignore")
    return kept + suffix


def _exists(session: Session, name: str) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = %s)"
    return bool(one(session, query, name))


def _reopen(admin: Address, name: str, notes: Notes) -> None:
    """Let connections in again where an attempt was cut off between closing and swapping."""
    with administering(admin) as session:
        closed = one(
            session, "SELECT NOT datallowconn FROM pg_catalog.pg_database WHERE datname = %s", name
        )
        if closed and notes.properties.get("datallowconn"):
            _allow(session, name, allowed=True)


def _allow(session: Session, name: str, *, allowed: bool) -> None:
    query = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    session.execute(query.format(sql.Identifier(name), sql.SQL("true" if allowed else "false")))


def _is_done(admin: Address, target: Address, backup: Backup, short: str) -> bool:
    """Return whether this backup was restored here before, and nothing has changed since."""
    with administering(admin) as session:
        kept = _kept_names(session, short)
        if not kept or not _exists(session, target.database) or backup.fingerprint is None:
            return False
    with reading(target, timeout_s=0) as session:
        return not fingerprint(session).differences(backup.fingerprint)


def _kept_names(session: Session, short: str) -> set[str]:
    query = "SELECT datname FROM pg_catalog.pg_database WHERE datname ~ %s"
    return {str(name) for (name,) in rows(session, query, f"_before_{short}(_[0-9]+)?$")}


@contextmanager
def _dump_of(
    folder: Path, notes: Notes, environment: Mapping[str, str], progress: Progress
) -> Iterator[Path]:
    """Give the dump of a backup: of a physical one by a cluster that runs for this alone."""
    if notes.form == "pg_dump":
        if not (folder / DUMP / "toc.dat").is_file():
            raise StoreError(
                "backup.damaged",
                f"the backup in {folder} is not complete",
                hint="use another backup; they lie beside it",
            )
        yield folder / DUMP
        return
    at = folder.with_name(folder.name + ".restoring")
    dump = folder.with_name(folder.name + ".dump")
    _remove(at, dump)
    try:
        made = cloning.make(folder, at, "restoring", environment, progress)
        source = made.cluster.address(notes.database)
        argv = [made.cluster.binaries.program("pg_dump"), "-Fd", "-f", str(dump), "-Z", "0"]
        process = Running([*argv, "-j", str(jobs()), "--no-password", "--no-sync"], source)
        try:
            process.wait(lambda: None)
        finally:
            process.end()
        yield dump
    finally:
        _remove(at, dump)


def _remove(at: Path, dump: Path) -> None:
    discard(at)
    shutil.rmtree(dump, ignore_errors=True)


def _restore_beside(
    admin: Address,
    new: Address,
    dump: Path,
    notes: Notes,
    environment: Mapping[str, str],
    progress: Progress,
) -> None:
    with administering(admin) as session:
        _check_rights(session, notes, admin)
        major = int(one(session, "SHOW server_version_num")) // 10000
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(
            sql.Identifier(new.database)
        )
        session.execute(drop)
        session.execute(noting.create_database(notes, new.database, major))
    try:
        cloning.fill(dump, new, choose(max(major, notes.major), environment), progress)
        with administering(new) as session:
            session.execute("ANALYZE")
        with administering(admin) as session:
            for setting in notes.settings:
                if setting.database == notes.database:
                    session.execute(noting.apply_setting(setting, new.database))
            for statement in noting.apply_grants(notes, new.database):
                session.execute(statement)
    except BaseException:
        with administering(admin) as session:
            session.execute(drop)
        raise


def hindrance(address: Address) -> str:
    """Return why `restore` would be refused to this role; empty when it would not."""
    with administering(address) as session:
        owner = one(
            session,
            "SELECT pg_catalog.pg_get_userbyid(datdba)::text FROM pg_catalog.pg_database"
            " WHERE datname = pg_catalog.current_database()",
        )
        return "" if _may_restore(session, str(owner)) else _HINDRANCE


_HINDRANCE = "restoring makes a database, and this role has no CREATEDB or does not own the old one"


def _may_restore(session: Session, owner: str) -> bool:
    return bool(
        one(
            session,
            "SELECT rolsuper OR (rolcreatedb AND pg_catalog.pg_has_role(%s::name, 'MEMBER'))"
            " FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER",
            owner,
        )
    )


def _check_rights(session: Session, notes: Notes, admin: Address) -> None:
    if not _may_restore(session, notes.properties["owner"]):
        raise StoreError(
            "store.denied",
            f"PostgreSQL at {admin}: {_HINDRANCE}",
            hint="give it CREATEDB, and membership in the role that owns the database",
        )


def _swap(admin: Address, name: str, new: str, short: str) -> None:
    """Give `new` the name, and keep what had it; both at once, after everybody has left."""
    with administering(admin) as session:
        identifier = sql.Identifier
        rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        if not _exists(session, name):
            session.execute(rename.format(identifier(new), identifier(name)))
            return
        kept = _free_name(session, name, short)
        allowed = bool(
            one(session, "SELECT datallowconn FROM pg_catalog.pg_database WHERE datname = %s", name)
        )
        _allow(session, name, allowed=False)
        old = name
        try:
            _send_away(session, (name, new))
            with session.transaction():
                session.execute(rename.format(identifier(name), identifier(kept)))
                session.execute(rename.format(identifier(new), identifier(name)))
            old = kept
        finally:
            _allow(session, old, allowed=allowed)


def _free_name(session: Session, name: str, short: str) -> str:
    number, kept = 1, _suffixed(name, f"_before_{short}")
    while _exists(session, kept):
        number += 1
        kept = _suffixed(name, f"_before_{short}_{number}")
    return kept


def _send_away(session: Session, names: tuple[str, ...]) -> None:
    deadline = time.monotonic() + LEAVE_TIMEOUT_S
    query = (
        "SELECT pg_catalog.pg_terminate_backend(pid), usename FROM pg_catalog.pg_stat_activity"
        " WHERE datname = ANY (%s)"
    )
    while left := rows(session, query, list(names)):
        if time.monotonic() > deadline:
            who = ", ".join(sorted({str(user) for _, user in left}))
            raise StoreError(
                "store.failed",
                f"connections to the database did not end: {who}",
                hint="end them, then try again: nothing was changed",
            )
        time.sleep(0.02)


def _residue(
    admin: Address,
    notes: Notes,
    ours: set[str],
    short: str,
    baseline: tuple[Item, ...] | None,
) -> tuple[str, ...]:
    """Return what of the cluster is not as it was, for people."""
    with reading(admin) as session:
        now = read_cluster(session, notes.salt)
        kept = _kept_names(session, short)
    before = notes.cluster if baseline is None else baseline
    keys = {
        i.key
        for i in (*before, *now)
        if i.kind == "database" and i.attributes["_name"] in ours | kept
    }
    found = differences("", _without(before, keys), _without(now, keys), lambda _: None)
    return tuple(sorted({f"{e.kind} {e.name}: {PAST[e.verb]}" for e in found}))


PAST = {
    "drop": "dropped",
    "replace": "replaced",
    "revoke": "rights revoked",
    "grant": "rights granted",
    "alter": "altered",
    "rename": "renamed",
    "create": "created",
}


def _without(items: tuple[Item, ...], databases: set[str]) -> tuple[Item, ...]:
    """Return the items that are not the restored database's own: those were put back."""
    return tuple(
        item
        for item in items
        if not (item.kind == "database" and item.key in databases)
        and not (item.kind == "setting" and item.key.split(".")[0] in databases)
    )
