"""Compares two tables of keys: what went, came, changed, shrank, and will go by itself.

Rules:
- A key that is gone because its time had come is no effect.
- A key is updated when its value differs; members that a collection lost are told besides, as
  kind `member`.
- An expiry that came, or came nearer, is `expire`: a deletion that is still to come. One that went,
  or moved away, is an update.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

from handrail.adapters.redis.content import is_same_time

# (verb, kind, pattern) to an amount.
Amounts = Counter[tuple[str, str, str]]


def attach(table: sqlite3.Connection, before: Path) -> None:
    """Make the table of `observe` readable beside the present one, as `was`."""
    table.commit()
    table.execute("ATTACH ? AS was", (f"file:{before}?mode=ro",))


def differences(table: sqlite3.Connection, now_ms: int, *, exact: bool) -> Amounts:
    """Return what differs between `was.keys` and `keys`.

    Args:
        table: of the present, with the earlier one attached.
        now_ms: the server's clock at the present.
        exact: whether both were read with exact expiries.
    """
    found: Amounts = Counter()
    for pattern, number in table.execute(
        "SELECT pattern, count(*) FROM was.keys w WHERE (expires_ms IS NULL OR expires_ms > ?)"
        " AND NOT EXISTS (SELECT 1 FROM main.keys n"
        " WHERE n.database = w.database AND n.key = w.key) GROUP BY 1",
        (now_ms,),
    ):
        found["delete", "key", pattern] += number
    for pattern, number in table.execute(
        "SELECT pattern, count(*) FROM main.keys n WHERE NOT EXISTS (SELECT 1 FROM was.keys w"
        " WHERE w.database = n.database AND w.key = n.key) GROUP BY 1"
    ):
        found["insert", "key", pattern] += number
    _count_changed(table, found, exact=exact)
    return found


def _count_changed(table: sqlite3.Connection, found: Amounts, *, exact: bool) -> None:
    rows = table.execute(
        "SELECT n.pattern, w.type = n.type, w.type = n.type AND w.digest = n.digest,"
        " w.members, n.members, w.expires_ms, n.expires_ms"
        " FROM was.keys w JOIN main.keys n ON n.database = w.database AND n.key = w.key"
        " WHERE w.type <> n.type OR w.digest <> n.digest OR w.expires_ms IS NOT n.expires_ms"
    )
    for pattern, same_type, same_value, members_were, members, was, now in rows:
        same_time = is_same_time(was, now, exact=exact)
        nearer = now is not None and (was is None or now < was) and not same_time
        if nearer:
            found["expire", "key", pattern] += 1
        if not same_value or (not same_time and not nearer):
            found["update", "key", pattern] += 1
        lost = members_were - members if same_type else members_were
        if lost > 0:
            found["delete", "member", pattern] += lost
