"""Read every row event of a clone from its write-ahead log, by PostgreSQL's own `test_decoding`.

Rules:
- Exact: what was rolled back is not there, what COMMIT itself did is, for every logged table under
  the name that it had then, whether or not it has a key.
- The log is flushed first: with `synchronous_commit = off` the slot would be behind the script.
- Events are looked at, not consumed: asking twice gives the same.
- Where the plugin is not installed, or the slot is gone, this says so; counters are read instead.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from psycopg import errors

from handrail.adapters.postgres.connecting import Address, administering, one, rows, translate

PREFIX = "handrail_"
NAME = r'(?:"(?:[^"]|"")*"|[^",.: ]+)'
QUALIFIED = re.compile(rf"({NAME})\.({NAME})")


@dataclass(frozen=True)
class Events:
    """What was done to the rows of one table; `truncated` counts TRUNCATE."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    truncated: int = 0

    def plus(self, verb: str, amount: int) -> Events:
        """Return these and `amount` more of one kind."""
        return Events(
            self.inserted + (amount if verb == "INSERT" else 0),
            self.updated + (amount if verb == "UPDATE" else 0),
            self.deleted + (amount if verb == "DELETE" else 0),
            self.truncated + (amount if verb == "TRUNCATE" else 0),
        )


def begin(address: Address) -> str:
    """Begin to record in the database at `address`; return the slot, empty where it cannot.

    A slot begins where no transaction is open: one that was prepared may stay so for ever.
    """
    slot = f"{PREFIX}{secrets.token_hex(6)}"
    with administering(address) as session:
        if one(session, "SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts)"):
            return ""
        try:
            session.execute("SET statement_timeout = '60s'")
            session.execute(
                "SELECT pg_catalog.pg_create_logical_replication_slot(%s, 'test_decoding')", [slot]
            )
        except (errors.UndefinedFile, errors.QueryCanceled):
            return ""
        except errors.Error as error:
            raise translate(error, address) from error
    return slot


def end_all(address: Address) -> None:
    """Remove the slots of earlier observations."""
    with administering(address) as session:
        session.execute(
            "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM"
            " pg_catalog.pg_replication_slots WHERE slot_name ~ '^handrail_' AND NOT active"
        )


def events(address: Address, slot: str) -> dict[str, Events] | None:
    """Return the events since `begin`, by table name; None when the slot is gone."""
    with administering(address) as session:
        # Few kinds among many lines, which the planner cannot know: count them without sorting.
        session.execute("SET synchronous_commit = on; SET enable_sort = off")
        session.execute("SELECT pg_catalog.pg_logical_emit_message(true, 'handrail', '')")
        if not one(
            session,
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = %s"
            " AND database = pg_catalog.current_database() AND coalesce(wal_status, '') <> 'lost')",
            slot,
        ):
            return None
        found = rows(session, _EVENTS, slot)
    by_table: dict[str, Events] = {}
    for names, verb, amount in found:
        for name in _names(names):
            by_table[name] = by_table.get(name, Events()).plus(verb, amount)
    return by_table


# `table public.t: INSERT: ...`: cut after the verb there are few kinds of lines, and the pattern
# has little to do (OFFSET 0 keeps it out of the inner query). A quoted name may hold anything,
# `: INSERT:` as well: those lines stay long.
_EVENTS = r"""
SELECT m[1], CASE m[2] WHEN 'TRUNCAT' THEN 'TRUNCATE' ELSE m[2] END, pg_catalog.sum(amount)::bigint
FROM (
    SELECT pg_catalog.regexp_match(head,
        '^table ((?:(?:"(?:[^"]|"")*"|[^",: ]+)+(?:, )?)+): (INSERT|UPDATE|DELETE|TRUNCAT)') AS m,
        amount
    FROM (SELECT CASE WHEN pg_catalog.strpos(pg_catalog.left(data, cut), '"') = 0
                THEN pg_catalog.left(data, cut + 8) ELSE data END AS head,
            pg_catalog.count(*) AS amount
        FROM (SELECT data, pg_catalog.strpos(data, ': ') AS cut
            FROM pg_catalog.pg_logical_slot_peek_changes(%s, NULL, NULL, 'include-xids', '0',
                'skip-empty-xacts', '1') WHERE data LIKE 'table %%') l
        GROUP BY 1 OFFSET 0) a) b
WHERE m IS NOT NULL GROUP BY 1, 2"""


def _names(text: str) -> list[str]:
    """Return the tables in `public.a, "b".c`, as effects name them."""
    found = QUALIFIED.findall(text)
    return [name if schema == "public" else f"{schema}.{name}" for schema, name in found]
