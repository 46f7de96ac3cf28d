"""Measures a server's content: keys a pattern, and checksums that do not depend on order.

Rules:
- A pattern (`session:*`) is to Redis what a table is to a database; those of other databases than 0
  begin with their number, `db1 session:*`.
- A key that expires before the horizon is no content of the checksums: it goes by itself, and would
  make two readings of an untouched server differ. A clone has the horizon of its backup.
- A checksum is the sum of its keys' digests modulo 2^256: order does not count.
- Of more patterns than `MOST_PATTERNS`, keys are told together by the first word of their names, or
  all as one: a fingerprint stays small.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from handrail.adapters.redis.connecting import Session
from handrail.adapters.redis.keys import new_table, read_keys, read_names
from handrail.adapters.redis.values import SLACK_MS
from handrail.plans.facts import Fingerprint, Measure, TableMeasure

MOST_PATTERNS = 1000
# A rehearsal on a clone is over by then: the policy's `clone-deadline` is 4 h when nobody sets it.
HORIZON_MS = 4 * 3600 * 1000
_REST = "(other keys)"
_WIDTH_BYTES = 32


@dataclass(frozen=True)
class Looking:
    """How checksums are made, so that a clone's are comparable with its original's.

    Attributes:
        horizon_ms: since 1970; keys that expire before are left out.
        with_times: whether the moment of an expiry counts, or only that there is one.
    """

    horizon_ms: int
    with_times: bool


def looking_now(session: Session) -> Looking:
    """Return how to look at a server whose clock is the server's own."""
    seconds, _ = session.ask("TIME")
    is_exact = session.may("PEXPIRETIME", "handrail:none") is not None
    return Looking(int(seconds) * 1000 + HORIZON_MS, is_exact)


def measure(session: Session) -> Measure:
    """Return exact keys a pattern, and the bytes that the data takes in memory."""
    with new_table() as table:
        read_names(session, table)
        counts = Counter(dict(table.execute("SELECT pattern, count(*) FROM keys GROUP BY 1")))
    most = counts.most_common(MOST_PATTERNS)
    rest = counts.total() - sum(number for _, number in most)
    found = [TableMeasure(name, number) for name, number in most]
    found += [TableMeasure(_REST, rest)] if rest else []
    memory = session.info("memory")
    size = int(memory.get("used_memory_dataset", memory.get("used_memory", "0")))
    return Measure(tuple(sorted(found, key=lambda one: one.name)), size)


def fingerprint(session: Session, looking: Looking) -> Fingerprint:
    """Return the checksums of all content."""
    with new_table() as table:
        read_keys(session, table)
        tables = checksums(table, looking)
    return Fingerprint(tables, functions_checksum(session))


def checksums(table: sqlite3.Connection, looking: Looking) -> tuple[tuple[str, str], ...]:
    """Return pattern and checksum of what `table` holds, by pattern."""
    found: dict[str, int] = {}
    rows = table.execute(
        "SELECT pattern, database, key, type, expires_ms, digest FROM keys"
        " WHERE expires_ms IS NULL OR expires_ms > ?",
        (looking.horizon_ms,),
    )
    for pattern, *rest in rows:
        found[pattern] = found.get(pattern, 0) + _number(rest, looking)
    return tuple(sorted((name, _digits(total)) for name, total in _folded(found).items()))


def _number(row: list[object], looking: Looking) -> int:
    database, key, kind, expires_ms, digest = row
    when = expires_ms if looking.with_times or expires_ms is None else "expires"
    one = hashlib.blake2b(digest_size=_WIDTH_BYTES)
    one.update(repr((database, key, kind, when, digest)).encode())
    return int.from_bytes(one.digest(), "little")


def _folded(found: dict[str, int]) -> dict[str, int]:
    if len(found) <= MOST_PATTERNS:
        return found
    groups: dict[str, int] = {}
    for name, total in found.items():
        first = re.match(r"(?:db\d+ )?[0-9A-Za-z]*", name)
        group = f"{first.group() if first else ''}..."
        groups[group] = groups.get(group, 0) + total
    return groups if len(groups) <= MOST_PATTERNS else {"(all keys)": sum(groups.values())}


def _digits(total: int) -> str:
    return f"{total % (1 << 8 * _WIDTH_BYTES):0{2 * _WIDTH_BYTES}x}"


def functions(session: Session) -> dict[str, str]:
    """Return each library of functions with a checksum of its code; empty before 7.0."""
    found = {}
    for library in session.may("FUNCTION", "LIST", "WITHCODE") or []:
        told = dict(zip(library[::2], library[1::2], strict=True))
        name = told[b"library_name"].decode("utf-8", "backslashreplace")
        found[name] = hashlib.sha256(told[b"library_code"]).hexdigest()
    return found


def functions_checksum(session: Session) -> str:
    """Return a checksum of everything that is stored and is no key."""
    return _sha256(sorted(functions(session).items()))


def _sha256(items: Iterable[object]) -> str:
    return hashlib.sha256(json.dumps(list(items)).encode()).hexdigest()


def is_same_time(was: int | None, now: int | None, *, exact: bool) -> bool:
    """Whether two readings of an expiry mean the same moment."""
    if was is None or now is None:
        return was is now
    return abs(was - now) <= (0 if exact else SLACK_MS)
