"""The gate: what a transaction has done, read inside it before its COMMIT.

Rules:
- Rows are the own backend's counters of every relation that the transaction holds a lock on: what
  cascades, triggers and functions did is among them. Command tags are not.
- The counters are per flush, not per transaction: each reading asks for a flush at the end, and the
  next transaction begins at zero.
- Anything written to the system's own tables asks for a look (`Reading.reshaped`): which table is
  gone or changed, and how many rows went with it, no counter says.
- Every name is qualified, operators too: a script's `search_path` changes nothing here.
- A prepared statement is asked by only where its text is ours, as the server says.
- What cannot be read is refused.

Source: src/backend/utils/activity/pgstat_relation.c, pgstat.c (PostgreSQL 15 to 18)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from handrail.wire.ledger import Key

NAME = "handrail_gate"
_GENUINE = "!"
# Deferred constraints act at COMMIT: bring them forward, so that they are counted.
BEFORE = "SET CONSTRAINTS ALL IMMEDIATE"
# What COMMIT still does (it runs cursors WITH HOLD to their end) may only read from here on.
AFTER = "SET TRANSACTION READ ONLY"
# Cursors of this transaction that its COMMIT runs to their end.
HELD_CURSORS = """SELECT name FROM pg_catalog.pg_cursors WHERE is_holdable
    AND creation_time OPERATOR(pg_catalog.>=) pg_catalog.now()"""
FLUSH = "SELECT pg_catalog.pg_stat_force_next_flush()"
_WRITTEN = (
    "pg_catalog.pg_stat_get_xact_tuples_inserted({0})",
    "pg_catalog.pg_stat_get_xact_tuples_updated({0})",
    "pg_catalog.pg_stat_get_xact_tuples_deleted({0})",
)
_OF_LOCKED = ", ".join(call.format("l.relation") for call in _WRITTEN)
_OF_CATALOG = " OPERATOR(pg_catalog.+) ".join(call.format("c.oid") for call in _WRITTEN)
# The name of a table as effects spell it: the schema `public` is left out.
_SPELLED = """CASE WHEN n.nspname OPERATOR(pg_catalog.=) 'public' THEN ''
    ELSE pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.||) '.' END
    OPERATOR(pg_catalog.||) pg_catalog.quote_ident(c.relname)"""
QUERY = f"""
SELECT l.relation::pg_catalog.text, {_SPELLED}, c.relkind, c.relpersistence, {_OF_LOCKED}
FROM (
    SELECT DISTINCT relation FROM pg_catalog.pg_locks
    WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
        AND locktype OPERATOR(pg_catalog.=) 'relation'
        AND mode OPERATOR(pg_catalog.<>) 'AccessShareLock'
        AND relation OPERATOR(pg_catalog.>=) 16384
) l
LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation
LEFT JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
UNION ALL
SELECT '', pg_catalog.current_setting('track_counts'), 'c', '',
    (SELECT pg_catalog.sum({_OF_CATALOG})::pg_catalog.int8 FROM pg_catalog.pg_class c
        WHERE c.oid OPERATOR(pg_catalog.<) 16384 AND c.relkind OPERATOR(pg_catalog.=) 'r'),
    0::pg_catalog.int8,
    pg_catalog.length(pg_catalog.pg_stat_force_next_flush()::pg_catalog.text)
"""  # noqa: S608 - made of constants
# The whole message is what the server keeps as the text of what it prepares.
PREPARE = f"{BEFORE}; PREPARE {NAME} AS {QUERY}"
_OURS = hashlib.sha256(PREPARE.encode()).hexdigest()
# A script can put another statement under that name, in a DO block, where nobody sees it.
_CHECK = f"""
SELECT '{_GENUINE}', pg_catalog.count(*)::pg_catalog.text, '', '', '', '', ''
FROM pg_catalog.pg_prepared_statements p WHERE p.name OPERATOR(pg_catalog.=) '{NAME}'
    AND pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(p.statement, 'UTF8')), 'hex')
        OPERATOR(pg_catalog.=) '{_OURS}'
"""  # noqa: S608 - made of constants
ASK = f"{BEFORE}; {_CHECK}; EXECUTE {NAME}; {AFTER}"
# Where nobody knows whether it is prepared.
ASK_PLAINLY = f"{BEFORE}; {QUERY}; {AFTER}"
_VERBS = ("insert", "update", "delete")
_ROWS_OF = frozenset("rmp")


class GateError(Exception):
    """The gate could not be read: what was done is not known."""


@dataclass(frozen=True)
class Reading:
    """What the gate saw of one transaction.

    Attributes:
        amounts: rows by verb, kind and name; without temporary tables.
        reshaped: rows written to the system's own tables.
        foreign: foreign tables that were locked for writing: what was done there nobody counts.
    """

    amounts: dict[Key, int] = field(default_factory=dict)
    reshaped: int = 0
    foreign: tuple[str, ...] = ()


def read(rows: Iterable[tuple[str | None, ...]], *, prepared: bool) -> Reading:
    """Return what the rows of `ASK`, or of `ASK_PLAINLY` where it is not `prepared`, say.

    Raises:
        GateError: the counters are switched off, or the answer is not what was asked for.
    """
    rows = iter(rows)
    if prepared and next(rows, ())[:2] != (_GENUINE, "1"):
        raise GateError("another statement was put in the place of the guard's own")
    amounts: dict[Key, int] = {}
    foreign: list[str] = []
    summary: tuple[str | None, ...] | None = None
    for row in rows:
        relation, name, kind, persistence, *counts = row
        if not relation:
            summary = row
        elif kind == "f":
            foreign.append(name or relation)
        elif name and kind in _ROWS_OF and persistence != "t":
            noun = "materialized view" if kind == "m" else "table"
            for verb, count in zip(_VERBS, counts, strict=True):
                if int(count or 0):
                    amounts[verb, noun, name] = int(count or 0)
    if summary is None:
        raise GateError("the server's answer is incomplete")
    if summary[1] != "on":
        raise GateError("track_counts is off: rows are not counted")
    return Reading(amounts, int(summary[4] or 0), tuple(foreign))


def of_tag(verb: str, name: str, tag: str) -> dict[Key, int]:
    """Return what the command tag of a plain statement says: `UPDATE 12`, `INSERT 0 3`."""
    count = int(tag.rsplit(" ", 1)[-1])
    return {(verb, "table", name): count} if count else {}
