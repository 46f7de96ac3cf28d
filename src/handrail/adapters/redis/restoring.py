"""Puts a server's content back to a backup.

Rules:
- The backup is loaded into a server of our own first: one that cannot be loaded changes nothing.
- Only what differs is written: keys that the backup has not are removed, keys that differ are put
  back with their expiry. A key whose time has come since stays away.
- Each batch is one transaction of the server; all of them together are not. What fails half way is
  finished by doing it again: twice equals once.
- Settings that change what commands do, and functions, are put back too. Users are not: their
  passwords are in no backup. What was not put back is returned.
- What was there is not kept beside: there is no place for it. Back up first.
"""

from __future__ import annotations

import secrets
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from redis.exceptions import ResponseError

from handrail.adapters.redis.backups import Notes, loaded, read_notes
from handrail.adapters.redis.connecting import Address, Session, Word, connected
from handrail.adapters.redis.content import functions_checksum
from handrail.adapters.redis.identity import UNADOPTED, put_id
from handrail.adapters.redis.keys import new_table, read_keys
from handrail.adapters.redis.programs import find_program, read_version
from handrail.adapters.redis.settings import make_alike, read_besides
from handrail.adapters.redis.values import SLACK_MS
from handrail.errors import StoreError
from handrail.plans.facts import Backup
from handrail.ports import Progress

_BATCH = 100


def restore(
    address: Address, backup: Backup, environment: Mapping[str, str], progress: Progress
) -> tuple[str, ...]:
    """Put `backup` into the server at `address`, and return what could not be put back."""
    notes = read_notes(backup)
    with tempfile.TemporaryDirectory(prefix="handrail-redis-") as folder:
        at = Path(folder) / secrets.token_hex(4)
        with (
            loaded(Path(backup.path), notes, environment, at) as kept,
            connected(address) as target,
        ):
            return (*_keys(kept, target, progress), *_besides(kept, target, backup, notes))


def hindrance(address: Address, environment: Mapping[str, str]) -> str:
    """Return why `restore` would be refused; empty when nothing is known."""
    with connected(address) as session:
        version = read_version(session.info("server").get("redis_version", ""))
        for command in ("RESTORE", "UNLINK"):
            told = session.many([("ACL", "DRYRUN", address.user or "default", command, "k")])[0]
            if isinstance(told, bytes) and told != b"OK":
                return f"the user {address.user or 'default'} may not {command}"
    try:
        program = find_program(environment, version)
    except StoreError as error:
        return error.message
    if _payload(program.version) > _payload(version):
        return (
            f"redis-server here is {program.version[0]}.{program.version[1]}: what it gives back "
            f"the server, {version[0]}.{version[1]}, would not take"
        )
    return ""


def _payload(version: tuple[int, int]) -> int:
    """Return the version of what DUMP gives: a server takes its own and earlier ones.

    Source: `RDB_VERSION` in rdb.h of each version.
    """
    return sum(version >= known for known in ((7, 0), (7, 2), (7, 4), (8, 0), (8, 2)))


def _keys(kept: Session, target: Session, progress: Progress) -> tuple[str, ...]:
    """Make the keys of `target` those of `kept`."""
    left: list[str] = []
    with new_table() as now, new_table() as wanted:
        is_exact = read_keys(target, now) and read_keys(kept, wanted)
        if not is_exact:
            now.execute("DELETE FROM keys")
            read_keys(target, now)
            read_keys(kept, wanted)
        work = list(_work(now, wanted, 0 if is_exact else SLACK_MS))
        for done, (database, keys) in enumerate(work, 1):
            left += _put(kept, target, database, keys)
            progress(done, len(work))
    return tuple(left)


def _work(
    now: sqlite3.Connection, wanted: sqlite3.Connection, slack_ms: int
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield a database and some keys of it that are not in the target as they are in the backup."""
    for name, table, other in (("missing", wanted, now), ("extra", now, wanted)):
        pending: dict[int, list[bytes]] = {}
        for database, key, *value in table.execute(
            "SELECT database, key, type, digest, expires_ms FROM keys"
        ):
            row = other.execute(
                "SELECT type, digest, expires_ms FROM keys WHERE database = ? AND key = ?",
                (database, key),
            ).fetchone()
            if row is not None and (name == "extra" or _is_same(value, list(row), slack_ms)):
                continue
            batch = pending.setdefault(database, [])
            batch.append(key)
            if len(batch) >= _BATCH:
                yield database, pending.pop(database)
        yield from pending.items()


def _is_same(one: list[object], other: list[object], slack_ms: int) -> bool:
    if one[:2] != other[:2]:
        return False
    was, now = one[2], other[2]
    if isinstance(was, int) and isinstance(now, int):
        return abs(was - now) <= slack_ms
    return was is now


def _put(kept: Session, target: Session, database: int, keys: list[bytes]) -> list[str]:
    """Make some keys what they are in the backup, in one transaction; return what was refused."""
    kept.ask("SELECT", database)
    seconds, micros = kept.ask("TIME")
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    replies = kept.must([pair for key in keys for pair in (("DUMP", key), ("PTTL", key))])
    exact = kept.many([("PEXPIRETIME", key) for key in keys])
    commands: list[tuple[Word, ...]] = []
    for key, payload, left, at in zip(keys, replies[::2], replies[1::2], exact, strict=True):
        if payload is None:
            commands.append(("UNLINK", key))
            continue
        reckoned = now_ms + left if left > 0 else 0
        until = reckoned if isinstance(at, ResponseError) else max(at, 0)
        commands.append(("RESTORE", key, until, payload, "REPLACE", "ABSTTL"))
    target.ask("SELECT", database)
    *_, told = target.must([("MULTI",), *commands, ("EXEC",)])
    return [
        f"key {key.decode('utf-8', 'backslashreplace')}: {reply}"
        for key, reply in zip(keys, told, strict=True)
        if isinstance(reply, ResponseError)
    ]


def _besides(kept: Session, target: Session, backup: Backup, notes: Notes) -> tuple[str, ...]:
    """Put back what is no key, and return what could not be."""
    left = list(make_alike(target, notes.settings))
    if functions_checksum(kept) != functions_checksum(target):
        payload = kept.may("FUNCTION", "DUMP")
        told = target.may("FUNCTION", "RESTORE", payload, "FLUSH") if payload else None
        if told is None:
            left.append("functions")
    found = read_besides(target).users
    if notes.users and found:
        names = sorted(notes.users.keys() | found.keys())
        left += [f"user {name}" for name in names if notes.users.get(name) != found.get(name)]
    who = backup.identity.id.removeprefix("redis:")
    if who != UNADOPTED:
        put_id(target, who)
    return tuple(left)
