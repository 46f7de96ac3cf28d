"""A classified statement: what the session must know of one SQL statement before it runs it.

Rules:
- `read` runs in a read-only transaction that the server itself enforces: a wrong `read` fails
  there, it does not write.
- What is not known is `unknown`, and treated as the most destructive thing there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "read",  # SELECT, SHOW, EXPLAIN, FETCH, CLOSE, LISTEN ...: whatever a read-only one may do
    "write",  # anything that runs in a transaction block and may change something
    "begin",  # BEGIN, START TRANSACTION
    "commit",  # COMMIT, END
    "rollback",  # ROLLBACK, ABORT (of the transaction)
    "savepoint",  # SAVEPOINT, RELEASE, ROLLBACK TO
    "setting",  # SET, RESET, DISCARD of what is harmless
    "mode",  # SET TRANSACTION / SESSION CHARACTERISTICS, or of a setting on reading and writing
    "procedure",  # CALL, DO: may commit as it goes
    "alone",  # refuses to run in a transaction block: VACUUM, CREATE DATABASE, CONCURRENTLY ...
    "prepare",  # PREPARE name AS ...: `inner` is what it prepares
    "execute",  # EXECUTE name
    "copy-in",  # COPY ... FROM STDIN
    "two-phase",  # PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED
    "forbidden",  # never under a guard: COPY PROGRAM, SET SESSION AUTHORIZATION, LOAD ...
    "empty",  # no statement at all: comments, a lone semicolon
    "unknown",  # cannot be classified
]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement.

    Attributes:
        text: it alone, without the semicolon, as the client wrote it.
        template: its literals blanked, white space and comments removed; holds no value.
        kind: how it is to be run.
        why: for `forbidden` and `unknown`: why, for people.
        name: of the prepared statement, cursor or setting that it is about; else empty.
        inner: for `prepare`: the statement that is prepared.
        table: for a plain INSERT, UPDATE or DELETE, schema (may be empty) and name.
        verb: for these, `insert`, `update` or `delete`; else empty.
        plain: whether nothing in its text but that table can make it write anything else: no
            function call, no subquery, no CTE, no RETURNING, no operator but the common ones.
        dotted: columns that it names with a table before them (`t.id`). Where all of them are
            columns of that table, and no functions of its rows, it is plain too, whatever `plain`
            says. Empty where it is not plain for another reason.
        chains: for `commit` and `rollback`: AND CHAIN.
        reads_only: for `begin` and `mode`: it asks for READ ONLY (True) or READ WRITE (False).
    """

    text: str
    template: str
    kind: Kind
    why: str = ""
    name: str = ""
    inner: Statement | None = None
    table: tuple[str, str] | None = None
    verb: str = ""
    plain: bool = False
    dotted: tuple[str, ...] = ()
    chains: bool = False
    reads_only: bool | None = None
