"""Read what a database and its cluster consist of, as values that can be compared and kept.

Rules:
- An item is found again by its object id: the same id under another name was renamed, the same
  name under another id was replaced.
- What is not content is left out: statistics, `pg_attver` among column options, members of an
  extension, row types of tables, everything of ours.
- Attributes that begin with `_` are of this copy alone (files); those with `~` are for checksums
  only (the position of a column: dropping one moves the others).
- A password, and the value of a setting, are kept as salted digests: a setting may be a secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import msgspec

from handrail.adapters.postgres.catalog_queries import (
    CLUSTER,
    DATABASE,
    PASSWORDS,
    SYSTEM_SETTINGS,
    without_locks,
)
from handrail.adapters.postgres.connecting import Session, one, rows

# Of a foreign server: a clone's point nowhere, on purpose.
PLACES = ("host=", "hostaddr=", "port=", "dbname=", "service=")


@dataclass(frozen=True)
class Item:
    """One object of a database or cluster.

    Attributes:
        kind: the noun: `table`, `column`, `role` ...
        key: object id, with a part number where it has one; unique within its kind.
        name: as people say it: qualified unless in `public`, quoted where it must be.
        parent: object id of the table, type or sequence owner that it goes with; empty for none.
        attributes: what can be different, as JSON values.
    """

    kind: str
    key: str
    name: str
    parent: str
    attributes: Mapping[str, Any]


def read_database(session: Session, *, locks: bool = True) -> tuple[Item, ...]:
    """Return every object of the database that is not the system's or an extension's.

    Without `locks`, no user's relation is locked, and the attributes `LOCKING` are not read.
    """
    wanted = DATABASE if locks else tuple(map(without_locks, DATABASE))
    return tuple(item for query in wanted for item in _read(session, query))


def read_cluster(session: Session, salt: str) -> tuple[Item, ...]:
    """Return roles, settings, databases, tablespaces and slots of the whole server.

    Passwords and ALTER SYSTEM settings only where this role may read them.
    """
    found = [item for query in CLUSTER for item in _read(session, query)]
    passwords = _passwords(session, salt)
    found = [_with_password(item, passwords) for item in found]
    found += _system_settings(session)
    return tuple(_digested(item, salt) if item.kind == "setting" else item for item in found)


def checksum(items: tuple[Item, ...]) -> str:
    """Return a checksum that is equal for two databases of the same shape, on any server."""
    lines = sorted(_canonical(item) for item in items)
    return hashlib.sha256(b"\n".join(lines)).hexdigest()[:32]


def _canonical(item: Item) -> bytes:
    kept = {k: v for k, v in item.attributes.items() if not k.startswith("_")}
    if item.kind == "server":
        options = kept.get("options") or []
        kept["options"] = [o for o in options if not o.startswith(PLACES)]
    return msgspec.json.encode([item.kind, item.name, kept], order="sorted")


def _read(session: Session, query: str) -> list[Item]:
    return [Item(*row) for row in session.execute(query.encode()).fetchall()]


def may_read_passwords(session: Session) -> bool:
    """Whether this role may see that a password is another."""
    query: LiteralString = "SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')"
    return bool(one(session, query))


def _passwords(session: Session, salt: str) -> dict[str, str]:
    """Return the digest of each role's password verifier; empty where it cannot be read."""
    if not may_read_passwords(session):
        return {}
    return {key: _digest(salt, verifier) for key, verifier in rows(session, PASSWORDS)}


def _with_password(item: Item, passwords: Mapping[str, str]) -> Item:
    if item.kind != "role" or item.key not in passwords:
        return item
    attributes = {**item.attributes, "password": passwords[item.key]}
    return Item(item.kind, item.key, item.name, item.parent, attributes)


def _system_settings(session: Session) -> list[Item]:
    allowed = one(
        session,
        "SELECT has_table_privilege('pg_catalog.pg_file_settings', 'SELECT')"
        " AND has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'EXECUTE')",
    )
    return _read(session, SYSTEM_SETTINGS) if allowed else []


def _digested(item: Item, salt: str) -> Item:
    attributes = {**item.attributes, "value": _digest(salt, str(item.attributes["value"]))}
    return Item(item.kind, item.key, item.name, item.parent, attributes)


def _digest(salt: str, text: str) -> str:
    return hashlib.sha256(f"{salt}\0{text}".encode()).hexdigest()[:32]
