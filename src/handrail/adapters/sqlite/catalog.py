"""The shape of a database: tables, columns, other objects and settings, as values.

Rules:
- The identity table is not part of the shape: `identity` alone tells of it.
- Tables that hold what a virtual table stores (`docs_content` of `docs`) are not tables of their
  own: the virtual table speaks for them. A virtual table whose module this library lacks speaks
  for nothing, and its storage tables are then ordinary ones.
- What `ANALYZE` writes (`sqlite_stat1`) is not content.
- SQL is compared by its words: white space, comments and the object's own name do not count.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from handrail.adapters.sqlite.connecting import Snapshot, quoted

IDENTITY_TABLE = "_handrail_identity"
SEQUENCES = "sqlite_sequence"
_SETTINGS = ("application_id", "auto_vacuum", "encoding", "journal_mode", "user_version")
_STORAGE = {
    "fts3": ("content", "segments", "segdir", "docsize", "stat"),
    "fts4": ("content", "segments", "segdir", "docsize", "stat"),
    "fts5": ("data", "idx", "content", "docsize", "config"),
    "rtree": ("node", "rowid", "parent"),
    "rtree_i32": ("node", "rowid", "parent"),
    "geopoly": ("node", "rowid", "parent"),
}
# Virtual tables that only show what is stored elsewhere, as views do.
_DERIVED = frozenset({"dbstat", "fts3tokenize", "fts4aux", "fts5vocab"})
_TOKENS = re.compile(
    r"""(?P<skip>\s+|--[^\n]*|/\*.*?(?:\*/|$))
    |'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|\w+|.""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Column:
    """One column, as `PRAGMA table_xinfo` tells it.

    Attributes:
        name: as the schema spells it.
        type: declared; may be empty.
        not_null: whether NULL is refused.
        default: SQL text; None when there is none.
        key: place in the primary key, from 1; 0 when it is not in it.
        is_generated: it is computed from others.
    """

    name: str
    type: str
    not_null: bool
    default: str | None
    key: int
    is_generated: bool

    @property
    def affinity(self) -> str:
        """What SQLite makes of the declared type. Source: sqlite.org/datatype3.html, 3.1."""
        kind = self.type.upper()
        if "INT" in kind:
            return "INTEGER"
        if any(word in kind for word in ("CHAR", "CLOB", "TEXT")):
            return "TEXT"
        if not kind or "BLOB" in kind:
            return "BLOB"
        if any(word in kind for word in ("REAL", "FLOA", "DOUB")):
            return "REAL"
        return "NUMERIC"


@dataclass(frozen=True)
class Table:
    """One table that holds rows.

    Attributes:
        name: as the schema spells it.
        body: its SQL after the name, normalised.
        columns: all that hold or compute values, in order; hidden ones are left out.
        module: of a virtual table; empty for an ordinary one.
    """

    name: str
    body: str
    columns: tuple[Column, ...]
    module: str = ""

    @property
    def stored(self) -> tuple[Column, ...]:
        """The columns that hold values of their own."""
        return tuple(column for column in self.columns if not column.is_generated)

    @property
    def key(self) -> tuple[Column, ...]:
        """The declared primary key, in its order; empty when there is none."""
        return tuple(sorted((c for c in self.columns if c.key), key=lambda c: c.key))

    @property
    def row_number(self) -> str | None:
        """A name under which SQLite's own row number can be read; None when all are taken."""
        taken = {column.name.casefold() for column in self.columns}
        return next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), None)


@dataclass(frozen=True)
class Piece:
    """An index, view or trigger; or a virtual table that cannot be read.

    Attributes:
        table: that it belongs to.
        body: its SQL after the name, normalised.
    """

    table: str
    body: str


@dataclass(frozen=True)
class Catalog:
    """The whole shape.

    Attributes:
        tables: by name.
        pieces: by (kind, name).
        settings: what a file keeps besides: `user_version` and the like.
        sequences: the highest number that AUTOINCREMENT has given, by table.
        identity: the id in the identity table; None when that table is not there.
    """

    tables: Mapping[str, Table]
    pieces: Mapping[tuple[str, str], Piece]
    settings: Mapping[str, str]
    sequences: Mapping[str, int]
    identity: str | None

    @property
    def checksum(self) -> str:
        """SHA-256 over everything that is not rows."""
        shape = [
            sorted((name, table.body) for name, table in self.tables.items()),
            sorted((*key, piece.table, piece.body) for key, piece in self.pieces.items()),
            sorted(self.settings.items()),
        ]
        return hashlib.sha256(json.dumps(shape).encode()).hexdigest()


def read_catalog(connection: Snapshot, schema: str = "main") -> Catalog:
    """Return the shape of the attached database `schema`."""
    rows = connection.execute(
        f"SELECT type, name, tbl_name, sql FROM {quoted(schema)}.sqlite_master"  # noqa: S608 - quoted
    ).fetchall()
    all_tables = [(name, sql or "") for kind, name, _, sql in rows if kind == "table"]
    tables = _read_tables(connection, schema, all_tables)
    hidden = _storage_names(tables.values())
    return Catalog(
        tables={name: t for name, t in tables.items() if name not in hidden and t.columns},
        pieces=_pieces(rows, tables),
        settings={name: _setting(connection, schema, name) for name in _SETTINGS},
        sequences=_read_sequences(connection, schema, [name for name, _ in all_tables]),
        identity=_read_identity(connection, schema, [name for name, _ in all_tables]),
    )


def words(sql: str) -> list[str]:
    """Return the words of `sql`, without white space and comments."""
    return [found.group() for found in _TOKENS.finditer(sql) if found.lastgroup != "skip"]


def _read_tables(
    connection: Snapshot, schema: str, declared: list[tuple[str, str]]
) -> dict[str, Table]:
    found = {}
    for name, sql in declared:
        if name == IDENTITY_TABLE or name.startswith("sqlite_"):
            continue
        text = words(sql)
        is_virtual = text[1:2] == ["VIRTUAL"]
        module = text[5].lower() if is_virtual and len(text) > 5 else ""  # noqa: PLR2004 - the word
        # CREATE TABLE name ... | CREATE VIRTUAL TABLE name USING module ...
        body = " ".join(text[4:] if is_virtual else text[3:])
        columns = _read_columns(connection, schema, name, module)
        found[name] = Table(name, body, columns, module)
    return found


def _read_columns(connection: Snapshot, schema: str, name: str, module: str) -> tuple[Column, ...]:
    """Return the columns; none for a virtual table that cannot be read, or shows others' rows."""
    if module in _DERIVED:
        return ()
    try:
        rows = connection.execute(f"PRAGMA {quoted(schema)}.table_xinfo({quoted(name)})").fetchall()
        if module:
            source = f"{quoted(schema)}.{quoted(name)}"
            connection.execute(f"SELECT * FROM {source} LIMIT 1").fetchone()  # noqa: S608 - quoted
    except sqlite3.OperationalError:
        if module:
            return ()
        raise
    # The last field: 0 ordinary, 1 hidden column of a virtual table, 2 and 3 generated.
    return tuple(
        Column(name, kind, bool(not_null), default, key, hidden > 1)
        for _, name, kind, not_null, default, key, hidden in rows
        if hidden != 1
    )


def _storage_names(tables: Iterable[Table]) -> frozenset[str]:
    return frozenset(
        f"{table.name}_{suffix}"
        for table in tables
        if table.columns
        for suffix in _STORAGE.get(table.module, ())
    )


def _pieces(
    rows: list[tuple[str, str, str, str | None]], tables: Mapping[str, Table]
) -> dict[tuple[str, str], Piece]:
    found = {}
    for kind, name, owner, sql in rows:
        if kind != "table" and sql is not None and owner != IDENTITY_TABLE:
            found[(kind, name)] = Piece(owner, _body(sql))
    for table in tables.values():
        if not table.columns:
            found[("virtual table", table.name)] = Piece(table.name, table.body)
    return found


def _body(sql: str) -> str:
    """Return the words after the name: CREATE VIEW name ..., CREATE UNIQUE INDEX name ..."""
    text = words(sql)
    return " ".join(["UNIQUE", *text[4:]] if text[1:2] == ["UNIQUE"] else text[3:])


def _setting(connection: Snapshot, schema: str, name: str) -> str:
    value = str(connection.execute(f"PRAGMA {quoted(schema)}.{name}").fetchone()[0])
    if name != "journal_mode":
        return value
    frozen = connection.frozen.get(schema)
    is_wal = value == "wal" or (frozen is not None and has_wal_header(frozen))
    # Of the journal modes only WAL is kept in the file; the rest is each connection's own.
    return "wal" if is_wal else "delete"


def has_wal_header(copy: Path) -> bool:
    """Whether a file that nobody has open is to be opened with a write-ahead log.

    Source: sqlite.org/fileformat2.html, 1.3: the read version, at offset 19.
    """
    with copy.open("rb") as stream:
        return stream.read(20)[19:] == b"\x02"


def _read_sequences(connection: Snapshot, schema: str, names: list[str]) -> dict[str, int]:
    if SEQUENCES not in names:
        return {}
    rows = connection.execute(f"SELECT name, seq FROM {quoted(schema)}.{SEQUENCES}")  # noqa: S608
    # Anybody may write anything into it; what is no number numbers nothing.
    return {str(name): number for name, number in rows if isinstance(number, int)}


def _read_identity(connection: Snapshot, schema: str, names: list[str]) -> str | None:
    if IDENTITY_TABLE not in names:
        return None
    source = f"{quoted(schema)}.{IDENTITY_TABLE}"
    row = connection.execute(f"SELECT id FROM {source} ORDER BY rowid LIMIT 1").fetchone()  # noqa: S608
    return str(row[0]) if row else ""
