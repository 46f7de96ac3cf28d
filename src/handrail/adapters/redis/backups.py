"""Makes backups: an RDB file taken as a replica takes it, or every key by DUMP.

Rules:
- `redis-rdb` is one moment of the server. `redis-dump`, where the server's user may not replicate
  (most managed servers), is every key as it was when its turn came: no one moment.
- Beside it lies `notes.json`: what a clone needs to be like its original. No password is in it.
- The fingerprint is of what the backup holds: it is loaded into a server of our own and read there.
- ACL users and settings are no part of an RDB file; the notes have their rules. The script cache,
  idle times and who is subscribed to what are kept nowhere.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from redis.exceptions import ResponseError

from handrail.adapters.redis import scratch
from handrail.adapters.redis.connecting import Address, Session, connected
from handrail.adapters.redis.content import Looking, fingerprint, looking_now
from handrail.adapters.redis.keys import IDENTITY_KEY, scan
from handrail.adapters.redis.programs import find_program, read_version
from handrail.adapters.redis.replication import receive
from handrail.adapters.redis.settings import COPIED, Besides, read_besides
from handrail.errors import StoreError
from handrail.plans.facts import Backup, Fingerprint, Identity
from handrail.ports import Progress

RDB_FORM = "redis-rdb"
DUMP_FORM = "redis-dump"
RDB_FILE = "store.rdb"
DUMP_FILE = "keys.sqlite"
NOTES_FILE = "notes.json"
_RESERVE_BYTES = 16 * 1024 * 1024
_SCHEMA = "CREATE TABLE dumps (database INTEGER, key BLOB, expires_ms INTEGER, payload BLOB)"
_PAGE = 100


@dataclass(frozen=True)
class Notes:
    """What stands beside a backup.

    Attributes:
        version: of the server, `7.0.15`.
        databases: how many it has.
        looking: how its checksums are made.
        settings: those that a clone gets.
        users: rules without passwords; empty where they could not be read.
        functions: payload of FUNCTION DUMP in hexadecimal, where the form has none in it.
    """

    version: str
    databases: int
    looking: Looking
    settings: Mapping[str, str]
    users: Mapping[str, str]
    functions: str = ""


def make(
    address: Address,
    backup_id: str,
    into: Path,
    identity: Identity,
    environment: Mapping[str, str],
    progress: Progress,
) -> Backup:
    """Write a backup into the empty directory `into`, durable on return."""
    made_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    try:
        form, notes = _write(address, into, progress)
        held = _fingerprint(into, notes, environment)
        return Backup(
            id=backup_id,
            path=str(into.resolve()),
            form=form,
            size_bytes=sum(path.stat().st_size for path in into.iterdir()),
            made_at=made_at,
            identity=identity,
            fingerprint=held,
        )
    except BaseException:
        for path in into.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _write(address: Address, into: Path, progress: Progress) -> tuple[str, Notes]:
    with connected(address) as session:
        _require_space(session, into)
        notes = _notes(session, read_besides(session))
        form = DUMP_FORM
        try:
            # Over a connection of its own: a replica's cannot be used for anything else.
            with connected(address) as replica:
                receive_or_refuse(replica, into / RDB_FILE, progress)
            form = RDB_FORM
        except StoreError as error:
            if not isinstance(error.__cause__, ResponseError):
                raise
            _write_dumps(session, into / DUMP_FILE, progress)
            payload = session.may("FUNCTION", "DUMP")
            notes = Notes(**{**vars(notes), "functions": payload.hex() if payload else ""})
    _write_notes(into / NOTES_FILE, notes)
    return form, notes


def receive_or_refuse(session: Session, to: Path, progress: Progress) -> None:
    """Take the RDB file; what stands in `to` when that fails is removed."""
    try:
        receive(session, to, progress)
    except ResponseError:
        to.with_name(to.name + ".partial").unlink(missing_ok=True)
        raise


def _notes(session: Session, besides: Besides) -> Notes:
    configured = int(besides.settings.get("databases", "16"))
    used = [int(n[2:]) + 1 for n in session.info("keyspace") if n[2:].isdigit()]
    return Notes(
        version=session.info("server").get("redis_version", ""),
        databases=max(configured, *used, session.address.database + 1, 1),
        looking=looking_now(session),
        settings={n: v for n, v in besides.settings.items() if n in COPIED},
        users=besides.users,
    )


def _write_dumps(session: Session, path: Path, progress: Progress) -> None:
    path.touch(mode=0o600)
    ends = "PTTL" if session.may("PEXPIRETIME", IDENTITY_KEY) is None else "PEXPIRETIME"
    done = 0
    with closing(sqlite3.connect(path)) as table:
        table.execute(_SCHEMA)
        for database, keys in _with_identity(session):
            for start in range(0, len(keys), _PAGE):
                page = keys[start : start + _PAGE]
                table.executemany(
                    "INSERT INTO dumps VALUES (?, ?, ?, ?)", _dumps(session, database, page, ends)
                )
                done += len(page)
                progress(done, None)
        table.commit()
    scratch.flush(path)


def _with_identity(session: Session) -> Iterator[tuple[int, list[bytes]]]:
    session.ask("SELECT", 0)
    yield 0, [IDENTITY_KEY]
    yield from scan(session)


def _dumps(
    session: Session, database: int, keys: list[bytes], ends: str
) -> Iterator[tuple[int, bytes, int, bytes]]:
    seconds, micros = session.ask("TIME")
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    replies = session.must([pair for key in keys for pair in (("DUMP", key), (ends, key))])
    for key, payload, left in zip(keys, replies[::2], replies[1::2], strict=True):
        if payload is not None:
            until = 0 if left < 0 else left + (now_ms if ends == "PTTL" else 0)
            yield database, key, until, payload


def _write_notes(path: Path, notes: Notes) -> None:
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(notes)))
    scratch.flush(path)
    scratch.flush(path.parent)


def read_notes(backup: Backup) -> Notes:
    """Return what stands beside a backup, once its files are those that were written.

    Raises:
        StoreError: it is not there, or not whole.
    """
    folder = Path(backup.path)
    data = folder / (RDB_FILE if backup.form == RDB_FORM else DUMP_FILE)
    try:
        told = json.loads((folder / NOTES_FILE).read_text())
        notes = Notes(**{**told, "looking": Looking(**told["looking"])})
        found = data.stat().st_size + (folder / NOTES_FILE).stat().st_size
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(backup, "a part of it cannot be read") from error
    if found != backup.size_bytes:
        raise _damaged(backup, f"it has {found:,} bytes, and had {backup.size_bytes:,}")
    return notes


def _damaged(backup: Backup, why: str) -> StoreError:
    return StoreError(
        "backup.damaged",
        f"backup {backup.id} is not as it was written: {why}",
        hint="take an older backup, or another copy of it",
    )


def _fingerprint(into: Path, notes: Notes, environment: Mapping[str, str]) -> Fingerprint | None:
    """Return the checksums of what a backup holds; None where no server can read it here."""
    try:
        with loaded(into, notes, environment, into / "checking") as session:
            return fingerprint(session, notes.looking)
    except StoreError as error:
        if error.code == "store.tools-missing":
            return None
        raise


@contextmanager
def loaded(
    folder: Path, notes: Notes, environment: Mapping[str, str], at: Path
) -> Iterator[Session]:
    """Give a session with a passing server, in the new directory `at`, that holds a backup."""
    program = find_program(environment, read_version(notes.version))
    data = folder / RDB_FILE
    has_file = data.is_file()
    with ExitStack() as held:
        passing = scratch.passing(at, program, data if has_file else None, notes.databases)
        try:
            server = held.enter_context(passing)
        except StoreError as error:
            raise StoreError(
                "backup.not-restorable",
                f"the backup cannot be loaded: {error.message}",
                hint="take an older backup",
            ) from error
        session = held.enter_context(connected(server.admin))
        if not has_file:
            load_dumps(session, folder / DUMP_FILE, notes)
        yield session


def load_dumps(session: Session, path: Path, notes: Notes) -> None:
    """Put every key of a `redis-dump` into an empty server."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as table:
        rows = table.execute("SELECT database, key, expires_ms, payload FROM dumps")
        while page := rows.fetchmany(_PAGE):
            commands: list[tuple[bytes | str | int, ...]] = []
            for database, key, expires_ms, payload in page:
                restore = ("RESTORE", key, expires_ms, payload, "REPLACE", "ABSTTL")
                commands += [("SELECT", database), restore]
            session.must(commands)
    if notes.functions:
        session.ask("FUNCTION", "RESTORE", bytes.fromhex(notes.functions), "FLUSH")


def _require_space(session: Session, into: Path) -> None:
    """Check that a backup fits: an RDB file is hardly ever larger than its data in memory."""
    wanted = int(session.info("memory").get("used_memory_dataset", "0"))
    free = shutil.disk_usage(into).free
    if free < wanted + _RESERVE_BYTES:
        raise StoreError(
            "store.disk-full",
            f"a backup needs up to {wanted:,} bytes in `{into}`, and {free:,} are free",
            hint="free space there, or give another directory",
        )
